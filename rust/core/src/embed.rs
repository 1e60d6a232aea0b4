//! The default embedding: the sum of the rows of a static word table, which lies in the binary and is read in place.
//!
//! The sum is exact integer arithmetic, so a text has the same vector on every machine and in any order of its words.

mod lanes;
mod table;

use std::sync::OnceLock;

pub use lanes::{DIMENSIONS, code, quantise};
use table::HEAD;
pub use table::Table;

use crate::invariant::promised;

/// The length of the longest vectors that a library takes from elsewhere.
pub const LARGEST_DIMENSIONS: usize = 4096;

const WORDS: &[u8] = include_bytes!("../assets/words.bin");

/// The table in the binary; `None` cannot happen with the table that the tests have read.
fn table() -> Option<&'static Table<'static>> {
    static TABLE: OnceLock<Option<Table<'static>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| Table::read(WORDS).ok()).as_ref();
    debug_assert!(table.is_some(), "the table in the binary can be read");
    table
}

/// Adds up the weighted rows of the words of `folded`, a text that `text::key` has folded.
///
/// A word is a run of letters or a run of digits; an ideograph is one by itself. A word without a row is put together
/// from pieces. The result has length 1, or is all zeros when nothing of the text is known.
pub fn embed(folded: &str) -> [f32; DIMENSIONS] {
    table().map_or([0.0; DIMENSIONS], |table| table.embed(folded))
}

/// What tells this word table from another: vectors of two tables cannot be compared.
pub(crate) fn fingerprint() -> u64 {
    let first = WORDS.get(HEAD..).and_then(|rest| rest.first_chunk());
    u64::from_le_bytes(promised(first.copied(), "the table in the binary has a checksum"))
}

/// Whether `word`, folded, is a whole word of the table.
pub fn knows(word: &str) -> bool {
    table().is_some_and(|table| table.knows(word))
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // the sums are exact
mod tests {
    use super::lanes::BATCH;
    use super::table::SHARES;
    use super::{Table, WORDS, code, embed, knows, quantise};

    #[test]
    fn the_table_in_the_binary_is_whole() {
        let Ok(table) = Table::parse(WORDS) else { unreachable!("the table must parse") };
        let (rows, whole) = table.rows();
        assert!(rows > 30_000 && whole > 25_000 && WORDS.len() <= 10_000_000, "{rows} {whole}");
    }

    #[test]
    fn a_batch_of_the_heaviest_rows_does_not_overflow() {
        assert!(i32::try_from(BATCH * 128 * 65_535).is_ok());
        for (pieces, share) in SHARES.iter().enumerate().skip(1) {
            let exact = 256.0 / (pieces as f64).sqrt();
            assert!((f64::from(*share) - exact).abs() < 1.0, "{pieces}");
        }
    }

    #[test]
    fn whole_words_are_known_and_pieces_are_not() {
        for word in ["the", "not", "function", "database", "a", "7"] {
            assert!(knows(word), "{word}");
        }
        for word in ["", "##ing", "ing ", "databsae", "qqqxzv", "The"] {
            assert!(!knows(word), "{word}");
        }
    }

    #[test]
    fn unknown_words_are_put_together_and_accents_do_not_matter() {
        assert!(embed("pseudoblorfification").iter().any(|x| *x != 0.0));
        assert_eq!(embed("cliché"), embed("cliche"));
        assert_eq!(embed("🙂 … !"), [0.0; 256]);
        assert_eq!(embed("python3"), embed("3 python"));
    }

    #[test]
    fn codes_are_of_the_first_256_signs() {
        assert_eq!(code(&[1, 0, -1, 5]), [0b1001, 0, 0, 0]);
        assert_eq!(code(&[1; 300]), [u64::MAX; 4]);
        assert_eq!(code(&[]), [0; 4]);
    }

    #[test]
    fn the_zero_vector_has_no_norm() {
        assert_eq!(quantise(&[0.0; 3]), (vec![0; 3], 0.0));
        assert_eq!(quantise(&[]), (vec![], 0.0));
        assert_eq!(quantise(&[f32::NAN, 1e-40]), (vec![0, 127], 1.0 / 127.0));
    }
}
