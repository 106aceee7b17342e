//! The data path between LLM rollouts and the training step.
//!
//! Rows of tokens go into padded, packed or flat buffers, and come back. Two ideas carry the crate:
//!
//! * a *row* is a slice of bytes with an element size, so that every dtype works at once;
//! * a *layout* ([`layout::Slots`]) says where each row goes in an output, so that concatenating,
//!   padding and packing are one kernel, [`place::place`], that writes every output byte once.
//!
//! Without features the crate has no Python in it. The `python` feature adds the extension module
//! `rollkit._native`, whose front is the Python package `rollkit`.
#![cfg_attr(not(feature = "python"), forbid(unsafe_code))]

pub mod balance;
pub mod batch;
pub mod binpack;
pub mod cast;
pub mod error;
pub mod forest;
pub mod gae;
pub mod hash;
pub mod jsonl;
pub mod layout;
mod memory;
pub mod offsets;
pub mod online;
pub mod order;
pub mod out;
pub mod pack;
pub mod place;
pub mod routing;
pub mod sample;
pub mod segments;
pub mod step_plan;
pub mod steps;
pub mod thd;
pub mod token_tree;
pub mod trie;
pub mod turns;

#[cfg(feature = "python")]
mod python;

pub use error::{Error, Result};
