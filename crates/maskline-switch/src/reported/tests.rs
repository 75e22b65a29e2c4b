//! Scripts of reported calls, the table of how they end, and properties over random orders.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm
)]

use std::collections::BTreeMap;

use maskline_events::{Msisdn, Update};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

const A: Uuid = Uuid::from_u128(0xa);
const B: Uuid = Uuid::from_u128(0xb);
const NAME: SessionName<'static> = SessionName {
    parameters: None,
    id: Uuid::from_u128(0x5e55),
    sub_account_id: "acme",
};
const START: i64 = 1_767_694_639_375;

fn number(text: &str) -> Party {
    Party::Number(Msisdn::parse(text).unwrap())
}

fn event(leg: Uuid, direction: CallDirection, at_s: i64, happening: Happening) -> ReportedEvent {
    let (source, destination) = match direction {
        CallDirection::Inbound => (Party::Anonymous, number("+6531001001")),
        CallDirection::Outbound => (number("+6531001001"), number("+447700900123")),
    };
    ReportedEvent {
        session_id: NAME.id,
        call_id: leg,
        direction,
        call_type: CallType::Pstn,
        source,
        destination,
        timestamp: Some(Timestamp::from_unix_ms(START + at_s * 1000)),
        happening,
        idempotency_key: "k".to_owned(),
        idle: None,
    }
}

fn of_a(at_s: i64, happening: Happening) -> ReportedEvent {
    event(A, CallDirection::Inbound, at_s, happening)
}

fn of_b(at_s: i64, happening: Happening) -> ReportedEvent {
    event(B, CallDirection::Outbound, at_s, happening)
}

fn ended(sip_code: u16) -> Happening {
    Happening::Ended {
        sip_code,
        error: None,
    }
}

fn failed(sip_code: u16) -> Happening {
    Happening::Ended {
        sip_code,
        error: Some(ErrorDetails::new(ErrorCode::Connectivity)),
    }
}

fn now() -> Timestamp {
    Timestamp::from_unix_ms(START + 1_000_000)
}

/// A session, what it made, and how many ids it was given.
struct World {
    session: ReportedSession,
    made: Vec<RecordedEvent>,
    ids: u128,
}

impl World {
    fn new() -> Self {
        Self {
            session: ReportedSession::new(Duration::from_secs(600)),
            made: Vec::new(),
            ids: 0,
        }
    }

    fn report(&mut self, event: &ReportedEvent) -> Result<(), Refusal> {
        // As between two requests: what is kept is bytes.
        self.session = ReportedSession::from_bytes(&self.session.to_bytes()).unwrap();
        let before = self.session.clone();
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            Uuid::from_u128(*ids)
        };
        let made = self.session.report(NAME, event, now(), &mut new_id);
        match made {
            Ok(made) => {
                self.made.extend(made);
                Ok(())
            }
            Err(refusal) => {
                assert_eq!(self.session, before, "a refused update changes nothing");
                Err(refusal)
            }
        }
    }

    fn close(&mut self) {
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            Uuid::from_u128(*ids)
        };
        let made = self.session.close_idle(NAME, now(), &mut new_id);
        self.made.extend(made);
    }

    fn payloads(&self) -> Vec<Value> {
        let body = |it: &RecordedEvent| serde_json::from_str::<Value>(&it.body).unwrap();
        self.made
            .iter()
            .map(|it| body(it)["payload"].clone())
            .collect()
    }

    /// `STATUS A=STATUS B=STATUS CODE` of the summary.
    fn summed_up(&self) -> String {
        let last = self.made.last().unwrap();
        assert_eq!(last.webhook_type, WebhookType::Vss);
        let payload = self.payloads().pop().unwrap();
        let leg = |key: &str, name: &str| {
            payload["details"][key]["callStatus"]
                .as_str()
                .map(|status| format!(" {name}={status}"))
                .unwrap_or_default()
        };
        let error = payload["errorDetails"]["errorCode"].as_i64();
        format!(
            "{}{}{}{}",
            payload["sessionStatus"].as_str().unwrap(),
            leg("callA", "A"),
            leg("callB", "B"),
            error.map(|code| format!(" {code}")).unwrap_or_default()
        )
    }
}

