//! Binding of `sample`.

use std::ops::Range;

use numpy::PyUntypedArrayMethods;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::array::{self, Array};
use crate::sample::logits::Columns;
use crate::sample::noise::Key;
use crate::sample::{Allowed, Filters, Ids, Logits, Noise, Options, Sampler};
use crate::{Result, memory};

/// The parameters of all rows, and the noise.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct PyRows<'py> {
    cfg_scale: Array<'py>,
    temperature: Array<'py>,
    top_k: Array<'py>,
    top_p: Array<'py>,
    min_p: Array<'py>,
    seeds: Option<Array<'py>>,
    positions: Option<Array<'py>>,
    noise: Option<Array<'py>>,
}

/// Token ids, log-probabilities, statuses, and kept ids with their offsets.
type PySampled<'py> = (Array<'py>, Array<'py>, Array<'py>, Option<(Array<'py>, Array<'py>)>);

/// Draws a token per row of `cond`.
#[pyfunction]
#[pyo3(signature = (cond, uncond, ids, /, *, dtype, full, rows, order, logprobs, return_kept))]
#[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // as extracted from Python
pub fn sample<'py>(
    py: Python<'py>,
    cond: &Array<'py>,
    uncond: Option<&Array<'py>>,
    ids: PyIds<'py>,
    dtype: &str,
    full: bool,
    rows: PyRows<'py>,
    order: &str,
    logprobs: &str,
    return_kept: bool,
) -> PyResult<PySampled<'py>> {
    let [height, width] = *cond.shape() else { return Err(wrong("cond must be [rows, columns]")) };
    if uncond.is_some_and(|uncond| uncond.shape() != cond.shape()) {
        return Err(wrong("uncond must have the shape of cond"));
    }
    let allowed = ids.allowed(full, width)?;
    let options = Options { order: order.parse()?, logprob: logprobs.parse()? };
    let logits = Matrix::new(dtype, cond, uncond)?;
    let rows = Rows::new(&rows, height, width)?;
    let tokens = array::fresh::<i64>(py, height)?;
    let scores = array::fresh::<f32>(py, height)?;
    let statuses = array::fresh::<i8>(py, height)?;
    let token_out = array::out_slice("token_ids", &tokens, [])?;
    let score_out = array::out_slice("logprobs", &scores, [])?;
    let status_out = array::out_slice("status", &statuses, [])?;
    let mut kept = (Vec::<i32>::new(), vec![0i64]);
    py.detach(|| -> Result<()> {
        let mut sampler = Sampler::with_room(width)?;
        for row in 0..height {
            let (filters, noise) = (rows.filters(row), rows.noise(row, width));
            let drawn = sampler.draw(logits.row(row, width), &allowed, &filters, noise, options);
            token_out[row].write(drawn.token);
            score_out[row].write(drawn.logprob);
            status_out[row].write(drawn.status as i8);
            if return_kept {
                for id in sampler.kept(&allowed) {
                    memory::push("kept", &mut kept.0, id as i32)?;
                }
                memory::push("kept", &mut kept.1, kept.0.len() as i64)?;
            }
        }
        Ok(())
    })?;
    let kept =
        if return_kept { Some((array::of_slice(py, &kept.0)?, array::of_slice(py, &kept.1)?)) } else { None };
    Ok((tokens, scores, statuses, kept))
}

/// The uniforms of each row's tokens.
#[pyfunction]
#[pyo3(signature = (seeds, positions, ids, /, *, out))]
pub fn uniforms(seeds: &Array<'_>, positions: &Array<'_>, ids: &Array<'_>, out: &Array<'_>) -> PyResult<()> {
    let (seeds, positions) = (array::int64s("seeds", seeds)?, array::int64s("positions", positions)?);
    let tokens = array::elements::<i32>("ids", ids)?;
    let filled = array::out_slice::<f32>("out", out, [ids])?;
    if positions.len() != seeds.len() || filled.len() != seeds.len() * tokens.len() {
        return Err(wrong("positions must be as many as seeds, and out [seeds, ids]"));
    }
    for ((row, &seed), &position) in filled.chunks_mut(tokens.len().max(1)).zip(seeds).zip(positions) {
        let key = Key::new(seed as u64, position as u32);
        for (slot, &token) in row.iter_mut().zip(tokens) {
            slot.write(crate::sample::noise::uniform(key.bits(token as u32)));
        }
    }
    Ok(())
}

fn wrong(message: &'static str) -> PyErr {
    PyValueError::new_err(message)
}

/// Global ids: `(first, stop)`, or a rising int32 array.
#[derive(FromPyObject)]
pub enum PyIds<'py> {
    Range(u32, u32),
    List(Array<'py>),
}

