//! What is durable: each session's events as a receiver will see them, checked as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use maskline_events::{
    CallDirection, CallStatus, CallStatusPayload, Envelope, LegStatus, SessionStatus,
    SessionSummaryPayload, Update, WebhookType,
};
use maskline_media::Side;
use maskline_switch::{JournalRecord, RecordedEvent};
use uuid::Uuid;

use crate::{checks, parameters};

/// A record of the journal, read.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) session_id: Uuid,
    pub(crate) snapshot: Option<Vec<u8>>,
    pub(crate) events: Vec<ReadEvent>,
}

/// An event of the journal, read.
#[derive(Debug)]
pub(crate) struct ReadEvent {
    pub(crate) event_id: Uuid,
    pub(crate) ordinal: u64,
    pub(crate) content: Content,
}

/// What an event says.
#[derive(Debug)]
pub(crate) enum Content {
    Status(Box<CallStatusPayload>),
    Summary(Box<SessionSummaryPayload>),
}

impl Entry {
    /// Reads what a shard wants committed.
    pub(crate) fn read(record: JournalRecord) -> Result<Self, String> {
        let events = record
            .events
            .iter()
            .map(ReadEvent::read)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            session_id: record.session_id,
            snapshot: record.snapshot,
            events,
        })
    }
}

impl ReadEvent {
    fn read(event: &RecordedEvent) -> Result<Self, String> {
        let fault = |error| format!("an event's body does not read: {error}");
        let content = match event.webhook_type {
            WebhookType::Vcs => {
                let body: Envelope<CallStatusPayload> =
                    serde_json::from_str(&event.body).map_err(fault)?;
                parameters::check_event(&event.body, &body.payload)?;
                Content::Status(Box::new(body.payload))
            }
            WebhookType::Vss => {
                let body: Envelope<SessionSummaryPayload> =
                    serde_json::from_str(&event.body).map_err(fault)?;
                Content::Summary(Box::new(body.payload))
            }
            WebhookType::Vca | WebhookType::Vru | WebhookType::Vnu => {
                return Err(format!("{} in the journal of a call", event.webhook_type));
            }
        };
        Ok(Self {
            event_id: event.event_id,
            ordinal: event.ordinal,
            content,
        })
    }
}

/// A leg's side by its direction.
pub(crate) const fn side_of(payload: &CallStatusPayload) -> Side {
    match payload.call_direction {
        CallDirection::Inbound => Side::Caller,
        CallDirection::Outbound => Side::Callee,
    }
}

/// One event in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine {
    /// The leg.
    pub side: Side,
    /// What happened.
    pub status: CallStatus,
    /// The kind of change, or the key.
    pub detail: Option<String>,
    /// The leg's SIP status.
    pub sip_code: u16,
    /// The platform's error.
    pub error: Option<i32>,
}

impl fmt::Display for EventLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leg = match self.side {
            Side::Caller => 'A',
            Side::Callee => 'B',
        };
        write!(f, "{leg} {}", word(&self.status))?;
        if let Some(detail) = &self.detail {
            write!(f, " {detail}")?;
        }
        if self.status == CallStatus::CallDisconnected {
            write!(f, " {}", self.sip_code)?;
        }
        match self.error {
            Some(error) => write!(f, " {error}"),
            None => Ok(()),
        }
    }
}

/// A value as the contract spells it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// What is durable of one session.
#[derive(Clone, Debug, Default)]
pub struct SessionLog {
    /// The virtual number that was called.
    pub called: String,
    /// Its call events in order.
    pub events: Vec<EventLine>,
    /// How it ended: A, B, session, error.
    pub summary: Option<(LegStatus, Option<LegStatus>, SessionStatus, Option<i32>)>,
    /// Whether a restarted node would adopt it.
    pub open: bool,
    legs: BTreeMap<Side, LegLog>,
    next_ordinal: u64,
}

#[derive(Clone, Debug)]
struct LegLog {
    call_id: Uuid,
    connected: bool,
    ended: Option<u16>,
    duration: u64,
}

