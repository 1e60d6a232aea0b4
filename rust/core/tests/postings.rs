//! Postings find what was put in, whatever the order and the size of the batches.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use tfgrpo_core::postings::Postings;

/// Few hashes at both ends of the range, so that buckets fill, and any hash besides.
fn hash() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..6, (u32::MAX - 5)..=u32::MAX, any::<u32>()]
}

proptest! {
    #[test]
    fn what_was_put_in_is_found(
        batches in vec(vec((hash(), 0_u32..50), 0..40), 0..12), asked in vec(hash(), 0..20),
    ) {
        let mut postings = Postings::default();
        let mut model: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for batch in batches {
            for (hash, number) in &batch {
                model.entry(*hash).or_default().insert(*number);
            }
            postings.extend(batch, |_| true);
        }
        let mut asked: Vec<u32> = asked.into_iter().chain(model.keys().copied()).collect();
        asked.sort_unstable();
        asked.dedup();
        let expected = |hash: &u32| model.get(hash).cloned().unwrap_or_default();
        for hash in &asked {
            prop_assert_eq!(postings.find(*hash, usize::MAX).collect::<BTreeSet<u32>>(), expected(hash));
        }
        let mut joined: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
        for (place, number) in postings.join(&asked, usize::MAX) {
            joined.entry(place).or_default().insert(number);
        }
        for (place, hash) in asked.iter().enumerate() {
            prop_assert_eq!(joined.remove(&place).unwrap_or_default(), expected(hash));
        }
    }

    #[test]
    fn a_bucket_gives_its_oldest_first_and_no_more_than_the_cap(
        numbers in vec(0_u32..1000, 1..60), cap in 1_usize..8,
    ) {
        let mut postings = Postings::default();
        postings.extend(numbers.iter().map(|number| (7, *number)), |_| true);
        let oldest: BTreeSet<u32> = numbers.into_iter().collect();
        let found: Vec<u32> = postings.find(7, cap).collect();
        prop_assert_eq!(found, oldest.into_iter().take(cap).collect::<Vec<u32>>());
    }

    #[test]
    fn what_is_dead_goes_when_runs_merge_and_nothing_else_does(dead in 0_u32..9) {
        let mut postings = Postings::default();
        for number in 0..9 {
            postings.extend([(number % 3, number)], |number| number != dead);
        }
        let found: BTreeSet<u32> = (0..3).flat_map(|hash| postings.find(hash, 9).collect::<Vec<_>>()).collect();
        prop_assert!((0..9).filter(|number| *number != dead).all(|number| found.contains(&number)));
        prop_assert!(postings.len() <= 9);
    }
}
