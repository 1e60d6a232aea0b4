//! The library file: round trip, digest, refusals.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{add, library, operation};
use proptest::collection::vec;
use proptest::prelude::*;
use tfgrpo_core::{Error, Library};

proptest! {
    #[test]
    fn a_file_reads_back_to_the_same_library(
        library in library(),
        credit in prop_oneof![Just(-0.0), -1e300..1e300_f64, -1.0..1.0_f64],
    ) {
        let credits = library.entries().map(|entry| (entry.id.to_string(), credit)).collect();
        let library = library.with_credit(&credits).unwrap();
        let bytes = library.to_json().unwrap();
        let again = Library::from_json(&bytes).unwrap();
        prop_assert_eq!(&again, &library);
        prop_assert_eq!(again.to_json().unwrap(), bytes);
    }

    #[test]
    fn credit_leaves_version_and_digest(library in library(), credit in -1e9..1e9_f64) {
        let credits = library.entries().map(|entry| (entry.id.to_string(), credit)).collect();
        let credited = library.with_credit(&credits).unwrap();
        prop_assert_eq!((credited.version(), credited.digest()), (library.version(), library.digest()));
        prop_assert!(credited.entries().all(|entry| entry.credit.to_bits() == credit.to_bits()));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..60), cut in 0_usize..4000, library in library()) {
        prop_assert!(Library::from_json(&bytes).is_err());
        let mut file = library.to_json().unwrap();
        file.truncate(cut.min(file.len() - 2));
        prop_assert!(Library::from_json(&file).is_err());
    }

    #[test]
    fn libraries_with_one_digest_say_the_same(
        library in library(),
        first in vec(operation(), 0..3),
        second in vec(operation(), 0..3),
    ) {
        let (a, b) = (library.apply(first).0, library.apply(second).0);
        prop_assert_eq!(a.digest() == b.digest(), a == b);
    }
}

fn file() -> String {
    String::from_utf8(Library::default().apply(vec![add("check units")]).0.to_json().unwrap()).unwrap()
}

#[test]
fn an_edited_file_is_refused_by_its_digest() {
    let error = Library::from_json(file().replace("check", "forget").as_bytes()).unwrap_err();
    assert!(matches!(&error, Error::Digest { stated, .. } if file().contains(stated)));
}

#[test]
fn token_counts_are_derived_and_not_believed() {
    assert!(file().contains("\"tokens\": 6"));
    let lying = file().replace("\"tokens\": 6", "\"tokens\": 1");
    assert_eq!(Library::from_json(lying.as_bytes()).unwrap(), Library::from_json(file().as_bytes()).unwrap());
}

#[test]
fn another_format_is_named() {
    let newer = file().replace("\"format_version\": 3", "\"format_version\": 4, \"mood\": \"new\"");
    assert_eq!(
        Library::from_json(newer.as_bytes()).unwrap_err(),
        Error::FormatVersion { found: 4, expected: 3 }
    );
    for wrong in [file().replace("tfgrpo-library", "cookbook"), file().replace("\"text\"", "\"lyrics\"")] {
        assert!(matches!(Library::from_json(wrong.as_bytes()), Err(Error::Format(_))));
    }
}

#[test]
fn impossible_content_is_refused_even_under_its_right_digest() {
    for (from, to) in [
        ("\"next_id\": 2", "\"next_id\": 1"),
        ("\"next_id\": 2", "\"next_id\": 18446744073709551615"),
        ("\"changed\": 1", "\"changed\": 4"),
        ("\"text\": \"check units\"", "\"text\": \"check\\nunits\""),
        (
            "\"operation\": \"add\",\n          \"text\": \"check",
            "\"operation\": \"add\",\n          \"text\": \"chick",
        ),
    ] {
        let forged = file().replace(from, to);
        assert_ne!(forged, file(), "{from} is not in the file");
        let sealed = match Library::from_json(forged.as_bytes()) {
            Err(Error::Digest { stated, actual }) => forged.replace(&stated, &actual),
            _ => forged, // refused before the digest is looked at, or the check below tells
        };
        assert!(matches!(Library::from_json(sealed.as_bytes()), Err(Error::Format(_))), "{to} was accepted");
    }
}

#[test]
fn credit_goes_to_the_living_and_is_a_number() {
    let library = Library::from_json(file().as_bytes()).unwrap();
    let give = |id: &str, credit| library.with_credit(&BTreeMap::from([(id.to_owned(), credit)]));
    assert_eq!(give("E2", 1.0).unwrap_err(), Error::UnknownExperience("E2".into()));
    assert!(matches!(give("E1", f64::NAN), Err(Error::Credit { .. })));
}

/// A file that the first version wrote: E2 was revised and E4 withdrawn, and its log was never compacted.
const SECOND: &[u8] = include_bytes!("files/format2.json");

#[test]
fn a_file_of_format_version_2_keeps_its_digest_and_its_bytes_until_it_changes() {
    let library = Library::from_json(SECOND).unwrap();
    let text = std::str::from_utf8(SECOND).unwrap();
    assert!(text.contains("\"retired\"") && text.contains(library.digest()));
    assert_eq!(library.to_json().unwrap(), SECOND);
    assert_eq!(library.apply(vec![]).0.to_json().unwrap(), SECOND);
    let prior = library.prior("", 1000);
    assert!(!prior.text.contains("[E4]") && !prior.text.contains("withdrawn"));
    assert!(prior.text.contains("[E2] Write a mass in kg.\n[E3] "));

    let next = library.apply(vec![add("draw it")]).0;
    let written = String::from_utf8(next.to_json().unwrap()).unwrap();
    assert!(written.contains("\"format_version\": 3") && !written.contains("retired"));
    assert_eq!(Library::from_json(written.as_bytes()).unwrap(), next);
    assert_eq!(next.next_id(), library.next_id() + 1);
    let ids: Vec<String> = next.entries().map(|entry| entry.id.to_string()).collect();
    assert_eq!(ids.iter().filter(|id| id.contains('-')).count(), 1); // what is added has a tag, what was there has none
    assert!(ids.contains(&"E1".to_owned()));
}

#[test]
fn a_log_is_refused_where_the_format_has_none() {
    let text = std::str::from_utf8(SECOND).unwrap();
    let newer = text.replace("\"format_version\": 2", "\"format_version\": 3");
    assert!(matches!(Library::from_json(newer.as_bytes()), Err(Error::Format(_))));
}
