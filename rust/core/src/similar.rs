//! Neighbours of a text, and whether it is new: the tiers together.
//!
//! No similarity tells a paraphrase from a contradiction, so similarity only proposes: shared hashes propose what is
//! written alike, vectors what means alike. What may be merged is decided by the guard, which looks at the words that
//! differ.

use rayon::prelude::*;
use serde::Serialize;

use crate::embed;
use crate::error::{Error, Result};
use crate::guard::{self, Changed, Relation};
use crate::invariant::promised;
use crate::library::{Experience, Id, Library, Meaning, Number, Seen};
use crate::minhash::{self, Signature, Signer};
use crate::scan::{Scan, Vectors};
use crate::text;

/// At most so many experiences of a bucket are looked at, the oldest of each run: boilerplate fills buckets.
pub(crate) const BUCKET: usize = 32;
/// Texts that overlap less are no near-duplicates, whatever bucket they share.
const ALIKE: f32 = 0.33;
/// The guard compares a text with so many others, those that overlap most: families of near-copies are large.
const COMPARED: usize = 12;
/// So many of those closest in meaning are judged, however many are asked for.
const JUDGED: usize = 8;
/// Vectors closer than this speak of the same matter.
const RELATED: f32 = 0.6;
/// Up to so many rows are compared exactly; in more the codes choose.
const EXACT: usize = 1024;
/// How many rows the codes choose for each that is wanted, and at least.
const SHORTLIST: (usize, usize) = (4, 128);
/// From so many texts on the work is spread over the processors.
const WORTH_SPREADING: usize = 256;

/// What a text is to a library, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// An experience says the same: the only verdict that may be acted on without a model.
    Duplicate,
    /// An experience says nearly the same, but for a word that changes the sense.
    Conflict,
    /// An experience is about the same matter.
    Related,
    /// Nothing like it is there.
    New,
}

/// An experience near a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Neighbour {
    /// Which.
    pub id: Id,
    /// What the text is to it.
    pub verdict: Verdict,
    /// Cosine of the vectors.
    pub similarity: f32,
    /// Estimated share of common words and bigrams (Jaccard).
    pub overlap: f32,
    /// The words that differ and matter: the experience's left, the text's right.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Changed>,
}

/// What a text is to a library.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// The strongest of the neighbours' verdicts.
    pub verdict: Verdict,
    /// The nearest experiences: duplicates first, then by similarity, then by id.
    pub neighbours: Vec<Neighbour>,
}

impl Judgement {
    /// In the JSON shape of `tfgrpo.library.Judgement`.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::Format(error.to_string()))
    }
}

/// What a text duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    /// An experience of the library.
    Experience(Id),
    /// An earlier text of the same batch, by its place.
    Text(usize),
}

/// A row as one number: its chunk's place above, its own place below. Orders like ids.
fn row_of(chunk: usize, place: usize) -> u32 {
    let row = u32::try_from(chunk << 8 | place).ok();
    debug_assert!(row.is_some(), "numbers are 32 bits, and so are rows");
    row.unwrap_or(u32::MAX) // no row is there: it is passed over
}

impl Library {
    /// What `text` is to the library, and its `k` nearest experiences.
    ///
    /// `vector` is its vector where the library's vectors are not ours, of `dimensions()` numbers.
    pub fn judge(&self, text: &str, vector: Option<&[f32]>, k: usize) -> Judgement {
        let seen = Seen::new(text, Signer::default());
        let meaning = self.meaning(&seen.key, vector);
        let near = meaning.as_ref().map(|meaning| self.nearest(meaning, k.max(JUDGED))).unwrap_or_default();
        let close = near.first().map(|(_, row)| *row);
        // Which rows the guard sees does not depend on k, and so neither does the verdict.
        let mut judged: Vec<u32> = near.iter().take(JUDGED).map(|(_, row)| *row).collect();
        judged.extend(self.alike(self.candidates(&seen), &seen));
        judged.sort_unstable();
        judged.dedup();
        let others =
            near.iter().skip(JUDGED).map(|(_, row)| *row).filter(|row| judged.binary_search(row).is_err());
        let mut neighbours: Vec<Neighbour> = judged
            .iter()
            .map(|row| (*row, true))
            .chain(others.map(|row| (row, false)))
            .filter_map(|(row, judged)| {
                self.neighbour(row, &seen, meaning.as_ref(), judged.then_some(Some(row) == close))
            })
            .collect();
        neighbours.sort_by(|a, b| {
            let first = |neighbour: &Neighbour| neighbour.verdict != Verdict::Duplicate;
            first(a)
                .cmp(&first(b))
                .then(b.similarity.total_cmp(&a.similarity))
                .then(b.overlap.total_cmp(&a.overlap))
                .then(a.id.cmp(&b.id))
        });
        let verdict = neighbours.iter().map(|neighbour| neighbour.verdict).min().unwrap_or(Verdict::New);
        neighbours.truncate(k);
        Judgement { verdict, neighbours }
    }

