//! A snapshot: shared chunks, a version and a digest.
//!
//! What a change does not touch is shared with the snapshot before it, so its cost is that of the change, whatever the
//! size of the library. The digest is a tree over the chunks.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::chunk::{Chunk, Row};
use super::experience::Experience;
use super::format::{FORMAT, FORMAT_VERSION, SECOND_VERSION, SecondFormat};
use super::id::{Id, Number};
use super::line;
use super::ranking::Ranking;
use super::seen::Meaning;
use crate::column::Column;
use crate::digest::{self, Netstrings, Sum};
use crate::embed;
use crate::error::{Error, Result};
use crate::postings::Postings;
use crate::tokens::Tokenizer;

/// An immutable experience library. [`Library::apply`] is the only way from one to the next.
#[derive(Debug, Clone)]
pub struct Library {
    pub(crate) version: u64,
    pub(crate) next_id: u64,
    /// What a file of `format_version` 2 says besides, until the first change.
    pub(crate) second: Option<Arc<SecondFormat>>,
    pub(crate) tokenizer: Tokenizer,
    /// The length of its vectors. `None`: they are ours, see [`embed`].
    pub(crate) given: Option<usize>,
    pub(crate) chunks: Vec<Arc<Chunk>>,
    pub(crate) postings: Postings,
    /// Whether postings may name experiences that are gone.
    pub(crate) stale: bool,
    /// Of the chunks, in their order.
    pub(crate) digests: Vec<Sum>,
    pub(crate) digest: String,
    pub(crate) ranking: OnceLock<Arc<Ranking>>,
}

impl PartialEq for Library {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.entries().eq(other.entries())
    }
}

impl Default for Library {
    fn default() -> Self {
        let mut empty = Self {
            version: 0,
            next_id: 1,
            second: None,
            tokenizer: Tokenizer::default(),
            given: None,
            chunks: Vec::new(),
            postings: Postings::default(),
            stale: false,
            digests: Vec::new(),
            digest: String::new(),
            ranking: OnceLock::new(),
        };
        empty.seal(&[]);
        empty
    }
}

impl Library {
    /// The number of changes since the empty library.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The number of the next new experience.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// The SHA-256 digest of all that the library says: not of token counts, credits and vectors.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What counts its tokens.
    pub fn tokenizer(&self) -> Tokenizer {
        self.tokenizer
    }

    /// The length of its vectors.
    pub fn dimensions(&self) -> usize {
        self.given.unwrap_or(embed::DIMENSIONS)
    }

    /// The number of living experiences.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    /// Whether no experience lives.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The living experiences, in id order.
    pub fn entries(&self) -> impl Iterator<Item = &Experience> {
        self.chunks.iter().flat_map(|chunk| chunk.entries.iter().map(Arc::as_ref))
    }

    /// The living experience with this number.
    pub fn get(&self, number: Number) -> Option<&Experience> {
        self.chunk(number)?.get(number).map(Arc::as_ref)
    }

    /// The living experience that is called `name`: by its id, or by its number alone.
    pub fn find(&self, name: &str) -> Option<&Experience> {
        let name = Id::parse(name)?;
        self.get(name.number()).filter(|entry| entry.id.is_called(name))
    }

    /// The version of the format that it is written in.
    pub(crate) fn format_version(&self) -> u64 {
        if self.second.is_some() { SECOND_VERSION } else { FORMAT_VERSION }
    }

