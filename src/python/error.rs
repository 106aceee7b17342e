//! Kernel errors to Python exceptions: the one place that maps them.

use pyo3::exceptions::{PyMemoryError, PyOverflowError, PyValueError};
use pyo3::prelude::*;

use crate::Error;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        if let Error::Column { index, source, error } = error {
            return of_column(Self::from(*error), index, source);
        }
        let message = error.to_string();
        match error {
            Error::ValueRange { .. } | Error::TooManyElements { .. } => PyOverflowError::new_err(message),
            Error::NoMemory { .. } => PyMemoryError::new_err(message),
            _ => PyValueError::new_err(message),
        }
    }
}

/// Says which of several columns an exception is about, in its attribute `index`.
fn of_column(error: PyErr, index: usize, source: usize) -> PyErr {
    Python::attach(|py| match error.value(py).setattr("index", (index, source)) {
        Ok(()) => error,
        Err(other) => other,
    })
}
