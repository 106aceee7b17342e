//! Base64: any range of any text decodes to what decoding it all gives, or is refused.

#![no_main]

#[path = "../../tests/oracles/routing.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use rollkit::routing::Base64;

fuzz_target!(|case: (Vec<u8>, u16, u16, bool)| {
    let (data, a, b, garbage) = case;
    if garbage {
        for bytes in [data.len() / 4 * 3, usize::from(a)] {
            let Ok(base64) = Base64::new(&data, bytes) else { continue };
            let _ = base64.decode(usize::from(b), &mut vec![0u8; usize::from(a)]);
        }
        return;
    }
    let text = oracle::encode(&data);
    let base64 = Base64::new(&text, data.len()).unwrap();
    let (begin, end) = (usize::from(a.min(b)), usize::from(a.max(b)));
    let mut out = vec![7u8; end - begin];
    let done = base64.decode(begin, &mut out);
    match data.get(begin..end) {
        Some(wanted) => assert_eq!((done, &out[..]), (Ok(()), wanted)),
        None => assert!(done.is_err()),
    }
});
