//! A configured rate, and the ramp of a provider of which nothing is known yet.

/// A rate with a burst, kept as the instant at which the bucket will be full again (the generic cell rate algorithm):
/// whether a call may go is one comparison with an instant, and polling at exactly that instant passes it.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    /// The time that an empty bucket takes to fill.
    depth: f64,
    /// The instant at which it is full.
    full_at: f64,
    /// Since when it has not been full.
    busy_from: f64,
}

impl Bucket {
    /// A burst of one second's worth, at least 1.
    pub(super) fn per_minute(per_minute: u64) -> Self {
        let per_second = per_minute as f64 / 60.0;
        Self::new(per_second, per_second.max(1.0))
    }

    fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, depth: burst / per_second, full_at: f64::NEG_INFINITY, busy_from: f64::INFINITY }
    }

    pub(super) fn per_second(&self) -> f64 {
        self.per_second
    }

    /// The first instant at which `amount` may be taken. What exceeds the burst needs a full bucket, and leaves
    /// it in debt.
    pub(super) fn ready_at(&self, amount: f64) -> f64 {
        self.full_at - (self.depth - (amount / self.per_second).min(self.depth))
    }

    pub(super) fn take(&mut self, amount: f64, now: f64) {
        if self.full_at <= now {
            self.busy_from = now;
        }
        self.full_at = self.full_at.max(now) + amount / self.per_second;
    }

    /// Corrects a `take` at `then` by the difference between what was used and what was taken.
    ///
    /// What comes back to a bucket that was full meanwhile has come back already, by time.
    pub(super) fn settle(&mut self, taken: f64, used: f64, then: f64) {
        if used > taken || then >= self.busy_from {
            self.full_at += (used - taken) / self.per_second;
        }
    }
}

/// How the ramp starts: a few calls at once, then so many a second, doubled every so many seconds.
const FIRST_BURST: f64 = 8.0;
const FIRST_RATE: f64 = 32.0;
const DOUBLING: f64 = 0.25;
/// Beyond this rate (calls/s) the ramp is over: nothing of ours is that fast.
const LAST_RATE: f64 = 32_000.0;

/// A start that doubles by time, not by round trips: refusals come back at once, answers may take half a minute.
#[derive(Debug)]
pub(super) struct Ramp {
    bucket: Bucket,
    double_at: f64,
}

impl Ramp {
    pub(super) fn new() -> Self {
        Self { bucket: Bucket::new(FIRST_RATE, FIRST_BURST), double_at: f64::NEG_INFINITY }
    }

    pub(super) fn ready_at(&self) -> f64 {
        self.bucket.ready_at(1.0)
    }

    pub(super) fn take(&mut self, now: f64) {
        self.bucket.take(1.0, now);
    }

    pub(super) fn give_back(&mut self, then: f64) {
        self.bucket.settle(1.0, 0.0, then);
    }

    /// A call waits for the ramp: it doubles as long as that is so. Returns whether it is over.
    pub(super) fn wanted(&mut self, now: f64) -> bool {
        if now < self.double_at {
            return false;
        }
        // Of the time in which nobody waited nothing is known, so it does not count.
        if now < self.double_at + DOUBLING {
            let rate = 2.0 * self.bucket.per_second;
            self.bucket = Bucket::new(rate, self.bucket.depth * rate);
            self.bucket.take(self.bucket.depth * rate, now);
        }
        self.double_at = now + DOUBLING;
        self.bucket.per_second > LAST_RATE
    }

    /// Growth stands still for so long.
    pub(super) fn hold(&mut self, until: f64) {
        self.double_at = self.double_at.max(until);
    }
}
