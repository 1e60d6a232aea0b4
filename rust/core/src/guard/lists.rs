//! The guard's word lists, read once from the files in `data/guard`, which say what they hold and how they are written.

use std::sync::OnceLock;

use super::verdict::Difference;
use crate::invariant::promised;

const SYNONYMS: &str = include_str!("../../data/guard/synonyms.txt");
const OPPOSITES: &str = include_str!("../../data/guard/opposites.txt");
const MARKED: &str = include_str!("../../data/guard/marked.txt");
const GRAMMAR: &str = include_str!("../../data/guard/grammar.txt");
const SPELLING: &str = include_str!("../../data/guard/spelling.txt");

/// A word as a list writes it.
type Word = &'static str;

/// All lists. A field is the section of its name.
#[derive(Debug)]
pub(super) struct Lists {
    /// One set a line.
    pub synonyms: Vec<&'static str>,
    /// One axis a line, its sides parted by bars.
    pub opposites: Vec<(Difference, Vec<&'static str>)>,
    pub marked: Vec<(Difference, Vec<Word>)>,
    pub turning: Vec<Word>,
    pub grammar: Vec<Word>,
    pub fillers: Vec<Word>,
    pub before_that: Vec<String>,
    pub before_you: Vec<Word>,
    pub named_before: Vec<Word>,
    pub measured_after: Vec<Word>,
    pub not_joined: Vec<Word>,
    pub not_inflected: Vec<(Word, Word)>,
    pub our_stems: Vec<Word>,
    pub prefixes: Vec<Word>,
    pub bare_contractions: Vec<(Word, Word)>,
    pub numbers: Vec<(Word, u64)>,
    pub ordinals: Vec<Word>,
}

/// The lists, read at the first call.
pub(super) fn lists() -> &'static Lists {
    static LISTS: OnceLock<Lists> = OnceLock::new();
    LISTS.get_or_init(Lists::read)
}

impl Lists {
    fn read() -> Self {
        let [marked, grammar, spelling] = [MARKED, GRAMMAR, SPELLING].map(sections);
        let kinds = |sections: &[Section]| -> Vec<(Difference, Vec<&'static str>)> {
            let kinds = sections.iter().filter_map(|(name, lines)| Some((kind(name)?, lines.clone())));
            kinds.collect()
        };
        let words_of = |(kind, lines): (Difference, Vec<&'static str>)| (kind, split(&lines));
        Self {
            synonyms: section(&sections(SYNONYMS), ""),
            opposites: kinds(&sections(OPPOSITES)),
            turning: words(&marked, "turning"),
            marked: kinds(&marked).into_iter().map(words_of).collect(),
            grammar: words(&grammar, "grammar"),
            fillers: words(&grammar, "fillers"),
            before_that: words(&grammar, "before that").iter().map(|word| word.replace('_', " ")).collect(),
            before_you: words(&grammar, "before you"),
            named_before: words(&grammar, "named before"),
            measured_after: words(&grammar, "measured after"),
            not_joined: words(&spelling, "not joined"),
            not_inflected: pairs(&spelling, "not inflected"),
            our_stems: words(&spelling, "our stems"),
            prefixes: words(&spelling, "prefixes"),
            bare_contractions: pairs(&spelling, "bare contractions"),
            numbers: pairs(&spelling, "numbers")
                .into_iter()
                .map(|(word, value)| (word, promised(value.parse().ok(), "a number word has a value")))
                .collect(),
            ordinals: words(&spelling, "ordinals"),
        }
    }
}

/// A heading and the lines below it; what stands before the first heading has none.
type Section = (&'static str, Vec<&'static str>);

fn sections(text: &'static str) -> Vec<Section> {
    let mut sections: Vec<Section> = vec![("", Vec::new())];
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push((name, Vec::new()));
        } else if let Some((_, lines)) = sections.last_mut() {
            lines.push(line);
        }
    }
    sections
}

/// The lines of a section.
fn section(sections: &[Section], name: &str) -> Vec<&'static str> {
    let found = sections.iter().find(|(known, _)| *known == name);
    promised(found.map(|(_, lines)| lines.clone()), "each list has its section")
}

fn words(sections: &[Section], name: &str) -> Vec<Word> {
    split(&section(sections, name))
}

fn split(lines: &[&'static str]) -> Vec<Word> {
    lines.iter().flat_map(|line| line.split_whitespace()).collect()
}

fn pairs(sections: &[Section], name: &str) -> Vec<(Word, Word)> {
    let pair = |line: &&'static str| promised(line.split_once(' '), "a pair is two words");
    section(sections, name).iter().map(pair).collect()
}

/// The kind of difference that a heading names.
fn kind(name: &str) -> Option<Difference> {
    Some(match name {
        "negation" => Difference::Negation,
        "order" => Difference::Order,
        "quantifier" => Difference::Quantifier,
        "modality" => Difference::Modality,
        "connective" => Difference::Connective,
        "antonym" => Difference::Antonym,
        "number" => Difference::Number,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{GRAMMAR, MARKED, OPPOSITES, SPELLING, SYNONYMS, kind, lists, sections};

    #[test]
    fn every_file_says_what_it_is_and_every_section_is_read() {
        let known = [
            "",
            "turning",
            "grammar",
            "fillers",
            "before that",
            "before you",
            "named before",
            "measured after",
            "not joined",
            "not inflected",
            "our stems",
            "prefixes",
            "bare contractions",
            "numbers",
            "ordinals",
        ];
        for file in [SYNONYMS, OPPOSITES, MARKED, GRAMMAR, SPELLING] {
            assert!(file.starts_with("# ") && file.contains("Written by hand"));
            for (name, lines) in sections(file) {
                assert!(kind(name).is_some() || known.contains(&name), "{name}");
                assert!(name.is_empty() || !lines.is_empty(), "{name}");
            }
        }
        let lists = lists();
        assert_eq!((lists.synonyms.len(), lists.opposites.len(), lists.marked.len()), (272, 7, 5));
        assert_eq!((lists.numbers.len(), lists.ordinals.len()), (28, 20));
    }

    #[test]
    fn no_list_holds_anything_twice() {
        fn once<T: Ord + std::fmt::Debug>(list: impl IntoIterator<Item = T>) {
            let mut seen = BTreeSet::new();
            for entry in list {
                let shown = format!("{entry:?}");
                assert!(seen.insert(entry), "{shown} stands twice");
            }
        }
        let lists = lists();
        once(&lists.synonyms);
        for (_, lines) in &lists.opposites {
            once(lines);
        }
        // A word has one kind: marked as two it would contradict itself.
        once(lists.marked.iter().flat_map(|(_, words)| words));
        for list in [
            &lists.turning,
            &lists.grammar,
            &lists.fillers,
            &lists.before_you,
            &lists.named_before,
            &lists.measured_after,
            &lists.not_joined,
            &lists.our_stems,
            &lists.prefixes,
            &lists.ordinals,
        ] {
            once(list);
        }
        once(&lists.before_that);
        once(&lists.not_inflected);
        once(lists.bare_contractions.iter().map(|(word, _)| word));
        once(lists.numbers.iter().map(|(word, _)| word));
    }

    #[test]
    fn what_turns_the_sense_is_marked_and_no_filler_does() {
        let lists = lists();
        let marked: BTreeSet<_> = lists.marked.iter().flat_map(|(_, words)| words).collect();
        for word in &lists.turning {
            assert!(marked.contains(word), "{word}");
            assert!(!lists.fillers.contains(word), "{word}");
        }
    }
}
