//! Admission against simulated providers: how much of what they permit is used, and how often they refuse.
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::collections::{BTreeMap, VecDeque};

use tfgrpo_core::{Admission, Demand, Kind, Outcome, RateLimit, Reading};

/// How a provider limits, and what it tells.
#[derive(Debug, Clone, Copy)]
enum Limiter {
    /// A bucket of `burst`, refilled by `rate` a second.
    Bucket { rate: f64, burst: f64 },
    /// So many calls in each window of `seconds`.
    Window { limit: f64, seconds: f64 },
}

#[derive(Debug, Clone, Copy)]
enum Headers {
    Exact,
    Hidden,
    /// The whole is always there, and is twice the truth.
    Lying,
}

#[derive(Debug, Clone, Copy)]
struct Provider {
    limiter: Limiter,
    headers: Headers,
    retry_after: Option<f64>,
    /// A stranger takes so many a second, for ten seconds out of twenty.
    stranger: f64,
    /// At this second the rate becomes another.
    change: Option<(f64, f64)>,
    latency: f64,
}

const EXACT: Provider = Provider {
    limiter: Limiter::Bucket { rate: 20.0, burst: 20.0 },
    headers: Headers::Exact,
    retry_after: Some(1.0),
    stranger: 0.0,
    change: None,
    latency: 0.3,
};

/// The limiter at work.
struct Gate {
    provider: Provider,
    left: f64,
    at: f64,
    permitted: f64,
    strangers: f64,
    took: f64,
}

impl Gate {
    fn new(provider: Provider) -> Self {
        let left = match provider.limiter {
            Limiter::Bucket { burst, .. } => burst,
            Limiter::Window { limit, .. } => limit,
        };
        Self { provider, left, at: 0.0, permitted: left, strangers: 0.0, took: 0.0 }
    }

    fn rate(&self, at: f64, rate: f64) -> f64 {
        self.provider.change.map_or(rate, |(second, other)| if at >= second { other } else { rate })
    }

    fn advance(&mut self, now: f64) {
        match self.provider.limiter {
            Limiter::Bucket { rate, burst } => {
                // In small steps: the rate may change, and the stranger comes and goes.
                while self.at < now {
                    let step = (now - self.at).min(0.05);
                    let came = self.rate(self.at, rate) * step;
                    self.permitted += came;
                    self.left = (self.left + came).min(burst);
                    self.at += step;
                    if self.provider.stranger > 0.0 && self.at % 20.0 < 10.0 {
                        self.strangers += self.provider.stranger * step;
                        while self.strangers >= 1.0 && self.left >= 1.0 {
                            self.strangers -= 1.0;
                            self.left -= 1.0;
                            self.took += 1.0;
                        }
                    }
                }
            }
            Limiter::Window { limit, seconds } => {
                let windows = (now / seconds).floor() - (self.at / seconds).floor();
                if windows >= 1.0 {
                    self.left = limit;
                    self.permitted += windows * limit;
                }
                self.at = now;
            }
        }
    }

    fn arrive(&mut self, now: f64) -> bool {
        self.advance(now);
        let accepted = self.left >= 1.0;
        if accepted {
            self.left -= 1.0;
        }
        accepted
    }

    fn reading(&self, now: f64) -> Vec<Reading> {
        let (limit, reset) = match self.provider.limiter {
            Limiter::Bucket { rate, burst } => {
                let rate = self.rate(now, rate);
                (60.0 * rate, (burst - self.left) / rate)
            }
            Limiter::Window { limit, seconds } => (limit, seconds - now % seconds),
        };
        let (limit, remaining) = match self.provider.headers {
            Headers::Exact => (limit, self.left.floor()),
            Headers::Lying => (2.0 * limit, 2.0 * limit),
            Headers::Hidden => return Vec::new(),
        };
        vec![Reading {
            kind: Kind::Requests,
            limit: Some(limit),
            remaining: Some(remaining),
            reset: Some(reset),
            window: None,
        }]
    }
}

#[derive(Debug)]
enum Event {
    Send(u64),
    Arrive(u64),
    Answer(u64, bool, Vec<Reading>),
    Wake,
}

struct Played {
    used: f64,
    refused: f64,
    seconds: f64,
}