impl SessionLog {
    /// The events and the summary as lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.events.iter().map(ToString::to_string).collect();
        if let Some((a, b, session, error)) = &self.summary {
            let b = b.map_or_else(|| "none".to_owned(), |status| word(&status));
            let error = error.map_or_else(String::new, |error| format!(" {error}"));
            lines.push(format!("SUMMARY {} {b} {}{error}", word(a), word(session)));
        }
        lines
    }

    fn take(&mut self, session_id: Uuid, event: &ReadEvent) -> Result<(), String> {
        if self.summary.is_some() {
            return Err("an event after the summary".to_owned());
        }
        if event.ordinal != self.next_ordinal + 1 {
            return Err(format!(
                "sequence {} after {}",
                event.ordinal, self.next_ordinal
            ));
        }
        self.next_ordinal = event.ordinal;
        match &event.content {
            Content::Status(payload) => self.take_status(session_id, event, payload),
            Content::Summary(payload) => self.take_summary(session_id, payload),
        }
    }

    fn take_status(
        &mut self,
        session_id: Uuid,
        event: &ReadEvent,
        payload: &CallStatusPayload,
    ) -> Result<(), String> {
        let side = side_of(payload);
        let told = (payload.event_id, payload.session_id, payload.sequence);
        if told != (event.event_id, session_id, event.ordinal) {
            return Err("an event's body contradicts its row".to_owned());
        }
        let first = match side {
            Side::Caller => CallStatus::CallReceived,
            Side::Callee => CallStatus::CallInitiated,
        };
        let is_first = !self.legs.contains_key(&side);
        if is_first != (payload.call_status == first) {
            return Err(format!(
                "{} is out of place on this leg",
                word(&payload.call_status)
            ));
        }
        if self.legs.is_empty() && side == Side::Callee {
            return Err("the session does not begin with CALL_RECEIVED".to_owned());
        }
        let leg = self.legs.entry(side).or_insert(LegLog {
            call_id: payload.call_id,
            connected: false,
            ended: None,
            duration: 0,
        });
        if leg.call_id != payload.call_id {
            return Err("a leg has two call ids".to_owned());
        }
        if leg.ended.is_some() {
            return Err("an event after the leg's CALL_DISCONNECTED".to_owned());
        }
        if !leg.connected && payload.call_duration != 0 {
            return Err("a duration before the leg connected".to_owned());
        }
        match payload.call_status {
            CallStatus::CallConnected if leg.connected => {
                return Err("a leg connected twice".to_owned());
            }
            CallStatus::CallConnected => leg.connected = true,
            CallStatus::CallDisconnected => {
                leg.ended = Some(payload.sip_code);
                leg.duration = payload.call_duration;
                let error = payload
                    .error_details
                    .as_ref()
                    .map(|error| error.error_code.code());
                checks::sip_code(side, leg.connected, payload.sip_code, error)?;
            }
            CallStatus::CallReceived
            | CallStatus::CallInitiated
            | CallStatus::CallUpdated
            | CallStatus::DtmfReceived
            | CallStatus::ActionCompleted => {}
        }
        if payload.call_status != CallStatus::CallDisconnected
            && (payload.sip_code != 200 || payload.error_details.is_some())
        {
            return Err("an event that ends nothing has a failing status".to_owned());
        }
        if side == Side::Caller {
            self.called = payload.destination.as_str().to_owned();
        }
        let data = payload.event_data.as_ref();
        let update: Option<Update> = data.and_then(|data| data.update);
        self.events.push(EventLine {
            side,
            status: payload.call_status,
            detail: update
                .map(|update| word(&update))
                .or_else(|| data.and_then(|data| data.dtmf.clone())),
            sip_code: payload.sip_code,
            error: payload
                .error_details
                .as_ref()
                .map(|error| error.error_code.code()),
        });
        Ok(())
    }

    fn take_summary(
        &mut self,
        session_id: Uuid,
        payload: &SessionSummaryPayload,
    ) -> Result<(), String> {
        if payload.session_id != session_id {
            return Err("a summary of another session".to_owned());
        }
        let told = [
            (Side::Caller, payload.details.call_a.as_ref()),
            (Side::Callee, payload.details.call_b.as_ref()),
        ];
        for (side, leg) in told {
            match (self.legs.get(&side), leg) {
                (None, None) => {}
                (Some(events), Some(leg)) => {
                    if events.ended.is_none() {
                        return Err("a summary before a leg's CALL_DISCONNECTED".to_owned());
                    }
                    if (events.call_id, events.connected, events.duration)
                        != (
                            leg.call_id,
                            leg.connected_timestamp.is_some(),
                            leg.call_duration,
                        )
                    {
                        return Err("the summary contradicts a leg's events".to_owned());
                    }
                }
                (Some(_), None) => return Err("the summary lacks a leg".to_owned()),
                (None, Some(_)) => return Err("the summary has a leg without events".to_owned()),
            }
        }
        if usize::try_from(payload.call_count).ok() != Some(self.legs.len()) {
            return Err("callCount is not the number of legs".to_owned());
        }
        let a = payload
            .details
            .call_a
            .as_ref()
            .map(|leg| leg.call_status)
            .ok_or("a summary without callA")?;
        let b = payload.details.call_b.as_ref().map(|leg| leg.call_status);
        let error = payload
            .error_details
            .as_ref()
            .map(|error| error.error_code.code());
        checks::outcome(a, b, payload.session_status, error)?;
        self.summary = Some((a, b, payload.session_status, error));
        Ok(())
    }
}

