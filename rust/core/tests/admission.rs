//! Admission, simulated: calls of random size and length against random limits.
#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tfgrpo_core::{Admission, Binding, Demand, Error, Kind, Outcome, RateLimit, Reading};

#[derive(Debug, Clone)]
struct Call {
    submitted: f64,
    priority: i64,
    tokens: u64,
    lasts: f64,
    outcome: Outcome,
}

fn tokens(input: u64) -> Demand {
    Demand { input, output: 0 }
}

fn call() -> impl Strategy<Value = Call> {
    let outcome = prop_oneof![
        6 => option::of(0_u64..5000).prop_map(|used| Outcome::Done(used.map(tokens))),
        1 => option::of(0.0..20.0_f64).prop_map(Outcome::RateLimited),
        1 => option::of(0.0..20.0_f64).prop_map(Outcome::Overloaded),
        1 => Just(Outcome::TimedOut),
        1 => Just(Outcome::Failed),
    ];
    (0.0..30.0_f64, -1_i64..2, 0_u64..3000, 0.0..8.0_f64, outcome).prop_map(
        |(submitted, priority, tokens, lasts, outcome)| Call { submitted, priority, tokens, lasts, outcome },
    )
}

fn limit() -> impl Strategy<Value = RateLimit> {
    (option::of(1_u64..6), option::of(6_u64..600), option::of(600_u64..60_000)).prop_map(
        |(concurrency, requests_per_minute, tokens_per_minute)| RateLimit {
            concurrency,
            requests_per_minute,
            tokens_per_minute,
            ..RateLimit::default()
        },
    )
}

/// One grant of the simulation.
struct Grant {
    at: f64,
    call: usize,
    in_flight: usize,
}

