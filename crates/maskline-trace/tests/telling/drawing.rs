//! Head, ladder, stages and end.

use maskline_events::{ErrorCode, ErrorDetails, SessionStatus};
use maskline_media::Side;
use maskline_switch::sip::Transport;
use maskline_switch::trace::{Direction, Step, TraceEvent, TracedSide};
use maskline_trace::{Shown, draw, tell};

use crate::{Call, SESSION, answered, request, response};

#[test]
fn an_answered_call_is_drawn_with_what_each_stage_took_and_who_ended_it() {
    let call = answered(Transport::Udp);
    let story = tell(SESSION, &call.entries, Shown::Redacted).unwrap();
    let text = draw(&story);
    for words in [
        "session 01920000-0000-7000-8000-000000000001  completed  sub-account acme  1m 16s",
        "A +65••••1111 → +65••••0001 → B +65••••2222",
        "    0.000  A ────── INVITE ───────▶ M",
        "    0.000  A ◀──── 100 Trying ───── M",
        "UDP 192.0.2.10:5060",
        "M ────── INVITE ───────▶ B",
        "again UDP 192.0.2.10:5060",
        "Reason: Q.850;cause=16",
        "commit of CALL_RECEIVED 2.5 ms",
        "VCA 12 ms",
        "B's 180 1.0 s",
        "B's answer 4.0 s",
        "commit of the answer 3.0 ms",
        "A's ACK 501 ms",
        "talking 1m 12s",
        "end: A hung up (BYE), Q.850 16 (normal call clearing)",
    ] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    assert!(
        !text.contains("91111111") && !text.contains("\"Al\""),
        "{text}"
    );
    let full = tell(SESSION, &call.entries, Shown::Full).unwrap();
    assert!(draw(&full).contains("+6591111111"));
}

#[test]
fn the_end_is_said_in_plain_words() {
    use Direction::{In, Out};
    use Side::{Callee, Caller};
    let ended = |status, error| Step::Ended { status, error };
    let begun = || {
        let mut call = Call::new(Transport::Udp);
        call.message(In, Caller, &request("INVITE", ""));
        call
    };
    let mut busy = begun();
    busy.message(
        In,
        Callee,
        &response("486 Busy Here", "INVITE", "Reason: Q.850;cause=17\r\n"),
    )
    .message(Out, Caller, &response("486 Busy Here", "INVITE", ""))
    .step(ended(SessionStatus::Busy, None));
    let mut canceled = begun();
    canceled
        .message(In, Caller, &request("CANCEL", ""))
        .message(
            Out,
            Caller,
            &response("487 Request Terminated", "INVITE", ""),
        )
        .step(ended(SessionStatus::Canceled, None));
    let mut rang_out = begun();
    rang_out
        .step(Step::Timer {
            timer: "B rang for too long".into(),
        })
        .message(
            Out,
            Caller,
            &response("480 Temporarily Unavailable", "INVITE", ""),
        )
        .step(ended(SessionStatus::NoAnswer, None));
    let mut failed = begun();
    failed
        .message(
            Out,
            Caller,
            &response("500 Server Internal Error", "INVITE", ""),
        )
        .step(ended(
            SessionStatus::Error,
            Some(ErrorDetails::with_reason(
                ErrorCode::Connectivity,
                "no answer in time",
            )),
        ));
    let mut by_b = begun();
    by_b.message(In, Callee, &request("BYE", ""))
        .step(ended(SessionStatus::Completed, None));
    let mut too_long = begun();
    too_long
        .step(Step::Timer {
            timer: "the longest duration was reached".into(),
        })
        .message(Out, Caller, &request("BYE", ""))
        .step(ended(SessionStatus::Completed, None));
    for (call, end) in [
        (
            busy,
            "B refused: 486 Busy Here, Q.850 17 (user busy); A heard 486 Busy Here",
        ),
        (
            canceled,
            "A gave up before an answer (CANCEL); A heard 487 Request Terminated",
        ),
        (
            rang_out,
            "B did not answer in time; A heard 480 Temporarily Unavailable",
        ),
        (
            failed,
            "Maskline ended it: error -2002, Internal connectivity error: no answer in time; A heard 500 Server Internal Error",
        ),
        (by_b, "B hung up (BYE)"),
        (
            too_long,
            "Maskline ended it: the longest duration was reached",
        ),
        (
            begun(),
            "no end is recorded: the call goes on, or the node died and was not restarted",
        ),
    ] {
        let story = tell(SESSION, &call.entries, Shown::Redacted).unwrap();
        assert_eq!(story.end, end);
    }
    assert!(tell(SESSION, &[], Shown::Full).is_none());
}

