//! Arrow's arrays over what Python tells of: `("numbers", array, missing)`, `("list", offsets, elements, large)`,
//! `("fixed", width, elements)`, `("texts", list)`, or `("other", object)` that exports itself.
#![allow(unsafe_code)]

use std::panic::RefUnwindSafe;
use std::ptr::NonNull;
use std::sync::Arc;

use arrow_array::builder::LargeStringBuilder;
use arrow_array::ffi::{from_ffi, to_ffi};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{Array as _, RecordBatch, RecordBatchIterator, RecordBatchOptions, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_data::ffi::FFI_ArrowArray;
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{DataType, Field, Schema};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArrayMethods};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyString};

use super::import::moved;
use super::{ARRAY, SCHEMA, STREAM, refused};
use crate::cast::Dtype;
use crate::memory;
use crate::python::array::{self, Array};
use crate::python::list::items::Held;

type Any<'py> = Bound<'py, PyAny>;

/// What keeps NumPy's memory alive for Arrow.
struct Owner(#[allow(dead_code)] Py<PyAny>);

impl RefUnwindSafe for Owner {}

/// Exports an array: the capsules of its type and of itself.
#[pyfunction]
#[pyo3(signature = (spec, /))]
pub fn export_array<'py>(spec: &Any<'py>) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
    let py = spec.py();
    let (array, schema) = to_ffi(&built(spec)?).map_err(|error| refused(&error))?;
    Ok((PyCapsule::new_with_value(py, schema, SCHEMA)?, PyCapsule::new_with_value(py, array, ARRAY)?))
}

/// Exports columns of so many rows as a stream of one batch.
#[pyfunction]
#[pyo3(signature = (names, specs, rows, /))]
pub fn export_stream<'py>(
    py: Python<'py>,
    names: Vec<String>,
    specs: &Any<'py>,
    rows: usize,
) -> PyResult<Bound<'py, PyCapsule>> {
    let mut fields = memory::with_room("columns", names.len())?;
    let mut arrays = memory::with_room("columns", names.len())?;
    for (name, spec) in names.into_iter().zip(Held::required(specs)?.iter()) {
        let data = built(spec)?;
        fields.push(Field::new(name, data.data_type().clone(), true));
        arrays.push(make_array(data));
    }
    let schema = Arc::new(Schema::new(fields));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options);
    let batch = batch.map_err(|error| refused(&error))?;
    let stream = FFI_ArrowArrayStream::new(Box::new(RecordBatchIterator::new([Ok(batch)], schema)));
    PyCapsule::new_with_value(py, stream, STREAM)
}

fn built(spec: &Any<'_>) -> PyResult<ArrayData> {
    let parts = Held::required(spec)?;
    let kind: String = parts.first().ok_or_else(|| PyTypeError::new_err("an array has a kind"))?.extract()?;
    match (kind.as_str(), &parts[1..]) {
        ("numbers", [values, missing]) => numbers(values.cast()?, missing),
        ("list", [offsets, elements, large]) => list(offsets.cast()?, elements, large.extract()?),
        ("fixed", [width, elements]) => fixed(width.extract()?, elements),
        ("texts", [texts]) => self::texts(texts),
        ("other", [object]) => {
            let (schema, array): (Any<'_>, Any<'_>) = object.call_method0("__arrow_c_array__")?.extract()?;
            let schema = moved::<FFI_ArrowSchema>(&schema, SCHEMA)?;
            let array = moved::<FFI_ArrowArray>(&array, ARRAY)?;
            // SAFETY: who hands over a capsule of Arrow's interface promises that the data is what the type says.
            unsafe { from_ffi(array, &schema) }.map_err(|error| refused(&error))
        }
        _ => Err(PyTypeError::new_err(format!("no kind of array: {kind}"))),
    }
}

