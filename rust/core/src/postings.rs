//! Which experiences have a hash: sorted runs that are shared between snapshots and merge as they grow.
//!
//! The log-structured merge of O'Neil et al. 1996, in memory. A change adds one run; a run takes up those before it
//! that are not much longer, so there are O(log n) of them and a posting is moved O(log n) times in its life.
//! Nothing is deleted: whoever looks up has to verify what is found, and merging drops what is dead.

use std::sync::Arc;

use crate::column::Column;
use crate::invariant::promised;

/// One posting as a number: the hash above, the experience below, so that numbers sort by (hash, experience).
fn posting(hash: u32, number: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(number)
}

/// How much longer a run is than the next: more makes look-ups cheaper, which visit each run, and growing dearer.
const GROWTH: usize = 4;

/// Postings of one snapshot.
#[derive(Debug, Clone, Default)]
pub struct Postings {
    /// Each sorted and more than `GROWTH` times as long as the one after it.
    runs: Vec<Arc<Column<u64>>>,
}

impl Postings {
    /// Adds postings; `alive` tells which experiences are worth keeping when runs merge.
    pub fn extend(
        &mut self,
        postings: impl IntoIterator<Item = (u32, u32)>,
        alive: impl Fn(u32) -> bool + Copy,
    ) {
        let mut run: Vec<u64> = postings.into_iter().map(|(hash, number)| posting(hash, number)).collect();
        if run.is_empty() {
            return;
        }
        run.sort_unstable();
        run.dedup();
        let mut taken = Vec::new();
        let mut length = run.len();
        while let Some(last) = self.runs.pop_if(|last| last.len() < length.saturating_mul(GROWTH)) {
            length += last.len();
            taken.push(last);
        }
        // The shortest first, so that a posting of a short run does not travel with every long one.
        for older in taken {
            run = merged(&older, &run, alive);
        }
        run.shrink_to_fit();
        self.runs.push(Arc::new(Column::Own(run)));
    }

    /// At most `cap` experiences with this hash for each run, the oldest first.
    pub fn find(&self, hash: u32, cap: usize) -> impl Iterator<Item = u32> {
        self.runs.iter().flat_map(move |run| {
            let start = lower_bound(run, posting(hash, 0));
            let found = promised(run.get(start..), "a search ends within its run");
            found
                .iter()
                .take(cap)
                .take_while(move |found| *found >> 32 == u64::from(hash))
                .map(|found| number(*found))
        })
    }

    /// For each of many hashes, sorted, what `find` gives: pairs of its place and an experience.
    pub fn join<'a>(&'a self, hashes: &'a [u32], cap: usize) -> impl Iterator<Item = (usize, u32)> + 'a {
        self.runs.iter().flat_map(move |run| {
            let mut start = 0;
            hashes.iter().enumerate().flat_map(move |(place, hash)| {
                let rest = promised(run.get(start..), "a search ends within its run");
                start += gallop(rest, posting(*hash, 0));
                let found = promised(run.get(start..), "a search ends within its run");
                let same = found.iter().take(cap).take_while(move |found| *found >> 32 == u64::from(*hash));
                same.map(move |found| (place, number(*found)))
            })
        })
    }

    /// All postings as one run: what a file holds.
    pub(crate) fn gather(&self, alive: impl Fn(u32) -> bool + Copy) -> Vec<u64> {
        self.runs.iter().rev().fold(Vec::new(), |gathered, run| merged(run, &gathered, alive))
    }

    /// The postings of a file; `None` if they are not sorted.
    pub(crate) fn lent(run: Column<u64>) -> Option<Self> {
        run.is_sorted().then(|| Self { runs: vec![Arc::new(run)] })
    }

    /// The number of postings, dead ones included.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[allow(clippy::cast_possible_truncation)] // the lower half is meant
fn number(posting: u64) -> u32 {
    posting as u32
}

/// As `lower_bound`, for something that is not far from the start.
fn gallop(run: &[u64], wanted: u64) -> usize {
    let mut step = 1;
    while run.get(step).is_some_and(|found| *found < wanted) {
        step *= 2;
    }
    let low = step / 2;
    low + promised(run.get(low..run.len().min(step + 1)), "a window lies within its run")
        .partition_point(|found| *found < wanted)
}

/// Hashes are spread evenly, so the place of one can be guessed: the search starts there and widens.
#[allow(clippy::cast_possible_truncation)] // a product of a length and a fraction of 2^32 is a place below the length
fn lower_bound(run: &[u64], wanted: u64) -> usize {
    let guess = ((run.len() as u128 * u128::from(wanted >> 32)) >> 32) as usize;
    let mut step = 16;
    let (mut low, mut high) = (guess, guess);
    while low > 0 && run.get(low).is_none_or(|found| *found >= wanted) {
        low = low.saturating_sub(step);
        step *= 2;
    }
    step = 16;
    while high < run.len() && run.get(high).is_some_and(|found| *found < wanted) {
        high = (high + step).min(run.len());
        step *= 2;
    }
    let window = promised(run.get(low..high), "a window lies within its run");
    low + window.partition_point(|found| *found < wanted)
}

fn merged(a: &[u64], b: &[u64], alive: impl Fn(u32) -> bool) -> Vec<u64> {
    let mut result = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().copied().peekable(), b.iter().copied().peekable());
    loop {
        let next = match (a.peek(), b.peek()) {
            (Some(left), Some(right)) if left <= right => a.next(),
            (Some(_), None) => a.next(),
            _ => b.next(),
        };
        let Some(next) = next else { return result };
        if result.last() != Some(&next) && alive(number(next)) {
            result.push(next);
        }
    }
}
