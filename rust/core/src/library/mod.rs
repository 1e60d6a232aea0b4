//! The experience library: immutable snapshots, their ids, their file, and `apply`, the only way to change one.
//!
//! [`apply`], [`file`] and [`index`] are methods of [`Library`]; what reads a library needs none of them.

pub mod apply;
mod chunk;
mod experience;
mod file;
mod format;
mod id;
mod index;
mod line;
mod ranking;
mod seen;
mod snapshot;

pub(crate) use chunk::Weight;
pub use experience::{Experience, Revision};
pub use id::{Id, Number};
pub(crate) use ranking::Ranking;
pub(crate) use seen::{Meaning, Seen};
pub use snapshot::Library;
