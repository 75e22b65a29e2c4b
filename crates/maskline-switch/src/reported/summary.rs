//! The summary of a reported session: the contract's table (§4.2), read from its legs' ends.

use maskline_events::{
    CallDirection, LastAction, LegStatus, LegSummary, SessionDetails, SessionStatus,
    SessionSummaryPayload, Timestamp, WebhookType,
};
use uuid::Uuid;

use super::{Leg, LegEnd, LegState, Open, SessionName};
use crate::body::{body_of, country};
use crate::io::RecordedEvent;
use crate::outcome::outcome_of;

impl Open {
    /// The summary of a session whose legs have all ended.
    pub(super) fn summarised(
        &mut self,
        name: SessionName<'_>,
        now: Timestamp,
        event_id: Uuid,
    ) -> RecordedEvent {
        let (a_status, b_status) = (self.a_status(), self.b_status());
        let of = |leg: &Option<Leg>, direction, status: Option<LegStatus>| {
            let (leg, status) = (leg.as_ref()?, status?);
            Some(leg_summary(leg, direction, status))
        };
        let details = SessionDetails {
            call_a: of(&self.a, CallDirection::Inbound, a_status),
            call_b: of(&self.b, CallDirection::Outbound, b_status),
        };
        let legs = [self.a.as_ref(), self.b.as_ref()];
        let legs = || legs.into_iter().flatten();
        let end_time = legs().filter_map(|leg| ended(leg).map(|end| end.at)).max();
        let payload = SessionSummaryPayload {
            session_id: name.id,
            sub_account_id: name.sub_account_id.to_owned(),
            session_status: self.status(a_status, b_status),
            start_time: legs().next().map_or(now, |leg| leg.initiated),
            end_time: end_time.unwrap_or(now),
            last_action: self.b.is_some().then_some(LastAction::MakeCall),
            call_count: if legs().count() == 2 { 2 } else { 1 },
            error_details: self.error.clone(),
            details,
        };
        self.ordinal += 1;
        RecordedEvent {
            event_id,
            ordinal: self.ordinal,
            webhook_type: WebhookType::Vss,
            at: now,
            body: body_of(WebhookType::Vss, payload),
        }
    }

    fn status(&self, a: Option<LegStatus>, b: Option<LegStatus>) -> SessionStatus {
        if self.error.is_some() {
            return SessionStatus::Error;
        }
        if self.gave_up {
            return SessionStatus::Canceled;
        }
        b.or(a).unwrap_or(SessionStatus::Error)
    }

    /// A's own outcome counts if there was no B; else it says only who gave up.
    fn a_status(&self) -> Option<LegStatus> {
        let end = self.a.as_ref().and_then(ended)?;
        if self.gave_up {
            return Some(LegStatus::Canceled);
        }
        if self.b.is_some() {
            return Some(LegStatus::Completed);
        }
        Some(alone(end))
    }

    fn b_status(&self) -> Option<LegStatus> {
        let end = self.b.as_ref().and_then(ended)?;
        Some(if end.connected.is_some() {
            LegStatus::Completed
        } else if self.a.is_none() {
            alone(end)
        } else if end.for_error {
            LegStatus::Error
        } else if self.gave_up {
            LegStatus::Canceled
        } else if end.sip_code == 487 {
            // Cancelled, and not because A gave up: it rang out, as with a 408.
            outcome_of(408, None, end.rang)
        } else {
            outcome_of(end.sip_code, None, end.rang)
        })
    }
}

/// How the only leg of a session ended.
fn alone(end: &LegEnd) -> LegStatus {
    match end.sip_code {
        _ if end.for_error => LegStatus::Error,
        _ if end.connected.is_some() => LegStatus::Completed,
        487 => LegStatus::Canceled,
        200..=299 => LegStatus::Completed,
        code => outcome_of(code, None, end.rang),
    }
}

fn ended(leg: &Leg) -> Option<&LegEnd> {
    match &leg.state {
        LegState::Calling { .. } | LegState::Connected { .. } => None,
        LegState::Ended(end) => Some(end),
    }
}

fn leg_summary(leg: &Leg, direction: CallDirection, status: LegStatus) -> LegSummary {
    let end = ended(leg).map_or(leg.initiated, |end| end.at);
    LegSummary {
        call_id: leg.call_id,
        call_direction: direction,
        call_type: leg.call_type,
        initiated_timestamp: leg.initiated,
        connected_timestamp: leg.connected(),
        disconnected_timestamp: end,
        source: leg.source.clone(),
        destination: leg.destination.clone(),
        source_format: leg.source.format(),
        destination_format: leg.destination.format(),
        source_country_code: country(&leg.source),
        destination_country_code: country(&leg.destination),
        source_ref_id: None,
        destination_ref_id: None,
        call_status: status,
        call_duration: leg.duration(end),
        call_quality: None,
    }
}
