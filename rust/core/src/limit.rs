//! Admission of model calls to one provider. Sans-IO: time is an argument, waiting is the caller's.
//!
//! The caller submits a call, polls, waits until `next_wake` or a release, and polls again. It says when the call is
//! sent, what the head of the response told of limits, and how it ended. Grants go strictly by priority, fairly between
//! runs, then by arrival: a large call at the head is never overtaken, so it never starves.
//!
//! A call goes when every gate lets it: places, configured rates, the meters of the provider's own headers, a hidden
//! limit that 429s have taught, the ramp of an unknown provider, and the pause after a 429. `docs/design/scheduler.md`
//! says why each of them.

mod bucket;
mod gradient;
mod hidden;
mod meter;
mod overload;
mod queue;
mod recent;
mod terms;

use std::collections::HashMap;

use bucket::{Bucket, Ramp};
use gradient::Gradient;
use hidden::{FORGOTTEN, Hidden};
pub use meter::{Kind, Reading};
use meter::{Mark, Meter};
use queue::Queue;
use recent::Recent;
pub use terms::{Binding, Demand, Outcome, Poll, RateLimit, Snapshot};

use crate::error::{Error, Result};

#[derive(Debug)]
struct Lease {
    demand: Demand,
    granted: f64,
    /// The marks of its sending, by kind.
    sent: Option<[Mark; 4]>,
    /// How many accepted calls had been sent before it.
    accepted: f64,
    /// The cut after which it was granted.
    episode: u64,
    /// Its 429 came with a header that explains it.
    explained: bool,
}

/// Admission to one provider.
#[derive(Debug)]
pub struct Admission {
    places: Option<u64>,
    gradient: Option<Gradient>,
    buckets: [Option<Bucket>; 4],
    meters: [Option<Meter>; 4],
    hidden: Option<Hidden>,
    ramp: Option<Ramp>,
    recent: Recent,
    now: f64,
    next_ticket: u64,
    queue: Queue,
    leases: HashMap<u64, Lease>,
    /// What was sent so far, by kind, and what is granted but not sent yet.
    sent: [f64; 4],
    pending: [f64; 4],
    /// Calls that are granted and not sent yet.
    unsent: usize,
    refused: f64,
    limited: u64,
    paused_until: f64,
    /// How many cuts there were.
    episode: u64,
    /// Cuts since the last success.
    strikes: i32,
}

impl Admission {
    /// Admission under `limit`.
    pub fn new(limit: RateLimit) -> Result<Self> {
        for (name, value) in [
            ("concurrency", limit.concurrency),
            ("requests_per_minute", limit.requests_per_minute),
            ("tokens_per_minute", limit.tokens_per_minute),
            ("input_tokens_per_minute", limit.input_tokens_per_minute),
            ("output_tokens_per_minute", limit.output_tokens_per_minute),
        ] {
            if value == Some(0) {
                return Err(Error::Limit(name));
            }
        }
        let rates = [
            limit.requests_per_minute,
            limit.tokens_per_minute,
            limit.input_tokens_per_minute,
            limit.output_tokens_per_minute,
        ];
        Ok(Self {
            places: limit.concurrency,
            gradient: limit.concurrency.map(Gradient::new),
            buckets: rates.map(|rate| rate.map(Bucket::per_minute)),
            meters: [const { None }; 4],
            hidden: None,
            // Who says how many requests are permitted knows the provider.
            ramp: limit.requests_per_minute.is_none().then(Ramp::new),
            recent: Recent::default(),
            now: 0.0,
            next_ticket: 0,
            queue: Queue::default(),
            leases: HashMap::new(),
            sent: [0.0; 4],
            pending: [0.0; 4],
            unsent: 0,
            refused: 0.0,
            limited: 0,
            paused_until: f64::NEG_INFINITY,
            episode: 0,
            strikes: 0,
        })
    }

    /// Queues a call of `run`; a lower priority number goes first. Poll to learn of the grant.
    pub fn submit(&mut self, priority: i64, run: u64, demand: Demand, now: f64) -> u64 {
        self.advance(now);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.push(priority, run, ticket, demand);
        ticket
    }

    /// Grants what may go now, at most so many: an event loop that starts thousands at once looks at nothing else
    /// for a second. If more may go, `next_wake` is now.
    pub fn poll(&mut self, now: f64, most: usize) -> Poll {
        self.advance(now);
        let mut poll = Poll::default();
        while let Some((ticket, demand)) = self.queue.head() {
            if self.is_full() {
                break;
            }
            if poll.granted.len() >= most {
                poll.next_wake = Some(self.now);
                break;
            }
            let (ready_at, binding) = self.ready_at(demand);
            if self.now < ready_at {
                poll.next_wake = Some(ready_at);
                self.waits_for(binding);
                break;
            }
            self.queue.remove(ticket, true);
            self.grant(ticket, demand);
            poll.granted.push(ticket);
        }
        poll
    }

