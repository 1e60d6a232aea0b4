//! Whether two different words are one word written twice: another inflection, spelling or mistyping of it.

use super::lists::lists;
use crate::invariant::promised;

/// The letters that end derived words: "tokenizer" is no mistyping of "tokenized".
const ENDINGS: &str = "adeilnorsty";

/// Whether the words are inflections of one word: "test" and "tests", "solve" and "solving".
///
/// An -ing and an -ed form are not: "calling" and "called" differ in who does it.
pub(super) fn inflected(left: &str, right: &str) -> bool {
    let two_words = &lists().not_inflected;
    if two_words.contains(&(left, right)) || two_words.contains(&(right, left)) {
        return false;
    }
    let same = left.bytes().zip(right.bytes()).take_while(|(l, r)| l == r).count();
    let (Some(stem), Some(l), Some(r)) = (left.get(..same), left.get(same..), right.get(same..)) else {
        return false;
    };
    if same < 3 || !left.is_ascii() || !right.is_ascii() {
        return false;
    }
    related(stem, l, r) || related(stem, r, l)
}

/// Whether a stem takes both these endings.
fn related(stem: &str, l: &str, r: &str) -> bool {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|s| stem.ends_with(s));
    match (l, r) {
        ("", "s") => !ends(&["s", "u", "i", "x", "z"]) || ends(&["eau"]),
        ("", "'s" | "'")
        | ("'" | "s", "'s")
        | ("e" | "es", "ing")
        | ("ies", "ying" | "ied" | "y")
        | ("ied", "y") => true,
        ("", "es") => ends(&["s", "x", "z", "ch", "sh", "o"]),
        ("", "d") => ends(&["e"]) && !ends(&["ee"]),
        ("d", "s") => ends(&["e"]) && !ends(&["ee", "ne"]),
        ("ed" | "ing", "s") | ("", "ed" | "ing") => !must_double(stem) && !ends(&["e"]),
        _ => {
            // "plan", "planned", "planning": the last letter doubled.
            let last = stem.chars().next_back();
            let doubled =
                |suffix: &str, end: &str| suffix.chars().next() == last && suffix.get(1..) == Some(end);
            must_end_short(stem)
                && ((l.is_empty() && (doubled(r, "ed") || doubled(r, "ing")))
                    || (r == "s" && (doubled(l, "ed") || doubled(l, "ing"))))
        }
    }
}

fn vowel(c: char) -> bool {
    "aeiou".contains(c)
}

/// Whether the stem ends in consonant, one vowel, consonant: "plan", "submit".
fn must_end_short(stem: &str) -> bool {
    let mut letters = stem.chars().rev();
    let (Some(last), Some(second)) = (letters.next(), letters.next()) else { return false };
    !vowel(last) && !"wxy".contains(last) && vowel(second) && letters.next().is_none_or(|c| !vowel(c))
}

/// Whether a stem of one syllable would have doubled its last letter: "planing" is of "plane" and not of "plan".
fn must_double(stem: &str) -> bool {
    stem.len() <= 4 && must_end_short(stem) && stem.chars().filter(|c| vowel(*c)).count() == 1
}

/// Whether a word has a piece that British and American spelling write differently. Cheap: most words have none.
pub(super) fn spelled_two_ways(word: &str) -> bool {
    let mut pairs = word.as_bytes().windows(2);
    pairs.any(|pair| matches!(pair, b"is" | b"iz" | b"ys" | b"yz" | b"ou" | b"ll"))
}

