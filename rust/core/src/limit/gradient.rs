//! Places at a server that never refuses but only slows down: fewer while a token takes much longer than it used to.
//!
//! The gradient of Netflix' concurrency-limits (Gradient2), with two changes: what is compared is the time a token
//! takes, since answers differ in length, and its logarithm is averaged, since a few answers take twenty times as long.

/// Weights of the newest sample in the short and in the long average.
const SHORT: f64 = 0.05;
const LONG: f64 = 0.002;
/// A token may take so many times as long before places are given up.
const TOLERANCE: f64 = 2.0;
const SMOOTHING: f64 = 0.2;
const FEWEST: f64 = 4.0;
const WARM: u64 = 100;
/// What a call costs beside its tokens, in tokens.
const OVERHEAD: f64 = 16.0;

#[derive(Debug)]
pub(super) struct Gradient {
    most: f64,
    places: f64,
    short: f64,
    long: f64,
    samples: u64,
}

impl Gradient {
    pub(super) fn new(most: u64) -> Self {
        let most = most as f64;
        Self { most, places: most, short: 0.0, long: 0.0, samples: 0 }
    }

    pub(super) fn places(&self) -> f64 {
        self.places
    }

    /// An answer of `tokens` took `seconds`, with so many calls in flight.
    pub(super) fn sample(&mut self, seconds: f64, tokens: f64, in_flight: usize) {
        if !(seconds > 0.0 && seconds.is_finite()) {
            return;
        }
        let value = (seconds / (tokens + OVERHEAD)).ln();
        self.samples += 1;
        let early = 1.0 / self.samples as f64;
        self.short += SHORT.max(early) * (value - self.short);
        self.long += LONG.max(early) * (value - self.long);
        if self.samples < WARM || (in_flight as f64) < 0.5 * self.places {
            return;
        }
        let gradient = (TOLERANCE * (self.long - self.short).exp()).clamp(0.5, 1.0);
        let wanted = self.places * gradient + self.places.sqrt();
        // One sample moves it by a part of one round of the calls in flight.
        let step = SMOOTHING / self.places.max(1.0);
        self.places = (self.places + step * (wanted - self.places)).clamp(FEWEST.min(self.most), self.most);
    }

    /// Calls ran out of time: the server is far behind.
    pub(super) fn cut(&mut self) {
        self.places = (0.7 * self.places).max(FEWEST.min(self.most));
    }
}