    /// The call leaves now. A call that is sent a second time within its lease counts twice.
    pub fn sent(&mut self, ticket: u64, now: f64) -> Result<()> {
        self.advance(now);
        let lease = self.leases.get_mut(&ticket).ok_or(Error::Ticket(ticket, "not in flight"))?;
        if lease.sent.is_none() {
            self.unsent -= 1;
            for (kind, pending) in Kind::ALL.into_iter().zip(&mut self.pending) {
                *pending -= lease.demand.of(kind);
            }
        }
        let [requests, ..] = self.sent;
        lease.accepted = requests - self.refused;
        let mut marks = [Mark { at: self.now, sent: 0.0, thought: f64::NAN }; 4];
        for (((kind, sent), meter), mark) in
            Kind::ALL.into_iter().zip(&mut self.sent).zip(&mut self.meters).zip(&mut marks)
        {
            let amount = lease.demand.of(kind);
            *sent += amount;
            mark.sent = *sent;
            if let Some(meter) = meter {
                mark.thought = meter.send(amount);
            }
        }
        lease.sent = Some(marks);
        self.recent.count(self.now);
        Ok(())
    }

    /// What the head of the response said of limits; `refused`: it is a 429.
    pub fn read(&mut self, ticket: u64, readings: &[Reading], refused: bool, now: f64) -> Result<()> {
        self.advance(now);
        let lease = self.leases.get_mut(&ticket).ok_or(Error::Ticket(ticket, "not in flight"))?;
        let Some(marks) = lease.sent else {
            return Ok(());
        };
        for reading in readings {
            let place = reading.kind as usize;
            let amount = lease.demand.of(reading.kind);
            let (Some(slot), Some(mark), Some(sent)) =
                (self.meters.get_mut(place), marks.get(place), self.sent.get(place))
            else {
                return Err(Error::Invariant("a kind of limit has no place"));
            };
            match slot {
                Some(meter) => meter.read(reading, amount, *mark, refused),
                None => *slot = Meter::new(reading, amount, *mark, self.now, *sent),
            }
            if slot.is_some() && reading.remaining.is_some_and(|left| left < amount.max(1.0)) {
                lease.explained = true;
            }
        }
        if !readings.is_empty() {
            self.gradient = None; // a provider that counts will refuse, not slow down
        }
        if let [Some(requests), ..] = &self.meters
            && requests.is_alive()
        {
            self.ramp = None;
        }
        Ok(())
    }

    /// Gives a place back and settles what was used; the excess over the expectation becomes debt.
    ///
    /// A 429 that no header explains cuts the pace and pauses all grants, once an episode: calls that were sent before
    /// the cut report the same overload again, and may only prolong the pause by a `retry_after` of their own.
    pub fn release(&mut self, ticket: u64, outcome: Outcome, now: f64) -> Result<()> {
        self.advance(now);
        let lease = self.leases.remove(&ticket).ok_or(Error::Ticket(ticket, "not in flight"))?;
        if lease.sent.is_none() {
            self.unsent -= 1;
            for (kind, pending) in Kind::ALL.into_iter().zip(&mut self.pending) {
                *pending -= lease.demand.of(kind);
            }
            self.give_back(lease.granted);
        }
        let used = match outcome {
            Outcome::Done(used) => used.unwrap_or(lease.demand),
            Outcome::TimedOut => lease.demand,
            _ => Demand::default(),
        };
        for kind in [Kind::Tokens, Kind::InputTokens, Kind::OutputTokens] {
            if let Some(Some(bucket)) = self.buckets.get_mut(kind as usize) {
                bucket.settle(lease.demand.of(kind), used.of(kind), lease.granted);
            }
            if let (Outcome::Done(Some(_)), Some(Some(meter)), Some(marks)) =
                (outcome, self.meters.get_mut(kind as usize), lease.sent)
                && let Some(mark) = marks.get(kind as usize)
            {
                meter.settle(lease.demand.of(kind), used.of(kind), *mark);
            }
        }
        match outcome {
            Outcome::Done(_) => {
                if lease.episode == self.episode {
                    self.strikes = 0;
                }
                if let (Some(gradient), Some([mark, ..])) = (&mut self.gradient, lease.sent) {
                    gradient.sample(self.now - mark.at, used.output as f64, self.leases.len() + 1);
                }
            }
            Outcome::RateLimited(retry_after) => self.cut(&lease, retry_after),
            Outcome::Overloaded(retry_after) => self.respite(retry_after),
            Outcome::TimedOut => {
                if lease.episode == self.episode
                    && let Some(gradient) = &mut self.gradient
                {
                    self.episode += 1;
                    gradient.cut();
                }
            }
            Outcome::Failed => {}
        }
        Ok(())
    }

    /// Takes a waiting call out of the queue.
    pub fn cancel(&mut self, ticket: u64) -> Result<()> {
        if self.queue.remove(ticket, false) { Ok(()) } else { Err(Error::Ticket(ticket, "not waiting")) }
    }

