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
