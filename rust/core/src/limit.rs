//! Admission of model calls under concurrency, requests per minute and tokens per minute. Sans-IO: time is an
//! argument, waiting is the caller's.
//!
//! The caller submits a call, polls, waits until `next_wake` or a release, and polls again. Grants go strictly by
//! (priority, submission): a large call at the head is never overtaken, so it never starves.
//!
//! A rate is kept as the instant at which its bucket will be full again (the generic cell rate algorithm). Whether
//! a call may go is then one comparison with an instant, and polling at exactly `next_wake` passes it.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, Result};

/// Pause after the first, second, … 429 in a row that does not say how long: doubling, in seconds.
const FIRST_PAUSE: f64 = 1.0;
const LONGEST_PAUSE: f64 = 60.0;

/// What a provider allows. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Calls in flight at once.
    pub concurrency: Option<u64>,
    /// Calls a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute, in and out together.
    pub tokens_per_minute: Option<u64>,
}

/// How a granted call ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// It used this many tokens; `None`: as many as it asked for, as far as is known.
    Done(Option<u64>),
    /// The provider answered 429, used nothing, and asks for a pause of so many seconds, if it says.
    RateLimited(Option<f64>),
}

/// What a poll found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Poll {
    /// The tickets that may go now, in order.
    pub granted: Vec<u64>,
    /// When to poll again even if nothing is released; `None`: only a submission or release can change anything.
    pub next_wake: Option<f64>,
}

/// What the head of the queue waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Nobody waits, or the next poll will grant.
    None,
    /// A 429 paused all grants.
    Paused,
    /// All places are taken.
    Concurrency,
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
}

impl Binding {
    /// Its name, as progress displays show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Paused => "paused",
            Self::Concurrency => "concurrency",
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// The state at one instant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// Calls granted and not released.
    pub in_flight: usize,
    /// Calls that wait.
    pub waiting: usize,
    /// When the pause after a 429 ends, while there is one.
    pub paused_until: Option<f64>,
    /// What the head of the queue waits for.
    pub binding: Binding,
}

/// A rate with a burst of one second's worth, at least 1.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    /// The time that an empty bucket takes to fill.
    depth: f64,
    /// The instant at which it is full.
    full_at: f64,
}

impl Bucket {
    fn new(per_minute: u64) -> Self {
        let per_second = per_minute as f64 / 60.0;
        Self { per_second, depth: per_second.max(1.0) / per_second, full_at: f64::NEG_INFINITY }
    }

    /// The first instant at which `amount` may be taken. What exceeds the burst needs a full bucket, and leaves
    /// it in debt.
    fn ready_at(&self, amount: f64) -> f64 {
        self.full_at - (self.depth - (amount / self.per_second).min(self.depth))
    }

    fn take(&mut self, amount: f64, now: f64) {
        self.full_at = self.full_at.max(now) + amount / self.per_second;
    }

    /// Corrects an earlier `take` by the difference between what was used and what was taken.
    fn settle(&mut self, taken: f64, used: f64) {
        self.full_at += (used - taken) / self.per_second;
    }
}

#[derive(Debug)]
struct Lease {
    tokens: u64,
    /// The pause after which it was granted.
    episode: u64,
}

/// Admission to one provider.
#[derive(Debug)]
pub struct Admission {
    concurrency: Option<u64>,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    now: f64,
    next_ticket: u64,
    /// (priority, ticket) to tokens: the order of grants.
    queue: BTreeMap<(i64, u64), u64>,
    priorities: HashMap<u64, i64>,
    leases: HashMap<u64, Lease>,
    paused_until: f64,
    /// How many pauses there were.
    episode: u64,
    /// Pauses since the last success.
    strikes: i32,
}

impl Admission {
    /// Admission under `limit`.
    pub fn new(limit: RateLimit) -> Result<Self> {
        let RateLimit { concurrency, requests_per_minute, tokens_per_minute } = limit;
        for (name, value) in [
            ("concurrency", concurrency),
            ("requests_per_minute", requests_per_minute),
            ("tokens_per_minute", tokens_per_minute),
        ] {
            if value == Some(0) {
                return Err(Error::Limit(name));
            }
        }
        Ok(Self {
            concurrency,
            requests: requests_per_minute.map(Bucket::new),
            tokens: tokens_per_minute.map(Bucket::new),
            now: 0.0,
            next_ticket: 0,
            queue: BTreeMap::new(),
            priorities: HashMap::new(),
            leases: HashMap::new(),
            paused_until: f64::NEG_INFINITY,
            episode: 0,
            strikes: 0,
        })
    }