    /// The experience of a row as a neighbour. The guard compares it if it is to be `judged` and is written alike, or if
    /// it is said to be the closest of all and is about the same matter.
    fn neighbour(
        &self,
        row: u32,
        seen: &Seen,
        meaning: Option<&Meaning>,
        judged: Option<bool>,
    ) -> Option<Neighbour> {
        let (experience, signature, vector, inverse_norm) = self.at(row)?;
        let overlap = minhash::overlap(signature, &seen.signature);
        let similarity = meaning.map_or(0.0, |meaning| {
            let mut dot = [0];
            Scan::new().dots(&meaning.values, vector, &mut dot);
            dot[0] as f32 * inverse_norm * meaning.inverse_norm
        });
        let mut verdict = if similarity >= RELATED { Verdict::Related } else { Verdict::New };
        let mut differences = Vec::new();
        if judged.is_some_and(|closest| (closest && similarity >= RELATED) || overlap >= ALIKE) {
            let comparison = guard::compare(&text::key(&experience.text), &seen.key, &embed::knows);
            match comparison.relation {
                Relation::Same => verdict = Verdict::Duplicate,
                Relation::Conflict => verdict = Verdict::Conflict,
                Relation::Related if overlap >= ALIKE => verdict = Verdict::Related,
                Relation::Related => {}
            }
            differences = comparison.differences;
        }
        Some(Neighbour { id: experience.id, verdict, similarity, overlap, differences })
    }

    /// The experiences relevant to a batch of questions, the most relevant first: at most `each` for a question.
    ///
    /// A question's vector is `dimensions()` numbers of `vectors`, or ours where the library's vectors are.
    pub fn relevant(&self, questions: &[&str], vectors: &[f32], each: usize) -> Vec<Id> {
        let given: Vec<&[f32]> = vectors.chunks_exact(self.dimensions()).collect();
        let one = |(place, question): (usize, &&str)| {
            let meaning = self.meaning(&text::key(question), given.get(place).copied());
            meaning.map(|meaning| self.nearest(&meaning, each)).unwrap_or_default()
        };
        let mut found: Vec<(f32, u32)> = if questions.len() < WORTH_SPREADING {
            questions.iter().enumerate().flat_map(one).collect()
        } else {
            questions.par_iter().enumerate().flat_map_iter(one).collect()
        };
        // Of an experience the question it is closest to counts.
        found.sort_by(|a, b| a.1.cmp(&b.1).then(b.0.total_cmp(&a.0)));
        found.dedup_by_key(|(_, row)| *row);
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        found.into_iter().filter_map(|(_, row)| Some(self.at(row)?.0.id)).collect()
    }

    /// The `k` rows closest in meaning: exactly in a small library, else of those that the codes choose.
    fn nearest(&self, meaning: &Meaning, k: usize) -> Vec<(f32, u32)> {
        if meaning.inverse_norm <= 0.0 {
            return Vec::new(); // no word of it is known: it is as near to one as to any other
        }
        let scan = Scan::new();
        if self.len() <= EXACT {
            let chunks = self.chunks.iter().enumerate().map(|(place, chunk)| Vectors {
                first_row: row_of(place, 0),
                values: &chunk.vectors,
                inverse_norms: &chunk.inverse_norms,
            });
            return scan.nearest_vectors(&meaning.values, chunks, k);
        }
        let shortlist = (k * SHORTLIST.0).max(SHORTLIST.1);
        let codes = self.chunks.iter().enumerate().map(|(place, chunk)| (row_of(place, 0), &*chunk.codes));
        let mut chosen: Vec<u32> =
            scan.nearest_codes(&meaning.code, codes, shortlist).into_iter().map(|(_, row)| row).collect();
        chosen.sort_unstable();
        let rows = chosen.into_iter().filter_map(|row| {
            let (_, _, vector, inverse_norm) = self.at(row)?;
            Some((row, vector, inverse_norm))
        });
        scan.rank(&meaning.values, rows, k)
    }

    /// The vector of a folded text: ours, or the one that is given where the library's are. None if it is missing.
    pub(crate) fn meaning(&self, key: &str, vector: Option<&[f32]>) -> Option<Meaning> {
        match self.given {
            None => Some(Meaning::of(key)),
            Some(dimensions) => vector.filter(|vector| vector.len() == dimensions).map(Meaning::given),
        }
    }

    fn at(&self, row: u32) -> Option<(&Experience, &Signature, &[i8], f32)> {
        let chunk = self.chunks.get(row as usize >> 8)?;
        let place = row as usize & 255;
        debug_assert!(chunk.is_whole() && place < chunk.len(), "a row that was found is in every column");
        let norm = chunk.inverse_norms.get(place)?;
        Some((chunk.entries.get(place)?, chunk.signatures.get(place)?, chunk.vector(place), *norm))
    }

    fn row(&self, number: Number) -> Option<u32> {
        let chunk = self.slot(number).ok()?;
        Some(row_of(chunk, self.chunks.get(chunk)?.place(number)?))
    }

