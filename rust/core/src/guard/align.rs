//! Lines two texts up word by word and says what each word that finds no partner means.

use super::explain::{Finding, Round, alone, finding, replaced};
use super::lex::{Kind, Token};
use super::lists::lists;
use super::normal::{Item, normalised};
use super::pair::{inflected, mistyped, spelled, spelled_two_ways};
use super::table::{PHRASE, table};
use super::verdict::{Changed, Comparison, Difference, Relation};
use crate::invariant::promised;

/// The most cells of the table in which the texts are lined up: 400 words against 400.
const CELLS: usize = 160_000;

/// A comparison, and how many words found no partner in it.
pub(super) struct Alignment {
    pub(super) comparison: Comparison,
    pub(super) unmatched: usize,
}

/// How much of two texts is left out because it is equal.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Skipped {
    /// How many words of each.
    pub(super) words: usize,
    /// Some of them begin the texts.
    pub(super) at_start: bool,
}

/// A stretch of words without partners, between words with one.
struct Gap {
    left: Vec<usize>,
    right: Vec<usize>,
}

/// Two texts, normalised where they differ.
struct Pair<'a, 'k> {
    left: Vec<Item<'a>>,
    right: Vec<Item<'a>>,
    /// The items begin where the texts begin.
    from_start: bool,
    knows: &'k dyn Fn(&str) -> bool,
}

fn alike(a: &Token<'_>, b: &Token<'_>) -> bool {
    a.kind == b.kind && a.text == b.text
}

/// How many equal items two slices begin and, besides, end with.
fn common<T>(a: &[T], b: &[T], same: impl Fn(&T, &T) -> bool) -> (usize, usize) {
    let start = a.iter().zip(b).take_while(|(l, r)| same(l, r)).count();
    let most = a.len().min(b.len()) - start;
    let end = a.iter().rev().zip(b.iter().rev()).take(most).take_while(|(l, r)| same(l, r)).count();
    (start, end)
}

