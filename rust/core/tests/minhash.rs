//! Signatures estimate the Jaccard similarity, and bands propose pairs as often as they promise.
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use tfgrpo_core::minhash::{Signer, bands, overlap};
use tfgrpo_core::text;

/// Words that occur once, so that changing one changes a word and two pairs.
fn words(seed: u64, count: usize) -> Vec<String> {
    (0..count as u64).map(|n| format!("w{}", seed.wrapping_mul(1_000_003).wrapping_add(n * 7919))).collect()
}

fn shingles(text: &str) -> BTreeSet<String> {
    let words: Vec<&str> = text::words(text).collect();
    let pairs = words.windows(2).map(|pair| pair.join(" "));
    words.iter().map(ToString::to_string).chain(pairs).collect()
}

fn jaccard(a: &str, b: &str) -> f64 {
    let (a, b) = (shingles(a), shingles(b));
    a.intersection(&b).count() as f64 / a.union(&b).count() as f64
}

/// Pairs of texts of which `changed` words differ.
fn pairs(length: usize, changed: usize, count: u64) -> impl Iterator<Item = (String, String)> {
    (0..count).map(move |seed| {
        let a = words(seed, length);
        let mut b = a.clone();
        for n in 0..changed {
            let place = (n * length / changed.max(1) + seed as usize) % length;
            *b.get_mut(place).unwrap() = format!("x{seed}y{n}");
        }
        (a.join(" "), b.join(" "))
    })
}

#[test]
fn the_estimate_is_unbiased_and_as_sharp_as_64_slots_allow() {
    for (length, changed) in [(20, 1), (20, 3), (20, 6), (40, 20), (8, 2)] {
        let (mut bias, mut square, count) = (0.0, 0.0, 400_u64);
        for (a, b) in pairs(length, changed, count) {
            let signer = Signer::default();
            let error = f64::from(overlap(&signer.sign(&a), &signer.sign(&b))) - jaccard(&a, &b);
            bias += error / count as f64;
            square += error * error / count as f64;
        }
        let (a, b) = pairs(length, changed, 1).next().unwrap();
        let j = jaccard(&a, &b);
        let deviation = (j * (1.0 - j) / 64.0).sqrt();
        assert!(bias.abs() < 5.0 * deviation / (count as f64).sqrt() + 0.004, "bias {bias} at J = {j}");
        assert!(
            square.sqrt() < 1.35 * deviation,
            "spread {} at J = {j}, expected {deviation}",
            square.sqrt()
        );
    }
}

#[test]
fn bands_propose_as_often_as_promised() {
    for (length, changed) in [(20, 1), (20, 2), (20, 3), (20, 4), (20, 5)] {
        let count = 500;
        let (mut proposed, mut promised) = (0.0, 0.0);
        for (a, b) in pairs(length, changed, count) {
            let signer = Signer::default();
            let of = |text: &str| bands(&signer.sign(text)).collect::<BTreeSet<u32>>();
            proposed += f64::from(u8::from(!of(&a).is_disjoint(&of(&b)))) / count as f64;
            promised += (1.0 - (1.0 - jaccard(&a, &b).powi(4)).powi(16)) / count as f64;
        }
        let noise = (promised * (1.0 - promised) / count as f64).sqrt();
        assert!(
            proposed > promised - 5.0 * noise - 0.02,
            "{proposed} of the pairs at {changed} changes, not {promised}"
        );
    }
}

proptest! {
    #[test]
    fn every_instruction_set_signs_alike(text in "\\PC{0,80}") {
        let key = text::key(&text);
        prop_assert_eq!(Signer::plain().sign(&key), Signer::default().sign(&key));
    }

    #[test]
    fn equal_sets_have_equal_signatures(words in proptest::collection::vec("[a-z]{1,4}", 1..6)) {
        // The cycle repeated has the same words and pairs as the cycle closed once more.
        let cycle = words.join(" ");
        let (twice, thrice) = (format!("{cycle} {cycle}"), format!("{cycle} {cycle} {cycle}"));
        prop_assert_eq!(Signer::default().sign(&twice), Signer::default().sign(&thrice));
    }
}
