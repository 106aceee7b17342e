//! Any range of a base64 text decodes to what decoding all of it and slicing gives.

#[path = "oracles/routing.rs"]
mod oracle;

use std::mem::MaybeUninit;

use oracle::encode;
use proptest::collection::vec;
use proptest::prelude::*;
use rollkit::Error;
use rollkit::cast::Dtype;
use rollkit::routing::{Base64, range};

/// Ranges that begin and end anywhere, in texts of one block of the decoder or several.
fn cases() -> impl Strategy<Value = (Vec<u8>, usize, usize)> {
    let bytes = prop_oneof![vec(any::<u8>(), 0..50), vec(any::<u8>(), 6_000..20_000)];
    bytes
        .prop_flat_map(|bytes| {
            let size = bytes.len();
            (Just(bytes), 0..=size, 0..=size)
        })
        .prop_map(|(bytes, a, b)| (bytes, a.min(b), a.max(b)))
}

proptest! {
    #[test]
    fn decodes_any_range((bytes, begin, end) in cases()) {
        let text = encode(&bytes);
        let base64 = Base64::new(&text, bytes.len())?;
        let mut out = vec![7; end - begin];
        base64.decode(begin, &mut out)?;
        prop_assert_eq!(&out, &bytes[begin..end]);
        let mut fresh = vec![MaybeUninit::uninit(); end - begin];
        base64.decode(begin, &mut fresh)?;
    }

    #[test]
    fn names_what_is_malformed(
        (bytes, begin, end) in cases(),
        at in any::<prop::sample::Index>(),
        bad in prop::sample::select(&b"-_ \n\0=\xff"[..]),
    ) {
        prop_assume!(begin < end);
        let mut text = encode(&bytes);
        // Of characters whose group is read, but not the last group's, where '=' may be right.
        let groups = begin / 3..(end.div_ceil(3)).min(bytes.len() / 3);
        prop_assume!(!groups.is_empty() && groups.end * 4 + 4 <= text.len());
        let position = groups.start * 4 + at.index(groups.len() * 4);
        text[position] = bad;
        let found = Base64::new(&text, bytes.len())?.decode(begin, &mut vec![0; end - begin]);
        prop_assert_eq!(found, Err(Error::Base64 { position, found: bad }));
    }

    #[test]
    fn range_is_that_of_the_values(values in vec(any::<i64>(), 0..300)) {
        fn of<T: Copy + Ord + Into<i128>>(values: &[T]) -> Option<(i128, i128)> {
            Some(((*values.iter().min()?).into(), (*values.iter().max()?).into()))
        }
        macro_rules! check {
            ($($t:ty = $dtype:ident),*) => {$(
                let cast = values.iter().map(|&value| value as $t).collect::<Vec<_>>();
                let bytes = cast.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<_>>();
                prop_assert_eq!(range(&bytes, Dtype::$dtype), of(&cast));
            )*};
        }
        check!(i8 = I8, i16 = I16, i32 = I32, i64 = I64, u8 = U8, u16 = U16, u32 = U32, u64 = U64);
        prop_assert_eq!(range(&[0; 8], Dtype::F32), None);
    }
}

#[test]
fn refuses_other_sizes() {
    let refused = |text: &[u8], bytes| Base64::new(text, bytes).unwrap_err();
    let size = |got, wanted| Error::BufferSize { name: "base64 data", got, wanted };
    assert_eq!(refused(b"AAAA", 2), size(3, 2));
    assert_eq!(refused(b"AAA=", 3), size(2, 3));
    assert_eq!(refused(b"AAA", 2), size(0, 2));
    assert_eq!(refused(b"", 1), size(0, 1));
    assert_eq!(refused(b"==", 0), size(0, 0), "two characters are no text, whatever they are");
    assert!(Base64::new(b"", 0).is_ok());
    assert!(Base64::new(b"AA==", 1).is_ok());
}

#[test]
fn refuses_what_is_outside() {
    let base64 = Base64::new(b"AAAA", 3).unwrap();
    for (begin, length) in [(0, 4), (3, 1), (4, 0), (usize::MAX, 2)] {
        let refused = base64.decode(begin, &mut vec![0; length]);
        assert!(matches!(refused, Err(Error::OutsideSource { .. })), "{begin}, {length}");
    }
}

#[test]
fn refuses_bits_that_stand_for_nothing() {
    let refused = Base64::new(b"AAAAAB==", 4).unwrap().decode(3, &mut [0]);
    assert_eq!(refused, Err(Error::Base64 { position: 5, found: b'B' }));
}
