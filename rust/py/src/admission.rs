//! Wraps `tfgrpo_core::Admission`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use tfgrpo_core::{Demand, Kind, Outcome, RateLimit, Reading};

use crate::error::refused;

/// A reading as Python has it: kind, limit, remaining, reset, window.
type Told = (usize, Option<f64>, Option<f64>, Option<f64>, Option<f64>);

/// A snapshot as Python has it; the fields of `tfgrpo_core::Snapshot` in their order.
type State = (usize, usize, Option<f64>, &'static str, Option<u64>, Option<f64>, f64, u64);

#[pyclass(frozen, module = "tfgrpo._core")]
pub struct Admission(Mutex<tfgrpo_core::Admission>);

impl Admission {
    fn lock(&self) -> MutexGuard<'_, tfgrpo_core::Admission> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, ticket: u64, outcome: Outcome, now: f64) -> PyResult<()> {
        self.lock().release(ticket, outcome, now).map_err(refused)
    }
}

#[pymethods]
impl Admission {
    #[new]
    #[pyo3(signature = (*, concurrency=None, requests_per_minute=None, tokens_per_minute=None,
                        input_tokens_per_minute=None, output_tokens_per_minute=None))]
    fn new(
        concurrency: Option<u64>,
        requests_per_minute: Option<u64>,
        tokens_per_minute: Option<u64>,
        input_tokens_per_minute: Option<u64>,
        output_tokens_per_minute: Option<u64>,
    ) -> PyResult<Self> {
        let limit = RateLimit {
            concurrency,
            requests_per_minute,
            tokens_per_minute,
            input_tokens_per_minute,
            output_tokens_per_minute,
        };
        Ok(Self(Mutex::new(tfgrpo_core::Admission::new(limit).map_err(refused)?)))
    }

    fn submit(&self, priority: i64, run: u64, input: u64, output: u64, now: f64) -> u64 {
        self.lock().submit(priority, run, Demand { input, output }, now)
    }

    fn poll(&self, now: f64, most: usize) -> (Vec<u64>, Option<f64>) {
        let poll = self.lock().poll(now, most);
        (poll.granted, poll.next_wake)
    }

    fn sent(&self, ticket: u64, now: f64) -> PyResult<()> {
        self.lock().sent(ticket, now).map_err(refused)
    }

    fn read(&self, ticket: u64, readings: Vec<Told>, refused_call: bool, now: f64) -> PyResult<()> {
        let readings: Vec<Reading> = readings
            .into_iter()
            .filter_map(|(kind, limit, remaining, reset, window)| {
                Kind::ALL.get(kind).map(|kind| Reading { kind: *kind, limit, remaining, reset, window })
            })
            .collect();
        self.lock().read(ticket, &readings, refused_call, now).map_err(refused)
    }

    #[pyo3(signature = (ticket, now, used=None))]
    fn done(&self, ticket: u64, now: f64, used: Option<(u64, u64)>) -> PyResult<()> {
        let used = used.map(|(input, output)| Demand { input, output });
        self.end(ticket, Outcome::Done(used), now)
    }

    #[pyo3(signature = (ticket, now, retry_after=None))]
    fn rate_limited(&self, ticket: u64, now: f64, retry_after: Option<f64>) -> PyResult<()> {
        self.end(ticket, Outcome::RateLimited(retry_after), now)
    }

    #[pyo3(signature = (ticket, now, retry_after=None))]
    fn overloaded(&self, ticket: u64, now: f64, retry_after: Option<f64>) -> PyResult<()> {
        self.end(ticket, Outcome::Overloaded(retry_after), now)
    }

    fn timed_out(&self, ticket: u64, now: f64) -> PyResult<()> {
        self.end(ticket, Outcome::TimedOut, now)
    }

    fn failed(&self, ticket: u64, now: f64) -> PyResult<()> {
        self.end(ticket, Outcome::Failed, now)
    }

    fn cancel(&self, ticket: u64) -> PyResult<()> {
        self.lock().cancel(ticket).map_err(refused)
    }

    fn snapshot(&self, now: f64) -> State {
        let state = self.lock().snapshot(now);
        (
            state.in_flight,
            state.waiting,
            state.paused_until,
            state.binding.name(),
            state.places,
            state.permitted,
            state.achieved,
            state.limited,
        )
    }
}
