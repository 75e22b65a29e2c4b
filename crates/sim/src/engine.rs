//! The virtual media engine: gives ports, takes them back, hears keys and silence as planned. A key that RTP
//! brings goes to the other party at once, and is told of as late as planned.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use maskline_media::press_pairs::{PressPairs, Signal};
use maskline_media::{
    CalleeMedia, CallerMedia, MediaCommand, MediaEvent, MediaKey, OpenFailure, Quality, Side, Tick,
};
use rand::Rng;
use rand_chacha::ChaCha12Rng;

use crate::scenario::CallPlan;

/// How long the engine takes for an answer.
const ANSWERS_AFTER: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
struct Opened {
    /// The RTP port towards A; the one towards B is two above.
    port: u16,
    caller: bool,
    callee: bool,
    planned: bool,
    /// Keys that RTP will bring, the next one first.
    keys: VecDeque<(Tick, Side, char)>,
    /// A's and B's.
    pairs: [PressPairs; 2],
}

/// The engine of one process.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    open: BTreeMap<MediaKey, Opened>,
    next_port: u16,
    /// Keys that went to the other party within the audio since that was asked for.
    passed: Vec<(Side, char)>,
}

impl Opened {
    fn take(&mut self, at: Tick, side: Side, digit: char, signal: Signal) -> bool {
        let [caller, callee] = &mut self.pairs;
        let pairs = match side {
            Side::Caller => caller,
            Side::Callee => callee,
        };
        pairs.take(at, digit, signal)
    }

    /// What RTP brought until now.
    fn hear(&mut self, now: Tick, passed: &mut Vec<(Side, char)>) {
        while let Some((at, side, digit)) = self.keys.pop_front_if(|(at, ..)| *at <= now) {
            if self.take(at, side, digit, Signal::Rtp) {
                passed.push((side, digit));
            }
        }
    }
}

impl Engine {
    /// Carries out a command; the events come so much later.
    pub(crate) fn carry_out(
        &mut self,
        rng: &mut ChaCha12Rng,
        now: Tick,
        command: MediaCommand,
        plan: Option<&CallPlan>,
    ) -> Result<Vec<(Duration, MediaEvent)>, String> {
        let key = command.key();
        if let Some(opened) = self.open.get_mut(&key) {
            opened.hear(now, &mut self.passed);
        }
        match command {
            MediaCommand::Open { .. } => {
                if plan.is_some_and(|plan| plan.no_ports) {
                    let reason = OpenFailure::PortsExhausted;
                    return Ok(vec![(ANSWERS_AFTER, MediaEvent::Refused { key, reason })]);
                }
                loop {
                    self.next_port = self.next_port % 5_000 + 1;
                    let port = 20_000 + self.next_port * 4;
                    if self.open.values().all(|opened| opened.port != port) {
                        return self.take(key, port);
                    }
                }
            }
            MediaCommand::Resume {
                caller_port,
                callee_port,
                ..
            } => {
                if callee_port != caller_port + 2 {
                    return Err("media is resumed with ports that were never given".to_owned());
                }
                let taken = self.open.values().any(|opened| opened.port == caller_port);
                if taken || plan.is_some_and(|plan| plan.ports_lost) {
                    let reason = OpenFailure::PortsLost;
                    return Ok(vec![(ANSWERS_AFTER, MediaEvent::Refused { key, reason })]);
                }
                self.take(key, caller_port)
            }
            MediaCommand::ProgramCaller { .. } | MediaCommand::ProgramCallee { .. } => {
                let Some(opened) = self.open.get_mut(&key) else {
                    return Ok(Vec::new());
                };
                if matches!(command, MediaCommand::ProgramCaller { .. }) {
                    opened.caller = true;
                } else {
                    opened.callee = true;
                }
                if opened.planned || !(opened.caller && opened.callee) {
                    return Ok(Vec::new());
                }
                opened.planned = true;
                let keys = plan.iter().flat_map(|plan| &plan.keys);
                opened.keys = keys
                    .map(|(after, side, digit)| (now + *after, *side, *digit))
                    .collect();
                opened.keys.make_contiguous().sort_by_key(|(at, ..)| *at);
                Ok(plan.map_or_else(Vec::new, |plan| planned(key, plan)))
            }
            MediaCommand::Press {
                side, digit, play, ..
            } => {
                if maskline_media::dtmf::code(digit).is_none() {
                    return Err(format!("{digit:?} is to be played, and is no key"));
                }
                let opened = self.open.get_mut(&key);
                if !opened.is_none_or(|it| it.take(now, side, digit, Signal::Info)) {
                    return Ok(Vec::new());
                }
                if play {
                    self.passed.push((side, digit));
                    return Ok(Vec::new());
                }
                let event = MediaEvent::NotInRtp { key, side, digit };
                Ok(vec![(ANSWERS_AFTER, event)])
            }
            MediaCommand::Play { .. } | MediaCommand::StopPlaying { .. } => {
                Err("no action of a callflow plays anything as yet".to_owned())
            }
            MediaCommand::Close { .. } => {
                let flowed = self.open.remove(&key).is_some_and(|opened| opened.planned);
                let mut quality = || {
                    flowed.then(|| Quality {
                        packets: rng.random_range(1..9_000),
                        loss: f64::from(rng.random_range(0..100_u32)) / 1_000.0,
                        jitter_ms: f64::from(rng.random_range(0..40_u32)),
                        mos: 4.1,
                    })
                };
                let (caller, callee) = (quality(), quality());
                Ok(vec![(
                    ANSWERS_AFTER,
                    MediaEvent::Closed {
                        key,
                        caller,
                        callee,
                    },
                )])
            }
        }
    }

