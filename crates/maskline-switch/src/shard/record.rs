//! Writing events: payloads by the contract, the summary, and the commit that makes both durable.

use maskline_events::{
    CallActionPayload, CallDirection, CallQuality, CallStatus, CallStatusPayload, CallType,
    ErrorDetails, EventData, LegStatus, LegSummary, SessionDetails, SessionStatus,
    SessionSummaryPayload, Timestamp, Update, WebhookType,
};
use maskline_media::{Quality, Side};
use rand::RngCore;
use uuid::Uuid;

use super::Shard;
use crate::body::{body_of, country, status_body};
use crate::io::{Action, CommitId, JournalRecord, RecordedEvent};
use crate::session::{Leg, Session, Stage};
use crate::snapshot::Snapshot;
use crate::trace::Step;

/// What an event says beside the leg itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Detail {
    pub(super) data: Option<EventData>,
    pub(super) error: Option<ErrorDetails>,
}

impl Detail {
    pub(super) fn update(update: Update) -> Self {
        Self {
            data: Some(EventData {
                dtmf: None,
                update: Some(update),
            }),
            error: None,
        }
    }

    pub(super) fn dtmf(digit: char) -> Self {
        Self {
            data: Some(EventData {
                dtmf: Some(digit.to_string()),
                update: None,
            }),
            error: None,
        }
    }
}

