//! How a refusal of B reads in the summary: the contract's table (§4.2).

use maskline_events::SessionStatus;

/// How B's refusal ends the session: a Q.850 cause outranks the SIP status (contract §3).
pub(crate) const fn outcome_of(status: u16, cause: Option<u8>, rang: bool) -> SessionStatus {
    match cause {
        Some(17 | 21) => return SessionStatus::Busy,
        Some(18 | 19) => return SessionStatus::NoAnswer,
        Some(1 | 3 | 20 | 22 | 27 | 28 | 38) => return SessionStatus::Failed,
        Some(34 | 41 | 42) => return SessionStatus::Error,
        Some(_) | None => {}
    }
    match status {
        486 | 600 | 603 => SessionStatus::Busy,
        408 | 480 if rang => SessionStatus::NoAnswer,
        _ => SessionStatus::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_table_of_the_contract_holds() {
        use SessionStatus::{Busy, Error, Failed, NoAnswer};
        for (status, cause, rang, outcome) in [
            (486, None, true, Busy),
            (600, None, false, Busy),
            (603, None, true, Busy),
            (408, None, true, NoAnswer),
            (480, None, true, NoAnswer),
            (408, None, false, Failed),
            (480, None, false, Failed),
            (404, None, true, Failed),
            (500, None, false, Failed),
            (302, None, false, Failed),
            (480, Some(17), false, Busy),
            (503, Some(21), false, Busy),
            (486, Some(19), false, NoAnswer),
            (486, Some(18), false, NoAnswer),
            (486, Some(1), true, Failed),
            (486, Some(38), true, Failed),
            (486, Some(34), true, Error),
            (486, Some(42), true, Error),
            (486, Some(16), true, Busy),
        ] {
            assert_eq!(
                outcome_of(status, cause, rang),
                outcome,
                "{status} {cause:?} rang: {rang}"
            );
        }
    }
}
