//! The default embedding: exact, in any order of the words, and from a table that damage cannot get past.
#![allow(missing_docs, clippy::float_cmp, clippy::indexing_slicing)] // the sums are exact

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tfgrpo_core::embed::{DIMENSIONS, Table, code, embed, knows, quantise};
use tfgrpo_core::text::key;

const WORDS: &[u8] = include_bytes!("../assets/words.bin");

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(vec!["check", "the", "units", "before", "you", "answer", "1984", "café", "量", "zzyzx"])
            .prop_map(str::to_owned),
        1 => "[a-z]{1,40}",
        1 => "[0-9]{1,12}",
        1 => "\\PC{1,6}",
    ]
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

proptest! {
    #[test]
    fn any_text_has_a_vector_of_length_1_or_0(text in any::<String>(), words in vec(word(), 0..30)) {
        for text in [text, words.join(" ")] {
            for text in [key(&text), text] {
                let vector = embed(&text);
                let norm = dot(&vector, &vector).sqrt();
                prop_assert!((norm - 1.0).abs() < 1e-5 || norm == 0.0, "{}", norm);
                prop_assert_eq!(vector, embed(&text));
            }
        }
    }

    #[test]
    fn the_order_of_the_words_makes_no_difference(
        (words, shuffled) in vec(word(), 0..700).prop_flat_map(|words| (Just(words.clone()), Just(words).prop_shuffle())),
    ) {
        prop_assert_eq!(embed(&key(&words.join(" "))), embed(&key(&shuffled.join(" "))));
    }

    #[test]
    fn a_text_is_the_same_said_twice_or_between_marks(words in vec(word(), 1..20)) {
        let text = key(&words.join(" "));
        let (once, twice) = (embed(&text), embed(&format!("({text}); {text}!")));
        prop_assert!(once.iter().zip(&twice).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn what_is_known_has_a_vector(word in word()) {
        if knows(&word) {
            prop_assert!(embed(&word).iter().any(|x| *x != 0.0));
        }
    }

    #[test]
    fn quantising_errs_by_half_a_step(vector in vec(-1e30_f32..1e30, 0..400)) {
        let (values, inverse) = quantise(&vector);
        let most = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let step = f64::from(most) / 127.0;
        prop_assert_eq!(values.len(), vector.len());
        for (value, x) in values.iter().zip(&vector) {
            prop_assert!((f64::from(*value) * step - f64::from(*x)).abs() <= step * 0.500_001);
        }
        let square: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
        prop_assert!(most == 0.0 || (f64::from(inverse) * square.sqrt() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_int8_cosine_is_close_to_the_true_one(a in vec(word(), 1..20), b in vec(word(), 1..20)) {
        let (a, b) = (key(&a.join(" ")), key(&b.join(" ")));
        let ((p, p_inverse), (q, q_inverse)) = (quantise(&embed(&a)), quantise(&embed(&b)));
        let product: i32 = p.iter().zip(&q).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum();
        let cosine = f64::from(product) * f64::from(p_inverse) * f64::from(q_inverse);
        prop_assert!((cosine - dot(&embed(&a), &embed(&b))).abs() < 0.02);
    }

    #[test]
    fn a_code_has_a_bit_for_each_positive_value(values in vec(any::<i8>(), 0..400)) {
        let code = code(&values);
        for i in 0..256 {
            let expected = values.get(i).is_some_and(|value| *value > 0);
            prop_assert_eq!(code[i / 64] >> (i % 64) & 1 == 1, expected);
        }
    }
}

proptest! {
    // Each case reads 10 MB.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_flipped_bit_or_a_cut_is_refused(at in any::<Index>(), early in 0..64_usize, bit in 0..8_u32, cut in any::<Index>()) {
        let mut bytes = WORDS.to_vec();
        for at in [early, at.index(bytes.len())] {
            bytes[at] ^= 1 << bit;
            prop_assert!(Table::parse(&bytes).is_err());
            bytes[at] ^= 1 << bit;
        }
        prop_assert!(Table::parse(&bytes).is_ok());
        bytes.truncate(cut.index(WORDS.len()));
        prop_assert!(Table::parse(&bytes).is_err());
    }

    #[test]
    fn bytes_that_are_no_table_are_refused(bytes in vec(any::<u8>(), 0..200), head in 0..64_usize) {
        prop_assert!(Table::parse(&bytes).is_err());
        let mut forged = WORDS[..head].to_vec();
        forged.extend(bytes);
        prop_assert!(Table::parse(&forged).is_err());
    }
}

#[test]
fn kin_are_nearer_than_strangers() {
    let near = |a: &str, b: &str| dot(&embed(a), &embed(b));
    let lesson = "check the units before you give the final answer";
    let kin = near(lesson, "verify measurement units prior to answering");
    let stranger = near(lesson, "the cat sleeps on a warm stove");
    assert!(kin > stranger + 0.25, "{kin} {stranger}");
    let lesson_without = "check units before give final answer";
    assert!(near(lesson, lesson_without) > 0.95, "function words must weigh little");
    assert_eq!(embed(lesson).len(), DIMENSIONS);
}

#[test]
fn a_text_without_end_is_read_in_linear_time() {
    for text in ["a".repeat(1 << 20), "x9".repeat(1 << 19), "é".repeat(1 << 19), "漢".repeat(1 << 19)] {
        let vector = embed(&text);
        assert!((dot(&vector, &vector) - 1.0).abs() < 1e-5);
    }
}
