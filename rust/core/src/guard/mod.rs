//! The difference guard: may two lessons be merged without asking a model?
//!
//! No similarity tells a paraphrase from a contradiction, so the guard looks at the words that differ. It calls two
//! texts the same only if every difference is on a short list of harmless ones; all else is a conflict or more text.
//! What the rules are, and what they cannot see, is in `docs/reference/guard.md`.

mod align;
mod explain;
mod lex;
mod lists;
mod normal;
mod pair;
mod table;
mod verdict;

use crate::invariant::promised;
use align::{Skipped, aligned};
use lex::{Token, lex};
pub use verdict::{Changed, Comparison, Difference, Relation};

/// Compares two folded texts (see [`key`](crate::text::key)) word by word.
///
/// `knows` tells whether a word is in the vocabulary, so that a mistyping can be told from another word. The relation
/// is the same for `compare(b, a)`, whose differences have their sides swapped. The work is bounded: texts that
/// still differ in more than some 400 words each, once their common start and end are taken off, are `Related` with no
/// differences listed.
pub fn compare(a: &str, b: &str, knows: &dyn Fn(&str) -> bool) -> Comparison {
    if a == b {
        return Comparison { relation: Relation::Same, differences: Vec::new() };
    }
    // One order for both calls, for among equally good alignments the first found is taken.
    if a > b {
        let mut swapped = compare(b, a, knows);
        for changed in &mut swapped.differences {
            std::mem::swap(&mut changed.left, &mut changed.right);
        }
        return swapped;
    }
    let (of_a, of_b, skipped) = differing(a, b);
    let direct = aligned(&lex(of_a), &lex(of_b), skipped, knows);
    let first = |text: &'_ str| text.split(' ').next().unwrap_or_default().to_owned();
    if direct.comparison.relation == Relation::Same || first(a) == first(b) {
        return direct.comparison;
    }
    // The same two clauses may stand the other way round: "When X, do Y" and "Do Y when X".
    let (left, right) = (lex(a), lex(b));
    let none = Skipped::default();
    let of_first =
        rotated(&left, &right).map(|(moved, intact)| (aligned(&moved, &right, none, knows), intact));
    let of_second =
        rotated(&right, &left).map(|(moved, intact)| (aligned(&left, &moved, none, knows), intact));
    let best = [of_first, of_second].into_iter().flatten().min_by_key(|(found, _)| found.unmatched);
    match best {
        Some((found, intact)) if found.unmatched < direct.unmatched => {
            if found.comparison.relation == Relation::Same && !intact {
                // The same words, but not plainly the same clauses.
                return Comparison { relation: Relation::Related, ..direct.comparison };
            }
            found.comparison
        }
        _ => direct.comparison,
    }
}

/// How many words around the differing ones are kept: more than a phrase has, or a number.
const MARGIN: usize = 6;

/// The parts of two texts that differ, with some words around them, if that can be seen without reading it all.
///
/// A word's reading hangs on its neighbours only, save for brackets, stars and quotation marks, which pair up.
fn differing<'t>(a: &'t str, b: &'t str) -> (&'t str, &'t str, Skipped) {
    let pairs = |text: &str| {
        let lone = |at: usize| {
            let near = |at: Option<usize>| {
                at.and_then(|n| text.as_bytes().get(n)).is_some_and(u8::is_ascii_alphabetic)
            };
            !(near(at.checked_sub(1)) && near(Some(at + 1)))
        };
        text.bytes().enumerate().any(|(at, byte)| match byte {
            b'*' | b'(' | b')' | b'[' | b']' | b'{' | b'}' => true,
            b'\'' => lone(at),
            _ => !byte.is_ascii(),
        })
    };
    let whole = (a, b, Skipped::default());
    if pairs(a) || pairs(b) {
        return whole;
    }
    let start = a.bytes().zip(b.bytes()).take_while(|(l, r)| l == r).count();
    let most = a.len().min(b.len()) - start;
    let end = a.bytes().rev().zip(b.bytes().rev()).take(most).take_while(|(l, r)| l == r).count();
    let head = promised(a.get(..start), "the texts are ASCII");
    let tail = promised(a.get(a.len() - end..), "the texts are ASCII");
    let from = head.rmatch_indices(' ').nth(MARGIN).map_or(0, |(at, _)| at + 1);
    let kept = tail.match_indices(' ').nth(MARGIN).map_or(end, |(at, _)| at);
    let cut = end - kept;
    let spaces = |text: Option<&str>| text.map_or(0, |text| text.bytes().filter(|b| *b == b' ').count());
    let skipped =
        Skipped { words: spaces(a.get(..from)) + spaces(a.get(a.len() - cut..)), at_start: from > 0 };
    match (a.get(from..a.len() - cut), b.get(from..b.len() - cut)) {
        (Some(a), Some(b)) => (a, b, skipped),
        _ => whole,
    }
}

/// Words that open a clause which may stand before or after the main one.
const OPENERS: [&str; 14] = [
    "when", "whenever", "if", "while", "once", "after", "before", "unless", "until", "because", "since",
    "for", "in", "to",
];

/// Words that show a clause within a clause: then it is not plain what a clause moved to the end belongs to.
const NESTING: [&str; 25] = [
    "when", "whenever", "if", "while", "once", "after", "before", "unless", "until", "because", "since",
    "that", "which", "who", "whose", "where", "but", "only", "tell", "ask", "say", "instruct", "warn",
    "remind", "advise",
];

/// The tokens of "When X, Y" as "Y when X", if the other text may be put so; and whether the clauses are two intact
/// blocks, so that nothing but their order can have changed.
fn rotated<'a>(tokens: &[Token<'a>], other: &[Token<'a>]) -> Option<(Vec<Token<'a>>, bool)> {
    let opener = tokens.first().filter(|first| OPENERS.contains(&first.text.as_ref()))?;
    if other.first().is_some_and(|first| first.text == opener.text) {
        return None;
    }
    let boundary = tokens.iter().position(|token| token.comma)?;
    let (clause, main) = tokens.split_at_checked(boundary)?;
    // In the other text the clause begins where its opener stands for the last time, or there is none.
    let place = other.iter().rposition(|token| token.text == opener.text)?;
    let nested = |part: &[Token<'_>]| part.iter().any(|token| NESTING.contains(&token.text.as_ref()));
    let intact = !nested(main)
        && !nested(clause.get(1..).unwrap_or_default())
        && !main.iter().skip(1).any(|token| token.comma)
        && !other.iter().enumerate().any(|(at, token)| token.comma && at != place);
    let mut moved: Vec<Token<'a>> = main.iter().chain(clause).cloned().collect();
    for token in &mut moved {
        token.comma = false;
    }
    if let Some(first) = moved.first_mut() {
        first.comma = true; // a main clause begins here, as it did after its comma
    }
    Some((moved, intact))
}
