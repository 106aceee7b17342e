//! Elements to another dtype on the way, checked: what makes int64 rows an int32 batch in one write.
//!
//! Integers and bools go to any integer that holds the value, to floats rounded to nearest; floats go
//! to floats, and only infinity becomes infinity. Floats to integers are refused: they lose what they are.

use crate::out::Out;

/// The dtypes that rows are cast between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Dtype {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
}

impl Dtype {
    /// By NumPy's kind letter and element size.
    #[must_use]
    pub fn from_numpy(kind: u8, size: usize) -> Option<Self> {
        Some(match (kind, size) {
            (b'b', 1) => Self::Bool,
            (b'i', 1) => Self::I8,
            (b'i', 2) => Self::I16,
            (b'i', 4) => Self::I32,
            (b'i', 8) => Self::I64,
            (b'u', 1) => Self::U8,
            (b'u', 2) => Self::U16,
            (b'u', 4) => Self::U32,
            (b'u', 8) => Self::U64,
            (b'f', 4) => Self::F32,
            (b'f', 8) => Self::F64,
            _ => return None,
        })
    }

    /// NumPy's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }
}

/// A pair of dtypes that rows can go between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cast {
    from: Dtype,
    pub(crate) to: Dtype,
}

/// The first value that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadValue {
    /// The element.
    pub position: usize,
    /// The value, printed.
    pub value: String,
}

impl Cast {
    /// `None` where the pair is refused: floats to integers, and numbers to bool.
    #[must_use]
    pub fn new(from: Dtype, to: Dtype) -> Option<Self> {
        let is_float = |dtype| matches!(dtype, Dtype::F32 | Dtype::F64);
        let refused = to == Dtype::Bool || (is_float(from) && !is_float(to));
        (!refused).then_some(Self { from, to })
    }

    /// Bytes of an element before.
    #[must_use]
    pub fn from_size(self) -> usize {
        self.from.size()
    }

    /// Bytes of an element after.
    #[must_use]
    pub fn to_size(self) -> usize {
        self.to.size()
    }

    /// Casts all of `source` to `out`, which has as many elements.
    pub fn run<O: Out<u8>>(self, source: &[u8], out: &mut [O]) -> Result<(), BadValue> {
        /// One loop per pair of types; `$get` makes a value of the source's bytes.
        macro_rules! from {
            ($from:ty) => {
                match self.to {
                    Dtype::I8 => integers::<$from, i8, O, { size_of::<$from>() }, 1>(source, out),
                    Dtype::I16 => integers::<$from, i16, O, { size_of::<$from>() }, 2>(source, out),
                    Dtype::I32 => integers::<$from, i32, O, { size_of::<$from>() }, 4>(source, out),
                    Dtype::I64 => integers::<$from, i64, O, { size_of::<$from>() }, 8>(source, out),
                    Dtype::Bool | Dtype::U8 => {
                        integers::<$from, u8, O, { size_of::<$from>() }, 1>(source, out)
                    }
                    Dtype::U16 => integers::<$from, u16, O, { size_of::<$from>() }, 2>(source, out),
                    Dtype::U32 => integers::<$from, u32, O, { size_of::<$from>() }, 4>(source, out),
                    Dtype::U64 => integers::<$from, u64, O, { size_of::<$from>() }, 8>(source, out),
                    Dtype::F32 => {
                        convert(source, out, |bytes| (<$from>::from_ne_bytes(bytes) as f32).to_ne_bytes())
                    }
                    Dtype::F64 => {
                        convert(source, out, |bytes| (<$from>::from_ne_bytes(bytes) as f64).to_ne_bytes())
                    }
                }
            };
        }
        #[allow(clippy::cast_lossless)] // the macro also widens
        match (self.from, self.to) {
            (Dtype::Bool | Dtype::U8, _) => from!(u8),
            (Dtype::I8, _) => from!(i8),
            (Dtype::I16, _) => from!(i16),
            (Dtype::I32, _) => from!(i32),
            (Dtype::I64, _) => from!(i64),
            (Dtype::U16, _) => from!(u16),
            (Dtype::U32, _) => from!(u32),
            (Dtype::U64, _) => from!(u64),
            (Dtype::F32, Dtype::F64) => {
                convert(source, out, |b| f64::from(f32::from_ne_bytes(b)).to_ne_bytes())
            }
            (Dtype::F32, _) => convert(source, out, |b: [u8; 4]| b),
            (Dtype::F64, Dtype::F32) => checked(source, out, narrowed, refused),
            (Dtype::F64, _) => convert(source, out, |b: [u8; 8]| b),
        }
    }
}

