//! The laws of `apply`.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{add, delete, library, modify, operation};
use proptest::collection::vec;
use proptest::prelude::*;
use tfgrpo_core::{Library, Operation, OperationKind};

fn ids(library: &Library) -> BTreeSet<String> {
    library.entries().map(|entry| entry.id.to_string()).collect()
}

proptest! {
    #[test]
    fn nothing_and_keeping_are_the_identity(library in library(), batch in vec(operation(), 0..6)) {
        let keeps = batch.into_iter().map(|o| Operation { kind: OperationKind::Keep, ..o }).collect();
        for batch in [Vec::new(), keeps] {
            prop_assert_eq!(&library.apply(batch).0, &library);
        }
    }

    #[test]
    fn order_makes_no_difference(
        (library, batch, shuffled) in (library(), vec(operation(), 0..14))
            .prop_flat_map(|(l, batch)| (Just(l), Just(batch.clone()), Just(batch).prop_shuffle())),
    ) {
        prop_assert_eq!(library.apply(batch), library.apply(shuffled));
    }

    #[test]
    fn sizes_and_versions_add_up(library in library(), batch in vec(operation(), 0..14)) {
        let (next, report) = library.apply(batch);
        prop_assert_eq!(
            next.len() + report.deleted.len(),
            library.len() + report.added.len()
        );
        let changed = !(report.added.is_empty() && report.modified.is_empty() && report.deleted.is_empty());
        prop_assert_eq!(next.version(), library.version() + u64::from(changed));
        prop_assert_eq!(next.digest() != library.digest(), changed);
    }

    #[test]
    fn every_operation_is_accounted_for(library in library(), batch in vec(operation(), 0..14)) {
        let applied_kinds = |report: &tfgrpo_core::ApplyReport, kind: OperationKind| match kind {
            OperationKind::Add => Some(report.added.len()),
            OperationKind::Modify => Some(report.modified.len()),
            OperationKind::Delete => Some(report.deleted.len()),
            OperationKind::Keep => None, // several KEEPs of one experience are one
        };
        let (_, report) = library.apply(batch.clone());
        for kind in [OperationKind::Add, OperationKind::Modify, OperationKind::Delete] {
            let asked = batch.iter().filter(|o| o.kind == kind).count();
            let dropped = report.dropped.iter().filter(|d| d.operation.kind == kind).count();
            prop_assert_eq!(Some(asked - dropped), applied_kinds(&report, kind));
        }
        prop_assert!(report.dropped.iter().all(|d| !d.reason.is_empty() && batch.contains(&d.operation)));
    }

    #[test]
    fn ids_are_unique_for_ever(batches in vec(vec(operation(), 0..8), 0..6)) {
        let mut library = Library::default();
        let mut ever = BTreeSet::new();
        for batch in batches {
            let before = ids(&library);
            let (next, report) = library.apply(batch);
            for id in &report.added {
                prop_assert!(ever.insert(*id), "{} was used before", id);
            }
            let gone: BTreeSet<String> = report.deleted.iter().map(ToString::to_string).collect();
            prop_assert!(before.difference(&gone).all(|id| ids(&next).contains(id)));
            library = next;
        }
    }

    #[test]
    fn the_same_origin_gives_the_same_id_and_another_one_another(
        first in vec(operation(), 0..8), second in vec(operation(), 0..8),
    ) {
        let apply = |batch: &[Operation]| Library::default().apply(batch.to_vec()).0;
        let (one, two) = (apply(&first), apply(&second));
        prop_assert_eq!(ids(&one), ids(&apply(&first)));
        for entry in one.entries() {
            let Some(other) = two.find(&entry.id.to_string()) else { continue };
            prop_assert_eq!((&entry.text, &entry.sources), (&other.text, &other.sources));
        }
    }

    #[test]
    fn an_id_and_its_number_name_the_same_experience(library in library()) {
        for entry in library.entries() {
            let (full, short) = (entry.id.to_string(), entry.id.number().to_string());
            prop_assert_eq!(library.find(&full), Some(entry));
            prop_assert_eq!(library.find(&short), Some(entry));
            prop_assert_eq!(full.split_once('-').unwrap().0, &short);
            let gone = |name: &str| library.apply(vec![delete(name, library.version())]);
            prop_assert_eq!(gone(&full).0, gone(&short).0);
            prop_assert!(gone(&short).1.deleted.contains(&entry.id));
        }
    }

    #[test]
    fn delete_beats_modify(library in library(), batch in vec(operation(), 0..10)) {
        let Some(entry) = library.entries().next() else { return Ok(()) };
        let id = entry.id.to_string();
        let mut batch = batch;
        batch.push(modify(&id, "quite another wording", library.version()));
        batch.push(Operation { source: "zzz".into(), ..delete(&id, library.version()) });
        let (next, report) = library.apply(batch);
        prop_assert!(!ids(&next).contains(&id));
        prop_assert!(!report.modified.contains(&entry.id));
    }

    #[test]
    fn living_texts_are_clean_and_distinct(library in library()) {
        let keys: BTreeSet<String> =
            library.entries().map(|entry| tfgrpo_core::text::key(&entry.text)).collect();
        prop_assert_eq!(keys.len(), library.len());
        for entry in library.entries() {
            let clean = tfgrpo_core::text::clean(&entry.text);
            prop_assert_eq!(clean.as_deref(), Ok(&*entry.text));
        }
    }

    #[test]
    fn lineage_ends_with_the_living_text(library in library()) {
        for entry in library.entries() {
            let (first, last) = (entry.history.first().unwrap(), entry.history.last().unwrap());
            prop_assert_eq!((first.operation, first.version), (OperationKind::Add, entry.created));
            prop_assert_eq!((&last.text, last.version), (&entry.text, entry.changed));
            for source in entry.history.iter().flat_map(|revision| &revision.sources) {
                prop_assert!(entry.sources.contains(source));
            }
        }
    }
}

