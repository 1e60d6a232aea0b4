//! One lesson with its lineage, and what of it is under the library's digest.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::Id;
use crate::digest::{Netstrings, Sum};
use crate::operation::{OperationKind, is_zero};

/// One change in an experience's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// The library version that came of it.
    pub version: u64,
    /// ADD or MODIFY.
    pub operation: OperationKind,
    /// The text from then on.
    pub text: Arc<str>,
    /// The groups it rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// One lesson in natural language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experience {
    /// Its identity.
    pub id: Id,
    /// The lesson, one line.
    pub text: Arc<str>,
    /// The experiences it was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Id>,
    /// Every group that it rests on, over its whole life.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// The library version in which it appeared.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub created: u64,
    /// The library version in which its text last changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changed: u64,
    /// The token count of its line in a prior. Derived: counted at insertion and again on loading.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens: u64,
    /// What it was measured to be worth. Bookkeeping: no part of the digest.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub credit: f64,
    /// Its lineage, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Revision>,
}

#[allow(clippy::trivially_copy_pass_by_ref, clippy::float_cmp)] // serde passes references; the default is exact
fn is_nought(number: &f64) -> bool {
    *number == 0.0
}

impl Experience {
    /// Everything it says, in one order: no token count and no credit.
    pub(super) fn say(&self, fields: &mut Netstrings) {
        let Self { id, text, parents, sources, created, changed, tokens: _, credit: _, history } = self;
        fields.put(&id.to_string());
        fields.put(text);
        fields.count(*created);
        fields.count(*changed);
        fields.list(&parents.iter().map(ToString::to_string).collect::<Vec<_>>());
        fields.list(sources);
        fields.count(history.len() as u64);
        for Revision { version, operation, text, sources } in history {
            fields.count(*version);
            fields.put(operation.name());
            fields.put(text);
            fields.list(sources);
        }
    }

    pub(super) fn digest(&self) -> Sum {
        let mut fields = Netstrings::default();
        self.say(&mut fields);
        fields.sum()
    }
}
