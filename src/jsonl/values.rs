//! A growing vector of any dtype.

use super::number::Element;
use super::scan::Stop;
use crate::cast::Dtype;

macro_rules! dtypes {
    ($($dtype:ident: $type:ty),*) => {
        /// Elements of a column.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)] // the names say it
        pub enum Values {
            $($dtype(Vec<$type>)),*
        }

        impl Values {
            /// None yet, of a dtype.
            #[must_use]
            pub fn new(dtype: Dtype) -> Self {
                match dtype {
                    $(Dtype::$dtype => Self::$dtype(Vec::new())),*
                }
            }

            /// Their dtype.
            #[must_use]
            pub fn dtype(&self) -> Dtype {
                match self {
                    $(Self::$dtype(_) => Dtype::$dtype),*
                }
            }

            /// How many there are.
            #[must_use]
            pub fn len(&self) -> usize {
                match self {
                    $(Self::$dtype(vector) => vector.len()),*
                }
            }

            pub(super) fn truncate(&mut self, length: usize) {
                match self {
                    $(Self::$dtype(vector) => vector.truncate(length)),*
                }
            }

            pub(super) fn reserve(&mut self, more: usize) {
                match self {
                    $(Self::$dtype(vector) => vector.reserve_exact(more)),*
                }
            }

            pub(super) fn shrink(&mut self) {
                match self {
                    $(Self::$dtype(vector) => vector.shrink_to_fit()),*
                }
            }

            pub(super) fn push_zero(&mut self) {
                match self {
                    $(Self::$dtype(vector) => vector.push(<$type>::default())),*
                }
            }

            /// Reads from the first element of an array to behind its `]`.
            pub(super) fn read_array(&mut self, text: &[u8], at: usize, words: bool) -> Result<usize, Stop> {
                match self {
                    $(Self::$dtype(vector) => Element::read_array(text, at, words, vector)),*
                }
            }

            /// Reads one element; returns where it ends.
            pub(super) fn read_one(&mut self, text: &[u8], at: usize, words: bool) -> Result<usize, Stop> {
                match self {
                    $(Self::$dtype(vector) => {
                        let (value, end) = Element::read(text, at, words)?;
                        vector.push(value);
                        Ok(end)
                    })*
                }
            }
        }
    };
}

dtypes!(
    Bool: bool,
    I8: i8,
    I16: i16,
    I32: i32,
    I64: i64,
    U8: u8,
    U16: u16,
    U32: u32,
    U64: u64,
    F32: f32,
    F64: f64
);

impl Values {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a float; whether these are floats.
    pub(super) fn push_float(&mut self, value: f64) -> bool {
        match self {
            Self::F32(vector) => vector.push(value as f32), // NaN or infinite
            Self::F64(vector) => vector.push(value),
            _ => return false,
        }
        true
    }

    /// Turns int64 to float64, each rounded to nearest; returns what they were.
    pub(super) fn promote(&mut self) -> Option<Vec<i64>> {
        let Self::I64(integers) = self else { return None };
        let integers = std::mem::take(integers);
        *self = Self::F64(integers.iter().map(|&value| value as f64).collect());
        Some(integers)
    }
}
