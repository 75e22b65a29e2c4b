//! Which addresses of trunks answer OPTIONS: one machine for the whole node.
//!
//! Pure: what is to be asked comes out, what came back goes in. An address is down after two
//! questions without an answer (a 503 counts as none) and up after one other answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use maskline_media::Tick;

use crate::sip::{Peer, TxId};
use crate::targets::TargetKey;

/// Questions in a row that must come to nothing before an address is down.
const MISSES: u8 = 2;

/// An address to be supervised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supervised {
    /// The address.
    pub key: TargetKey,
    /// How it is reached.
    pub peer: Peer,
    /// How often it is asked.
    pub every: Duration,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send OPTIONS; say [`Prober::asked`].
    Ask {
        /// The question's number.
        question: u64,
        /// To whom.
        peer: Peer,
    },
    /// This question is not waited for any longer.
    Forget(TxId),
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    of: Supervised,
    /// When it is asked next.
    due: Tick,
    /// The question that has no answer yet, and until when it may have one.
    open: Option<(u64, Option<TxId>, Tick)>,
    misses: u8,
    down: bool,
}

/// The supervision of all addresses.
#[derive(Clone, Debug, Default)]
pub struct Prober {
    probes: BTreeMap<TargetKey, Probe>,
    last_question: u64,
}

impl Prober {
    /// What is to be supervised from now on. What was known of an address stays known; new ones
    /// count as up and are asked at once.
    pub fn supervise(&mut self, now: Tick, all: impl IntoIterator<Item = Supervised>) {
        let known = std::mem::take(&mut self.probes);
        for of in all {
            let probe = match known.get(&of.key) {
                Some(probe) => Probe { of, ..*probe },
                None => Probe {
                    of,
                    due: now,
                    open: None,
                    misses: 0,
                    down: false,
                },
            };
            self.probes.insert(of.key, probe);
        }
    }

    /// The node leaves: nobody is asked any more. The questions that are not waited for any longer.
    pub fn stop(&mut self) -> Vec<TxId> {
        let probes = std::mem::take(&mut self.probes);
        let open = probes.into_values().filter_map(|probe| probe.open);
        open.filter_map(|(_, tx, _)| tx).collect()
    }

    /// When [`Self::on_deadline`] is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let at = |probe: &Probe| match probe.open {
            Some((_, _, until)) => until,
            None => probe.due,
        };
        self.probes.values().map(at).min()
    }

    /// Gives up what took longer than `patience`, and asks what is due.
    pub fn on_deadline(&mut self, now: Tick, patience: Duration) -> Vec<Step> {
        let mut steps = Vec::new();
        for probe in self.probes.values_mut() {
            if let Some((_, tx, until)) = probe.open
                && until <= now
            {
                probe.missed();
                steps.extend(tx.map(Step::Forget));
            }
            if probe.open.is_none() && probe.due <= now {
                self.last_question += 1;
                let until = now + patience.min(probe.of.every);
                probe.open = Some((self.last_question, None, until));
                probe.due = now + probe.of.every;
                steps.push(Step::Ask {
                    question: self.last_question,
                    peer: probe.of.peer,
                });
            }
        }
        steps
    }

    /// A question has left by this transaction.
    pub fn asked(&mut self, question: u64, tx: TxId) {
        if let Some((_, of, _)) = self.open(question).and_then(|probe| probe.open.as_mut()) {
            *of = Some(tx);
        }
    }

    /// The final answer to a question, or `None`: there will be none.
    pub fn answered(&mut self, question: u64, status: Option<u16>) {
        let Some(probe) = self.open(question) else {
            return;
        };
        match status {
            None | Some(503) => probe.missed(),
            Some(_) => {
                probe.open = None;
                probe.misses = 0;
                probe.down = false;
            }
        }
    }

    fn open(&mut self, question: u64) -> Option<&mut Probe> {
        self.probes
            .values_mut()
            .find(|probe| probe.open.is_some_and(|(open, ..)| open == question))
    }

    /// The addresses that are down.
    #[must_use]
    pub fn down(&self) -> BTreeSet<TargetKey> {
        let down = self.probes.iter().filter(|(_, probe)| probe.down);
        down.map(|(key, _)| *key).collect()
    }
}

