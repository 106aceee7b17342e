//! NumPy memory as slices: the ground all kernels stand on, and the one file that needs `unsafe` for it.
//!
//! Every function checks what makes its slice sound (contiguity, alignment, dtype, no objects), even
//! when `_native` is called directly. What it cannot check is what NumPy itself does not: that no other
//! thread writes to, or resizes, an input while a kernel runs.
#![allow(unsafe_code)]

pub mod rows;

use std::mem::MaybeUninit;
use std::ops::Range;
use std::slice;

use numpy::npyffi::flags::{NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_WRITEABLE};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::Borrowed;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use super::list::items::glance;
use crate::cast::Dtype;
use crate::out::Out;
use crate::segments::Bits;
use crate::thd::Positions;

/// Any NumPy array.
pub type Array<'py> = Bound<'py, PyUntypedArray>;

/// One that something else keeps alive.
pub type BorrowedArray<'a, 'py> = Borrowed<'a, 'py, PyUntypedArray>;

/// Kernels below this many bytes keep the GIL: releasing and taking it costs more than they do.
pub const DETACH_BYTES: usize = 1 << 18;

/// The bytes of a C-contiguous array of anything but Python objects.
pub fn bytes<'a, 'py: 'a>(name: &str, array: impl Into<BorrowedArray<'a, 'py>>) -> PyResult<&'a [u8]> {
    let array = array.into();
    let size = checked_bytes(name, &array)?;
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

/// Where some memory is.
pub type Memory = Range<*const u8>;

/// Where a slice is.
pub fn memory<T>(slice: &[T]) -> Memory {
    let Range { start, end } = slice.as_ptr_range();
    start.cast()..end.cast()
}

/// Checks that outputs share memory neither with one another nor with inputs: for calls of several outputs,
/// or many inputs.
pub fn check_apart(outs: &[(&str, &Array<'_>)], inputs: impl IntoIterator<Item = Memory>) -> PyResult<()> {
    let outs = outs.iter().map(|(name, out)| Ok((*name, memory(bytes(name, *out)?))));
    let outs = outs.collect::<PyResult<Vec<_>>>()?;
    let overlap = |a: &Memory, b: &Memory| !a.is_empty() && a.start < b.end && b.start < a.end;
    for (i, (name, out)) in outs.iter().enumerate() {
        if let Some((other, _)) = outs[..i].iter().find(|(_, other)| overlap(out, other)) {
            return Err(PyValueError::new_err(format!(
                "{name} shares memory with {other}; pass a buffer of its own for each"
            )));
        }
    }
    for input in inputs {
        if let Some((name, _)) = outs.iter().find(|(_, out)| overlap(&input, out)) {
            return Err(PyValueError::new_err(format!(
                "{name} shares memory with an input; pass a buffer of its own"
            )));
        }
    }
    Ok(())
}

/// The elements of a one-dimensional, contiguous, aligned int64 array.
pub fn int64s<'a, 'py: 'a>(name: &str, array: impl Into<BorrowedArray<'a, 'py>>) -> PyResult<&'a [i64]> {
    let array = array.into();
    let found = integers(name, array, Dtype::I64)?.filter(|_| array.ndim() == 1);
    found.ok_or_else(|| {
        PyTypeError::new_err(format!(
            "{name} must be an aligned 1-D int64 array, got {}-D {}",
            array.ndim(),
            array.dtype()
        ))
    })
}

/// The elements of a C-contiguous, aligned integer array as bits, and whether they are signed.
pub fn bits<'a>(name: &str, array: &'a Array<'_>) -> PyResult<(Bits<'a>, bool)> {
    let Some(dtype) = dtype(&array.dtype()) else { return Err(no_integers(name, array)) };
    let found = match dtype {
        Dtype::I8 | Dtype::U8 => integers(name, array, dtype)?.map(Bits::U8),
        Dtype::I16 | Dtype::U16 => integers(name, array, dtype)?.map(Bits::U16),
        Dtype::I32 | Dtype::U32 => integers(name, array, dtype)?.map(Bits::U32),
        Dtype::I64 | Dtype::U64 => integers(name, array, dtype)?.map(Bits::U64),
        _ => None,
    };
    let signed = matches!(dtype, Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64);
    Ok((found.ok_or_else(|| no_integers(name, array))?, signed))
}

/// The elements of a C-contiguous, aligned int32 or int64 array.
pub fn positions<'a>(name: &str, array: &'a Array<'_>) -> PyResult<Positions<'a>> {
    let narrow = integers(name, array, Dtype::I32)?.map(Positions::I32);
    let wide = integers(name, array, Dtype::I64)?.map(Positions::I64);
    narrow.or(wide).ok_or_else(|| no_integers(name, array))
}

fn no_integers(name: &str, array: &Array<'_>) -> PyErr {
    let got = array.dtype();
    PyTypeError::new_err(format!("{name} must be an aligned array of native integers, got {got}"))
}

/// What every bit pattern is a value of.
trait Integer: Copy {}
impl Integer for u8 {}
impl Integer for u16 {}
impl Integer for u32 {}
impl Integer for u64 {}
impl Integer for i32 {}
impl Integer for i64 {}

/// The elements, `None` unless they are aligned integers of `dtype` and as large as `T`.
fn integers<'a, 'py: 'a, T: Integer>(
    name: &str,
    array: impl Into<BorrowedArray<'a, 'py>>,
    wanted: Dtype,
) -> PyResult<Option<&'a [T]>> {
    let array = array.into();
    let found = bytes(name, array)?;
    let descr = array.dtype();
    if dtype(&descr) != Some(wanted) || descr.itemsize() != size_of::<T>() || !array.is_aligned() {
        return Ok(None);
    }
    // SAFETY: the bytes are aligned, native values of this size, and any bits are a `T`.
    Ok(Some(unsafe { slice::from_raw_parts(found.as_ptr().cast(), found.len() / size_of::<T>()) }))
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

/// A new array with such elements.
pub fn of_slice<'py, T: numpy::Element + Copy>(py: Python<'py>, values: &[T]) -> PyResult<Array<'py>> {
    let out = fresh::<T>(py, values.len())?;
    Out::copy(out_slice("out", &out, [])?, values);
    Ok(out)
}

