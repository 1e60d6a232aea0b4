//! The inner loops of `scan`, once for each instruction set, and the choice between them at run time.
//!
//! `pulp` detects the processor and compiles what is inlined into `Level::run` for it. Most loops are plain Rust that
//! the compiler vectorises; the ones it does badly are written with pulp's safe intrinsics.

// What is not inlined into `run` is compiled for the oldest processor.
#![allow(clippy::inline_always)]

use pulp::{Arch, Simd, WithSimd};

/// Rows a kernel takes at once: results stay in registers and the first cache.
pub const BLOCK: usize = 64;
/// Dimensions a kernel takes at once; the last of them are padded with zeros.
pub const LANES: usize = 32;

/// A query of int8 scans, widened once.
pub type Wide = [[i16; LANES]];

/// What scans are made of.
pub trait Kernel: Copy {
    /// Hamming distances of `query` to the rows.
    fn distances(self, query: &[u64; 4], rows: &[[u64; 4]; BLOCK], out: &mut [u16; BLOCK]);

    /// Dot products of `query` with `N` rows of the same length.
    fn dots<const N: usize>(self, query: &Wide, rows: [&[i8]; N]) -> [i32; N];
}

/// Work that runs with any kernel.
pub trait Work {
    /// What it gives.
    type Output;

    /// Does it. Must be `inline(always)`.
    fn run<K: Kernel>(self, kernel: K) -> Self::Output;
}

/// An instruction set that this processor has.
#[derive(Debug, Clone, Copy)]
pub struct Level(Arch);

impl Level {
    /// The best one.
    pub fn best() -> Self {
        Self(Arch::new())
    }

    /// All of them, the plainest first.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self(Arch::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(pulp::x86::V3::try_new().map(|simd| Self(Arch::V3(simd))));
            all.extend(pulp::x86::V4::try_new().map(|simd| Self(Arch::V4(simd))));
        }
        #[cfg(not(target_arch = "x86_64"))]
        all.push(Self::best());
        all
    }

    /// Its name, for benches.
    pub fn name(self) -> &'static str {
        match self.0 {
            Arch::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Arch::V3(_) => "x86-v3",
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) => "x86-v4",
            _ => "vector",
        }
    }

    /// Runs the work compiled for this instruction set.
    #[inline]
    pub fn run<W: Work>(self, work: W) -> W::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Arch::V3(simd) => simd.vectorize(With { kernel: simd, work }),
            #[cfg(target_arch = "x86_64")]
            Arch::V4(simd) => simd.vectorize(With { kernel: simd, work }),
            arch => arch.dispatch(Plainly(work)),
        }
    }
}

struct With<K, W> {
    kernel: K,
    work: W,
}

impl<K: Kernel, W: Work> pulp::NullaryFnOnce for With<K, W> {
    type Output = W::Output;

    #[inline(always)]
    fn call(self) -> W::Output {
        self.work.run(self.kernel)
    }
}

struct Plainly<W>(W);

impl<W: Work> WithSimd for Plainly<W> {
    type Output = W::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> W::Output {
        self.0.run(Plain)
    }
}

/// Plain Rust, for any processor.
#[derive(Clone, Copy)]
struct Plain;

impl Kernel for Plain {
    #[inline(always)]
    fn distances(self, query: &[u64; 4], rows: &[[u64; 4]; BLOCK], out: &mut [u16; BLOCK]) {
        for (row, out) in rows.iter().zip(out) {
            *out = distance(query, row);
        }
    }

