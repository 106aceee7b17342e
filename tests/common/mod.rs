//! What the tests share.

/// How many examples proptest tries where `count` are thorough; `tests/thorough.py` says what the levels are.
pub fn examples(count: u32) -> u32 {
    match std::env::var("ROLLKIT_THOROUGH").as_deref() {
        Ok("1") => count,
        Ok("2") => count * 25,
        Ok("valgrind") => (count / 400).max(2), // which runs fifty times slower
        _ => count / 4,
    }
}

/// One of how many inputs a sweep through all tries: every one, but under valgrind.
#[allow(dead_code, reason = "not every test sweeps")]
pub fn stride() -> usize {
    if std::env::var("ROLLKIT_THOROUGH").is_ok_and(|level| level == "valgrind") { 41 } else { 1 }
}
