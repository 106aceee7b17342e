//! Tells `src/python/list.rs` which CPython it is built for. Without the `python` feature it does nothing
//! and needs no interpreter.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "python")]
    pyo3_build_config::use_pyo3_cfgs();
}
