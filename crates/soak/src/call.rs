//! The calls that are reported: eight events each, whose place in the ledger is in their ids.

use std::fmt::Write as _;

use uuid::Uuid;

/// Status events of a call; its summary comes behind them.
pub(crate) const STEPS: usize = 7;
/// All events of a call.
pub(crate) const EVENTS: usize = STEPS + 1;

const CALLER: &str = "+6591110001";
const VIRTUAL: &str = "+6531580001";
const CALLEE: &str = "+6598887777";

/// The session's id: its number behind what looks random, as another switch's ids do.
pub(crate) fn session_id(number: u32) -> Uuid {
    Uuid::from_u64_pair(mixed(u64::from(number)), u64::from(number))
}

/// The number of a session.
pub(crate) fn number_of(id: Uuid) -> Option<u32> {
    let number = u32::try_from(id.as_u64_pair().1).ok()?;
    (session_id(number) == id).then_some(number)
}

/// Appends the JSON of a step of a call, from 0.
pub(crate) fn write_step(body: &mut String, number: u32, step: usize) {
    let (leg, status, more) = match step {
        0 => ('A', "CALL_RECEIVED", ""),
        1 => ('B', "CALL_INITIATED", ""),
        2 => ('B', "CALL_UPDATED", r#""eventData":{"update":"RINGING"},"#),
        3 => ('B', "CALL_CONNECTED", ""),
        4 => ('A', "CALL_CONNECTED", ""),
        5 => ('A', "CALL_DISCONNECTED", ""),
        _ => ('B', "CALL_DISCONNECTED", ""),
    };
    let (direction, source, destination) = match leg {
        'A' => ("INBOUND", CALLER, VIRTUAL),
        _ => ("OUTBOUND", VIRTUAL, CALLEE),
    };
    let call = Uuid::from_u64_pair(u64::from(u32::from(leg)), u64::from(number));
    // Writing into a string never fails.
    let _ = write!(
        body,
        r#"{{"sessionId":"{}","callId":"{call}","callStatus":"{status}","callDirection":"{direction}",{more}"source":"{source}","destination":"{destination}","idempotencyKey":"{number}-{step}"}}"#,
        session_id(number),
    );
}

/// A number that looks random and is the same each time (splitmix64).
pub(crate) const fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_session_is_known_by_its_id_and_no_other_is_taken_for_one() {
        for number in [0, 1, 7, u32::MAX] {
            assert_eq!(number_of(session_id(number)), Some(number));
        }
        assert_eq!(number_of(Uuid::from_u64_pair(7, 7)), None);
    }

    #[test]
    fn each_step_is_json() {
        for step in 0..STEPS {
            let mut body = String::new();
            write_step(&mut body, 3, step);
            let value: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(value["idempotencyKey"], format!("3-{step}"));
        }
    }
}
