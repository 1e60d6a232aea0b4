//! What it means that one word stands where another did, or alone.

use super::lex::Kind;
use super::normal::Item;
use super::table::table;
use super::verdict::{Changed, Difference};

/// Prefixes that turn a word into its opposite.
const NEGATING: [&str; 13] =
    ["un", "in", "im", "il", "ir", "non", "dis", "mis", "anti", "counter", "de", "a", "mal"];

/// Marks whose coming or going turns a formula into another one.
const TURNING_MARKS: &str = "<>=≤≥≠+-~!%^*/&|'()[]";

/// A difference, where it is, and whether it contradicts.
pub(super) struct Finding {
    pub at: (usize, usize),
    pub changed: Changed,
    pub conflicts: bool,
}

pub(super) fn finding(
    at: (usize, usize),
    kind: Difference,
    left: Option<&Item<'_>>,
    right: Option<&Item<'_>>,
    conflicts: bool,
) -> Finding {
    let text = |item: Option<&Item<'_>>| item.map(|i| i.token.text.to_string()).unwrap_or_default();
    Finding { at, changed: Changed { kind, left: text(left), right: text(right) }, conflicts }
}

/// Which pairs of a gap are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// Words that the lists or a prefix oppose, and names that differ in a number or a mark.
    Opposites,
    /// Words of one kind: two numbers, two quantifiers.
    Kind,
    /// Whatever is left, in order.
    Rest,
}

/// What it means that one word stands where the other did, and whether it contradicts.
pub(super) fn replaced(left: &Item<'_>, right: &Item<'_>, round: Round) -> Option<(Difference, bool)> {
    let (l, r): (&str, &str) = (&left.token.text, &right.token.text);
    let kinds = (left.token.kind, right.token.kind);
    let marks = (left.entry.and_then(|e| e.marked), right.entry.and_then(|e| e.marked));
    match round {
        Round::Opposites => {
            if let (Some(l), Some(r)) = (left.entry, right.entry)
                && let Some(kind) = table().opposed(l, r)
            {
                return Some((kind, true));
            }
            if negated(l, r) || negated(r, l) {
                return Some((Difference::Negation, true));
            }
            let bare =
                |text: &str, keep: fn(char) -> bool| text.chars().filter(|c| keep(*c)).collect::<String>();
            let named = |text: &str| !bare(text, char::is_alphabetic).is_empty();
            if named(l) && named(r) {
                if bare(l, |c| !c.is_numeric()) == bare(r, |c| !c.is_numeric()) {
                    return Some((Difference::Number, true));
                }
                if bare(l, char::is_alphanumeric) == bare(r, char::is_alphanumeric) {
                    return Some((Difference::Symbol, true));
                }
            }
            None
        }
        Round::Kind => match kinds {
            (Kind::Number, Kind::Number) => Some((Difference::Number, true)),
            (Kind::Symbol, Kind::Symbol) => Some((Difference::Symbol, true)),
            _ => marks.0.filter(|_| marks.0 == marks.1).map(|kind| (kind, true)),
        },
        Round::Rest => Some(match (kinds, marks) {
            ((Kind::Number, _) | (_, Kind::Number), _) => (Difference::Number, true),
            ((Kind::Symbol, _) | (_, Kind::Symbol), _) => (Difference::Symbol, true),
            (_, (Some(kind), _) | (_, Some(kind))) => (kind, true),
            _ if left.is(|e| e.grammar) && right.is(|e| e.grammar) => (Difference::Grammar, false),
            _ if left.is(|e| e.grammar) != right.is(|e| e.grammar) => return None,
            _ => (Difference::Content, true),
        }),
    }
}

/// Whether the second word is the first with a prefix that denies it.
fn negated(word: &str, longer: &str) -> bool {
    let stem = |text: &str| NEGATING.iter().any(|prefix| longer.strip_prefix(prefix) == Some(text));
    word.len() >= 3 && longer.len() > word.len() && (stem(word) || stem(&format!("-{word}")))
}

/// What it means that a word stands on one side only, and whether it contradicts.
pub(super) fn alone(item: &Item<'_>) -> (Difference, bool) {
    match item.token.kind {
        Kind::Number => return (Difference::Number, true),
        Kind::Symbol => return (Difference::Symbol, TURNING_MARKS.contains(item.token.text.as_ref())),
        Kind::Word | Kind::Code => {}
    }
    let turning = item.is(|e| e.turning);
    match item.entry.and_then(|e| e.marked) {
        Some(kind) => (kind, turning),
        None if item.is(|e| e.grammar) => (Difference::Grammar, turning),
        None => (Difference::Added, turning),
    }
}
