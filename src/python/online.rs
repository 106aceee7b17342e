//! Binding of `online`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use super::array::{self, Array};
use crate::online::{Bin, Bins, Options, Packer, Row};

/// Rows that wait (number, length, when it came) and bins (free slots, when the first row came, rows).
type State = (u64, Vec<(i64, i64, u64)>, Vec<(i64, u64, Vec<i64>)>);

/// Packs rows that arrive one by one. Threads take turns.
#[pyclass(frozen, module = "rollkit._native")]
pub struct OnlinePacker {
    packer: Mutex<Packer>,
}

#[pymethods]
impl OnlinePacker {
    /// With `state`, one that goes on where another was.
    #[new]
    #[pyo3(signature = (*, capacity, buffer, policy, max_wait, max_segments, align, state = None))]
    fn new(
        capacity: i64,
        buffer: usize,
        policy: &str,
        max_wait: Option<u64>,
        max_segments: Option<usize>,
        align: i64,
        state: Option<State>,
    ) -> PyResult<Self> {
        let policy = policy.parse()?;
        let options = Options { capacity, buffer, policy, max_wait, max_segments, align };
        let Some((added, waiting, bins)) = state else {
            return Ok(Self { packer: Mutex::new(Packer::new(options)?) });
        };
        let waiting = waiting.into_iter().map(|(number, length, came)| Row { number, length, came });
        let bins = bins.into_iter().map(|(room, came, rows)| Bin { room, came, rows });
        let packer = Packer::resumed(options, added, waiting.collect(), bins.collect())?;
        let packer = packer.ok_or_else(|| PyValueError::new_err("state is none that a packer can be in"))?;
        Ok(Self { packer: Mutex::new(packer) })
    }

    /// Adds a row; gives the bins that are complete then.
    #[pyo3(signature = (row, length, /))]
    fn add<'py>(&self, py: Python<'py>, row: i64, length: i64) -> PyResult<Vec<Array<'py>>> {
        let mut bins = Bins::default();
        self.held(py).extend(&[row], &[length], &mut bins)?;
        arrays(py, &bins)
    }

    /// Adds rows; gives the rows of the bins that are complete then, and where each ends.
    #[pyo3(signature = (rows, lengths, /))]
    fn extend<'py>(
        &self,
        py: Python<'py>,
        rows: &Array<'py>,
        lengths: &Array<'py>,
    ) -> PyResult<(Array<'py>, Array<'py>)> {
        let (rows, lengths) = (array::int64s("rows", rows)?, array::int64s("lengths", lengths)?);
        let mut bins = Bins::default();
        bins.ends.push(0);
        py.detach(|| -> crate::Result<()> {
            let mut packer = self.packer.lock().unwrap_or_else(PoisonError::into_inner);
            // What fails on the way, for want of memory, leaves the packer as it was.
            let mut after = packer.clone();
            after.extend(rows, lengths, &mut bins)?;
            *packer = after;
            Ok(())
        })?;
        Ok((array::of_slice(py, &bins.rows)?, array::of_slice(py, &bins.ends)?))
    }

    /// Gives the bins of all rows that are left.
    fn flush<'py>(&self, py: Python<'py>) -> PyResult<Vec<Array<'py>>> {
        let mut bins = Bins::default();
        self.held(py).flush(&mut bins)?;
        arrays(py, &bins)
    }

    /// How many rows have come and are not out.
    fn pending(&self, py: Python<'_>) -> usize {
        self.held(py).pending()
    }

    /// How many rows have come, which wait, and what bins there are.
    fn state(&self, py: Python<'_>) -> State {
        let packer = self.held(py);
        let waiting = packer.waiting().map(|row| (row.number, row.length, row.came)).collect();
        let bins = packer.bins().map(|bin| (bin.room, bin.came, bin.rows.clone())).collect();
        (packer.added(), waiting, bins)
    }
}

impl OnlinePacker {
    /// The packer, once no other thread has it.
    fn held(&self, py: Python<'_>) -> MutexGuard<'_, Packer> {
        self.packer.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}

fn arrays<'py>(py: Python<'py>, bins: &Bins) -> PyResult<Vec<Array<'py>>> {
    let mut begin = 0;
    let mut bin = |&end: &i64| {
        let rows = bins.rows.get(begin..end as usize).unwrap_or_default();
        begin = end as usize;
        array::of_slice(py, rows)
    };
    bins.ends.iter().map(&mut bin).collect()
}
