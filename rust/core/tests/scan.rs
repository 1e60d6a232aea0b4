//! The scans: each instruction set gives what plain loops give, and the best are those that sorting finds.
#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;
use tfgrpo_core::scan::{Best, Code, Scan, Vectors, inverse_norm};

/// Few bits, so that distances tie often, or any.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0_u64..4, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn code() -> impl Strategy<Value = Code> {
    [word(), word(), word(), word()]
}

fn value() -> impl Strategy<Value = i8> {
    prop_oneof![2 => any::<i8>(), 1 => Just(i8::MIN), 1 => Just(i8::MAX), 1 => Just(0)]
}

/// A query and rows of the same length, one after another. The usual 256 dimensions, and others.
fn vectors() -> impl Strategy<Value = (Vec<i8>, Vec<i8>)> {
    let dims = prop_oneof![Just(256_usize), 1_usize..100, 1_usize..300];
    (dims, 0_usize..14).prop_flat_map(|(dims, rows)| (vec(value(), dims), vec(value(), dims * rows)))
}

/// Few similarities, so that they tie: rows of two dimensions and a few lengths.
fn tied() -> impl Strategy<Value = (Vec<i8>, Vec<i8>)> {
    (vec(-1..=1_i8, 2), (0_usize..600).prop_flat_map(|rows| vec(-1..=1_i8, 2 * rows)))
}

fn distance(left: &Code, right: &Code) -> u16 {
    let bits = |word: u64| (0..64).filter(|bit| word >> bit & 1 == 1).count();
    left.iter().zip(right).map(|(left, right)| u16::try_from(bits(left ^ right)).unwrap()).sum()
}

fn dot(left: &[i8], right: &[i8]) -> i32 {
    let sum: i64 = left.iter().zip(right).map(|(left, right)| i64::from(*left) * i64::from(*right)).sum();
    i32::try_from(sum).unwrap()
}

