//! Kernel errors to Python exceptions: the one place that maps them.

use pyo3::exceptions::{PyMemoryError, PyOverflowError, PyValueError};
use pyo3::prelude::*;

use crate::Error;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error.root() {
            Error::ValueRange { .. } | Error::TooManyElements { .. } => PyOverflowError::new_err(message),
            Error::NoMemory { .. } => PyMemoryError::new_err(message),
            _ => PyValueError::new_err(message),
        }
    }
}
