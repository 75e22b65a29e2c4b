//! How much of the memory each sub-account may use, and whose backlog is read from the store next.
//!
//! The more events a sub-account has in memory, the more room must be free for one more. It may
//! have as many as are free beyond half of all room, so one alone has a quarter; it may have
//! [`FEW`] while a quarter of all is free, and one while anything is. So the last quarter is taken
//! by one event of each sub-account: as long as fewer sub-accounts than that have something in
//! memory, there is room for one that has nothing, in whatever order their endpoints died and
//! whatever each had. What is free at the moment would be no measure: a few that die one after the
//! other take all of it.
//!
//! What is beyond stays in the store, and is read in pages, a page of each sub-account in turn,
//! each from where its last page ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

/// Most events in memory that are few, unless there is hardly any room.
const FEW: usize = 16;

/// Session and ordinal of the last event of a page.
pub(super) type Place = (Uuid, u64);

/// What is being read from the store; one thing at a time.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reading {
    Nothing,
    /// Which sub-accounts have something pending.
    Owners,
    /// A page of this one's pending events, after that place.
    Page {
        owner: Arc<str>,
        after: Option<Place>,
    },
}

#[derive(Debug)]
pub(super) struct Room {
    max_events: usize,
    events: usize,
    owners: BTreeMap<Arc<str>, Owner>,
    /// Which sub-accounts are behind is not known.
    ask: bool,
    reading: Reading,
    /// Whose pass can go on, in turn, and who waits for room.
    ready: VecDeque<Arc<str>>,
    full: VecDeque<Arc<str>>,
    /// How many passes are under way.
    passes: usize,
}

#[derive(Debug, Default)]
struct Owner {
    events: usize,
    pass: Pass,
    /// Something was dropped since the pass began.
    behind: bool,
    /// Whether it is among those that wait for room.
    in_full: bool,
    /// Whether events may be pending once more that were taken and settled before.
    replayed: bool,
}

/// A pass over a sub-account's pending events.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Pass {
    #[default]
    None,
    /// Goes on behind that place.
    Ready(Option<Place>),
    Full(Option<Place>),
    Reading,
}

impl Room {
    /// Room for so many events; begins by asking who is behind: an earlier process may have left
    /// something.
    pub(super) fn new(max_events: usize) -> Self {
        Self {
            max_events: max_events.max(1),
            events: 0,
            owners: BTreeMap::new(),
            ask: true,
            reading: Reading::Nothing,
            ready: VecDeque::new(),
            full: VecDeque::new(),
            passes: 0,
        }
    }

    pub(super) fn events(&self) -> usize {
        self.events
    }

    pub(super) fn is_free(&self) -> bool {
        self.events < self.max_events
    }

    pub(super) fn is_behind(&self) -> bool {
        self.ask || self.passes > 0 || self.reading != Reading::Nothing
    }

    pub(super) fn reading(&self) -> &Reading {
        &self.reading
    }

    fn free(&self) -> usize {
        self.max_events.saturating_sub(self.events)
    }

    /// How many events a sub-account may have in memory as things are.
    fn share(&self) -> usize {
        let free = self.free();
        let least = if free > self.max_events / 4 {
            (self.max_events / 64).clamp(1, FEW)
        } else {
            free.min(1)
        };
        free.saturating_sub(self.max_events / 2).max(least)
    }

    fn events_of(&self, owner: &str) -> usize {
        self.owners.get(owner).map_or(0, |owner| owner.events)
    }

    /// Whether a sub-account may have one more event in memory.
    pub(super) fn has_room(&self, owner: &str) -> bool {
        self.events_of(owner) < self.share()
    }

    /// Whether it pays to read more of it: not for every single event that leaves.
    pub(super) fn has_much_room(&self, owner: &str) -> bool {
        let share = self.share();
        share > 0 && self.events_of(owner) <= share / 4 * 3
    }

    /// An event is in memory from here on.
    pub(super) fn enter(&mut self, owner: &Arc<str>) {
        self.events += 1;
        match self.owners.get_mut(owner) {
            Some(found) => found.events += 1,
            None => {
                let found = Owner {
                    events: 1,
                    ..Owner::default()
                };
                self.owners.insert(Arc::clone(owner), found);
            }
        }
    }

    /// So many are no longer.
    pub(super) fn leave(&mut self, owner: &Arc<str>, events: usize) {
        self.events = self.events.saturating_sub(events);
        if let Some(found) = self.owners.get_mut(owner) {
            found.events = found.events.saturating_sub(events);
            if found.events == 0 && found.pass == Pass::None {
                self.owners.remove(owner);
            }
        }
        self.look(owner);
        self.turn();
    }

    /// Whoever waits for room may have it now: one of them is looked at, and comes to its turn
    /// again if not.
    fn turn(&mut self) {
        let Some(owner) = self.full.pop_front() else {
            return;
        };
        let Some(found) = self.owners.get_mut(&owner) else {
            return;
        };
        found.in_full = false;
        if matches!(found.pass, Pass::Full(_)) && !self.look(&owner) {
            self.wait(&owner);
        }
    }