/// The word in one spelling, if its British and American ones differ.
pub(super) fn spelled(word: &str) -> String {
    let mut word = word.to_owned();
    if let Some(stem) = lists().our_stems.iter().find(|stem| word.contains(*stem)) {
        word = word.replacen(stem, &stem.replace("our", "or"), 1);
    }
    for end in ["e", "ed", "es", "er", "ers", "ing", "able", "ation", "ations"] {
        for (british, american) in [("is", "iz"), ("ys", "yz")] {
            let stem = word.strip_suffix(end).and_then(|stem| stem.strip_suffix(british));
            if let Some(stem) = stem.filter(|stem| stem.len() >= 3) {
                return format!("{stem}{american}{end}");
            }
        }
        // "modelled" and "modeled", "travelling" and "traveling".
        let stem = word.strip_suffix(end).and_then(|stem| stem.strip_suffix("ell"));
        if let Some(stem) = stem.filter(|stem| stem.len() >= 3 && matches!(end, "ed" | "ing" | "er" | "ers"))
        {
            return format!("{stem}el{end}");
        }
    }
    word
}

/// Whether one word is likely a mistyping of the other, of which exactly one is a known word.
pub(super) fn mistyped(left: &str, right: &str, knows: &dyn Fn(&str) -> bool) -> bool {
    let latin =
        |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || ('\u{df}'..'\u{250}').contains(&c));
    let mut first = left.chars().zip(right.chars());
    if left.len() < 5
        || right.len() < 5
        || left.len().abs_diff(right.len()) > 2
        || first.next().is_none_or(|(l, r)| l != r)
        || !latin(left)
        || !latin(right)
    {
        return false;
    }
    // Most pairs end here: a slip or two leave more than that alike at both ends.
    let same = |pairs: usize| pairs + 5 >= left.len().min(right.len());
    let start = left.bytes().zip(right.bytes()).take_while(|(l, r)| l == r).count();
    let end = left.bytes().rev().zip(right.bytes().rev()).take_while(|(l, r)| l == r).count();
    if !same(start + end) {
        return false;
    }
    let (l, r): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if !(slips(&l, &r) || l.len().min(r.len()) >= 9 && slips_twice(&l, &r)) {
        return false;
    }
    match (knows(left), knows(right)) {
        (true, false) => plausible(&l, &r),
        (false, true) => plausible(&r, &l),
        _ => false,
    }
}

/// The parts of two words between their common start and their common end.
fn middles<'a>(l: &'a [char], r: &'a [char]) -> (usize, &'a [char], &'a [char]) {
    let start = l.iter().zip(r).take_while(|(a, b)| a == b).count();
    let (l, r) = (promised(l.get(start..), "a start is part"), promised(r.get(start..), "a start is part"));
    let end = l.iter().rev().zip(r.iter().rev()).take_while(|(a, b)| a == b).count();
    let cut = |word: &'a [char]| promised(word.get(..word.len() - end), "an end is part");
    (start, cut(l), cut(r))
}

/// One letter changed, added, missing, or two neighbours swapped.
fn slips(l: &[char], r: &[char]) -> bool {
    match middles(l, r) {
        (_, [_] | [], [_]) | (_, [_], []) => true,
        (_, [first, second], [other, last]) => first == last && second == other,
        _ => false,
    }
}

/// Two slips, both within a word whose first five and last two letters are untouched.
fn slips_twice(l: &[char], r: &[char]) -> bool {
    let (start, left, right) = middles(l, r);
    let end = l.len() - start - left.len();
    if start < 5 || end < 2 {
        return false;
    }
    distance(left, right) <= 2
}

