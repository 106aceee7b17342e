//! Arrow's arrays, told to Python.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};

use arrow_array::ffi::{from_ffi_and_data_type, to_ffi};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{BinaryArray, BinaryViewArray, LargeBinaryArray};
use arrow_buffer::Buffer;
use arrow_data::ArrayData;
use arrow_data::ffi::FFI_ArrowArray;
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{DataType, Field};
use numpy::PyArray1;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyList, PyString};

use super::{ARRAY, SCHEMA, STREAM, refused};
use crate::memory;

const NAME: &str = "ARROW:extension:name";
const METADATA: &str = "ARROW:extension:metadata";

/// Memory of Arrow's, for NumPy to look at.
#[pyclass(frozen)]
pub struct ArrowBuffer(Buffer);

#[pymethods]
impl ArrowBuffer {
    /// Gives the memory, read-only.
    ///
    /// # Safety
    ///
    /// The interpreter calls it, with a view to fill.
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes = slf.get().0.as_slice();
        let (begin, length) = (bytes.as_ptr().cast_mut().cast(), bytes.len() as isize);
        // SAFETY: the bytes live as long as this object, to which the view takes a reference; it is read-only.
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), begin, length, 1, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}

type Told<'py> = Bound<'py, PyAny>;

/// Reads what speaks Arrow: names of columns if it is a table, and its chunks, which are then lists of columns.
#[pyfunction]
#[pyo3(signature = (source, /))]
pub fn read_arrow<'py>(source: &Bound<'py, PyAny>) -> PyResult<(Option<Vec<String>>, Bound<'py, PyList>)> {
    let py = source.py();
    let (field, chunks) = if source.hasattr("__arrow_c_stream__")? {
        chunks_of(&source.call_method0("__arrow_c_stream__")?)?
    } else {
        let pair: (Told<'py>, Told<'py>) = source.call_method0("__arrow_c_array__")?.extract()?;
        let field = Field::try_from(&moved_schema(&pair.0)?).map_err(|error| refused(&error))?;
        let array = moved::<FFI_ArrowArray>(&pair.1, ARRAY)?;
        let data = imported(array, field.data_type())?;
        (field, vec![data])
    };
    let told = PyList::empty(py);
    let DataType::Struct(fields) = field.data_type() else {
        for chunk in &chunks {
            told.append(describe(py, &field, chunk)?)?;
        }
        return Ok((None, told));
    };
    let mut before = 0;
    for chunk in &chunks {
        if let Some(nulls) = chunk.nulls().filter(|nulls| nulls.null_count() > 0) {
            let row = before + (0..nulls.len()).find(|&i| nulls.is_null(i)).unwrap_or(0);
            return Err(PyValueError::new_err(format!("row {row} is null; drop null rows first")));
        }
        before += chunk.len();
        let columns = PyList::empty(py);
        for (field, column) in fields.iter().zip(chunk.child_data()) {
            columns.append(describe(py, field, &part(column, chunk.offset(), chunk.len())?)?)?;
        }
        told.append(columns)?;
    }
    Ok((Some(fields.iter().map(|field| field.name().clone()).collect()), told))
}

/// The formats of a type that somebody asks for, and of its children by name.
#[pyfunction]
#[pyo3(signature = (schema, /))]
pub fn arrow_formats(schema: &Bound<'_, PyAny>) -> PyResult<(String, Vec<(String, String)>)> {
    let capsule = schema.cast::<PyCapsule>()?;
    let pointer = capsule.pointer_checked(Some(SCHEMA))?.cast::<FFI_ArrowSchema>();
    // SAFETY: a capsule of this name holds a schema, which lives as long as it does.
    let schema = unsafe { pointer.as_ref() };
    if schema.release().is_none() {
        return Err(PyValueError::new_err("the requested schema is released already"));
    }
    let children = schema.children().map(|child| (child.name().unwrap_or("").into(), child.format().into()));
    Ok((schema.format().to_owned(), children.collect()))
}