fn run(events: &[ReportedEvent]) -> World {
    let mut world = World::new();
    for event in events {
        world.report(event).unwrap();
    }
    world
}

#[test]
fn a_reported_call_reads_like_one_of_ours() {
    let ringing = Happening::Updated(Update::Ringing);
    let world = run(&[
        of_a(0, Happening::Began),
        of_b(1, Happening::Began),
        of_b(2, ringing),
        of_b(3, Happening::Connected),
        of_a(3, Happening::Connected),
        of_a(4, Happening::Pressed('5')),
        of_a(14, ended(200)),
        of_b(14, ended(200)),
    ]);
    let ordinals: Vec<_> = world.made.iter().map(|it| it.ordinal).collect();
    assert_eq!(ordinals, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(
        world.made[0].body,
        "{\"namespace\":\"VOICE\",\"eventType\":\"CALL_STATUS\",\"description\":\"Status update of a \
         call\",\"payload\":{\"eventId\":\"00000000-0000-0000-0000-000000000001\",\
         \"callId\":\"00000000-0000-0000-0000-00000000000a\",\
         \"sessionId\":\"00000000-0000-0000-0000-000000005e55\",\"subAccountId\":\"acme\",\
         \"callStatus\":\"CALL_RECEIVED\",\"callDirection\":\"INBOUND\",\"callType\":\"PSTN\",\
         \"source\":\"anonymous\",\"destination\":\"+6531001001\",\"sourceFormat\":\"ANONYMOUS\",\
         \"destinationFormat\":\"MSISDN\",\"destinationCountryCode\":\"SG\",\"callDuration\":0,\
         \"sipCode\":200,\"timestamp\":\"2026-01-06T10:17:19.375Z\",\"sequence\":1}}"
    );
    assert_eq!(
        world.made[8].body,
        "{\"namespace\":\"VOICE\",\"eventType\":\"SESSION_SUMMARY\",\"description\":\"Summary of a \
         completed call session\",\"payload\":{\"sessionId\":\"00000000-0000-0000-0000-000000005e55\",\
         \"subAccountId\":\"acme\",\"sessionStatus\":\"COMPLETED\",\
         \"startTime\":\"2026-01-06T10:17:19.375Z\",\"endTime\":\"2026-01-06T10:17:33.375Z\",\
         \"lastAction\":\"MAKE_CALL\",\"callCount\":2,\"details\":{\"callA\":{\
         \"callId\":\"00000000-0000-0000-0000-00000000000a\",\"callDirection\":\"INBOUND\",\
         \"callType\":\"PSTN\",\"initiatedTimestamp\":\"2026-01-06T10:17:19.375Z\",\
         \"connectedTimestamp\":\"2026-01-06T10:17:22.375Z\",\
         \"disconnectedTimestamp\":\"2026-01-06T10:17:33.375Z\",\"source\":\"anonymous\",\
         \"destination\":\"+6531001001\",\"sourceFormat\":\"ANONYMOUS\",\
         \"destinationFormat\":\"MSISDN\",\"destinationCountryCode\":\"SG\",\
         \"callStatus\":\"COMPLETED\",\"callDuration\":11},\"callB\":{\
         \"callId\":\"00000000-0000-0000-0000-00000000000b\",\"callDirection\":\"OUTBOUND\",\
         \"callType\":\"PSTN\",\"initiatedTimestamp\":\"2026-01-06T10:17:20.375Z\",\
         \"connectedTimestamp\":\"2026-01-06T10:17:22.375Z\",\
         \"disconnectedTimestamp\":\"2026-01-06T10:17:33.375Z\",\"source\":\"+6531001001\",\
         \"destination\":\"+447700900123\",\"sourceFormat\":\"MSISDN\",\
         \"destinationFormat\":\"MSISDN\",\"sourceCountryCode\":\"SG\",\
         \"destinationCountryCode\":\"GB\",\"callStatus\":\"COMPLETED\",\"callDuration\":11}}}}"
    );
    let payloads = world.payloads();
    assert_eq!(payloads[2]["eventData"]["update"], "RINGING");
    assert_eq!(payloads[5]["eventData"]["dtmf"], "5");
    assert_eq!(payloads[6]["callDuration"], 11);
}

/// How calls end: what is told of A and B behind their beginnings, and the summary.
#[test]
fn the_summary_follows_the_table_of_the_contract() {
    let rings = || of_b(2, Happening::Updated(Update::Ringing));
    let b_talks = || of_b(3, Happening::Connected);
    let a_talks = || of_a(3, Happening::Connected);
    let rows: [(&str, Vec<ReportedEvent>, &str); 14] = [
        (
            "B busy",
            vec![of_b(4, ended(486)), of_a(4, ended(486))],
            "BUSY A=COMPLETED B=BUSY",
        ),
        (
            "B declined",
            vec![of_b(4, ended(603)), of_a(4, ended(603))],
            "BUSY A=COMPLETED B=BUSY",
        ),
        (
            "B rang out",
            vec![rings(), of_b(4, ended(487)), of_a(4, ended(480))],
            "NO_ANSWER A=COMPLETED B=NO_ANSWER",
        ),
        (
            "B 408 behind a 180",
            vec![rings(), of_b(4, ended(408)), of_a(4, ended(480))],
            "NO_ANSWER A=COMPLETED B=NO_ANSWER",
        ),
        (
            "B 480 at once",
            vec![of_b(4, ended(480)), of_a(4, ended(480))],
            "FAILED A=COMPLETED B=FAILED",
        ),
        (
            "B unknown",
            vec![of_b(4, ended(404)), of_a(4, ended(480))],
            "FAILED A=COMPLETED B=FAILED",
        ),
        (
            "A gave up",
            vec![rings(), of_a(4, ended(487)), of_b(4, ended(487))],
            "CANCELED A=CANCELED B=CANCELED",
        ),
        (
            "A gave up, B told first",
            vec![rings(), of_b(4, ended(487)), of_a(4, ended(487))],
            "CANCELED A=CANCELED B=CANCELED",
        ),
        (
            "A gave up behind a prompt",
            vec![a_talks(), rings(), of_a(4, ended(200)), of_b(4, ended(487))],
            "CANCELED A=CANCELED B=CANCELED",
        ),
        (
            "A's CANCEL behind B's refusal",
            vec![of_b(4, ended(486)), of_a(4, ended(487))],
            "BUSY A=COMPLETED B=BUSY",
        ),
        (
            "no trunk",
            vec![of_b(4, failed(408)), of_a(4, ended(500))],
            "ERROR A=COMPLETED B=ERROR -2002",
        ),
        (
            "media stopped",
            vec![
                b_talks(),
                a_talks(),
                of_b(9, failed(200)),
                of_a(9, failed(200)),
            ],
            "ERROR A=COMPLETED B=COMPLETED -2002",
        ),
        (
            "both spoke, B hung up",
            vec![
                b_talks(),
                a_talks(),
                of_b(9, ended(200)),
                of_a(9, ended(200)),
            ],
            "COMPLETED A=COMPLETED B=COMPLETED",
        ),
        (
            "A's CANCEL crossed B's 200",
            vec![b_talks(), of_a(4, ended(487)), of_b(4, ended(200))],
            "CANCELED A=CANCELED B=COMPLETED",
        ),
    ];
    for (case, mut events, summary) in rows {
        events.insert(0, of_b(1, Happening::Began));
        events.insert(0, of_a(0, Happening::Began));
        assert_eq!(run(&events).summed_up(), summary, "{case}");
    }
    let alone: [(&str, Vec<ReportedEvent>, &str); 7] = [
        (
            "a prompt",
            vec![a_talks(), of_a(9, ended(200))],
            "COMPLETED A=COMPLETED",
        ),
        (
            "A gave up",
            vec![of_a(9, ended(487))],
            "CANCELED A=CANCELED",
        ),
        ("refused", vec![of_a(9, ended(486))], "BUSY A=BUSY"),
        (
            "rang out",
            vec![
                of_a(2, Happening::Updated(Update::Ringing)),
                of_a(9, ended(408)),
            ],
            "NO_ANSWER A=NO_ANSWER",
        ),
        (
            "no such number",
            vec![of_a(9, ended(404))],
            "FAILED A=FAILED",
        ),
        (
            "hung up on at once",
            vec![of_a(9, ended(200))],
            "COMPLETED A=COMPLETED",
        ),
        (
            "the switch failed",
            vec![of_a(9, failed(500))],
            "ERROR A=ERROR -2002",
        ),
    ];
    for (case, mut events, summary) in alone {
        events.insert(0, of_a(0, Happening::Began));
        assert_eq!(run(&events).summed_up(), summary, "A alone, {case}");
    }
    let outbound = run(&[of_b(1, Happening::Began), b_talks(), of_b(9, ended(200))]);
    assert_eq!(outbound.summed_up(), "COMPLETED B=COMPLETED");
    assert_eq!(outbound.payloads()[3]["callCount"], 1);
}

#[test]
fn what_does_not_fit_the_session_is_refused_with_its_reason() {
    let mut world = run(&[of_a(0, Happening::Began)]);
    let other = |direction, happening| event(Uuid::from_u128(0xc), direction, 1, happening);
    use CallDirection::{Inbound, Outbound};
    for (event, refusal) in [
        (of_a(1, Happening::Began), Refusal::BegunTwice),
        (of_b(1, Happening::Connected), Refusal::NotBegun),
        (of_b(1, ended(200)), Refusal::NotBegun),
        (other(Inbound, Happening::Began), Refusal::ThirdLeg),
        (other(Inbound, Happening::Connected), Refusal::NotBegun),
        (
            event(A, Outbound, 1, Happening::Began),
            Refusal::OtherDirection,
        ),
        (
            event(A, Outbound, 1, Happening::Connected),
            Refusal::OtherDirection,
        ),
    ] {
        assert_eq!(world.report(&event), Err(refusal), "{event:?}");
    }
    for event in [of_b(1, Happening::Began), of_a(1, Happening::Connected)] {
        world.report(&event).unwrap();
    }
    assert_eq!(
        world.report(&of_a(1, Happening::Connected)),
        Err(Refusal::ConnectedTwice)
    );
    assert_eq!(
        world.report(&other(Outbound, Happening::Began)),
        Err(Refusal::ThirdLeg)
    );
    world.report(&of_a(2, ended(200))).unwrap();
    assert_eq!(
        world.report(&of_a(2, ended(200))),
        Err(Refusal::AfterItsEnd)
    );
    assert_eq!(
        world.report(&of_a(2, Happening::Began)),
        Err(Refusal::AfterItsEnd)
    );
    assert_eq!(world.session.idle(), Some(Duration::from_secs(600)));
    world.report(&of_b(2, ended(487))).unwrap();
    assert_eq!(
        world.report(&of_b(2, ended(487))),
        Err(Refusal::SessionOver)
    );
    assert_eq!(
        world.report(&of_a(2, Happening::Began)),
        Err(Refusal::SessionOver)
    );
    assert_eq!(world.session.idle(), None);
    let kept = String::from_utf8(world.session.to_bytes()).unwrap();
    assert!(!kept.contains("6531001001"), "{kept}");
}

#[test]
fn an_idle_session_ends_where_it_was_last_heard_of() {
    let mut world = run(&[
        of_a(0, Happening::Began),
        of_b(1, Happening::Began),
        of_b(3, Happening::Connected),
        of_b(2, Happening::Pressed('1')),
    ]);
    world.close();
    assert_eq!(world.summed_up(), "ERROR A=COMPLETED B=COMPLETED -2001");
    let payloads = world.payloads();
    let end = "2026-01-06T10:17:22.375Z";
    for (index, leg, code) in [(4, "INBOUND", 500), (5, "OUTBOUND", 200)] {
        let payload = &payloads[index];
        assert_eq!(payload["callStatus"], "CALL_DISCONNECTED");
        assert_eq!(payload["callDirection"], leg);
        assert_eq!(payload["sipCode"], code);
        assert_eq!(payload["timestamp"], end);
        assert_eq!(payload["errorDetails"]["errorCode"], -2001);
        assert_eq!(payload["sequence"], index + 1);
    }
    assert_eq!(payloads[6]["endTime"], end);
    let made = world.made.len();
    world.close();
    assert_eq!(world.made.len(), made, "a session is closed once");
}

#[test]
fn an_update_may_say_how_long_its_session_may_be_silent() {
    let mut world = World::new();
    let mut first = of_a(0, Happening::Began);
    first.idle = Some(Duration::from_secs(30));
    world.report(&first).unwrap();
    world.report(&of_b(0, Happening::Began)).unwrap();
    assert_eq!(world.session.idle(), Some(Duration::from_secs(30)));
}

#[test]
fn a_state_of_a_later_version_is_left_alone() {
    let bytes = ReportedSession::new(Duration::from_secs(1)).to_bytes();
    let later = String::from_utf8(bytes)
        .unwrap()
        .replace("\"version\":1", "\"version\":2");
    for (bytes, error) in [
        (
            later.as_str(),
            "the state of a reported session has version 2",
        ),
        ("{", "the state of a reported session is broken"),
        (
            "{\"version\":1}",
            "the state of a reported session is broken",
        ),
    ] {
        let found = ReportedSession::from_bytes(bytes.as_bytes()).unwrap_err();
        assert_eq!(found.to_string(), error);
    }
}

#[test]
fn a_session_has_so_many_events_and_no_more_and_can_still_be_ended() {
    let key = |leg: fn(i64, Happening) -> ReportedEvent| leg(2, Happening::Pressed('5'));
    let last = |world: &World| world.made.last().unwrap().ordinal;
    let mut world = run(&[of_a(0, Happening::Began), of_b(1, Happening::Began)]);
    while last(&world) <= MOST_EVENTS && world.report(&key(of_b)).is_ok() {}
    assert_eq!(last(&world), MOST_EVENTS - 2, "two are kept for the ends");
    for happening in [
        Happening::Connected,
        Happening::Updated(Update::Ringing),
        Happening::Pressed('1'),
    ] {
        let refused = world.report(&of_a(3, happening)).unwrap_err();
        assert_eq!(refused, Refusal::TooManyEvents);
        assert!(
            refused.to_string().contains("10000 events"),
            "{refused} names the bound"
        );
    }
    world.report(&of_b(4, ended(200))).unwrap();
    assert_eq!(world.report(&key(of_a)), Err(Refusal::TooManyEvents));
    world.report(&of_a(4, ended(200))).unwrap();
    assert_eq!(world.made[9_999].webhook_type, WebhookType::Vcs);
    assert_eq!(last(&world), MOST_EVENTS + 1, "the summary");
    assert_eq!(world.made[10_000].webhook_type, WebhookType::Vss);

    // A leg begins only if there is a place for its end, too.
    let mut world = run(&[of_a(0, Happening::Began)]);
    while last(&world) < MOST_EVENTS - 2 {
        world.report(&key(of_a)).unwrap();
    }
    let begins = of_b(1, Happening::Began);
    assert_eq!(world.report(&begins), Err(Refusal::TooManyEvents));
    world.report(&key(of_a)).unwrap();
    world.close();
    assert_eq!(last(&world), MOST_EVENTS + 1);
}

#[test]
fn a_session_that_an_earlier_version_let_grow_longer_takes_its_ends() {
    let mut world = run(&[of_a(0, Happening::Began)]);
    let bytes = String::from_utf8(world.session.to_bytes()).unwrap();
    let longer = bytes.replace("\"ordinal\":1,", "\"ordinal\":123456,");
    assert_ne!(bytes, longer);
    world.session = ReportedSession::from_bytes(longer.as_bytes()).unwrap();
    assert_eq!(
        world.report(&of_a(1, Happening::Connected)),
        Err(Refusal::TooManyEvents)
    );
    world.report(&of_a(1, ended(200))).unwrap();
    assert_eq!(world.made.last().unwrap().ordinal, 123_458);
}

fn happenings() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => Just(Happening::Began),
        2 => Just(Happening::Connected),
        2 => Just(Happening::Updated(Update::Ringing)),
        1 => Just(Happening::Pressed('#')),
        2 => prop::sample::select(vec![200, 404, 408, 480, 486, 487, 603]).prop_map(ended),
        1 => Just(failed(500)),
    ]
}

