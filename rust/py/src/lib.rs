//! `tfgrpo._core`: extracts arguments, calls `tfgrpo-core`, wraps results and maps errors. No decisions.
//!
//! The docstrings that users read stand in `_core.pyi`.

#![allow(missing_docs, clippy::needless_pass_by_value)] // Python sees the stubs; arguments come owned

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tfgrpo_core::{Error, Operation, Outcome, RateLimit};

create_exception!(
    tfgrpo._core,
    CoreError,
    PyValueError,
    "An argument that the Rust core refuses; the text says why."
);

fn refused(error: Error) -> PyErr {
    CoreError::new_err(error.to_string())
}

#[pyclass(frozen, module = "tfgrpo._core")]
struct Library(tfgrpo_core::Library);

#[pymethods]
impl Library {
    #[new]
    fn new() -> Self {
        Self(tfgrpo_core::Library::default())
    }

    #[staticmethod]
    fn from_json(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        py.detach(|| tfgrpo_core::Library::from_json(data)).map(Self).map_err(refused)
    }

    fn to_json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| self.0.to_json()).map_err(refused)?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn entries_json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| self.0.entries_json()).map_err(refused)?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn apply<'py>(&self, py: Python<'py>, operations: &[u8]) -> PyResult<(Self, Bound<'py, PyBytes>)> {
        let (library, report) = py
            .detach(|| {
                let (library, report) = self.0.apply(Operation::list_from_json(operations)?);
                Ok((library, report.to_json()?))
            })
            .map_err(refused)?;
        Ok((Self(library), PyBytes::new(py, &report)))
    }

    fn with_credit(&self, credit: BTreeMap<String, f64>) -> PyResult<Self> {
        self.0.with_credit(&credit).map(Self).map_err(refused)
    }

    fn prior(&self, py: Python<'_>, heading: &str, token_budget: u64) -> (String, Vec<String>, u64, String) {
        let prior = py.detach(|| self.0.prior(heading, token_budget));
        let ids = prior.ids.iter().map(ToString::to_string).collect();
        (prior.text, ids, prior.tokens, prior.digest)
    }

    #[getter]
    fn version(&self) -> u64 {
        self.0.version()
    }

    #[getter]
    fn next_id(&self) -> u64 {
        self.0.next_id()
    }

    #[getter]
    fn digest(&self) -> &str {
        self.0.digest()
    }

    fn __len__(&self) -> usize {
        self.0.entries().len()
    }
}

#[pyclass(frozen, module = "tfgrpo._core")]
struct Admission(Mutex<tfgrpo_core::Admission>);

impl Admission {
    fn lock(&self) -> MutexGuard<'_, tfgrpo_core::Admission> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Admission {
    #[new]
    #[pyo3(signature = (*, concurrency=None, requests_per_minute=None, tokens_per_minute=None))]
    fn new(
        concurrency: Option<u64>,
        requests_per_minute: Option<u64>,
        tokens_per_minute: Option<u64>,
    ) -> PyResult<Self> {
        let limit = RateLimit { concurrency, requests_per_minute, tokens_per_minute };
        Ok(Self(Mutex::new(tfgrpo_core::Admission::new(limit).map_err(refused)?)))
    }

    fn submit(&self, priority: i64, tokens: u64, now: f64) -> u64 {
        self.lock().submit(priority, tokens, now)
    }

    fn poll(&self, now: f64) -> (Vec<u64>, Option<f64>) {
        let poll = self.lock().poll(now);
        (poll.granted, poll.next_wake)
    }

    #[pyo3(signature = (ticket, now, tokens=None))]
    fn release(&self, ticket: u64, now: f64, tokens: Option<u64>) -> PyResult<()> {
        self.lock().release(ticket, Outcome::Done(tokens), now).map_err(refused)
    }

    #[pyo3(signature = (ticket, now, retry_after=None))]
    fn release_rate_limited(&self, ticket: u64, now: f64, retry_after: Option<f64>) -> PyResult<()> {
        self.lock().release(ticket, Outcome::RateLimited(retry_after), now).map_err(refused)
    }

    fn cancel(&self, ticket: u64) -> PyResult<()> {
        self.lock().cancel(ticket).map_err(refused)
    }

    fn snapshot(&self, now: f64) -> (usize, usize, Option<f64>, &'static str) {
        let state = self.lock().snapshot(now);
        (state.in_flight, state.waiting, state.paused_until, state.binding.name())
    }
}

#[pyfunction]
fn count_tokens(py: Python<'_>, text: &str) -> u64 {
    py.detach(|| tfgrpo_core::tokens::count(text))
}

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::{Admission, CoreError, Library, count_tokens};
}
