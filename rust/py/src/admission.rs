//! Wraps `tfgrpo_core::Admission`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use tfgrpo_core::{Outcome, RateLimit};

use crate::refused;

#[pyclass(frozen, module = "tfgrpo._core")]
pub struct Admission(Mutex<tfgrpo_core::Admission>);

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
