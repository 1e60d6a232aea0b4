//! `apply`: operations in, the next library and a full account of what was done out.
//!
//! The result depends on the set of operations, never on their order: they are sorted first. Deletions come
//! before all else, so DELETE beats MODIFY and frees the text for an ADD; MODIFY and ADD follow in canonical
//! order; KEEP comes last and yields to everything. All targets and parents are experiences of the library that
//! `apply` is called on, never ones that the same call adds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use serde::Serialize;

use super::experience::{Experience, Revision};
use super::format::LARGEST_ID;
use super::id::{Id, Number};
use super::line;
use super::seen::{Meaning, Seen};
use super::snapshot::Library;
use crate::error::{Error, Result};
use crate::invariant::promised;
use crate::minhash::Signer;
use crate::operation::{Operation, OperationKind};
use crate::similar::{self, BUCKET};
use crate::text;
use crate::tokens::Tokenizer;

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
    ///
    /// An ADD or MODIFY whose text the guard calls the same as a living experience's is dropped as its duplicate.
    pub fn apply(&self, operations: Vec<Operation>) -> (Self, ApplyReport) {
        self.apply_with(operations, &[])
    }

    /// As `apply`, for a library whose vectors come from elsewhere: one row of `dimensions()` numbers an operation,
    /// in the order of `operations`. An experience without a vector has no neighbours by meaning.
    pub fn apply_with(&self, operations: Vec<Operation>, vectors: &[f32]) -> (Self, ApplyReport) {
        let mut vectors = vectors.chunks_exact(self.dimensions());
        let mut turns: Vec<(Operation, Option<&[f32]>)> =
            operations.into_iter().map(|operation| (operation, vectors.next())).collect();
        turns.sort_by(|(a, _), (b, _)| {
            turn(a.kind).cmp(&turn(b.kind)).then_with(|| a.order().cmp(&b.order()))
        });
        let prepared = prepare(self, &turns);

        let mut draft = Draft::new(self, &prepared);
        let mut reasons = BTreeMap::new();
        for (place, ((operation, _), prepared)) in turns.iter().zip(&prepared).enumerate() {
            if let Err(reason) = draft.take(place, operation, prepared) {
                reasons.insert(place, reason);
            }
        }
        let (library, mut report) = draft.close();
        report.dropped = turns
            .into_iter()
            .enumerate()
            .filter_map(|(place, (operation, _))| {
                reasons.remove(&place).map(|reason| DroppedOperation { operation, reason })
            })
            .collect();
        report.dropped.sort_by(|a, b| a.operation.order().cmp(&b.operation.order()));
        (library, report)
    }
}

/// A text that an operation brings, with all that is derived from it; or why it is none.
type Prepared = std::result::Result<Text, Reason>;

struct Text {
    line: Arc<str>,
    seen: Seen,
    meaning: Meaning,
    /// The tokens of its line but for the id.
    tokens: u64,
}

impl Text {
    fn line_tokens(&self, tokenizer: Tokenizer, number: Number) -> u64 {
        line::head_tokens(tokenizer, number) + self.tokens
    }
}

/// The part of the work that no operation shares with another: it is spread over the processors.
fn prepare(library: &Library, turns: &[(Operation, Option<&[f32]>)]) -> Vec<Prepared> {
    let signer = Signer::default();
    let one = |(operation, vector): &(Operation, Option<&[f32]>)| {
        if !matches!(operation.kind, OperationKind::Add | OperationKind::Modify) {
            return Err(Reason::new());
        }
        let text = text::clean(&operation.text)?;
        let seen = Seen::new(&text, signer);
        let meaning = library
            .meaning(&seen.key, *vector)
            .unwrap_or_else(|| Meaning::given(&vec![0.0; library.dimensions()]));
        let tokens = line::body_tokens(library.tokenizer, &text);
        Ok(Text { line: text.into(), seen, meaning, tokens })
    };
    if turns.len() < WORTH_SPREADING {
        turns.iter().map(one).collect()
    } else {
        turns.par_iter().map(one).collect()
    }
}

