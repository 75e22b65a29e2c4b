//! Other switches' calls: groups, known keys, sessions of others, idle ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use maskline_events::{
    CallDirection, CallType, Happening, Msisdn, Party, ReportedEvent, Timestamp, WebhookType,
};
use uuid::Uuid;

use super::{at, batch, directory, entry, ephemeral, events_of, id, open, pending_events};
use crate::intake::{CallEvents, ReportRequest, Reported, ReportedRules, TakenReport};
use crate::model::EventRow;
use crate::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

/// A session is a count; a key press is refused, the end of a leg makes a summary too.
#[derive(Default)]
struct Toy(AtomicU64);

impl Toy {
    fn row(&self, owner: &str, session_id: Uuid, ordinal: u64) -> EventRow {
        EventRow {
            event_id: id(7, self.0.fetch_add(1, Ordering::Relaxed)),
            session_id,
            sub_account_id: owner.to_owned(),
            ordinal,
            webhook_type: WebhookType::Vcs,
            at: at(0),
            body: "{}".to_owned(),
        }
    }
}

#[derive(Clone)]
struct Count {
    events: u64,
    over: bool,
}

#[derive(Debug, PartialEq)]
enum No {
    Pressed,
    Foreign,
}

impl ReportedRules for Toy {
    type Session = Count;
    type Refusal = No;

