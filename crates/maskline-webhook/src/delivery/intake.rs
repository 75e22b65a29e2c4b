//! How events get into the lanes: straight from the journal while all is well, from the store at a
//! start, after what did not fit, and when they are replayed.
//!
//! The rule that keeps the order: an event is taken straight from the journal only if the one
//! before it was taken too (ordinals of a session have no gap). Any other has its session read
//! from the store first: page by page, only what is pending and only behind what was taken, so
//! that a long session costs no more than a short one. What finds no room is dropped here and read
//! again later; the store has it. Behind a row that can't be read its session stands still, and
//! nobody else.
//!
//! What lives elsewhere: how much room each sub-account has, and whose turn it is to be read
//! (`room`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use maskline_events::{Timestamp, WebhookType};
use maskline_store::{EventRow, Lost, Outcome, PendingPage, SessionBacklog, StoredEvent};
use uuid::Uuid;

use super::lanes::{Action, Lanes, Session, Timer};
use super::room::{Reading, Room};

/// Most sessions that are read at once: with the page of a pass there are fewer than the store has
/// readers (4), so that no question of a call waits for them.
const LOADS: usize = 2;
/// How long to wait after the store failed.
const PAUSE_MS: i64 = 1_000;
/// Most broken rows that are remembered, so as to name each once.
const MAX_NAMED: usize = 10_000;

/// A session on its way from the store.
#[derive(Debug)]
pub(super) struct Loading {
    /// The last event that was taken before the first page of it.
    from: u64,
    /// Events that were committed since, as far as there was room.
    came: Vec<EventRow>,
}

#[derive(Debug)]
pub(super) struct Intake {
    pub(super) room: Room,
    page: usize,
    wanted: VecDeque<Uuid>,
    loads: usize,
    /// The store failed, and is left alone for a while.
    resting: bool,
    /// Sessions that ended while a page was read: the page may still hold events of them.
    forget_later: Vec<Uuid>,
    named: BTreeSet<(Option<Uuid>, u64)>,
    closed: bool,
}

impl Intake {
    pub(super) fn new(max_events: usize, page: u32) -> Self {
        Self {
            room: Room::new(max_events),
            page: usize::try_from(page).unwrap_or(usize::MAX).max(1),
            wanted: VecDeque::new(),
            loads: 0,
            resting: false,
            forget_later: Vec::new(),
            named: BTreeSet::new(),
            closed: false,
        }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn want(&mut self, session: Uuid) {
        self.wanted.push_back(session);
    }

    pub(super) fn rested(&mut self) {
        self.resting = false;
    }

    pub(super) fn is_reading(&self) -> bool {
        *self.room.reading() != Reading::Nothing
    }

    /// Whether a session has to be kept until the page that is being read is here.
    pub(super) fn forget_later(&mut self, session: Uuid) -> bool {
        let later = self.is_reading();
        if later {
            self.forget_later.push(session);
        }
        later
    }

    pub(super) fn poll(&mut self, sessions: &BTreeMap<Uuid, Session>) -> Option<Action> {
        if self.closed {
            return None;
        }
        while self.loads < LOADS
            && self.room.is_free()
            && let Some(id) = self.wanted.pop_front()
        {
            if let Some(session) = sessions.get(&id) {
                self.loads += 1;
                return Some(Action::Load {
                    owner: Arc::clone(&session.owner),
                    session: id,
                    after: session.last,
                });
            }
        }
        if self.resting {
            return None;
        }
        match self.room.read()? {
            Reading::Nothing => None,
            Reading::Owners => Some(Action::Owners),
            Reading::Page { owner, after } => Some(Action::Scan { owner, after }),
        }
    }

    /// Whether a broken row is met for the first time.
    fn is_new(&mut self, session: Option<Uuid>, ordinal: u64) -> bool {
        if self.named.len() >= MAX_NAMED {
            self.named.clear();
        }
        self.named.insert((session, ordinal))
    }
}

impl Lanes {
    pub(super) fn committed(&mut self, now: Timestamp, row: EventRow) {
        let id = row.session_id;
        let has_room = self.intake.room.has_room(&row.sub_account_id);
        let expected = match self.sessions.get_mut(&id) {
            Some(session) => {
                if row.ordinal <= session.last {
                    return;
                }
                if session.stopped {
                    session.last = row.ordinal;
                    return;
                }
                if let Some(loading) = &mut session.loading {
                    if has_room {
                        self.intake.room.enter(&session.owner);
                        loading.came.push(row);
                    } else {
                        self.intake.room.fall_behind(&session.owner);
                    }
                    return;
                }
                session.last + 1
            }
            None => 1,
        };
        let room = &mut self.intake.room;
        if has_room && row.ordinal == expected {
            self.admit(now, row, None);
        } else if !room.has_much_room(&row.sub_account_id) {
            // A whole page would be read for each event that leaves, and few of it taken.
            room.fall_behind(&row.sub_account_id);
        } else {
            let from = self.session(id, &row.sub_account_id).last;
            self.read_on(id, from, [row]);
        }
    }