    /// The state at `now`.
    pub fn snapshot(&mut self, now: f64) -> Snapshot {
        self.advance(now);
        let head = self.queue.head().map(|(_, demand)| demand);
        let binding = match head {
            None => Binding::None,
            Some(_) if self.now < self.paused_until => Binding::Cut,
            Some(_) if self.is_full() => Binding::Concurrency,
            Some(demand) => match self.ready_at(demand) {
                (ready_at, binding) if self.now < ready_at => binding,
                _ => Binding::None,
            },
        };
        Snapshot {
            in_flight: self.leases.len(),
            waiting: self.queue.len(),
            paused_until: (self.now < self.paused_until).then_some(self.paused_until),
            binding,
            places: self.places_now(),
            permitted: self.permitted(head.unwrap_or(Demand { input: 1, output: 0 })),
            achieved: self.recent.per_second(self.now),
            limited: self.limited,
        }
    }

    /// Time starts at 0 and never goes backwards; what is no instant does not move it.
    fn advance(&mut self, now: f64) {
        if now.is_finite() {
            self.now = self.now.max(now);
        }
        for (meter, sent) in self.meters.iter_mut().zip(self.sent) {
            if let Some(meter) = meter {
                meter.advance(self.now, sent);
            }
        }
    }

    fn grant(&mut self, ticket: u64, demand: Demand) {
        for ((kind, bucket), pending) in Kind::ALL.into_iter().zip(&mut self.buckets).zip(&mut self.pending) {
            if let Some(bucket) = bucket {
                bucket.take(demand.of(kind), self.now);
            }
            *pending += demand.of(kind);
        }
        if self.hidden.as_ref().is_some_and(|hidden| self.now - hidden.bound > FORGOTTEN) {
            self.hidden = None;
        }
        if let Some(hidden) = &mut self.hidden {
            hidden.take(self.now);
        }
        if let Some(ramp) = &mut self.ramp {
            ramp.take(self.now);
        }
        self.unsent += 1;
        let episode = self.episode;
        self.leases.insert(
            ticket,
            Lease { demand, granted: self.now, sent: None, accepted: 0.0, episode, explained: false },
        );
    }

    /// A call that never left was no request.
    fn give_back(&mut self, then: f64) {
        if let [Some(requests), ..] = &mut self.buckets {
            requests.settle(1.0, 0.0, then);
        }
        if let Some(ramp) = &mut self.ramp {
            ramp.give_back(then);
        }
        if let Some(hidden) = &mut self.hidden {
            hidden.give_back(self.now);
        }
    }

    fn places_now(&self) -> Option<u64> {
        // Whole places, and at least one: truncation is meant.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let soft = self.gradient.as_ref().map(|gradient| gradient.places().max(1.0) as u64);
        soft.or(self.places)
    }

    fn is_full(&self) -> bool {
        self.places_now().is_some_and(|places| self.leases.len() as u64 >= places)
    }

    /// When the gates let a call go, and which of them says so.
    fn ready_at(&self, demand: Demand) -> (f64, Binding) {
        let mut last = (self.paused_until, Binding::Cut);
        let mut gate = |ready_at: f64, binding: Binding| {
            if ready_at > last.0 {
                last = (ready_at, binding);
            }
        };
        let idle = self.leases.is_empty();
        let state = self.buckets.iter().zip(&self.meters).zip(self.pending);
        for (kind, ((bucket, meter), pending)) in Kind::ALL.into_iter().zip(state) {
            let amount = demand.of(kind);
            if let Some(bucket) = bucket {
                gate(bucket.ready_at(amount), Binding::of(kind));
            }
            if let Some(meter) = meter {
                gate(meter.ready_at(amount, pending, idle), Binding::of(kind));
            }
        }
        if let Some(hidden) = &self.hidden {
            gate(hidden.ready_at(self.now), Binding::Hidden);
        }
        if let Some(ramp) = &self.ramp {
            gate(ramp.ready_at(), Binding::Ramp);
        }
        // A window whose end no response has told yet: only a release can tell.
        if last.0 == f64::INFINITY { (self.now + 1.0, last.1) } else { last }
    }

    /// The head of the queue waits for a gate that learns from that.
    fn waits_for(&mut self, binding: Binding) {
        if binding == Binding::Ramp && self.ramp.as_mut().is_some_and(|ramp| ramp.wanted(self.now)) {
            self.ramp = None;
        }
        if let (Binding::Hidden, Some(hidden)) = (binding, &mut self.hidden) {
            hidden.bound = self.now;
        }
    }

    /// Calls a second that the rates permit calls of this demand. The ramp is our caution, and permits nothing.
    fn permitted(&self, demand: Demand) -> Option<f64> {
        let mut least = f64::INFINITY;
        for (kind, (bucket, meter)) in Kind::ALL.into_iter().zip(self.buckets.iter().zip(&self.meters)) {
            let amount = demand.of(kind).max(1.0);
            if let Some(bucket) = bucket {
                least = least.min(bucket.per_second() / amount);
            }
            if let Some(meter) = meter {
                least = least.min(meter.per_second() / amount);
            }
        }
        if let Some(hidden) = &self.hidden {
            least = least.min(hidden.pace(self.now));
        }
        least.is_finite().then_some(least)
    }
}
