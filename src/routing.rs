//! Routes of experts: a range of a base64 text decoded alone, and the range of their ids.
//!
//! An engine sends the routes of a whole context with every turn, of which all but the last turn's are
//! known. Base64 makes four characters of every three bytes, so that a byte's characters are known from
//! its position: the rows that are wanted are decoded, and nothing before them.

use base64_simd::{AsOut, STANDARD};

use crate::cast::Dtype;
use crate::out::Out;
use crate::{Error, Result};

/// Three-byte groups decoded at a time, to a buffer that stays in the first-level cache.
const GROUPS: usize = 2048;

/// A base64 text (standard alphabet, padded, one line) and the bytes it stands for.
#[derive(Debug, Clone, Copy)]
pub struct Base64<'a> {
    text: &'a [u8],
    bytes: usize,
}

impl<'a> Base64<'a> {
    /// Refuses a text whose length or padding is not that of `bytes` bytes; reads no other character.
    pub fn new(text: &'a [u8], bytes: usize) -> Result<Self> {
        let padding = text.iter().rev().take(2).take_while(|&&byte| byte == b'=').count();
        let got = (text.len() / 4 * 3).saturating_sub(padding);
        if text.len().is_multiple_of(4) && got == bytes {
            Ok(Self { text, bytes })
        } else {
            Err(Error::BufferSize { name: "base64 data", got, wanted: bytes })
        }
    }

    /// Decodes to `out` the bytes from `begin` on, as many as it has.
    ///
    /// Only the characters of these bytes are read, so only they can be malformed; then `out` is
    /// written in part.
    ///
    /// ```
    /// let mut out = [0; 4];
    /// rollkit::routing::Base64::new(b"cm91dGVz", 6)?.decode(2, &mut out)?;
    /// assert_eq!(&out, b"utes");
    /// # Ok::<(), rollkit::Error>(())
    /// ```
    pub fn decode<O: Out<u8>>(&self, begin: usize, out: &mut [O]) -> Result<()> {
        if begin > self.bytes || out.len() > self.bytes - begin {
            return Err(Error::OutsideSource {
                row: 0,
                begin: begin as i64,
                length: out.len() as i64,
                available: self.bytes,
            });
        }
        let mut block = [0; 3 * GROUPS];
        let (mut group, mut skip) = (begin / 3, begin % 3);
        let mut rest = out;
        while !rest.is_empty() {
            let groups = (skip + rest.len()).div_ceil(3).min(GROUPS);
            let found = self.groups(group, groups, &mut block)?;
            let found = &found[skip..found.len().min(skip + rest.len())];
            let (head, tail) = rest.split_at_mut(found.len());
            O::copy(head, found);
            rest = tail;
            group += groups;
            skip = 0;
        }
        Ok(())
    }

    /// Decodes whole groups; only the last one of the text may be of fewer than three bytes.
    fn groups<'b>(&self, group: usize, groups: usize, block: &'b mut [u8; 3 * GROUPS]) -> Result<&'b [u8]> {
        let text = &self.text[4 * group..4 * (group + groups)];
        let wanted = (3 * groups).min(self.bytes - 3 * group);
        let found = STANDARD.decode(text, block.as_mut_slice().as_out());
        found
            .ok()
            .filter(|found| found.len() == wanted)
            .map(|found| &*found)
            .ok_or_else(|| malformed(text, wanted, 4 * group))
    }
}

/// Names the first character that is at fault in a text that `first` characters precede.
fn malformed(text: &[u8], bytes: usize, first: usize) -> Error {
    let data = (4 * bytes).div_ceil(3);
    let is_data = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    // Where all are of the alphabet, the last one has bits that stand for nothing.
    let at = text[..data].iter().position(|byte| !is_data(byte)).unwrap_or(data - 1);
    Error::Base64 { position: first + at, found: text[at] }
}

/// The least and the greatest of integers, given as native bytes; `None` where there are none.
///
/// Floats and bools are no ids: they have no range either.
///
/// ```
/// use rollkit::{cast::Dtype, routing::range};
///
/// assert_eq!(range(&[7, 0, 255], Dtype::U8), Some((0, 255)));
/// assert_eq!(range(&[7, 0, 255], Dtype::I8), Some((-1, 7)));
/// ```
#[must_use]
pub fn range(bytes: &[u8], dtype: Dtype) -> Option<(i128, i128)> {
    macro_rules! of {
        ($t:ty) => {{
            let mut values = bytes.as_chunks().0.iter().map(|bytes| <$t>::from_ne_bytes(*bytes));
            let first = values.next()?;
            let (least, most) =
                values.fold((first, first), |(least, most), value| (least.min(value), most.max(value)));
            Some((least.into(), most.into()))
        }};
    }
    match dtype {
        Dtype::I8 => of!(i8),
        Dtype::I16 => of!(i16),
        Dtype::I32 => of!(i32),
        Dtype::I64 => of!(i64),
        Dtype::U8 => of!(u8),
        Dtype::U16 => of!(u16),
        Dtype::U32 => of!(u32),
        Dtype::U64 => of!(u64),
        Dtype::Bool | Dtype::F32 | Dtype::F64 => None,
    }
}
