//! Nodes by the hash of their parents and first elements: an open table, in which each is at the first free place
//! from that of its hash on.

use super::ROOT;
use crate::{Error, Result, memory};

pub(super) struct Children {
    /// The upper half of the hash, and the node; [`ROOT`] where there is none. A cache line has eight.
    slots: Vec<(u32, u32)>,
}

impl Children {
    /// Room for the nodes of so many rows, two each: at most three quarters full.
    pub fn new(rows: usize) -> Result<Self> {
        let size = rows.saturating_mul(8).div_ceil(3).max(8).checked_next_power_of_two();
        let size = size.ok_or(Error::NoMemory { name: "rows", got: rows })?;
        Ok(Self { slots: memory::filled("rows", (0, ROOT), size)? })
    }

    /// Where the search for a hash begins.
    pub fn address(&self, hash: u64) -> *const i8 {
        (&raw const self.slots[hash as usize & (self.slots.len() - 1)]).cast()
    }

    fn places(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let last = self.slots.len() - 1;
        (0..=last).map(move |step| (hash as usize).wrapping_add(step) & last)
    }

    /// Nodes that may have this hash.
    pub fn with(&self, hash: u64) -> impl Iterator<Item = u32> {
        let found = self.places(hash).map(|place| self.slots[place]).take_while(|slot| slot.1 != ROOT);
        found.filter(move |slot| slot.0 == tag(hash)).map(|slot| slot.1)
    }

    pub fn insert(&mut self, hash: u64, node: u32) {
        if let Some(place) = self.places(hash).find(|&place| self.slots[place].1 == ROOT) {
            self.slots[place] = (tag(hash), node);
        }
    }

    pub fn replace(&mut self, hash: u64, node: u32, by: u32) {
        let slot = (tag(hash), node);
        if let Some(place) = self.places(hash).find(|&place| self.slots[place] == slot) {
            self.slots[place].1 = by;
        }
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}
