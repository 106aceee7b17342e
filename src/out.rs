//! Memory that kernels fill: initialised (`[T]`) or fresh from an allocator (`[MaybeUninit<T>]`).
//!
//! Kernels are generic over [`Out`], so that NumPy's uninitialised memory needs no zeroing first and
//! Rust callers can pass a plain vector, both without `unsafe`.

use std::mem::MaybeUninit;

/// An element that a kernel writes and never reads.
pub trait Out<T: Copy>: Sized {
    /// Writes one element.
    fn set(&mut self, value: T);
    /// Writes `value` to all of `out`.
    fn fill(out: &mut [Self], value: T);
    /// Copies `source` to `out`, which has its length.
    fn copy(out: &mut [Self], source: &[T]);
}

impl<T: Copy> Out<T> for T {
    fn set(&mut self, value: T) {
        *self = value;
    }

    fn fill(out: &mut [Self], value: T) {
        out.fill(value);
    }

    fn copy(out: &mut [Self], source: &[T]) {
        out.copy_from_slice(source);
    }
}

impl<T: Copy> Out<T> for MaybeUninit<T> {
    fn set(&mut self, value: T) {
        self.write(value);
    }

    fn fill(out: &mut [Self], value: T) {
        for slot in out {
            slot.write(value); // compiles to a memset or wide stores
        }
    }

    fn copy(out: &mut [Self], source: &[T]) {
        assert_eq!(out.len(), source.len());
        for (slot, &value) in out.iter_mut().zip(source) {
            slot.write(value); // compiles to a memcpy
        }
    }
}
