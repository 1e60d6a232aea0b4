//! A text as it is compared: folded, signed and embedded, each once.

use std::sync::Arc;

use super::chunk::Row;
use super::experience::Experience;
use crate::embed;
use crate::minhash::{self, Signature, Signer};
use crate::scan::Code;
use crate::text;

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
