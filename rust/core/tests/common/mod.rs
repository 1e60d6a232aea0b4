//! Libraries and operations to test with: few ids and texts, so that conflicts are common.
#![allow(dead_code, missing_docs, clippy::unwrap_used)] // each test file uses its part

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tfgrpo_core::{Library, Operation, OperationKind};

pub fn add(text: &str) -> Operation {
    Operation {
        kind: OperationKind::Add,
        target: None,
        text: text.to_owned(),
        base_version: 0,
        source: String::new(),
        index: 0,
        sources: Vec::new(),
        parents: Vec::new(),
    }
}

pub fn modify(target: &str, text: &str, base_version: u64) -> Operation {
    Operation { kind: OperationKind::Modify, target: Some(target.to_owned()), base_version, ..add(text) }
}

pub fn delete(target: &str, base_version: u64) -> Operation {
    Operation { kind: OperationKind::Delete, ..modify(target, "", base_version) }
}

pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => select(vec!["check units", "Check  Units!", "read twice", "draw it", "سطر\nواحد", "🙂 stay calm"])
            .prop_map(str::to_owned),
        1 => vec(any::<char>(), 0..12).prop_map(|chars| chars.into_iter().collect()),
        2 => (0_u32..1000).prop_map(|n| format!("lesson number {n}: mind the gap")),
    ]
}

pub fn operation() -> impl Strategy<Value = Operation> {
    let kind = select(vec![
        OperationKind::Add,
        OperationKind::Add,
        OperationKind::Modify,
        OperationKind::Delete,
        OperationKind::Keep,
    ]);
    let id = (1_u32..9).prop_map(|n| format!("E{n}"));
    let target =
        prop_oneof![8 => id.clone().prop_map(Some), 1 => Just(None), 1 => Just(Some("[E1]".to_owned()))];
    let group = select(vec!["", "a", "b", "c"]).prop_map(str::to_owned);
    (kind, target, text(), 0_u64..5, group.clone(), 0_u64..3, vec(group, 0..3), vec(id, 0..2)).prop_map(
        |(kind, target, text, base_version, source, index, sources, parents)| Operation {
            kind,
            target,
            text,
            base_version,
            source,
            index,
            sources,
            parents,
        },
    )
}

/// A library with a past of several versions.
pub fn library() -> impl Strategy<Value = Library> {
    vec(vec(operation(), 0..8), 0..5).prop_map(|batches| {
        batches.into_iter().fold(Library::default(), |library, batch| library.apply(batch).0)
    })
}

/// Sentences of few words, so that many are alike.
pub fn sentence() -> impl Strategy<Value = String> {
    let word = select(vec![
        "check", "units", "before", "the", "sum", "draw", "a", "figure", "twice", "answer", "long", "not",
        "3", "7",
    ]);
    vec(word, 1..10).prop_map(|words| words.join(" "))
}

/// A library that was edited in several steps: each adds, rewords and deletes.
pub fn edited() -> impl Strategy<Value = Vec<Library>> {
    let step = (vec(sentence(), 0..5), vec((any::<u16>(), sentence()), 0..3), vec(any::<u16>(), 0..2));
    vec(step, 1..9).prop_map(|steps| {
        let mut versions = vec![Library::default()];
        for (added, reworded, deleted) in steps {
            let library = versions.last().unwrap();
            let ids: Vec<String> = library.entries().map(|entry| entry.id.to_string()).collect();
            let pick = |n: u16| ids.get(usize::from(n) % ids.len().max(1)).cloned().unwrap_or_default();
            let mut operations: Vec<Operation> = added.iter().map(|text| add(text)).collect();
            operations.extend(reworded.iter().map(|(n, text)| modify(&pick(*n), text, library.version())));
            operations.extend(deleted.iter().map(|n| delete(&pick(*n), library.version())));
            let next = library.apply(operations).0;
            versions.push(next);
        }
        versions
    })
}