/// A stream's type and its arrays; one of no elements if there is none.
fn chunks_of(capsule: &Told<'_>) -> PyResult<(Field, Vec<ArrayData>)> {
    let mut stream = moved::<FFI_ArrowArrayStream>(capsule, STREAM)?;
    let (Some(get_schema), Some(get_next)) = (stream.get_schema(), stream.get_next()) else {
        return Err(PyValueError::new_err("the Arrow stream lacks a callback"));
    };
    let mut schema = FFI_ArrowSchema::empty();
    // SAFETY: the callbacks of a stream that was not released, with the stream itself.
    if unsafe { get_schema(&raw mut stream, &raw mut schema) } != 0 {
        return Err(failed(&mut stream));
    }
    let field = Field::try_from(&schema).map_err(|error| refused(&error))?;
    let mut chunks = Vec::new();
    loop {
        let mut array = FFI_ArrowArray::empty();
        let (from, to) = (&mut stream, &mut array);
        // A query may run now, and its callbacks may take the GIL.
        // SAFETY: as above.
        if capsule.py().detach(move || unsafe { get_next(from, to) }) != 0 {
            return Err(failed(&mut stream));
        }
        if array.is_released() {
            break;
        }
        memory::make_room("chunks", &mut chunks, 1)?;
        chunks.push(imported(array, field.data_type())?);
    }
    if chunks.is_empty() {
        chunks.push(ArrayData::new_empty(field.data_type()));
    }
    Ok((field, chunks))
}

fn failed(stream: &mut FFI_ArrowArrayStream) -> PyErr {
    let mut said = "the Arrow stream failed, and does not say why".to_owned();
    if let Some(last_error) = stream.get_last_error() {
        // SAFETY: the last callback failed; its text lives until the next call.
        unsafe {
            let text = last_error(stream);
            if !text.is_null() {
                said = CStr::from_ptr(text).to_string_lossy().into_owned();
            }
        }
    }
    PyValueError::new_err(said)
}

fn imported(array: FFI_ArrowArray, kind: &DataType) -> PyResult<ArrayData> {
    // SAFETY: who hands over a capsule of Arrow's interface promises that the data is what the type says.
    unsafe { from_ffi_and_data_type(array, kind.clone()) }.map_err(|error| refused(&error))
}

fn moved_schema(capsule: &Told<'_>) -> PyResult<FFI_ArrowSchema> {
    moved::<FFI_ArrowSchema>(capsule, SCHEMA)
}

/// The structs of the interface, which are moved out of their capsules.
pub trait Movable {
    /// # Safety
    ///
    /// The pointer is to such a struct, which is no other's to move.
    unsafe fn from_raw(pointer: *mut Self) -> Self;
    fn is_moved(&self) -> bool;
}

macro_rules! movable {
    ($kind:ty) => {
        impl Movable for $kind {
            // # Safety: as declared.
            unsafe fn from_raw(pointer: *mut Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { <$kind>::from_raw(pointer) }
            }
            fn is_moved(&self) -> bool {
                self.release().is_none()
            }
        }
    };
}
movable!(FFI_ArrowSchema);
movable!(FFI_ArrowArray);
movable!(FFI_ArrowArrayStream);

pub fn moved<T: Movable>(capsule: &Told<'_>, name: &'static CStr) -> PyResult<T> {
    let capsule = capsule.cast::<PyCapsule>().map_err(|_| {
        PyTypeError::new_err(format!("a capsule of Arrow expected, got {}", capsule.get_type()))
    })?;
    let pointer = capsule.pointer_checked(Some(name))?.cast::<T>();
    // SAFETY: a capsule of this name holds such a struct, and the GIL keeps others from moving it meanwhile.
    let found = unsafe { T::from_raw(pointer.as_ptr()) };
    if found.is_moved() {
        return Err(PyValueError::new_err("this Arrow capsule was read before, and can be read once"));
    }
    Ok(found)
}

/// Some elements of an array.
fn part(data: &ArrayData, begin: usize, length: usize) -> PyResult<ArrayData> {
    match begin.checked_add(length) {
        Some(end) if end <= data.len() => Ok(data.slice(begin, length)),
        _ => Err(PyValueError::new_err(format!(
            "Arrow: elements {begin} to {begin} + {length} of an array that has {}",
            data.len()
        ))),
    }
}

/// An array as Python is told of it.
fn describe<'py>(py: Python<'py>, field: &Field, data: &ArrayData) -> PyResult<Told<'py>> {
    if let Some(name) = field.metadata().get(NAME) {
        let metadata = field.metadata().get(METADATA).cloned().unwrap_or_default();
        let stored = told(py, field.data_type(), data)?;
        let named = (name, metadata);
        return Ok(("extension", named_type(field.data_type()), data.len(), py.None(), named, stored)
            .into_pyobject(py)?
            .into_any());
    }
    told(py, field.data_type(), data)
}

