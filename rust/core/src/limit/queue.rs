//! The waiting calls, in the order in which they will be granted.

use std::collections::{BTreeMap, HashMap};

use super::terms::Demand;

/// The place of a call: priority, start tag, ticket.
type Place = (i64, u64, u64);

/// Order: by priority; within one, runs share by start-time fair queueing; within a run, by arrival.
///
/// Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996; every call weighs the same.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: BTreeMap<Place, Demand>,
    places: HashMap<u64, Place>,
    classes: BTreeMap<i64, Class>,
}

/// The calls of one priority.
#[derive(Debug, Default)]
struct Class {
    waiting: usize,
    /// The start tag of the call granted last.
    time: u64,
    /// The tag at which the next call of a run starts.
    next: HashMap<u64, u64>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn push(&mut self, priority: i64, run: u64, ticket: u64, demand: Demand) {
        let class = self.classes.entry(priority).or_default();
        class.waiting += 1;
        let next = class.next.entry(run).or_default();
        let start = (*next).max(class.time);
        *next = start + 1;
        let place = (priority, start, ticket);
        self.order.insert(place, demand);
        self.places.insert(ticket, place);
    }

    /// The call that goes next.
    pub(super) fn head(&self) -> Option<(u64, Demand)> {
        self.order.first_key_value().map(|(&(_, _, ticket), &demand)| (ticket, demand))
    }

    /// Takes a call out; `granted` moves the time of its class. Returns whether it was waiting.
    pub(super) fn remove(&mut self, ticket: u64, granted: bool) -> bool {
        let Some(place) = self.places.remove(&ticket) else {
            return false;
        };
        self.order.remove(&place);
        let (priority, start, _) = place;
        if let Some(class) = self.classes.get_mut(&priority) {
            class.waiting -= 1;
            if granted {
                class.time = class.time.max(start);
            }
            if class.waiting == 0 {
                // An idle class has no debts: a run that was alone for hours owes the others nothing.
                self.classes.remove(&priority);
            }
        }
        true
    }
}
