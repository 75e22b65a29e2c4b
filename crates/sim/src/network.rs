//! The wires: datagrams get lost, doubled, late and out of order; streams only break.

use std::collections::BTreeMap;
use std::time::Duration;

use maskline_media::{Side, Tick};
use maskline_switch::sip::Transport;
use rand::Rng;
use rand_chacha::ChaCha12Rng;

use crate::scenario::NetworkPlan;

/// One phone's wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wire {
    pub(crate) call: usize,
    pub(crate) side: Side,
    /// B's phones by the ways to them, in the order of the plan; A has one.
    pub(crate) line: usize,
}

impl Wire {
    /// The phone of a side, or the first of B's.
    pub(crate) const fn first(call: usize, side: Side) -> Self {
        Self {
            call,
            side,
            line: 0,
        }
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    ToSwitch,
    ToPhone,
}

/// All wires.
#[derive(Debug)]
pub(crate) struct Network {
    plan: NetworkPlan,
    /// When the last byte of a stream arrives.
    streams: BTreeMap<(Wire, Way), Tick>,
    /// How often a stream was opened anew; what is on its way in an old one is lost.
    generations: BTreeMap<Wire, u32>,
}

impl Network {
    pub(crate) const fn new(plan: NetworkPlan) -> Self {
        Self {
            plan,
            streams: BTreeMap::new(),
            generations: BTreeMap::new(),
        }
    }

    /// When a message arrives: never, once, or twice.
    pub(crate) fn carry(
        &mut self,
        now: Tick,
        rng: &mut ChaCha12Rng,
        transport: Transport,
        wire: Wire,
        way: Way,
    ) -> Vec<Tick> {
        let plan = self.plan;
        let latency = |rng: &mut ChaCha12Rng| {
            let spread = plan.latency_max.saturating_sub(plan.latency_min);
            let extra = rng.random_range(0..=u64::try_from(spread.as_micros()).unwrap_or(0));
            plan.latency_min + Duration::from_micros(extra)
        };
        match transport {
            Transport::Udp => {
                let mut arrivals = Vec::new();
                if rng.random_range(0..1000) >= plan.loss_per_mille {
                    arrivals.push(now + latency(rng));
                }
                if rng.random_range(0..1000) < plan.duplicates_per_mille {
                    arrivals.push(now + latency(rng));
                }
                arrivals
            }
            Transport::Tcp | Transport::Tls => {
                let last = self.streams.entry((wire, way)).or_default();
                *last = (now + latency(rng)).max(*last);
                vec![*last]
            }
        }
    }

    /// The stream that a message is sent on.
    pub(crate) fn generation(&self, wire: Wire) -> u32 {
        self.generations.get(&wire).copied().unwrap_or(0)
    }

    /// The stream breaks; the next message opens a new one.
    pub(crate) fn break_stream(&mut self, wire: Wire) {
        *self.generations.entry(wire).or_default() += 1;
    }
}
