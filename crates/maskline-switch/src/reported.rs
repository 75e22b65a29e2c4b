//! Calls that another switch handles and reports: one status update in, the events that it makes
//! out, by the rules and in the form of our own calls (contract §3, §4 and §7.6).
//!
//! What lives elsewhere: checking an update's fields (`maskline-events`), keeping sessions and
//! dropping repeated updates (`maskline-store`), when a session is idle (the shell's clock).

mod summary;
#[cfg(test)]
mod tests;

use std::time::Duration;

use maskline_events::{
    CallDirection, CallStatusPayload, CallType, ErrorCode, ErrorDetails, EventData,
    EventParameters, Happening, Party, ReportedEvent, Timestamp, WebhookType,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::body::{country, status_body};
use crate::io::RecordedEvent;

/// The version that this code writes.
const VERSION: u32 = 1;

/// The most status events of a session: the end of each open leg always has its place among them.
/// No call comes near it, and what is made of a session stays within bounds.
pub const MOST_EVENTS: u64 = 10_000;

/// Why an update does not fit its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// A leg's first event is another than `CALL_RECEIVED` or `CALL_INITIATED`.
    #[error("the leg has not begun: its first event is CALL_RECEIVED or CALL_INITIATED")]
    NotBegun,
    /// A second beginning.
    #[error("the leg has begun already")]
    BegunTwice,
    /// A second `CALL_CONNECTED`.
    #[error("the leg is connected already")]
    ConnectedTwice,
    /// Something after `CALL_DISCONNECTED`.
    #[error("the leg has ended")]
    AfterItsEnd,
    /// The leg began with the other `callDirection`.
    #[error("the leg began with the other callDirection")]
    OtherDirection,
    /// A session has one leg of each direction.
    #[error("the session has a leg of this callDirection already")]
    ThirdLeg,
    /// Its summary is written.
    #[error("the session is over")]
    SessionOver,
    /// What is left of its events is for the ends of its open legs.
    #[error(
        "the session has all of the {MOST_EVENTS} events that it may have: only the \
         CALL_DISCONNECTED of its open legs is still taken; report what goes on with a new sessionId"
    )]
    TooManyEvents,
    /// The id is in use elsewhere.
    #[error("the sessionId is not free")]
    ForeignSession,
}

impl Refusal {
    /// Its name in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotBegun => "not_begun",
            Self::BegunTwice => "begun_twice",
            Self::ConnectedTwice => "connected_twice",
            Self::AfterItsEnd => "after_its_end",
            Self::OtherDirection => "other_direction",
            Self::ThirdLeg => "third_leg",
            Self::SessionOver => "session_over",
            Self::TooManyEvents => "too_many_events",
            Self::ForeignSession => "foreign_session",
        }
    }
}

/// A state that this version can't read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableSession {
    /// Not what was written.
    #[error("the state of a reported session is broken")]
    Broken(#[source] serde_json::Error),
    /// Written by a later version.
    #[error("the state of a reported session has version {0}")]
    TooNew(u32),
}

/// Whose session it is, which, and what its events get in addition.
#[derive(Clone, Copy, Debug)]
pub struct SessionName<'a> {
    /// The session.
    pub id: Uuid,
    /// Its sub-account.
    pub sub_account_id: &'a str,
    /// What the sub-account adds to its status events.
    pub parameters: Option<&'a EventParameters>,
}

/// A session as far as its reports go. Once it is over it holds no numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedSession {
    version: u32,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Stage {
    /// A leg is open, or none has begun.
    Open(Box<Open>),
    /// The summary is written.
    Over,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    /// The last sequence that was used.
    ordinal: u64,
    idle_seconds: u64,
    /// The latest time at which the session is known to have gone on.
    heard: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<Leg>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    b: Option<Leg>,
    /// A hung up before B's outcome was known.
    #[serde(default)]
    gave_up: bool,
    /// The first error that ended a leg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDetails>,
}

