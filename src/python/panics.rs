//! How often this module has panicked: what is caught on the way, or swallowed, is counted too.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::prelude::*;

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// How many panics there have been, each of which is a fault of this module.
#[pyfunction]
pub fn panics() -> usize {
    PANICS.load(Ordering::Relaxed)
}

/// Counts from now on; what is done about a panic stays as it is.
pub fn count() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
}
