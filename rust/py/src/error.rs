//! The one place where an error of the core becomes a Python exception.

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tfgrpo_core::Error;

create_exception!(
    tfgrpo._core,
    CoreError,
    PyValueError,
    "An argument that the Rust core refuses; the text says why."
);

/// The exception for an error.
pub fn refused(error: Error) -> PyErr {
    CoreError::new_err(error.to_string())
}