/// Why `operation` is not applied to a library with "check units" (E1, version 1) and "read twice" (E2, version
/// 1; reworded from "skim" in version 2).
fn reason(operation: Operation) -> String {
    let first = Library::default().apply(vec![add("check units"), add("skim")]).0;
    let library = first.apply(vec![modify("E2", "read twice", 1)]).0;
    assert_eq!(library.version(), 2);
    let (same, report) = library.apply(vec![operation]);
    assert_eq!(same, library);
    report.dropped.into_iter().next().unwrap().reason
}

#[test]
fn each_refusal_has_its_reason() {
    assert_eq!(reason(add(" \n ")), "the text is empty");
    assert_eq!(reason(add("a\0b")), "the text holds the control character U+0000");
    let [one, two] = ["E1-bab07792", "E2-7ec6e241"];
    assert_eq!(reason(add("CHECK\nunits.")), format!("its text duplicates {one}"));
    assert_eq!(reason(modify("E1", "Read twice", 2)), format!("its text duplicates {two}"));
    assert_eq!(reason(modify("E1", " check units ", 2)), format!("it leaves the text of {one} unchanged"));
    assert_eq!(reason(modify("E9", "x", 2)), "E9 is not in the library");
    assert_eq!(reason(delete("e1", 2)), "e1 is not in the library");
    assert_eq!(reason(Operation { target: None, ..delete("", 2) }), "it names no target");
    assert_eq!(
        reason(delete("E2", 1)),
        format!("it is stale: made for version 1, but {two} changed in version 2")
    );
    assert_eq!(reason(delete("E1", 3)), "it was made for version 3, but the library is at version 2");
    let orphan = Operation { parents: vec!["E1".into(), "E7".into()], ..add("a merger") };
    assert_eq!(reason(orphan), "its parent E7 is not in the library");
}

#[test]
fn of_two_rewordings_the_first_in_canonical_order_stays() {
    let library = Library::default().apply(vec![add("check units")]).0;
    let from = |source: &str, text: &str| Operation { source: source.into(), ..modify("E1", text, 1) };
    let (next, report) = library.apply(vec![from("b", "second"), from("a", "first")]);
    assert_eq!(&*next.entries().next().unwrap().text, "first");
    let id = next.entries().next().unwrap().id;
    assert_eq!(report.dropped.first().unwrap().reason, format!("{id} is modified by another operation"));
}

#[test]
fn a_merger_replaces_its_parents_and_may_keep_the_words_of_one() {
    let library =
        Library::default().apply(vec![add("check units"), add("look at what the numbers measure")]).0;
    let merger =
        Operation { parents: vec!["E2".into(), "E1".into()], source: "g".into(), ..add("Check units.") };
    let (next, report) = library.apply(vec![merger, delete("E1", 1), delete("E2", 1)]);
    let entry = next.entries().next().unwrap();
    assert_eq!((next.len(), entry.id.number().get(), &*entry.text), (1, 3, "Check units."));
    assert_eq!(entry.parents, library.entries().map(|parent| parent.id).collect::<Vec<_>>());
    assert_eq!(entry.sources, ["g"]);
    assert!(report.dropped.is_empty());
}
