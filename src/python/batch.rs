//! Bindings of `batch`.

use numpy::{PyArrayDescrMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::array::{self, Array, DETACH_BYTES, Memory};
use super::layout::slots;
use super::list::items::Held;
use super::place::PyParts;
use crate::batch::{self as kernel, Column, Level, Sequences, Source};
use crate::place::Gaps;
use crate::{Error, layout};

/// A column as Python passes it: `(level, parts, row_lengths, fill, out, zeroed)`.
struct PyColumn<'py> {
    rows: Vec<PyRows<'py>>,
    fill: Array<'py>,
    out: Array<'py>,
    zeroed: bool,
}

/// Rows of one level.
struct PyRows<'py> {
    level: Level,
    parts: Held<'py>,
    lengths: Option<Array<'py>>,
}

impl<'py> PyColumn<'py> {
    fn new(column: &Bound<'py, PyAny>) -> PyResult<Self> {
        type Any<'py> = Bound<'py, PyAny>;
        type Fields<'py> = (Bound<'py, PyString>, Any<'py>, Option<Any<'py>>, Array<'py>, Array<'py>, bool);
        let (level, parts, lengths, fill, out, zeroed): Fields<'py> = column.extract()?;
        let level = level.to_cow()?;
        let rows = if level == "tokens" {
            // Prompts and responses, each with parts and lengths of their own.
            let (prompts, responses): (Any<'py>, Any<'py>) = parts.extract()?;
            let both: Option<(Option<Array<'py>>, Option<Array<'py>>)> =
                lengths.map(|both| both.extract()).transpose()?;
            let (prompt, response) = both.unwrap_or_default();
            let prompts = PyRows { level: Level::Prompt, parts: Held::required(&prompts)?, lengths: prompt };
            let responses =
                PyRows { level: Level::Response, parts: Held::required(&responses)?, lengths: response };
            vec![prompts, responses]
        } else {
            let level = Level::named(&level)
                .ok_or_else(|| Error::UnknownName { name: "level", got: level.into_owned() })?;
            let lengths = lengths.map(Bound::cast_into).transpose()?;
            vec![PyRows { level, parts: Held::required(&parts)?, lengths }]
        };
        Ok(Self { rows, fill, out, zeroed })
    }

    /// The column as the kernel wants it, without its output; what it reads is added to `inputs`.
    fn resolved(&self, index: usize, inputs: &mut Inputs<'_>) -> PyResult<(Vec<Source<'_>>, Gaps<'_>)> {
        let item = self.fill.len() * self.out.dtype().itemsize();
        let fill = array::bytes("fill", &self.fill)?;
        if fill.len() != item {
            return Err(PyValueError::new_err("fill must have the dtype of out"));
        }
        inputs(array::memory(fill));
        let rows = self.rows.iter().enumerate();
        let sources = rows.map(|(number, rows)| {
            let source = rows.resolved(&self.out, item, inputs)?;
            Ok(source.map_err(|error| error.in_column(index, number))?)
        });
        let gaps = if self.zeroed { Gaps::Leave(item) } else { Gaps::Fill(fill) };
        Ok((sources.collect::<PyResult<_>>()?, gaps))
    }
}

/// Takes note of memory that is read.
type Inputs<'a> = dyn FnMut(Memory) + 'a;

impl PyRows<'_> {
    /// The rows; the inner error is about one of them.
    fn resolved(
        &self,
        out: &Array<'_>,
        item: usize,
        inputs: &mut Inputs<'_>,
    ) -> PyResult<crate::Result<Source<'_>>> {
        let parts = PyParts::of(&self.parts)?;
        parts.memory().for_each(&mut *inputs);
        let mover = parts.mover(out)?;
        let rows = match &self.lengths {
            None => parts.self_described(mover.source_item(item)),
            Some(lengths) => {
                let lengths = array::int64s("row_lengths", lengths)?;
                inputs(array::memory(lengths));
                parts.rows(lengths, mover.source_item(item))
            }
        };
        Ok(rows.map(|rows| Source { level: self.level, rows, mover }))
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
    let columns = Held::required(columns)?.iter().map(PyColumn::new).collect::<PyResult<Vec<_>>>()?;

    let made = [("segment_ids", segment_ids), ("positions", positions), ("attention_mask", attention_mask)];
    let made = made.into_iter().filter_map(|(name, out)| Some((name, out?)));
    let outs: Vec<_> = columns.iter().map(|column| ("out", &column.out)).chain(made).collect();
    let slots =
        [Some(starts), Some(lengths), order, Some(row_lengths), Some(prompt_lengths), source_rows, begins];
    let read = slots.into_iter().flatten().map(|array| Ok(array::memory(array::bytes("input", array)?)));
    let mut read = read.collect::<PyResult<Vec<_>>>()?;
    let sources = columns.iter().enumerate();
    let sources = sources.map(|(i, column)| column.resolved(i, &mut |memory| read.push(memory)));
    let sources = sources.collect::<PyResult<Vec<_>>>()?;
    array::check_apart(&outs, read)?;

    let resolved = columns.iter().zip(sources).map(|(column, (sources, gaps))| {
        Ok(Column { sources, gaps, out: array::out_bytes("out", &column.out, [])? })
    });
    let mut resolved = resolved.collect::<PyResult<Vec<_>>>()?;
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