fn told<'py>(py: Python<'py>, kind: &DataType, data: &ArrayData) -> PyResult<Told<'py>> {
    let none = py.None().into_bound(py);
    let (called, first, second) = match kind {
        DataType::Boolean => ("numbers", booleans(py, data)?, PyString::new(py, "?").into_any()),
        kind if number(kind).is_some() => {
            let (dtype, size) = number(kind).unwrap_or_default();
            let buffer = buffer_part(data, 0, size)?;
            ("numbers", Bound::new(py, ArrowBuffer(buffer))?.into_any(), PyString::new(py, dtype).into_any())
        }
        DataType::List(of) | DataType::LargeList(of) => {
            let offsets = offsets(data, matches!(kind, DataType::LargeList(_)))?;
            let (first, last) = offsets.ends();
            if first < 0 || last < first {
                return Err(PyValueError::new_err(format!("Arrow: offsets go from {first} to {last}")));
            }
            let elements = part(&data.child_data()[0], first as usize, (last - first) as usize)?;
            let offsets = match offsets {
                Offsets::Wide(_) if first == 0 && !data.is_empty() => {
                    let bytes = (data.offset() * 8, (data.len() + 1) * 8);
                    let buffer = data.buffers()[0].slice_with_length(bytes.0, bytes.1);
                    Bound::new(py, ArrowBuffer(buffer))?.into_any()
                }
                offsets => PyArray1::from_vec(py, offsets.rebased()?).into_any(),
            };
            ("list", offsets, describe(py, of, &elements)?)
        }
        DataType::ListView(of) | DataType::LargeListView(of) => {
            let large = matches!(kind, DataType::LargeListView(_));
            let spans = (int64s(py, data, 0, large)?, int64s(py, data, 1, large)?);
            ("view", spans.into_pyobject(py)?.into_any(), describe(py, of, &data.child_data()[0])?)
        }
        DataType::FixedSizeList(of, width) => {
            let width = *width as usize;
            let elements = part(&data.child_data()[0], data.offset() * width, data.len() * width)?;
            ("fixed", width.into_pyobject(py)?.into_any(), describe(py, of, &elements)?)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ("texts", texts(py, kind, data)?, none),
        DataType::Dictionary(keys, values) => {
            let keys = told(py, keys, data)?;
            ("dictionary", keys, told(py, values, &data.child_data()[0])?)
        }
        DataType::Null => ("nulls", none.clone(), none),
        _ => {
            let (array, schema) = to_ffi(data).map_err(|error| refused(&error))?;
            let schema = PyCapsule::new_with_value(py, schema, SCHEMA)?.into_any();
            ("other", schema, PyCapsule::new_with_value(py, array, ARRAY)?.into_any())
        }
    };
    let missing = missing(py, data)?;
    Ok((called, named_type(kind), data.len(), missing, first, second).into_pyobject(py)?.into_any())
}

/// NumPy's name for a type of numbers, and the bytes of one.
fn number(kind: &DataType) -> Option<(&'static str, usize)> {
    Some(match kind {
        DataType::Int8 => ("int8", 1),
        DataType::Int16 => ("int16", 2),
        DataType::Int32 => ("int32", 4),
        DataType::Int64 => ("int64", 8),
        DataType::UInt8 => ("uint8", 1),
        DataType::UInt16 => ("uint16", 2),
        DataType::UInt32 => ("uint32", 4),
        DataType::UInt64 => ("uint64", 8),
        DataType::Float16 => ("float16", 2),
        DataType::Float32 => ("float32", 4),
        DataType::Float64 => ("float64", 8),
        _ => return None,
    })
}

/// The memory of an array's elements, `size` bytes each.
fn buffer_part(data: &ArrayData, buffer: usize, size: usize) -> PyResult<Buffer> {
    let whole = &data.buffers()[buffer];
    let (begin, length) = (data.offset() * size, data.len() * size);
    if length == 0 {
        return Ok(Buffer::default());
    }
    if begin + length > whole.len() {
        return Err(PyValueError::new_err("Arrow: a buffer is too short for its array"));
    }
    Ok(whole.slice_with_length(begin, length))
}

fn booleans<'py>(py: Python<'py>, data: &ArrayData) -> PyResult<Told<'py>> {
    let bits = &data.buffers()[0];
    if !data.is_empty() && (data.offset() + data.len()).div_ceil(8) > bits.len() {
        return Err(PyValueError::new_err("Arrow: a buffer is too short for its array"));
    }
    let bit = |i: usize| bits[i / 8] >> (i % 8) & 1 == 1;
    let found = memory::collected("booleans", (data.offset()..data.offset() + data.len()).map(bit))?;
    Ok(PyArray1::from_vec(py, found).into_any())
}

