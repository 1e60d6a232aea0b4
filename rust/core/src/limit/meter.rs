//! One limit of the provider, as the headers of its responses tell it.
//!
//! A meter keeps a bucket of its own. A reading says what was left when its call arrived; the difference to what the
//! meter thought then is what it corrects by, whatever was sent since. Only calls sent later than the last believed
//! one are believed: the others know less.

/// Which limit a reading is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Calls.
    Requests,
    /// Tokens in and out together.
    Tokens,
    /// Tokens in.
    InputTokens,
    /// Tokens out.
    OutputTokens,
}

impl Kind {
    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Requests, Self::Tokens, Self::InputTokens, Self::OutputTokens];
}

/// What one response says of one limit; `None` where it does not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Which limit.
    pub kind: Kind,
    /// The whole of it.
    pub limit: Option<f64>,
    /// What is left.
    pub remaining: Option<f64>,
    /// Seconds until the whole is there again.
    pub reset: Option<f64>,
    /// Seconds that the whole is for; a minute where it is not said.
    pub window: Option<f64>,
}

/// When a call was sent, how much had been sent then, itself included, and what the meter thought was left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) at: f64,
    pub(super) sent: f64,
    /// What was left without the corrections that readings made; NaN where there was no meter yet.
    pub(super) thought: f64,
}

/// A rate is measured over at least so many seconds.
const SPAN: f64 = 1.0;
/// Calls cross on their way: they may arrive so much (seconds) earlier than they seem to.
const SLACK: f64 = 0.02;
const FIRST_GUARD: f64 = 0.02;
const LONGEST_GUARD: f64 = 2.0;
const MOST_RESERVE: f64 = 4.0;

#[derive(Debug)]
pub(super) struct Meter {
    limit: f64,
    /// What is left now, as far as is known: a bucket, or a window that refills at once.
    level: f64,
    at: f64,
    /// The sum of what readings have corrected.
    corrected: f64,
    /// How much had been sent before the call whose reading was believed last.
    newest: f64,
    whole_at: f64,
    /// The most and the least that was ever left.
    capacity: f64,
    lowest: f64,
    per_second: f64,
    /// Where the measurement of the rate began: the mark, what was left, when the whole was to be there.
    base: (Mark, f64, f64),
    measured: bool,
    /// It refills at once, at `whole_at`.
    window: bool,
    guard: f64,
    /// So many calls' worth is left untouched: readings and arrivals cross.
    reserve: f64,
}

impl Meter {
    /// A meter from its first reading, of the call at `mark`; `sent` is the total of now. `None` if it says too little.
    pub(super) fn new(reading: &Reading, amount: f64, mark: Mark, now: f64, sent: f64) -> Option<Self> {
        let left = known(reading.remaining)?;
        let limit = limit_of(reading).unwrap_or(left + amount);
        if limit < 1.0 {
            return None;
        }
        let per_second = limit / known(reading.window).filter(|window| *window > 0.0).unwrap_or(60.0);
        let whole_at = mark.at + known(reading.reset).unwrap_or((limit - left).max(0.0) / per_second);
        let mut meter = Self {
            limit,
            level: left,
            at: mark.at,
            corrected: 0.0,
            newest: mark.sent,
            whole_at,
            capacity: left + amount,
            lowest: left,
            per_second,
            base: (mark, left, whole_at),
            measured: false,
            window: false,
            guard: FIRST_GUARD,
            reserve: 1.0,
        };
        meter.level -= sent - mark.sent;
        meter.advance(now, sent);
        Some(meter)
    }

    /// What it permits a second in the long run.
    pub(super) fn per_second(&self) -> f64 {
        self.per_second
    }

    /// It was seen to fall by what we sent: it is no constant.
    pub(super) fn is_alive(&self) -> bool {
        self.capacity - self.lowest > 3.0
    }

    /// A call leaves. Returns what its mark has to remember.
    pub(super) fn send(&mut self, amount: f64) -> f64 {
        self.level -= amount;
        self.level - self.corrected
    }

    /// The call at `mark` used other than was expected: the difference was not sent, or was sent besides.
    pub(super) fn settle(&mut self, expected: f64, used: f64, mark: Mark) {
        if mark.sent > self.base.0.sent {
            self.base.0.sent += expected - used;
        }
    }