/// A leg, named by what its first event said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Leg {
    call_id: Uuid,
    call_type: CallType,
    source: Party,
    destination: Party,
    initiated: Timestamp,
    state: LegState,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum LegState {
    Calling { rang: bool },
    Connected { since: Timestamp },
    Ended(LegEnd),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LegEnd {
    at: Timestamp,
    sip_code: u16,
    connected: Option<Timestamp>,
    rang: bool,
    for_error: bool,
}

impl Leg {
    fn connected(&self) -> Option<Timestamp> {
        match &self.state {
            LegState::Calling { .. } => None,
            LegState::Connected { since } => Some(*since),
            LegState::Ended(end) => end.connected,
        }
    }

    fn is_open(&self) -> bool {
        match self.state {
            LegState::Calling { .. } | LegState::Connected { .. } => true,
            LegState::Ended(_) => false,
        }
    }

    /// Whole seconds that it has been connected.
    fn duration(&self, at: Timestamp) -> u64 {
        let connected = self.connected().unwrap_or(at);
        let ms = at.unix_ms().saturating_sub(connected.unix_ms());
        u64::try_from(ms / 1000).unwrap_or(0)
    }
}

impl ReportedSession {
    /// A session of which nothing was heard yet. It counts as ended when nothing was heard of it
    /// for `idle`, unless an update says otherwise.
    #[must_use]
    pub fn new(idle: Duration) -> Self {
        let open = Open {
            ordinal: 0,
            idle_seconds: idle.as_secs(),
            heard: Timestamp::default(),
            a: None,
            b: None,
            gave_up: false,
            error: None,
        };
        Self {
            version: VERSION,
            stage: Stage::Open(Box::new(open)),
        }
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// See [`UnreadableSession`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnreadableSession> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } =
            serde_json::from_slice(bytes).map_err(UnreadableSession::Broken)?;
        if version > VERSION {
            return Err(UnreadableSession::TooNew(version));
        }
        serde_json::from_slice(bytes).map_err(UnreadableSession::Broken)
    }

    /// The session as JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Texts, numbers and options always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// After how long without an update the session counts as ended; `None`: it is over.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        match &self.stage {
            Stage::Open(open) => Some(Duration::from_secs(open.idle_seconds)),
            Stage::Over => None,
        }
    }

    /// Takes an update: its event, and behind it the summary if it ended the last open leg.
    /// `new_id` names them.
    ///
    /// # Errors
    /// Why it does not fit; nothing has changed then.
    pub fn report(
        &mut self,
        name: SessionName<'_>,
        event: &ReportedEvent,
        now: Timestamp,
        new_id: &mut dyn FnMut() -> Uuid,
    ) -> Result<Vec<RecordedEvent>, Refusal> {
        let open = match &mut self.stage {
            Stage::Open(open) => open,
            Stage::Over => return Err(Refusal::SessionOver),
        };
        let at = event.timestamp.unwrap_or(now);
        open.has_place(&event.happening)?;
        open.take(event, at)?;
        if let Some(idle) = event.idle {
            open.idle_seconds = idle.as_secs();
        }
        let mut made = Vec::with_capacity(1);
        made.extend(open.told(name, event.direction, &event.happening, at, now, new_id()));
        if !open.any_open() {
            made.push(open.summarised(name, now, new_id()));
            self.stage = Stage::Over;
        }
        Ok(made)
    }

    /// Ends each open leg with -2001 at the last time at which the session is known to have gone
    /// on, and sums up. Of a session that is over it makes nothing.
    pub fn close_idle(
        &mut self,
        name: SessionName<'_>,
        now: Timestamp,
        new_id: &mut dyn FnMut() -> Uuid,
    ) -> Vec<RecordedEvent> {
        let open = match &mut self.stage {
            Stage::Open(open) => open,
            Stage::Over => return Vec::new(),
        };
        let reason = format!(
            "nothing was reported of the call for {} s",
            open.idle_seconds
        );
        let error = ErrorDetails::with_reason(ErrorCode::Internal, &reason);
        let at = open.heard;
        let mut made = Vec::with_capacity(3);
        for direction in [CallDirection::Inbound, CallDirection::Outbound] {
            let Some(leg) = open.leg(direction).filter(|leg| leg.is_open()) else {
                continue;
            };
            let sip_code = match (leg.connected(), direction) {
                (Some(_), _) => 200,
                (None, CallDirection::Inbound) => 500,
                (None, CallDirection::Outbound) => 487,
            };
            let happening = Happening::Ended {
                sip_code,
                error: Some(error.clone()),
            };
            open.end(direction, sip_code, Some(&error), at);
            made.extend(open.told(name, direction, &happening, at, now, new_id()));
        }
        made.push(open.summarised(name, now, new_id()));
        self.stage = Stage::Over;
        made
    }
}

impl Open {
    const fn leg(&self, direction: CallDirection) -> Option<&Leg> {
        match direction {
            CallDirection::Inbound => self.a.as_ref(),
            CallDirection::Outbound => self.b.as_ref(),
        }
    }

    const fn slot(&mut self, direction: CallDirection) -> &mut Option<Leg> {
        match direction {
            CallDirection::Inbound => &mut self.a,
            CallDirection::Outbound => &mut self.b,
        }
    }

    fn open_legs(&self) -> impl Iterator<Item = &Leg> {
        let legs = [self.a.as_ref(), self.b.as_ref()];
        legs.into_iter().flatten().filter(|leg| leg.is_open())
    }

    fn any_open(&self) -> bool {
        self.open_legs().next().is_some()
    }

    /// Whether there is a place for one more event beside those that are kept for the ends of legs.
    fn has_place(&self, happening: &Happening) -> Result<(), Refusal> {
        let more = match happening {
            Happening::Ended { .. } => return Ok(()),
            // And the end of the leg that begins.
            Happening::Began => 2,
            Happening::Connected | Happening::Updated(_) | Happening::Pressed(_) => 1,
        };
        let ends = self.open_legs().fold(0, |count, _| count + 1);
        let events = self.ordinal.saturating_add(ends).saturating_add(more);
        if events > MOST_EVENTS {
            return Err(Refusal::TooManyEvents);
        }
        Ok(())
    }

