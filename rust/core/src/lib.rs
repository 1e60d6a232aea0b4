//! The part of tfgrpo that must be deterministic, fast and fuzzed.
//!
//! No network, disk, thread, clock, randomness or Python: time is an argument, bytes go in and come out.
//!
//! - [`library`] is the immutable experience library and [`apply`] the only way to change one;
//! - [`text`], [`digest`] and [`tokens`] give an experience its one form, its identity and its length;
//! - [`prior`] packs a library into a prompt under a hard token budget;
//! - [`limit`] admits model calls under concurrency and rate limits.

#![forbid(unsafe_code)]

pub mod apply;
pub mod digest;
pub mod error;
pub mod library;
pub mod limit;
pub mod operation;
pub mod prior;
pub mod text;
pub mod tokens;

pub use apply::{ApplyReport, DroppedOperation};
pub use error::{Error, Result};
pub use library::{Experience, Library, Revision};
pub use limit::{Admission, Binding, Outcome, Poll, RateLimit, Snapshot};
pub use operation::{Operation, OperationKind};
pub use prior::TokenPrior;
