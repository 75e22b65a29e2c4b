//! The virtual store: groups commits, fails for periods, keeps what failed and writes it later.

use std::collections::VecDeque;
use std::time::Duration;

use maskline_media::Tick;
use maskline_switch::CommitId;
use rand::Rng;
use rand_chacha::ChaCha12Rng;

use crate::ledger::{Entry, Ledger};
use crate::scenario::StorePlan;

/// The pause before a failed commit is tried again.
const RETRY: Duration = Duration::from_millis(300);

/// What a commit attempt came to.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Durable: these may be reported. `recovered`: the store failed before.
    Durable {
        reported: Vec<(u16, CommitId)>,
        rejected: Option<(u16, CommitId)>,
        recovered: bool,
    },
    /// It failed. `first`: it was well before.
    Failed { first: bool },
}

/// The store and the journal before it.
#[derive(Debug)]
pub(crate) struct Store {
    plan: StorePlan,
    pub(crate) ledger: Ledger,
    waiting: VecDeque<(u16, CommitId, Entry)>,
    group: Vec<(u16, CommitId, Entry)>,
    down: bool,
    /// Commits that an attempt came to.
    taken: u64,
}

impl Store {
    pub(crate) fn new(plan: StorePlan) -> Self {
        Self {
            plan,
            ledger: Ledger::default(),
            waiting: VecDeque::new(),
            group: Vec::new(),
            down: false,
            taken: 0,
        }
    }

    /// Takes a commit; `Some`: an attempt ends after so long.
    pub(crate) fn submit(
        &mut self,
        rng: &mut ChaCha12Rng,
        shard: u16,
        id: CommitId,
        entry: Entry,
    ) -> Option<Duration> {
        self.waiting.push_back((shard, id, entry));
        if self.group.is_empty() {
            self.start(rng)
        } else {
            None
        }
    }

    /// Everything that waits is the next group.
    pub(crate) fn start(&mut self, rng: &mut ChaCha12Rng) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        self.group.extend(self.waiting.drain(..));
        let shortest = u64::try_from(self.plan.latency_min.as_micros()).unwrap_or(0);
        let longest = u64::try_from(self.plan.latency_max.as_micros()).unwrap_or(0);
        Some(Duration::from_micros(
            rng.random_range(shortest..=longest.max(shortest)),
        ))
    }

    /// The attempt ends.
    pub(crate) fn finish(&mut self, now: Tick) -> Result<Attempt, String> {
        let fails = |(from, to): &(Duration, Duration)| {
            now >= Tick::from_start(*from) && now < Tick::from_start(*to)
        };
        if self.plan.failing.iter().any(fails) {
            let first = !std::mem::replace(&mut self.down, true);
            return Ok(Attempt::Failed { first });
        }
        let mut reported = Vec::new();
        let mut rejected = None;
        for (shard, id, entry) in std::mem::take(&mut self.group) {
            let number = self.taken;
            self.taken += 1;
            if self.plan.rejects == Some(number) {
                self.ledger.reject(entry.session_id);
                rejected = Some((shard, id));
                continue;
            }
            self.ledger.commit(entry)?;
            reported.push((shard, id));
        }
        let recovered = std::mem::replace(&mut self.down, false);
        Ok(Attempt::Durable {
            reported,
            rejected,
            recovered,
        })
    }

    /// When a failed group is tried again.
    pub(crate) const fn retry_after(&self) -> Duration {
        RETRY
    }

    /// The process dies: what waits is gone; the group under way is durable as a whole or gone.
    pub(crate) fn crash(&mut self, group_survives: bool) -> Result<(), String> {
        self.waiting.clear();
        let group = std::mem::take(&mut self.group);
        if group_survives && !self.down {
            for (_, _, entry) in group {
                self.ledger.commit(entry)?;
            }
        }
        self.down = false;
        Ok(())
    }
}
