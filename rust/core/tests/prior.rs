//! The token prior: its budget is hard and its bytes are stable.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{add, delete, edited, library, modify, text};
use proptest::collection::vec;
use proptest::prelude::*;
use tfgrpo_core::{Library, digest, tokens};

fn heading() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("Learned:\n\n".to_owned()),
        vec(any::<char>(), 0..10).prop_map(|chars| chars.into_iter().collect())
    ]
}

fn credited(library: &Library, credits: &[f64]) -> Library {
    let ids = library.entries().map(|entry| entry.id.to_string());
    library.with_credit(&ids.zip(credits.iter().copied()).collect()).unwrap()
}

proptest! {
    #[test]
    fn the_budget_is_never_exceeded(
        library in library(), credits in vec(-2.0..2.0_f64, 0..40), heading in heading(), budget in 0_u64..120,
    ) {
        let prior = credited(&library, &credits).prior(&heading, budget);
        prop_assert_eq!(prior.tokens, tokens::count(&prior.text));
        prop_assert!(prior.tokens <= budget);
        prop_assert_eq!(&prior.digest, &digest::hex(prior.text.as_bytes()));
        prop_assert!(prior.ids.is_sorted());
        prop_assert_eq!(prior.ids.is_empty(), prior.text.is_empty());
    }

    #[test]
    fn lines_add_up_to_the_whole_text(library in library(), heading in heading()) {
        let prior = library.prior(&heading, u64::MAX);
        prop_assert_eq!(prior.ids.len(), library.len());
        if !prior.ids.is_empty() {
            let newline = if heading.is_empty() || heading.ends_with('\n') { "" } else { "\n" };
            let heading = format!("{heading}{newline}");
            let lines = prior.text.strip_prefix(&heading).unwrap().split_inclusive('\n');
            prop_assert_eq!(prior.tokens, tokens::count(&heading) + lines.map(tokens::count).sum::<u64>());
            for entry in library.entries() {
                let line = format!("[{}] {}\n", entry.id.number(), entry.text);
                prop_assert_eq!(entry.tokens, tokens::count(&line));
            }
        }
    }

    #[test]
    fn only_what_the_library_says_is_written(versions in edited(), budget in 0_u64..200) {
        let library = versions.last().unwrap();
        let said: Vec<String> =
            library.entries().map(|entry| format!("[{}] {}\n", entry.id.number(), entry.text)).collect();
        let prior = library.prior("", budget);
        prop_assert!(prior.text.split_inclusive('\n').all(|line| said.iter().any(|one| one == line)));
        prop_assert_eq!(prior.text.lines().count(), prior.ids.len());
        prop_assert_eq!(library.prior("", u64::MAX).text, said.concat());
    }

    #[test]
    fn appending_leaves_earlier_bytes(
        library in library(), more in vec(text(), 0..4), heading in heading(), budget in 0_u64..120,
    ) {
        let before = library.prior(&heading, budget);
        let longer = library.apply(more.iter().map(|text| add(text)).collect()).0;
        let after = longer.prior(&heading, budget);
        prop_assert!(after.ids.starts_with(&before.ids));
        prop_assert!(after.text.starts_with(&before.text));
    }

    #[test]
    fn who_is_left_out_did_not_fit_behind_its_betters(
        library in library(), credits in vec(-2.0..2.0_f64, 0..40), budget in 0_u64..120,
    ) {
        let library = credited(&library, &credits);
        let chosen = library.prior("", budget).ids;
        for entry in library.entries().filter(|entry| !chosen.contains(&entry.id)) {
            let better: u64 = library
                .entries()
                .filter(|other| chosen.contains(&other.id))
                .filter(|other| other.credit > entry.credit || (other.credit >= entry.credit && other.id < entry.id))
                .map(|other| other.tokens)
                .sum();
            prop_assert!(better + entry.tokens > budget);
        }
    }
}

#[test]
fn an_edit_changes_its_line_and_a_deletion_takes_it_out() {
    let one = Library::default().apply(vec![add("check units"), add("read twice"), add("draw it")]).0;
    let two = one.apply(vec![modify("E2", "read it aloud", 1), delete("E1", 1)]).0;
    assert_eq!(two.prior("", 100).text, "[E2] read it aloud\n[E3] read twice\n");
}

#[test]
fn the_bytes_are_these() {
    let library = Library::default().apply(vec![add("check units"), add("read twice")]).0;
    assert_eq!(library.prior("Learned:", 100).text, "Learned:\n[E1] check units\n[E2] read twice\n");
    assert_eq!(credited(&library, &[0.0, 1.0]).prior("", 6).text, "[E2] read twice\n");
    assert_eq!(library.prior("A heading that fills the budget alone", 6).text, "");
    assert_eq!(Library::default().prior("Learned:", 100).text, "");
}