    /// Experiences that share a hash with a text: those written alike. Some may be gone or have another text now.
    pub(crate) fn candidates(&self, seen: &Seen) -> impl Iterator<Item = Number> {
        seen.hashes().flat_map(|hash| self.postings.find(hash, BUCKET)).map(Number::new)
    }

    /// The rows of those candidates that are written most like a text, in row order.
    fn alike(&self, candidates: impl Iterator<Item = Number>, seen: &Seen) -> Vec<u32> {
        let rows = candidates.filter_map(|number| self.row(number));
        closest(rows, |row| self.at(*row).map(|(_, signature, ..)| signature), seen)
    }

    /// The oldest of the living experiences among `candidates` that says the same as a text.
    pub(crate) fn twin(&self, candidates: impl Iterator<Item = Number>, seen: &Seen) -> Option<Id> {
        self.alike(candidates, seen)
            .into_iter()
            .filter_map(|row| self.at(row))
            .find(|(experience, ..)| {
                let key = text::key(&experience.text);
                key == seen.key || same(&key, &seen.key)
            })
            .map(|(experience, ..)| experience.id)
    }

    /// For each text what it duplicates: an experience of the library, else the first text before it that itself
    /// duplicates nothing.
    ///
    /// Texts are compared with those that share a hash of words and bigrams: with what is written alike.
    pub fn deduplicate(&self, texts: &[&str]) -> Vec<Option<Twin>> {
        let signer = Signer::default();
        let seen: Vec<Seen> = if texts.len() < WORTH_SPREADING {
            texts.iter().map(|text| Seen::new(text, signer)).collect()
        } else {
            texts.par_iter().map(|text| Seen::new(text, signer)).collect()
        };
        let pairs = pairs(&posted((0_u32..).zip(&seen)));
        let mut pairs = pairs.iter().peekable();
        let mut twins: Vec<Option<Twin>> = Vec::with_capacity(texts.len());
        for (place, text) in seen.iter().enumerate() {
            let earlier: Vec<usize> =
                std::iter::from_fn(|| pairs.next_if(|(later, _)| *later as usize == place))
                    .map(|(_, earlier)| *earlier as usize)
                    .filter(|earlier| matches!(twins.get(*earlier), Some(None)))
                    .collect();
            let known = (!self.is_empty()).then(|| self.twin(self.candidates(text), text)).flatten();
            let twin = known.map(Twin::Experience).or_else(|| {
                let near = closest(earlier.into_iter(), |at| Some(&seen.get(*at)?.signature), text);
                let says = |at: &usize| {
                    seen.get(*at).is_some_and(|other| other.key == text.key || same(&other.key, &text.key))
                };
                near.into_iter().find(says).map(Twin::Text)
            });
            twins.push(twin);
        }
        twins
    }
}

/// The hashes of texts with their places, the hash above and the place below, sorted.
pub(crate) fn posted<'s>(texts: impl Iterator<Item = (u32, &'s Seen)>) -> Vec<u64> {
    let mut posted = Vec::with_capacity(texts.size_hint().1.unwrap_or(0) * (minhash::BANDS + 1));
    for (place, text) in texts {
        posted.extend(text.hashes().map(|hash| u64::from(hash) << 32 | u64::from(place)));
    }
    posted.sort_unstable();
    posted.dedup();
    posted
}

/// Pairs of places (later, earlier) that share a hash, sorted, each once.
pub(crate) fn pairs(posted: &[u64]) -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    for bucket in posted.chunk_by(|a, b| upper(*a) == upper(*b)) {
        for (length, later) in bucket.iter().enumerate().skip(1) {
            let earlier = promised(bucket.get(..length.min(BUCKET)), "what is earlier is in the bucket");
            pairs.extend(earlier.iter().map(|earlier| (lower(*later), lower(*earlier))));
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// The hash.
pub(crate) fn upper(posted: u64) -> u32 {
    lower(posted >> 32)
}

/// The place.
#[allow(clippy::cast_possible_truncation)] // the lower half is meant
pub(crate) fn lower(posted: u64) -> u32 {
    posted as u32
}

/// Of candidates those that overlap most with a text, in ascending order, each once.
fn closest<'s, T: Ord + Copy>(
    candidates: impl Iterator<Item = T>,
    signature: impl Fn(&T) -> Option<&'s Signature>,
    seen: &Seen,
) -> Vec<T> {
    let mut found: Vec<T> = candidates.collect();
    found.sort_unstable();
    found.dedup();
    let mut near: Vec<(f32, T)> = found
        .into_iter()
        .filter_map(|candidate| Some((minhash::overlap(signature(&candidate)?, &seen.signature), candidate)))
        .filter(|(overlap, _)| *overlap >= ALIKE)
        .collect();
    if near.len() > COMPARED {
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        near.truncate(COMPARED);
        near.sort_by_key(|(_, candidate)| *candidate);
    }
    near.into_iter().map(|(_, candidate)| candidate).collect()
}

fn same(a: &str, b: &str) -> bool {
    guard::compare(a, b, &embed::knows).relation == Relation::Same
}
