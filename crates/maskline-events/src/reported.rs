//! A status update of a call that another switch handles (contract §7.6): what it says, checked.
//!
//! What lives elsewhere: reading it from JSON (`maskline-http`), what it makes of a session
//! (`maskline-switch`).

use std::time::Duration;

use uuid::Uuid;

use crate::call_status::{CallDirection, CallStatus, CallType, EventData, Update};
use crate::error_code::ErrorDetails;
use crate::msisdn::Party;
use crate::timestamp::Timestamp;

/// The longest `idempotencyKey`, bytes.
pub const LONGEST_KEY: usize = 128;
/// The longest `errorMsg`, bytes.
pub const LONGEST_ERROR: usize = 512;
/// The longest `sessionIdleSeconds`.
pub const LONGEST_IDLE_SECONDS: u32 = 86_400;
/// 9999-12-31T23:59:59.999Z.
const LAST_MS: i64 = 253_402_300_799_999;

/// One step of one leg of another switch's call.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedEvent {
    /// The session: the reporter's own name for the call.
    pub session_id: Uuid,
    /// The leg.
    pub call_id: Uuid,
    /// The leg's direction: inbound is A, outbound is B.
    pub direction: CallDirection,
    /// The leg's kind.
    pub call_type: CallType,
    /// A: the caller. B: the virtual number.
    pub source: Party,
    /// A: the virtual number. B: the callee.
    pub destination: Party,
    /// When it happened; `None`: now.
    pub timestamp: Option<Timestamp>,
    /// What happened.
    pub happening: Happening,
    /// Names the event for the reporter: the same key never makes a second event.
    pub idempotency_key: String,
    /// From now on the session counts as ended when nothing was heard of it for so long.
    pub idle: Option<Duration>,
}

/// What happened to a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// `CALL_RECEIVED` or `CALL_INITIATED`, by the leg's direction.
    Began,
    /// `CALL_UPDATED`.
    Updated(Update),
    /// `CALL_CONNECTED`.
    Connected,
    /// `DTMF_RECEIVED`.
    Pressed(char),
    /// `CALL_DISCONNECTED`.
    Ended {
        /// The leg's final SIP status, 200 to 699.
        sip_code: u16,
        /// Why the switch ended it, if it was for an error.
        error: Option<ErrorDetails>,
    },
}

/// The field that is wrong, and why. Repeats nothing of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ReportFault {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Happening {
    /// Reads what a `callStatus` and the fields that belong to it say.
    ///
    /// # Errors
    /// The first field that does not fit the status.
    pub fn read(
        status: CallStatus,
        direction: CallDirection,
        sip_code: Option<u16>,
        data: Option<EventData>,
        error: Option<ErrorDetails>,
    ) -> Result<Self, ReportFault> {
        let fault = |field, reason| Err(ReportFault { field, reason });
        let EventData { dtmf, update } = data.unwrap_or_default();
        if sip_code.is_some_and(|code| !(100..=699).contains(&code)) {
            return fault("sipCode", "is not within 100 to 699");
        }
        if error.is_some() && status != CallStatus::CallDisconnected {
            return fault("errorDetails", "belongs to CALL_DISCONNECTED alone");
        }
        if dtmf.is_some() && status != CallStatus::DtmfReceived {
            return fault("eventData", "dtmf belongs to DTMF_RECEIVED alone");
        }
        if update.is_some() && status != CallStatus::CallUpdated {
            return fault("eventData", "update belongs to CALL_UPDATED alone");
        }
        match status {
            CallStatus::CallReceived if direction == CallDirection::Outbound => {
                fault("callStatus", "an OUTBOUND leg begins with CALL_INITIATED")
            }
            CallStatus::CallInitiated if direction == CallDirection::Inbound => {
                fault("callStatus", "an INBOUND leg begins with CALL_RECEIVED")
            }
            CallStatus::CallReceived | CallStatus::CallInitiated => Ok(Self::Began),
            CallStatus::CallConnected => Ok(Self::Connected),
            CallStatus::CallUpdated => match update {
                Some(update) => Ok(Self::Updated(update)),
                None => fault("eventData", "CALL_UPDATED needs an update"),
            },
            CallStatus::DtmfReceived => match dtmf.as_deref().and_then(key_press) {
                Some(digit) => Ok(Self::Pressed(digit)),
                None => fault("eventData", "DTMF_RECEIVED needs a dtmf of one key"),
            },
            CallStatus::CallDisconnected => {
                let sip_code = sip_code.unwrap_or(200);
                if sip_code < 200 {
                    return fault("sipCode", "is no final status");
                }
                if error
                    .as_ref()
                    .is_some_and(|error| error.error_msg.len() > LONGEST_ERROR)
                {
                    return fault("errorDetails", "errorMsg is longer than 512 bytes");
                }
                Ok(Self::Ended { sip_code, error })
            }
            CallStatus::ActionCompleted => {
                fault("callStatus", "ACTION_COMPLETED is no status of a leg")
            }
        }
    }

    /// The `callStatus` of it on a leg of this direction.
    #[must_use]
    pub const fn status(&self, direction: CallDirection) -> CallStatus {
        match (self, direction) {
            (Self::Began, CallDirection::Inbound) => CallStatus::CallReceived,
            (Self::Began, CallDirection::Outbound) => CallStatus::CallInitiated,
            (Self::Updated(_), _) => CallStatus::CallUpdated,
            (Self::Connected, _) => CallStatus::CallConnected,
            (Self::Pressed(_), _) => CallStatus::DtmfReceived,
            (Self::Ended { .. }, _) => CallStatus::CallDisconnected,
        }
    }
}

