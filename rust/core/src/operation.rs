//! A proposed change of a library, in the JSON shape of `tfgrpo.types.Operation`.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The four operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// A new experience.
    Add,
    /// New wording for an experience.
    Modify,
    /// An experience leaves the library.
    Delete,
    /// All, or one experience, stays as it is.
    Keep,
}

impl OperationKind {
    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Modify => "modify",
            Self::Delete => "delete",
            Self::Keep => "keep",
        }
    }
}

/// One proposed change.
///
/// ADD reads `text` and `parents`, MODIFY `target` and `text`, DELETE and KEEP `target`; what a kind does not read
/// has no effect, except that it takes part in the canonical order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// What to do.
    pub kind: OperationKind,
    /// The experience it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The new wording.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The library version that the proposer saw.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub base_version: u64,
    /// The group it comes from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Its place among the operations of that group.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub index: u64,
    /// Every group it rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// The experiences that an ADD was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
}

impl Operation {
    /// Reads a JSON array of operations.
    pub fn list_from_json(bytes: &[u8]) -> Result<Vec<Self>> {
        serde_json::from_slice(bytes).map_err(|error| Error::Operations(error.to_string()))
    }

    /// The canonical order: by source and index, then by everything else an operation says.
    ///
    /// Operations that tie are equal, so every permutation of a list sorts to the same list.
    pub(crate) fn order(&self) -> impl Ord + '_ {
        let Self { kind, target, text, base_version, source, index, sources, parents } = self;
        (source, index, kind, target, text, base_version, sources, parents)
    }

    /// The groups it rests on: `sources` and `source`, sorted, each once.
    pub(crate) fn groups(&self) -> Vec<String> {
        let mut groups: Vec<String> = self.sources.iter().chain([&self.source]).cloned().collect();
        groups.retain(|group| !group.is_empty());
        groups.sort();
        groups.dedup();
        groups
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes references
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}
