//! The counters of the engine: per worker in atomics, summed when somebody looks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::{DropReason, RelayCounters};

/// What the engine counts, since its start where it is not a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Sessions that hold ports now.
    pub sessions: u64,
    /// Ports that are taken now, RTCP ports included.
    pub ports_in_use: u64,
    /// Port pairs that were passed over because another process has one of them.
    pub ports_passed_over: u64,
    /// What the relays counted.
    pub relay: RelayCounters,
    /// Datagrams that the operating system did not take.
    pub send_failures: u64,
    /// Key presses that were not reported because their shard did not take its events in time.
    pub presses_discarded: u64,
}

/// One worker's counters.
#[derive(Debug, Default)]
pub(super) struct CounterCells {
    sessions: AtomicU64,
    rtp_received: AtomicU64,
    rtp_forwarded: AtomicU64,
    rtp_made: AtomicU64,
    rtcp_received: AtomicU64,
    rtcp_sent: AtomicU64,
    presses: AtomicU64,
    presses_suppressed: AtomicU64,
    one_way: AtomicU64,
    drops: [AtomicU64; DropReason::ALL.len()],
    send_failures: AtomicU64,
    presses_discarded: AtomicU64,
}

impl CounterCells {
    pub(super) fn session_opened(&self) {
        add(&self.sessions, 1);
    }

    pub(super) fn session_closed(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn sends_failed(&self, datagrams: u64) {
        add(&self.send_failures, datagrams);
    }

    pub(super) fn press_discarded(&self) {
        add(&self.presses_discarded, 1);
    }

    pub(super) fn add_relay(&self, counted: &RelayCounters) {
        add(&self.rtp_received, counted.rtp_received);
        add(&self.rtp_forwarded, counted.rtp_forwarded);
        add(&self.rtp_made, counted.rtp_made);
        add(&self.rtcp_received, counted.rtcp_received);
        add(&self.rtcp_sent, counted.rtcp_sent);
        add(&self.presses, counted.presses);
        add(&self.presses_suppressed, counted.presses_suppressed);
        add(&self.one_way, counted.one_way);
        for (cell, (_, packets)) in self.drops.iter().zip(counted.drops.iter()) {
            add(cell, packets);
        }
    }

    pub(super) fn add_to(&self, sum: &mut EngineCounters) {
        sum.sessions += read(&self.sessions);
        sum.send_failures += read(&self.send_failures);
        sum.presses_discarded += read(&self.presses_discarded);
        let mut relay = RelayCounters {
            rtp_received: read(&self.rtp_received),
            rtp_forwarded: read(&self.rtp_forwarded),
            rtp_made: read(&self.rtp_made),
            rtcp_received: read(&self.rtcp_received),
            rtcp_sent: read(&self.rtcp_sent),
            presses: read(&self.presses),
            presses_suppressed: read(&self.presses_suppressed),
            one_way: read(&self.one_way),
            ..RelayCounters::default()
        };
        for (cell, reason) in self.drops.iter().zip(DropReason::ALL) {
            relay.drops.add(reason, read(cell));
        }
        sum.relay += relay;
    }
}

/// Most counts of a batch are 0, and an atomic addition is not free.
fn add(cell: &AtomicU64, more: u64) {
    if more > 0 {
        cell.fetch_add(more, Ordering::Relaxed);
    }
}

fn read(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}
