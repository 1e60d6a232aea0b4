//! Neighbours and duplicates: against brute force, and whatever the order.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{add, edited, sentence};
use proptest::collection::vec;
use proptest::prelude::*;
use tfgrpo_core::{Library, Twin, Verdict, text};

fn holding(texts: &[String]) -> Library {
    Library::default().apply(texts.iter().map(|text| add(text)).collect()).0
}

proptest! {
    #[test]
    fn what_is_in_the_library_is_its_duplicate(versions in edited()) {
        let library = versions.last().unwrap();
        for entry in library.entries() {
            let judgement = library.judge(&format!("  {}. ", entry.text.to_uppercase()), None, 3);
            prop_assert_eq!(judgement.verdict, Verdict::Duplicate);
            prop_assert!(judgement.neighbours.iter().any(|n| n.id == entry.id && n.verdict == Verdict::Duplicate));
        }
    }

    #[test]
    fn neighbours_are_the_nearest_of_all(texts in vec(sentence(), 1..30), asked in sentence(), k in 1_usize..6) {
        let library = holding(&texts);
        let (all, some) = (library.judge(&asked, None, usize::MAX), library.judge(&asked, None, k));
        prop_assert_eq!(all.verdict, some.verdict);
        prop_assert_eq!(all.neighbours.get(..some.neighbours.len()).unwrap(), &*some.neighbours);
        prop_assert_eq!(some.neighbours.len(), k.min(library.len()));
    }

    #[test]
    fn order_of_insertion_does_not_change_a_verdict(
        (texts, shuffled) in vec(sentence(), 1..12).prop_flat_map(|t| (Just(t.clone()), Just(t).prop_shuffle())),
        asked in sentence(),
    ) {
        // Texts that are no duplicates of each other: which of those stays is a matter of order.
        let alone = |texts: &[String]| holding(texts).len() == texts.iter().collect::<BTreeSet<_>>().len();
        prop_assume!(alone(&texts) && alone(&shuffled));
        let told = |library: &Library| {
            let judgement = library.judge(&asked, None, usize::MAX);
            let near: BTreeMap<String, Verdict> = judgement
                .neighbours
                .iter()
                .map(|n| (library.get(n.id.number()).unwrap().text.to_string(), n.verdict))
                .collect();
            (judgement.verdict, near)
        };
        prop_assert_eq!(told(&holding(&texts)), told(&holding(&shuffled)));
    }

    #[test]
    fn duplicates_point_at_the_first_that_is_none(known in vec(sentence(), 0..6), texts in vec(sentence(), 0..30)) {
        let library = holding(&known);
        let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
        let twins = library.deduplicate(&borrowed);
        prop_assert_eq!(twins.len(), texts.len());
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        for (place, (text, twin)) in texts.iter().zip(&twins).enumerate() {
            match twin {
                Some(Twin::Text(earlier)) => prop_assert!(*earlier < place && twins.get(*earlier) == Some(&None)),
                Some(Twin::Experience(id)) => prop_assert!(library.get(id.number()).is_some()),
                None => {}
            }
            // Texts with one key are never two lessons.
            let key = text::key(text);
            if let Some(earlier) = first.get(&key) {
                prop_assert!(twin.is_some(), "{} repeats {}", place, earlier);
            }
            first.entry(key).or_insert(place);
        }
    }

    #[test]
    fn adding_what_deduplication_keeps_drops_nothing(texts in vec(sentence(), 0..20)) {
        let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
        let twins = Library::default().deduplicate(&borrowed);
        let kept = texts.iter().zip(&twins).filter(|(_, twin)| twin.is_none());
        let operations = kept.enumerate().map(|(place, (text, _))| tfgrpo_core::Operation {
            index: place as u64, ..add(text)
        });
        prop_assert!(Library::default().apply(operations.collect()).1.dropped.is_empty());
    }
}

#[test]
fn given_vectors_decide_the_neighbours() {
    let library = holding(&["apples".into(), "pears".into(), "plums".into()]);
    let library = library.with_vectors(&[1.0, 0.0, 0.0, 1.0, 0.7, 0.7], 2).unwrap();
    let near =
        |x: f32, y: f32| library.judge("something else", Some(&[x, y]), 3).neighbours.first().unwrap().id;
    assert_eq!(near(1.0, 0.1).number().get(), 1);
    assert_eq!(near(-0.2, 1.0).number().get(), 2);
    let (grown, _) = library.apply_with(vec![add("cherries")], &[-1.0, 0.0]);
    assert_eq!(grown.judge("x", Some(&[-1.0, 0.1]), 1).neighbours.first().unwrap().id.number().get(), 4);
    assert_eq!(grown.relevant(&["a", "b"], &[0.0, 1.0, -1.0, 0.0], 1).len(), 2);
    assert!(library.with_vectors(&[1.0; 5], 2).is_err());
    assert!(library.with_vectors(&[], 0).is_err());
}

#[test]
fn the_same_library_has_the_same_neighbours_in_every_chunking() {
    // Exactly and by codes: a library above the bound of exact search finds its own texts first.
    let texts: Vec<String> =
        (0..1500).map(|n| format!("when case {n} of part {} occurs, do step {}", n / 7, n * 31)).collect();
    let library = holding(&texts);
    for entry in library.entries().step_by(97) {
        let first = library.judge(&entry.text, None, 1);
        assert_eq!((first.verdict, first.neighbours.first().unwrap().id), (Verdict::Duplicate, entry.id));
    }
}