/// Damerau-Levenshtein distance (neighbours swapped count once) of two short pieces.
fn distance(l: &[char], r: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=r.len()).collect();
    let mut previous = None;
    for (i, a) in l.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in r.iter().enumerate() {
            let at =
                |row: &[usize], k: usize| promised(row.get(k).copied(), "a cell is filled before it is read");
            let mut best =
                (at(&last, j) + usize::from(a != b)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            if j > 0 && previous == Some(b) && r.get(j - 1) == Some(a) {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
        previous = Some(a);
    }
    promised(last.last().copied(), "a row has at least one cell")
}

/// Whether the change is one that a slip makes and no suffix, prefix or other word does.
fn plausible(known: &[char], unknown: &[char]) -> bool {
    let (start, k, u) = middles(known, unknown);
    let at_end = start + k.len() == known.len();
    let doubled = |piece: &[char], word: &[char]| match piece {
        [c] => start > 0 && word.get(start - 1) == Some(c),
        _ => false,
    };
    // The start of a word carries prefixes: "intra" and "inter", "hypo" and "hyper".
    let opening = |word: &[char], n: usize| word.iter().take(n).collect::<String>();
    let prefixes = (2..=4).any(|n| {
        let (a, b) = (opening(known, n), opening(unknown, n));
        a != b && lists().prefixes.contains(&a.as_str()) && lists().prefixes.contains(&b.as_str())
    });
    if prefixes {
        return false;
    }
    match (k, u) {
        ([a], [b]) => {
            let vowels = vowel(*a) && vowel(*b) && start + 4 > known.len(); // "nitrate" and "nitrite"
            known.len() >= 6 && !vowels && !(at_end && ENDINGS.contains(*a) && ENDINGS.contains(*b))
        }
        // A letter too many: at the end it is a suffix, unless it is the last one twice.
        ([], [b]) => doubled(u, unknown) || (known.len() >= 6 && !(at_end && ENDINGS.contains(*b))),
        ([_], []) => doubled(k, known) || known.len() >= 6,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::{inflected, mistyped, spelled};

    #[test]
    fn inflections_are_told_from_other_words() {
        for (left, right) in [
            ("test", "tests"),
            ("class", "classes"),
            ("query", "queries"),
            ("solve", "solving"),
            ("plan", "planned"),
            ("returns", "returning"),
            ("submit", "submitted"),
            ("used", "uses"),
            ("array's", "array"),
            ("apply", "applied"),
        ] {
            assert!(inflected(left, right) && inflected(right, left), "{left} {right}");
        }
        for (left, right) in [
            ("plan", "plane"),
            ("car", "care"),
            ("plan", "planing"),
            ("calling", "called"),
            ("new", "news"),
            ("large", "larger"),
            ("class", "clas"),
            ("use", "useless"),
            ("even", "event"),
            ("star", "stared"),
            ("thin", "thing"),
            ("need", "nee"),
        ] {
            assert!(!inflected(left, right) && !inflected(right, left), "{left} {right}");
        }
    }

    #[test]
    fn spellings_meet() {
        for (british, american) in [
            ("colour", "color"),
            ("behaviours", "behaviors"),
            ("normalise", "normalize"),
            ("optimisation", "optimization"),
            ("analysed", "analyzed"),
            ("modelling", "modeling"),
            ("neighbouring", "neighboring"),
        ] {
            assert_eq!(spelled(british), spelled(american));
        }
        for (left, right) in [("four", "for"), ("mourning", "morning"), ("course", "corse"), ("rise", "rize")]
        {
            assert_ne!(spelled(left), spelled(right));
        }
    }

    #[test]
    fn mistypings_are_told_from_other_words() {
        let known = [
            "function",
            "iteration",
            "python",
            "sulfate",
            "tokenize",
            "grade",
            "docker",
            "received",
            "intracellular",
            "counterexample",
            "array",
            "mango",
            "encode",
            "even",
            "event",
            "safe",
        ];
        let vocabulary = |word: &str| known.contains(&word);
        for (left, right) in [
            ("function", "functon"),
            ("function", "fucntion"),
            ("function", "funcction"),
            ("iteration", "iterqtion"),
            ("received", "recieved"),
            ("counterexample", "counterxammple"),
            ("array", "arrray"),
        ] {
            assert!(
                mistyped(left, right, &vocabulary) && mistyped(right, left, &vocabulary),
                "{left} {right}"
            );
        }
        for (left, right) in [
            ("python", "cython"),
            ("sulfate", "sulfite"),
            ("tokenize", "tokenizer"),
            ("grade", "gradle"),
            ("even", "event"),
            ("intracellular", "intercellular"),
            ("docker", "locker"),
            ("mango", "mongo"),
            ("unheard", "unheerd"),
            ("safe", "sate"),
        ] {
            assert!(
                !mistyped(left, right, &vocabulary) && !mistyped(right, left, &vocabulary),
                "{left} {right}"
            );
        }
    }
}
