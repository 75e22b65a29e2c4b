//! The orders of a worker, kept per session as the work still to be done for it.
//!
//! That is what bounds them: a session has at most one opening, one programming of each side and
//! one closing to be done, and a few presses to be played, however fast orders come.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::poller::Bell;
use super::ports::Lease;
use crate::command::{
    CalleeMedia, CallerMedia, MediaCommand, MediaEvent, MediaKey, OpenFailure, Side,
};
use crate::prompt::Prompt;

/// Presses of one session that wait for the worker, as many as may come of both parties at once; further ones are lost.
const MOST_PRESSES: usize = 64;

/// A worker's orders; shared by whoever gives them and the worker.
#[derive(Debug)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    bell: Bell,
    max_waiting_opens: usize,
    max_sessions: usize,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<MediaKey, Slot>,
    ready: VecDeque<MediaKey>,
    waiting_opens: usize,
    stopped: bool,
}

/// A session's place: it has one from its admission until its last answer was taken.
#[derive(Debug, Default)]
struct Slot {
    work: Work,
    /// Whether the key is in the ready queue.
    ready: bool,
    /// Whether a close was ordered: nothing further is accepted.
    closing: bool,
}

/// What is to be done for a session, in this order.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Open it.
    pub(super) open: Option<Opening>,
    /// What A negotiated last.
    pub(super) caller: Option<CallerMedia>,
    /// What B negotiated last.
    pub(super) callee: Option<CalleeMedia>,
    /// Keys to be played, and who pressed them; [`MOST_PRESSES`] at most.
    pub(super) presses: Vec<(Side, char, bool)>,
    /// What a side is to be played from now on, or nothing any more; the last order of each.
    pub(super) prompts: BTreeMap<Side, Option<Prompt>>,
    /// Close it.
    pub(super) close: bool,
}

/// How a session is to be opened.
#[derive(Debug)]
pub(super) enum Opening {
    /// With any ports.
    Anew {
        /// For the relay.
        seed: u64,
    },
    /// With these.
    Again {
        /// For the relay.
        seed: u64,
        /// Towards A.
        caller: Lease,
        /// Towards B.
        callee: Lease,
    },
}

/// What the worker finds.
#[derive(Debug)]
pub(super) enum Taken {
    /// Something to do.
    Work(MediaKey, Box<Work>),
    /// Nothing at the moment.
    Nothing,
    /// The engine ends.
    Stopped,
}

