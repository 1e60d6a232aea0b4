//! What a refused call or an overloaded provider does to the pace: cuts, pauses and a respite from growth.

use super::hidden::Hidden;
use super::{Admission, Lease};

/// Pause after the first, second, … 429 in a row that no header explains: doubling, in seconds.
const FIRST_PAUSE: f64 = 0.5;
const LONGEST_PAUSE: f64 = 60.0;
/// An overloaded provider sees no growth for so long (seconds).
const RESPITE: f64 = 15.0;

impl Admission {
    /// A 429.
    pub(super) fn cut(&mut self, lease: &Lease, retry_after: Option<f64>) {
        self.limited += 1;
        self.refused += 1.0;
        self.gradient = None;
        let asked = retry_after.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        if lease.episode < self.episode {
            self.pause(asked.unwrap_or(0.0));
            return;
        }
        if lease.explained {
            // The meter knows when there will be enough; the provider may know of more.
            self.pause(asked.unwrap_or(0.0));
            return;
        }
        self.episode += 1;
        self.strikes = self.strikes.saturating_add(1);
        let growing = (FIRST_PAUSE * 2.0_f64.powi(self.strikes - 1)).min(LONGEST_PAUSE);
        self.pause(asked.unwrap_or(growing));
        let at = lease.sent.map_or(self.now, |[mark, ..]| mark.at);
        let (now, resume) = (self.now, self.paused_until);
        if let Some(hidden) = &mut self.hidden {
            hidden.cut(at, lease.accepted, now, resume);
        } else {
            // What got through lately, burst included: half of it while we were ramping up.
            let share = if self.ramp.is_some() { 0.5 } else { 0.7 };
            let guess = share * self.recent.per_second_lately(now);
            let mut hidden = Hidden::new(guess, at, lease.accepted, now);
            hidden.hold(resume);
            self.hidden = Some(hidden);
        }
        self.ramp = None;
    }

    /// The provider is overloaded: nothing grows for a while.
    pub(super) fn respite(&mut self, retry_after: Option<f64>) {
        let until = self.now + RESPITE;
        if let Some(hidden) = &mut self.hidden {
            hidden.hold(until);
        }
        if let Some(ramp) = &mut self.ramp {
            ramp.hold(until);
        }
        self.pause(retry_after.filter(|seconds| seconds.is_finite() && *seconds >= 0.0).unwrap_or(0.0));
    }

    fn pause(&mut self, seconds: f64) {
        self.paused_until = self.paused_until.max(self.now + seconds);
    }
}