    fn wait(&mut self, owner: &Arc<str>) {
        if let Some(found) = self.owners.get_mut(owner)
            && !found.in_full
        {
            found.in_full = true;
            self.full.push_back(Arc::clone(owner));
        }
    }

    /// Lets a pass that waits for room go on, if there is.
    fn look(&mut self, owner: &Arc<str>) -> bool {
        let much = self.has_much_room(owner);
        match self.owners.get_mut(owner) {
            Some(found) if much => {
                let Pass::Full(after) = found.pass else {
                    return false;
                };
                found.pass = Pass::Ready(after);
                self.ready.push_back(Arc::clone(owner));
                true
            }
            Some(_) | None => false,
        }
    }

    /// Something of a sub-account was left to the store.
    pub(super) fn fall_behind(&mut self, owner: &str) {
        let Some(found) = self.owners.get_mut(owner) else {
            let owner = Arc::from(owner);
            self.owners.insert(Arc::clone(&owner), Owner::default());
            self.passes += 1;
            return self.go_on(&owner, None);
        };
        match found.pass {
            Pass::None => {
                self.passes += 1;
                self.go_on(&Arc::from(owner), None);
            }
            // It has still to begin.
            Pass::Ready(None) | Pass::Full(None) => {}
            Pass::Ready(Some(_)) | Pass::Full(Some(_)) | Pass::Reading => found.behind = true,
        }
    }

    /// Events of a sub-account are pending that were settled before.
    pub(super) fn replayed(&mut self, owner: &str) {
        self.fall_behind(owner);
        if let Some(found) = self.owners.get_mut(owner) {
            found.replayed = true;
        }
    }

    /// A session is read from its beginning. A pass that stands within it goes back there, or it
    /// would take later events before those that the session's own pages have not come to.
    pub(super) fn back_to(&mut self, owner: &str, session: Uuid) {
        if let Some(found) = self.owners.get_mut(owner)
            && let Pass::Ready(Some(place)) | Pass::Full(Some(place)) = &mut found.pass
            && place.0 == session
        {
            place.1 = 0;
        }
    }

    /// Whether that has happened and no whole pass has ended since.
    pub(super) fn is_replayed(&self, owner: &str) -> bool {
        self.owners.get(owner).is_some_and(|found| found.replayed)
    }

    /// Something was left to the store, and it is not known whose.
    pub(super) fn missed(&mut self) {
        self.ask = true;
    }

    fn go_on(&mut self, owner: &Arc<str>, after: Option<Place>) {
        let much = self.has_much_room(owner);
        let Some(found) = self.owners.get_mut(owner) else {
            return;
        };
        if much {
            found.pass = Pass::Ready(after);
            self.ready.push_back(Arc::clone(owner));
        } else {
            found.pass = Pass::Full(after);
            self.wait(owner);
        }
    }

    /// What to read next, unless something is being read.
    pub(super) fn read(&mut self) -> Option<Reading> {
        if self.reading != Reading::Nothing {
            return None;
        }
        if std::mem::take(&mut self.ask) {
            self.reading = Reading::Owners;
            return Some(Reading::Owners);
        }
        while let Some(owner) = self.ready.pop_front() {
            let Some(found) = self.owners.get_mut(&owner) else {
                continue;
            };
            let Pass::Ready(after) = found.pass else {
                continue;
            };
            if after.is_none() {
                found.behind = false;
            }
            found.pass = Pass::Reading;
            self.reading = Reading::Page { owner, after };
            return Some(self.reading.clone());
        }
        None
    }

    /// These have something pending.
    pub(super) fn owners(&mut self, owners: &[String]) {
        if self.reading == Reading::Owners {
            self.reading = Reading::Nothing;
        }
        for owner in owners {
            self.fall_behind(owner);
        }
    }

    /// A page was read and taken in up to that place; there may be more.
    pub(super) fn page_read(&mut self, after: Option<Place>) {
        if let Reading::Page { owner, .. } = self.end_reading() {
            self.go_on(&owner, after);
        }
    }

    /// The last page was read and taken in.
    pub(super) fn pass_ended(&mut self) {
        let Reading::Page { owner, .. } = self.end_reading() else {
            return;
        };
        let Some(found) = self.owners.get_mut(&owner) else {
            return;
        };
        if found.behind {
            self.go_on(&owner, None);
        } else {
            found.pass = Pass::None;
            found.replayed = false;
            self.passes -= 1;
            if found.events == 0 {
                self.owners.remove(&owner);
            }
        }
        self.turn();
    }

    /// What was being read could not be.
    pub(super) fn read_failed(&mut self) {
        match self.end_reading() {
            Reading::Nothing => {}
            Reading::Owners => self.ask = true,
            Reading::Page { owner, after } => self.go_on(&owner, after),
        }
    }

    fn end_reading(&mut self) -> Reading {
        std::mem::replace(&mut self.reading, Reading::Nothing)
    }
}

#[cfg(test)]
mod tests;