/// Sends `calls` calls as an asynchronous caller would, every refused one again.
fn play(provider: Provider, calls: usize, limit: RateLimit) -> Played {
    let mut admission = Admission::new(limit).unwrap();
    let mut gate = Gate::new(provider);
    let mut events: BTreeMap<(u64, u64), Event> = BTreeMap::new();
    let mut number = 0;
    let mut push = |events: &mut BTreeMap<(u64, u64), Event>, at: f64, event: Event| {
        number += 1;
        events.insert(((at * 1e6).ceil() as u64, number), event);
    };
    let mut todo: VecDeque<usize> = (0..calls).collect();
    let (mut served, mut refused, mut last) = (0_usize, 0_usize, 0.0);
    while todo.pop_front().is_some() {
        admission.submit(0, 0, Demand { input: 100, output: 100 }, 0.0);
    }
    push(&mut events, 0.0, Event::Wake);
    let mut alarm = f64::INFINITY;
    while let Some(((micros, _), event)) = events.pop_first() {
        let now = micros as f64 / 1e6;
        match event {
            Event::Send(ticket) => {
                admission.sent(ticket, now).unwrap();
                push(&mut events, now + 0.005, Event::Arrive(ticket));
                continue;
            }
            Event::Arrive(ticket) => {
                let accepted = gate.arrive(now);
                if accepted {
                    last = now;
                }
                let wait = if accepted { provider.latency } else { 0.0 };
                let reading = gate.reading(now);
                push(&mut events, now + wait + 0.005, Event::Answer(ticket, accepted, reading));
                continue;
            }
            Event::Answer(ticket, accepted, readings) => {
                admission.read(ticket, &readings, !accepted, now).unwrap();
                if accepted {
                    served += 1;
                    admission.release(ticket, Outcome::Done(None), now).unwrap();
                } else {
                    refused += 1;
                    assert!(refused < 10 * calls, "refused for ever");
                    admission.release(ticket, Outcome::RateLimited(provider.retry_after), now).unwrap();
                    admission.submit(0, 0, Demand { input: 100, output: 100 }, now);
                }
            }
            Event::Wake if alarm.is_finite() && now + 2e-6 < alarm => continue,
            Event::Wake => alarm = f64::INFINITY,
        }
        let poll = admission.poll(now, usize::MAX);
        for ticket in poll.granted {
            push(&mut events, now + 0.005, Event::Send(ticket)); // the intent becomes durable
        }
        if let Some(wake) = poll.next_wake {
            let wake = wake.max(now) + 1e-6; // the clock ticks in microseconds
            if wake < alarm {
                alarm = wake;
                push(&mut events, wake, Event::Wake);
            }
        }
    }
    assert_eq!(served, calls);
    gate.advance(last);
    Played {
        used: calls as f64 / (gate.permitted - gate.took),
        refused: refused as f64 / calls as f64,
        seconds: last,
    }
}

const WORKERS: RateLimit = RateLimit {
    concurrency: Some(256),
    requests_per_minute: None,
    tokens_per_minute: None,
    input_tokens_per_minute: None,
    output_tokens_per_minute: None,
};

#[track_caller]
fn expect(provider: Provider, used: f64, refused: f64) {
    expect_of(800, provider, used, refused);
}

#[track_caller]
fn expect_of(calls: usize, provider: Provider, used: f64, refused: f64) {
    let played = play(provider, calls, WORKERS);
    assert!(played.used >= used, "used {:.4} of what is permitted", played.used);
    assert!(played.refused <= refused, "{:.4} of the calls were refused", played.refused);
}

#[test]
fn exact_headers() {
    expect(EXACT, 0.99, 0.001);
    expect(Provider { latency: 5.0, ..EXACT }, 0.97, 0.01);
    expect(Provider { retry_after: None, ..EXACT }, 0.97, 0.01);
    let generous = Provider { limiter: Limiter::Bucket { rate: 20.0, burst: 1200.0 }, ..EXACT };
    assert!(play(generous, 800, WORKERS).seconds < 2.0, "the burst is there to be used");
    expect_of(8000, Provider { limiter: Limiter::Bucket { rate: 200.0, burst: 20.0 }, ..EXACT }, 0.97, 0.01);
}

#[test]
fn a_fixed_window() {
    for (limit, seconds) in [(200.0, 10.0), (20.0, 1.0), (100.0, 5.0)] {
        expect(Provider { limiter: Limiter::Window { limit, seconds }, ..EXACT }, 0.93, 0.03);
    }
}

#[test]
fn a_bucket_shared_with_a_stranger() {
    for stranger in [2.0, 5.0, 10.0] {
        expect(Provider { stranger, ..EXACT }, 0.93, 0.03);
    }
}

#[test]
fn hidden_headers() {
    expect(Provider { headers: Headers::Hidden, ..EXACT }, 0.93, 0.03);
    expect(Provider { headers: Headers::Hidden, retry_after: None, ..EXACT }, 0.93, 0.03);
    expect(Provider { headers: Headers::Hidden, latency: 5.0, ..EXACT }, 0.93, 0.03);
}

#[test]
fn headers_that_lie() {
    expect(Provider { headers: Headers::Lying, ..EXACT }, 0.93, 0.03);
    expect(Provider { headers: Headers::Lying, retry_after: None, ..EXACT }, 0.93, 0.03);
}

#[test]
fn a_limit_that_changes() {
    for other in [10.0, 40.0] {
        let change = Some((10.0, other));
        expect(Provider { change, ..EXACT }, 0.97, 0.01);
        // A limit that nobody tells of is found by creeping: one that doubles takes some ten seconds to find.
        expect_of(1600, Provider { change, headers: Headers::Hidden, ..EXACT }, 0.88, 0.03);
    }
}

#[test]
fn a_provider_without_limits_is_not_held_back() {
    let limiter = Limiter::Bucket { rate: 1e6, burst: 1e6 };
    let provider = Provider { limiter, headers: Headers::Hidden, latency: 5.0, ..EXACT };
    let limit = RateLimit { concurrency: Some(5000), ..WORKERS };
    let played = play(provider, 40_000, limit);
    // 8 rounds of 5 s, and the ramp.
    assert!(played.seconds < 38.0, "{}", played.seconds);
}