impl ReportedEvent {
    /// Checks what its types leave open.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), ReportFault> {
        let fault = |field, reason| Err(ReportFault { field, reason });
        if self.session_id.is_nil() {
            return fault("sessionId", "is the nil UUID, which names nothing");
        }
        if self.call_id.is_nil() {
            return fault("callId", "is the nil UUID, which names nothing");
        }
        // What an endpoint is shown of a number is none.
        if matches!(self.source, Party::Masked(_) | Party::Token(_)) {
            return fault("source", "is neither an MSISDN nor `anonymous`");
        }
        if self.destination.number().is_none() {
            return fault("destination", "is no MSISDN");
        }
        if self
            .timestamp
            .is_some_and(|at| !(0..=LAST_MS).contains(&at.unix_ms()))
        {
            return fault("timestamp", "is not within the years 1970 to 9999");
        }
        let key = self.idempotency_key.as_bytes();
        if !(1..=LONGEST_KEY).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
            return fault(
                "idempotencyKey",
                "is not 1 to 128 visible ASCII characters without a space",
            );
        }
        let bounds = Duration::from_secs(1)..=Duration::from_secs(LONGEST_IDLE_SECONDS.into());
        if self.idle.is_some_and(|idle| !bounds.contains(&idle)) {
            return fault("sessionIdleSeconds", "is not within 1 to 86400");
        }
        Ok(())
    }
}

/// One key of a telephone (RFC 4733 §3.2).
fn key_press(text: &str) -> Option<char> {
    let mut keys = text.chars();
    let key = keys
        .next()
        .filter(|key| "0123456789*#ABCD".contains(*key))?;
    keys.next().is_none().then_some(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error_code::ErrorCode;

    #[test]
    fn a_field_that_does_not_fit_its_status_is_named() {
        use CallDirection::{Inbound, Outbound};
        use CallStatus as S;
        let dtmf = |keys: &str| {
            Some(EventData {
                dtmf: Some(keys.to_owned()),
                update: None,
            })
        };
        let update = Some(EventData {
            dtmf: None,
            update: Some(Update::Held),
        });
        let error = |text: &str| {
            Some(ErrorDetails {
                error_code: ErrorCode::Internal,
                error_msg: text.to_owned(),
            })
        };
        for (status, direction, code, data, details, field) in [
            (S::CallReceived, Outbound, None, None, None, "callStatus"),
            (S::CallInitiated, Inbound, None, None, None, "callStatus"),
            (S::ActionCompleted, Inbound, None, None, None, "callStatus"),
            (S::CallConnected, Inbound, Some(99), None, None, "sipCode"),
            (S::CallConnected, Inbound, Some(700), None, None, "sipCode"),
            (
                S::CallDisconnected,
                Inbound,
                Some(199),
                None,
                None,
                "sipCode",
            ),
            (
                S::CallConnected,
                Inbound,
                None,
                dtmf("1"),
                None,
                "eventData",
            ),
            (
                S::CallConnected,
                Inbound,
                None,
                update.clone(),
                None,
                "eventData",
            ),
            (
                S::DtmfReceived,
                Inbound,
                None,
                update.clone(),
                None,
                "eventData",
            ),
            (S::DtmfReceived, Inbound, None, None, None, "eventData"),
            (S::DtmfReceived, Inbound, None, dtmf(""), None, "eventData"),
            (
                S::DtmfReceived,
                Inbound,
                None,
                dtmf("12"),
                None,
                "eventData",
            ),
            (S::DtmfReceived, Inbound, None, dtmf("E"), None, "eventData"),
            (S::CallUpdated, Inbound, None, None, None, "eventData"),
            (
                S::CallConnected,
                Inbound,
                None,
                None,
                error("x"),
                "errorDetails",
            ),
            (
                S::CallDisconnected,
                Inbound,
                None,
                None,
                error(&"x".repeat(LONGEST_ERROR + 1)),
                "errorDetails",
            ),
        ] {
            let fault = Happening::read(status, direction, code, data, details).unwrap_err();
            assert_eq!(fault.field, field, "{status:?} {fault}");
        }
        let read = |status, code, data| Happening::read(status, Inbound, code, data, None).unwrap();
        assert_eq!(read(S::CallReceived, Some(100), None), Happening::Began);
        assert_eq!(
            read(S::DtmfReceived, None, dtmf("#")),
            Happening::Pressed('#')
        );
        assert_eq!(
            read(S::CallUpdated, None, update),
            Happening::Updated(Update::Held)
        );
        assert_eq!(
            read(S::CallDisconnected, None, None),
            Happening::Ended {
                sip_code: 200,
                error: None
            }
        );
    }

    #[test]
    fn the_nil_uuid_names_neither_a_call_nor_a_leg() {
        let event = |session_id, call_id| ReportedEvent {
            session_id,
            call_id,
            direction: CallDirection::Inbound,
            call_type: CallType::Pstn,
            source: Party::Number("+6591234567".parse().unwrap()),
            destination: Party::Number("+6531580001".parse().unwrap()),
            timestamp: None,
            happening: Happening::Began,
            idempotency_key: "1".to_owned(),
            idle: None,
        };
        let (one, nil) = (Uuid::from_u128(1), Uuid::nil());
        assert_eq!(event(one, one).check(), Ok(()));
        assert_eq!(event(nil, one).check().unwrap_err().field, "sessionId");
        assert_eq!(event(one, nil).check().unwrap_err().field, "callId");
    }
}
