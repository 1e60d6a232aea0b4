//! The laws of the difference guard, and an example of each kind of difference.
#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tfgrpo_core::guard::{Comparison, Difference, Relation, compare};
use tfgrpo_core::text::key;

/// A vocabulary for the tests: what an English reader would know of the words below.
const VOCABULARY: &str = "when before after function iteration counting element elements answer submit array integer \
    problem python java sequence candidate candidates boundary carefully convert number numbers sorted input inputs \
    search binary solution constraint equation variable triangle rectangle return returning string verify compute \
    modulus remainder probability geometry algebra expression substitute factor polynomial quadratic evidence sources \
    document question website retrieve cache dataset model temperature environment repository database received";

fn knows(word: &str) -> bool {
    VOCABULARY.split_whitespace().any(|known| known == word)
}

fn guard(a: &str, b: &str) -> Comparison {
    compare(&key(a), &key(b), &knows)
}

fn kinds(comparison: &Comparison) -> Vec<Difference> {
    comparison.differences.iter().map(|changed| changed.kind).collect()
}

#[test]
fn harmless_differences_are_the_same() {
    let mut failed = Vec::new();
    for (a, b) in [
        // Case, spacing, punctuation, markup.
        ("When X fails, retry.", "when  x fails retry"),
        ("When sorting: use a heap; then stop.", "When sorting - use a heap, then stop!"),
        ("When sorting, use **merge sort**.", "When sorting, use `merge sort`"),
        ("When you see \"TODO\", fix it", "When you see 'todo' \u{2014} fix it."),
        ("When parsing (e.g. dates), use UTC", "When parsing, e.g. dates, use UTC"),
        ("* When sorting, use a heap", "When sorting, use a heap"),
        // Articles and fillers.
        ("When counting elements, check the boundary", "When counting the elements, check boundary"),
        ("When counting, check the boundary", "When counting, please carefully check the boundary"),
        ("When counting, ensure that it ends", "When counting, ensure it ends"),
        ("If counting, then check", "If counting, check"),
        ("When counting, check a boundary", "When counting, check the boundary"),
        ("When you solve an equation, substitute back", "When solving an equation, substitute back"),
        ("When counting, make sure to verify it", "When counting, verify it"),
        // Inflection, spelling, joining, contraction.
        ("When a test fails, read the log", "When tests fail, read the logs"),
        ("When normalising the colour, centre it", "When normalizing the color, center it"),
        ("When using a data set, shuffle it", "When using a dataset, shuffle it"),
        ("When re-using well-known names", "When reusing well known names"),
        ("When it doesn't end, don't wait", "When it does not end, do not wait"),
        ("You cannot divide here", "You can't divide here"),
        ("You cannot divide here", "You can not divide here"),
        ("When reading utf-8 text", "When reading utf8 text"),
        // Numbers written otherwise.
        ("When there are five items, wait 10ms", "When there are 5 items, wait 10 ms"),
        ("When there are twenty-one items", "When there are 21 items"),
        ("When above 1,000 rows", "When above 1000 rows"),
        ("When above 50% of rows", "When above 50 percent of rows"),
        ("When on the 2nd try", "When on the second try"),
        ("When x <= 5 return", "When x ≤ 5 return"),
        // Synonyms.
        ("When sorting, use a large buffer", "When sorting, utilise a big buffer"),
        ("In order to sort, start with a check", "To sort, begin with a check"),
        ("When it fails, ensure that it stops prior to use", "When it fails, make sure it stops before use"),
        ("If the input is empty, return", "When the input is empty, return"),
        // Mistypings.
        ("When counting, verify the iteration", "When counting, verify the iteraton"),
        ("When counting, verify the iteration", "When conuting, verify the iteration"),
        // Clauses the other way round.
        (
            "When the cache is cold, retrieve the document twice",
            "Retrieve the document twice when the cache is cold",
        ),
        ("Before submitting, verify the answer", "verify the answer before submitting"),
    ] {
        let found = guard(a, b);
        if found.relation != Relation::Same || !found.differences.is_empty() {
            failed.push(format!("{a} / {b}: {found:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_kind_of_conflict_is_named() {
    use Difference::{
        Antonym, Connective, Content, Modality, Negation, Number, Order, Quantifier, Symbol, Transposed,
    };
    let mut failed = Vec::new();
    for (kind, a, b) in [
        (Number, "When counting, take 3 samples", "When counting, take 4 samples"),
        (Number, "When counting, take three samples", "When counting, take four samples"),
        (Number, "When writing python2 code, use print", "When writing python3 code, use print"),
        (Number, "When using v1.2, pin it first", "When using v1.3, pin it first"),
        (Symbol, "When using the number -5, add it", "When using the number +5, add it"),
        (Number, "When counting, retry the search", "When counting, retry the search 3 times"),
        (Number, "When waiting, wait for a minute", "When waiting, wait for an hour"),
        (Negation, "When counting, use a heap", "When counting, do not use a heap"),
        (Negation, "When counting, use a heap", "When counting, avoid a heap"),
        (Negation, "When counting, use a heap", "When counting, avoid using a heap"),
        (Negation, "When counting with a heap, stop", "When counting without a heap, stop"),
        (Negation, "When the puzzle is solved, stop", "When the puzzle is unsolved, stop"),
        (Negation, "When the puzzle is solvable, stop", "When the puzzle is non-solvable, stop"),
        (Negation, "If the input is empty, return", "Unless the input is empty, return"),
        (Antonym, "When counting, encode the input", "When counting, decode the input"),
        (Antonym, "When the answer is valid, submit it", "When the answer is invalid, submit it"),
        (Antonym, "When sharing, send the key", "When sharing, receive the key"),
        (Order, "When counting, maximise the sum", "When counting, minimise the sum"),
        (Order, "When counting, check before the loop", "When counting, check after the loop"),
        (Order, "When counting, take the first element", "When counting, take the last element"),
        (Order, "When counting, sort in ascending order", "When counting, sort in descending order"),
        (Order, "When counting, take at least half", "When counting, take at most half"),
        (Order, "When counting, convert from bytes", "When counting, convert to bytes"),
        (Quantifier, "When counting, check all rows", "When counting, check some rows"),
        (Quantifier, "When counting, check rows", "When counting, only check rows"),
        (Quantifier, "When counting, always check rows", "When counting, sometimes check rows"),
        (Modality, "When counting, you must check rows", "When counting, you may check rows"),
        (Connective, "When small and sorted, return", "When small or sorted, return"),
        (Symbol, "When x < y, swap them both now", "When x > y, swap them both now"),
        (Symbol, "When writing C, free memory", "When writing C++, free memory"),
        (Symbol, "When solving, compute a + b", "When solving, compute a - b"),
        (Symbol, "When solving, compute (a + b) * c", "When solving, compute a + b * c"),
        (Content, "When counting, use a heap", "When counting, use a trie"),
        (Content, "When in Paris, take the metro", "When in Lyon, take the metro"),
        (Content, "When writing python, use types", "When writing java, use types"),
        (Content, "When you review his code, run it", "When you review her code, run it"),
        (Transposed, "When asked, convert feet to inches", "When asked, convert inches to feet"),
        (Transposed, "When sorting, check parity before sign", "When sorting, check sign before parity"),
    ] {
        let found = guard(a, b);
        if found.relation != Relation::Conflict || !kinds(&found).contains(&kind) {
            failed.push(format!("{a} / {b}: {found:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn more_or_something_else_is_related() {
    for (a, b) in [
        ("When counting, check the boundary", "When counting, check the upper boundary"),
        ("When counting, check rows", "When counting, check rows and log the totals"),
        ("When counting, check rows", "When counting, check rows and do not forget any header line"),
        ("When counting, check rows", "When counting, check all rows"),
        ("When counting, check rows", "When counting, first check rows"),
        ("When counting, look at the list", "When counting, look in the list"),
        ("When counting elements, check boundaries", "If geometry is hard, draw a picture of the triangle"),
    ] {
        let found = guard(a, b);
        assert_eq!(found.relation, Relation::Related, "{a} / {b}: {found:?}");
        assert!(!found.differences.is_empty());
    }
}

#[test]
fn small_words_that_carry_sense_are_never_the_same() {
    let mut failed = Vec::new();
    for (a, b) in [
        ("Use a few samples", "Use few samples"),
        ("Wait a second for it", "Wait the second for it"),
        ("Choose option A then", "Choose option then"),
        ("Use the most elements", "Use most elements"),
        ("Keep the only file", "Keep only file"),
        ("When the caller is blocking, wait", "When the caller is blocked, wait"),
        ("Return a[1:] here", "Return a[1] here"),
        ("Call f(x) here", "Call f x here"),
        ("Compute n! here", "Compute n here"),
        ("Compute f' of x", "Compute f of x"),
        ("Run it with -v", "Run it with v"),
        ("Use x*y here", "Use x y here"),
        ("Draw in complete form", "Draw incomplete form"),
        ("Make it a part", "Make it apart"),
        ("Do A and then B", "Do A and B"),
        ("When A, use B, then C", "When A, use C, then B"),
        ("Tell them that it fails when done", "When done, tell them that it fails"),
        ("Store 1 0 bits", "Store 10 bits"),
        ("Take 5 – 3 of them", "Take 5 + 3 of them"),
        ("We must not divide", "We do not have to divide"),
        ("Do not simply divide", "Do not divide"),
        ("No, use the heap", "No use the heap"),
        ("When tired, sleep. Not work.", "When tired, sleep not, work"),
        ("When so, \u{2212} a is it", "When so, a is it"),
        ("If it fails, tell the user to stop", "Tell the user to stop if it fails"),
        ("When the page was loaded, wait", "When the page is loaded, wait"),
        ("Use the fastest path", "Use the fast path"),
        ("Use the meaning here", "Use the means here"),
    ] {
        if guard(a, b).relation == Relation::Same {
            failed.push(format!("{a} / {b}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_differing_words_are_named_in_order() {
    let found = guard("When n < 10, use the first heap", "When n > 12, use the last heap");
    let words: Vec<(&str, &str)> =
        found.differences.iter().map(|d| (d.left.as_str(), d.right.as_str())).collect();
    assert_eq!(words, [("<", ">"), ("10", "12"), ("first", "last")]);
    assert_eq!(kinds(&found), [Difference::Symbol, Difference::Number, Difference::Order]);
}

#[test]
fn huge_texts_are_bounded() {
    let names = |letter: char| (0..20_000).map(|n| format!("{letter}{n}")).collect::<Vec<_>>().join(" ");
    let (long, other) = (names('w'), names('v'));
    assert_eq!(guard(&long, &other).relation, Relation::Related);
    assert_eq!(guard(&long, &long).relation, Relation::Same);
    let spliced = format!("{long} not");
    assert_eq!(guard(&long, &spliced).relation, Relation::Conflict);
    for mark in ["*", "**", "(", "'", "-", "[", "a'", "é", "\u{301}", "\0", "🙂", "١", "!", "<", "1,"] {
        let marks = mark.repeat(30_000);
        compare(&marks, &format!("{marks}x"), &knows);
        compare(&marks, &format!("x {marks} y"), &knows);
    }
}

/// Sentences of words that the lists know and words that they do not.
fn sentence() -> impl Strategy<Value = Vec<String>> {
    let word = select(
        "when if use the a heap stack sort sorted array input output first last not only all some before after \
         check verify answer question python java number 3 12 1.5 x y < > + must may and or you that in to from with \
         carefully large small twenty one hundred at least most do does don't can cannot utf8 c++ (x) **bold** e.g."
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    );
    vec(word, 1..25)
}

/// Any text, and often text near the guard's rules.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => "\\PC{0,12}",
        3 => select(vec!["-", "*", "**", "'", "(", ")", "[", "]", "!", ".", ",", ":", "a", "1", "x", "é", "\u{301}", "--", "->", "<="])
            .prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => Just(" ".to_owned()),
        2 => sentence().prop_map(|words| words.join(" ")),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_panics_and_sides_make_no_difference(a in text(), b in text()) {
        for (a, b) in [(a.clone(), b.clone()), (key(&a), key(&b))] {
            let (there, back) = (compare(&a, &b, &knows), compare(&b, &a, &knows));
            prop_assert_eq!(there.relation, back.relation);
            let swapped: Vec<_> = back.differences.into_iter().map(|d| (d.kind, d.right, d.left)).collect();
            let found: Vec<_> = there.differences.into_iter().map(|d| (d.kind, d.left, d.right)).collect();
            prop_assert_eq!(found, swapped);
        }
    }

    #[test]
    fn sentences_compare_alike_from_both_sides(a in sentence(), b in sentence()) {
        let (a, b) = (a.join(" "), b.join(" "));
        prop_assert_eq!(compare(&a, &b, &knows).relation, compare(&b, &a, &knows).relation);
        prop_assert_eq!(compare(&a, &b, &knows), compare(&a, &b, &knows));
    }

    #[test]
    fn a_text_is_the_same_as_itself(a in text()) {
        let found = compare(&a, &a, &knows);
        prop_assert_eq!(found.relation, Relation::Same);
        prop_assert!(found.differences.is_empty());
    }

    #[test]
    fn another_number_is_never_the_same(
        before in sentence(), after in sentence(), one in 0_u32..5000, other in 0_u32..5000, stuck in "[a-z]{0,3}",
    ) {
        prop_assume!(one != other);
        let place = |n: u32| format!("{} {stuck}{n} {}", before.join(" "), after.join(" "));
        prop_assert_ne!(guard(&place(one), &place(other)).relation, Relation::Same);
    }

    #[test]
    fn an_added_not_is_never_the_same(words in sentence(), at in any::<prop::sample::Index>()) {
        let mut denied = words.clone();
        denied.insert(at.index(words.len() + 1), "not".to_owned());
        prop_assert_ne!(guard(&words.join(" "), &denied.join(" ")).relation, Relation::Same);
    }

    #[test]
    fn case_spacing_and_closing_marks_are_harmless(words in sentence(), gaps in vec(0..4_usize, 25), upper in any::<bool>()) {
        let plain = words.join(" ");
        let mut spaced = String::new();
        for (word, gap) in words.iter().zip(&gaps) {
            spaced.push_str(&if upper { word.to_uppercase() } else { word.clone() });
            spaced.push_str([" ", "  ", "\n", "\t "][*gap]);
        }
        spaced.push_str("!.");
        prop_assert_eq!(guard(&plain, &spaced).relation, Relation::Same);
    }

    #[test]
    fn a_pause_between_words_is_harmless(words in vec("[a-z]{3,8}", 2..12), at in any::<prop::sample::Index>(),
        mark in select(vec![",", ";", ":", " -", " \u{2014}", ".", "?"])) {
        let plain = words.join(" ");
        let mut marked = words.clone();
        marked[at.index(words.len() - 1)].push_str(mark);
        // "then" and phrases are read by the pauses around them; random letters are neither, save by chance.
        prop_assume!(!words.iter().any(|word| word == "then"));
        prop_assert_eq!(guard(&plain, &marked.join(" ")).relation, Relation::Same);
    }

    #[test]
    fn a_mistyped_long_word_is_harmless_and_a_known_one_is_not(
        word in select(vec!["function", "polynomial", "temperature", "environment"]),
        at in 2..6_usize,
    ) {
        let mut letters: Vec<char> = word.chars().collect();
        letters.swap(at, at + 1);
        let slip: String = letters.into_iter().collect();
        prop_assume!(slip != word);
        let (a, b) = (format!("When the {word} is odd, stop"), format!("When the {slip} is odd, stop"));
        prop_assert_eq!(guard(&a, &b).relation, Relation::Same);
        prop_assert_eq!(compare(&key(&a), &key(&b), &|_| true).relation, Relation::Conflict);
        prop_assert_eq!(compare(&key(&a), &key(&b), &|_| false).relation, Relation::Conflict);
    }
}
