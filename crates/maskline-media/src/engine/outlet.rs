//! The way of a worker's events to the shards: in order per shard, without waiting, without loss
//! of answers.
//!
//! A lane per shard holds what the shard has not taken yet, and a courier hands it over as room
//! comes up. Answers are bounded by the sessions that have a place in the mailbox; key presses
//! and silences by [`MAX_NOTICES`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use crate::command::MediaEvent;
use crate::engine::counters::CounterCells;
use crate::engine::mailbox::Mailbox;

/// From how many waiting events on no further key press is kept.
const MAX_NOTICES: usize = 4_096;

/// The lanes of one worker.
#[derive(Debug)]
pub(super) struct Outlet {
    lanes: Vec<Rc<Lane>>,
    counters: Arc<CounterCells>,
}

#[derive(Debug)]
struct Lane {
    waiting: RefCell<VecDeque<MediaEvent>>,
    pushed: Notify,
    emptied: Notify,
}

impl Outlet {
    /// Lanes to these shards, each with a courier on the current local task set.
    pub(super) fn new(
        events: Vec<mpsc::Sender<MediaEvent>>,
        mailbox: &Arc<Mailbox>,
        counters: Arc<CounterCells>,
    ) -> Self {
        let lanes = events
            .into_iter()
            .map(|shard| {
                let lane = Rc::new(Lane {
                    waiting: RefCell::default(),
                    pushed: Notify::new(),
                    emptied: Notify::new(),
                });
                tokio::task::spawn_local(courier(Rc::clone(&lane), shard, Arc::clone(mailbox)));
                lane
            })
            .collect();
        Self { lanes, counters }
    }

    /// Sends an event on its way.
    pub(super) fn push(&self, event: MediaEvent) {
        let Some(lane) = self.lanes.get(usize::from(event.key().shard)) else {
            return;
        };
        let mut waiting = lane.waiting.borrow_mut();
        if waiting.len() >= MAX_NOTICES {
            match event {
                MediaEvent::Dtmf { .. } => {
                    self.counters.press_discarded();
                    return;
                }
                // One that waits says the same.
                MediaEvent::Silent { .. } if waiting.contains(&event) => return,
                MediaEvent::Silent { .. }
                | MediaEvent::Opened { .. }
                | MediaEvent::Refused { .. }
                | MediaEvent::Closed { .. } => {}
            }
        }
        waiting.push_back(event);
        lane.pushed.notify_one();
    }

    /// Waits until every event was taken.
    pub(super) async fn emptied(&self) {
        for lane in &self.lanes {
            while !lane.waiting.borrow().is_empty() {
                lane.emptied.notified().await;
            }
        }
    }
}

async fn courier(lane: Rc<Lane>, shard: mpsc::Sender<MediaEvent>, mailbox: Arc<Mailbox>) {
    loop {
        // The event stays in the lane until the shard takes it, so that an empty lane means that
        // everything was taken. A shard that is gone takes everything.
        let next = lane.waiting.borrow().front().cloned();
        let Some(event) = next else {
            lane.emptied.notify_one();
            lane.pushed.notified().await;
            continue;
        };
        let key = event.key();
        let last = matches!(
            event,
            MediaEvent::Closed { .. } | MediaEvent::Refused { .. }
        );
        let _ = shard.send(event).await;
        lane.waiting.borrow_mut().pop_front();
        if last {
            mailbox.release(key);
        }
    }
}
