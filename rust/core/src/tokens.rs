//! Token counts, by vocabularies that are in the binary. Nothing is fetched.
//!
//! o200k is the reference in which budgets are stated. A library counts each experience once, when it comes in, with
//! the tokeniser of the model that reads it where that one is bundled. For other models o200k is an estimate, and a
//! better one than any number of bytes a token: on real libraries it gives 0.93 to 0.98 of Qwen's count and 0.95 to
//! 1.00 of `DeepSeek`'s.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};

/// What counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tokenizer {
    /// `OpenAI`'s vocabulary from GPT-4o on: exact.
    #[default]
    O200k,
    /// `OpenAI`'s vocabulary of GPT-4 and GPT-3.5: exact.
    Cl100k,
}

impl Tokenizer {
    /// The tokeniser with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::O200k, Self::Cl100k].into_iter().find(|known| known.name() == name)
    }

    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::O200k => "o200k",
            Self::Cl100k => "cl100k",
        }
    }

    /// The tokeniser of a model, by the name that its provider gives it, with or without a provider before a "/":
    /// its own or, where that is not bundled, the reference as an estimate.
    pub fn for_model(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let newer = starts(&["gpt-4o", "gpt-4."]);
        if !newer && starts(&["gpt-4", "gpt-3.5", "gpt-35"]) { Self::Cl100k } else { Self::O200k }
    }

    /// The number of tokens in `text`. Special tokens count as the plain text they are.
    pub fn count(self, text: &str) -> u64 {
        let tokenizer = match self {
            Self::O200k => bpe_openai::o200k_base(),
            Self::Cl100k => bpe_openai::cl100k_base(),
        };
        PIECES.with_borrow_mut(|pieces| {
            tokenizer
                .split(text)
                .map(|piece| pieces.count(self, piece, |piece| tokenizer.bpe.count(piece)))
                .sum()
        })
    }
}

thread_local! {
    static PIECES: RefCell<Pieces> = RefCell::new(Pieces(vec![0; PLACES]));
}

/// The counts of the pieces (words, mostly) counted last: looking one up is several times faster than encoding it.
struct Pieces(Vec<u128>);

/// Half a megabyte.
const PLACES: usize = 1 << 15;

impl Pieces {
    #[allow(clippy::cast_possible_truncation)] // lengths are below 15, and a hash has the bits that are used
    fn count(&mut self, tokenizer: Tokenizer, piece: &str, encode: impl Fn(&[u8]) -> usize) -> u64 {
        let bytes = piece.as_bytes();
        // A piece of up to 14 bytes, its length, its tokeniser and, in the last byte, its count are one number.
        let mut key = [0_u8; 16];
        let [text @ .., kind, _] = &mut key;
        let Some(place) = text.get_mut(..bytes.len()) else { return encode(bytes) as u64 };
        place.copy_from_slice(bytes);
        *kind = 1 + bytes.len() as u8 * 2 + tokenizer as u8;
        let key = u128::from_le_bytes(key);
        let hash = ((key as u64) ^ (key >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 49;
        let Some(kept) = self.0.get_mut(hash as usize % PLACES) else { return encode(bytes) as u64 };
        if *kept & (u128::MAX >> 8) != key {
            *kept = key | (encode(bytes) as u128) << 120;
        }
        (*kept >> 120) as u64
    }
}

/// The number of o200k tokens in `text`.
pub fn count(text: &str) -> u64 {
    Tokenizer::O200k.count(text)
}

#[cfg(test)]
mod tests {
    use super::{Tokenizer, count};

    #[test]
    fn agrees_with_the_published_vocabularies() {
        assert_eq!(count(""), 0);
        assert_eq!(count("hello world"), 2);
        assert_eq!(count("antidisestablishmentarianism"), 6);
        assert_eq!(Tokenizer::Cl100k.count("hello world"), 2);
        assert_eq!(Tokenizer::Cl100k.count("tiktoken is great!"), 6);
    }

    #[test]
    fn what_was_counted_before_is_counted_alike() {
        for text in
            ["check the units", "check the units twice; antidisestablishmentarianism", "  \n\n[E1] x\n"]
        {
            for _ in 0..2 {
                assert_eq!(Tokenizer::O200k.count(text), bpe_openai::o200k_base().count(text) as u64);
                assert_eq!(Tokenizer::Cl100k.count(text), bpe_openai::cl100k_base().count(text) as u64);
            }
        }
    }

    #[test]
    fn a_model_has_its_tokeniser() {
        for (model, expected) in [
            ("gpt-4o-mini", Tokenizer::O200k),
            ("openai/gpt-5.1", Tokenizer::O200k),
            ("gpt-4-turbo", Tokenizer::Cl100k),
            ("gpt-4.1", Tokenizer::O200k),
            ("deepseek-chat", Tokenizer::O200k),
        ] {
            assert_eq!(Tokenizer::for_model(model), expected, "{model}");
        }
        assert_eq!(Tokenizer::parse("cl100k"), Some(Tokenizer::Cl100k));
        assert_eq!(Tokenizer::parse("other"), None);
    }
}
