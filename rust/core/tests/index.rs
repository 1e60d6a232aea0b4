//! The index file: the same library as without it, and no damage goes unseen.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{add, edited, sentence};
use proptest::prelude::*;
use tfgrpo_core::{Error, Lender, Library};

/// Bytes that begin at a multiple of eight, as a mapped file does at one of 4,096.
struct Aligned(Vec<u64>, usize);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0).get(..self.1).unwrap()
    }
}

fn lent(bytes: &[u8]) -> Arc<dyn Lender> {
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words).get_mut(..bytes.len()).unwrap().copy_from_slice(bytes);
    Arc::new(Aligned(words, bytes.len()))
}

proptest! {
    #[test]
    fn with_its_index_a_library_is_the_same(versions in edited(), asked in sentence()) {
        let library = versions.last().unwrap();
        let index = lent(&library.to_index());
        let again = Library::from_json_and_index(&library.to_json().unwrap(), &index).unwrap();
        prop_assert_eq!(&again, library);
        prop_assert_eq!(again.judge(&asked, None, 5), library.judge(&asked, None, 5));
        prop_assert_eq!(again.prior("", 60), library.prior("", 60));
        prop_assert_eq!(again.to_index(), library.to_index());
        // What is read in place can be changed like any other.
        let id = again.entries().next().map(|entry| entry.id.to_string()).unwrap_or_default();
        let change = || vec![add(&asked), common::delete(&id, again.version())];
        prop_assert_eq!(again.apply(change()), library.apply(change()));
    }

    #[test]
    fn an_index_of_another_version_is_passed_over(versions in edited()) {
        let (first, last) = (versions.first().unwrap(), versions.last().unwrap());
        let again = Library::from_json_and_index(&last.to_json().unwrap(), &lent(&first.to_index())).unwrap();
        prop_assert_eq!(&again, last);
    }

    #[test]
    fn every_flipped_bit_is_seen(versions in edited(), place in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let library = versions.last().unwrap();
        let mut bytes = library.to_index();
        let place = place.index(bytes.len());
        *bytes.get_mut(place).unwrap() ^= 1 << bit;
        let read = Library::from_json_and_index(&library.to_json().unwrap(), &lent(&bytes));
        prop_assert!(matches!(read, Err(Error::Index(_))), "byte {} of {}", place, bytes.len());
    }

    #[test]
    fn no_truncation_and_no_bytes_make_it_panic(
        versions in edited(), cut in any::<prop::sample::Index>(), noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let library = versions.last().unwrap();
        let (json, bytes) = (library.to_json().unwrap(), library.to_index());
        let short = bytes.get(..cut.index(bytes.len())).unwrap();
        for damaged in [short, &noise, &[bytes.as_slice(), &noise, &[0]].concat()] {
            prop_assert!(Library::from_json_and_index(&json, &lent(damaged)).is_err());
        }
    }
}
