//! The names and bounds of the library file, and what only an older version of it says.

use serde::{Deserialize, Serialize};

use super::experience::Experience;
use crate::digest::Netstrings;

pub(super) const FORMAT: &str = "tfgrpo-library";
pub(super) const FORMAT_VERSION: u64 = 3;
/// Still read, and written until the library changes: its digest covers what version 3 leaves out.
pub(super) const SECOND_VERSION: u64 = 2;

/// Every integer up to here is the same in any JSON reader.
pub(super) const LARGEST_VERSION: u64 = 1 << 53;
/// Ids are below this: they are 32 bits.
pub(super) const LARGEST_ID: u64 = u32::MAX as u64;

/// What only `format_version` 2 says: of an append-only log, which prompts no longer show.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SecondFormat {
    pub compacted: u64,
    pub retired: Vec<Retired>,
}

/// An experience that had left a library of `format_version` 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retired {
    version: u64,
    experience: Experience,
}

impl SecondFormat {
    /// Its part of the digest.
    pub fn say(&self, fields: &mut Netstrings) {
        fields.count(self.compacted);
        fields.count(self.retired.len() as u64);
        for gone in &self.retired {
            fields.count(gone.version);
            gone.experience.say(fields);
        }
    }
}