/// Fresh memory that has been written to: with `values`, as long as it is.
pub fn written<'a, T: Copy>(fresh: &'a mut [MaybeUninit<T>], values: &[T]) -> &'a mut [T] {
    Out::copy(fresh, values);
    // SAFETY: `copy` has written every element, or panicked.
    unsafe { &mut *(std::ptr::from_mut(fresh) as *mut [T]) }
}

/// The dtype that casts know, `None` for any other (float16, bfloat16, structured, byte-swapped, …).
pub fn dtype(descr: &Bound<'_, PyArrayDescr>) -> Option<Dtype> {
    (descr.is_native_byteorder() != Some(false))
        .then(|| Dtype::from_numpy(descr.kind(), descr.itemsize()))
        .flatten()
        .filter(|_| descr.num() < numpy::npyffi::NPY_TYPES::NPY_OBJECT as i32)
}

/// What must agree between the rows of a column: dtype and inner shape.
pub struct RowType<'py> {
    /// The dtype, held on to so that its address stays its own.
    pub dtype: Bound<'py, PyArrayDescr>,
    /// The shape of an element.
    pub inner: Vec<usize>,
    /// The bytes of an element.
    pub item: usize,
}

impl<'py> RowType<'py> {
    /// That of `first`; `None` if it holds Python objects, or is no row.
    pub fn of(first: &Array<'py>) -> Option<Self> {
        let dtype = first.dtype();
        let inner = first.shape().get(1..)?.to_vec();
        let item = inner.iter().product::<usize>() * dtype.itemsize();
        (!dtype.has_object()).then_some(Self { dtype, inner, item })
    }

    /// The length and bytes of `array`, if it is C-contiguous and has the same dtype object and inner
    /// shape. A dtype that is equal but another object is told apart; the caller then has a slower way.
    #[inline]
    pub fn row<'a>(&self, array: &'a Array<'_>) -> Option<(usize, &'a [u8])> {
        // SAFETY: the pointer is to a live array object.
        let fields = unsafe { &(*array.as_array_ptr()).fields };
        let (&length, inner) = array.shape().split_first()?;
        // Not `==` on the slices: that is a call of memcmp, and inner shapes have 0 to 2 numbers.
        let fits = fields.descr == self.dtype.as_dtype_ptr()
            && fields.flags & NPY_ARRAY_C_CONTIGUOUS != 0
            && inner.iter().eq(&self.inner);
        // SAFETY: as in `bytes`: contiguity is checked here, and in `of` that the dtype has no objects.
        fits.then(|| (length, unsafe { slice::from_raw_parts(fields.data.cast(), length * self.item) }))
    }
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

/// Asks for what will be looked at of the arrays, or tuples of arrays, that come after `items[at]`: for
/// loops over many, which lie all over the heap.
#[inline]
pub fn prefetch_parts(items: &[Bound<'_, PyAny>], at: usize) {
    const NEAR: usize = 6;
    let object = |object: &Bound<'_, PyAny>| prefetch(object.as_ptr().cast(), 2);
    if let Some(item) = items.get(at + 3 * NEAR) {
        object(item);
    }
    if let Some(item) = items.get(at + 2 * NEAR)
        && let Ok(tuple) = item.cast::<PyTuple>()
    {
        glance(tuple).iter().for_each(object);
    }
    if let Some(item) = items.get(at + NEAR) {
        match item.cast::<PyTuple>() {
            Ok(tuple) => glance(tuple).iter().for_each(prefetch_body),
            Err(_) => prefetch_body(item),
        }
    }
}

/// Asks for what an array points to.
fn prefetch_body(array: &Bound<'_, PyAny>) {
    if let Ok(array) = array.cast_exact::<PyUntypedArray>() {
        // SAFETY: the pointer is to a live array object.
        let fields = unsafe { &(*array.as_array_ptr()).fields };
        prefetch(fields.dimensions.cast(), 1);
        prefetch(fields.data.cast(), 1);
    }
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

/// The elements of a C-contiguous, aligned array of `T`, of any shape.
pub fn elements<'a, T: numpy::Element + Copy>(name: &str, array: &'a Array<'_>) -> PyResult<&'a [T]> {
    let wanted = numpy::dtype::<T>(array.py());
    let found = bytes(name, array)?;
    if !array.dtype().is_equiv_to(&wanted) || !array.is_aligned() {
        return Err(PyTypeError::new_err(format!("{name} must be aligned {wanted}, got {}", array.dtype())));
    }
    // SAFETY: the array's elements are `T` and aligned, so its bytes are `len / size_of::<T>()` of them.
    Ok(unsafe { slice::from_raw_parts(found.as_ptr().cast(), found.len() / size_of::<T>()) })
}
