//! The experience library: an immutable snapshot with a version and a digest.
//!
//! A snapshot is a list of shared chunks. What a change does not touch it shares with the snapshot before it, so its
//! cost is that of the change, whatever the size of the library. The digest is a tree over the chunks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::chunk::{Chunk, Row, SPAN};
use crate::column::Column;
use crate::digest::{self, Netstrings, Sum};
use crate::embed;
use crate::error::{Error, Result};
use crate::file::{self, SecondFormat};
use crate::minhash::{self, Signature, Signer};
use crate::operation::{OperationKind, is_zero};
use crate::postings::Postings;
use crate::prior::{self, Ranking};
use crate::scan::Code;
use crate::text;
use crate::tokens::Tokenizer;

/// The identity of an experience, written "E1", "E2", …: never reused, never renumbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(u64);

impl Id {
    /// The id with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Its number as postings hold it. Numbers stay below 2^32.
    #[allow(clippy::cast_possible_truncation)] // see `file::LARGEST_ID`
    pub(crate) const fn posted(self) -> u32 {
        self.0 as u32
    }

    /// Reads "E7". Anything else ("e7", "E07", "[E7]") is no id.
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.strip_prefix('E')?.parse().ok()?;
        (number > 0 && Self(number).to_string() == text).then_some(Self(number))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "E{}", self.0)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no experience id"))
    }
}

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

    /// The living experience with this id.
    pub fn get(&self, id: Id) -> Option<&Experience> {
        self.chunk(id)?.get(id).map(Arc::as_ref)
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
            let found = Id::parse(name).is_some_and(|id| {
                library.chunk_mut(id).is_some_and(|chunk| chunk.set_credit(id, credit + 0.0))
            });
            if !found {
                return Err(Error::UnknownExperience(name.clone()));
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
                Arc::make_mut(chunk).recount(|entry| prior::line_tokens(tokenizer, entry.id, &entry.text));
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
    pub(crate) fn slot(&self, id: Id) -> std::result::Result<usize, usize> {
        let number = id.number() / SPAN;
        // Without deletions of whole chunks a chunk is where its number says.
        let guess = usize::try_from(number).unwrap_or(usize::MAX);
        if self.chunks.get(guess).is_some_and(|chunk| chunk.number == number) {
            return Ok(guess);
        }
        self.chunks.binary_search_by_key(&number, |chunk| chunk.number)
    }

    pub(crate) fn chunk(&self, id: Id) -> Option<&Chunk> {
        self.chunks.get(self.slot(id).ok()?).map(Arc::as_ref)
    }

    fn chunk_mut(&mut self, id: Id) -> Option<&mut Chunk> {
        let place = self.slot(id).ok()?;
        self.chunks.get_mut(place).map(Arc::make_mut)
    }

    /// Puts an experience in its place. The digest is right again after `seal`.
    pub(crate) fn put(&mut self, row: Row<'_>) -> u64 {
        let id = row.experience.id;
        let place = match self.slot(id) {
            Ok(place) => place,
            Err(place) => {
                self.chunks.insert(place, Arc::new(Chunk::new(id.number() / SPAN)));
                self.digests.insert(place, [0; 32]);
                place
            }
        };
        if let Some(chunk) = self.chunks.get_mut(place) {
            Arc::make_mut(chunk).put(row);
        }
        id.number() / SPAN
    }

    /// Takes an experience out. The digest is right again after `seal`.
    pub(crate) fn take(&mut self, id: Id) -> Option<Arc<Experience>> {
        let place = self.slot(id).ok()?;
        let chunk = Arc::make_mut(self.chunks.get_mut(place)?);
        let gone = chunk.remove(id);
        if chunk.len() == 0 {
            self.chunks.remove(place);
            self.digests.remove(place);
        }
        gone
    }

    /// Closes a snapshot: the digests of the chunks with these numbers, then that of the whole.
    pub(crate) fn seal<'a>(&mut self, touched: impl IntoIterator<Item = &'a u64>) {
        for &number in touched {
            if let Ok(place) = self.slot(Id::new(number * SPAN))
                && let (Some(chunk), Some(sum)) = (self.chunks.get(place), self.digests.get_mut(place))
            {
                *sum = chunk.digest();
            }
        }
        let mut whole = Netstrings::default();
        whole.put(file::FORMAT);
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

impl Experience {
    /// Everything it says, in one order: no token count and no credit.
    pub(crate) fn say(&self, fields: &mut Netstrings) {
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

    pub(crate) fn digest(&self) -> Sum {
        let mut fields = Netstrings::default();
        self.say(&mut fields);
        fields.sum()
    }
}

/// A text as the tiers see it, made once.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub key: String,
    pub signature: Signature,
}

impl Seen {
    pub fn new(text: &str, signer: Signer) -> Self {
        let key = text::key(text);
        Self { signature: signer.sign(&key), key }
    }

    /// The hashes under which it is posted: of the whole, then of the bands.
    pub fn hashes(&self) -> impl Iterator<Item = u32> {
        std::iter::once(minhash::whole(&self.key)).chain(minhash::bands(&self.signature))
    }

    /// A row of the library.
    pub fn row<'m>(&self, experience: Arc<Experience>, meaning: &'m Meaning) -> Row<'m> {
        Row {
            digest: experience.digest(),
            experience,
            signature: self.signature,
            vector: &meaning.values,
            inverse_norm: meaning.inverse_norm,
            code: meaning.code,
        }
    }
}

/// The vector of a text as columns hold it.
#[derive(Debug, Clone)]
pub(crate) struct Meaning {
    pub values: Vec<i8>,
    pub inverse_norm: f32,
    pub code: Code,
}

impl Meaning {
    /// By our own word table; `key` is a folded text.
    pub fn of(key: &str) -> Self {
        Self::given(&embed::embed(key))
    }

    /// Made elsewhere.
    pub fn given(vector: &[f32]) -> Self {
        let (values, inverse_norm) = embed::quantise(vector);
        Self { code: embed::code(&values), values, inverse_norm }
    }
}
