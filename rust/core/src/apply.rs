//! `apply`: operations in, the next library and a full account of what was done out.
//!
//! The result depends on the set of operations, never on their order: they are sorted first. Deletions come
//! before all else, so DELETE beats MODIFY and frees the text for an ADD; MODIFY and ADD follow in canonical
//! order; KEEP comes last and yields to everything. All targets and parents are experiences of the library that
//! `apply` is called on, never ones that the same call adds.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::library::{Experience, Id, Library, Revision};
use crate::operation::{Operation, OperationKind};
use crate::prior;
use crate::text;
use crate::tokens;

/// An operation that was not applied, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DroppedOperation {
    /// The operation, as it came.
    pub operation: Operation,
    /// The reason, in words.
    pub reason: String,
}

/// What one `apply` did: ids in id order, dropped operations in canonical order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ApplyReport {
    /// New experiences.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub added: BTreeSet<Id>,
    /// Experiences with a new text.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub modified: BTreeSet<Id>,
    /// Experiences that left the library.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub deleted: BTreeSet<Id>,
    /// Experiences that a KEEP names and that nothing else touched.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub kept: BTreeSet<Id>,
    /// What was not applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<DroppedOperation>,
}

impl ApplyReport {
    /// The report in the JSON shape of `tfgrpo.types.ApplyReport`.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::Operations(error.to_string()))
    }
}

impl Library {
    /// Applies operations. Without an effective one the result is this very library: same version, same digest.
    pub fn apply(&self, mut operations: Vec<Operation>) -> (Self, ApplyReport) {
        Operation::sort(&mut operations);
        let mut turns: Vec<(usize, &Operation)> = operations.iter().enumerate().collect();
        turns.sort_by_key(|(_, operation)| turn(operation.kind));

        let mut draft = Draft::new(self);
        let mut reasons = BTreeMap::new();
        for (place, operation) in turns {
            if let Err(reason) = draft.take(operation) {
                reasons.insert(place, reason);
            }
        }
        let mut report = draft.report;
        let library = if report.added.is_empty() && report.modified.is_empty() && report.deleted.is_empty() {
            self.clone()
        } else {
            Self::seal(draft.version, draft.next_id, draft.entries.into_values().collect())
        };
        report.dropped = operations
            .into_iter()
            .enumerate()
            .filter_map(|(place, operation)| {
                reasons.remove(&place).map(|reason| DroppedOperation { operation, reason })
            })
            .collect();
        (library, report)
    }
}

/// When a kind of operation has its turn.
fn turn(kind: OperationKind) -> u8 {
    match kind {
        OperationKind::Delete => 0,
        OperationKind::Modify | OperationKind::Add => 1,
        OperationKind::Keep => 2,
    }
}

/// The next version in the making.
struct Draft<'a> {
    base: &'a Library,
    version: u64,
    next_id: u64,
    entries: BTreeMap<Id, Experience>,
    /// Which living experience says what.
    keys: BTreeMap<String, Id>,
    report: ApplyReport,
}

type Reason = String;

impl<'a> Draft<'a> {
    fn new(base: &'a Library) -> Self {
        let entries: BTreeMap<Id, Experience> =
            base.entries().iter().map(|entry| (entry.id, entry.clone())).collect();
        Self {
            base,
            version: base.version() + 1,
            next_id: base.next_id(),
            keys: entries.values().map(|entry| (text::key(&entry.text), entry.id)).collect(),
            entries,
            report: ApplyReport::default(),
        }
    }

    fn take(&mut self, operation: &Operation) -> std::result::Result<(), Reason> {
        let (made_for, version) = (operation.base_version, self.base.version());
        if made_for > version {
            return Err(format!(
                "it was made for version {made_for}, but the library is at version {version}"
            ));
        }
        match operation.kind {
            OperationKind::Add => self.add(operation),
            OperationKind::Modify => self.modify(operation),
            OperationKind::Delete => self.delete(operation),
            OperationKind::Keep => self.keep(operation),
        }
    }

