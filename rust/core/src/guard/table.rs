//! The word lists as one table, built once: what a word or phrase is, and how two of them stand to one another.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

use super::lists::lists;
use super::verdict::Difference;

/// The most words of one phrase.
pub(super) const PHRASE: usize = 4;

/// Which inflection of its base a listed word is. "Sending" and "sent" are not one another's variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Form {
    #[default]
    Base,
    Ing,
    Past,
}

/// What the lists say of one word or phrase.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // each is one list
pub(super) struct Entry {
    /// The number of its synonym set.
    synonyms: Option<usize>,
    form: Form,
    /// Its axes, and its side on each.
    axes: Vec<(usize, usize)>,
    pub(super) marked: Option<Difference>,
    pub(super) turning: bool,
    pub(super) grammar: bool,
    pub(super) filler: bool,
    pub(super) names: bool,
    pub(super) measures: bool,
    /// The second words of the phrases that begin with this word.
    pub(super) opens: Vec<String>,
    /// The value of a number word.
    pub(super) number: Option<u64>,
    /// The verb of a contraction with "not" that lacks its apostrophe.
    pub(super) contracted: Option<&'static str>,
}

/// All entries. Only looked up, never iterated: its order is never seen.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<String, Entry, BuildHasherDefault<Fnv>>,
    axes: Vec<Difference>,
}

/// FNV-1a: short keys, fixed lists, no attacker; and the same in every run.
#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The table, built at the first call.
pub(super) fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(Table::build)
}

impl Table {
    pub(super) fn get(&self, word: &str) -> Option<&Entry> {
        self.entries.get(word)
    }

    /// The kind of the contradiction between two listed words, if they are opposites.
    pub(super) fn opposed(&self, left: &Entry, right: &Entry) -> Option<Difference> {
        for (axis, side) in &left.axes {
            if right.axes.iter().any(|(other, pole)| other == axis && pole != side) {
                return self.axes.get(*axis).copied();
            }
        }
        None
    }

    fn build() -> Self {
        let lists = lists();
        let mut table = Self::default();
        let mut bases: Vec<(String, Form, Fact)> = Vec::new();
        for (set, line) in lists.synonyms.iter().enumerate() {
            for word in line.split_whitespace() {
                let form = if word.ends_with('~') { Form::Past } else { Form::Base };
                bases.push((phrase(word.trim_end_matches('~')), form, Fact::Synonym(set)));
            }
        }
        for (kind, lines) in &lists.opposites {
            for line in lines {
                let axis = table.axes.len();
                table.axes.push(*kind);
                for (side, words) in line.split('|').enumerate() {
                    bases.extend(
                        words.split_whitespace().map(|w| (phrase(w), Form::Base, Fact::Pole(axis, side))),
                    );
                }
            }
        }
        for (kind, words) in &lists.marked {
            bases.extend(words.iter().map(|w| (phrase(w), Form::Base, Fact::Marked(*kind))));
        }
        bases.extend(lists.turning.iter().map(|w| (phrase(w), Form::Base, Fact::Turning)));
        for (word, form, fact) in &bases {
            table.state(word, *form, *fact);
        }
        // A made form never overrides what a list says of that very word.
        let mut made: Vec<(String, Form, Fact)> = Vec::new();
        for (base, form, fact) in bases.iter().filter(|(_, form, _)| *form == Form::Base) {
            for spelled in [Some(base.clone()), british(base)].into_iter().flatten() {
                let forms = inflections(&spelled).into_iter().chain([(spelled, *form)]);
                made.extend(forms.map(|(word, form)| (word, form, *fact)));
            }
        }
        made.retain(|(word, _, _)| table.get(word).is_none());
        for (word, form, fact) in &made {
            table.state(word, *form, *fact);
        }
        for word in &lists.grammar {
            table.entry(&phrase(word)).grammar = true;
        }
        for word in &lists.fillers {
            table.entry(&phrase(word)).filler = true;
        }
        for (word, value) in &lists.numbers {
            table.entry(word).number = Some(*value);
        }
        for (word, verb) in &lists.bare_contractions {
            table.entry(word).contracted = Some(verb);
        }
        for word in &lists.named_before {
            table.entry(word).names = true;
        }
        for word in &lists.measured_after {
            table.entry(word).measures = true;
        }
        table
    }

    fn entry(&mut self, word: &str) -> &mut Entry {
        if let Some((first, rest)) = word.split_once(' ') {
            let second = rest.split(' ').next().unwrap_or_default();
            let opens = &mut self.entries.entry(first.to_owned()).or_default().opens;
            if !opens.iter().any(|known| known == second) {
                opens.push(second.to_owned());
            }
        }
        self.entries.entry(word.to_owned()).or_default()
    }

    fn state(&mut self, word: &str, form: Form, fact: Fact) {
        let entry = self.entry(word);
        match fact {
            // A form that two sets would make is in neither.
            Fact::Synonym(set) if entry.synonyms.is_some_and(|other| other != set) => entry.synonyms = None,
            Fact::Synonym(set) => {
                entry.synonyms = Some(set);
                entry.form = form;
            }
            Fact::Pole(axis, side) if !entry.axes.contains(&(axis, side)) => entry.axes.push((axis, side)),
            Fact::Pole(..) => {}
            Fact::Marked(kind) => entry.marked = entry.marked.or(Some(kind)),
            Fact::Turning => entry.turning = true,
        }
    }
}

impl Entry {
    /// Whether two listed words are of one synonym set, in forms that may stand for one another.
    pub(super) fn means(&self, other: &Self) -> bool {
        let crossed = matches!((self.form, other.form), (Form::Ing, Form::Past) | (Form::Past, Form::Ing));
        self.synonyms.is_some() && self.synonyms == other.synonyms && !crossed
    }

