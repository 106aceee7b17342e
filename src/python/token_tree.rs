//! Binding of `token_tree`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use super::array::{self, Array, DETACH_BYTES};
use super::forest::arrays_of;
use crate::token_tree::{self as kernel, Columns, Turn};
use crate::trie::NONE;

/// The nodes of a tree of tokens, which each call is given. Threads take turns.
#[pyclass(frozen, module = "rollkit._native")]
pub struct TokenTree {
    tree: Mutex<kernel::TokenTree>,
}

#[pymethods]
impl TokenTree {
    /// Of these nodes; of none if they are left out.
    #[new]
    #[pyo3(signature = (tokens = None, columns = None, /))]
    fn new<'py>(tokens: Option<&Array<'py>>, columns: Option<[Array<'py>; 5]>) -> PyResult<Self> {
        let tokens = tokens.map_or(Ok(&[][..]), |tokens| array::elements("tokens", tokens))?;
        let mut given = Columns::default();
        if let Some(columns) = columns {
            let [parents, begins, lengths, sampled, captured] = &columns;
            let copied = |name, column| PyResult::Ok(array::int64s(name, column)?.to_vec());
            given = Columns {
                parents: copied("parents", parents)?,
                begins: copied("begins", begins)?,
                lengths: copied("lengths", lengths)?,
                sampled: copied("sampled", sampled)?,
                captured: copied("captured", captured)?,
            };
        }
        Ok(Self { tree: Mutex::new(kernel::TokenTree::new(&given, tokens)?) })
    }

    /// The node that the longest beginning of a prompt that is a path ends in, -1 if there is none; its tokens;
    /// and how many of them the node has.
    #[pyo3(signature = (tokens, prompt, /))]
    fn find<'py>(
        &self,
        py: Python<'py>,
        tokens: &Array<'py>,
        prompt: &Array<'py>,
    ) -> PyResult<(i64, usize, usize)> {
        let (tokens, prompt) = (array::elements("tokens", tokens)?, array::elements("prompt", prompt)?);
        let found = if size_of_val(prompt) < DETACH_BYTES {
            self.held(py).find(tokens, prompt)
        } else {
            py.detach(|| self.tree.lock().unwrap_or_else(PoisonError::into_inner).find(tokens, prompt))
        }?;
        Ok((found.node.map_or(NONE, |node| node as i64), found.matched, found.within))
    }

    /// Adds the tokens of a turn, observed and sampled, from `begin` on; gives its last node. It goes on from the
    /// first `within` tokens of the node `after`.
    #[pyo3(signature = (tokens, /, *, after, within, begin, observed, sampled, captured, repaired))]
    #[expect(clippy::too_many_arguments, reason = "they are named")]
    fn extend<'py>(
        &self,
        py: Python<'py>,
        tokens: &Array<'py>,
        after: i64,
        within: usize,
        begin: usize,
        observed: usize,
        sampled: usize,
        captured: usize,
        repaired: &Array<'py>,
    ) -> PyResult<i64> {
        let after = (after != NONE).then(|| (usize::try_from(after).unwrap_or(usize::MAX), within));
        let repaired = array::int64s("repaired", repaired)?;
        let turn = Turn { after, begin, observed, sampled, captured, repaired };
        let last = self.held(py).extend(array::elements("tokens", tokens)?, &turn)?;
        Ok(last.map_or(NONE, |node| node as i64))
    }

    /// The nodes from a root to this one.
    #[pyo3(signature = (node, /))]
    fn path<'py>(&self, py: Python<'py>, node: usize) -> PyResult<Array<'py>> {
        let tree = self.held(py);
        if node >= tree.len() {
            return Err(PyIndexError::new_err(format!("there is no node {node}")));
        }
        array::of_slice(py, &tree.path(node)?)
    }

    /// The nodes on the way to the first `within` tokens of a node of which one has no route; where in the path that
    /// is, and where among all tokens.
    #[pyo3(signature = (node, within, /))]
    fn lacking<'py>(&self, py: Python<'py>, node: usize, within: usize) -> PyResult<[Array<'py>; 3]> {
        let [nodes, positions, stored] = &self.held(py).lacking(node, within)?;
        arrays_of(py, [nodes, positions, stored])
    }

    /// The nodes without children, where the path to each begins, and the nodes of all paths.
    fn branches<'py>(&self, py: Python<'py>) -> PyResult<[Array<'py>; 3]> {
        let [leaves, offsets, nodes] = &self.held(py).branches()?;
        arrays_of(py, [leaves, offsets, nodes])
    }

    /// The parents, begins, ends and source rows of nodes in depth-first order, and the node of each branch.
    fn forest<'py>(&self, py: Python<'py>) -> PyResult<[Array<'py>; 5]> {
        let found = self.held(py).forest()?;
        arrays_of(py, [&found.parents, &found.begins, &found.ends, &found.source_rows, &found.leaf])
    }

    /// The parents, begins, lengths, sampled and captured of all nodes.
    fn columns<'py>(&self, py: Python<'py>) -> PyResult<[Array<'py>; 5]> {
        let found = self.held(py).columns()?;
        arrays_of(py, [&found.parents, &found.begins, &found.lengths, &found.sampled, &found.captured])
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.held(py).len()
    }
}

impl TokenTree {
    /// The tree, once no other thread has it.
    fn held(&self, py: Python<'_>) -> MutexGuard<'_, kernel::TokenTree> {
        self.tree.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}
