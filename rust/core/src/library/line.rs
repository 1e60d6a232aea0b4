//! The line of an experience in a prior, and its tokens.

use super::id::Number;
use crate::tokens::Tokenizer;

/// The tokens of a line are those of its number and those of the rest: each tokeniser cuts between "]" and a space.
pub(super) fn head_tokens(tokenizer: Tokenizer, number: Number) -> u64 {
    tokenizer.count(&format!("[{number}]"))
}

/// The tokens of a line behind its number.
pub(super) fn body_tokens(tokenizer: Tokenizer, text: &str) -> u64 {
    tokenizer.count(&format!(" {text}\n"))
}

/// The tokens of the line of an experience.
pub(super) fn line_tokens(tokenizer: Tokenizer, number: Number, text: &str) -> u64 {
    head_tokens(tokenizer, number) + body_tokens(tokenizer, text)
}
