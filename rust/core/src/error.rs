//! The one error enum of the crate: each message names the place and the remedy.

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are no experience library.
    #[error("this is no experience library: {0}; use a file that tfgrpo wrote, unedited")]
    Format(String),
    /// The file is from another version of the format.
    #[error(
        "the experience library has format_version {found}, this tfgrpo reads {expected}; use the tfgrpo that wrote it"
    )]
    FormatVersion {
        /// The version in the file.
        found: u64,
        /// The version this crate reads.
        expected: u64,
    },
    /// The content does not have the digest that the file states.
    #[error(
        "the experience library states digest {stated} but its content has digest {actual}: it was edited or \
         damaged; restore the file, or change libraries through operations only"
    )]
    Digest {
        /// The digest written in the file.
        stated: String,
        /// The digest of the content.
        actual: String,
    },
    /// The operations are not in the shape of `Operation`.
    #[error("these are no operations: {0}; send a JSON array of Operation objects")]
    Operations(String),
    /// A credit names an experience that is not in the library.
    #[error("credit for {0}, which is not in this library; give credit to living experiences only")]
    UnknownExperience(String),
    /// A credit is not a finite number.
    #[error("the credit of {id} is {credit}, not a finite number; leave an unmeasured experience out")]
    Credit {
        /// The experience.
        id: String,
        /// The refused number, as text.
        credit: String,
    },
    /// The vectors are not one row an experience.
    #[error(
        "{values} numbers are no vectors of {dimensions} dimensions for {rows} texts; give one row a text, of 1 to \
         4,096 dimensions"
    )]
    Vectors {
        /// How many numbers came.
        values: usize,
        /// How many texts there are.
        rows: usize,
        /// How many dimensions a vector was said to have.
        dimensions: usize,
    },
    /// The bytes are no texts.
    #[error("these are no texts: {0}; give UTF-8 and offsets that rise, one more than there are texts")]
    Texts(String),
    /// There is no such tokeniser.
    #[error("{0:?} is no tokenizer; use o200k or cl100k")]
    Tokenizer(String),
    /// The bytes are no word table.
    #[error("this is no word table: {0}; make it anew with scripts/distill_words.py")]
    Words(&'static str),
    /// The bytes are no index of this library.
    #[error(
        "its index, the .index file beside it, cannot be used: {0}; delete that file, nothing is lost by it"
    )]
    Index(String),
    /// The crate broke a rule of its own: a bug, whatever the input was.
    #[error("the core broke a rule of its own: {0}; please report this with what led to it")]
    Invariant(&'static str),
    /// A limit admits nothing.
    #[error("the limit {0} must be greater than 0; leave it out for no limit")]
    Limit(&'static str),
    /// The lease was released before, was never granted, or the waiter is gone.
    #[error("ticket {0} is {1}; release each granted ticket once and cancel only waiting ones")]
    Ticket(u64, &'static str),
}