/// One bool per element, whether it is null; None if none is.
fn missing<'py>(py: Python<'py>, data: &ArrayData) -> PyResult<Option<Told<'py>>> {
    let Some(nulls) = data.nulls().filter(|nulls| nulls.null_count() > 0) else { return Ok(None) };
    let found = memory::collected("nulls", (0..nulls.len()).map(|i| nulls.is_null(i)))?;
    Ok(Some(PyArray1::from_vec(py, found).into_any()))
}

/// The offsets of lists, one more than there are; none where there are no lists.
enum Offsets<'a> {
    Narrow(&'a [i32]),
    Wide(&'a [i64]),
}

impl Offsets<'_> {
    fn ends(&self) -> (i64, i64) {
        match self {
            Self::Narrow([first, .., last]) => (i64::from(*first), i64::from(*last)),
            Self::Wide([first, .., last]) => (*first, *last),
            _ => (0, 0),
        }
    }

    /// All of them, counted from the first.
    fn rebased(&self) -> PyResult<Vec<i64>> {
        let (first, _) = self.ends();
        let from_first = |at: i64| at.wrapping_sub(first);
        Ok(match self {
            Self::Narrow([]) | Self::Wide([]) => vec![0],
            Self::Narrow(found) => {
                memory::collected("offsets", found.iter().map(|&at| from_first(at.into())))?
            }
            Self::Wide(found) => memory::collected("offsets", found.iter().map(|&at| from_first(at)))?,
        })
    }
}

fn offsets(data: &ArrayData, large: bool) -> PyResult<Offsets<'_>> {
    let count = if data.is_empty() { 0 } else { data.len() + 1 };
    let size = if large { 8 } else { 4 };
    if data.buffers()[0].len() < (data.offset() + count) * size && count > 0 {
        return Err(PyValueError::new_err("Arrow: there are fewer offsets than rows"));
    }
    Ok(match (large, count) {
        (_, 0) => Offsets::Wide(&[]),
        (true, _) => Offsets::Wide(&data.buffer::<i64>(0)[..count]),
        (false, _) => Offsets::Narrow(&data.buffer::<i32>(0)[..count]),
    })
}

/// A buffer of int32 or int64 as int64.
fn int64s<'py>(py: Python<'py>, data: &ArrayData, buffer: usize, large: bool) -> PyResult<Told<'py>> {
    let bytes = buffer_part(data, buffer, if large { 8 } else { 4 })?;
    let found = if large {
        memory::collected("offsets", bytes.typed_data::<i64>().iter().copied())?
    } else {
        memory::collected("offsets", bytes.typed_data::<i32>().iter().map(|&offset| i64::from(offset)))?
    };
    Ok(PyArray1::from_vec(py, found).into_any())
}

/// Texts as a list of str, of which each is checked to be one.
fn texts<'py>(py: Python<'py>, kind: &DataType, data: &ArrayData) -> PyResult<Told<'py>> {
    let list = PyList::empty(py);
    let mut append = |text: Option<&[u8]>| match text {
        Some(text) => list.append(PyString::from_bytes(py, text)?),
        None => list.append(py.None()),
    };
    let raw = |kind: DataType| {
        let data = data.clone().into_builder().data_type(kind).build();
        data.map_err(|error| refused(&error)) // checks offsets
    };
    match kind {
        DataType::Utf8 => BinaryArray::from(raw(DataType::Binary)?).iter().try_for_each(&mut append)?,
        DataType::LargeUtf8 => {
            LargeBinaryArray::from(raw(DataType::LargeBinary)?).iter().try_for_each(&mut append)?;
        }
        _ => BinaryViewArray::from(raw(DataType::BinaryView)?).iter().try_for_each(&mut append)?,
    }
    Ok(list.into_any())
}

/// What Arrow's users call a type.
fn named_type(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "bool".into(),
        DataType::Float16 => "halffloat".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 => "string".into(),
        DataType::LargeUtf8 => "large_string".into(),
        DataType::Utf8View => "string_view".into(),
        DataType::List(of) => format!("list<{}: {}>", of.name(), named_type(of.data_type())),
        DataType::LargeList(of) => format!("large_list<{}: {}>", of.name(), named_type(of.data_type())),
        DataType::FixedSizeList(of, width) => {
            format!("fixed_size_list<{}: {}>[{width}]", of.name(), named_type(of.data_type()))
        }
        DataType::Struct(_) => "struct".into(),
        kind => format!("{kind}").to_lowercase(),
    }
}
