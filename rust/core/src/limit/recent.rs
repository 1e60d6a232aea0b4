//! How many calls were sent lately.

use crate::invariant::promised;
const SLOTS: usize = 40;
/// Seconds of one slot: ten seconds in all.
const WIDTH: f64 = 0.25;
/// Slots that "lately" looks back over.
const LATELY: u64 = 8;

/// Counts of the last ten seconds, by quarter seconds.
#[derive(Debug)]
pub(super) struct Recent {
    counts: [(u64, u32); SLOTS],
    first: Option<f64>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { counts: [(u64::MAX, 0); SLOTS], first: None }
    }
}

impl Recent {
    pub(super) fn count(&mut self, now: f64) {
        self.first.get_or_insert(now);
        let slot = slot(now);
        let place = promised(usize::try_from(slot % SLOTS as u64).ok(), "there are few slots");
        if let Some(entry) = self.counts.get_mut(place) {
            if entry.0 != slot {
                *entry = (slot, 0);
            }
            entry.1 += 1;
        }
    }

    /// Over the last ten seconds, or since the first call.
    pub(super) fn per_second(&self, now: f64) -> f64 {
        self.over(now, SLOTS as u64)
    }

    /// Over the last two seconds.
    pub(super) fn per_second_lately(&self, now: f64) -> f64 {
        self.over(now, LATELY)
    }

    fn over(&self, now: f64, slots: u64) -> f64 {
        let Some(first) = self.first else {
            return 0.0;
        };
        let last = slot(now);
        let inside = |slot: u64| slot <= last && slot + slots > last;
        let count: u32 = self.counts.iter().filter(|(slot, _)| inside(*slot)).map(|(_, count)| count).sum();
        let start = ((last + 1).saturating_sub(slots) as f64 * WIDTH).max(first);
        f64::from(count) / (now - start).max(WIDTH)
    }
}

// Time is finite and never negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn slot(now: f64) -> u64 {
    (now / WIDTH) as u64
}