/// Runs the calls as an async caller would: time moves to the next submission, end of a call, or `next_wake`.
fn simulate(limit: RateLimit, calls: &[Call]) -> Vec<Grant> {
    let mut admission = Admission::new(limit).unwrap();
    let mut arrivals: Vec<usize> = (0..calls.len()).collect();
    arrivals.sort_by(|a, b| calls[*b].submitted.total_cmp(&calls[*a].submitted));
    let mut tickets = BTreeMap::new();
    let mut running: Vec<(f64, u64)> = Vec::new();
    let mut grants = Vec::new();
    let mut now = 1000.0;
    for _ in 0..40 * calls.len() + 400 {
        while let Some(place) = arrivals.pop_if(|place| 1000.0 + calls[*place].submitted <= now) {
            tickets.insert(
                admission.submit(calls[place].priority, place as u64 % 3, tokens(calls[place].tokens), now),
                place,
            );
        }
        running.sort_by(|a, b| b.0.total_cmp(&a.0));
        while let Some((_, ticket)) = running.pop_if(|(end, _)| *end <= now) {
            admission.release(ticket, calls[tickets[&ticket]].outcome, now).unwrap();
        }
        let poll = admission.poll(now, usize::MAX);
        for ticket in poll.granted {
            admission.sent(ticket, now).unwrap();
            running.push((now + calls[tickets[&ticket]].lasts, ticket));
            grants.push(Grant { at: now, call: tickets[&ticket], in_flight: running.len() });
        }
        let next = running
            .iter()
            .map(|(end, _)| *end)
            .chain(arrivals.last().map(|place| 1000.0 + calls[*place].submitted))
            .chain(poll.next_wake)
            .min_by(f64::total_cmp);
        match next {
            Some(next) => now = now.max(next),
            None => break,
        }
    }
    grants
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn everyone_is_served_once_and_in_bounded_polls(limit in limit(), calls in vec(call(), 0..40)) {
        let grants = simulate(limit, &calls);
        let mut served: Vec<usize> = grants.iter().map(|grant| grant.call).collect();
        served.sort_unstable();
        prop_assert_eq!(served, (0..calls.len()).collect::<Vec<_>>());
    }

    #[test]
    fn concurrency_is_never_exceeded(limit in limit(), calls in vec(call(), 0..40)) {
        let places = limit.concurrency.map_or(usize::MAX, |places| usize::try_from(places).unwrap());
        prop_assert!(simulate(limit, &calls).iter().all(|grant| grant.in_flight <= places));
    }

    #[test]
    fn no_minute_has_more_requests_than_the_limit_and_a_burst(
        limit in limit(), calls in vec(call(), 0..60), rate in 6_u64..60,
    ) {
        let grants = simulate(RateLimit { requests_per_minute: Some(rate), ..limit }, &calls);
        let burst = (rate as f64 / 60.0).max(1.0);
        for first in &grants {
            let inside = grants.iter().filter(|g| g.at >= first.at && g.at < first.at + 60.0 - 1e-6).count();
            prop_assert!(inside as f64 <= rate as f64 + burst);
        }
    }

    #[test]
    fn a_shorter_window_obeys_the_rate_too(calls in vec(call(), 0..60), rate in 6_u64..600, span in 0.5..20.0_f64) {
        let grants = simulate(RateLimit { requests_per_minute: Some(rate), ..RateLimit::default() }, &calls);
        let per_second = rate as f64 / 60.0;
        for first in &grants {
            let inside = grants.iter().filter(|g| g.at >= first.at && g.at < first.at + span - 1e-6).count();
            prop_assert!(inside as f64 <= (per_second * span + per_second.max(1.0)).floor() + 1e-6);
        }
    }

    #[test]
    fn tokens_keep_to_the_rate_a_burst_and_one_large_call(calls in vec(call(), 1..60), rate in 600_u64..60_000) {
        let calls: Vec<Call> =
            calls.into_iter().map(|call| Call { outcome: Outcome::Done(None), ..call }).collect();
        let grants = simulate(RateLimit { tokens_per_minute: Some(rate), ..RateLimit::default() }, &calls);
        let burst = (rate as f64 / 60.0).max(1.0);
        let largest = calls.iter().map(|call| call.tokens).max().unwrap() as f64;
        for first in &grants {
            let minute = grants.iter().filter(|g| g.at >= first.at && g.at < first.at + 60.0);
            let spent: u64 = minute.map(|grant| calls[grant.call].tokens).sum();
            prop_assert!(spent as f64 <= rate as f64 + burst + largest + 1e-3);
        }
    }

    #[test]
    fn those_who_wait_go_by_priority_then_arrival(calls in vec(call(), 0..30), places in 1_u64..4) {
        let calls: Vec<Call> = calls.into_iter().map(|call| Call { submitted: 0.0, ..call }).collect();
        let limit = RateLimit { concurrency: Some(places), ..RateLimit::default() };
        let order: Vec<i64> = simulate(limit, &calls).iter().map(|grant| calls[grant.call].priority).collect();
        prop_assert!(order.is_sorted());
    }

    #[test]
    fn time_never_goes_backwards(times in vec(prop_oneof![0.0..100.0_f64, Just(f64::NAN), Just(f64::INFINITY)], 1..40)) {
        let limit = RateLimit { requests_per_minute: Some(60), ..RateLimit::default() };
        let mut admission = Admission::new(limit).unwrap();
        let mut granted = 0_usize;
        for now in &times {
            admission.submit(0, 0, tokens(0), *now);
            granted += admission.poll(*now, usize::MAX).granted.len();
        }
        let latest = times.into_iter().filter(|now| now.is_finite()).fold(0.0_f64, f64::max);
        prop_assert!(granted as f64 <= latest + 1.0);
    }
}

fn unlimited() -> Admission {
    Admission::new(RateLimit::default()).unwrap()
}

/// So many calls in flight.
fn in_flight(calls: usize) -> (Admission, Vec<u64>) {
    let mut admission = unlimited();
    for _ in 0..calls {
        admission.submit(0, 0, tokens(0), 0.0);
    }
    let flying = admission.poll(0.0, usize::MAX).granted;
    (admission, flying)
}

#[test]
fn a_lease_is_released_once_and_a_waiter_cancelled_once() {
    let mut admission = unlimited();
    let ticket = admission.submit(0, 0, tokens(5), 0.0);
    assert_eq!(
        admission.release(ticket, Outcome::Done(None), 0.0),
        Err(Error::Ticket(ticket, "not in flight"))
    );
    assert_eq!(admission.poll(0.0, usize::MAX).granted, [ticket]);
    assert_eq!(admission.cancel(ticket), Err(Error::Ticket(ticket, "not waiting")));
    assert_eq!(admission.release(ticket, Outcome::Done(None), 0.0), Ok(()));
    assert_eq!(
        admission.release(ticket, Outcome::Done(None), 0.0),
        Err(Error::Ticket(ticket, "not in flight"))
    );
    let other = admission.submit(0, 0, tokens(5), 0.0);
    assert_eq!(admission.cancel(other), Ok(()));
    assert!(admission.poll(1.0, usize::MAX).granted.is_empty());
}

