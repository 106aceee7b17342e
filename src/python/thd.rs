//! Binding of `thd`.

use pyo3::prelude::*;

use super::array::{self, Array};
use super::segments::{columns, detached, rows_of};
use crate::thd::{self as kernel, Columned, Side};

/// `(q_seqlens, kv_seqlens, q_offsets, kv_offsets)` of `[rows, width]` ids and positions.
#[pyfunction]
#[pyo3(signature = (ids_q, ids_kv, positions_q, positions_kv, /, *, mask, max_segments, pair))]
#[allow(clippy::too_many_arguments)] // the signature is Python's
pub fn thd<'py>(
    py: Python<'py>,
    ids_q: &Array<'py>,
    ids_kv: &Array<'py>,
    positions_q: Option<&Array<'py>>,
    positions_kv: Option<&Array<'py>>,
    mask: &str,
    max_segments: usize,
    pair: bool,
) -> PyResult<[Array<'py>; 4]> {
    let mask = mask.parse()?;
    let q = side("ids_q", ids_q, positions_q)?;
    let kv = side("ids_kv", ids_kv, positions_kv)?;
    let [q_seqlens, q_offsets] = columns(py, q.ids.rows, max_segments)?;
    let [kv_seqlens, kv_offsets] = columns(py, kv.ids.rows, max_segments)?;
    let q_out = columned(&q_seqlens, &q_offsets)?;
    let kv_out = columned(&kv_seqlens, &kv_offsets)?;
    detached(ids_q, || kernel::thd(&q, &kv, mask, max_segments, pair, q_out, kv_out))?;
    Ok([q_seqlens, kv_seqlens, q_offsets, kv_offsets])
}

fn side<'a>(name: &'static str, ids: &'a Array<'_>, positions: Option<&'a Array<'_>>) -> PyResult<Side<'a>> {
    let positions = positions.map(|found| array::positions("positions", found)).transpose()?;
    Ok(Side { ids: rows_of(name, ids)?, positions })
}

fn columned<'a>(
    seqlens: &'a Array<'_>,
    offsets: &'a Array<'_>,
) -> PyResult<Columned<'a, std::mem::MaybeUninit<i32>>> {
    Ok(Columned {
        seqlens: array::out_slice("seqlens", seqlens, [])?,
        offsets: array::out_slice("offsets", offsets, [])?,
    })
}
