//! Sums, norms, int8 forms and sign codes of vectors, compiled for each instruction set.

#![allow(clippy::inline_always)] // what is compiled for several instruction sets must be inlined into each

use crate::invariant::promised;

/// The length of the vectors of the default embedding.
pub const DIMENSIONS: usize = 256;
/// How many rows are added at once: few enough that no i32 overflows, as each adds at most 128 * 65535 < 2^23.
pub(super) const BATCH: usize = 32;

/// Rows that wait to be added, and the exact sum of those that were: every integer below 2^53 is an f64.
pub(super) struct Sum<'a> {
    waiting: [(&'a [i8; DIMENSIONS], i32); BATCH],
    count: usize,
    total: [f64; DIMENSIONS],
}

/// A function on slices as what `dispatch` compiles for each instruction set. A closure will not do: it is compiled
/// once, for the least machine, and then called.
macro_rules! dispatched {
    ($name:ident($($field:ident: $type:ty),*) -> $output:ty = $function:ident) => {
        struct $name<'a>($($type),*);

        impl pulp::WithSimd for $name<'_> {
            type Output = $output;

            #[inline(always)]
            fn with_simd<S: pulp::Simd>(self, _: S) -> $output {
                let Self($($field),*) = self;
                $function($($field),*)
            }
        }
    };
}

dispatched!(AddRows(rows: &'a [(&'a [i8; DIMENSIONS], i32)], total: &'a mut [f64; DIMENSIONS]) -> () = add_rows);
dispatched!(Normalise(total: &'a [f64; DIMENSIONS]) -> [f32; DIMENSIONS] = normalise);
dispatched!(Quantise(vector: &'a [f32], values: &'a mut [i8]) -> f32 = quantise_lanes);
dispatched!(Code(values: &'a [i8]) -> [u64; 4] = code_lanes);

static NOTHING: [i8; DIMENSIONS] = [0; DIMENSIONS];

impl<'a> Sum<'a> {
    pub fn new() -> Self {
        Self { waiting: [(&NOTHING, 0); BATCH], count: 0, total: [0.0; DIMENSIONS] }
    }

    pub fn push(&mut self, values: &'a [i8; DIMENSIONS], weight: i32) {
        if self.count == BATCH {
            self.flush();
        }
        if let Some(place) = self.waiting.get_mut(self.count) {
            *place = (values, weight);
            self.count += 1;
        }
    }

    fn flush(&mut self) {
        let waiting = promised(self.waiting.get(..self.count), "no more rows wait than have a place");
        let total = &mut self.total;
        pulp::Arch::new().dispatch(AddRows(waiting, total));
        self.count = 0;
    }

    pub fn finish(mut self) -> [f32; DIMENSIONS] {
        let waiting = promised(self.waiting.get(..self.count), "no more rows wait than have a place");
        let total = &mut self.total;
        pulp::Arch::new().dispatch(AddRows(waiting, total));
        pulp::Arch::new().dispatch(Normalise(total))
    }
}

/// The vector at length 1. Inlined like [`add_rows`].
#[inline(always)]
fn normalise(total: &[f64; DIMENSIONS]) -> [f32; DIMENSIONS] {
    let mut lanes = [0.0_f64; 8]; // a fixed shape of the sum, whatever the width of the machine's vectors
    for eight in total.as_chunks::<8>().0 {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane += value * value;
        }
    }
    let norm = lanes.iter().sum::<f64>().sqrt();
    let inverse = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    #[allow(clippy::cast_possible_truncation)] // rounding to f32 is what is wanted
    total.map(|value| (value * inverse) as f32)
}

/// Inlined into each instruction set that `dispatch` chooses from. A part of 64 columns at a time stays in registers.
#[inline(always)]
fn add_rows(rows: &[(&[i8; DIMENSIONS], i32)], total: &mut [f64; DIMENSIONS]) {
    const PART: usize = 64;
    for (part, total) in total.as_chunks_mut::<PART>().0.iter_mut().enumerate() {
        let mut sums = [0_i32; PART];
        for (values, weight) in rows {
            if let Some(values) = values.as_chunks::<PART>().0.get(part) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += i32::from(*value) * weight;
                }
            }
        }
        for (total, sum) in total.iter_mut().zip(&sums) {
            *total += f64::from(*sum);
        }
    }
}

/// The int8 form of a vector of any length, `round(x * 127 / max|x|)` with halves to even, and one over its length, so
/// that cosine = dot * inverse * inverse. The inverse of the zero vector is 0. Values that are not finite count as 0.
pub fn quantise(vector: &[f32]) -> (Vec<i8>, f32) {
    let mut values = vec![0; vector.len()];
    let inverse = pulp::Arch::new().dispatch(Quantise(vector, &mut values));
    (values, inverse)
}

#[inline(always)]
fn quantise_lanes(vector: &[f32], values: &mut [i8]) -> f32 {
    const LANES: usize = 16;
    /// 1.5 * 2^52: a small number added to it leaves its nearest integer (halves to even) in the lowest bits. `round`
    /// is a call for each value.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let finite = |x: f32| if x.is_finite() { x } else { 0.0 };
    let mut lanes = [0.0_f32; LANES]; // a maximum is the same in any order, and in lanes it needs no waiting
    for part in vector.chunks(LANES) {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane = lane.max(finite(*x).abs());
        }
    }
    let most = lanes.iter().fold(0.0_f32, |most, x| most.max(*x));
    if most == 0.0 {
        return 0.0;
    }
    // In f64, since 127 / most may be beyond an f32.
    let scale = 127.0 / f64::from(most);
    for (value, x) in values.iter_mut().zip(vector) {
        let exact = f64::from(finite(*x)) * scale;
        #[allow(clippy::cast_possible_truncation)] // the lowest byte is the number, which is at most 127
        {
            *value = (exact + ROUND).to_bits() as i8;
        }
    }
    // 2^31 / 127^2 is far above the length of a part.
    let square: i64 = values
        .chunks(4096)
        .map(|part| i64::from(part.iter().map(|value| i32::from(*value) * i32::from(*value)).sum::<i32>()))
        .sum();
    #[allow(clippy::cast_possible_truncation)] // rounding to f32 is what is wanted
    {
        (1.0 / (square as f64).sqrt()) as f32
    }
}

/// The sign code: bit i is set if value i is greater than 0. The first 256 values count; missing ones give 0.
pub fn code(values: &[i8]) -> [u64; 4] {
    pulp::Arch::new().dispatch(Code(values))
}

#[inline(always)]
fn code_lanes(values: &[i8]) -> [u64; 4] {
    let mut code = [0_u64; 4];
    for (word, values) in code.iter_mut().zip(values.chunks(64)) {
        for (bit, value) in values.iter().enumerate() {
            *word |= u64::from(*value > 0) << bit;
        }
    }
    code
}