/// Cuts `items` at the places that `cuts` says; gives the first row of each piece and the piece.
fn cut<'a, T>(items: &'a [T], cuts: &[usize]) -> Vec<(u32, &'a [T])> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (items.len() + 1)).collect();
    at.extend([0, items.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| (u32::try_from(ends[0]).unwrap(), &items[ends[0]..ends[1]])).collect()
}

fn nearest(query: &Code, rows: &[Code], limit: usize) -> Vec<(u16, u32)> {
    let mut all: Vec<(u16, u32)> = (0..).zip(rows).map(|(row, code)| (distance(query, code), row)).collect();
    all.sort_unstable();
    all.truncate(limit);
    all
}

fn most_similar(query: &[i8], rows: &[i8], limit: usize) -> Vec<(f32, u32)> {
    let similarity = |row: &[i8]| dot(query, row) as f32 * inverse_norm(row) * inverse_norm(query) + 0.0;
    let mut all: Vec<(f32, u32)> = rows.chunks(query.len()).map(similarity).zip(0..).collect();
    all.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
    all.truncate(limit);
    all
}

/// The same with the columns of vectors.
fn pieces<'a>(dims: usize, rows: &'a [i8], norms: &'a [f32], cuts: &[usize]) -> Vec<Vectors<'a>> {
    let piece = |(first_row, inverse_norms): (u32, &'a [f32])| {
        let start = first_row as usize * dims;
        Vectors { first_row, values: &rows[start..start + inverse_norms.len() * dims], inverse_norms }
    };
    cut(norms, cuts).into_iter().map(piece).collect()
}

proptest! {
    #[test]
    fn distances_are_those_of_a_plain_loop(query in code(), rows in vec(code(), 0..150)) {
        let expected: Vec<u16> = rows.iter().map(|row| distance(&query, row)).collect();
        for scan in Scan::all() {
            let mut out = vec![u16::MAX; rows.len()];
            scan.hamming(&query, &rows, &mut out);
            prop_assert_eq!(&out, &expected, "{}", scan.name());
        }
    }

    #[test]
    fn products_are_those_of_a_plain_loop((query, rows) in vectors()) {
        let expected: Vec<i32> = rows.chunks(query.len()).map(|row| dot(&query, row)).collect();
        for scan in Scan::all() {
            let mut out = vec![i32::MAX; expected.len()];
            scan.dots(&query, &rows, &mut out);
            prop_assert_eq!(&out, &expected, "{}", scan.name());
        }
    }

    #[test]
    fn nearest_codes_are_those_that_sorting_finds(
        query in code(), rows in vec(code(), 0..300), cuts in vec(any::<usize>(), 0..8),
        limit in prop_oneof![0_usize..10, 0_usize..400], reverse in any::<bool>(),
    ) {
        let expected = nearest(&query, &rows, limit);
        let mut chunks = cut(&rows, &cuts);
        if reverse {
            chunks.reverse();
        }
        for scan in Scan::all() {
            let found = scan.nearest_codes(&query, chunks.iter().copied(), limit);
            prop_assert_eq!(&found, &expected, "{}", scan.name());
        }
    }

    #[test]
    fn nearest_vectors_are_those_that_sorting_finds(
        (query, rows) in prop_oneof![vectors(), tied()], cuts in vec(any::<usize>(), 0..8),
        limit in prop_oneof![0_usize..10, 0_usize..400], reverse in any::<bool>(),
    ) {
        let norms: Vec<f32> = rows.chunks(query.len()).map(inverse_norm).collect();
        let expected = most_similar(&query, &rows, limit);
        let mut chunks = pieces(query.len(), &rows, &norms, &cuts);
        if reverse {
            chunks.reverse();
        }
        let mut given: Vec<_> =
            (0..).zip(rows.chunks(query.len())).zip(&norms).map(|((row, values), norm)| (row, values, *norm)).collect();
        let middle = cuts.first().map_or(0, |cut| cut % (given.len() + 1));
        given.rotate_left(middle);
        for scan in Scan::all() {
            let found = scan.nearest_vectors(&query, chunks.iter().copied(), limit);
            prop_assert_eq!(&found, &expected, "{}", scan.name());
            let found = scan.rank(&query, given.iter().copied(), limit);
            prop_assert_eq!(&found, &expected, "{}", scan.name());
        }
    }

    #[test]
    fn the_best_are_the_same_in_any_order(
        stream in vec(prop_oneof![-2.0..2.0_f32, Just(0.0), Just(-0.0), Just(1.0)], 0..300)
            .prop_map(|scores| scores.into_iter().zip(0_u32..).collect::<Vec<_>>())
            .prop_flat_map(|stream| (Just(stream.clone()), Just(stream).prop_shuffle())),
        limit in 0_usize..100,
    ) {
        let (stream, shuffled) = stream;
        let mut expected: Vec<(f32, u32)> = stream.iter().map(|(score, row)| (score + 0.0, *row)).collect();
        expected.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
        expected.truncate(limit);
        for stream in [stream, shuffled] {
            let mut best = Best::new(limit);
            for (score, row) in stream {
                best.push(score, row);
            }
            prop_assert!(expected.len() < limit || !expected.last().is_some_and(|last| last.0 < best.threshold()));
            prop_assert_eq!(best.into_sorted(), expected.clone());
        }
    }
}

#[test]
fn products_are_exact_at_the_extremes() {
    for scan in Scan::all() {
        for (left, right) in [(-128, -128), (-128, 127), (127, 127)] {
            let rows = vec![right; 4096 * 5];
            let mut out = [0; 5];
            scan.dots(&[left; 4096], &rows, &mut out);
            assert_eq!(out, [4096 * i32::from(left) * i32::from(right); 5], "{}", scan.name());
        }
    }
}

#[test]
fn whole_chunks_of_the_usual_size_give_the_same_as_one_by_one() {
    // 3 chunks of 256 rows and one of 100, values from a fixed sequence that repeats: there are ties.
    let values: Vec<i8> = (0..868 * 256).map(|at: i64| i8::try_from(at * at % 251 - 125).unwrap()).collect();
    let query = &values[256..512];
    let norms: Vec<f32> = values.chunks(256).map(inverse_norm).collect();
    let chunks = pieces(256, &values, &norms, &[256, 512, 768]);
    let expected = most_similar(query, &values, 50);
    for scan in Scan::all() {
        assert_eq!(scan.nearest_vectors(query, chunks.iter().copied(), 50), expected, "{}", scan.name());
    }
}

#[test]
fn what_is_no_number_comes_last() {
    let rows = [[1, 0], [0, 1], [1, 1]].concat();
    let norms = [f32::NAN, 1.0, 0.7];
    let chunk = Vectors { first_row: 7, values: &rows, inverse_norms: &norms };
    for scan in Scan::all() {
        let found: Vec<u32> =
            scan.nearest_vectors(&[1, 0], [chunk], 3).into_iter().map(|(_, row)| row).collect();
        assert_eq!(found, [9, 8, 7], "{}", scan.name());
    }
}

#[test]
fn nothing_is_found_in_nothing() {
    for scan in Scan::all() {
        assert!(scan.nearest_codes(&[0; 4], [], 3).is_empty());
        assert!(scan.nearest_vectors(&[], [], 3).is_empty());
        scan.hamming(&[0; 4], &[], &mut []);
        scan.dots(&[], &[], &mut []);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_instruction_set_of_this_processor_is_tested() {
    let names: Vec<&str> = Scan::all().into_iter().map(Scan::name).collect();
    assert!(names.contains(&"scalar"));
    assert_eq!(
        names.contains(&"x86-v3"),
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    );
    assert_eq!(names.last().copied(), Some(Scan::new().name()));
}
