//! A chunk: up to 256 neighbouring experiences of a snapshot and, as columns, what is derived from them.
//!
//! Chunks are shared between snapshots and copied when one of their rows changes. All columns change together, in
//! `put` and `remove`, so none can lag behind.

use std::sync::Arc;

use super::experience::Experience;
use super::id::Number;
use crate::column::Column;
use crate::digest::{self, Sum};
use crate::invariant::promised;
use crate::minhash::Signature;
use crate::scan::Code;

/// One experience with all that is derived from it.
#[derive(Debug, Clone)]
pub(crate) struct Row<'a> {
    pub experience: Arc<Experience>,
    pub digest: Sum,
    pub signature: Signature,
    pub vector: &'a [i8],
    pub inverse_norm: f32,
    pub code: Code,
}

/// What packing a prior reads of each row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weight {
    pub credit: f64,
    pub tokens: u32,
    pub number: Number,
}

impl Weight {
    pub fn of(entry: &Experience) -> Self {
        Self { credit: entry.credit, tokens: narrow(entry.tokens), number: entry.id.number() }
    }
}

/// No line has four thousand million tokens; one that had would fit no budget.
fn narrow(tokens: u64) -> u32 {
    let narrow = u32::try_from(tokens).ok();
    debug_assert!(narrow.is_some(), "no line has four thousand million tokens");
    narrow.unwrap_or(u32::MAX)
}

/// Rows in id order, column by column.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chunk {
    /// The common upper bits of its ids.
    pub number: u64,
    pub entries: Vec<Arc<Experience>>,
    pub digests: Vec<Sum>,
    pub signatures: Column<Signature>,
    /// Row after row.
    pub vectors: Column<i8>,
    pub inverse_norms: Column<f32>,
    pub codes: Column<Code>,
    pub weights: Vec<Weight>,
    /// The sum of the weights' tokens.
    pub tokens: u64,
}

impl Chunk {
    pub fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether every column has all the rows: always, between changes.
    pub fn is_whole(&self) -> bool {
        let rows = self.entries.len();
        [
            self.digests.len(),
            self.signatures.len(),
            self.inverse_norms.len(),
            self.codes.len(),
            self.weights.len(),
        ] == [rows; 5]
            && self.vectors.len().is_multiple_of(rows.max(1))
    }

    /// Where the experience is.
    pub fn place(&self, number: Number) -> Option<usize> {
        self.slot(number).ok()
    }

    /// Where it is, or where it would have to be.
    fn slot(&self, number: Number) -> Result<usize, usize> {
        // Without deletions an experience is where its number says.
        let first = self.entries.first().map_or(0, |entry| entry.id.number().place());
        let guess = number.place().wrapping_sub(first);
        if self.entries.get(guess).is_some_and(|entry| entry.id.number() == number) {
            return Ok(guess);
        }
        match self.entries.last() {
            Some(last) if last.id.number() < number => Err(self.entries.len()),
            _ => self.entries.binary_search_by_key(&number, |entry| entry.id.number()),
        }
    }

    pub fn get(&self, number: Number) -> Option<&Arc<Experience>> {
        self.entries.get(self.place(number)?)
    }

    /// Puts a row in its place, over the one that has its id.
    pub fn put(&mut self, row: Row<'_>) {
        let weight = Weight::of(&row.experience);
        let dimensions = row.vector.len();
        self.tokens += u64::from(weight.tokens);
        match self.slot(row.experience.id.number()) {
            Ok(place) => {
                set(&mut self.entries, place, row.experience);
                set(&mut self.digests, place, row.digest);
                set(self.signatures.own(), place, row.signature);
                set(self.inverse_norms.own(), place, row.inverse_norm);
                set(self.codes.own(), place, row.code);
                let before = self.weights.get(place).map(|weight| u64::from(weight.tokens));
                self.tokens -= promised(before, "each row has a weight");
                set(&mut self.weights, place, weight);
                let vector = self.vectors.own().get_mut(place * dimensions..(place + 1) * dimensions);
                let vector = promised(vector, "each row has a vector");
                debug_assert_eq!(vector.len(), dimensions, "a library's vectors have one length");
                if vector.len() == dimensions {
                    vector.copy_from_slice(row.vector);
                }
            }
            Err(place) => {
                self.entries.insert(place, row.experience);
                self.digests.insert(place, row.digest);
                self.signatures.own().insert(place, row.signature);
                self.inverse_norms.own().insert(place, row.inverse_norm);
                self.codes.own().insert(place, row.code);
                self.weights.insert(place, weight);
                let at = place * dimensions;
                if at == self.vectors.len() {
                    self.vectors.own().extend_from_slice(row.vector);
                } else {
                    self.vectors.own().splice(at..at, row.vector.iter().copied());
                }
            }
        }
    }

    /// Takes a row out.
    pub fn remove(&mut self, number: Number) -> Option<Arc<Experience>> {
        let place = self.place(number)?;
        let dimensions = self.vectors.len() / self.len();
        self.digests.remove(place);
        self.signatures.own().remove(place);
        self.inverse_norms.own().remove(place);
        self.codes.own().remove(place);
        self.tokens -= u64::from(self.weights.remove(place).tokens);
        self.vectors.own().drain(place * dimensions..(place + 1) * dimensions);
        Some(self.entries.remove(place))
    }

    /// Gives an experience another credit: bookkeeping, which no digest covers.
    pub fn set_credit(&mut self, number: Number, credit: f64) -> bool {
        let Some(place) = self.place(number) else { return false };
        if let (Some(entry), Some(weight)) = (self.entries.get_mut(place), self.weights.get_mut(place)) {
            Arc::make_mut(entry).credit = credit;
            weight.credit = credit;
        }
        true
    }

    /// Gives every experience the token count of another tokeniser.
    pub fn recount(&mut self, count: impl Fn(&Experience) -> u64) {
        for (entry, weight) in self.entries.iter_mut().zip(&mut self.weights) {
            let tokens = count(entry);
            Arc::make_mut(entry).tokens = tokens;
            weight.tokens = narrow(tokens);
        }
        self.tokens = self.weights.iter().map(|weight| u64::from(weight.tokens)).sum();
    }

    /// The vector of a row.
    pub fn vector(&self, place: usize) -> &[i8] {
        let dimensions = self.vectors.len() / self.len().max(1);
        promised(self.vectors.get(place * dimensions..(place + 1) * dimensions), "each row has a vector")
    }

    /// What the chunk says: its number and its rows' digests.
    pub fn digest(&self) -> Sum {
        digest::tree(self.number, &self.digests)
    }
}

fn set<T>(column: &mut [T], place: usize, value: T) {
    debug_assert!(place < column.len(), "each row is in every column");
    if let Some(cell) = column.get_mut(place) {
        *cell = value;
    }
}
