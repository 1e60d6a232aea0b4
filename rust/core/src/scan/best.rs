//! The best of a stream of scores. The score and the row make one number each, so ties need no extra work.

use super::simd::BLOCK;
use crate::invariant::promised;

/// Keeps the best of a stream of similarities: the greatest, and of equal ones the lower rows. The order in which
/// they come makes no difference. What is no number is the least similar.
#[derive(Debug, Clone)]
pub struct Best {
    limit: usize,
    /// Ranks, of which the `limit` smallest count.
    kept: Vec<u64>,
    /// What ranks above it is not among them.
    bound: u64,
}

impl Best {
    /// Keeps `limit`.
    pub fn new(limit: usize) -> Self {
        Self { limit, kept: Vec::new(), bound: u64::MAX }
    }

    /// Takes one.
    #[inline]
    pub fn push(&mut self, similarity: f32, row: u32) {
        let rank = rank(similarity, row);
        if rank <= self.bound && self.limit > 0 {
            self.kept.push(rank);
            if self.kept.len() >= self.limit.saturating_mul(2).max(32) {
                self.tighten();
            }
        }
    }

    /// What is less similar is not among the best; no number if everything still may be.
    pub fn threshold(&self) -> f32 {
        similarity(self.bound)
    }

    /// The similarities and rows, the best first.
    pub fn into_sorted(mut self) -> Vec<(f32, u32)> {
        self.tighten();
        self.kept.sort_unstable();
        self.kept.into_iter().map(|rank| (similarity(rank), row(rank))).collect()
    }

    fn tighten(&mut self) {
        let Some(last) = self.limit.checked_sub(1).filter(|last| *last < self.kept.len()) else {
            return;
        };
        let (_, &mut bound, _) = self.kept.select_nth_unstable(last);
        self.bound = bound;
        self.kept.truncate(self.limit);
    }
}

/// One number that orders by similarity, the greatest first, and then by row.
fn rank(similarity: f32, row: u32) -> u64 {
    // Adding 0 makes one zero of both. The bits of a float order like a sign and a magnitude.
    let bits = (similarity + 0.0).to_bits();
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    let descending = if similarity.is_nan() { u32::MAX } else { !ascending };
    u64::from(descending) << 32 | u64::from(row)
}

fn similarity(rank: u64) -> f32 {
    let ascending = !((rank >> 32) as u32);
    f32::from_bits(if ascending >> 31 == 0 { !ascending } else { ascending & !(1 << 31) })
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is the row")]
fn row(rank: u64) -> u32 {
    rank as u32
}

/// The smallest distances. These are small numbers, so the nearest are found by counting.
pub struct Nearest {
    limit: usize,
    /// What comes in row order must be nearer: so near are at least `limit` already, and ties go to the lower row.
    pub bound: u16,
    /// How many came at each distance.
    counts: [usize; DISTANCES],
    /// How many came nearer than `bound`.
    nearer: usize,
    /// (distance, row) as one number.
    kept: Vec<u64>,
}

/// From 0 to 256.
const DISTANCES: usize = 257;

impl Nearest {
    /// Keeps `limit`, which is not 0.
    pub fn new(limit: usize) -> Self {
        Self { limit, bound: 257, counts: [0; DISTANCES], nearer: 0, kept: Vec::new() }
    }

    /// Takes one.
    #[inline]
    pub fn push(&mut self, distance: u16, row: u32) {
        self.kept.push(u64::from(distance) << 32 | u64::from(row));
        if distance >= self.bound {
            return;
        }
        if let Some(count) = self.counts.get_mut(usize::from(distance)) {
            *count += 1;
            self.nearer += 1;
        }
        while self.nearer >= self.limit {
            self.bound -= 1;
            self.nearer -=
                promised(self.counts.get(usize::from(self.bound)).copied(), "a bound is a distance");
        }
    }

    /// The distances and rows, the nearest first.
    #[expect(clippy::cast_possible_truncation, reason = "distance and row were put together in `push`")]
    pub fn into_sorted(mut self) -> Vec<(u16, u32)> {
        let bound = u64::from(self.bound);
        self.kept.retain(|pair| pair >> 32 <= bound);
        self.kept.sort_unstable();
        self.kept.truncate(self.limit);
        self.kept.into_iter().map(|pair| ((pair >> 32) as u16, pair as u32)).collect()
    }
}

/// Calls `take` with those of the scores, at most `BLOCK`, that `may` be taken. Most may not, so vectors sift them.
#[inline(always)]
pub fn sift<S>(scores: &[S], first_row: u32, may: impl Fn(&S) -> bool, mut take: impl FnMut(&S, u32)) {
    let mut flags = [0_u8; BLOCK];
    for (flag, score) in flags.iter_mut().zip(scores) {
        *flag = u8::from(may(score));
    }
    let (words, _) = flags.as_chunks::<8>();
    if words.iter().fold(0, |any, word| any | u64::from_le_bytes(*word)) == 0 {
        return;
    }
    let mut row = first_row;
    for (word, scores) in words.iter().zip(scores.chunks(8)) {
        let mut word = u64::from_le_bytes(*word);
        while word != 0 {
            let at = word.trailing_zeros() / 8;
            word &= word - 1;
            if let Some(score) = scores.get(at as usize) {
                take(score, row.wrapping_add(at));
            }
        }
        row = row.wrapping_add(8);
    }
}