#[test]
fn a_limit_of_nothing_is_refused() {
    let limit = RateLimit { tokens_per_minute: Some(0), ..RateLimit::default() };
    assert_eq!(Admission::new(limit).unwrap_err(), Error::Limit("tokens_per_minute"));
}

#[test]
fn what_was_used_beyond_the_estimate_is_paid_later_and_what_was_not_comes_back() {
    let limit = RateLimit { tokens_per_minute: Some(60_000), ..RateLimit::default() }; // 1000 a second
    for (used, wake) in [(3000, Some(2.5)), (1000, Some(0.5)), (0, None)] {
        let mut admission = Admission::new(limit).unwrap();
        let first = admission.submit(0, 0, tokens(1000), 0.0);
        assert_eq!(admission.poll(0.0, usize::MAX).granted, [first]);
        admission.release(first, Outcome::Done(Some(tokens(used))), 0.0).unwrap();
        admission.submit(0, 0, tokens(500), 0.0);
        assert_eq!(admission.poll(0.0, usize::MAX).next_wake, wake);
    }
}

#[test]
fn one_overload_is_one_pause_however_many_calls_report_it() {
    let (mut admission, flying) = in_flight(3);
    for ticket in &flying {
        admission.release(*ticket, Outcome::RateLimited(None), 10.0).unwrap();
    }
    let next = admission.submit(0, 0, tokens(0), 10.0);
    assert_eq!(admission.snapshot(10.0).paused_until, Some(10.5));
    assert_eq!(admission.snapshot(10.0).binding, Binding::Cut);
    assert_eq!(admission.poll(10.0, usize::MAX).next_wake, Some(10.5));
    assert_eq!(admission.poll(10.5, usize::MAX).granted, [next]);
    // The provider still refuses: now the pause doubles. A success afterwards starts over.
    admission.release(next, Outcome::RateLimited(None), 12.0).unwrap();
    assert_eq!(admission.snapshot(12.0).paused_until, Some(13.0));
    let good = admission.submit(0, 0, tokens(0), 12.0);
    assert_eq!(admission.poll(50.0, usize::MAX).granted, [good]);
    admission.release(good, Outcome::Done(None), 90.0).unwrap();
    let bad = admission.submit(0, 0, tokens(0), 90.0);
    assert_eq!(admission.poll(90.0, usize::MAX).granted, [bad]);
    admission.release(bad, Outcome::RateLimited(None), 90.0).unwrap();
    assert_eq!(admission.snapshot(90.0).paused_until, Some(90.5));
}

#[test]
fn runs_that_share_a_key_take_turns() {
    let mut admission = Admission::new(RateLimit { concurrency: Some(1), ..RateLimit::default() }).unwrap();
    let mut owner = std::collections::HashMap::new();
    for _ in 0..100 {
        owner.insert(admission.submit(0, 7, tokens(0), 0.0), 7);
    }
    let mut order = Vec::new();
    let mut now = 0.0;
    while let [ticket] = admission.poll(now, usize::MAX).granted[..] {
        order.push(owner[&ticket]);
        admission.release(ticket, Outcome::Done(None), now).unwrap();
        if order.len() == 10 {
            for _ in 0..10 {
                owner.insert(admission.submit(0, 8, tokens(0), now), 8);
            }
        }
        now += 1.0;
    }
    // The second run came late and gets every second call from then on; it does not catch up on what it missed.
    assert_eq!(order.iter().skip(10).take(20).filter(|run| **run == 8).count(), 10);
    assert_eq!(order.len(), 110);
}

