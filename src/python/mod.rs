//! The extension module `rollkit._native`: one thin file per kernel, one room with `unsafe` each for
//! arrays, for lists and for Arrow. Meaning is checked in Python; memory safety here; data in the kernels.

mod array;
mod arrow;
mod balance;
mod batch;
mod binpack;
mod decompress;
mod error;
mod forest;
mod gae;
mod jsonl;
mod layout;
mod list;
mod online;
mod order;
mod panics;
mod place;
mod routing;
mod rows;
mod sample;
mod segments;
mod steps;
mod thd;
mod token_tree;
mod turns;

use pyo3::prelude::*;

/// Private kernels of `rollkit`. Their Python front checks what arguments mean; they check what is
/// needed to be sound.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::arrow::{arrow_formats, export_array, export_stream, read_arrow};
    #[pymodule_export]
    use super::balance::{balance, balance_bound, plan_steps, row_costs};
    #[pymodule_export]
    use super::batch::fill_batch;
    #[pymodule_export]
    use super::binpack::{pack_rows, plan_bins, split_rows};
    #[pymodule_export]
    use super::decompress::Decompressor;
    #[pymodule_export]
    use super::forest::{build_forest, check_forest, forest_bound, forest_paths, pack_forest, read_forest};
    #[pymodule_export]
    use super::gae::gae;
    #[pymodule_export]
    use super::jsonl::parse_jsonl;
    #[pymodule_export]
    use super::layout::{
        attention_mask, check_offsets, first_negative, offsets_from_lengths, positions, segment_ids,
        sorted_rows, spans, visible_until,
    };
    #[pymodule_export]
    use super::list::from_lists;
    #[pymodule_export]
    use super::list::pick::pick_numbers;
    #[pymodule_export]
    use super::online::OnlinePacker;
    #[pymodule_export]
    use super::order::permute;
    #[pymodule_export]
    use super::panics::panics;
    #[pymodule_export]
    use super::place::{can_cast, place};
    #[pymodule_export]
    use super::routing::{decode_base64, value_range};
    #[pymodule_export]
    use super::rows::{array_lengths, concat_arrays, concat_columns, gather_rows, hash_rows};
    #[pymodule_export]
    use super::sample::{sample, uniforms};
    #[pymodule_export]
    use super::segments::{fill_runs, ids_from_lengths, positions_from_lengths, runs, seqlens_and_offsets};
    #[pymodule_export]
    use super::steps::joined_steps;
    #[pymodule_export]
    use super::thd::thd;
    #[pymodule_export]
    use super::token_tree::TokenTree;
    #[pymodule_export]
    use super::turns::turns;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::panics::count();
        // Loaded later, in the first call, it is a panic if Ctrl-C comes while it looks for NumPy.
        numpy::get_array_module(module.py())?;
        numpy::dtype::<u8>(module.py());
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("build_profile", if cfg!(debug_assertions) { "debug" } else { "release" })
    }
}
