//! What the guard says of two texts.

use serde::Serialize;

/// What kind of difference two words make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    /// A number, or a number within a name, is another one or stands on one side only.
    Number,
    /// A negation on one side only, or a word and its negation ("solved", "unsolved").
    Negation,
    /// A word and its opposite.
    Antonym,
    /// Order, extremum, direction, comparison: first and last, at least and at most.
    Order,
    /// All, some, only, always, exactly.
    Quantifier,
    /// Must, should, may.
    Modality,
    /// And, or, if, unless, because.
    Connective,
    /// An operator, bracket or other mark that means something: `<` and `>`, C and C++.
    Symbol,
    /// A word of content replaced by one that is no synonym.
    Content,
    /// A word of grammar (a preposition, an auxiliary) changed, or on one side only.
    Grammar,
    /// The same words in another order.
    Transposed,
    /// Words of content on one side only.
    Added,
}

/// How two texts stand to one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// Every differing word is harmless: the texts may be merged.
    Same,
    /// Some differing word contradicts.
    Conflict,
    /// One says more or something else, or the texts are too different (or too long) to be aligned.
    Related,
}

/// A difference that is not harmless. A side that lacks the word is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its kind.
    pub kind: Difference,
    /// The word in the first text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub left: String,
    /// The word in the second text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub right: String,
}

/// The guard's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// How the texts stand to one another.
    pub relation: Relation,
    /// The words that differ, in the order of the text, harmless ones left out.
    pub differences: Vec<Changed>,
}