impl Mailbox {
    pub(super) fn new(max_waiting_opens: usize, max_sessions: usize) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            bell: Bell::new()?,
            max_waiting_opens,
            max_sessions,
        })
    }

    /// Rings when there is something to take after there was nothing.
    pub(super) const fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Keeps an order, or answers it at once.
    pub(super) fn post(&self, command: MediaCommand) -> Option<MediaEvent> {
        let mut state = self.lock();
        let idle = state.ready.is_empty();
        if state.stopped {
            drop(state);
            return command.answer_without_session(OpenFailure::Unavailable);
        }
        let answer = match command {
            MediaCommand::Open { key, seed } => self.admit(&mut state, key, Opening::Anew { seed }),
            // Its ports were not taken: see `post_resume`.
            MediaCommand::Resume { .. } => command.answer_without_session(OpenFailure::Unavailable),
            MediaCommand::ProgramCaller { key, media } => {
                state.order(key, |work| work.caller = Some(media));
                None
            }
            MediaCommand::ProgramCallee { key, media } => {
                state.order(key, |work| work.callee = Some(media));
                None
            }
            MediaCommand::Press {
                key,
                side,
                digit,
                play,
            } => {
                if state.takes_orders(key) {
                    state.order(key, |work| {
                        if work.presses.len() < MOST_PRESSES {
                            work.presses.push((side, digit, play));
                        }
                    });
                    None
                } else {
                    command.answer_without_session(OpenFailure::Unavailable)
                }
            }
            MediaCommand::Play {
                key,
                side,
                ref prompt,
            } if state.takes_orders(key) => state.prompt(key, side, Some(prompt.clone())),
            MediaCommand::StopPlaying { key, side } if state.takes_orders(key) => {
                state.prompt(key, side, None)
            }
            MediaCommand::Play { .. } | MediaCommand::StopPlaying { .. } => {
                command.answer_without_session(OpenFailure::Unavailable)
            }
            MediaCommand::Close { key } => {
                if state.sessions.contains_key(&key) {
                    state.order(key, |work| work.close = true);
                    None
                } else {
                    command.answer_without_session(OpenFailure::Unavailable)
                }
            }
        };
        drop(state);
        if idle {
            self.bell.ring();
        }
        answer
    }

    /// As [`Self::post`], for a session whose ports were taken already.
    pub(super) fn post_resume(&self, key: MediaKey, opening: Opening) -> Option<MediaEvent> {
        let mut state = self.lock();
        let answer = if state.stopped {
            Some(MediaEvent::Refused {
                key,
                reason: OpenFailure::Unavailable,
            })
        } else {
            // What is taken up comes all at once and is bounded by the ports that it holds.
            self.insert(&mut state, key, opening)
        };
        drop(state);
        self.bell.ring();
        answer
    }

    /// The next session that there is something to do for.
    pub(super) fn take(&self) -> Taken {
        let mut state = self.lock();
        if state.stopped {
            return Taken::Stopped;
        }
        while let Some(key) = state.ready.pop_front() {
            if let Some(slot) = state.sessions.get_mut(&key) {
                slot.ready = false;
                let work = std::mem::take(&mut slot.work);
                if work.open.is_some() {
                    state.waiting_opens = state.waiting_opens.saturating_sub(1);
                }
                return Taken::Work(key, Box::new(work));
            }
        }
        Taken::Nothing
    }

    /// The session's last answer was taken by its shard, or there is no such session: its place
    /// is free, unless more is to be done and answered.
    pub(super) fn release(&self, key: MediaKey) {
        let mut state = self.lock();
        if state.sessions.get(&key).is_some_and(|slot| !slot.ready) {
            state.sessions.remove(&key);
        }
    }

    /// Ends it: nothing is taken any more, and all orders are answered at once.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.bell.ring();
    }

    fn admit(&self, state: &mut State, key: MediaKey, opening: Opening) -> Option<MediaEvent> {
        if state.waiting_opens >= self.max_waiting_opens {
            return Some(MediaEvent::Refused {
                key,
                reason: OpenFailure::Unavailable,
            });
        }
        self.insert(state, key, opening)
    }

    fn insert(&self, state: &mut State, key: MediaKey, opening: Opening) -> Option<MediaEvent> {
        if state.sessions.len() >= self.max_sessions || state.sessions.contains_key(&key) {
            return Some(MediaEvent::Refused {
                key,
                reason: OpenFailure::Unavailable,
            });
        }
        state.waiting_opens += 1;
        state.sessions.insert(key, Slot::default());
        state.order(key, |work| work.open = Some(opening));
        None
    }

    /// A thread that died while it held the lock left no half-done change behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn takes_orders(&self, key: MediaKey) -> bool {
        self.sessions.get(&key).is_some_and(|slot| !slot.closing)
    }

    /// Keeps what a side is to be played; answers one that waited and will not be.
    fn prompt(&mut self, key: MediaKey, side: Side, prompt: Option<Prompt>) -> Option<MediaEvent> {
        let mut before = None;
        self.order(key, |work| before = work.prompts.insert(side, prompt));
        Some(MediaEvent::Played {
            key,
            side,
            id: before.flatten()?.id,
            whole: false,
        })
    }

    fn order(&mut self, key: MediaKey, add: impl FnOnce(&mut Work)) {
        let Some(slot) = self.sessions.get_mut(&key) else {
            return;
        };
        if slot.closing {
            return;
        }
        add(&mut slot.work);
        slot.closing = slot.work.close;
        if !slot.ready {
            slot.ready = true;
            self.ready.push_back(key);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::command::RemoteMedia;
    use crate::encoded::EncodedSound;

    const fn key(id: u64) -> MediaKey {
        MediaKey { shard: 0, id }
    }

    const fn open(id: u64) -> MediaCommand {
        MediaCommand::Open {
            key: key(id),
            seed: 9,
        }
    }

    const fn close(id: u64) -> MediaCommand {
        MediaCommand::Close { key: key(id) }
    }

    fn program(id: u64, sends: bool) -> MediaCommand {
        MediaCommand::ProgramCaller {
            key: key(id),
            media: CallerMedia(RemoteMedia {
                rtp: "127.0.0.1:4000".parse().unwrap(),
                rtcp: None,
                rtcp_mux: false,
                srtp: None,
                sources: Vec::new(),
                payloads: Vec::new(),
                sends,
                receives: true,
                listens: false,
                holds: false,
            }),
        }
    }

    fn closed(id: u64) -> Option<MediaEvent> {
        close(id).answer_without_session(OpenFailure::Unavailable)
    }

    fn refused(id: u64) -> Option<MediaEvent> {
        open(id).answer_without_session(OpenFailure::Unavailable)
    }

    #[test]
    fn orders_of_a_session_wait_as_one_piece_of_work_with_the_last_programming() {
        let mailbox = Mailbox::new(8, 8).unwrap();
        assert_eq!(mailbox.post(open(1)), None);
        for n in 0..1_000 {
            assert_eq!(mailbox.post(program(1, n % 2 == 0)), None);
        }
        assert_eq!(mailbox.post(close(1)), None);
        assert_eq!(mailbox.post(close(1)), None);
        assert_eq!(
            mailbox.post(program(1, true)),
            None,
            "after the close: void"
        );
        let Taken::Work(taken, work) = mailbox.take() else {
            panic!("nothing to do");
        };
        assert_eq!(taken, key(1));
        assert!(matches!(work.open, Some(Opening::Anew { seed: 9 })));
        assert!(work.close);
        assert!(!work.caller.unwrap().0.sends);
        assert!(matches!(mailbox.take(), Taken::Nothing));
    }

    #[test]
    fn a_full_queue_refuses_openings_and_still_takes_closes() {
        let mailbox = Mailbox::new(2, 8).unwrap();
        assert_eq!(mailbox.post(open(1)), None);
        assert_eq!(mailbox.post(open(2)), None);
        assert_eq!(mailbox.post(open(3)), refused(3));
        assert_eq!(mailbox.post(close(1)), None);
        assert_eq!(mailbox.post(close(3)), closed(3));
        assert!(matches!(
            mailbox.take(),
            Taken::Work(_, work) if work.close
        ));
        assert_eq!(mailbox.post(open(3)), None, "one opening less waits");
    }

    #[test]
    fn a_session_keeps_its_place_until_its_last_answer_was_taken() {
        let mailbox = Mailbox::new(8, 1).unwrap();
        assert_eq!(mailbox.post(open(1)), None);
        mailbox.take();
        assert_eq!(mailbox.post(close(1)), None);
        mailbox.take();
        assert_eq!(mailbox.post(open(2)), refused(2));
        mailbox.release(key(1));
        assert_eq!(mailbox.post(open(2)), None);
    }

    #[test]
    fn a_close_that_came_while_a_refusal_was_on_its_way_is_not_forgotten() {
        let mailbox = Mailbox::new(8, 8).unwrap();
        assert_eq!(mailbox.post(open(1)), None);
        mailbox.take();
        assert_eq!(mailbox.post(close(1)), None);
        mailbox.release(key(1));
        assert!(matches!(
            mailbox.take(),
            Taken::Work(_, work) if work.close
        ));
        mailbox.release(key(1));
        assert_eq!(mailbox.post(close(1)), closed(1));
    }

    #[test]
    fn a_press_of_no_session_is_left_to_signalling() {
        let mailbox = Mailbox::new(8, 8).unwrap();
        let press = |play| MediaCommand::Press {
            key: key(1),
            side: Side::Callee,
            digit: '5',
            play,
        };
        let left = MediaEvent::NotInRtp {
            key: key(1),
            side: Side::Callee,
            digit: '5',
        };
        assert_eq!(mailbox.post(press(false)), Some(left.clone()));
        assert_eq!(mailbox.post(press(true)), None);
        mailbox.post(open(1));
        assert_eq!(mailbox.post(press(false)), None, "its relay answers");
        mailbox.post(close(1));
        assert_eq!(mailbox.post(press(false)), Some(left));
    }

    #[test]
    fn of_the_prompts_of_a_side_the_last_one_waits_and_those_before_are_answered() {
        let mailbox = Mailbox::new(8, 8).unwrap();
        let play = |side, id| MediaCommand::Play {
            key: key(1),
            side,
            prompt: Prompt {
                id,
                sound: Arc::new(EncodedSound::once(&[])),
                times: 1,
            },
        };
        let over = |side, id| {
            Some(MediaEvent::Played {
                key: key(1),
                side,
                id,
                whole: false,
            })
        };
        let (a, b) = (Side::Caller, Side::Callee);
        let stop = |side| MediaCommand::StopPlaying { key: key(1), side };
        assert_eq!(mailbox.post(play(a, 1)), over(a, 1), "there is no session");
        assert_eq!(mailbox.post(stop(a)), None);
        mailbox.post(open(1));
        assert_eq!(mailbox.post(play(a, 2)), None);
        assert_eq!(mailbox.post(play(b, 3)), None);
        assert_eq!(mailbox.post(play(a, 4)), over(a, 2));
        assert_eq!(mailbox.post(stop(b)), over(b, 3));
        assert_eq!(mailbox.post(stop(b)), None);
        let Taken::Work(_, work) = mailbox.take() else {
            panic!("nothing to do");
        };
        let waits: Vec<_> = work
            .prompts
            .iter()
            .map(|(side, it)| (*side, it.as_ref().map(|it| it.id)))
            .collect();
        assert_eq!(waits, [(a, Some(4)), (b, None)]);
        mailbox.post(close(1));
        assert_eq!(mailbox.post(play(a, 5)), over(a, 5));
    }

    #[test]
    fn a_stopped_mailbox_answers_everything_at_once() {
        let mailbox = Mailbox::new(8, 8).unwrap();
        assert_eq!(mailbox.post(open(1)), None);
        mailbox.stop();
        assert!(matches!(mailbox.take(), Taken::Stopped));
        assert_eq!(mailbox.post(close(1)), closed(1));
        assert_eq!(mailbox.post(open(2)), refused(2));
        assert_eq!(mailbox.post(program(1, true)), None);
    }
}