impl PyIds<'_> {
    fn allowed(&self, full: bool, width: usize) -> PyResult<Allowed<'_>> {
        let (columns, ids) = match self {
            Self::Range(first, stop) => {
                let all = *first as usize..(*stop).max(*first) as usize;
                (Columns::Range(if full { all } else { 0..all.len() }), Ids::From(*first))
            }
            Self::List(array) => {
                let ids = array::elements::<i32>("ids", array)?;
                if ids.first().is_some_and(|&id| id < 0) || !ids.is_sorted_by(|a, b| a < b) {
                    return Err(wrong("ids must be ≥ 0 and rise"));
                }
                let columns = if full { Columns::List(ids) } else { Columns::Range(0..ids.len()) };
                (columns, Ids::List(ids))
            }
        };
        let needed = match &columns {
            Columns::Range(Range { end, .. }) => *end,
            Columns::List(ids) => ids.last().map_or(0, |&id| id as usize + 1),
        };
        if if full { needed > width } else { needed != width } {
            return Err(wrong("ids must be columns of full logits, or as many as compact ones have"));
        }
        Ok(Allowed { columns, ids })
    }
}

/// Logits of one dtype.
enum Matrix<'a> {
    F32(&'a [f32], Option<&'a [f32]>),
    Bf16(&'a [u16], Option<&'a [u16]>),
    F16(&'a [u16], Option<&'a [u16]>),
}

impl<'a> Matrix<'a> {
    fn new(dtype: &str, cond: &'a Array<'_>, uncond: Option<&'a Array<'_>>) -> PyResult<Self> {
        Ok(match dtype {
            "float32" => Self::F32(array::elements("cond", cond)?, optional("uncond", uncond)?),
            "bfloat16" => Self::Bf16(array::elements("cond", cond)?, optional("uncond", uncond)?),
            "float16" => Self::F16(array::elements("cond", cond)?, optional("uncond", uncond)?),
            _ => return Err(wrong("dtype must be float32, bfloat16 or float16")),
        })
    }

    fn row(&self, row: usize, width: usize) -> Logits<'a> {
        let at = row * width..(row + 1) * width;
        match self {
            Self::F32(c, u) => Logits::F32(&c[at.clone()], u.map(|u| &u[at])),
            Self::Bf16(c, u) => Logits::Bf16(&c[at.clone()], u.map(|u| &u[at])),
            Self::F16(c, u) => Logits::F16(&c[at.clone()], u.map(|u| &u[at])),
        }
    }
}

fn optional<'a, T: numpy::Element + Copy>(
    name: &str,
    array: Option<&'a Array<'_>>,
) -> PyResult<Option<&'a [T]>> {
    array.map(|array| array::elements(name, array)).transpose()
}

/// The parameters of all rows as slices.
struct Rows<'a> {
    scale: &'a [f32],
    temperature: &'a [f64],
    top_k: &'a [i64],
    top_p: &'a [f64],
    min_p: &'a [f64],
    keys: Option<(&'a [i64], &'a [i64])>,
    given: &'a [f32],
}

impl<'a> Rows<'a> {
    fn new(rows: &'a PyRows<'_>, height: usize, width: usize) -> PyResult<Self> {
        let keys = match (&rows.seeds, &rows.positions) {
            (Some(seeds), Some(positions)) => {
                Some((array::int64s("seeds", seeds)?, array::int64s("positions", positions)?))
            }
            _ => None,
        };
        let found = Self {
            scale: array::elements("cfg_scale", &rows.cfg_scale)?,
            temperature: array::elements("temperature", &rows.temperature)?,
            top_k: array::elements("top_k", &rows.top_k)?,
            top_p: array::elements("top_p", &rows.top_p)?,
            min_p: array::elements("min_p", &rows.min_p)?,
            keys,
            given: optional("noise", rows.noise.as_ref())?.unwrap_or_default(),
        };
        let filters = [
            found.scale.len(),
            found.temperature.len(),
            found.top_k.len(),
            found.top_p.len(),
            found.min_p.len(),
        ];
        let noise = match found.keys {
            Some((seeds, positions)) => seeds.len() == height && positions.len() == height,
            None => found.given.len() == height * width,
        };
        if filters != [height; 5] || !noise {
            return Err(wrong("parameters and noise must have a row per row of cond"));
        }
        Ok(found)
    }

    fn filters(&self, row: usize) -> Filters {
        Filters {
            scale: self.scale[row],
            temperature: self.temperature[row],
            top_k: self.top_k[row].max(0) as usize,
            top_p: self.top_p[row],
            min_p: self.min_p[row],
        }
    }

    fn noise(&self, row: usize, width: usize) -> Noise<'a> {
        match self.keys {
            Some((seeds, positions)) => Noise::Keyed(Key::new(seeds[row] as u64, positions[row] as u32)),
            None => Noise::Given(&self.given[row * width..(row + 1) * width]),
        }
    }
}
