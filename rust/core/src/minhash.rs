//! `MinHash` signatures of words and bigrams: the lexical tier, which finds copies and small edits.
//!
//! Broder 1997. 64 slots of 16 bits. Two texts of Jaccard similarity J agree in a slot with probability close to J;
//! 16 bands of 4 slots make them candidates with probability 1 − (1 − J⁴)¹⁶: 0.64 at J = 0.5, 0.89 at 0.6,
//! 0.99 at 0.7.

use pulp::{Arch, Simd, WithSimd};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::invariant::promised;
use crate::text;

/// Slots of a signature.
pub const SLOTS: usize = 64;
/// Bands that are looked up; a pair that agrees in all slots of one band is a candidate.
pub const BANDS: usize = 16;
const WIDTH: usize = SLOTS / BANDS;

/// The signature of a text.
pub type Signature = [u16; SLOTS];

/// Multipliers and offsets of the slots' hash functions: odd, and the same on every machine.
const SALTS: ([u32; SLOTS], [u32; SLOTS]) = salts();

#[allow(clippy::cast_possible_truncation, clippy::indexing_slicing)] // evaluated while compiling
const fn salts() -> ([u32; SLOTS], [u32; SLOTS]) {
    let (mut factors, mut offsets) = ([0; SLOTS], [0; SLOTS]);
    let mut slot = 0;
    while slot < SLOTS {
        // SplitMix64 (Steele et al. 2014): well-mixed bits of a counter.
        let mut bits = (slot as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        factors[slot] = bits as u32 | 1;
        offsets[slot] = (bits >> 32) as u32;
        slot += 1;
    }
    (factors, offsets)
}

/// Makes signatures; holds what the machine can do.
#[derive(Debug, Clone, Copy)]
pub struct Signer(Arch);

impl Default for Signer {
    fn default() -> Self {
        Self(Arch::new())
    }
}

impl Signer {
    /// Signs without special instructions: the twin that tests compare with.
    #[doc(hidden)]
    pub const fn plain() -> Self {
        Self(Arch::Scalar)
    }

    /// The signature of a folded text: of the set of its words and of its pairs of neighbouring words.
    pub fn sign(self, folded: &str) -> Signature {
        let mut least = Least { arch: self.0, hashes: [u32::MAX; SLOTS], waiting: [0; WAITING], count: 0 };
        let mut previous = None;
        for word in text::words(folded) {
            let hash = xxh3_64(word.as_bytes());
            least.take(mixed(hash));
            if let Some(previous) = previous {
                least.take(mixed(bigram(previous, hash)));
            }
            previous = Some(hash);
        }
        if previous.is_none() {
            // A text of nothing but dividing marks is like no other that is not the same.
            least.take(mixed(xxh3_64_with_seed(folded.as_bytes(), 1)));
        }
        least.signature()
    }
}

/// How many shingles are taken at once: as many as a sentence has.
const WAITING: usize = 48;

/// The smallest hash of each slot so far, and shingles that are still to be hashed.
struct Least {
    arch: Arch,
    hashes: [u32; SLOTS],
    waiting: [u32; WAITING],
    count: usize,
}

impl Least {
    #[inline]
    fn take(&mut self, shingle: u32) {
        if self.count == WAITING {
            self.flush();
        }
        if let Some(place) = self.waiting.get_mut(self.count) {
            *place = shingle;
            self.count += 1;
        }
    }

    fn flush(&mut self) {
        let shingles = promised(self.waiting.get(..self.count), "no more shingles wait than have a place");
        self.arch.dispatch(Minima { shingles, least: &mut self.hashes });
        self.count = 0;
    }

    fn signature(mut self) -> Signature {
        self.flush();
        // The smallest hashes start with zeros; what tells them apart is at their other end.
        self.hashes.map(|hash| (hash.wrapping_mul(0x85eb_ca6b) >> 16) as u16)
    }
}

fn bigram(first: u64, second: u64) -> u64 {
    (first.rotate_left(29) ^ second).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[allow(clippy::cast_possible_truncation)] // the upper half is folded into the lower
fn mixed(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

/// Lowers the smallest hash of each slot by some shingles.
struct Minima<'a> {
    shingles: &'a [u32],
    least: &'a mut [u32; SLOTS],
}

impl WithSimd for Minima<'_> {
    type Output = ();

    // Inlined, it is compiled for the features of the machine.
    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (factors, offsets) = SALTS;
        let mut least = *self.least;
        for &shingle in self.shingles {
            for ((least, factor), offset) in least.iter_mut().zip(factors).zip(offsets) {
                *least = (*least).min(shingle.wrapping_mul(factor).wrapping_add(offset));
            }
        }
        *self.least = least;
    }
}

/// One hash a band: texts that share one are candidates for being near-duplicates.
pub fn bands(signature: &Signature) -> impl Iterator<Item = u32> {
    signature.chunks_exact(WIDTH).zip(1_u64..).map(|(slots, band)| {
        mixed(slots.iter().fold(band, |hash, slot| {
            (hash ^ u64::from(*slot)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
        }))
    })
}

/// The share of equal slots: an estimate of the Jaccard similarity, in steps of 1/64.
pub fn overlap(a: &Signature, b: &Signature) -> f32 {
    let equal = a.iter().zip(b).fold(0_u16, |count, (a, b)| count + u16::from(a == b));
    f32::from(equal) / 64.0
}

/// The hash of a whole folded text among the bands' hashes.
pub fn whole(folded: &str) -> u32 {
    mixed(xxh3_64(folded.as_bytes()))
}