    /// The tokens of all lines of a prior that holds every experience once.
    pub fn tokens(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.tokens).sum()
    }

    /// The same library with new credits; experiences that `credits` does not name keep theirs.
    ///
    /// Version and digest stay: credit is bookkeeping about a library, not a change of it. It does steer which
    /// experiences a prior too small for all of them holds; `TokenPrior` has its own digest for that reason.
    pub fn with_credit(&self, credits: &BTreeMap<String, f64>) -> Result<Self> {
        let mut library = self.clone();
        library.ranking = OnceLock::new();
        for (name, &credit) in credits {
            if !credit.is_finite() {
                return Err(Error::Credit { id: name.clone(), credit: credit.to_string() });
            }
            // Adding 0.0 turns a negative zero, which JSON would not keep, into zero.
            let known = library.find(name).map(|entry| entry.id.number());
            let number = known.ok_or_else(|| Error::UnknownExperience(name.clone()))?;
            let given = library.chunk_mut(number).is_some_and(|chunk| chunk.set_credit(number, credit + 0.0));
            if !given {
                return Err(Error::Invariant("an experience that was found is in no chunk"));
            }
        }
        Ok(library)
    }

    /// The same library, version and digest, counted with another tokeniser.
    #[must_use]
    pub fn with_tokenizer(&self, tokenizer: Tokenizer) -> Self {
        let mut library = self.clone();
        if tokenizer != self.tokenizer {
            library.tokenizer = tokenizer;
            library.ranking = OnceLock::new();
            for chunk in &mut library.chunks {
                Arc::make_mut(chunk)
                    .recount(|entry| line::line_tokens(tokenizer, entry.id.number(), &entry.text));
            }
        }
        library
    }

    /// The same library, version and digest with vectors from elsewhere: one row an experience, in id order.
    ///
    /// # Errors
    /// [`Error::Vectors`] if rows are missing or left over, or `dimensions` is 0 or above 4,096.
    pub fn with_vectors(&self, vectors: &[f32], dimensions: usize) -> Result<Self> {
        if !(1..=embed::LARGEST_DIMENSIONS).contains(&dimensions) || vectors.len() != self.len() * dimensions
        {
            return Err(Error::Vectors { values: vectors.len(), rows: self.len(), dimensions });
        }
        let mut library = self.clone();
        library.given = Some(dimensions);
        let mut rows = vectors.chunks_exact(dimensions);
        for chunk in &mut library.chunks {
            let chunk = Arc::make_mut(chunk);
            chunk.vectors = Column::default();
            let columns = chunk.inverse_norms.own().iter_mut().zip(chunk.codes.own());
            for ((norm, code), row) in columns.zip(rows.by_ref()) {
                let meaning = Meaning::given(row);
                (*norm, *code) = (meaning.inverse_norm, meaning.code);
                chunk.vectors.own().extend_from_slice(&meaning.values);
            }
        }
        Ok(library)
    }

    /// Where the chunk of an id is, or would have to be.
    pub(crate) fn slot(&self, number: Number) -> std::result::Result<usize, usize> {
        let number = number.chunk();
        // Without deletions of whole chunks a chunk is where its number says.
        let guess = usize::try_from(number).unwrap_or(usize::MAX);
        if self.chunks.get(guess).is_some_and(|chunk| chunk.number == number) {
            return Ok(guess);
        }
        self.chunks.binary_search_by_key(&number, |chunk| chunk.number)
    }

    pub(crate) fn chunk(&self, number: Number) -> Option<&Chunk> {
        self.chunks.get(self.slot(number).ok()?).map(Arc::as_ref)
    }

    fn chunk_mut(&mut self, number: Number) -> Option<&mut Chunk> {
        let place = self.slot(number).ok()?;
        self.chunks.get_mut(place).map(Arc::make_mut)
    }

    /// Puts an experience in its place. The digest is right again after `seal`.
    pub(crate) fn put(&mut self, row: Row<'_>) -> u64 {
        let number = row.experience.id.number();
        let place = match self.slot(number) {
            Ok(place) => place,
            Err(place) => {
                self.chunks.insert(place, Arc::new(Chunk::new(number.chunk())));
                self.digests.insert(place, [0; 32]);
                place
            }
        };
        debug_assert!(place < self.chunks.len(), "a chunk that was made is there");
        if let Some(chunk) = self.chunks.get_mut(place) {
            Arc::make_mut(chunk).put(row);
        }
        number.chunk()
    }

    /// Takes an experience out. The digest is right again after `seal`.
    pub(crate) fn take(&mut self, number: Number) -> Option<Arc<Experience>> {
        let place = self.slot(number).ok()?;
        let chunk = Arc::make_mut(self.chunks.get_mut(place)?);
        let gone = chunk.remove(number);
        if chunk.len() == 0 {
            self.chunks.remove(place);
            self.digests.remove(place);
        }
        gone
    }

    /// Closes a snapshot: the digests of the chunks with these numbers, then that of the whole.
    pub(crate) fn seal<'a>(&mut self, touched: impl IntoIterator<Item = &'a u64>) {
        for &number in touched {
            if let Ok(place) = self.chunks.binary_search_by_key(&number, |chunk| chunk.number)
                && let (Some(chunk), Some(sum)) = (self.chunks.get(place), self.digests.get_mut(place))
            {
                *sum = chunk.digest();
            }
        }
        let mut whole = Netstrings::default();
        whole.put(FORMAT);
        for number in [self.format_version(), self.version, self.next_id] {
            whole.count(number);
        }
        if let Some(second) = &self.second {
            second.say(&mut whole);
        }
        whole.count(self.len() as u64);
        whole.put(&digest::written(&digest::tree(self.chunks.len() as u64, &self.digests)));
        self.digest = digest::written(&whole.sum());
    }
}