impl Probe {
    fn missed(&mut self) {
        self.open = None;
        self.misses = self.misses.saturating_add(1);
        self.down |= self.misses >= MISSES;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::config::TrunkId;
    use crate::sip::Transport;

    const EVERY: Duration = Duration::from_secs(10);
    const PATIENCE: Duration = Duration::from_secs(4);

    fn supervised(last: u8) -> Supervised {
        let addr = ([192, 0, 2, last], 5060).into();
        let transport = Transport::Udp;
        Supervised {
            key: TargetKey {
                trunk: TrunkId(0),
                addr,
                transport,
            },
            peer: Peer {
                listener: 0,
                transport,
                addr,
            },
            every: EVERY,
        }
    }

    fn at(seconds: u64) -> Tick {
        Tick::from_start(Duration::from_secs(seconds))
    }

    #[track_caller]
    fn question(steps: &[Step]) -> u64 {
        match steps {
            [Step::Ask { question, .. }] => *question,
            _ => panic!("{steps:?}"),
        }
    }

    #[test]
    fn two_unanswered_questions_mark_down_and_one_answer_marks_up() {
        let mut prober = Prober::default();
        prober.supervise(at(0), [supervised(1)]);
        question(&prober.on_deadline(at(0), PATIENCE));
        assert_eq!(prober.deadline(), Some(at(4)));
        assert_eq!(prober.on_deadline(at(4), PATIENCE), []);
        assert!(prober.down().is_empty(), "one is not enough");
        assert_eq!(prober.deadline(), Some(at(10)));
        let second = question(&prober.on_deadline(at(10), PATIENCE));
        prober.answered(second, None);
        assert_eq!(prober.down(), [supervised(1).key].into());
        let third = question(&prober.on_deadline(at(20), PATIENCE));
        prober.answered(third, Some(405));
        assert!(prober.down().is_empty(), "a refusal is an answer");
        let fourth = question(&prober.on_deadline(at(30), PATIENCE));
        prober.answered(fourth, Some(503));
        assert!(prober.down().is_empty(), "the count begins anew");
    }

    #[test]
    fn a_503_counts_as_no_answer_and_a_late_answer_as_none() {
        let mut prober = Prober::default();
        prober.supervise(at(0), [supervised(1)]);
        let first = question(&prober.on_deadline(at(0), PATIENCE));
        prober.answered(first, Some(503));
        let second = question(&prober.on_deadline(at(10), PATIENCE));
        prober.on_deadline(at(14), PATIENCE);
        prober.answered(second, Some(200));
        assert_eq!(prober.down().len(), 1);
    }

    #[test]
    fn what_is_known_stays_known_and_what_is_gone_is_forgotten() {
        let mut prober = Prober::default();
        prober.supervise(at(0), [supervised(1), supervised(2)]);
        for second in [0, 10] {
            for step in prober.on_deadline(at(second), PATIENCE) {
                let Step::Ask { question, .. } = step else {
                    panic!("{step:?}");
                };
                prober.answered(question, None);
            }
        }
        assert_eq!(prober.down().len(), 2);
        prober.supervise(at(11), [supervised(2), supervised(3)]);
        assert_eq!(prober.down(), [supervised(2).key].into());
        assert_eq!(
            prober.deadline(),
            Some(at(11)),
            "a new one is asked at once"
        );
        prober.supervise(at(12), []);
        assert_eq!(prober.deadline(), None);
    }

    #[test]
    fn a_node_that_leaves_asks_nobody_and_waits_for_no_answer() {
        let mut prober = Prober::default();
        prober.supervise(at(0), [supervised(1)]);
        let first = question(&prober.on_deadline(at(0), PATIENCE));
        assert_eq!(prober.stop(), [], "it did not leave yet");
        assert_eq!((prober.deadline(), prober.down()), (None, BTreeSet::new()));
        prober.answered(first, None);
        assert_eq!(prober.on_deadline(at(20), PATIENCE), []);
    }
}
