//! A limit that no header tells: learned from the 429s, each of which says "nothing was left when I was sent".
//!
//! Two such instants and the calls accepted between them give the rate exactly. Between them the pace creeps upward,
//! slowly at first, so that a limit that was raised is found.

/// Growth of the pace: so much a second, and so much a second squared.
const CREEP: f64 = 0.01;
const HASTE: f64 = 0.01;
const MOST_GROWTH: f64 = 8.0;
/// Seconds' worth of calls that may go at once.
const BURST: f64 = 0.05;
/// After a cut: a measured rate is nearly right, a guessed one may be far too high.
const MEASURED: f64 = 0.98;
/// So many accepted calls make a measurement.
const ENOUGH: f64 = 5.0;
/// A pace that binds nobody for so long (seconds) is forgotten.
pub(super) const FORGOTTEN: f64 = 60.0;

#[derive(Debug)]
pub(super) struct Hidden {
    base: f64,
    /// Since when the pace grows.
    since: f64,
    /// The instant at which the next call is due.
    due: f64,
    /// When a call was last refused, and how many had been accepted until then.
    empty: (f64, f64),
    /// When somebody last waited for it.
    pub(super) bound: f64,
}

impl Hidden {
    /// The first refusal: of a call sent at `at` after `accepted` others; `guess` is calls a second.
    pub(super) fn new(guess: f64, at: f64, accepted: f64, now: f64) -> Self {
        Self { base: guess.max(0.1), since: now, due: now, empty: (at, accepted), bound: now }
    }

    /// Calls a second.
    pub(super) fn pace(&self, now: f64) -> f64 {
        let time = (now - self.since).max(0.0);
        self.base * (1.0 + time * (CREEP + HASTE * time)).min(MOST_GROWTH)
    }

    pub(super) fn ready_at(&self, now: f64) -> f64 {
        let burst = if self.pace(now) * BURST > 1.0 { BURST } else { 0.0 };
        self.due - burst
    }

    pub(super) fn take(&mut self, now: f64) {
        self.due = self.due.max(now) + 1.0 / self.pace(now);
    }

    pub(super) fn give_back(&mut self, now: f64) {
        self.due -= 1.0 / self.pace(now);
    }

    /// Another refusal, of a call sent at `at` after `accepted` others; `resume` is when calls may go again.
    pub(super) fn cut(&mut self, at: f64, accepted: f64, now: f64, resume: f64) {
        let (from, before) = self.empty;
        let (span, count) = (at - from, accepted - before);
        if span > 0.0 && count >= ENOUGH {
            self.base = MEASURED * count / span;
        } else {
            self.base = 0.5 * self.pace(now);
        }
        self.base = self.base.max(0.1);
        self.empty = (at, accepted);
        self.hold(resume);
        self.due = self.due.max(resume);
    }

    /// The pace does not grow before `until`.
    pub(super) fn hold(&mut self, until: f64) {
        self.since = self.since.max(until);
    }
}
