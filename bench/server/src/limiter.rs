//! Who is let through. Without a clock: time is an argument, in seconds since the first request.

use crate::settings::{Headers, Limit};

/// What a call is told.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It is served.
    Served,
    /// 429; another call could go after so many seconds.
    Limited(f64),
}

/// Token bucket or fixed window of calls, and a bucket of tokens.
pub struct Limiter {
    limit: Limit,
    rate: Option<f64>,
    calls: f64,
    tokens: f64,
    clock: f64,
    changed: usize,
    stranger_calls: u64,
    window: u64,
    used: f64,
    permitted: f64,
    permitted_tokens: f64,
    /// What the stranger took.
    pub stranger_took: u64,
}

impl Limiter {
    /// Full buckets.
    pub fn new(mut limit: Limit) -> Self {
        limit.burst = limit.burst.max(1.0);
        Self {
            rate: limit.rate,
            calls: limit.burst,
            tokens: limit.token_burst,
            clock: 0.0,
            changed: 0,
            stranger_calls: 0,
            window: 0,
            used: 0.0,
            permitted: if limit.window.is_none() { limit.burst } else { 0.0 },
            permitted_tokens: limit.token_burst,
            stranger_took: 0,
            limit,
        }
    }

    /// A call of so many tokens arrives.
    pub fn arrive(&mut self, now: f64, tokens: f64) -> Verdict {
        self.advance(now);
        let mut wait: f64 = 0.0;
        if let Some(rate) = self.rate {
            if let Some(length) = self.limit.window {
                if self.used + 1.0 > rate * length + 1e-9 {
                    wait = (self.window + 1) as f64 * length - now;
                }
            } else if self.calls < 1.0 - 1e-9 {
                wait = (1.0 - self.calls) / rate;
            }
        }
        if let Some(minute) = self.limit.tokens_per_minute
            && self.tokens < tokens.min(self.limit.token_burst)
        {
            wait = wait.max((tokens.min(self.limit.token_burst) - self.tokens) / (minute / 60.0));
        }
        if wait > 0.0 {
            return Verdict::Limited(wait);
        }
        if self.rate.is_some() {
            self.calls -= 1.0;
            self.used += 1.0;
        }
        self.tokens -= tokens;
        Verdict::Served
    }

    /// What was permitted up to now: calls and tokens. Of a fixed window that is not over, what was used of it.
    pub fn permitted(&mut self, now: f64) -> (f64, f64) {
        self.advance(now);
        let running = if self.limit.window.is_some() { self.used } else { 0.0 };
        (self.permitted + running - self.stranger_took as f64, self.permitted_tokens)
    }

    /// The headers of a response at this instant.
    pub fn headers(&self, out: &mut Vec<u8>) {
        if self.limit.headers == Headers::Hidden {
            return;
        }
        let lie = self.limit.headers == Headers::Lie;
        if let Some(rate) = self.rate {
            let (limit, left, reset) = match self.limit.window {
                Some(length) => {
                    let whole = rate * length;
                    (whole, whole - self.used, (self.window + 1) as f64 * length - self.clock)
                }
                None => (rate * 60.0, self.calls, (self.limit.burst - self.calls) / rate),
            };
            head(out, "requests", limit, left, reset, lie);
        }
        if let Some(minute) = self.limit.tokens_per_minute {
            let reset = (self.limit.token_burst - self.tokens) / (minute / 60.0);
            head(out, "tokens", minute, self.tokens, reset, lie);
        }
    }

    /// Goes on to `now`, through every change and every call of the stranger on the way.
    fn advance(&mut self, now: f64) {
        while self.clock < now {
            let change = self.limit.changes.get(self.changed).map_or(f64::INFINITY, |change| change.at);
            let stranger = self.stranger_next();
            let boundary = match self.limit.window {
                Some(length) => (self.window + 1) as f64 * length,
                None => f64::INFINITY,
            };
            let next = now.min(change).min(stranger).min(boundary).max(self.clock);
            self.refill(next - self.clock);
            self.clock = next;
            if change <= next {
                self.rate = Some(self.limit.changes[self.changed].rate);
                self.changed += 1;
            }
            if boundary <= next {
                self.permitted += self.rate.unwrap_or(0.0) * self.limit.window.unwrap_or(0.0);
                self.window += 1;
                self.used = 0.0;
            }
            if stranger <= next {
                self.stranger_calls += 1;
                if self.calls >= 1.0 {
                    self.calls -= 1.0;
                    self.stranger_took += 1;
                }
            }
        }
    }

    fn refill(&mut self, seconds: f64) {
        if let Some(rate) = self.rate
            && self.limit.window.is_none()
        {
            self.calls = (self.calls + rate * seconds).min(self.limit.burst);
            self.permitted += rate * seconds;
        }
        if let Some(minute) = self.limit.tokens_per_minute {
            self.tokens = (self.tokens + minute / 60.0 * seconds).min(self.limit.token_burst);
            self.permitted_tokens += minute / 60.0 * seconds;
        }
    }

