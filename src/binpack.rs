//! Row lengths to bins.
