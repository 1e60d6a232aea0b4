//! Scans of the columns of a library: Hamming distances of 256-bit codes, int8 dot products, and the best of them.
//!
//! A library keeps its rows in chunks, and a scan takes them as such: chunk by chunk, in any order and however they
//! are cut, the result is the same. Ties go to the lower row, which is the older experience.

// What is not inlined into `Level::run` is compiled for the oldest processor.
#![allow(clippy::inline_always)]

mod best;
mod simd;

use crate::invariant::promised;
pub use best::Best;
use best::{Nearest, sift};
use simd::{BLOCK, Kernel, LANES, Level, Wide, Work};

/// The signs of a vector, 256 bits.
pub type Code = [u64; 4];

/// A part of a library's vectors.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    /// The row of the first.
    pub first_row: u32,
    /// The vectors one after another, each as long as the query.
    pub values: &'a [i8],
    /// One over the length of each; they say how many vectors there are.
    pub inverse_norms: &'a [f32],
}

/// The scans, with the instruction set they use.
#[derive(Debug, Clone, Copy)]
pub struct Scan(Level);

impl Default for Scan {
    fn default() -> Self {
        Self::new()
    }
}

impl Scan {
    /// Scans with the best instruction set of this processor. Cheap enough to be called for each query.
    pub fn new() -> Self {
        Self(Level::best())
    }

    /// Scans with each instruction set of this processor, the plain one first: all give the same results.
    #[doc(hidden)]
    pub fn all() -> Vec<Self> {
        Level::all().into_iter().map(Self).collect()
    }

    /// The name of the instruction set.
    #[doc(hidden)]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Writes the Hamming distance of `query` to each row.
    pub fn hamming(self, query: &Code, rows: &[Code], out: &mut [u16]) {
        self.0.run(Hamming { query, rows, out });
    }

    /// Writes the dot product of `query` with each row; `rows` are vectors as long as `query`, one after another.
    /// Exact wherever the sums fit an `i32`: up to 131,071 dimensions, whatever the values. What is missing from
    /// `rows` is left as it was in `out`.
    pub fn dots(self, query: &[i8], rows: &[i8], out: &mut [i32]) {
        let query = &Query::new(query);
        self.0.run(Dots { query, rows, out });
    }

    /// The `limit` rows with the smallest distances to `query`, the nearest first.
    pub fn nearest_codes<'a>(
        self,
        query: &Code,
        chunks: impl IntoIterator<Item = (u32, &'a [Code])>,
        limit: usize,
    ) -> Vec<(u16, u32)> {
        if limit == 0 {
            return Vec::new();
        }
        self.0.run(NearestCodes { query, chunks: chunks.into_iter(), limit })
    }

    /// The `limit` rows most similar to `query`, the most similar first: every row is compared.
    pub fn nearest_vectors<'a>(
        self,
        query: &[i8],
        chunks: impl IntoIterator<Item = Vectors<'a>>,
        limit: usize,
    ) -> Vec<(f32, u32)> {
        let query = &Query::new(query);
        self.0.run(NearestVectors { query, chunks: chunks.into_iter(), limit })
    }

    /// Like `nearest_vectors`, among the given rows only: each is its number, its vector and its inverse norm.
    pub fn rank<'a>(
        self,
        query: &[i8],
        rows: impl IntoIterator<Item = (u32, &'a [i8], f32)>,
        limit: usize,
    ) -> Vec<(f32, u32)> {
        let query = &Query::new(query);
        self.0.run(Rank { query, rows: rows.into_iter(), limit })
    }
}

/// A vector that is compared with many.
struct Query {
    dims: usize,
    wide: Vec<[i16; LANES]>,
    inverse_norm: f32,
}

