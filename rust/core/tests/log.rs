//! The prior is a log: what earlier prompts said stays where it was, until the log is compacted.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{add, delete, edited, modify};
use proptest::prelude::*;
use tfgrpo_core::{Library, tokens};

/// Of a prior what somebody who reads it from the top would believe in the end, line by line.
fn believed(prior: &str) -> Vec<(String, String)> {
    let mut lessons: Vec<(String, String)> = Vec::new();
    for line in prior.lines() {
        let (id, text) = line.split_once(' ').unwrap();
        lessons.retain(|(known, _)| known != id);
        if text != "(withdrawn: follow it no longer)" {
            let text = text.strip_prefix("(revised) ").unwrap_or(text);
            lessons.push((id.to_owned(), text.to_owned()));
        }
    }
    lessons.sort();
    lessons
}

fn said(library: &Library) -> Vec<(String, String)> {
    let mut lessons: Vec<(String, String)> =
        library.entries().map(|entry| (format!("[{}]", entry.id), entry.text.to_string())).collect();
    lessons.sort();
    lessons
}

proptest! {
    #[test]
    fn who_reads_the_log_to_its_end_knows_the_library(versions in edited()) {
        for library in &versions {
            let prior = library.prior("", u64::MAX);
            prop_assert_eq!(believed(&prior.text), said(library));
            prop_assert_eq!(prior.tokens, tokens::count(&prior.text));
            prop_assert_eq!(prior.ids.len(), library.len());
        }
    }

    #[test]
    fn a_later_version_goes_on_where_the_earlier_stopped(versions in edited()) {
        for pair in versions.windows(2) {
            let [before, after] = pair else { unreachable!() };
            let (earlier, later) = (before.prior("Learned:", u64::MAX), after.prior("Learned:", u64::MAX));
            // A compacted log holds each experience once, a quarter of another may be dead.
            let compact: u64 = after.entries().map(|entry| entry.tokens).sum();
            let dead = later.tokens - tokens::count("Learned:\n").min(later.tokens);
            prop_assert!(later.text.starts_with(&earlier.text) || dead == compact);
            prop_assert!(dead as f64 <= compact as f64 / 0.7 + 40.0, "{dead} tokens for {compact} that live");
        }
    }

    #[test]
    fn under_any_budget_nothing_is_believed_that_the_library_does_not_say(
        versions in edited(), budget in 0_u64..200,
    ) {
        let library = versions.last().unwrap();
        let prior = library.prior("", budget);
        prop_assert!(prior.tokens <= budget);
        let all = said(library);
        prop_assert!(believed(&prior.text).iter().all(|lesson| all.contains(lesson)));
        prop_assert_eq!(believed(&prior.text).len(), prior.ids.len());
    }

    #[test]
    fn a_library_from_a_file_goes_on_like_the_one_that_was_written(versions in edited()) {
        for after in versions.iter().skip(1) {
            let again = Library::from_json(&after.to_json().unwrap()).unwrap();
            prop_assert_eq!(again.prior("", u64::MAX), after.prior("", u64::MAX));
            // The next change finds the same share of dead lines and compacts at the same moment.
            let id = after.entries().next().map(|entry| entry.id.to_string()).unwrap_or_default();
            let change = || vec![modify(&id, "another wording of it", after.version())];
            prop_assert_eq!(again.apply(change()), after.apply(change()));
        }
    }
}

#[test]
fn the_lines_are_these() {
    let one = Library::default().apply(vec![add("check all the units of each term")]).0;
    let one = one.apply(vec![add("read twice")]).0.apply(vec![add("draw it")]).0;
    let two = one.apply(vec![modify("E2", "read it aloud", 3)]).0;
    assert_eq!(
        two.prior("", 100).text,
        "[E1] check all the units of each term\n[E2] read twice\n[E3] draw it\n[E2] (revised) read it aloud\n"
    );
    // A second dead line passes a quarter of the log: it is written anew.
    let three = two.apply(vec![delete("E3", 4)]).0;
    assert_eq!(three.prior("", 100).text, "[E1] check all the units of each term\n[E2] read it aloud\n");
}

#[test]
fn a_withdrawal_is_a_line() {
    let texts: Vec<String> = (10..30).map(|n| format!("lesson {n} about the matter number {n}")).collect();
    let one = Library::default().apply(texts.iter().map(|text| add(text)).collect()).0;
    let two = one.apply(vec![delete("E4", 1)]).0;
    assert_eq!(
        two.prior("", 1000).text,
        one.prior("", 1000).text + "[E4] (withdrawn: follow it no longer)\n"
    );
    assert_eq!(two.prior("", 1000).ids.len(), 19);
}
