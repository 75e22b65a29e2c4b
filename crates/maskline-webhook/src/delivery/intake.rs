//! How events get into the lanes: straight from the journal while all is well, from the store at a
//! start and after what did not fit.
//!
//! The rule that keeps the order: an event is taken straight from the journal only if the one
//! before it was taken too (ordinals of a session have no gap). Any other has its session read
//! from the store first. What finds no room is dropped here and read again later; the store has
//! it.

use std::collections::VecDeque;

use maskline_events::{Timestamp, WebhookType};
use maskline_store::{EventPlace, EventRow, Outcome};
use uuid::Uuid;

use super::lanes::{Action, Lanes, Timer};

/// Most sessions that are read at once.
const LOADS: usize = 8;
/// How long to wait after the store failed.
const PAUSE_MS: i64 = 1_000;

#[derive(Debug)]
pub(super) struct Intake {
    max_events: usize,
    page: usize,
    /// Something was dropped since the last pass over the store began.
    behind: bool,
    scan: Scan,
    wanted: VecDeque<Uuid>,
    loads: usize,
    /// Sessions that ended while a page was read: the page may still hold events of them.
    forget_later: Vec<Uuid>,
    closed: bool,
}

/// A pass over the store's unsettled events.
#[derive(Clone, Debug, PartialEq)]
enum Scan {
    None,
    Reading(Option<EventPlace>),
    /// To be gone on with when there is room.
    Paused(Option<EventPlace>),
    /// To be gone on with when the store has had a rest.
    Failed(Option<EventPlace>),
}

impl Intake {
    pub(super) fn new(max_events: usize, page: u32) -> Self {
        Self {
            max_events: max_events.max(1),
            page: usize::try_from(page).unwrap_or(usize::MAX).max(1),
            // What an earlier process left behind.
            behind: true,
            scan: Scan::None,
            wanted: VecDeque::new(),
            loads: 0,
            forget_later: Vec::new(),
            closed: false,
        }
    }

    pub(super) fn missed(&mut self) {
        self.behind = true;
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn want(&mut self, session: Uuid) {
        self.wanted.push_back(session);
    }

    pub(super) fn scan_again(&mut self) {
        if let Scan::Failed(after) = &mut self.scan {
            self.scan = Scan::Paused(after.take());
        }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.behind || self.scan != Scan::None
    }

    pub(super) fn is_scanning(&self) -> bool {
        matches!(self.scan, Scan::Reading(_))
    }

    /// Whether a session has to be kept until the page that is being read is here.
    pub(super) fn forget_later(&mut self, session: Uuid) -> bool {
        let later = self.is_scanning();
        if later {
            self.forget_later.push(session);
        }
        later
    }

    pub(super) fn poll(&mut self, events: usize) -> Option<Action> {
        if self.closed || events >= self.max_events {
            return None;
        }
        if self.loads < LOADS
            && let Some(session) = self.wanted.pop_front()
        {
            self.loads += 1;
            return Some(Action::Load { session });
        }
        // Not for every single event that leaves.
        if events > self.max_events / 4 * 3 {
            return None;
        }
        let after = match &mut self.scan {
            Scan::None if self.behind => {
                self.behind = false;
                None
            }
            Scan::Paused(after) => after.take(),
            Scan::None | Scan::Reading(_) | Scan::Failed(_) => return None,
        };
        self.scan = Scan::Reading(after.clone());
        Some(Action::Scan { after })
    }
}

impl Lanes {
    fn has_room(&self) -> bool {
        self.events < self.intake.max_events
    }

