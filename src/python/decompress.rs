//! Compressed files, read a buffer at a time.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::error::{Place, refusal};
use pyo3::types::PyBytes;

use super::array::{self, Array};
use crate::memory;
use crate::out::Out;

/// Bytes asked of the file at a time.
const CHUNK: usize = 1 << 17;

/// More bytes than a decompressor needs before it has read anything. It asks for them in a way that ends the
/// process where there are none.
const STATE: usize = 1 << 19;

/// A binary file of Python's.
struct PyFile(Py<PyAny>);

impl Read for PyFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Python::attach(|py| {
            let read = self.0.bind(py).call_method1("read", (buffer.len(),))?;
            let bytes = read.cast::<PyBytes>().map_err(PyErr::from)?.as_bytes();
            let start = buffer.get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidData)?;
            start.copy_from_slice(bytes);
            Ok(bytes.len())
        })
    }
}

/// Reads a gzip or zstd file, of one or several members or frames.
#[pyclass(module = "rollkit._native")]
pub struct Decompressor {
    stream: BufReader<Box<dyn Read + Send + Sync>>,
    name: String,
    kind: String,
}

#[pymethods]
impl Decompressor {
    #[new]
    #[pyo3(signature = (file, kind, /, *, name))]
    fn new(file: Py<PyAny>, kind: String, name: String) -> PyResult<Self> {
        memory::available::<u8>("buffers", STATE)?;
        let file = BufReader::with_capacity(CHUNK, PyFile(file));
        let stream: Box<dyn Read + Send + Sync> = match &*kind {
            "gzip" => Box::new(MultiGzDecoder::new(file)),
            "zstd" => Box::new(zstd::Decoder::with_buffer(file)?),
            _ => return Err(PyValueError::new_err(format!("kind must be 'gzip' or 'zstd', got {kind:?}"))),
        };
        Ok(Self { stream: BufReader::with_capacity(CHUNK, stream), name, kind })
    }

    /// Fills `out`, less only at the end; returns how many bytes.
    #[pyo3(signature = (out, /))]
    fn readinto(&mut self, py: Python<'_>, out: &Array<'_>) -> PyResult<usize> {
        let mut rest = array::out_bytes("out", out, &[])?;
        let wanted = rest.len();
        py.detach(|| -> io::Result<usize> {
            while !rest.is_empty() {
                let ready = match self.stream.fill_buf() {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    ready => ready?,
                };
                let count = ready.len().min(rest.len());
                if count == 0 {
                    break;
                }
                let (now, later) = rest.split_at_mut(count);
                Out::copy(now, &ready[..count]);
                rest = later;
                self.stream.consume(count);
            }
            Ok(wanted - rest.len())
        })
        .map_err(|error| self.refused(error))
    }
}

impl Decompressor {
    /// What the file itself raised, or a `ValueError` that names the file.
    fn refused(&self, error: io::Error) -> PyErr {
        if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<PyErr>) {
            return error.into();
        }
        let place = Place { path: Some(&self.name), ..Place::default() };
        refusal::<PyValueError>(&format!("not a whole {} stream: {error}", self.kind), place)
    }
}
