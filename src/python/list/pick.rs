//! One number of each element of a row: an entry of a tuple, the value of a key, an attribute.
//!
//! Attributes and keys may run Python code, which may change anything: elements are read from a snapshot,
//! and each dict is asked once. Entries of tuples and lists are read in place, as numbers are.

use std::mem::MaybeUninit;

use numpy::PyArrayDescr;
use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyList, PyString, PyTuple};

use super::items::Held;
use super::look;
use super::number::{Scalar, exact, read_entries};
use super::{At, Source, convert, dtype_of, length, lengths, shown, type_name, written};
use crate::python::array::Array;
use crate::python::error::{Place, refusal};

/// Keys that a message names.
const NAMED: usize = 4;

/// Rows of a number of each element as `(values, offsets)`. With `keys`, a row of them for each row, elements
/// are dicts, and the number is that of the value of the key: the value itself if `item` is `None`.
#[pyfunction]
#[pyo3(signature = (rows, item, dtype=None, /, *, keys=None))]
#[allow(clippy::needless_pass_by_value)] // what is extracted is owned
pub fn pick_numbers<'py>(
    py: Python<'py>,
    rows: &Bound<'py, PyAny>,
    item: &Bound<'py, PyAny>,
    dtype: Option<Bound<'py, PyArrayDescr>>,
    keys: Option<Bound<'py, PyAny>>,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let Some(rows) = Held::of(rows)? else {
        return Err(PyTypeError::new_err(format!("rows must be a list or tuple, got {}", type_name(rows))));
    };
    let keys = keys.map(|keys| Held::required(&keys)).transpose()?;
    let mut picked = Picked { item: Item::of(item, keys.is_some())?, keys, way: Way::Asked };
    let lengths = lengths(&rows)?;
    picked.check_keys(&lengths)?;
    let at =
        At { row: lengths.iter().position(|&length| length > 0).unwrap_or(0), position: None, inner: &[] };
    let mut first = None;
    if let Some(object) = picked.first(&rows, &lengths, at)? {
        picked.way = Way::of(&picked.item, &object)?;
        first = Some(picked.item.get(&object, 0, at)?);
    }
    let descr = dtype_of(py, dtype, first.as_ref(), at)?;
    written(py, &rows, &lengths, &[], &descr, &picked)
}

/// What of an element is meant.
enum Item<'py> {
    Entry(isize),
    Name(Bound<'py, PyString>),
    Itself,
}

impl<'py> Item<'py> {
    fn of(item: &Bound<'py, PyAny>, keyed: bool) -> PyResult<Self> {
        if let Ok(name) = item.cast::<PyString>() {
            // Interned, as names of attributes are: then equal is identical.
            return Ok(Self::Name(PyString::intern(item.py(), &name.to_cow()?)));
        }
        if keyed && item.is_none() {
            return Ok(Self::Itself);
        }
        if item.is_exact_instance_of::<PyInt>() {
            return Ok(Self::Entry(item.extract()?));
        }
        Err(PyTypeError::new_err(format!("item must be an int or a str, got {}", type_name(item))))
    }

    /// The number of an element; may run Python code.
    fn get(&self, element: &Bound<'py, PyAny>, index: usize, at: At<'_>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Itself => Ok(element.clone()),
            Self::Entry(entry) => {
                let Some(found) = length(element) else {
                    let text = format!("{} has no entries; a tuple or list expected", shown(element));
                    return Err(at.refusal::<PyTypeError>(index, &text));
                };
                let place = if *entry < 0 { found.checked_add_signed(*entry) } else { Some(*entry as usize) };
                place.and_then(|place| entry_of(element, place)).ok_or_else(|| {
                    let text = format!("a {} of {found} has no entry {entry}", type_name(element));
                    at.refusal::<PyValueError>(index, &text)
                })
            }
            Self::Name(name) => match element.cast::<PyDict>() {
                Ok(dict) => dict.get_item(name)?.ok_or_else(|| {
                    let text = format!("a {} without {}", type_name(dict), shown(name));
                    at.refusal::<PyValueError>(index, &text)
                }),
                Err(_) => element.getattr(name).map_err(|error| without(element, name, &error, index, at)),
            },
        }
    }
}

/// The error of an element that has no such attribute; one of another kind as it is, told where.
#[cold]
fn without(
    element: &Bound<'_, PyAny>,
    name: &Bound<'_, PyString>,
    error: &PyErr,
    index: usize,
    at: At<'_>,
) -> PyErr {
    let py = element.py();
    if error.is_instance_of::<PyAttributeError>(py) {
        let text = format!("{} has no attribute {}", shown(element), shown(name));
        let refused = at.refusal::<PyTypeError>(index, &text);
        refused.set_cause(py, Some(error.clone_ref(py)));
        return refused;
    }
    let note = format!("while {} was read of row {}, position {index}", shown(name), at.row);
    let _ = error.value(py).call_method1("add_note", (note,));
    error.clone_ref(py)
}

fn entry_of<'py>(element: &Bound<'py, PyAny>, place: usize) -> Option<Bound<'py, PyAny>> {
    match element.cast::<PyList>() {
        Ok(list) => list.get_item(place).ok(),
        Err(_) => element.cast::<PyTuple>().ok()?.get_item(place).ok(),
    }
}