fn updates() -> impl Strategy<Value = ReportedEvent> {
    let direction = prop_oneof![Just(CallDirection::Inbound), Just(CallDirection::Outbound)];
    // Mostly the leg's own direction, times in any order.
    (0_u8..20, direction, -5_i64..50, happenings()).prop_map(|(leg, direction, at, happening)| {
        match leg {
            0 => event(A, direction, at, happening),
            1 => event(Uuid::from_u128(0xc), direction, at, happening),
            2..=10 => of_a(at, happening),
            _ => of_b(at, happening),
        }
    })
}

proptest! {
    #[test]
    fn in_any_order_each_leg_ends_once_and_the_session_is_summed_up_once(
        events in prop::collection::vec(updates(), 0..40),
    ) {
        let mut world = World::new();
        let mut taken = 0_usize;
        for event in &events {
            taken += usize::from(world.report(event).is_ok());
        }
        if taken == 0 {
            prop_assert!(world.made.is_empty());
            return Ok(());
        }
        world.close();
        let payloads = world.payloads();
        let mut legs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (index, (made, payload)) in world.made.iter().zip(&payloads).enumerate() {
            prop_assert_eq!(made.ordinal, index as u64 + 1);
            if made.webhook_type == WebhookType::Vss {
                prop_assert_eq!(index, world.made.len() - 1, "the summary is the last");
                continue;
            }
            prop_assert_eq!(&payload["sequence"], &Value::from(made.ordinal));
            let status = payload["callStatus"].as_str().unwrap().to_owned();
            legs.entry(payload["callId"].to_string()).or_default().push(status);
        }
        prop_assert_eq!(world.made.last().unwrap().webhook_type, WebhookType::Vss);
        prop_assert!(legs.len() <= 2);
        for told in legs.values() {
            let count = |status: &str| told.iter().filter(|it| *it == status).count();
            prop_assert_eq!(count("CALL_DISCONNECTED"), 1);
            prop_assert_eq!(told.last().unwrap().as_str(), "CALL_DISCONNECTED");
            prop_assert_eq!(count("CALL_RECEIVED") + count("CALL_INITIATED"), 1);
            prop_assert!(count("CALL_CONNECTED") <= 1);
        }
        let summary = payloads.last().unwrap();
        prop_assert_eq!(&summary["callCount"], &Value::from(legs.len()));
        let in_error = payloads.iter().rev().skip(1).any(|it| it.get("errorDetails").is_some());
        prop_assert_eq!(summary["sessionStatus"] == "ERROR", in_error);
        prop_assert_eq!(summary.get("errorDetails").is_some(), in_error);
    }

    #[test]
    fn bytes_that_are_no_state_are_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(ReportedSession::from_bytes(&bytes).is_err());
    }
}

#[test]
fn what_the_sub_account_adds_is_on_each_step_and_not_on_the_summary() {
    let tenant = maskline_events::ParameterEntry {
        name: "tenant".to_owned(),
        value: Some("eu".into()),
        from: None,
        country: None,
        prefix: None,
    };
    let parameters = EventParameters::new(&[tenant], |_| true).unwrap();
    let name = SessionName {
        parameters: Some(&parameters),
        ..NAME
    };
    let mut session = ReportedSession::new(Duration::from_secs(600));
    let mut made = Vec::new();
    let began = of_a(0, Happening::Began);
    made.extend(session.report(name, &began, now(), &mut Uuid::nil).unwrap());
    made.extend(session.close_idle(name, now(), &mut Uuid::nil));
    let told: Vec<_> = made
        .iter()
        .map(|it| it.body.ends_with(",\"tenant\":\"eu\"}}"))
        .collect();
    assert_eq!(told, [true, true, false]);
}
