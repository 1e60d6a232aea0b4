//! Token counts. The reference counter is o200k, byte-pair encoding with the vocabulary in the binary.
//!
//! Every budget of this crate is stated in these tokens. Another model's tokeniser gives other numbers; one
//! counter for all of them keeps a library's prior the same whichever model reads it.

/// The number of o200k tokens in `text`. Special tokens count as the plain text they are.
pub fn count(text: &str) -> u64 {
    bpe_openai::o200k_base().count(text) as u64
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn agrees_with_the_published_vocabulary() {
        assert_eq!(count(""), 0);
        assert_eq!(count("hello world"), 2);
        assert_eq!(count("antidisestablishmentarianism"), 6);
    }
}