    pub(super) fn committed(&mut self, now: Timestamp, row: EventRow) {
        let id = row.session_id;
        let expected = match self.sessions.get_mut(&id) {
            Some(session) => {
                if row.ordinal <= session.last {
                    return;
                }
                if let Some(came) = &mut session.loading {
                    if self.events >= self.intake.max_events {
                        self.intake.behind = true;
                    } else {
                        came.push(row);
                        self.events += 1;
                    }
                    return;
                }
                session.last + 1
            }
            None => 1,
        };
        if !self.has_room() {
            self.intake.behind = true;
        } else if row.ordinal == expected {
            self.admit(now, row, None);
        } else {
            let session = self.session(id, &row.sub_account_id);
            session.loading = Some(vec![row]);
            self.events += 1;
            self.intake.want(id);
        }
    }

    pub(super) fn loaded(&mut self, now: Timestamp, id: Uuid, rows: Vec<(EventRow, Outcome)>) {
        self.intake.loads = self.intake.loads.saturating_sub(1);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let came = session.loading.take().unwrap_or_default();
        let before = session.last;
        self.events -= came.len();
        for (row, outcome) in rows {
            if !self.take(now, row, Some(&outcome)) {
                return self.rest(id);
            }
        }
        // Committed after the session was read, and told in order; but one between them may have
        // been missed. It was committed before them, so reading once more finds it.
        let mut came = VecDeque::from(came);
        while let Some(row) = came.pop_front() {
            let last = self.sessions.get(&id).map_or(0, |session| session.last);
            if row.ordinal > last.saturating_add(1) && last > before {
                came.push_front(row);
                break;
            }
            if !self.take(now, row, None) {
                return self.rest(id);
            }
        }
        let room = self.intake.max_events.saturating_sub(self.events);
        if came.len() > room {
            came.truncate(room);
            self.intake.behind = true;
        }
        if !came.is_empty()
            && let Some(session) = self.sessions.get_mut(&id)
        {
            self.events += came.len();
            session.loading = Some(Vec::from(came));
            self.intake.want(id);
        }
        self.rest(id);
    }

    /// Takes an event of a session that has been read up to there; `false`: there is no room.
    fn take(&mut self, now: Timestamp, row: EventRow, stands: Option<&Outcome>) -> bool {
        let known = self.sessions.get(&row.session_id);
        if known.is_some_and(|session| row.ordinal <= session.last) {
            return true;
        }
        if stands.is_some_and(|outcome| outcome.state.is_final()) {
            let session = self.session(row.session_id, &row.sub_account_id);
            session.last = row.ordinal;
            session.summary_taken |= row.webhook_type == WebhookType::Vss;
            return true;
        }
        if !self.has_room() {
            self.intake.behind = true;
            return false;
        }
        self.admit(now, row, stands);
        true
    }

    pub(super) fn load_failed(&mut self, now: Timestamp, id: Uuid) {
        self.intake.loads = self.intake.loads.saturating_sub(1);
        self.timers.insert((now.plus_ms(PAUSE_MS), Timer::Load(id)));
    }

    pub(super) fn scanned(&mut self, now: Timestamp, rows: Vec<(EventRow, Outcome)>) {
        let Scan::Reading(after) = &mut self.intake.scan else {
            return;
        };
        let mut after = after.take();
        let whole = rows.len() < self.intake.page;
        let mut full = false;
        for (row, outcome) in rows {
            let place = row.place();
            if !self.has_room() {
                full = true;
                break;
            }
            // None may be left out here, not even of a session that is being loaded: the pass
            // would go on behind it.
            self.take(now, row, Some(&outcome));
            after = Some(place);
        }
        self.intake.scan = if whole && !full {
            Scan::None
        } else {
            Scan::Paused(after)
        };
        for id in std::mem::take(&mut self.intake.forget_later) {
            self.rest(id);
        }
    }

    pub(super) fn scan_failed(&mut self, now: Timestamp) {
        if let Scan::Reading(after) = &mut self.intake.scan {
            self.intake.scan = Scan::Failed(after.take());
            self.timers.insert((now.plus_ms(PAUSE_MS), Timer::Scan));
        }
        for id in std::mem::take(&mut self.intake.forget_later) {
            self.rest(id);
        }
    }
}
