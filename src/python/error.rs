//! Kernel errors to Python exceptions: the one place that maps them. Each takes along where it is.

use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyIndexError, PyMemoryError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::Error;
use crate::balance::Problem;

/// Where an error is; what it does not know is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place<'a> {
    /// What the message says before the row and position.
    pub before: &'a str,
    /// The column, which the message names.
    pub column: Option<&'a str>,
    /// The row.
    pub row: Option<usize>,
    /// The element of the row.
    pub position: Option<usize>,
    /// The file.
    pub path: Option<&'a str>,
    /// The line of the file, from 1.
    pub line: Option<u64>,
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        if let Error::Column { index, source, error } = error {
            return of_column(Self::from(*error), index, source);
        }
        let (before, after) = error.around_place().unwrap_or_else(|| (String::new(), error.to_string()));
        let placed = error.row().is_some();
        let position = if placed { error.position() } else { None };
        let place = Place { before: &before, row: error.row(), position, ..Place::default() };
        match error {
            Error::NoMemory { .. } => PyMemoryError::new_err(after),
            Error::ValueRange { .. }
            | Error::TooManyElements { .. }
            | Error::Balance(Problem::CostOverflow { .. }) => refusal::<PyOverflowError>(&after, place),
            Error::OutOfRange { .. } => PyIndexError::new_err(after),
            Error::TooManyBins { .. } => PyOverflowError::new_err(after),
            _ if placed => refusal::<PyValueError>(&after, place),
            _ => PyValueError::new_err(after),
        }
    }
}

/// Says which of several columns an exception is about, in its attribute `index`: Python knows its name.
fn of_column(error: PyErr, index: usize, source: usize) -> PyErr {
    Python::attach(|py| match error.value(py).setattr("index", (index, source)) {
        Ok(()) => error,
        Err(other) => other,
    })
}

/// An exception that knows where it is: `rollkit._errors.refusal` makes its message.
#[cold]
pub fn refusal<T: PyTypeInfo>(after: &str, place: Place<'_>) -> PyErr {
    Python::attach(|py| make::<T>(py, after, place).unwrap_or_else(|error| error))
}

fn make<T: PyTypeInfo>(py: Python<'_>, after: &str, place: Place<'_>) -> PyResult<PyErr> {
    static REFUSAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let known = PyDict::new(py);
    known.set_item("before", place.before)?;
    known.set_item("label", place.column.map(|_| ""))?;
    known.set_item("column", place.column)?;
    known.set_item("row", place.row)?;
    known.set_item("position", place.position)?;
    known.set_item("path", place.path)?;
    known.set_item("line", place.line)?;
    let refusal = REFUSAL.import(py, "rollkit._errors", "refusal")?;
    Ok(PyErr::from_value(refusal.call((T::type_object(py), after), Some(&known))?))
}