    fn add(&mut self, operation: &Operation) -> std::result::Result<(), Reason> {
        let text = text::clean(&operation.text)?;
        let parents: BTreeSet<Id> = operation
            .parents
            .iter()
            .map(|name| self.known(name).map_err(|reason| format!("its parent {reason}")))
            .collect::<std::result::Result<_, _>>()?;
        let key = text::key(&text);
        if let Some(twin) = self.keys.get(&key) {
            return Err(format!("its text duplicates {twin}"));
        }
        let id = Id::new(self.next_id);
        self.next_id += 1;
        let sources = operation.groups();
        let experience = Experience {
            id,
            parents: parents.into_iter().collect(),
            sources: sources.clone(),
            created: self.version,
            changed: self.version,
            tokens: tokens::count(&prior::line(id, &text)),
            credit: 0.0,
            history: vec![Revision {
                version: self.version,
                operation: OperationKind::Add,
                text: text.clone(),
                sources,
            }],
            text,
        };
        self.keys.insert(key, id);
        self.entries.insert(id, experience);
        self.report.added.insert(id);
        Ok(())
    }

    fn modify(&mut self, operation: &Operation) -> std::result::Result<(), Reason> {
        let id = self.fresh_target(operation)?;
        let text = text::clean(&operation.text)?;
        let key = text::key(&text);
        if let Some(twin) = self.keys.get(&key).filter(|twin| **twin != id) {
            return Err(format!("its text duplicates {twin}"));
        }
        let experience = self.entries.get_mut(&id).ok_or_else(|| format!("{id} is not in the library"))?;
        if experience.text == text {
            return Err(format!("it leaves the text of {id} unchanged"));
        }
        let groups = operation.groups();
        let sources: BTreeSet<String> = experience.sources.drain(..).chain(groups.iter().cloned()).collect();
        self.keys.remove(&text::key(&experience.text));
        self.keys.insert(key, id);
        experience.sources = sources.into_iter().collect();
        experience.changed = self.version;
        experience.tokens = tokens::count(&prior::line(id, &text));
        experience.history.push(Revision {
            version: self.version,
            operation: OperationKind::Modify,
            text: text.clone(),
            sources: groups,
        });
        experience.text = text;
        self.report.modified.insert(id);
        Ok(())
    }

    fn delete(&mut self, operation: &Operation) -> std::result::Result<(), Reason> {
        let id = self.fresh_target(operation)?;
        if let Some(experience) = self.entries.remove(&id) {
            self.keys.remove(&text::key(&experience.text));
        }
        self.report.deleted.insert(id);
        Ok(())
    }

    fn keep(&mut self, operation: &Operation) -> std::result::Result<(), Reason> {
        if operation.target.is_some() {
            let id = self.target(operation)?;
            self.report.kept.insert(id);
        }
        Ok(())
    }

    /// An experience of the base library, whatever happened to it since.
    fn known(&self, name: &str) -> std::result::Result<Id, Reason> {
        Id::parse(name)
            .filter(|id| self.base.get(*id).is_some())
            .ok_or_else(|| format!("{name} is not in the library"))
    }

    /// The target, if no earlier operation took it.
    fn target(&self, operation: &Operation) -> std::result::Result<Id, Reason> {
        let name = operation.target.as_deref().ok_or("it names no target")?;
        let id = self.known(name)?;
        if self.report.deleted.contains(&id) {
            return Err(format!("{id} is deleted by another operation"));
        }
        if self.report.modified.contains(&id) {
            return Err(format!("{id} is modified by another operation"));
        }
        Ok(id)
    }

    /// The target, if besides its text is the one that the proposer saw.
    fn fresh_target(&self, operation: &Operation) -> std::result::Result<Id, Reason> {
        let id = self.target(operation)?;
        let changed = self.base.get(id).map_or(0, |experience| experience.changed);
        let made_for = operation.base_version;
        if changed > made_for {
            return Err(format!(
                "it is stale: made for version {made_for}, but {id} changed in version {changed}"
            ));
        }
        Ok(id)
    }
}
