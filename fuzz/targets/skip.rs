//! Leaving out the lines that are refused gives the table that the other lines alone give.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rollkit::jsonl::{Options, Table, parse};

/// The lines that can be added, one by one, to those before them. Quadratic.
fn good(data: &[u8]) -> (Vec<u8>, usize) {
    let (mut kept, mut skipped) = (Vec::new(), 0);
    for line in data.split(|&byte| byte == b'\n') {
        let longer = [&kept[..], line, b"\n"].concat();
        if parse(&longer, &Options::default()).is_ok() {
            kept = longer;
        } else {
            skipped += 1;
        }
    }
    (kept, skipped)
}

fuzz_target!(|data: &[u8]| {
    // Only the file's own first line may have a byte order mark.
    if data.contains(&0xEF) || data.len() > 2000 {
        return;
    }
    let (kept, skipped) = good(data);
    let wanted = parse(&kept, &Options::default()).unwrap();
    let got = parse(data, &Options { skip: true, ..Options::default() }).unwrap();
    assert_eq!(got, Table { skipped, ..wanted }, "{}", String::from_utf8_lossy(data));
});