/// Compares two texts by their tokens.
///
/// `skipped` tokens of both are left out: they begin the texts, or end them, alike.
pub(super) fn aligned(
    a: &[Token<'_>],
    b: &[Token<'_>],
    skipped: Skipped,
    knows: &dyn Fn(&str) -> bool,
) -> Alignment {
    // Only the middles are normalised, with enough of their surroundings to see every phrase that reaches in.
    let (start, end) = common(a, b, alike);
    let from = start.saturating_sub(PHRASE);
    let middle = |tokens: &[Token<'_>]| from..(tokens.len() - end + PHRASE).min(tokens.len());
    let (whole_a, whole_b) = (a, b);
    let total = a.len() + b.len() + 2 * skipped.words;
    let (a, b) = (
        promised(a.get(middle(a)), "a middle lies within its text"),
        promised(b.get(middle(b)), "a middle lies within its text"),
    );
    if a.len().saturating_mul(b.len()) > CELLS {
        let comparison = Comparison { relation: Relation::Related, differences: Vec::new() };
        return Alignment { comparison, unmatched: usize::MAX };
    }
    let pair =
        Pair { left: normalised(a), right: normalised(b), from_start: from == 0 && !skipped.at_start, knows };
    let mut found = pair.compare(total);
    if found.comparison.relation == Relation::Same && halts(whole_a) != halts(whole_b) {
        let pause = |tokens| if halts(tokens).contains(&true) { ",".to_owned() } else { String::new() };
        let changed = Changed { kind: Difference::Negation, left: pause(whole_a), right: pause(whole_b) };
        found.comparison = Comparison { relation: Relation::Related, differences: vec![changed] };
        found.unmatched = 1;
    }
    found
}

/// For each word that turns the sense, whether a pause stands after it: "no, use it" is not "no use", nor "do not, stop" "do not stop".
fn halts(tokens: &[Token<'_>]) -> Vec<bool> {
    let turns = |token: &Token<'_>| {
        token.text.ends_with("n't")
            || table().get(&token.text).is_some_and(|entry| entry.turning || entry.contracted.is_some())
    };
    let nexts = tokens.iter().skip(1).map(Some).chain([None]);
    let turning = tokens.iter().zip(nexts).filter(|(word, _)| turns(word));
    turning.map(|(_, next)| next.is_some_and(|next| next.comma)).collect()
}

impl Pair<'_, '_> {
    fn compare(&self, total: usize) -> Alignment {
        let mut gaps = self.gaps();
        gaps.retain(|gap| !self.joined(gap));
        for gap in &mut gaps {
            let opposed = self.opposites(gap);
            gap.left.retain(|at| opposed || !droppable(&self.left, *at, self.from_start));
            gap.right.retain(|at| opposed || !droppable(&self.right, *at, self.from_start));
        }
        let unmatched: usize = gaps.iter().map(|gap| gap.left.len() + gap.right.len()).sum();
        let different = if total <= 16 { unmatched * 2 > total } else { unmatched * 5 > total * 2 };
        let mut findings = Vec::new();
        if !different {
            self.transposed(&mut gaps, &mut findings);
        }
        for gap in &gaps {
            self.explain(gap, &mut findings);
        }
        findings.sort_by_key(|finding| finding.at);
        let relation = if findings.is_empty() {
            Relation::Same
        } else if !different && findings.iter().any(|finding| finding.conflicts) {
            Relation::Conflict
        } else {
            Relation::Related
        };
        let differences = findings.into_iter().map(|finding| finding.changed).collect();
        Alignment { comparison: Comparison { relation, differences }, unmatched }
    }

    /// The stretches left over by a longest common subsequence, in which harmless variants count as common.
    fn gaps(&self) -> Vec<Gap> {
        let (start, end) = common(&self.left, &self.right, Item::same);
        let (lefts, rights) = (self.left.len() - end, self.right.len() - end);
        let rows = promised(self.left.get(start..lefts), "a middle lies within its text");
        let columns = promised(self.right.get(start..rights), "a middle lies within its text");
        // For each cell: 0 a common pair, 1 the left word alone, 2 the right word alone.
        let mut moves: Vec<u8> = Vec::with_capacity(rows.len() * columns.len());
        let mut last = vec![0_u32; columns.len() + 1];
        for (i, left) in rows.iter().enumerate() {
            let mut row = Vec::with_capacity(columns.len() + 1);
            row.push(0);
            let mut west = 0;
            for ((j, right), above) in columns.iter().enumerate().zip(last.windows(2)) {
                let &[diagonal, north] = above else { continue };
                let first = self.from_start && start + i == 0 && start + j == 0;
                let (best, step) = if self.variants(left, right, first) {
                    (diagonal + 1, 0)
                } else if north >= west {
                    (north, 1)
                } else {
                    (west, 2)
                };
                moves.push(step);
                row.push(best);
                west = best;
            }
            last = row;
        }
        let (mut i, mut j) = (rows.len(), columns.len());
        let mut gaps = Vec::new();
        let mut gap = Gap { left: Vec::new(), right: Vec::new() };
        while i > 0 || j > 0 {
            let step = match (i, j) {
                (0, _) => 2,
                (_, 0) => 1,
                _ => {
                    let step = moves.get((i - 1) * columns.len() + j - 1).copied();
                    debug_assert!(step.is_some(), "each cell has a move");
                    step.unwrap_or(1) // any move ends
                }
            };
            i -= usize::from(step != 2);
            j -= usize::from(step != 1);
            match step {
                1 => gap.left.push(start + i),
                2 => gap.right.push(start + j),
                _ => close(&mut gap, &mut gaps),
            }
        }
        close(&mut gap, &mut gaps);
        gaps.reverse();
        gaps
    }

    /// Whether one word may stand for the other.
    fn variants(&self, left: &Item<'_>, right: &Item<'_>, first: bool) -> bool {
        if left.same(right) {
            return true;
        }
        if let (Some(l), Some(r)) = (left.entry, right.entry) {
            if l.means(r) {
                return true;
            }
            let opens = |item: &Item<'_>| matches!(item.token.text.as_ref(), "when" | "whenever" | "if");
            if first && opens(left) && opens(right) {
                return true;
            }
            if table().opposed(l, r).is_some() {
                return false;
            }
        }
        let (l, r): (&str, &str) = (&left.token.text, &right.token.text);
        if left.token.kind != Kind::Word
            || right.token.kind != Kind::Word
            || l.as_bytes().first() != r.as_bytes().first()
            || l.contains(' ')
            || r.contains(' ')
        {
            return false;
        }
        if inflected(l, r) {
            return true;
        }
        if left.is(|e| e.marked.is_some()) && right.is(|e| e.marked.is_some()) {
            return false;
        }
        let start = l.bytes().zip(r.bytes()).take_while(|(a, b)| a == b).count();
        if start >= 3 && l.len().abs_diff(r.len()) <= 4 && (spelled_two_ways(l) || spelled_two_ways(r)) {
            let (l, r) = (spelled(l), spelled(r));
            if l == r || inflected(&l, &r) {
                return true;
            }
        }
        let knows = |word: &str| {
            [left, right].iter().any(|item| item.token.text == word && item.is(|e| e.listed() || e.filler))
                || (self.knows)(word)
        };
        mistyped(l, r, &knows)
    }

    /// Whether a gap holds two opposites: then neither is a filler ("also", "only").
    fn opposites(&self, gap: &Gap) -> bool {
        let entry = |items: &[Item<'_>], at: &usize| items.get(*at).and_then(|item| item.entry);
        gap.left.iter().filter_map(|at| entry(&self.left, at)).any(|left| {
            let mut rights = gap.right.iter().filter_map(|at| entry(&self.right, at));
            rights.any(|right| table().opposed(left, right).is_some())
        })
    }

    /// Whether a gap holds one compound, written joined on one side: "data set" and "dataset".
    fn joined(&self, gap: &Gap) -> bool {
        let texts = |items: &[Item<'_>], places: &[usize]| -> Vec<(String, bool, Kind)> {
            let items = places.iter().filter_map(|at| items.get(*at));
            items.map(|i| (i.token.text.replace(' ', ""), i.token.joined, i.token.kind)).collect()
        };
        let (left, right) = (texts(&self.left, &gap.left), texts(&self.right, &gap.right));
        let (whole, parts) = match (left.as_slice(), right.as_slice()) {
            ([whole], parts) | (parts, [whole]) if (1..=3).contains(&parts.len()) => (whole, parts),
            _ => return false,
        };
        let spaced = parts.iter().skip(1).any(|(_, joined, _)| !joined);
        let apart = |word: &str| word.chars().nth(1).is_none() || lists().not_joined.contains(&word);
        !matches!(whole.2, Kind::Number | Kind::Symbol)
            && parts.iter().all(|(_, _, kind)| *kind != Kind::Symbol)
            && parts.iter().map(|(text, _, _)| text.as_str()).collect::<String>() == whole.0
            && !(spaced && parts.first().is_some_and(|(first, _, _)| apart(first)))
    }

    /// Takes words that both sides have, in other places, out of the gaps.
    fn transposed(&self, gaps: &mut [Gap], findings: &mut Vec<Finding>) {
        let mut moved: Vec<(usize, usize)> = Vec::new();
        for at in gaps.iter().flat_map(|gap| &gap.left) {
            let Some(left) = self.left.get(*at) else { continue };
            let partner = gaps.iter().flat_map(|gap| &gap.right).find(|to| {
                !moved.iter().any(|(_, taken)| taken == *to)
                    && self.right.get(**to).is_some_and(|right| self.variants(left, right, false))
            });
            if let Some(to) = partner {
                moved.push((*at, *to));
            }
        }
        for gap in gaps {
            gap.left.retain(|at| !moved.iter().any(|(from, _)| from == at));
            gap.right.retain(|at| !moved.iter().any(|(_, to)| to == at));
        }
        for (from, to) in moved {
            if let (Some(left), Some(right)) = (self.left.get(from), self.right.get(to)) {
                let weak = left.is(|e| e.grammar);
                findings.push(finding((from, to), Difference::Transposed, Some(left), Some(right), !weak));
            }
        }
    }

    /// Pairs the words of a gap, the telling pairs first, and says what each is.
    fn explain(&self, gap: &Gap, findings: &mut Vec<Finding>) {
        let content = |items: &[Item<'_>], places: &[usize]| {
            places.iter().filter_map(|at| items.get(*at)).filter(|item| !item.is(|e| e.grammar)).count()
        };
        // A whole clause on one side only says more; what is denied or counted in it denies nothing outside.
        let clause = (gap.left.is_empty() && content(&self.right, &gap.right) >= 4)
            || (gap.right.is_empty() && content(&self.left, &gap.left) >= 4);
        let (mut lefts, mut rights) = (gap.left.clone(), gap.right.clone());
        for round in [Round::Opposites, Round::Kind, Round::Rest] {
            lefts.retain(|at| {
                let Some(left) = self.left.get(*at) else { return false };
                let partner = rights.iter().enumerate().find_map(|(place, to)| {
                    let right = self.right.get(*to)?;
                    replaced(left, right, round).map(|(kind, conflicts)| (place, *to, right, kind, conflicts))
                });
                let Some((place, to, right, kind, conflicts)) = partner else { return true };
                rights.remove(place);
                findings.push(finding((*at, to), kind, Some(left), Some(right), conflicts));
                false
            });
        }
        // Of an emptied gap both ends are 0, and nothing is left to stand there.
        let (left_end, right_end) = (
            gap.left.last().or(gap.right.first()).copied().unwrap_or_default(),
            gap.right.last().or(gap.left.first()).copied().unwrap_or_default(),
        );
        for at in lefts {
            if let Some(item) = self.left.get(at) {
                let (kind, conflicts) = alone(item);
                findings.push(finding((at, right_end), kind, Some(item), None, conflicts && !clause));
            }
        }
        for at in rights {
            if let Some(item) = self.right.get(at) {
                let (kind, conflicts) = alone(item);
                findings.push(finding((left_end, at), kind, None, Some(item), conflicts && !clause));
            }
        }
    }
}

fn close(gap: &mut Gap, gaps: &mut Vec<Gap>) {
    if !gap.left.is_empty() || !gap.right.is_empty() {
        gap.left.reverse();
        gap.right.reverse();
        gaps.push(std::mem::replace(gap, Gap { left: Vec::new(), right: Vec::new() }));
    }
}

/// Whether a word adds nothing where it stands.
fn droppable(items: &[Item<'_>], at: usize, from_start: bool) -> bool {
    let Some(item) = items.get(at).filter(|item| item.is(|e| e.filler)) else { return false };
    let back = |n: usize| at.checked_sub(n).and_then(|place| items.get(place));
    let before = back(1);
    let next = items.get(at + 1);
    let denied = [back(1), back(2)].into_iter().flatten().any(|i| i.is(|e| e.turning));
    let word = |i: &Item<'_>| i.token.kind == Kind::Word && i.token.text.chars().nth(1).is_some();
    match item.token.text.as_ref() {
        "a" | "an" => {
            next.is_some_and(|n| word(n) && !n.is(|e| e.measures) && !n.token.joined)
                && !before.is_some_and(|b| b.is(|e| e.names) || b.token.kind != Kind::Word || !word(b))
        }
        // "The only file" is not "only file", nor "the most" "most".
        "the" => next.is_some_and(|n| {
            n.token.kind != Kind::Symbol
                && n.entry.and_then(|e| e.marked) != Some(Difference::Quantifier)
                && !matches!(n.token.text.as_ref(), "least" | "more" | "less" | "fewer" | "better" | "worse")
        }),
        "that" => before.is_some_and(|b| {
            lists().before_that.iter().any(|start| b.token.text.starts_with(start)) && next.is_some()
        }),
        "then" => item.token.comma || (at == 0 && from_start),
        "you" => before.is_some_and(|b| lists().before_you.contains(&b.token.text.as_ref())),
        "you are" => before.is_some_and(|b| lists().before_you.contains(&b.token.text.as_ref())),
        "are" => {
            before.is_some_and(|b| b.token.text == "you")
                && back(2).is_some_and(|b| lists().before_you.contains(&b.token.text.as_ref()))
        }
        _ => !denied && next.is_some(),
    }
}