/// Below so many operations a pool of threads costs more than it saves.
const WORTH_SPREADING: usize = 64;

/// An experience that a text may duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    /// One of the base library.
    Known(Number),
    /// What the operation of an earlier turn makes or changes.
    Fresh(usize),
}

/// For each turn the experiences that share a hash with its text. One walk along all postings in their order is
/// several times cheaper than a look-up for each.
fn near(base: &Library, prepared: &[Prepared]) -> Vec<(usize, Near)> {
    let texts =
        prepared.iter().zip(0_u32..).filter_map(|(text, turn)| Some((turn, &text.as_ref().ok()?.seen)));
    let posted = similar::posted(texts);
    let hashes: Vec<u32> = posted.iter().map(|posted| similar::upper(*posted)).collect();
    let turn = |place: usize| Some(similar::lower(*posted.get(place)?) as usize);
    let mut near: Vec<(usize, Near)> = base
        .postings
        .join(&hashes, BUCKET)
        .filter_map(|(place, number)| Some((turn(place)?, Near::Known(Number::new(number)))))
        .collect();
    let fresh = similar::pairs(&posted).into_iter();
    near.extend(fresh.map(|(later, earlier)| (later as usize, Near::Fresh(earlier as usize))));
    near.sort_unstable();
    near.dedup();
    near
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
    library: Library,
    /// Whose text shares a hash with that of a turn's operation: sorted by turn.
    near: Vec<(usize, Near)>,
    /// Which experience the operation of each turn made or changed.
    born: Vec<Option<Number>>,
    postings: Vec<(u32, u32)>,
    touched: BTreeSet<u64>,
    report: ApplyReport,
}

type Reason = String;

impl<'a> Draft<'a> {
    fn new(base: &'a Library, prepared: &'a [Prepared]) -> Self {
        let near = near(base, prepared);
        let mut library = base.clone();
        library.version += 1;
        Self {
            base,
            library,
            near,
            born: vec![None; prepared.len()],
            postings: Vec::new(),
            touched: BTreeSet::new(),
            report: ApplyReport::default(),
        }
    }

    fn close(mut self) -> (Library, ApplyReport) {
        let report = self.report;
        if report.added.is_empty() && report.modified.is_empty() && report.deleted.is_empty() {
            return (self.base.clone(), report);
        }
        let library = &mut self.library;
        library.ranking = OnceLock::new();
        library.second = None;
        library.stale |= !(report.modified.is_empty() && report.deleted.is_empty());
        let mut postings = std::mem::take(&mut library.postings);
        postings.extend(self.postings, |number| !library.stale || library.get(Number::new(number)).is_some());
        library.postings = postings;
        library.seal(&self.touched);
        (self.library, report)
    }

    fn take(
        &mut self,
        turn: usize,
        operation: &Operation,
        text: &Prepared,
    ) -> std::result::Result<(), Reason> {
        let (made_for, version) = (operation.base_version, self.base.version());
        if made_for > version {
            return Err(format!(
                "it was made for version {made_for}, but the library is at version {version}"
            ));
        }
        match operation.kind {
            OperationKind::Add => self.add(turn, operation, text.as_ref().map_err(Clone::clone)?),
            OperationKind::Modify => self.modify(turn, operation, text.as_ref().map_err(Clone::clone)),
            OperationKind::Delete => self.delete(operation),
            OperationKind::Keep => self.keep(operation),
        }
    }