/// Everything that is durable.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) sessions: BTreeMap<Uuid, SessionLog>,
    pub(crate) snapshots: BTreeMap<Uuid, Vec<u8>>,
    /// Sessions that lack a commit: what is told of them is no longer whole.
    rejected: BTreeSet<Uuid>,
    event_ids: BTreeSet<Uuid>,
    reached: BTreeSet<(Uuid, Side, &'static str)>,
}

/// The statuses that something waits for.
pub(crate) const fn gate_of(status: CallStatus) -> Option<&'static str> {
    match status {
        CallStatus::CallReceived => Some("CALL_RECEIVED"),
        CallStatus::CallInitiated => Some("CALL_INITIATED"),
        CallStatus::CallConnected => Some("CALL_CONNECTED"),
        CallStatus::CallDisconnected => Some("CALL_DISCONNECTED"),
        CallStatus::CallUpdated | CallStatus::DtmfReceived | CallStatus::ActionCompleted => None,
    }
}

impl Ledger {
    /// Makes a record durable.
    pub(crate) fn commit(&mut self, entry: Entry) -> Result<(), String> {
        let log = self.sessions.entry(entry.session_id).or_default();
        for event in &entry.events {
            if !self.event_ids.insert(event.event_id) {
                return Err("an eventId was used twice".to_owned());
            }
            if !self.rejected.contains(&entry.session_id) {
                log.take(entry.session_id, event)?;
            }
            if let Content::Status(payload) = &event.content
                && let Some(gate) = gate_of(payload.call_status)
            {
                self.reached
                    .insert((entry.session_id, side_of(payload), gate));
            }
        }
        log.open = entry.snapshot.is_some();
        match entry.snapshot {
            Some(_) if self.rejected.contains(&entry.session_id) => {}
            Some(snapshot) => drop(self.snapshots.insert(entry.session_id, snapshot)),
            None => drop(self.snapshots.remove(&entry.session_id)),
        }
        Ok(())
    }

    /// A commit of this session is refused.
    pub(crate) fn reject(&mut self, session: Uuid) {
        self.rejected.insert(session);
        self.snapshots.remove(&session);
    }

    /// Whether the store refused anything of this session.
    pub(crate) fn is_rejected(&self, session: Uuid) -> bool {
        self.rejected.contains(&session)
    }

    /// Whether this event of this leg is durable.
    pub(crate) fn has(&self, session: Uuid, side: Side, gate: &'static str) -> bool {
        self.reached.contains(&(session, side, gate))
    }
}