    /// Whether a list gives the word a meaning (and not only a place in a phrase).
    pub(super) fn listed(&self) -> bool {
        self.synonyms.is_some() || !self.axes.is_empty() || self.marked.is_some() || self.grammar
    }
}

#[derive(Debug, Clone, Copy)]
enum Fact {
    Synonym(usize),
    Pole(usize, usize),
    Marked(Difference),
    Turning,
}

/// A list's word as the tokens spell it: spaces in phrases, digits for number words within them.
pub(super) fn phrase(word: &str) -> String {
    let spaced = word.replace(['_', '-'], " ");
    if !spaced.contains(' ') {
        return spaced;
    }
    let digits = |part: &str| {
        lists().numbers.iter().find(|(name, _)| *name == part).map(|(_, value)| value.to_string())
    };
    let parts: Vec<String> = spaced.split(' ').map(|p| digits(p).unwrap_or_else(|| p.to_owned())).collect();
    parts.join(" ")
}

fn british(word: &str) -> Option<String> {
    let stem = word.strip_suffix("ize").or_else(|| word.strip_suffix("yze").filter(|s| s.len() > 2))?;
    (word.len() > 5).then(|| format!("{stem}{}se", if word.ends_with("ize") { "i" } else { "y" }))
}

/// The regular inflections of a word, as if it were a verb and a noun. A wrong one is no word and does no harm.
fn inflections(word: &str) -> Vec<(String, Form)> {
    if word.len() < 3 || !word.bytes().all(|b| b.is_ascii_lowercase()) {
        return Vec::new();
    }
    let letters: Vec<char> = word.chars().rev().take(3).collect();
    let [last, second, third] = letters.as_slice() else { return Vec::new() };
    let vowel = |c: &char| "aeiou".contains(*c);
    let mut made = Vec::new();
    let hisses = ["s", "x", "z", "ch", "sh"].iter().any(|end| word.ends_with(end));
    if *last == 'y' && !vowel(second) {
        let stem = word.trim_end_matches('y');
        made.push((format!("{stem}ies"), Form::Base));
        made.push((format!("{stem}ied"), Form::Past));
        made.push((format!("{word}ing"), Form::Ing));
    } else if *last == 'e' {
        made.push((format!("{word}s"), Form::Base));
        made.push((format!("{word}d"), Form::Past));
        let stem = word.strip_suffix('e').filter(|_| *second != 'e').unwrap_or(word);
        made.push((format!("{stem}ing"), Form::Ing));
    } else {
        made.push((format!("{word}{}", if hisses { "es" } else { "s" }), Form::Base));
        made.push((format!("{word}ed"), Form::Past));
        made.push((format!("{word}ing"), Form::Ing));
        if !vowel(last) && vowel(second) && !vowel(third) && !"wxy".contains(*last) {
            made.push((format!("{word}{last}ed"), Form::Past));
            made.push((format!("{word}{last}ing"), Form::Ing));
        }
    }
    made
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::super::{Relation, compare};
    use super::{lists, phrase, table};

    #[test]
    fn the_lists_are_sorted() {
        let lists = lists();
        assert!(lists.synonyms.is_sorted());
        assert!(lists.opposites.iter().all(|(_, lines)| lines.is_sorted()));
        assert!(lists.our_stems.is_sorted() && lists.prefixes.is_sorted());
        assert!(lists.not_inflected.is_sorted() && lists.bare_contractions.is_sorted());
        assert!(lists.numbers.is_sorted());
    }

    #[test]
    fn no_word_is_in_two_synonym_sets() {
        let mut seen = BTreeMap::new();
        for line in &lists().synonyms {
            for word in line.split_whitespace() {
                let before = seen.insert(phrase(word.trim_end_matches('~')), line);
                assert_eq!(before, None, "{word}");
            }
        }
    }

    #[test]
    fn no_word_opposes_itself_or_its_synonym() {
        let word = |w: &str| phrase(w.trim_end_matches('~'));
        for (_, lines) in &lists().opposites {
            for line in lines {
                let mut poles = BTreeMap::new();
                for (side, words) in line.split('|').enumerate() {
                    for w in words.split_whitespace() {
                        assert_eq!(poles.insert(word(w), side), None, "{w} stands twice in {line}");
                    }
                }
                assert!(poles.values().any(|side| *side > 0), "{line}");
            }
        }
        for line in &lists().synonyms {
            let words: Vec<String> = line.split_whitespace().map(word).collect();
            for left in &words {
                for right in &words {
                    let (l, r) = (table().get(left).unwrap(), table().get(right).unwrap());
                    assert_eq!(table().opposed(l, r), None, "{left}, {right}");
                }
            }
        }
    }

    #[test]
    fn every_listed_opposite_is_a_conflict() {
        let place = |word: &str| format!("whenever the plan names {word} somebody marks each line on paper");
        for (kind, lines) in &lists().opposites {
            for line in lines {
                let sides: Vec<Vec<String>> =
                    line.split('|').map(|side| side.split_whitespace().map(phrase).collect()).collect();
                for (at, side) in sides.iter().enumerate() {
                    for (left, right) in
                        side.iter().flat_map(|l| sides.iter().skip(at + 1).flatten().map(move |r| (l, r)))
                    {
                        let found = compare(&place(left), &place(right), &|_| true);
                        assert_eq!(
                            found.relation,
                            Relation::Conflict,
                            "{left}, {right} ({kind:?}): {found:?}"
                        );
                    }
                }
            }
        }
    }
}
