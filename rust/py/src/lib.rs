//! `tfgrpo._core`: extracts arguments, calls `tfgrpo-core`, wraps results and maps errors. No decisions.
//!
//! The docstrings that users read stand in `_core.pyi`.

#![allow(missing_docs, clippy::needless_pass_by_value)] // Python sees the stubs; arguments come owned

mod admission;
mod error;
mod library;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tfgrpo_core::{Error, Tokenizer};

use error::{CoreError, InvariantError, refused};

#[pyfunction]
#[pyo3(signature = (text, tokenizer="o200k"))]
fn count_tokens(py: Python<'_>, text: &str, tokenizer: &str) -> PyResult<u64> {
    let tokenizer = library::tokenizer_named(tokenizer)?;
    Ok(py.detach(|| tokenizer.count(text)))
}

#[pyfunction]
fn embed<'py>(py: Python<'py>, data: &[u8], offsets: PyBuffer<u64>) -> PyResult<Bound<'py, PyBytes>> {
    let offsets = offsets.to_vec(py)?;
    let rows = py
        .detach(|| {
            let texts = tfgrpo_core::text::cut(data, &offsets)?;
            let rows = texts.iter().flat_map(|text| tfgrpo_core::embed::embed(&tfgrpo_core::text::key(text)));
            Ok::<_, Error>(rows.flat_map(f32::to_ne_bytes).collect::<Vec<u8>>())
        })
        .map_err(refused)?;
    Ok(PyBytes::new(py, &rows))
}

#[pyfunction]
fn tokenizer_for_model(model: &str) -> &'static str {
    Tokenizer::for_model(model).name()
}

// Nothing here relies on the interpreter's lock: classes are frozen, and what changes is behind a mutex.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::admission::Admission;
    #[pymodule_export]
    use super::library::Library;
    #[pymodule_export]
    use super::{CoreError, InvariantError, count_tokens, embed, tokenizer_for_model};
}
