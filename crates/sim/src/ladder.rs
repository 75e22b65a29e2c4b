//! What a run leaves behind for a person: the last steps as a ladder, and how to see them again.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use maskline_media::Tick;

/// Lines that are kept.
const KEPT: usize = 2_000;

/// The course of a run. Every line counts in the hash, only the last ones are kept.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: VecDeque<Line>,
}

#[derive(Debug)]
struct Line {
    at: Tick,
    call: Option<usize>,
    text: String,
}

impl Trace {
    pub(crate) const fn new() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: VecDeque::new(),
        }
    }

    /// One line of the ladder. `bytes` are what the line stands for in full.
    pub(crate) fn line(&mut self, at: Tick, call: Option<usize>, text: String, bytes: &[u8]) {
        self.fold(&at.since_start().as_nanos().to_le_bytes());
        self.fold(text.as_bytes());
        self.fold(bytes);
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { at, call, text });
    }

    /// FNV-1a over words of eight bytes: quick also in a build without optimisation.
    fn fold(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            let mixed = self.hash ^ u64::from_le_bytes(word) ^ ((chunk.len() as u64) << 56);
            self.hash = mixed.wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
        }
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines of one call and those of everybody; of all calls when none is named.
    pub(crate) fn ladder(&self, call: Option<usize>) -> String {
        let mut text = String::new();
        let shown = |line: &&Line| call.is_none() || line.call.is_none() || line.call == call;
        for line in self.lines.iter().filter(shown) {
            let who = line.call.map_or_else(String::new, |call| call.to_string());
            let at = seconds(line.at.since_start());
            text.push_str(&format!("{at:>11} {who:>2} {}\n", line.text));
        }
        text
    }
}

pub(crate) fn seconds(since: Duration) -> String {
    format!("{}.{:06}", since.as_secs(), since.subsec_micros())
}

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The scenario's seed.
    pub seed: u64,
    /// After this step.
    pub step: u64,
    /// On the run's clock.
    pub at: Duration,
    /// What did not hold.
    pub what: String,
    /// What led to it.
    pub ladder: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        writeln!(
            f,
            "seed {}, step {}, {} s into the run",
            self.seed,
            self.step,
            seconds(self.at)
        )?;
        writeln!(f, "{}", self.ladder)?;
        writeln!(f, "seed {}, step {}: {}", self.seed, self.step, self.what)?;
        write!(
            f,
            "a run by seed alone is seen again with: SIM_SEED={} cargo test -p sim --test simulation replay",
            self.seed
        )
    }
}