impl Query {
    fn new(values: &[i8]) -> Self {
        let block = |values: &[i8]| {
            let mut block = [0; LANES];
            for (to, from) in block.iter_mut().zip(values) {
                *to = i16::from(*from);
            }
            block
        };
        let wide = values.chunks(LANES).map(block).collect();
        Self { dims: values.len(), wide, inverse_norm: inverse_norm(values) }
    }

    #[inline]
    fn similarity(&self, dot: i32, inverse_norm: f32) -> f32 {
        dot as f32 * inverse_norm * self.inverse_norm
    }
}

/// One over the length of a vector; 0 for the zero vector, which is similar to none.
#[expect(clippy::cast_possible_truncation, reason = "rounded to f32 on purpose")]
pub fn inverse_norm(values: &[i8]) -> f32 {
    let square: i64 = values.iter().map(|&value| i64::from(value) * i64::from(value)).sum();
    if square == 0 { 0.0 } else { (1.0 / (square as f64).sqrt()) as f32 }
}

struct Hamming<'a> {
    query: &'a Code,
    rows: &'a [Code],
    out: &'a mut [u16],
}

impl Work for Hamming<'_> {
    type Output = ();

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) {
        let mut out = self.out.chunks_mut(BLOCK);
        blocks(kernel, self.query, self.rows, |distances| {
            for (to, from) in out.next().into_iter().flatten().zip(distances) {
                *to = *from;
            }
        });
    }
}

struct NearestCodes<'a, I> {
    query: &'a Code,
    chunks: I,
    limit: usize,
}

impl<'a, I: Iterator<Item = (u32, &'a [Code])>> Work for NearestCodes<'_, I> {
    type Output = Vec<(u16, u32)>;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Self::Output {
        let mut nearest = Nearest::new(self.limit);
        let mut end = 0;
        for (first_row, rows) in self.chunks {
            // A chunk that comes late may have lower rows than those kept, which win ties.
            let ties = u16::from(first_row < end);
            let mut row = first_row;
            blocks(kernel, self.query, rows, |distances| {
                take(&mut nearest, ties, row, distances);
                row = row.wrapping_add(count(distances));
            });
            end = end.max(row);
        }
        nearest.into_sorted()
    }
}

/// Calls `each` with the distances of at most `BLOCK` rows after another.
#[inline(always)]
fn blocks<K: Kernel>(kernel: K, query: &Code, rows: &[Code], mut each: impl FnMut(&[u16])) {
    let mut distances = [0; BLOCK];
    let (blocks, rest) = rows.as_chunks::<BLOCK>();
    for block in blocks {
        kernel.distances(query, block, &mut distances);
        each(&distances);
    }
    if !rest.is_empty() {
        let mut block = [[0; 4]; BLOCK];
        for (to, from) in block.iter_mut().zip(rest) {
            *to = *from;
        }
        kernel.distances(query, &block, &mut distances);
        each(promised(distances.get(..rest.len()), "a rest is shorter than a block"));
    }
}

/// Gives `nearest` those of the distances that may be among the nearest.
#[inline(always)]
fn take(nearest: &mut Nearest, ties: u16, first_row: u32, distances: &[u16]) {
    let bound = nearest.bound + ties;
    sift(distances, first_row, |distance| *distance < bound, |distance, row| nearest.push(*distance, row));
}

struct Dots<'a> {
    query: &'a Query,
    rows: &'a [i8],
    out: &'a mut [i32],
}

impl Work for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) {
        // A length known to the compiler saves the tests in the inner loop.
        if self.query.dims == USUAL_DIMS {
            dots(kernel, &self.query.wide, self.rows, USUAL_DIMS, self.out);
        } else {
            dots(kernel, &self.query.wide, self.rows, self.query.dims, self.out);
        }
    }
}

/// The dimensions of the default embedding.
const USUAL_DIMS: usize = 256;
/// Rows whose dot products are computed together, from as many places: memory is read faster so.
const STREAMS: usize = 4;

