//! NumPy memory as slices: the ground all kernels stand on, and the one file that needs `unsafe` for it.
//!
//! Every function checks what makes its slice sound (contiguity, alignment, dtype, no objects), even
//! when `_native` is called directly. What it cannot check is what NumPy itself does not: that no other
//! thread writes to, or resizes, an input while a kernel runs.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::slice;

use numpy::npyffi::PyArray_Descr;
use numpy::npyffi::flags::NPY_ARRAY_WRITEABLE;
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::cast::Dtype;
use crate::segments::Bits;
use crate::thd::Positions;

/// Any NumPy array.
pub type Array<'py> = Bound<'py, PyUntypedArray>;

/// Kernels below this many bytes keep the GIL: releasing and taking it costs more than they do.
pub const DETACH_BYTES: usize = 1 << 18;

/// The bytes of a C-contiguous array of anything but Python objects.
pub fn bytes<'a>(name: &str, array: &'a Array<'_>) -> PyResult<&'a [u8]> {
    let size = checked_bytes(name, array)?;
    // SAFETY: the array is C-contiguous, so its `size` bytes are one block; it holds no object
    // pointers, so any byte can be read; `array` keeps it alive for `'a`. NumPy's data pointer is
    // never null.
    Ok(unsafe { slice::from_raw_parts((*array.as_array_ptr()).fields.data.cast(), size) })
}

/// The bytes of a C-contiguous, writeable array that shares no memory with `inputs`.
#[allow(clippy::mut_from_ref)] // the reference is to the array object, the slice is of its buffer
pub fn out_bytes<'a, 'b, 'py: 'b>(
    name: &str,
    array: &'a Array<'py>,
    inputs: impl IntoIterator<Item = &'b Array<'py>>,
) -> PyResult<&'a mut [MaybeUninit<u8>]> {
    let size = checked_bytes(name, array)?;
    // SAFETY: the pointer is to a live array object.
    let fields = unsafe { &(*array.as_array_ptr()).fields };
    if fields.flags & NPY_ARRAY_WRITEABLE == 0 {
        return Err(PyValueError::new_err(format!("{name} is read-only; pass a writeable array")));
    }
    let begin = fields.data as usize;
    for input in inputs {
        let read = bytes("input", input)?.as_ptr_range();
        if !read.is_empty() && (read.start as usize) < begin + size && begin < read.end as usize {
            return Err(PyValueError::new_err(format!(
                "{name} shares memory with an input; pass a buffer of its own"
            )));
        }
    }
    // SAFETY: one block of `size` bytes, as in `bytes`, writeable, and disjoint from every input slice.
    // `MaybeUninit<u8>` has no invalid bytes, and the only reference made to this memory is this one.
    Ok(unsafe { slice::from_raw_parts_mut(fields.data.cast(), size) })
}

/// The elements of a one-dimensional, contiguous, aligned int64 array.
pub fn int64s<'a>(name: &str, array: &'a Array<'_>) -> PyResult<&'a [i64]> {
    let found = bytes(name, array)?;
    if dtype(&array.dtype()) != Some(Dtype::I64) || array.ndim() != 1 || !array.is_aligned() {
        return Err(PyTypeError::new_err(format!(
            "{name} must be an aligned 1-D int64 array, got {}-D {}",
            array.ndim(),
            array.dtype()
        )));
    }
    // SAFETY: the bytes are checked above to be aligned, native int64 values.
    Ok(unsafe { slice::from_raw_parts(found.as_ptr().cast(), found.len() / size_of::<i64>()) })
}

/// The elements of a C-contiguous, aligned integer array as bits, and whether they are signed.
#[allow(clippy::cast_ptr_alignment)] // checked
pub fn bits<'a>(name: &str, array: &'a Array<'_>) -> PyResult<(Bits<'a>, bool)> {
    let found = bytes(name, array)?;
    let dtype = dtype(&array.dtype()).filter(|_| array.is_aligned());
    macro_rules! elements {
        ($($signed:ident $unsigned:ident $name:ident $type:ty),+) => {
            match dtype {
                $(Some(kind @ (Dtype::$signed | Dtype::$unsigned)) => {
                    // SAFETY: the bytes are aligned, native integers of this size.
                    let found = unsafe {
                        slice::from_raw_parts(found.as_ptr().cast::<$type>(), found.len() / size_of::<$type>())
                    };
                    Ok((Bits::$name(found), matches!(kind, Dtype::$signed)))
                })+
                _ => Err(PyTypeError::new_err(format!(
                    "{name} must be an aligned array of native integers, got {}", array.dtype()
                ))),
            }
        };
    }
    elements!(I8 U8 U8 u8, I16 U16 U16 u16, I32 U32 U32 u32, I64 U64 U64 u64)
}

/// The elements of a C-contiguous, aligned int32 or int64 array.
pub fn positions<'a>(name: &str, array: &'a Array<'_>) -> PyResult<Positions<'a>> {
    let found = bytes(name, array)?;
    match dtype(&array.dtype()).filter(|_| array.is_aligned()) {
        // SAFETY: the bytes are aligned, native int32 values.
        Some(Dtype::I32) => Ok(Positions::I32(unsafe {
            slice::from_raw_parts(found.as_ptr().cast(), found.len() / size_of::<i32>())
        })),
        // SAFETY: the bytes are aligned, native int64 values.
        Some(Dtype::I64) => Ok(Positions::I64(unsafe {
            slice::from_raw_parts(found.as_ptr().cast(), found.len() / size_of::<i64>())
        })),
        _ => Err(PyTypeError::new_err(format!(
            "{name} must be an aligned int32 or int64 array, got {}",
            array.dtype()
        ))),
    }
}

