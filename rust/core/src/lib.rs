//! The part of tfgrpo that must be deterministic, fast and fuzzed.
//!
//! No network, disk, thread, clock, randomness or Python: time is an argument, bytes go in and come out.
//!
//! - [`library`] is the immutable experience library, with `apply` as the only way to change one;
//! - [`text`], [`digest`] and [`tokens`] give an experience its one form, its identity and its length;
//! - [`minhash`], [`embed`] and [`scan`] find what is written or meant alike, [`guard`] tells what differs, and
//!   [`similar`] puts them together;
//! - [`prior`] renders a library into a prompt under a hard token budget;
//! - [`limit`] admits model calls under concurrency and rate limits.

#![forbid(unsafe_code)]

mod column;
pub mod digest;
pub mod embed;
pub mod error;
pub mod guard;
mod invariant;
pub mod library;
pub mod limit;
pub mod minhash;
pub mod operation;
pub mod postings;
pub mod prior;
pub mod scan;
pub mod similar;
pub mod text;
pub mod tokens;

pub use column::Lender;
pub use error::{Error, Result};
pub use library::apply::{ApplyReport, DroppedOperation};
pub use library::{Experience, Id, Library, Number, Revision};
pub use limit::{Admission, Binding, Demand, Kind, Outcome, Poll, RateLimit, Reading, Snapshot};
pub use operation::{Operation, OperationKind};
pub use prior::TokenPrior;
pub use similar::{Judgement, Neighbour, Twin, Verdict};
pub use tokens::Tokenizer;
