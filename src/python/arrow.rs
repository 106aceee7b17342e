//! Arrow's C data interface: Arrow arrays over NumPy's memory, and NumPy arrays over Arrow's.
//!
//! An array is told to Python, and told by it, as `(kind, type, length, missing, first, second)`; the last two
//! depend on the kind:
//!
//! | kind | first | second |
//! |---|---|---|
//! | `numbers` | a buffer (exported: an array) | its dtype |
//! | `list` | int64 offsets | the elements |
//! | `view` | int64 begins, and lengths | the elements |
//! | `fixed` | the width | the elements |
//! | `texts` | a list of str or None | |
//! | `dictionary` | the keys | the values |
//! | `nulls` | | |
//! | `extension` | its name, and its metadata | how it is stored |
//! | `other` | the capsule of the type | that of the array |
//!
//! `missing` is None, or has a bool per element.

mod export;
mod import;

use std::ffi::CStr;

use arrow_schema::ArrowError;
use pyo3::PyErr;
use pyo3::exceptions::PyValueError;

pub use export::{export_array, export_stream};
pub use import::{arrow_formats, read_arrow};

const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";
const STREAM: &CStr = c"arrow_array_stream";

fn refused(error: &ArrowError) -> PyErr {
    PyValueError::new_err(format!("Arrow: {error}"))
}
