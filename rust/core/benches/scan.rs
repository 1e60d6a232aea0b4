//! The scans against the memory's bandwidth: `cargo bench -p tfgrpo-core --bench scan`.
//!
//! The floor is a sum over the same bytes in the same round. Figures are medians and the least;
//! the ratio is that of medians to the floor. Rounds are short, so that on a shared machine some are undisturbed.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use tfgrpo_core::scan::{Code, Scan, Vectors, inverse_norm};

const ROUNDS: usize = 21;
const CHUNK: usize = 256;
const DIMS: usize = 256;

fn main() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let most = 1_000_000;
    let codes: Vec<Code> = (0..most).map(|_| [(); 4].map(|()| random())).collect();
    let values: Vec<i8> =
        (0..most * DIMS / 8).flat_map(|_| random().to_le_bytes()).map(u8::cast_signed).collect();
    let norms: Vec<f32> = values.chunks(DIMS).map(inverse_norm).collect();
    let query = [(); 4].map(|()| random());
    let vector: Vec<i8> = (0..DIMS / 8).flat_map(|_| random().to_le_bytes()).map(u8::cast_signed).collect();

    println!("rows      scan                  median µs   least µs      GB/s   ratio");
    for rows in [10_000, 100_000, 1_000_000] {
        let codes = codes.get(..rows).unwrap();
        let values = values.get(..rows * DIMS).unwrap();
        let norms = norms.get(..rows).unwrap();
        let code_chunks = || codes.chunks(CHUNK).zip((0_u32..).step_by(CHUNK)).map(|(rows, row)| (row, rows));
        let vector_chunks = || {
            let columns = values.chunks(CHUNK * DIMS).zip(norms.chunks(CHUNK));
            columns.zip((0_u32..).step_by(CHUNK)).map(|((values, inverse_norms), first_row)| Vectors {
                first_row,
                values,
                inverse_norms,
            })
        };
        let mut distances = vec![0; rows];
        let mut dots = vec![0; rows];

        let mut scans: Vec<(String, Box<dyn FnMut() + '_>)> = Vec::new();
        let best = Scan::new();
        scans.push(("floor 32 B".into(), Box::new(|| _ = black_box(floor(codes.as_flattened())))));
        scans.push(("hamming".into(), Box::new(|| best.hamming(&query, codes, &mut distances))));
        for scan in Scan::all() {
            let run = move || _ = black_box(scan.nearest_codes(&query, code_chunks(), 128));
            scans.push((format!("codes, 128 ({})", scan.name()), Box::new(run)));
        }
        measure(rows, 32, scans);

        let mut scans: Vec<(String, Box<dyn FnMut() + '_>)> = Vec::new();
        scans.push((
            "floor 256 B".into(),
            Box::new(|| _ = black_box(floor(pulp::bytemuck::cast_slice(values)))),
        ));
        scans.push(("dots".into(), Box::new(|| best.dots(&vector, values, &mut dots))));
        for scan in Scan::all() {
            let vector = &vector;
            let run = move || _ = black_box(scan.nearest_vectors(vector, vector_chunks(), 10));
            scans.push((format!("vectors, 10 ({})", scan.name()), Box::new(run)));
        }
        measure(rows, DIMS, scans);
    }
}

/// The sum of the words, read as wide as this processor can.
fn floor(words: &[u64]) -> u64 {
    pulp::Arch::new().dispatch(|| words.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word)))
}

/// Interleaved rounds, each long enough for the clock; the first scan is the floor.
fn measure(rows: usize, width: usize, mut scans: Vec<(String, Box<dyn FnMut() + '_>)>) {
    let repeats = (10_000_000 / (rows * width)).max(1);
    let mut times = vec![Vec::new(); scans.len()];
    for _ in 0..=ROUNDS {
        for ((_, scan), times) in scans.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..repeats {
                scan();
            }
            times.push(start.elapsed().as_secs_f64() / repeats as f64);
        }
    }
    let mut floor = None;
    for ((name, _), mut times) in scans.iter().zip(times) {
        times.remove(0); // it warms up
        times.sort_by(f64::total_cmp);
        let (median, least) = (times.get(ROUNDS / 2).unwrap(), times.first().unwrap());
        let rate = (rows * width) as f64 / median / 1e9;
        let ratio = median / *floor.get_or_insert(*median);
        println!(
            "{rows:<9} {name:<20} {:>10.1} {:>10.1} {rate:>9.1} {ratio:>7.2}",
            median * 1e6,
            least * 1e6
        );
    }
}