/// A fresh array to fill, from `numpy.empty`: NumPy asks the system for huge pages, which makes the
/// first touch of a large output five times cheaper than that of a Rust vector.
pub fn empty<'py>(
    py: Python<'py>,
    shape: impl IntoPyObject<'py>,
    dtype: impl IntoPyObject<'py>,
) -> PyResult<Array<'py>> {
    static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let empty = EMPTY.import(py, "numpy", "empty")?;
    Ok(empty.call1((shape, dtype))?.cast_into()?)
}

/// A fresh one-dimensional array of `T`.
pub fn fresh<T: numpy::Element>(py: Python<'_>, length: usize) -> PyResult<Array<'_>> {
    empty(py, length, numpy::dtype::<T>(py))
}

/// The elements, as `T` to write, of an array that shares no memory with `inputs`.
#[allow(clippy::mut_from_ref)] // as above
pub fn out_slice<'a, 'b, 'py: 'b, T: numpy::Element>(
    name: &str,
    array: &'a Array<'py>,
    inputs: impl IntoIterator<Item = &'b Array<'py>>,
) -> PyResult<&'a mut [MaybeUninit<T>]> {
    let wanted = numpy::dtype::<T>(array.py());
    let found = out_bytes(name, array, inputs)?;
    if !array.dtype().is_equiv_to(&wanted) || !array.is_aligned() {
        return Err(PyTypeError::new_err(format!("{name} must be {wanted}, got {}", array.dtype())));
    }
    // SAFETY: the array's elements are `T` and aligned, so its bytes are `len / size_of::<T>()` of them.
    Ok(unsafe { slice::from_raw_parts_mut(found.as_mut_ptr().cast(), found.len() / size_of::<T>()) })
}

/// The dtype that casts know, `None` for any other (float16, bfloat16, structured, byte-swapped, …).
pub fn dtype(descr: &Bound<'_, PyArrayDescr>) -> Option<Dtype> {
    (descr.is_native_byteorder() != Some(false))
        .then(|| Dtype::from_numpy(descr.kind(), descr.itemsize()))
        .flatten()
        .filter(|_| descr.num() < numpy::npyffi::NPY_TYPES::NPY_OBJECT as i32)
}

/// What must agree between the rows of a column: dtype and inner shape.
pub struct RowType {
    descr: *mut PyArray_Descr,
    inner: Vec<usize>,
}

impl RowType {
    /// That of `first`; `None` if it holds Python objects.
    pub fn of(first: &Array<'_>) -> Option<Self> {
        // SAFETY: the pointer is to a live array object.
        let descr = unsafe { (*first.as_array_ptr()).fields.descr };
        let inner = first.shape().get(1..).unwrap_or_default().to_vec();
        (!first.dtype().has_object()).then_some(Self { descr, inner })
    }

    /// Whether `array` is C-contiguous and has the same dtype object and inner shape. A dtype that is
    /// equal but another object is told apart; the caller then takes its slower way.
    pub fn fits(&self, array: &Array<'_>) -> bool {
        // SAFETY: the pointer is to a live array object.
        let descr = unsafe { (*array.as_array_ptr()).fields.descr };
        descr == self.descr
            && array.is_c_contiguous()
            // Not `==` on the slices: that is a call of memcmp, and inner shapes have 0 to 2 numbers.
            && array.shape().split_first().is_some_and(|(_, inner)| inner.iter().eq(&self.inner))
    }
}

/// The bytes of `array`, for which `row_type.fits(array)` holds.
pub fn fitting_bytes<'a>(row_type: &RowType, array: &'a Array<'_>, item: usize) -> Option<&'a [u8]> {
    let size = row_type.fits(array).then(|| array.shape()[0] * item)?;
    // SAFETY: as in `bytes`: `fits` checks contiguity, and `RowType::of` that the dtype has no objects.
    Some(unsafe { slice::from_raw_parts((*array.as_array_ptr()).fields.data.cast(), size) })
}

/// Walks objects that are mostly arrays with their memory asked for ahead: first the header, then, once
/// that is there, what it points to. A hundred thousand small arrays lie all over the heap; without this
/// each costs a cache miss or two.
pub fn prefetched<'a, 'py>(objects: &'a [Bound<'py, PyAny>]) -> impl Iterator<Item = &'a Bound<'py, PyAny>> {
    const HEADER: usize = 24;
    const BODY: usize = 12;
    objects.iter().enumerate().map(|(i, object)| {
        if let Some(ahead) = objects.get(i + HEADER) {
            prefetch(ahead.as_ptr().cast(), 2);
        }
        if let Some(Ok(ahead)) = objects.get(i + BODY).map(|ahead| ahead.cast_exact::<PyUntypedArray>()) {
            // SAFETY: the pointer is to a live array object.
            let fields = unsafe { &(*ahead.as_array_ptr()).fields };
            prefetch(fields.dimensions.cast(), 1);
            prefetch(fields.data.cast(), 3);
        }
        object
    })
}

/// Asks for `lines` cache lines from `address` on.
#[inline]
pub fn prefetch(address: *const i8, lines: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..lines {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching reads nothing; any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.wrapping_add(64 * line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (address, lines);
}

fn checked_bytes(name: &str, array: &Array<'_>) -> PyResult<usize> {
    let descr = array.dtype();
    if descr.has_object() {
        return Err(PyTypeError::new_err(format!(
            "{name} has dtype {descr}, which holds Python objects; pass numbers, or keep the column as a list"
        )));
    }
    if !array.is_c_contiguous() {
        return Err(PyValueError::new_err(format!(
            "{name} is not C-contiguous; pass np.ascontiguousarray({name})"
        )));
    }
    // NumPy has multiplied these without overflow to allocate the array.
    Ok(array.shape().iter().product::<usize>() * descr.itemsize())
}
