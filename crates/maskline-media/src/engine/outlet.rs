//! The way of a worker's events to the shards: in order per shard, without waiting, without loss
//! of answers.
//!
//! A lane per shard holds what the shard has not taken yet; the worker hands it over as room comes up.
//! Answers are bounded by the sessions that have a place in the mailbox; key presses and silences by
//! [`MAX_NOTICES`].

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::command::MediaEvent;
use crate::engine::counters::CounterCells;
use crate::engine::mailbox::Mailbox;

/// From how many waiting events on no further key press is kept.
const MAX_NOTICES: usize = 4_096;

/// The lanes of one worker.
#[derive(Debug)]
pub(super) struct Outlet {
    lanes: Vec<Lane>,
    mailbox: Arc<Mailbox>,
    counters: Arc<CounterCells>,
}

#[derive(Debug)]
struct Lane {
    waiting: VecDeque<MediaEvent>,
    shard: mpsc::Sender<MediaEvent>,
}

impl Outlet {
    pub(super) fn new(
        events: Vec<mpsc::Sender<MediaEvent>>,
        mailbox: Arc<Mailbox>,
        counters: Arc<CounterCells>,
    ) -> Self {
        let lanes = events
            .into_iter()
            .map(|shard| Lane {
                waiting: VecDeque::new(),
                shard,
            })
            .collect();
        Self {
            lanes,
            mailbox,
            counters,
        }
    }

    /// Sends an event on its way; it leaves with [`Self::deliver`].
    pub(super) fn push(&mut self, event: MediaEvent) {
        let Some(lane) = self.lanes.get_mut(usize::from(event.key().shard)) else {
            return;
        };
        if lane.waiting.len() >= MAX_NOTICES {
            match event {
                MediaEvent::Dtmf { .. } | MediaEvent::NotInRtp { .. } => {
                    self.counters.press_discarded();
                    return;
                }
                // Nothing hangs on it, and it is counted.
                MediaEvent::OneWay { .. } => return,
                // One that waits says the same.
                MediaEvent::Silent { .. } if lane.waiting.contains(&event) => return,
                MediaEvent::Silent { .. }
                | MediaEvent::Opened { .. }
                | MediaEvent::Refused { .. }
                | MediaEvent::Played { .. }
                | MediaEvent::Closed { .. } => {}
            }
        }
        lane.waiting.push_back(event);
    }

    /// Hands over what the shards take now; whether everything was taken. A shard that is gone takes
    /// everything.
    pub(super) fn deliver(&mut self) -> bool {
        let mut all = true;
        for lane in &mut self.lanes {
            while let Some(event) = lane.waiting.pop_front() {
                let key = event.key();
                let last = matches!(
                    event,
                    MediaEvent::Closed { .. } | MediaEvent::Refused { .. }
                );
                match lane.shard.try_send(event) {
                    Ok(()) | Err(TrySendError::Closed(_)) => {}
                    Err(TrySendError::Full(event)) => {
                        lane.waiting.push_front(event);
                        all = false;
                        break;
                    }
                }
                if last {
                    self.mailbox.release(key);
                }
            }
        }
        all
    }
}
