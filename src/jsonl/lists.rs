//! Columns of a list for each token: rows that were kept as JSON, to one run of integers.

use super::array::{How, Reader};
use super::scan::skip;
use super::{Nonfinite, Values};
use crate::cast::Dtype;
use crate::{Result, memory};

/// The lists of all rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Lists {
    /// The entries of all lists.
    pub values: Values,
    /// Where each list begins among them, and the last one ends.
    pub list_offsets: Vec<i64>,
    /// Where each row begins among the lists, and the last one ends.
    pub offsets: Vec<i64>,
}

/// Reads rows such as `[[5, 9], [], [7]]`, each the checked JSON of one.
///
/// `None` where there is anything else among them than lists of integers that the dtype holds, or no integer at
/// all: what becomes of that, and what is wrong with it, is decided where any JSON is read.
///
/// ```
/// use rollkit::cast::Dtype;
/// use rollkit::jsonl::{Values, lists};
///
/// let found = lists(&[b"[[5, 9], []]", b"[]", b"[[7]]"], Dtype::I32)?.unwrap();
/// assert_eq!(found.values, Values::I32(vec![5, 9, 7]));
/// assert_eq!((found.list_offsets, found.offsets), (vec![0, 2, 2, 3], vec![0, 2, 2, 3]));
/// assert_eq!(lists(&[b"[[5], 9]"], Dtype::I32)?, None);
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn lists(rows: &[&[u8]], dtype: Dtype) -> Result<Option<Lists>> {
    let mut found = Lists { values: Values::new(dtype), list_offsets: vec![0], offsets: vec![0] };
    for row in rows {
        if found.read(row)?.is_none() {
            return Ok(None);
        }
        memory::push("offsets", &mut found.offsets, found.list_offsets.len() as i64 - 1)?;
    }
    Ok((!found.values.is_empty()).then_some(found))
}

impl Lists {
    /// Reads a row's; `None` where it is not of lists of integers.
    fn read(&mut self, text: &[u8]) -> Result<Option<()>> {
        let begin = skip(text, 0);
        let mut at = skip(text, begin + 1);
        if text.get(begin) != Some(&b'[') {
            return Ok(None);
        }
        if text.get(at) == Some(&b']') {
            return Ok(Some(()));
        }
        loop {
            let Some(end) = self.read_list(text, at) else { return Ok(None) };
            memory::push("offsets", &mut self.list_offsets, self.values.len() as i64)?;
            at = skip(text, end);
            match text.get(at) {
                Some(b',') => at = skip(text, at + 1),
                end => return Ok((end == Some(&b']')).then_some(())),
            }
        }
    }

    /// Reads a list; where it ends.
    fn read_list(&mut self, text: &[u8], at: usize) -> Option<usize> {
        if text.get(at) != Some(&b'[') {
            return None;
        }
        let how = How { fixed: false, nonfinite: Nonfinite::Raise };
        let mut reader = Reader::new(text, &mut self.values, how, Vec::new());
        let (_, end) = reader.level(at + 1, 0).ok()?;
        reader.floats.is_none().then_some(end)
    }
}