    /// A response of the call at `mark`. `refused`: it was a 429.
    pub(super) fn read(&mut self, reading: &Reading, amount: f64, mark: Mark, refused: bool) {
        let Some(left) = known(reading.remaining) else {
            return;
        };
        if refused && mark.sent > self.base.0.sent {
            self.base.0.sent += amount; // it took nothing, so it does not count as sent since then
        }
        if mark.sent <= self.newest || mark.thought.is_nan() {
            return; // of a call sent before the one that was believed last: it knows less
        }
        if let Some(limit) = limit_of(reading).filter(|limit| (*limit - self.limit).abs() > 1e-9) {
            self.per_second *= limit / self.limit;
            self.limit = limit;
            self.capacity = self.capacity.min(limit);
            self.base.0.at = f64::INFINITY; // what was measured before is of another limit
        }
        if refused && left < amount {
            // It had promised more: what crossed is more than we thought.
            self.reserve = (self.reserve + 0.5).min(MOST_RESERVE);
            if self.window {
                self.guard = (2.0 * self.guard).min(LONGEST_GUARD);
            }
        }
        self.capacity = self.capacity.max(left + amount);
        self.lowest = self.lowest.min(left);
        self.whole_at = known(reading.reset)
            .map_or(mark.at + (self.limit - left).max(0.0) / self.per_second, |reset| mark.at + reset);
        let error = left - (mark.thought + self.corrected);
        self.corrected += error;
        self.level = (self.level + error).min(self.capacity);
        self.newest = mark.sent;
        self.measure(left, mark);
    }

    /// Measures the rate, or finds a fixed window.
    fn measure(&mut self, left: f64, mark: Mark) {
        let (from, from_left, from_whole_at) = self.base;
        let span = mark.at - from.at;
        if !span.is_finite() || span < 0.0 {
            self.base = (mark, left, self.whole_at);
            return;
        }
        let sent = mark.sent - from.sent;
        let came = left - from_left + sent;
        let moved = (self.whole_at - from_whole_at).abs();
        if span >= 0.2 && sent >= 3.0 {
            // Within a window nothing comes back, and its end stands still while we send.
            let still = moved <= (0.1 * span).max(0.01);
            if still && came.abs() <= (0.1 * sent).max(1.0) {
                self.window = true;
            } else if !still && moved < 0.5 * self.limit / self.per_second {
                self.window = false;
            }
        }
        if span < SPAN {
            return;
        }
        // Near the whole a bucket overflows: what came is less than what might have.
        let spilling = left.min(from_left) > 0.9 * self.capacity;
        if !self.window && !spilling {
            let per_second = (came / span).max(0.05 * self.limit / 60.0);
            self.per_second = if self.measured { 0.5 * (self.per_second + per_second) } else { per_second };
            self.measured = true;
        }
        self.base = (mark, left, self.whole_at);
    }

    /// Time passes: a bucket fills, a window that has ended is whole again. `sent` is the total of now.
    pub(super) fn advance(&mut self, now: f64, sent: f64) {
        if self.window {
            if now >= self.whole_at + self.guard {
                (self.level, self.newest, self.whole_at) = (self.limit, sent, f64::INFINITY);
                self.base.0.at = f64::INFINITY;
            }
        } else if self.level < self.capacity {
            self.level = (self.level + self.per_second * (now - self.at).max(0.0)).min(self.capacity);
        }
        self.at = self.at.max(now);
    }

    /// The first instant at which `amount` may be sent, if `pending` is about to be.
    ///
    /// `idle`: with nothing in flight no response will tell more, so a call goes when the whole should be there.
    pub(super) fn ready_at(&self, amount: f64, pending: f64, idle: bool) -> f64 {
        let reserve = if self.window {
            amount * (self.reserve - 1.0) // within a window nothing comes back: the readings are exact
        } else {
            amount * self.reserve + SLACK * self.per_second
        };
        let need = (amount + reserve.min(0.25 * self.capacity)).min(0.9 * self.capacity);
        let lacking = need + pending - self.level;
        let ready_at = if lacking <= 0.0 {
            f64::NEG_INFINITY
        } else if self.window {
            self.whole_at + self.guard
        } else {
            self.at + lacking / self.per_second
        };
        if idle && ready_at > self.whole_at {
            return self.whole_at;
        }
        if idle && ready_at == f64::INFINITY { f64::NEG_INFINITY } else { ready_at }
    }
}

/// The whole, where it is told; less than one call or one token is none.
fn limit_of(reading: &Reading) -> Option<f64> {
    known(reading.limit).filter(|limit| *limit >= 1.0)
}

/// A number that says something.
fn known(value: Option<f64>) -> Option<f64> {
    value.filter(|number| number.is_finite() && *number >= 0.0)
}