impl Shard {
    /// A UUID of version 7: its time is the wall clock's, the rest is random.
    pub(super) fn new_uuid(&mut self) -> Uuid {
        let mut random = [0; 10];
        self.rng.fill_bytes(&mut random);
        let millis = u64::try_from(self.now.wall.unix_ms()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    /// Records that something happened to a leg. Nothing leaves before [`Self::save`].
    pub(super) fn record(
        &mut self,
        s: &mut Session,
        side: Side,
        status: CallStatus,
        detail: Detail,
    ) {
        if matches!(status, CallStatus::CallReceived | CallStatus::CallInitiated) {
            self.trace_leg(s, side);
        }
        let event_id = self.new_uuid();
        s.ordinal += 1;
        let Some(payload) = self.status_payload(s, side, status, event_id, detail) else {
            return;
        };
        let at = payload.timestamp;
        let step = Step::Event {
            side: side.into(),
            status,
            sip_code: payload.sip_code,
        };
        self.trace_step(s, step);
        let parameters = self.directory.parameters(&s.number.sub_account_id);
        let body = status_body(&payload, parameters);
        let ordinal = s.ordinal;
        s.unsaved.push(RecordedEvent {
            event_id,
            ordinal,
            webhook_type: WebhookType::Vcs,
            at,
            body,
        });
    }

    fn status_payload(
        &self,
        s: &Session,
        side: Side,
        call_status: CallStatus,
        event_id: Uuid,
        detail: Detail,
    ) -> Option<CallStatusPayload> {
        let leg = s.leg(side)?;
        let (source_ref_id, destination_ref_id) = references(side, leg);
        Some(CallStatusPayload {
            event_id,
            call_id: leg.call_id,
            session_id: s.id,
            sub_account_id: s.number.sub_account_id.clone(),
            call_status,
            call_direction: direction(side),
            call_type: CallType::Pstn,
            source: leg.source.clone(),
            destination: leg.destination.clone(),
            source_format: leg.source.format(),
            destination_format: leg.destination.format(),
            source_country_code: country(&leg.source),
            destination_country_code: country(&leg.destination),
            call_duration: leg.duration_seconds(self.now.tick, self.now.wall),
            sip_code: leg.end.as_ref().map_or(200, |end| end.sip_code),
            timestamp: leg.end.as_ref().map_or(self.now.wall, |end| end.at),
            sequence: s.ordinal,
            source_ref_id,
            destination_ref_id,
            event_data: detail.data,
            error_details: detail.error,
        })
    }

    /// The body of a VCA request: the call as in its CALL_RECEIVED, under an id of its own, so that
    /// a receiver that drops repeated ids does not drop the question.
    pub(super) fn action_request(&mut self, s: &Session) -> (Uuid, String) {
        let event_id = self.new_uuid();
        let call = self.status_payload(
            s,
            Side::Caller,
            CallStatus::CallReceived,
            event_id,
            Detail::default(),
        );
        let body = call.map_or_else(String::new, |call| {
            let request = CallActionPayload {
                call,
                client_action_id: None,
            };
            let mut body = body_of(WebhookType::Vca, &request);
            if let Some(parameters) = self.directory.parameters(&s.number.sub_account_id) {
                parameters.add_to(&mut body, &request.call);
            }
            body
        });
        (event_id, body)
    }

    /// Hands the session's new events and its snapshot to the journal.
    pub(super) fn save(&mut self, s: &mut Session) -> CommitId {
        self.next_commit += 1;
        let over = s.stage == Stage::Summarised && !s.owes_sip();
        let snapshot = (!over).then(|| Snapshot::of(s, &self.config).to_bytes());
        s.snapshot_kept = !over;
        self.actions.push_back(Action::Commit {
            id: self.next_commit,
            record: JournalRecord {
                session_id: s.id,
                sub_account_id: s.number.sub_account_id.clone(),
                snapshot,
                events: std::mem::take(&mut s.unsaved),
            },
        });
        self.next_commit
    }

    /// Deletes the snapshot of a session whose SIP outlived its summary.
    pub(super) fn save_as_over(&mut self, s: &Session) {
        self.next_commit += 1;
        self.actions.push_back(Action::Commit {
            id: self.next_commit,
            record: JournalRecord {
                session_id: s.id,
                sub_account_id: s.number.sub_account_id.clone(),
                snapshot: None,
                events: Vec::new(),
            },
        });
    }

    /// Writes the one summary of a session whose legs have all ended.
    pub(super) fn summarise(&mut self, s: &mut Session) {
        if s.stage == Stage::Summarised {
            return;
        }
        s.stage = Stage::Summarised;
        self.clear_timer(s, crate::session::SessionTimer::SummaryGuard);
        let status = s.status.unwrap_or(SessionStatus::Error);
        let (caller_quality, callee_quality) = s.quality;
        let call_a = leg_summary(Side::Caller, &s.a, caller_quality, self.now.wall);
        let a_ended = call_a.disconnected_timestamp;
        let details = SessionDetails {
            call_a: Some(call_a),
            call_b: s
                .b
                .as_ref()
                .map(|leg| leg_summary(Side::Callee, leg, callee_quality, self.now.wall)),
        };
        let end_time = details
            .call_b
            .as_ref()
            .map_or(a_ended, |b| b.disconnected_timestamp.max(a_ended));
        let payload = SessionSummaryPayload {
            session_id: s.id,
            sub_account_id: s.number.sub_account_id.clone(),
            session_status: status,
            start_time: s.a.initiated,
            end_time,
            last_action: s.last_action,
            call_count: 1 + u32::from(s.b.is_some()),
            error_details: s.error.clone(),
            details,
        };
        s.ordinal += 1;
        let event_id = self.new_uuid();
        s.unsaved.push(RecordedEvent {
            event_id,
            ordinal: s.ordinal,
            webhook_type: WebhookType::Vss,
            at: self.now.wall,
            body: body_of(WebhookType::Vss, payload),
        });
        self.save(s);
        let ended = Step::Ended {
            status,
            error: s.error.clone(),
        };
        self.trace_step(s, ended);
        self.actions.push_back(Action::Ended {
            session_id: s.id,
            sub_account_id: s.number.sub_account_id.clone(),
            status,
            error: s.error.clone(),
        });
    }
}

const fn direction(side: Side) -> CallDirection {
    match side {
        Side::Caller => CallDirection::Inbound,
        Side::Callee => CallDirection::Outbound,
    }
}

/// sourceRefId on B, destinationRefId on A: where the virtual number stands.
fn references(side: Side, leg: &Leg) -> (Option<String>, Option<String>) {
    let reference = Some(leg.reference_id.clone());
    match side {
        Side::Caller => (None, reference),
        Side::Callee => (reference, None),
    }
}

fn leg_summary(side: Side, leg: &Leg, quality: Option<Quality>, now: Timestamp) -> LegSummary {
    let (source_ref_id, destination_ref_id) = references(side, leg);
    LegSummary {
        call_id: leg.call_id,
        call_direction: direction(side),
        call_type: CallType::Pstn,
        initiated_timestamp: leg.initiated,
        connected_timestamp: leg.connected,
        disconnected_timestamp: leg.end.as_ref().map_or(now, |end| end.at),
        source: leg.source.clone(),
        destination: leg.destination.clone(),
        source_format: leg.source.format(),
        destination_format: leg.destination.format(),
        source_country_code: country(&leg.source),
        destination_country_code: country(&leg.destination),
        source_ref_id,
        destination_ref_id,
        call_status: leg.end.as_ref().map_or(LegStatus::Error, |end| end.status),
        call_duration: leg.end.as_ref().map_or(0, |end| end.duration_seconds),
        call_quality: quality.map(|quality| CallQuality {
            mos: (quality.mos.clamp(1.0, 4.5) * 10.0).round() / 10.0,
            packet_loss_rate: (quality.loss.clamp(0.0, 1.0) * 10_000.0).round() / 10_000.0,
            jitter: to_whole_ms(quality.jitter_ms),
        }),
    }
}

/// Jitter as the contract's integer.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn to_whole_ms(ms: f64) -> u32 {
    ms.round().clamp(0.0, f64::from(u32::MAX)) as u32
}