#[test]
fn after_a_restart_the_wall_clock_tells_how_much_time_went_by() {
    let mut call = Call::new(Transport::Udp);
    call.leg(TracedSide::A, "+6591111111", "+6560000001")
        .after(4_000);
    call.step(Step::Asked);
    call.run = 2;
    call.us = 7;
    call.wall += 60_000;
    call.step(Step::Adopted);
    call.us += 1_500;
    call.step(Step::Ended {
        status: SessionStatus::Error,
        error: None,
    });
    let story = tell(SESSION, &call.entries, Shown::Redacted).unwrap();
    let times: Vec<_> = story.ladder.iter().map(|rung| rung.at_ms).collect();
    assert_eq!(times, [4.0, 60_004.0, 60_005.5]);
}

#[test]
fn a_leg_that_is_told_again_after_a_restart_is_one_leg_and_keeps_its_trunk() {
    let mut call = Call::new(Transport::Udp);
    call.leg(TracedSide::A, "+6591111111", "+6560000001");
    let mut again = Call::new(Transport::Udp);
    again.leg(TracedSide::A, "+6591111111", "+6560000001");
    if let TraceEvent::Step(Step::Leg { trunk, .. }) = &mut again.entries[0].what {
        *trunk = None;
    }
    call.step(Step::Adopted).entries.append(&mut again.entries);
    let legs = tell(SESSION, &call.entries, Shown::Redacted).unwrap().legs;
    let trunks: Vec<_> = legs.iter().map(|leg| leg.trunk.as_deref()).collect();
    assert_eq!(trunks, [Some("carrier")]);
}

#[test]
fn what_a_message_holds_does_not_move_the_cursor_of_a_terminal() {
    let mut call = Call::new(Transport::Tcp);
    call.message(
        Direction::In,
        Side::Caller,
        &request(
            "INVITE",
            "Reason: \u{1b}[2J\u{7}x\r\nWarning: \u{9b}31m\r\n",
        ),
    );
    for shown in [Shown::Redacted, Shown::Full] {
        let text = draw(&tell(SESSION, &call.entries, shown).unwrap());
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
    }
}

/// A carrier may write anything for a reason phrase.
#[test]
fn a_reason_phrase_of_a_peer_is_shown_only_in_full() {
    use Direction::{In, Out};
    use Side::{Callee, Caller};
    for (said, status, shown) in [
        ("486 Alice.Tan@home.example", "486", "486 Busy Here"),
        ("486 91110002 busy", "486", "486 Busy Here"),
        ("486", "486", "486 Busy Here"),
        ("699 Alice Tan", "699", "699"),
        ("699 91110002", "699", "699"),
    ] {
        let mut call = Call::new(Transport::Udp);
        call.message(In, Caller, &request("INVITE", ""))
            .message(In, Callee, &response(said, "INVITE", ""))
            .message(Out, Caller, &response(said, "INVITE", ""))
            .step(Step::Ended {
                status: SessionStatus::Busy,
                error: None,
            });
        let story = tell(SESSION, &call.entries, Shown::Redacted).unwrap();
        let end = format!("B refused: {shown}; A heard {shown}");
        assert_eq!(story.end, end, "{said}");
        let shot = story.ladder[1].message.as_ref().unwrap();
        assert_eq!(shot.label, shown, "{said}");
        assert_eq!(shot.start_line, format!("SIP/2.0 {shown}"), "{said}");
        let phrase = said.trim_start_matches(status).trim();
        let told = format!("{}{}", draw(&story), serde_json::to_string(&story).unwrap());
        assert!(phrase.is_empty() || !told.contains(phrase), "{told}");
        assert!(!told.contains("0002") && !told.contains("Tan"), "{told}");

        let full = tell(SESSION, &call.entries, Shown::Full).unwrap();
        assert_eq!(full.end, format!("B refused: {said}; A heard {said}"));
        let shot = full.ladder[1].message.as_ref().unwrap();
        assert_eq!(
            (&*shot.label, &*shot.start_line),
            (said, &*format!("SIP/2.0 {said}"))
        );
    }
}

#[test]
fn what_is_no_status_shows_nothing_of_a_status_line() {
    for said in ["Alice Tan", "65912 Tan", "91110002"] {
        let mut call = Call::new(Transport::Udp);
        call.message(Direction::In, Side::Callee, &response(said, "INVITE", ""));
        let story = tell(SESSION, &call.entries, Shown::Redacted).unwrap();
        let shot = story.ladder[0].message.as_ref().unwrap();
        assert_eq!((&*shot.label, &*shot.start_line), ("0", "SIP/2.0 …"));
    }
}