fn numbers(values: &Array<'_>, missing: &Any<'_>) -> PyResult<ArrayData> {
    let dtype = values.dtype();
    let known = arrow_type(&dtype).filter(|_| values.ndim() == 1);
    let missing = if missing.is_none() { None } else { Some(array::bytes("missing", missing.cast()?)?) };
    let nulls = match missing {
        Some(missing) if missing.len() != values.len() => {
            return Err(PyValueError::new_err("missing is as long"));
        }
        missing => missing.map(|missing| NullBuffer::new(bits(missing.len(), |i| missing[i] == 0))),
    };
    let bytes = array::bytes("values", values)?;
    let (kind, buffer) = match known {
        Some(DataType::Boolean) => (DataType::Boolean, bits(bytes.len(), |i| bytes[i] != 0).into_inner()),
        Some(kind) => (kind, shared(values, bytes)),
        None => return Err(PyTypeError::new_err(format!("Arrow has no dtype like {dtype}"))),
    };
    let built = ArrayData::builder(kind).len(values.len()).add_buffer(buffer).nulls(nulls).build();
    built.map_err(|error| refused(&error))
}

fn bits(count: usize, bit: impl Fn(usize) -> bool) -> BooleanBuffer {
    BooleanBuffer::collect_bool(count, bit)
}

/// NumPy's memory as a buffer of Arrow's.
fn shared(values: &Array<'_>, bytes: &[u8]) -> Buffer {
    let Some(pointer) = NonNull::new(bytes.as_ptr().cast_mut()) else { return Buffer::default() };
    let owner = Arc::new(Owner(values.clone().into_any().unbind()));
    // SAFETY: the array has these bytes as long as it lives, and the owner keeps it alive.
    unsafe { Buffer::from_custom_allocation(pointer, bytes.len(), owner) }
}

fn arrow_type(dtype: &Bound<'_, PyArrayDescr>) -> Option<DataType> {
    if dtype.kind() == b'f' && dtype.itemsize() == 2 && dtype.is_native_byteorder() == Some(true) {
        return Some(DataType::Float16);
    }
    Some(match array::dtype(dtype)? {
        Dtype::Bool => DataType::Boolean,
        Dtype::I8 => DataType::Int8,
        Dtype::I16 => DataType::Int16,
        Dtype::I32 => DataType::Int32,
        Dtype::I64 => DataType::Int64,
        Dtype::U8 => DataType::UInt8,
        Dtype::U16 => DataType::UInt16,
        Dtype::U32 => DataType::UInt32,
        Dtype::U64 => DataType::UInt64,
        Dtype::F32 => DataType::Float32,
        Dtype::F64 => DataType::Float64,
    })
}

fn list(offsets: &Array<'_>, elements: &Any<'_>, large: bool) -> PyResult<ArrayData> {
    let elements = built(elements)?;
    let found = array::int64s("offsets", offsets)?;
    let last = found.last().copied().unwrap_or(-1);
    let field = Arc::new(Field::new_list_field(elements.data_type().clone(), true));
    let (kind, buffer) = if large {
        (DataType::LargeList(field), shared(offsets, array::bytes("offsets", offsets)?))
    } else {
        if i32::try_from(last).is_err() {
            return Err(PyOverflowError::new_err(format!(
                "{last} elements are beyond the int32 offsets of an Arrow list; ask for large_list"
            )));
        }
        let narrow = memory::collected("offsets", found.iter().map(|&offset| offset as i32))?;
        (DataType::List(field), Buffer::from_vec(narrow))
    };
    let rows = found.len().checked_sub(1).ok_or_else(|| PyValueError::new_err("offsets is empty"))?;
    let built = ArrayData::builder(kind).len(rows).add_buffer(buffer).add_child_data(elements).build();
    built.map_err(|error| refused(&error))
}

fn fixed(width: i32, elements: &Any<'_>) -> PyResult<ArrayData> {
    let elements = built(elements)?;
    let count = elements.len().checked_div(width as usize).unwrap_or(0);
    let field = Arc::new(Field::new_list_field(elements.data_type().clone(), true));
    let kind = DataType::FixedSizeList(field, width);
    let built = ArrayData::builder(kind).len(count).add_child_data(elements).build();
    built.map_err(|error| refused(&error))
}

fn texts(texts: &Any<'_>) -> PyResult<ArrayData> {
    let mut builder = LargeStringBuilder::new();
    for text in Held::required(texts)?.iter() {
        if text.is_none() {
            builder.append_null();
        } else {
            builder.append_value(&text.cast::<PyString>()?.to_cow()?);
        }
    }
    Ok(builder.finish().to_data())
}