/// A value with its native bytes.
trait Number<const N: usize>: Copy + std::fmt::Display {
    fn read(bytes: [u8; N]) -> Self;
    fn write(self) -> [u8; N];
}

macro_rules! number {
    ($($t:ty),*) => {$(
        impl Number<{ size_of::<$t>() }> for $t {
            fn read(bytes: [u8; size_of::<$t>()]) -> Self { Self::from_ne_bytes(bytes) }
            fn write(self) -> [u8; size_of::<$t>()] { self.to_ne_bytes() }
        }
    )*};
}
number!(i8, i16, i32, i64, u8, u16, u32, u64);

/// Elements per block: the check of a block is one branch, so its loop becomes vector code.
const BLOCK: usize = 64;

fn integers<A, B, O, const N: usize, const M: usize>(source: &[u8], out: &mut [O]) -> Result<(), BadValue>
where
    A: Number<N>,
    B: Number<M> + TryFrom<A> + Default,
    O: Out<u8>,
{
    let to = |bytes| {
        let value = B::try_from(A::read(bytes));
        (value.is_ok(), value.unwrap_or_default().write())
    };
    let refused = |bytes| {
        let value = A::read(bytes);
        B::try_from(value).is_err().then(|| value.to_string())
    };
    checked(source, out, to, refused)
}

/// Half of the last digit above the largest `f32`: from here on, rounding gives infinity.
const BEYOND_F32: f64 = (2.0 - 1.0 / (1 << 24) as f64) * (1u128 << 127) as f64;

/// A float in half the size, and whether it surely has not become infinite on the way: one comparison.
fn narrowed(bytes: [u8; 8]) -> (bool, [u8; 4]) {
    let value = f64::from_ne_bytes(bytes);
    // Not `<`: NaN may go.
    #[allow(clippy::neg_cmp_op_on_partial_ord)]
    (!(value.abs() >= BEYOND_F32), (value as f32).to_ne_bytes())
}

/// A finite float that would become infinite, as Python prints it.
fn refused(bytes: [u8; 8]) -> Option<String> {
    let value = f64::from_ne_bytes(bytes);
    let lost = value.is_finite() && (value as f32).is_infinite();
    lost.then(|| format!("{value:e}").replace('e', "e+"))
}

/// Casts with `to`, which also says whether the value surely fits; of the others, those do not that `refused`
/// shows.
fn checked<O: Out<u8>, const N: usize, const M: usize>(
    source: &[u8],
    out: &mut [O],
    to: impl Fn([u8; N]) -> (bool, [u8; M]),
    refused: impl Fn([u8; N]) -> Option<String>,
) -> Result<(), BadValue> {
    let source = source.as_chunks::<N>().0;
    let out = out.as_chunks_mut::<M>().0;
    for (block, (from, slots)) in source.chunks(BLOCK).zip(out.chunks_mut(BLOCK)).enumerate() {
        let mut fits = true;
        for (bytes, slot) in from.iter().zip(slots) {
            let (fit, value) = to(*bytes);
            fits &= fit;
            O::copy(slot, &value);
        }
        if !fits {
            let bad = from.iter().enumerate().find_map(|(i, bytes)| Some((i, refused(*bytes)?)));
            if let Some((within, value)) = bad {
                return Err(BadValue { position: block * BLOCK + within, value });
            }
        }
    }
    Ok(())
}

#[allow(clippy::unnecessary_wraps)] // so that every arm of `run` has one type
fn convert<O: Out<u8>, const N: usize, const M: usize>(
    source: &[u8],
    out: &mut [O],
    to: impl Fn([u8; N]) -> [u8; M],
) -> Result<(), BadValue> {
    for (from, slot) in source.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<M>().0) {
        O::copy(slot, &to(*from));
    }
    Ok(())
}