    /// Queues a call that will use about `tokens`; a lower priority number goes first. Poll to learn of the grant.
    pub fn submit(&mut self, priority: i64, tokens: u64, now: f64) -> u64 {
        self.advance(now);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.insert((priority, ticket), tokens);
        self.priorities.insert(ticket, priority);
        ticket
    }

    /// Grants what may go now.
    pub fn poll(&mut self, now: f64) -> Poll {
        self.advance(now);
        let mut poll = Poll::default();
        while let Some((&(priority, ticket), &tokens)) = self.queue.first_key_value() {
            if self.is_full() {
                break;
            }
            let (ready_at, _) = self.ready_at(tokens);
            if self.now < ready_at {
                poll.next_wake = Some(ready_at);
                break;
            }
            self.queue.remove(&(priority, ticket));
            self.priorities.remove(&ticket);
            if let Some(bucket) = &mut self.requests {
                bucket.take(1.0, self.now);
            }
            if let Some(bucket) = &mut self.tokens {
                bucket.take(tokens as f64, self.now);
            }
            self.leases.insert(ticket, Lease { tokens, episode: self.episode });
            poll.granted.push(ticket);
        }
        poll
    }

    /// Gives a place back. The tokens are settled to what was used; the excess over the estimate becomes debt.
    ///
    /// A 429 pauses all grants. Calls granted before a pause began report the same overload again: theirs may
    /// prolong the pause by a `retry_after` of their own, but start no new one and do not double the next.
    pub fn release(&mut self, ticket: u64, outcome: Outcome, now: f64) -> Result<()> {
        self.advance(now);
        let lease = self.leases.remove(&ticket).ok_or(Error::Ticket(ticket, "not in flight"))?;
        let used = match outcome {
            Outcome::Done(used) => used.unwrap_or(lease.tokens),
            Outcome::RateLimited(_) => 0,
        };
        if let Some(bucket) = &mut self.tokens {
            bucket.settle(lease.tokens as f64, used as f64);
        }
        match outcome {
            Outcome::Done(_) if lease.episode == self.episode => self.strikes = 0,
            Outcome::Done(_) => {}
            Outcome::RateLimited(retry_after) => self.pause(&lease, retry_after),
        }
        Ok(())
    }

    /// Takes a waiting call out of the queue.
    pub fn cancel(&mut self, ticket: u64) -> Result<()> {
        let priority = self.priorities.remove(&ticket).ok_or(Error::Ticket(ticket, "not waiting"))?;
        self.queue.remove(&(priority, ticket));
        Ok(())
    }

    /// The state at `now`.
    pub fn snapshot(&mut self, now: f64) -> Snapshot {
        self.advance(now);
        let binding = match self.queue.first_key_value() {
            None => Binding::None,
            Some(_) if self.now < self.paused_until => Binding::Paused,
            Some(_) if self.is_full() => Binding::Concurrency,
            Some((_, &tokens)) => match self.ready_at(tokens) {
                (ready_at, binding) if self.now < ready_at => binding,
                _ => Binding::None,
            },
        };
        Snapshot {
            in_flight: self.leases.len(),
            waiting: self.queue.len(),
            paused_until: (self.now < self.paused_until).then_some(self.paused_until),
            binding,
        }
    }

    /// Time starts at 0 and never goes backwards; what is no instant does not move it.
    fn advance(&mut self, now: f64) {
        if now.is_finite() {
            self.now = self.now.max(now);
        }
    }

    fn is_full(&self) -> bool {
        self.concurrency.is_some_and(|places| self.leases.len() as u64 >= places)
    }

    /// When pause and rates let a call of `tokens` go, and which of them says so.
    fn ready_at(&self, tokens: u64) -> (f64, Binding) {
        let requests = self.requests.as_ref().map_or(f64::NEG_INFINITY, |bucket| bucket.ready_at(1.0));
        let tokens = self.tokens.as_ref().map_or(f64::NEG_INFINITY, |bucket| bucket.ready_at(tokens as f64));
        [(requests, Binding::Requests), (tokens, Binding::Tokens)].into_iter().fold(
            (self.paused_until, Binding::Paused),
            |last, next| if next.0 > last.0 { next } else { last },
        )
    }

    fn pause(&mut self, lease: &Lease, retry_after: Option<f64>) {
        let asked = retry_after.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        let pause = if lease.episode == self.episode {
            self.episode += 1;
            self.strikes = self.strikes.saturating_add(1);
            let growing = (FIRST_PAUSE * 2.0_f64.powi(self.strikes - 1)).min(LONGEST_PAUSE);
            asked.unwrap_or(growing)
        } else {
            asked.unwrap_or(0.0)
        };
        self.paused_until = self.paused_until.max(self.now + pause);
    }
}