    /// Applies an update to its leg, or refuses it and changes nothing.
    fn take(&mut self, event: &ReportedEvent, at: Timestamp) -> Result<(), Refusal> {
        let other = match event.direction {
            CallDirection::Inbound => self.b.as_ref(),
            CallDirection::Outbound => self.a.as_ref(),
        };
        if other.is_some_and(|leg| leg.call_id == event.call_id) {
            return Err(Refusal::OtherDirection);
        }
        let begins = event.happening == Happening::Began;
        let leg = match self.slot(event.direction) {
            None if begins => {
                *self.slot(event.direction) = Some(Leg {
                    call_id: event.call_id,
                    call_type: event.call_type,
                    source: event.source.clone(),
                    destination: event.destination.clone(),
                    initiated: at,
                    state: LegState::Calling { rang: false },
                });
                self.heard = self.heard.max(at);
                return Ok(());
            }
            Some(leg) if leg.call_id == event.call_id => leg,
            Some(_) if begins => return Err(Refusal::ThirdLeg),
            Some(_) | None => return Err(Refusal::NotBegun),
        };
        match (&mut leg.state, &event.happening) {
            (LegState::Ended(_), _) => return Err(Refusal::AfterItsEnd),
            (_, Happening::Began) => return Err(Refusal::BegunTwice),
            (LegState::Connected { .. }, Happening::Connected) => {
                return Err(Refusal::ConnectedTwice);
            }
            (LegState::Calling { .. }, Happening::Connected) => {
                leg.state = LegState::Connected { since: at };
            }
            (LegState::Calling { rang }, Happening::Updated(maskline_events::Update::Ringing)) => {
                *rang = true;
            }
            (_, Happening::Updated(_) | Happening::Pressed(_)) => {}
            (_, Happening::Ended { sip_code, error }) => {
                self.end(event.direction, *sip_code, error.as_ref(), at);
            }
        }
        self.heard = self.heard.max(at);
        Ok(())
    }

    fn end(
        &mut self,
        direction: CallDirection,
        sip_code: u16,
        error: Option<&ErrorDetails>,
        at: Timestamp,
    ) {
        if direction == CallDirection::Inbound && error.is_none() {
            self.gave_up = self.gives_up(sip_code);
        }
        if self.error.is_none() {
            self.error = error.cloned();
        }
        if let Some(leg) = self.slot(direction) {
            let rang = match leg.state {
                LegState::Calling { rang } => rang,
                LegState::Connected { .. } | LegState::Ended(_) => false,
            };
            leg.state = LegState::Ended(LegEnd {
                at,
                sip_code,
                connected: leg.connected(),
                rang,
                for_error: error.is_some(),
            });
        }
    }

    /// Whether A's end with this status is one before B's outcome was known.
    fn gives_up(&self, sip_code: u16) -> bool {
        let connected = self.a.as_ref().and_then(Leg::connected).is_some();
        let canceled = !connected && sip_code == 487;
        match self.b.as_ref().map(|leg| &leg.state) {
            None | Some(LegState::Connected { .. }) => canceled,
            Some(LegState::Calling { .. }) => canceled || connected,
            Some(LegState::Ended(end)) => {
                canceled && end.sip_code == 487 && end.connected.is_none()
            }
        }
    }

    /// The event of what has just happened to a leg.
    fn told(
        &mut self,
        name: SessionName<'_>,
        direction: CallDirection,
        happening: &Happening,
        at: Timestamp,
        now: Timestamp,
        event_id: Uuid,
    ) -> Option<RecordedEvent> {
        let sequence = self.ordinal + 1;
        let leg = self.leg(direction)?;
        let (sip_code, event_data, error_details) = match happening {
            Happening::Began | Happening::Connected => (200, None, None),
            Happening::Updated(update) => {
                let data = EventData {
                    dtmf: None,
                    update: Some(*update),
                };
                (200, Some(data), None)
            }
            Happening::Pressed(key) => {
                let data = EventData {
                    dtmf: Some(key.to_string()),
                    update: None,
                };
                (200, Some(data), None)
            }
            Happening::Ended { sip_code, error } => (*sip_code, None, error.clone()),
        };
        let payload = CallStatusPayload {
            event_id,
            call_id: leg.call_id,
            session_id: name.id,
            sub_account_id: name.sub_account_id.to_owned(),
            call_status: happening.status(direction),
            call_direction: direction,
            call_type: leg.call_type,
            source: leg.source.clone(),
            destination: leg.destination.clone(),
            source_format: leg.source.format(),
            destination_format: leg.destination.format(),
            source_country_code: country(&leg.source),
            destination_country_code: country(&leg.destination),
            call_duration: leg.duration(at),
            sip_code,
            timestamp: at,
            sequence,
            source_ref_id: None,
            destination_ref_id: None,
            event_data,
            error_details,
        };
        self.ordinal = sequence;
        Some(RecordedEvent {
            event_id,
            ordinal: sequence,
            webhook_type: WebhookType::Vcs,
            // When we heard of it: another switch's clock decides nothing here.
            at: now,
            body: status_body(&payload, name.parameters),
        })
    }
}
