//! The one place where an error of the core becomes a Python exception.

use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tfgrpo_core::Error;

create_exception!(
    tfgrpo._core,
    CoreError,
    PyValueError,
    "An argument that the Rust core refuses; the text says why."
);

create_exception!(
    tfgrpo._core,
    InvariantError,
    PyRuntimeError,
    "The Rust core broke a rule of its own: a bug, whatever it was given."
);

/// The exception for an error.
pub fn refused(error: Error) -> PyErr {
    match error {
        Error::Invariant(_) => InvariantError::new_err(error.to_string()),
        _ => CoreError::new_err(error.to_string()),
    }
}