    /// Events of these sessions of a sub-account are pending that were settled before. Those of a
    /// session that is in memory lie behind what was taken of it: it is read anew when nothing of
    /// it is under way. Those of any other are found as what does not fit is.
    pub(super) fn replayed(&mut self, owner: &str, sessions: &[Uuid]) {
        for id in sessions {
            if let Some(session) = self.sessions.get_mut(id) {
                session.replay = true;
                self.rest(*id);
            }
        }
        self.intake.room.replayed(owner);
    }

    /// Whether a pending event is behind what was taken of its session, and not in memory: it may
    /// be a replayed one that its session was told nothing of, because it was not in memory then.
    fn is_left_behind(&self, stored: &StoredEvent) -> Option<Uuid> {
        let (id, ordinal) = stored.key()?;
        let session = self.sessions.get(&id)?;
        let left = ordinal <= session.last && !session.stopped && !session.has(ordinal);
        left.then_some(id)
    }

    /// Reads a session that has nothing under way from its beginning.
    pub(super) fn reload(&mut self, id: Uuid) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.replay = false;
            session.stopped = false;
            session.last = 0;
            // What is pending once more is no longer lost; the store knows of the rest.
            session.lost = Lost::default();
            self.intake.room.back_to(&session.owner, id);
            self.read_on(id, 0, []);
        }
    }

    /// Reads a session on behind what was taken of it; what came meanwhile waits as far as there is
    /// room.
    fn read_on(&mut self, id: Uuid, from: u64, came: impl IntoIterator<Item = EventRow>) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let mut waits = Vec::new();
        for row in came {
            if !self.intake.room.has_room(&session.owner) {
                self.intake.room.fall_behind(&session.owner);
                break;
            }
            self.intake.room.enter(&session.owner);
            waits.push(row);
        }
        session.loading = Some(Loading { from, came: waits });
        self.intake.want(id);
    }

    pub(super) fn loaded(&mut self, now: Timestamp, id: Uuid, backlog: SessionBacklog) {
        self.intake.loads = self.intake.loads.saturating_sub(1);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(Loading { from, came }) = session.loading.take() else {
            return;
        };
        let owner = Arc::clone(&session.owner);
        self.intake.room.leave(&owner, came.len());
        for stored in backlog.pending {
            if !self.take_stored(now, &owner, stored, Some(&backlog.lost)) {
                self.intake.room.fall_behind(&owner);
                return self.rest(id);
            }
        }
        if backlog.more {
            return self.read_on(id, from, came);
        }
        // What it did not name is settled.
        if let Some(session) = self.sessions.get_mut(&id) {
            session.last = session.last.max(backlog.last);
            session.lost.merge(&backlog.lost, backlog.last);
            session.summary_taken |= backlog.has_summary;
        }
        // Committed after the session was read, and told in order; but one between them may have
        // been missed. It was committed before them, so reading once more finds it.
        let mut came = VecDeque::from(came);
        while let Some(row) = came.pop_front() {
            let last = self.sessions.get(&id).map_or(0, |session| session.last);
            if row.ordinal > last.saturating_add(1) && last > from {
                came.push_front(row);
                return self.read_on(id, last, came);
            }
            if !self.take(now, row, None) {
                self.intake.room.fall_behind(&owner);
                return self.rest(id);
            }
        }
        self.rest(id);
    }

    /// Takes an event of a page, and what the page says was lost before it.
    fn take_stored(
        &mut self,
        now: Timestamp,
        owner: &str,
        stored: StoredEvent,
        lost: Option<&Lost>,
    ) -> bool {
        match stored {
            StoredEvent::Whole(row, outcome) => {
                let (id, ordinal) = (row.session_id, row.ordinal);
                let taken = self.take(now, row, Some(&outcome));
                if taken
                    && let Some(lost) = lost
                    && let Some(session) = self.sessions.get_mut(&id)
                {
                    session.lost.merge(lost, ordinal);
                }
                taken
            }
            StoredEvent::Broken {
                session_id,
                ordinal,
                reason,
            } => {
                self.broken(owner, session_id, ordinal, reason);
                true
            }
        }
    }

    /// Takes an event of a session that has been read up to there; `false`: there is no room.
    fn take(&mut self, now: Timestamp, row: EventRow, stands: Option<&Outcome>) -> bool {
        if let Some(session) = self.sessions.get_mut(&row.session_id) {
            if row.ordinal <= session.last {
                return true;
            }
            if session.stopped {
                session.last = row.ordinal;
                return true;
            }
        }
        if stands.is_some_and(|outcome| outcome.state.is_final()) {
            let session = self.session(row.session_id, &row.sub_account_id);
            session.last = row.ordinal;
            session.summary_taken |= row.webhook_type == WebhookType::Vss;
            if let Some(outcome) = stands {
                session
                    .lost
                    .note(row.ordinal, row.webhook_type, outcome.state);
            }
            return true;
        }
        if !self.intake.room.has_room(&row.sub_account_id) {
            return false;
        }
        self.admit(now, row, stands);
        true
    }

    /// A row can't be read: nothing behind it goes on in its session.
    fn broken(&mut self, owner: &str, id: Option<Uuid>, ordinal: u64, reason: String) {
        if let Some(id) = id {
            let session = self.session(id, owner);
            if ordinal > 0 && ordinal <= session.last {
                // It was taken from the journal before it broke, or stopped the session already.
                return;
            }
            session.stopped = true;
            session.last = session.last.max(ordinal);
        }
        if self.intake.is_new(id, ordinal) {
            self.order(Action::Broken {
                session: id,
                ordinal,
                reason,
            });
        }
    }

    pub(super) fn load_failed(&mut self, now: Timestamp, id: Uuid) {
        self.intake.loads = self.intake.loads.saturating_sub(1);
        self.timers.insert((now.plus_ms(PAUSE_MS), Timer::Load(id)));
    }

    /// Sub-accounts that have something pending.
    pub(super) fn owners(&mut self, owners: &[String]) {
        self.intake.room.owners(owners);
        self.forget_now();
    }

    pub(super) fn scanned(&mut self, now: Timestamp, page: PendingPage) {
        let Reading::Page { owner, mut after } = self.intake.room.reading().clone() else {
            return;
        };
        let keyed = page.events.iter().filter(|row| row.key().is_some()).count();
        let mut full = false;
        for stored in page.events {
            let place = stored.key();
            if self.intake.room.is_replayed(&owner)
                && let Some(id) = self.is_left_behind(&stored)
            {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.replay = true;
                }
                self.rest(id);
            }
            // None may be left out here, not even of a session that is being loaded: the pass
            // would go on behind it.
            let lost = place.and_then(|(id, _)| page.lost.get(&id));
            if !self.take_stored(now, &owner, stored, lost) {
                full = true;
                break;
            }
            after = place.or(after);
        }
        if keyed < self.intake.page && !full {
            self.intake.room.pass_ended();
        } else {
            self.intake.room.page_read(after);
        }
        self.forget_now();
    }

    pub(super) fn scan_failed(&mut self, now: Timestamp) {
        self.intake.room.read_failed();
        self.intake.resting = true;
        self.timers.insert((now.plus_ms(PAUSE_MS), Timer::Rested));
        self.forget_now();
    }

    fn forget_now(&mut self) {
        for id in std::mem::take(&mut self.intake.forget_later) {
            self.rest(id);
        }
    }
}
