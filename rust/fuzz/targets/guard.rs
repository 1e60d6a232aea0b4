//! No texts make the guard panic; it is symmetric, and a text is the same as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tfgrpo_core::guard::{Relation, compare};
use tfgrpo_core::{embed, text};

fuzz_target!(|texts: (&str, &str)| {
    let (a, b) = (text::key(texts.0), text::key(texts.1));
    let there = compare(&a, &b, &embed::knows);
    let back = compare(&b, &a, &embed::knows);
    assert_eq!(there.relation, back.relation);
    assert_eq!(there.differences.len(), back.differences.len());
    assert_eq!(compare(&a, &a, &embed::knows).relation, Relation::Same);
    assert!(there.relation == Relation::Same || a != b);
});