    fn take(&mut self, key: MediaKey, port: u16) -> Result<Vec<(Duration, MediaEvent)>, String> {
        let opened = Opened {
            port,
            ..Opened::default()
        };
        if self.open.insert(key, opened).is_some() {
            return Err("media was opened twice".to_owned());
        }
        Ok(vec![(
            ANSWERS_AFTER,
            MediaEvent::Opened {
                key,
                caller_port: port,
                callee_port: port + 2,
                address: None,
            },
        )])
    }

    /// Keys that the other party got within the audio, and who pressed them.
    pub(crate) fn take_passed(&mut self) -> Vec<(Side, char)> {
        std::mem::take(&mut self.passed)
    }

    /// Whether an event about these media may still come.
    pub(crate) fn is_open(&self, key: MediaKey) -> bool {
        self.open.contains_key(&key)
    }

    /// Sessions that hold ports.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

/// A relay must not be told of a party that it has no address to reach from.
pub(crate) fn in_reach(command: &MediaCommand, both_families: bool) -> Result<(), String> {
    let media = match command {
        MediaCommand::ProgramCaller {
            media: CallerMedia(media),
            ..
        }
        | MediaCommand::ProgramCallee {
            media: CalleeMedia(media),
            ..
        } => media,
        MediaCommand::Open { .. }
        | MediaCommand::Resume { .. }
        | MediaCommand::Press { .. }
        | MediaCommand::Play { .. }
        | MediaCommand::StopPlaying { .. }
        | MediaCommand::Close { .. } => return Ok(()),
    };
    let told = std::iter::once(media.rtp).chain(media.rtcp);
    let mut beyond = told.filter(|at| !both_families && at.is_ipv6() && !at.ip().is_unspecified());
    match beyond.next() {
        Some(at) => Err(format!("the relay has no address to reach {at} from")),
        None => Ok(()),
    }
}

fn planned(key: MediaKey, plan: &CallPlan) -> Vec<(Duration, MediaEvent)> {
    let keys = plan.keys.iter().map(|(after, side, digit)| {
        (
            *after + plan.keys_told_after,
            MediaEvent::Dtmf {
                key,
                side: *side,
                digit: *digit,
            },
        )
    });
    let silence = plan
        .silence
        .map(|(after, side)| (after, MediaEvent::Silent { key, side }));
    keys.chain(silence).collect()
}