/// How elements give their numbers.
enum Way<'py> {
    /// They are asked, which may run Python code.
    Asked,
    /// They are looked at: dicts, or objects of a class that has the attribute.
    Seen(Option<look::Attribute<'py>>),
}

impl<'py> Way<'py> {
    /// By what the first of them is.
    fn of(item: &Item<'py>, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        match item {
            Item::Name(name) if !object.is_exact_instance_of::<PyDict>() => {
                Ok(look::Attribute::of(object, name)?.map_or(Self::Asked, |found| Self::Seen(Some(found))))
            }
            _ => Ok(Self::Seen(None)),
        }
    }
}

/// A number of each element.
struct Picked<'py> {
    item: Item<'py>,
    keys: Option<Held<'py>>,
    way: Way<'py>,
}

impl<'py> Picked<'py> {
    /// There is a key for each element.
    fn check_keys(&self, lengths: &[i64]) -> PyResult<()> {
        let Some(keys) = &self.keys else { return Ok(()) };
        if keys.len() != lengths.len() {
            let text = format!("keys has {} rows, rows has {}", keys.len(), lengths.len());
            return Err(PyValueError::new_err(text));
        }
        for (row, (keys, &wanted)) in keys.iter().zip(lengths).enumerate() {
            let Some(found) = length(keys) else {
                let text = format!(" of keys is {}, expected a list or tuple", type_name(keys));
                return Err(refusal::<PyTypeError>(&text, Place { row: Some(row), ..Place::default() }));
            };
            if found as i64 != wanted {
                let text = format!(" has {wanted} elements for {found} tokens");
                return Err(refusal::<PyValueError>(&text, Place { row: Some(row), ..Place::default() }));
            }
        }
        Ok(())
    }

    /// The first element there is, or the value of its key.
    fn first(
        &self,
        rows: &[Bound<'py, PyAny>],
        lengths: &[i64],
        at: At<'_>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if lengths.get(at.row).is_none_or(|&length| length == 0) {
            return Ok(None);
        }
        let Some(element) = entry_of(&rows[at.row], 0) else { return Err(at.wrong_length(&rows[at.row])) };
        match self.keys.as_ref().map(|keys| entry_of(&keys[at.row], 0)) {
            None => Ok(Some(element)),
            Some(None) => Err(at.wrong_length(&rows[at.row])),
            Some(Some(key)) => value_of(&element, &key, 0, at).map(Some),
        }
    }

    /// The numbers of a list that can be read in place, from the first on; how many they are.
    fn read<T: Scalar>(&self, list: &Bound<'py, PyList>, out: &mut [MaybeUninit<T>], row: usize) -> usize {
        match (&self.item, &self.way, &self.keys) {
            (&Item::Entry(entry), _, None) => read_entries(list, entry, out),
            (Item::Name(_) | Item::Itself, Way::Seen(attribute), keys) => {
                let keys = keys.as_ref().map(|keys| keys[row].cast::<PyList>());
                let Ok(keys) = keys.transpose() else { return 0 };
                let name = if let Item::Name(name) = &self.item { Some(name) } else { None };
                look::read(list, &look::Path { keys, name, attribute: attribute.as_ref() }, out)
            }
            _ => 0,
        }
    }

    fn get(
        &self,
        element: &Bound<'py, PyAny>,
        key: Option<&Bound<'py, PyAny>>,
        index: usize,
        at: At<'_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match key {
            None => self.item.get(element, index, at),
            Some(key) => self.item.get(&value_of(element, key, index, at)?, index, at),
        }
    }
}

/// The value of a key of an element that is a dict.
fn value_of<'py>(
    element: &Bound<'py, PyAny>,
    key: &Bound<'py, PyAny>,
    index: usize,
    at: At<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    let Ok(dict) = element.cast::<PyDict>() else {
        let text = format!("a dict by token expected, got {}", shown(element));
        return Err(at.refusal::<PyTypeError>(index, &text));
    };
    if let Some(value) = dict.get_item(key)? {
        return Ok(value);
    }
    // Printing may run Python code, which may change the dict.
    let keys = dict.iter().take(NAMED).map(|(key, _)| key).collect::<Vec<_>>();
    let mut there = keys.iter().map(shown).collect::<Vec<_>>();
    if dict.len() > NAMED {
        there.push("…".to_owned());
    }
    let there = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
    Err(at.refusal::<PyValueError>(index, &format!("no entry for token {} among {there}", shown(key))))
}

impl<'py> Source<'py> for Picked<'py> {
    fn write<T: Scalar>(
        &self,
        row: &Bound<'py, PyAny>,
        _: &[usize],
        out: &mut [MaybeUninit<T>],
        at: At<'_>,
    ) -> PyResult<()> {
        let mut done = row.cast::<PyList>().map_or(0, |list| self.read(list, out, at.row));
        if done == out.len() && done > 0 {
            return Ok(());
        }
        let held = |object| {
            let found = Held::of(object)?.filter(|found| found.len() == out.len());
            found.ok_or_else(|| at.wrong_length(row))
        };
        let elements = held(row)?;
        let keys = self.keys.as_ref().map(|keys| held(&keys[at.row])).transpose()?;
        while let Some(element) = elements.get(done) {
            let number = self.get(element, keys.as_ref().map(|keys| &keys[done]), done, at)?;
            let value = exact(&number).map_or_else(|| convert(&number, done, at), Ok)?;
            out[done].write(value);
            done += 1;
        }
        Ok(())
    }
}