#[inline(always)]
fn dots<K: Kernel>(kernel: K, query: &Wide, rows: &[i8], dims: usize, out: &mut [i32]) {
    if dims == 0 {
        out.fill(0);
        return;
    }
    let each = out.len().min(rows.len() / dims) / STREAMS;
    let (a, rows) = rows.split_at(each * dims);
    let (b, rows) = rows.split_at(each * dims);
    let (c, rows) = rows.split_at(each * dims);
    let (d, rows) = rows.split_at(each * dims);
    let (out_a, out) = out.split_at_mut(each);
    let (out_b, out) = out.split_at_mut(each);
    let (out_c, out) = out.split_at_mut(each);
    let (out_d, out) = out.split_at_mut(each);
    let ab = a.chunks_exact(dims).zip(b.chunks_exact(dims));
    let cd = c.chunks_exact(dims).zip(d.chunks_exact(dims));
    let outs = out_a.iter_mut().zip(out_b).zip(out_c.iter_mut().zip(out_d));
    for (((a, b), (c, d)), ((out_a, out_b), (out_c, out_d))) in ab.zip(cd).zip(outs) {
        [*out_a, *out_b, *out_c, *out_d] = kernel.dots(query, [a, b, c, d]);
    }
    for (row, out) in rows.chunks_exact(dims).zip(out) {
        [*out] = kernel.dots(query, [row]);
    }
}

struct NearestVectors<'a, I> {
    query: &'a Query,
    chunks: I,
    limit: usize,
}

impl<'a, I: Iterator<Item = Vectors<'a>>> Work for NearestVectors<'_, I> {
    type Output = Vec<(f32, u32)>;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Self::Output {
        let mut best = Best::new(self.limit);
        for Vectors { mut first_row, values, inverse_norms } in self.chunks {
            let values = values.chunks((self.query.dims * CHUNK).max(1)).chain(std::iter::repeat(&[][..]));
            for (values, inverse_norms) in values.zip(inverse_norms.chunks(CHUNK)) {
                let mut products = [0; CHUNK];
                let out =
                    promised(products.get_mut(..inverse_norms.len()), "a chunk has at most so many rows");
                Dots { query: self.query, rows: values, out }.run(kernel);
                for (dots, inverse_norms) in products.chunks(BLOCK).zip(inverse_norms.chunks(BLOCK)) {
                    let mut similarities = [0.0; BLOCK];
                    for ((to, dot), inverse_norm) in similarities.iter_mut().zip(dots).zip(inverse_norms) {
                        *to = self.query.similarity(*dot, *inverse_norm);
                    }
                    let similarities =
                        promised(similarities.get(..inverse_norms.len()), "a block has at most so many rows");
                    let threshold = best.threshold();
                    // What is no number is for `push` to judge.
                    let may = |one: &f32| (*one >= threshold) | one.is_nan() | threshold.is_nan();
                    sift(similarities, first_row, may, |similarity, row| best.push(*similarity, row));
                    first_row = first_row.wrapping_add(count(inverse_norms));
                }
            }
        }
        best.into_sorted()
    }
}

/// How many there are of a part of a chunk.
#[expect(clippy::cast_possible_truncation, reason = "at most a chunk")]
fn count<T>(part: &[T]) -> u32 {
    part.len() as u32
}

/// The rows of a library's chunk.
const CHUNK: usize = 256;

struct Rank<'a, I> {
    query: &'a Query,
    rows: I,
    limit: usize,
}

impl<'a, I: Iterator<Item = (u32, &'a [i8], f32)>> Work for Rank<'_, I> {
    type Output = Vec<(f32, u32)>;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> Self::Output {
        let mut best = Best::new(self.limit);
        for (row, values, inverse_norm) in self.rows {
            let mut dot = [0];
            Dots { query: self.query, rows: values, out: &mut dot }.run(kernel);
            let [dot] = dot;
            best.push(self.query.similarity(dot, inverse_norm), row);
        }
        best.into_sorted()
    }
}
