//! Bindings of `batch`.

use std::mem::MaybeUninit;

use numpy::{PyArrayDescrMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::array::{self, Array, DETACH_BYTES};
use super::layout::slots;
use super::place::{PyPart, one_mover, rows_of, self_described, snapshot};
use crate::batch::{self as kernel, Column, Level, Sequences, Source};
use crate::place::{Gaps, Mover};
use crate::{Error, layout};

/// A column as Python passes it: `(level, parts, row_lengths, fill, out, zeroed)`.
struct PyColumn<'py> {
    sources: Vec<PySource<'py>>,
    fill: Array<'py>,
    out: Array<'py>,
    zeroed: bool,
}

/// Rows of one level.
struct PySource<'py> {
    level: Level,
    parts: Vec<PyPart<'py>>,
    row_lengths: Option<Array<'py>>,
    mover: Mover,
}

impl<'py> PyColumn<'py> {
    fn new(column: &Bound<'py, PyAny>) -> PyResult<Self> {
        type Fields<'py> = (
            Bound<'py, PyString>,
            Bound<'py, PyAny>,
            Option<Bound<'py, PyAny>>,
            Array<'py>,
            Array<'py>,
            bool,
        );
        let (level, parts, row_lengths, fill, out, zeroed): Fields<'py> = column.extract()?;
        let level = level.to_cow()?;
        let sources = if level == "tokens" {
            // Prompts and responses, each with parts and lengths of their own.
            let (prompts, responses): (Bound<'py, PyAny>, Bound<'py, PyAny>) = parts.extract()?;
            let (prompt, response) = match row_lengths {
                None => (None, None),
                Some(both) => both.extract::<(Option<Array<'py>>, Option<Array<'py>>)>()?,
            };
            vec![
                PySource::new(Level::Prompt, &prompts, prompt, &out)?,
                PySource::new(Level::Response, &responses, response, &out)?,
            ]
        } else {
            let Some(level) = Level::named(&level) else {
                let got = level.into_owned();
                return Err(Error::UnknownName { name: "level", got }.into());
            };
            let row_lengths = row_lengths.map(Bound::cast_into).transpose()?;
            vec![PySource::new(level, &parts, row_lengths, &out)?]
        };
        Ok(Self { sources, fill, out, zeroed })
    }

    fn inputs(&self) -> impl Iterator<Item = &Array<'py>> {
        let sources = self.sources.iter();
        let sources = sources
            .flat_map(|source| source.parts.iter().flat_map(PyPart::arrays).chain(&source.row_lengths));
        sources.chain([&self.fill])
    }

    /// The column as the kernel wants it. The output must be apart from all inputs.
    fn resolved(&self, index: usize) -> PyResult<Column<'_, MaybeUninit<u8>>> {
        let item = self.fill.len() * self.out.dtype().itemsize();
        let fill = array::bytes("fill", &self.fill)?;
        if fill.len() != item {
            return Err(PyValueError::new_err("fill must have the dtype of out"));
        }
        let gaps = if self.zeroed { Gaps::Leave(item) } else { Gaps::Fill(fill) };
        let sources = self.sources.iter().enumerate();
        let sources = sources.map(|(number, source)| {
            Ok(source.resolved(item)?.map_err(|error| error.in_column(index, number))?)
        });
        let sources = sources.collect::<PyResult<Vec<_>>>()?;
        Ok(Column { sources, gaps, out: array::out_bytes("out", &self.out, [])? })
    }
}

impl<'py> PySource<'py> {
    fn new(
        level: Level,
        parts: &Bound<'py, PyAny>,
        row_lengths: Option<Array<'py>>,
        out: &Array<'py>,
    ) -> PyResult<Self> {
        let parts = PyPart::all(parts)?;
        let mover = one_mover(&parts, out)?;
        Ok(Self { level, parts, row_lengths, mover })
    }

    fn resolved(&self, item: usize) -> PyResult<crate::Result<Source<'_>>> {
        let source_item = self.mover.source_item(item);
        let rows = match &self.row_lengths {
            None => self_described(&self.parts, source_item)?,
            Some(lengths) => rows_of(&self.parts, array::int64s("row_lengths", lengths)?, source_item)?,
        };
        Ok(rows.map(|rows| Source { level: self.level, rows, mover: self.mover }))
    }
}

/// Writes all arrays of a batch: columns, and what is read off the layout.
#[pyfunction]
#[pyo3(signature = (starts, lengths, order, row_lengths, prompt_lengths, columns, /, *, size, width,
    source_rows = None, begins = None, segment_ids = None, positions = None, attention_mask = None))]
#[allow(clippy::too_many_arguments)] // as Python passes them
pub fn fill_batch<'py>(
    py: Python<'py>,
    starts: &Array<'py>,
    lengths: &Array<'py>,
    order: Option<&Array<'py>>,
    row_lengths: &Array<'py>,
    prompt_lengths: &Array<'py>,
    columns: &Bound<'py, PyAny>,
    size: usize,
    width: usize,
    source_rows: Option<&Array<'py>>,
    begins: Option<&Array<'py>>,
    segment_ids: Option<&Array<'py>>,
    positions: Option<&Array<'py>>,
    attention_mask: Option<&Array<'py>>,
) -> PyResult<()> {
    let sequences = Sequences {
        slots: slots(starts, lengths, order, size)?,
        source_rows: source_rows.map(|rows| array::int64s("source_rows", rows)).transpose()?,
        begins: begins.map(|begins| array::int64s("begins", begins)).transpose()?,
        row_lengths: array::int64s("row_lengths", row_lengths)?,
        prompt_lengths: array::int64s("prompt_lengths", prompt_lengths)?,
    };
    let columns = snapshot(columns)?.as_slice().iter().map(PyColumn::new).collect::<PyResult<Vec<_>>>()?;

    let made = [("segment_ids", segment_ids), ("positions", positions), ("attention_mask", attention_mask)];
    let made = made.into_iter().filter_map(|(name, out)| Some((name, out?)));
    let outs: Vec<_> = columns.iter().map(|column| ("out", &column.out)).chain(made).collect();
    let inputs = [starts, lengths, row_lengths, prompt_lengths].into_iter();
    let inputs = inputs.chain(order).chain(source_rows).chain(begins);
    array::check_apart(&outs, inputs.chain(columns.iter().flat_map(PyColumn::inputs)))?;

    let mut resolved =
        columns.iter().enumerate().map(|(i, column)| column.resolved(i)).collect::<PyResult<Vec<_>>>()?;
    let segment_ids = segment_ids.map(|out| array::out_slice("segment_ids", out, [])).transpose()?;
    let positions = positions.map(|out| array::out_slice("positions", out, [])).transpose()?;
    let mask = attention_mask.map(|out| array::out_slice::<u8>("attention_mask", out, [])).transpose()?;
    let bytes: usize = outs.iter().map(|(_, out)| out.len() * out.dtype().itemsize()).sum();
    let run = || {
        let plan = sequences.plan()?;
        kernel::fill(&sequences, &plan, &mut resolved, array::prefetch)?;
        segment_ids.map_or(Ok(()), |out| layout::segment_ids(&plan.slots(), width, out))?;
        positions.map_or(Ok(()), |out| kernel::positions(&plan, out))?;
        mask.map_or(Ok(()), |out| layout::mask(&plan.slots(), out))
    };
    Ok(if bytes < DETACH_BYTES { run() } else { py.detach(run) }?)
}