#[test]
fn nothing_that_is_granted_and_never_sent_counts_for_a_meter() {
    let mut admission = unlimited();
    let first = admission.submit(0, 0, tokens(0), 0.0);
    admission.poll(0.0, usize::MAX);
    admission.sent(first, 0.0).unwrap();
    let reading = Reading {
        kind: Kind::Requests,
        limit: Some(60.0),
        remaining: Some(2.0),
        reset: Some(58.0),
        window: None,
    };
    admission.read(first, &[reading], false, 0.1).unwrap();
    admission.release(first, Outcome::Done(None), 0.1).unwrap();
    for _ in 0..50 {
        let ticket = admission.submit(0, 0, tokens(0), 0.1);
        assert_eq!(admission.poll(0.1, usize::MAX).granted, [ticket]);
        admission.release(ticket, Outcome::Failed, 0.1).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever the headers say, nobody waits for ever: what a provider tells can slow a run down, not stop it.
    #[test]
    fn nonsense_in_headers_stops_nobody(
        readings in vec((0_usize..4, option::of(-1.0..1e6_f64), option::of(-1.0..1e6_f64), option::of(-1.0..100.0_f64)), 1..30),
        refusals in vec(any::<bool>(), 30),
    ) {
        let mut admission = Admission::new(RateLimit { concurrency: Some(3), ..RateLimit::default() }).unwrap();
        let mut now = 0.0;
        for place in 0..readings.len() {
            let ticket = admission.submit(0, 0, tokens(10), now);
            let mut polls = 0;
            while admission.poll(now, usize::MAX).granted != [ticket] {
                polls += 1;
                prop_assert!(polls < 200, "call {} still waits at {}", place, now);
                now = admission.poll(now, usize::MAX).next_wake.unwrap_or(now + 1.0).max(now + 1e-6);
                prop_assert!(now < 1e7);
            }
            admission.sent(ticket, now).unwrap();
            let (kind, limit, remaining, reset) = readings[place];
            let reading = Reading { kind: Kind::ALL[kind], limit, remaining, reset, window: None };
            admission.read(ticket, &[reading], refusals[place], now + 0.1).unwrap();
            let outcome = if refusals[place] { Outcome::RateLimited(None) } else { Outcome::Done(None) };
            admission.release(ticket, outcome, now + 0.1).unwrap();
            now += 0.1;
        }
        prop_assert_eq!(admission.snapshot(now).in_flight, 0);
    }
}

#[test]
fn a_limit_of_less_than_one_is_none() {
    let (mut admission, flying) = in_flight(2);
    for ticket in &flying {
        admission.sent(*ticket, 0.0).unwrap();
    }
    for (limit, remaining) in [(None, 2e-236), (Some(1e-9), 0.0), (Some(0.5), 0.5)] {
        let reading =
            Reading { kind: Kind::Tokens, limit, remaining: Some(remaining), reset: None, window: None };
        admission.read(flying[0], &[reading], false, 0.1).unwrap();
    }
    admission.release(flying[0], Outcome::Done(None), 0.1).unwrap();
    for _ in 0..2 {
        let ticket = admission.submit(0, 0, tokens(1000), 1.0);
        assert_eq!(admission.poll(1.0, usize::MAX).granted, [ticket]);
    }
}

#[test]
fn calls_of_an_old_overload_may_ask_for_more_time_of_their_own() {
    let (mut admission, flying) = in_flight(2);
    admission.release(flying[0], Outcome::RateLimited(Some(5.0)), 0.0).unwrap();
    admission.release(flying[1], Outcome::RateLimited(Some(30.0)), 1.0).unwrap();
    assert_eq!(admission.snapshot(1.0).paused_until, Some(31.0));
}

#[test]
fn the_snapshot_names_what_binds() {
    let limit = RateLimit {
        concurrency: Some(1),
        requests_per_minute: Some(60),
        tokens_per_minute: Some(60_000),
        ..RateLimit::default()
    };
    let mut admission = Admission::new(limit).unwrap();
    assert_eq!(admission.snapshot(0.0).binding, Binding::None);
    assert_eq!(unlimited().snapshot(0.0).permitted, None, "nothing is known of what it permits");
    let first = admission.submit(0, 0, tokens(5000), 0.0);
    assert_eq!(admission.poll(0.0, usize::MAX).granted, [first]);
    admission.submit(0, 0, tokens(10), 0.0);
    let full = admission.snapshot(0.0);
    assert_eq!((full.in_flight, full.waiting, full.binding), (1, 1, Binding::Concurrency));
    admission.release(first, Outcome::Done(None), 0.0).unwrap();
    assert_eq!(admission.snapshot(0.0).binding, Binding::Tokens);
    assert_eq!(admission.snapshot(4.5).binding, Binding::None);
    let mut admission = Admission::new(RateLimit { concurrency: None, ..limit }).unwrap();
    admission.submit(0, 0, tokens(0), 0.0);
    admission.submit(0, 0, tokens(0), 0.0);
    admission.poll(0.0, usize::MAX);
    assert_eq!(admission.snapshot(0.5).binding, Binding::Requests);
}
