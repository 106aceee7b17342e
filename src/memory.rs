//! Vectors that grow with their input: where there is no memory for one, that is an [`Error`], not the end of the process.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use crate::{Error, Result};

/// An empty vector with room for `count` elements of what `name` says.
pub(crate) fn with_room<T>(name: &'static str, count: usize) -> Result<Vec<T>> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(count).map_err(|_| Error::NoMemory { name, got: count })?;
    Ok(vector)
}

/// `count` times `value`.
pub(crate) fn filled<T: Clone>(name: &'static str, value: T, count: usize) -> Result<Vec<T>> {
    let mut vector = with_room(name, count)?;
    vector.resize(count, value);
    Ok(vector)
}

/// All that an iterator gives.
pub(crate) fn collected<T>(name: &'static str, items: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut vector = with_room(name, items.size_hint().0)?;
    for item in items {
        push(name, &mut vector, item)?;
    }
    Ok(vector)
}

/// Whether there is memory for `count` elements now, for what has no way to say that there is none: sorting, sets.
pub(crate) fn available<T>(name: &'static str, count: usize) -> Result<()> {
    // Nothing is done with the vector, so that a compiler leaves it out, and finds memory for it always.
    with_room::<T>(name, count).map(|vector| drop(std::hint::black_box(vector)))
}

/// Adds an element.
#[inline]
pub(crate) fn push<T>(name: &'static str, vector: &mut Vec<T>, item: T) -> Result<()> {
    make_room(name, vector, 1)?;
    vector.push(item);
    Ok(())
}

/// Makes room for `more` elements where there is too little.
#[inline]
pub(crate) fn make_room<T>(name: &'static str, vector: &mut Vec<T>, more: usize) -> Result<()> {
    if vector.capacity() - vector.len() < more { grow(name, vector, more) } else { Ok(()) }
}

/// Makes room for `more` elements, and for as many as there are already, so that pushing stays linear.
#[cold]
fn grow<T>(name: &'static str, vector: &mut Vec<T>, more: usize) -> Result<()> {
    let got = vector.len() + more;
    vector.try_reserve(more).map_err(|_| Error::NoMemory { name, got })
}

/// Makes room for `more` keys.
pub(crate) fn make_room_in<K: Eq + Hash, V, S: BuildHasher>(
    name: &'static str,
    map: &mut HashMap<K, V, S>,
    more: usize,
) -> Result<()> {
    let got = map.len().saturating_add(more);
    map.try_reserve(more).map_err(|_| Error::NoMemory { name, got })
}
