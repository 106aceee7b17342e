//! A growing vector of any dtype.

use super::number::Element;
use super::scan::Stop;
use crate::Result;
use crate::cast::Dtype;
use crate::memory;

/// What there may be no memory for.
const NAME: &str = "values";

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

            /// Makes room for exactly so many more, if there is memory for them.
            pub(super) fn reserve(&mut self, more: usize) {
                let _ = match self {
                    $(Self::$dtype(vector) => vector.try_reserve_exact(more)),*
                };
            }

            /// Makes room for so many more.
            pub(super) fn make_room(&mut self, more: usize) -> Result<()> {
                match self {
                    $(Self::$dtype(vector) => memory::make_room(NAME, vector, more)),*
                }
            }

            pub(super) fn shrink(&mut self) {
                match self {
                    $(Self::$dtype(vector) => vector.shrink_to_fit()),*
                }
            }

            /// Adds so many zeros.
            pub(super) fn push_zeros(&mut self, count: usize) -> Result<()> {
                self.make_room(count)?;
                match self {
                    $(Self::$dtype(vector) => vector.resize(vector.len() + count, <$type>::default())),*
                }
                Ok(())
            }

            /// Adds those of others of the same dtype.
            pub(super) fn append(&mut self, others: &Self) -> Result<()> {
                self.make_room(others.len())?;
                match (self, others) {
                    $((Self::$dtype(vector), Self::$dtype(others)) => vector.extend_from_slice(others),)*
                    _ => {}
                }
                Ok(())
            }

            /// Reads from the first element of an array to behind its `]`; there is room for all of them.
            pub(super) fn read_array(
                &mut self,
                text: &[u8],
                at: usize,
                words: bool,
            ) -> std::result::Result<usize, Stop> {
                match self {
                    $(Self::$dtype(vector) => Element::read_array(text, at, words, vector)),*
                }
            }

            /// Reads one element; returns where it ends.
            pub(super) fn read_one(
                &mut self,
                text: &[u8],
                at: usize,
                words: bool,
            ) -> std::result::Result<usize, Stop> {
                match self {
                    $(Self::$dtype(vector) => {
                        let (value, end) = Element::read(text, at, words)?;
                        memory::push(NAME, vector, value).map_err(|error| Stop::unheld(at, error))?;
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

    /// Adds a float, which there is room for; whether these are floats.
    pub(super) fn push_float(&mut self, value: f64) -> bool {
        match self {
            Self::F32(vector) => vector.push(value as f32), // NaN or infinite
            Self::F64(vector) => vector.push(value),
            _ => return false,
        }
        true
    }

    /// Turns int64 to float64, each rounded to nearest.
    pub(super) fn promote(&mut self) -> Result<()> {
        if let Some(floats) = self.split_floats(0)? {
            *self = floats;
        }
        Ok(())
    }

    /// Takes the int64 from `begin` on away, as float64; `None` of another dtype.
    pub(super) fn split_floats(&mut self, begin: usize) -> Result<Option<Self>> {
        let Self::I64(integers) = self else { return Ok(None) };
        let floats = memory::collected(NAME, integers[begin..].iter().map(|&value| value as f64))?;
        integers.truncate(begin);
        Ok(Some(Self::F64(floats)))
    }
}