    fn add(&mut self, turn: usize, operation: &Operation, text: &Text) -> std::result::Result<(), Reason> {
        let parents: BTreeSet<Id> = operation
            .parents
            .iter()
            .map(|name| self.known(name).map_err(|reason| format!("its parent {reason}")))
            .collect::<std::result::Result<_, _>>()?;
        if let Some(twin) = self.twin(turn, text, None) {
            return Err(format!("its text duplicates {twin}"));
        }
        let number =
            u32::try_from(self.library.next_id).ok().filter(|number| u64::from(*number) < LARGEST_ID);
        let number = Number::new(number.ok_or("the library has given all its ids")?);
        self.library.next_id += 1;
        let (sources, version) = (operation.groups(), self.library.version);
        let parents: Vec<Id> = parents.into_iter().collect();
        let id = Id::of(number, &text.line, &sources, &parents, version);
        let experience = Experience {
            id,
            parents,
            sources: sources.clone(),
            created: version,
            changed: version,
            tokens: text.line_tokens(self.library.tokenizer, number),
            credit: 0.0,
            history: vec![Revision {
                version,
                operation: OperationKind::Add,
                text: text.line.clone(),
                sources,
            }],
            text: text.line.clone(),
        };
        self.put(turn, text, experience);
        self.report.added.insert(id);
        Ok(())
    }

    fn modify(
        &mut self,
        turn: usize,
        operation: &Operation,
        text: std::result::Result<&Text, Reason>,
    ) -> std::result::Result<(), Reason> {
        let id = self.fresh_target(operation)?;
        let text = text?;
        if let Some(twin) = self.twin(turn, text, Some(id)) {
            return Err(format!("its text duplicates {twin}"));
        }
        let number = id.number();
        let before = self.library.get(number).ok_or_else(|| format!("{id} is not in the library"))?;
        if before.text == text.line {
            return Err(format!("it leaves the text of {id} unchanged"));
        }
        let mut experience = before.clone();
        let (groups, version) = (operation.groups(), self.library.version);
        let sources: BTreeSet<String> = experience.sources.drain(..).chain(groups.iter().cloned()).collect();
        experience.sources = sources.into_iter().collect();
        experience.changed = version;
        experience.tokens = text.line_tokens(self.library.tokenizer, number);
        experience.history.push(Revision {
            version,
            operation: OperationKind::Modify,
            text: text.line.clone(),
            sources: groups,
        });
        experience.text = text.line.clone();
        self.put(turn, text, experience);
        self.report.modified.insert(id);
        Ok(())
    }

    fn put(&mut self, turn: usize, text: &Text, experience: Experience) {
        let number = experience.id.number();
        self.postings.extend(text.seen.hashes().map(|hash| (hash, number.get())));
        self.touched.insert(self.library.put(text.seen.row(Arc::new(experience), &text.meaning)));
        if let Some(born) = self.born.get_mut(turn) {
            *born = Some(number);
        }
    }

    fn delete(&mut self, operation: &Operation) -> std::result::Result<(), Reason> {
        let id = self.fresh_target(operation)?;
        let gone = self.library.take(id.number());
        debug_assert!(gone.is_some(), "a target that nothing took lives");
        self.touched.insert(id.number().chunk());
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

    /// The living experience, other than `own`, that says the same: of several the oldest.
    fn twin(&self, turn: usize, text: &Text, own: Option<Id>) -> Option<Id> {
        let start = self.near.partition_point(|(other, _)| *other < turn);
        let here = promised(self.near.get(start..), "a search ends within the list")
            .iter()
            .take_while(|(other, _)| *other == turn);
        let candidates = here.filter_map(|(_, near)| match near {
            Near::Known(number) => Some(*number),
            Near::Fresh(earlier) => *self.born.get(*earlier)?,
        });
        let others = candidates.filter(|number| own.is_none_or(|own| own.number() != *number));
        self.library.twin(others, &text.seen)
    }

    /// An experience of the base library, whatever happened to it since.
    fn known(&self, name: &str) -> std::result::Result<Id, Reason> {
        let entry = self.base.find(name);
        entry.map(|entry| entry.id).ok_or_else(|| format!("{name} is not in the library"))
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
        let known = self.base.get(id.number()).ok_or_else(|| format!("{id} is not in the library"))?;
        let changed = known.changed;
        let made_for = operation.base_version;
        if changed > made_for {
            return Err(format!(
                "it is stale: made for version {made_for}, but {id} changed in version {changed}"
            ));
        }
        Ok(id)
    }
}