    #[inline(always)]
    fn dots<const N: usize>(self, query: &Wide, rows: [&[i8]; N]) -> [i32; N] {
        rows.map(|row| {
            let products = row.iter().zip(query.as_flattened());
            products.map(|(&left, &right)| i32::from(left) * i32::from(right)).sum()
        })
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 256")]
fn distance(query: &[u64; 4], row: &[u64; 4]) -> u16 {
    query.iter().zip(row).map(|(left, right)| (left ^ right).count_ones()).sum::<u32>() as u16
}

/// Sums `step` over blocks of `LANES` dimensions of `N` rows; the query's block is loaded once for all of them.
#[inline(always)]
fn fold<A: Copy, const N: usize>(
    zero: A,
    query: &Wide,
    rows: [&[i8]; N],
    step: impl Fn(A, &[i8; LANES], &[i16; LANES]) -> A,
) -> [A; N] {
    let mut sums = [zero; N];
    let mut blocks = rows.map(|row| row.as_chunks::<LANES>().0.iter());
    for query in query {
        for ((sum, blocks), row) in sums.iter_mut().zip(&mut blocks).zip(rows) {
            if let Some(block) = blocks.next() {
                *sum = step(*sum, block, query);
            } else {
                let mut block = [0; LANES];
                for (to, from) in block.iter_mut().zip(row.as_chunks::<LANES>().1) {
                    *to = *from;
                }
                *sum = step(*sum, &block, query);
            }
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BLOCK, Kernel, LANES, Plain, Wide, fold};
    use pulp::cast;
    use pulp::x86::{V3, V4};
    use std::arch::x86_64::{__m256i, __m512i};

    impl Kernel for V3 {
        #[inline(always)]
        fn distances(self, query: &[u64; 4], rows: &[[u64; 4]; BLOCK], out: &mut [u16; BLOCK]) {
            Plain.distances(query, rows, out);
        }

        #[inline(always)]
        fn dots<const N: usize>(self, query: &Wide, rows: [&[i8]; N]) -> [i32; N] {
            let zero: __m256i = cast([0_i32; 8]);
            let sums = fold(zero, query, rows, |sum, row: &[i8; LANES], query| {
                let row: [[i8; 16]; 2] = cast(*row);
                let query: [__m256i; 2] = cast(*query);
                row.into_iter().zip(query).fold(sum, |sum, (row, query)| {
                    let row = self.avx2._mm256_cvtepi8_epi16(cast(row));
                    self.avx2._mm256_add_epi32(sum, self.avx2._mm256_madd_epi16(row, query))
                })
            });
            // Four sums across lanes at once cost little more than one.
            if let [first, second, third, fourth] = sums.as_slice() {
                let v = self.avx2;
                let pairs = (v._mm256_hadd_epi32(*first, *second), v._mm256_hadd_epi32(*third, *fourth));
                let halves = v._mm256_hadd_epi32(pairs.0, pairs.1);
                let [low, high]: [[i32; 4]; 2] = cast(halves);
                let mut out = [0; N];
                for (out, (low, high)) in out.iter_mut().zip(low.into_iter().zip(high)) {
                    *out = low + high;
                }
                return out;
            }
            sums.map(|sum| cast::<_, [i32; 8]>(sum).iter().sum())
        }
    }

    impl Kernel for V4 {
        #[inline(always)]
        fn distances(self, query: &[u64; 4], rows: &[[u64; 4]; BLOCK], out: &mut [u16; BLOCK]) {
            let query: __m512i = cast([*query, *query]);
            let low: __m512i = cast([0x0f_u8; 64]);
            // How many bits are set in a half byte.
            let table: __m512i = cast([[0_u8, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4]; 4]);
            let zero: __m512i = cast([0_u64; 8]);
            let bw = self.avx512bw;
            let f = self.avx512f;
            let counts = |rows: &[[u64; 4]; 2]| {
                let bits = f._mm512_xor_si512(cast(*rows), query);
                let high = f._mm512_and_si512(bw._mm512_srli_epi16::<4>(bits), low);
                let low = f._mm512_and_si512(bits, low);
                let sums = bw
                    ._mm512_add_epi8(bw._mm512_shuffle_epi8(table, low), bw._mm512_shuffle_epi8(table, high));
                bw._mm512_sad_epu8(sums, zero)
            };
            for (rows, out) in rows.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<8>().0) {
                let [first, second, third, fourth]: [[[u64; 4]; 2]; 4] = cast(*rows);
                // A lane has a word's count for four pairs of rows, 16 bits each; four lanes add up to a row's.
                let low = f._mm512_or_si512(counts(&first), f._mm512_slli_epi64::<16>(counts(&second)));
                let high = f._mm512_or_si512(
                    f._mm512_slli_epi64::<32>(counts(&third)),
                    f._mm512_slli_epi64::<48>(counts(&fourth)),
                );
                let words = f._mm512_or_si512(low, high);
                let words = f._mm512_add_epi64(words, f._mm512_permutex_epi64::<0b01_00_11_10>(words));
                let words = f._mm512_add_epi64(words, f._mm512_permutex_epi64::<0b10_11_00_01>(words));
                let [even, _, _, _, odd, _, _, _]: [u64; 8] = cast(words);
                let (even, odd): ([u16; 4], [u16; 4]) = (cast(even), cast(odd));
                for (out, (even, odd)) in out.as_chunks_mut::<2>().0.iter_mut().zip(even.into_iter().zip(odd))
                {
                    *out = [even, odd];
                }
            }
        }

        #[inline(always)]
        fn dots<const N: usize>(self, query: &Wide, rows: [&[i8]; N]) -> [i32; N] {
            // The same loop 512 bits wide was measured: slower in the cache (95 to 78 µs), equal beyond it.
            V3::dots(*self, query, rows)
        }
    }
}