    /// When the stranger calls next: evenly while it is there.
    fn stranger_next(&self) -> f64 {
        let Some(stranger) = &self.limit.stranger else { return f64::INFINITY };
        let each = (stranger.rate * stranger.on).floor().max(1.0);
        let round = (self.stranger_calls as f64 / each).floor();
        let place = self.stranger_calls as f64 - round * each;
        round * (stranger.on + stranger.off) + stranger.off + place / stranger.rate
    }
}

fn head(out: &mut Vec<u8>, what: &str, limit: f64, left: f64, reset: f64, lie: bool) {
    let (limit, left, reset) = if lie { (2.0 * limit, 2.0 * limit, 0.0) } else { (limit, left, reset) };
    let text = format!(
        "x-ratelimit-limit-{what}: {}\r\nx-ratelimit-remaining-{what}: {}\r\nx-ratelimit-reset-{what}: {}\r\n",
        limit.round(),
        // A hair below a whole number is that number: the buckets add up fractions.
        (left + 1e-6).floor().max(0.0),
        duration(reset)
    );
    out.extend_from_slice(text.as_bytes());
}

/// A duration as providers write it: "120ms", "2.5s", "1m2.5s".
pub fn duration(seconds: f64) -> String {
    // Rounded up: who waits so long must find what was promised.
    let millis = (seconds.max(0.0) * 1000.0).ceil();
    if millis < 1000.0 {
        return format!("{millis}ms");
    }
    let minutes = (millis / 60_000.0).floor();
    let rest = (millis - minutes * 60_000.0) / 1000.0;
    if minutes > 0.0 { format!("{minutes}m{rest}s") } else { format!("{rest}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Change, Stranger};

    fn bucket(rate: f64, burst: f64) -> Limit {
        Limit { rate: Some(rate), burst, ..Limit::default() }
    }

    #[test]
    fn a_bucket_lets_its_burst_and_then_its_rate_through() {
        let mut limiter = Limiter::new(bucket(20.0, 20.0));
        let served = (0..25).filter(|_| limiter.arrive(0.0, 0.0) == Verdict::Served).count();
        assert_eq!(served, 20);
        assert_eq!(limiter.arrive(0.0, 0.0), Verdict::Limited(0.05));
        assert_eq!(limiter.arrive(0.05, 0.0), Verdict::Served);
        assert_eq!(limiter.permitted(10.0).0, 220.0);
    }

    #[test]
    fn a_window_refills_at_once_and_what_is_unused_is_lost() {
        let mut limiter = Limiter::new(Limit { window: Some(10.0), ..bucket(2.0, 0.0) });
        let served = (0..30).filter(|_| limiter.arrive(1.0, 0.0) == Verdict::Served).count();
        assert_eq!(served, 20);
        assert_eq!(limiter.arrive(4.0, 0.0), Verdict::Limited(6.0));
        assert_eq!(limiter.arrive(10.0, 0.0), Verdict::Served);
        // One whole window, and the one call of the running window.
        assert_eq!(limiter.permitted(11.0).0, 21.0);
        assert_eq!(limiter.permitted(25.0).0, 40.0);
    }

    #[test]
    fn a_stranger_comes_and_goes() {
        let stranger = Some(Stranger { rate: 10.0, on: 5.0, off: 5.0 });
        let mut limiter = Limiter::new(Limit { stranger, ..bucket(20.0, 20.0) });
        assert_eq!(limiter.permitted(4.9).0, 20.0 + 98.0);
        assert_eq!(limiter.permitted(9.99).0.round(), 170.0);
        assert_eq!(limiter.permitted(14.9).0.round(), 268.0);
    }

    #[test]
    fn a_limit_changes() {
        let changes = vec![Change { at: 10.0, rate: 5.0 }];
        let mut limiter = Limiter::new(Limit { changes, ..bucket(20.0, 20.0) });
        assert_eq!(limiter.permitted(20.0).0, 20.0 + 200.0 + 50.0);
    }

    #[test]
    fn tokens_are_limited_too() {
        let limit = Limit { tokens_per_minute: Some(6000.0), token_burst: 100.0, ..Limit::default() };
        let mut limiter = Limiter::new(limit);
        assert_eq!(limiter.arrive(0.0, 80.0), Verdict::Served);
        assert_eq!(limiter.arrive(0.0, 80.0), Verdict::Limited(0.6));
        assert_eq!(limiter.arrive(0.6, 80.0), Verdict::Served);
    }

    #[test]
    fn headers_say_the_truth_or_lie_or_nothing() {
        let says = |headers| {
            let mut out = Vec::new();
            let mut limiter = Limiter::new(Limit { headers, ..bucket(20.0, 20.0) });
            limiter.arrive(0.0, 0.0);
            limiter.headers(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            says(Headers::Exact),
            "x-ratelimit-limit-requests: 1200\r\nx-ratelimit-remaining-requests: 19\r\n\
             x-ratelimit-reset-requests: 50ms\r\n"
        );
        assert!(says(Headers::Lie).contains("remaining-requests: 2400"));
        assert_eq!(says(Headers::Hidden), "");
    }

    #[test]
    fn durations() {
        assert_eq!([duration(0.12), duration(2.5), duration(62.5)], ["120ms", "2.5s", "1m2.5s"]);
    }
}