    fn begin(&self) -> Count {
        Count {
            events: 0,
            over: false,
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<Count, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let (events, over) = text.split_once(' ').ok_or("no space")?;
        Ok(Count {
            events: events.parse().map_err(|_| "no number")?,
            over: over == "over",
        })
    }

    fn write(&self, session: &Count) -> Vec<u8> {
        let over = if session.over { "over" } else { "open" };
        format!("{} {over}", session.events).into_bytes()
    }

    fn idle_at(&self, session: &Count, now: Timestamp) -> Option<Timestamp> {
        (!session.over).then(|| now.plus_ms(1_000))
    }

    fn report(
        &self,
        session: &mut Count,
        owner: &str,
        event: &ReportedEvent,
        _now: Timestamp,
    ) -> Result<Vec<EventRow>, No> {
        let made = match event.happening {
            Happening::Pressed(_) => return Err(No::Pressed),
            Happening::Ended { .. } => 2,
            _ => 1,
        };
        session.over = made == 2;
        let ordinals = session.events + 1..=session.events + made;
        session.events += made;
        Ok(ordinals
            .map(|ordinal| self.row(owner, event.session_id, ordinal))
            .collect())
    }

    fn close_idle(
        &self,
        session: &mut Count,
        owner: &str,
        session_id: Uuid,
        _now: Timestamp,
    ) -> Vec<EventRow> {
        session.over = true;
        session.events += 1;
        vec![self.row(owner, session_id, session.events)]
    }

    fn foreign(&self) -> No {
        No::Foreign
    }
}

fn update(session: u64, key: &str, happening: Happening) -> ReportedEvent {
    let number = Party::Number(Msisdn::parse("+6531580001").unwrap());
    ReportedEvent {
        session_id: id(0, session),
        call_id: id(1, session),
        direction: CallDirection::Inbound,
        call_type: CallType::Pstn,
        source: number.clone(),
        destination: number,
        timestamp: None,
        happening,
        idempotency_key: key.to_owned(),
        idle: None,
    }
}

fn fits(session: u64, key: &str) -> ReportedEvent {
    update(session, key, Happening::Connected)
}

fn refused(session: u64, key: &str) -> ReportedEvent {
    update(session, key, Happening::Pressed('1'))
}

fn last(session: u64, key: &str) -> ReportedEvent {
    let happening = Happening::Ended {
        sip_code: 200,
        error: None,
    };
    update(session, key, happening)
}

fn request(owner: &str, events: &[ReportedEvent]) -> ReportRequest {
    ReportRequest {
        sub_account_id: owner.to_owned(),
        events: events.to_vec(),
    }
}

/// The answers in short: `1 2` the sequences, `=1` a repeated one, `!0 Pressed` a refusal.
fn told(answers: &[Reported<No>]) -> Vec<String> {
    let one = |report: &TakenReport| {
        let mark = if report.repeated { "=" } else { "" };
        format!("{mark}{}", report.sequence)
    };
    let answer = |answer: &Reported<No>| match answer {
        Reported::Taken(taken) => taken.iter().map(one).collect::<Vec<_>>().join(" "),
        Reported::Refused { index, refusal } => format!("!{index} {refusal:?}"),
        Reported::Failed(error) => format!("failed: {error}"),
    };
    answers.iter().map(answer).collect()
}

async fn report(store: &SqliteStore, rules: &Arc<Toy>, group: Vec<ReportRequest>) -> Vec<String> {
    let group = store.report(group, Arc::clone(rules), at(0)).await.unwrap();
    told(&group.answers)
}

async fn ordinals(store: &SqliteStore, session: u64) -> Vec<u64> {
    let events = events_of(store, id(0, session)).await;
    events.iter().map(|(event, _)| event.ordinal).collect()
}

#[tokio::test]
async fn a_request_is_taken_whole_or_leaves_no_trace_and_the_others_go_on() {
    let store = ephemeral();
    let rules = Arc::new(Toy::default());
    let group = vec![
        request("acme", &[fits(1, "a"), fits(2, "b"), fits(1, "c")]),
        request("acme", &[fits(1, "d"), fits(3, "e"), refused(1, "f")]),
        request("acme", &[fits(1, "d"), last(2, "g"), fits(3, "h")]),
    ];
    let group = store
        .report(group, Arc::clone(&rules), at(0))
        .await
        .unwrap();
    assert_eq!(told(&group.answers), ["1 1 2", "!2 Pressed", "3 2 1"]);
    let places = group.events.iter();
    let places = places.map(|it| (it.session_id, it.ordinal));
    let expected = [(1, 1), (2, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 1)];
    assert!(places.eq(expected.map(|(session, ordinal)| (id(0, session), ordinal))));
    assert_eq!(group.idle_at, Some(at(1_000)));
    assert_eq!(ordinals(&store, 1).await, [1, 2, 3]);
    assert_eq!(ordinals(&store, 2).await, [1, 2, 3]);
    assert_eq!(ordinals(&store, 3).await, [1]);
    assert_eq!(pending_events(&store).await.len(), 7);
}

#[tokio::test]
async fn a_known_key_gets_its_first_answer_before_any_rule_and_over_a_restart() {
    let (_directory, path) = directory();
    let rules = Arc::new(Toy::default());
    let first = {
        let store = open(&path);
        let group = vec![
            request("acme", &[fits(1, "a"), fits(1, "a"), fits(1, "b")]),
            request("acme", &[fits(1, "b"), last(1, "c")]),
            request("zenith", &[fits(9, "a")]),
        ];
        let group = store
            .report(group, Arc::clone(&rules), at(0))
            .await
            .unwrap();
        assert_eq!(told(&group.answers), ["1 =1 2", "=2 3", "1"]);
        group
    };
    let store = open(&path);
    let again = vec![
        // What a key first said counts, be it in another session or refused by now.
        request("acme", &[refused(5, "b"), last(1, "c"), fits(2, "new")]),
        request("acme", &[fits(1, "a")]),
    ];
    let again = store
        .report(again, Arc::clone(&rules), at(0))
        .await
        .unwrap();
    assert_eq!(told(&again.answers), ["=2 =3 1", "=1"]);
    assert_eq!(again.events.len(), 1);
    let id_of = |answers: &[Reported<No>], request: usize, index: usize| match &answers[request] {
        Reported::Taken(taken) => taken[index].event_id,
        other => panic!("{other:?}"),
    };
    assert_eq!(id_of(&again.answers, 0, 0), id_of(&first.answers, 0, 2));
    assert_eq!(id_of(&again.answers, 0, 1), id_of(&first.answers, 1, 1));
    assert_eq!(id_of(&again.answers, 1, 0), id_of(&first.answers, 0, 0));
    assert_eq!(ordinals(&store, 1).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_session_of_another_sub_account_or_of_this_switch_is_not_free() {
    let store = ephemeral();
    let rules = Arc::new(Toy::default());
    store.commit(batch(vec![entry(1, 1..=2)])).await.unwrap();
    let mut snapshot_alone = entry(2, 1..=1);
    snapshot_alone.events.clear();
    let entries = vec![snapshot_alone];
    store.commit(batch(entries)).await.unwrap();
    let taken = report(&store, &rules, vec![request("zenith", &[fits(3, "z")])]).await;
    assert_eq!(taken, ["1"]);
    for session in [1, 2, 3] {
        let group = vec![request("acme", &[fits(8, "x"), fits(session, "y")])];
        assert_eq!(
            report(&store, &rules, group).await,
            ["!1 Foreign"],
            "{session}"
        );
    }
    assert!(ordinals(&store, 8).await.is_empty());
}

#[tokio::test]
async fn idle_sessions_are_closed_once_the_longest_idle_first() {
    let store = ephemeral();
    let rules = Arc::new(Toy::default());
    for (session, ms) in [(1, 500), (2, 0), (3, 900), (4, 100)] {
        let happening = fits(session, &format!("k{session}"));
        let group = vec![request("acme", &[happening])];
        store
            .report(group, Arc::clone(&rules), at(ms))
            .await
            .unwrap();
    }
    let group = vec![request("acme", &[last(4, "end")])];
    store
        .report(group, Arc::clone(&rules), at(900))
        .await
        .unwrap();
    let close = |ms, limit| store.close_idle(Arc::clone(&rules), at(ms), limit);
    let none = close(999, 10).await.unwrap();
    assert_eq!((none.sessions, none.next), (0, Some(at(1_000))));
    let one = close(1_500, 1).await.unwrap();
    assert_eq!((one.sessions, one.next), (1, Some(at(1_500))));
    assert_eq!(one.events[0].session_id, id(0, 2));
    let two = close(1_500, 10).await.unwrap();
    assert_eq!((two.sessions, two.next), (1, Some(at(1_900))));
    let three = close(9_000, 10).await.unwrap();
    assert_eq!((three.sessions, three.next), (1, None));
    assert_eq!(ordinals(&store, 2).await, [1, 2]);
    assert_eq!(ordinals(&store, 4).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_session_that_cannot_be_read_stops_its_own_requests_alone() {
    let (_directory, path) = directory();
    let store = open(&path);
    let rules = Arc::new(Toy::default());
    let begun = request("acme", &[fits(1, "a"), fits(2, "b")]);
    report(&store, &rules, vec![begun]).await;
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute(
            "UPDATE reported_sessions SET state = x'ff' WHERE session_id = ?1",
            [id(0, 1).to_string()],
        )
        .unwrap();
    let group = vec![
        request("acme", &[fits(3, "c"), fits(1, "d")]),
        request("acme", &[fits(3, "e"), fits(2, "f")]),
    ];
    let answers = report(&store, &rules, group).await;
    assert!(answers[0].starts_with("failed: broken row"), "{answers:?}");
    assert_eq!(answers[1], "1 2");
    let closed = store
        .close_idle(Arc::clone(&rules), at(5_000), 10)
        .await
        .unwrap();
    assert_eq!((closed.sessions, closed.next), (2, None));
    assert_eq!(closed.unreadable, [id(0, 1)]);
}

#[tokio::test]
async fn with_little_space_no_session_begins_and_those_that_are_open_go_on() {
    let store = ephemeral();
    let rules = Arc::new(Toy::default());
    report(&store, &rules, vec![request("acme", &[fits(1, "a")])]).await;
    store.low.store(true, Ordering::Release);
    let group = vec![
        request("acme", &[fits(1, "b")]),
        request("acme", &[fits(2, "c")]),
        request("acme", &[last(1, "d")]),
    ];
    let group = store
        .report(group, Arc::clone(&rules), at(0))
        .await
        .unwrap();
    assert_eq!(told(&group.answers[..1]), ["2"]);
    assert!(matches!(
        group.answers[1],
        Reported::Failed(StoreError::Full { .. })
    ));
    assert_eq!(told(&group.answers[2..]), ["3"]);
}
