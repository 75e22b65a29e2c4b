//! Lanes step by step: order, retries, parking, fair shares. Random runs are in `random_tests`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod lost;
mod pages;

use std::time::Duration;

use maskline_store::StoredEvent;

use super::*;

const START: Timestamp = Timestamp::from_unix_ms(1_767_694_639_000);
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;

/// The lanes with a store that is empty unless told otherwise, and that takes every outcome.
struct Script {
    lanes: Lanes,
    now: Timestamp,
    outcomes: Vec<(u64, Outcome)>,
    /// Of which session, and after which of its events.
    loads: Vec<(u128, u64)>,
    scans: Vec<Option<Place>>,
    owners: usize,
    /// Whether a breaker opened, or closed.
    breakers: Vec<bool>,
    broken: Vec<(Option<Uuid>, u64)>,
    recording: bool,
}

fn session(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn row(n: u128, ordinal: u64, kind: WebhookType) -> EventRow {
    EventRow {
        event_id: Uuid::from_u128(n << 32 | u128::from(ordinal)),
        session_id: session(n),
        sub_account_id: "shop".to_owned(),
        ordinal,
        webhook_type: kind,
        at: START,
        body: "{}".to_owned(),
    }
}

fn vcs(n: u128, ordinals: impl IntoIterator<Item = u64>) -> Vec<EventRow> {
    ordinals
        .into_iter()
        .map(|ordinal| row(n, ordinal, WebhookType::Vcs))
        .collect()
}

fn vss(n: u128, ordinal: u64) -> EventRow {
    row(n, ordinal, WebhookType::Vss)
}

fn of(owner: &str, n: u128, ordinals: impl IntoIterator<Item = u64>) -> Vec<EventRow> {
    let own = |row| EventRow {
        sub_account_id: owner.to_owned(),
        ..row
    };
    vcs(n, ordinals).into_iter().map(own).collect()
}

/// As the store has them.
fn stored(rows: Vec<EventRow>, state: DeliveryState) -> Vec<StoredEvent> {
    let whole = |row: EventRow| {
        let outcome = stands(&row, state, 0, None);
        StoredEvent::Whole(row, outcome)
    };
    rows.into_iter().map(whole).collect()
}

/// The last page of a session whose events stand so.
fn backlog(rows: Vec<StoredEvent>) -> SessionBacklog {
    let mut backlog = SessionBacklog::default();
    for row in rows {
        let (_, ordinal) = row.key().unwrap();
        backlog.last = backlog.last.max(ordinal);
        if let StoredEvent::Whole(row, outcome) = &row
            && outcome.state.is_final()
        {
            backlog.has_summary |= row.webhook_type == WebhookType::Vss;
        } else {
            backlog.pending.push(row);
        }
    }
    backlog
}

fn broken(n: u128, ordinal: u64) -> StoredEvent {
    StoredEvent::Broken {
        session_id: Some(session(n)),
        ordinal,
        reason: "its body is no text".to_owned(),
    }
}

fn stands(row: &EventRow, state: DeliveryState, attempts: u32, next: Option<i64>) -> Outcome {
    Outcome {
        event_id: row.event_id,
        state,
        attempts,
        next_attempt_at: next.map(|ms| START.plus_ms(ms)),
        status: None,
        error: None,
        at: START,
    }
}

fn failed() -> AttemptResult {
    AttemptResult::Failed {
        status: Some(500),
        error: "the receiver answered 500".to_owned(),
        retry_after: None,
    }
}

fn delivered() -> AttemptResult {
    AttemptResult::Delivered { status: 200 }
}

impl Script {
    fn new() -> Self {
        Self::with(DeliveryConfig::default())
    }

    fn with(config: DeliveryConfig) -> Self {
        let mut script = Self {
            lanes: Lanes::new(&config),
            now: START,
            outcomes: Vec::new(),
            loads: Vec::new(),
            scans: Vec::new(),
            owners: 0,
            breakers: Vec::new(),
            broken: Vec::new(),
            recording: true,
        };
        assert!(script.run().is_empty());
        assert_eq!(script.owners, 1, "it begins by reading the store");
        script.give(Input::Owners(Vec::new()));
        script
    }

    /// What is started: (session, ordinal, gap).
    fn give(&mut self, input: Input) -> Vec<(u128, u64, bool)> {
        self.lanes.handle(self.now, input);
        self.run()
    }

    fn commit(&mut self, rows: Vec<EventRow>) -> Vec<(u128, u64, bool)> {
        self.give(Input::Committed(rows))
    }

    fn end(&mut self, n: u128, ordinal: u64, result: AttemptResult) -> Vec<(u128, u64, bool)> {
        let key = EventKey {
            session: session(n),
            ordinal,
        };
        self.give(Input::Attempted {
            key,
            result,
            jitter_permille: 0,
        })
    }

    fn pass(&mut self, ms: i64) -> Vec<(u128, u64, bool)> {
        self.now = self.now.plus_ms(ms);
        self.give(Input::Elapsed)
    }

    fn run(&mut self) -> Vec<(u128, u64, bool)> {
        let mut started = Vec::new();
        while let Some(action) = self.lanes.poll() {
            match action {
                Action::Attempt { key, gap, .. } => {
                    started.push((key.session.as_u128(), key.ordinal, gap));
                }
                Action::Record { event, outcome, .. } => {
                    self.outcomes.push((event.ordinal, outcome));
                    if self.recording {
                        self.lanes
                            .handle(self.now, Input::Recorded(vec![event.session_id]));
                    }
                }
                Action::Breaker { is_open, .. } => self.breakers.push(is_open),
                Action::Owners => self.owners += 1,
                Action::Scan { after, .. } => self.scans.push(after),
                Action::Broken {
                    session, ordinal, ..
                } => self.broken.push((session, ordinal)),
                Action::Load { session, after, .. } => {
                    self.loads.push((session.as_u128(), after));
                }
            }
        }
        started
    }

    fn state(&self, ordinal: u64) -> DeliveryState {
        let last = self.outcomes.iter().rev().find(|(o, _)| *o == ordinal);
        last.unwrap().1.state
    }
}

#[test]
fn events_of_a_lane_go_one_at_a_time_and_lanes_go_side_by_side() {
    let mut s = Script::new();
    assert_eq!(s.commit(vcs(1, 1..=3)), [(1, 1, false)]);
    assert_eq!(s.commit(vcs(2, 1..=2)), [(2, 1, false)]);
    assert_eq!(s.end(1, 1, delivered()), [(1, 2, false)]);
    assert_eq!(s.end(1, 2, failed()), []);
    assert_eq!(s.end(2, 1, delivered()), [(2, 2, false)]);
    assert_eq!(s.pass(SECOND - 1), []);
    assert_eq!(s.pass(1), [(1, 2, false)]);
    assert_eq!(s.end(1, 2, delivered()), [(1, 3, false)]);
    assert_eq!(s.end(1, 3, delivered()), []);
    assert_eq!(s.state(3), DeliveryState::Delivered);
}

#[test]
fn a_parked_event_lets_its_lane_go_on_with_a_gap_until_it_is_through() {
    let mut s = Script::new();
    s.commit(vcs(1, 1..=4));
    s.end(1, 1, delivered());
    for delay in [0, 1, 10, 30, 90, 300] {
        s.pass(delay * SECOND);
        assert_eq!(s.end(1, 2, failed()), []);
    }
    assert_eq!(s.state(2), DeliveryState::Pending);
    // 431 s have passed, and the next attempt is half an hour away.
    assert_eq!(s.pass(10 * MINUTE - 431 * SECOND), [(1, 3, true)]);
    let (_, parked) = s.outcomes.last().unwrap().clone();
    assert_eq!((parked.state, parked.attempts), (DeliveryState::Parked, 6));
    assert_eq!(
        parked.next_attempt_at,
        Some(START.plus_ms((431 + 1800) * SECOND))
    );
    assert_eq!(s.end(1, 3, delivered()), [(1, 4, true)]);
    assert_eq!(s.end(1, 4, delivered()), []);
    s.now = START.plus_ms((431 + 1800) * SECOND);
    assert_eq!(s.give(Input::Elapsed), [(1, 2, false)]);
    assert_eq!(s.end(1, 2, delivered()), []);
    assert_eq!(s.commit(vcs(1, 5..=5)), [(1, 5, false)]);
}

#[test]
fn an_attempt_that_runs_over_the_order_deadline_parks_its_event_when_it_fails() {
    let mut s = Script::new();
    s.commit(vcs(1, 1..=2));
    s.end(1, 1, failed());
    s.pass(SECOND);
    assert_eq!(s.pass(10 * MINUTE), []);
    assert_eq!(s.end(1, 1, failed()), [(1, 2, true)]);
    assert_eq!(s.state(1), DeliveryState::Parked);
    // Its session is past the deadline too, so one failure parks the next event at once.
    assert_eq!(s.end(1, 2, failed()), []);
    assert_eq!(s.state(2), DeliveryState::Parked);
}

#[test]
fn the_summary_waits_until_every_status_event_is_settled_or_parked() {
    // Whether the next has a gap, and the summary.
    for (result, gap, gap_of_summary) in [
        (delivered(), false, false),
        (AttemptResult::NoEndpoint, true, false),
        (AttemptResult::Gone, true, true),
    ] {
        let mut s = Script::new();
        s.commit(vcs(1, 1..=2));
        assert_eq!(s.commit(vec![vss(1, 3)]), []);
        assert_eq!(s.end(1, 1, result.clone()), [(1, 2, gap)]);
        assert_eq!(s.end(1, 2, result), [(1, 3, gap_of_summary)]);
    }
    let mut s = Script::new();
    s.commit(vcs(1, 1..=1));
    s.commit(vec![vss(1, 2)]);
    s.pass(10 * MINUTE - 1);
    s.now = START.plus_ms(10 * MINUTE - 1);
    assert_eq!(s.end(1, 1, failed()), []);
    assert_eq!(
        s.pass(1),
        [(1, 2, true)],
        "parked, so the summary says that there is a gap"
    );
}

#[test]
fn the_summary_waits_no_longer_than_the_order_deadline() {
    let mut s = Script::new();
    s.commit(vcs(1, 1..=2));
    s.commit(vec![vss(1, 3)]);
    assert_eq!(s.pass(10 * MINUTE - 1), []);
    assert_eq!(s.pass(1), [(1, 3, false)]);
}

#[test]
fn an_event_dies_when_its_retries_are_used_up() {
    let mut s = Script::new();
    s.commit(vcs(1, 1..=1));
    for attempt in 1..=11 {
        assert_eq!(s.end(1, 1, failed()), []);
        let (_, outcome) = s.outcomes.last().unwrap();
        assert_eq!(outcome.attempts, attempt);
        let Some(next) = outcome.next_attempt_at else {
            break;
        };
        s.now = next;
        assert_eq!(s.give(Input::Elapsed), [(1, 1, false)]);
    }
    let (_, last) = s.outcomes.last().unwrap();
    assert_eq!((last.state, last.attempts), (DeliveryState::Dead, 11));
    let hours = (s.now.unix_ms() - START.unix_ms()) / (60 * MINUTE);
    assert_eq!(hours, 27);
}

#[test]
fn what_the_store_could_not_say_is_no_attempt() {
    let mut s = Script::new();
    s.commit(vcs(1, 1..=1));
    for _ in 0..100 {
        assert_eq!(s.end(1, 1, AttemptResult::Postponed), []);
        assert_eq!(s.pass(SECOND), [(1, 1, false)]);
    }
    assert!(s.outcomes.is_empty());
    s.end(1, 1, delivered());
    assert_eq!(s.outcomes.last().unwrap().1.attempts, 1);
}

#[test]
fn a_new_process_goes_on_where_the_store_says() {
    let mut s = Script {
        lanes: Lanes::new(&DeliveryConfig::default()),
        now: START,
        outcomes: Vec::new(),
        loads: Vec::new(),
        scans: Vec::new(),
        owners: 0,
        breakers: Vec::new(),
        broken: Vec::new(),
        recording: true,
    };
    s.run();
    s.give(Input::Owners(vec!["shop".to_owned()]));
    let rows: Vec<_> = vcs(1, [2, 4, 5])
        .into_iter()
        .zip([
            (DeliveryState::Parked, 7, Some(MINUTE)),
            (DeliveryState::Pending, 1, Some(5 * SECOND)),
            (DeliveryState::Pending, 0, None),
        ])
        .map(|(row, (state, attempts, next))| {
            let outcome = stands(&row, state, attempts, next);
            StoredEvent::Whole(row, outcome)
        })
        .collect();
    assert_eq!(s.give(Input::Scanned(rows.into())), []);
    assert_eq!(s.pass(5 * SECOND), [(1, 4, true)]);
    assert_eq!(s.end(1, 4, delivered()), [(1, 5, true)]);
    s.end(1, 5, delivered());
    assert_eq!(s.pass(55 * SECOND), [(1, 2, false)]);
    assert_eq!(s.end(1, 2, failed()), []);
    assert_eq!(s.outcomes.last().unwrap().1.attempts, 8);
}

#[test]
fn what_a_clock_that_was_ahead_wrote_down_holds_no_lane_for_longer_than_the_schedule() {
    const YEAR: i64 = 365 * 24 * 60 * MINUTE;
    let mut s = Script::new();
    s.give(Input::Missed);
    s.give(Input::Owners(vec!["shop".to_owned()]));
    let mut rows = vcs(1, 1..=2);
    for row in &mut rows {
        row.at = START.plus_ms(YEAR);
    }
    let mut rows = stored(rows, DeliveryState::Pending);
    for (n, next) in [
        (1, Some(YEAR)),
        (2, Some(YEAR)),
        (3, Some(11 * 60 * MINUTE)),
    ] {
        if n > 1 {
            rows.extend(stored(vcs(n, 1..=2), DeliveryState::Pending));
        }
        let index = rows.len() - 2;
        let StoredEvent::Whole(row, outcome) = &mut rows[index] else {
            unreachable!();
        };
        *outcome = stands(row, DeliveryState::Pending, 2, next);
    }
    assert_eq!(s.give(Input::Scanned(rows.into())), []);
    // The order deadline counts from now at the latest.
    assert_eq!(s.pass(10 * MINUTE - 1).len(), 0);
    let lanes = [(1, 2, true), (2, 2, true), (3, 2, true)];
    assert_eq!(s.pass(1), lanes);
    for (n, ordinal, _) in lanes {
        s.end(n, ordinal, delivered());
    }
    assert_eq!(s.pass((11 * 60 - 10) * MINUTE - 1), []);
    let parked = [(1, 1, false), (2, 1, false), (3, 1, false)];
    assert_eq!(s.pass(1), parked);
}

#[test]
fn an_event_out_of_sequence_has_its_session_read_first() {
    let mut s = Script::new();
    assert_eq!(s.commit(vcs(1, [3])), [], "1 and 2 are not known");
    assert_eq!(s.loads, [(1, 0)]);
    assert_eq!(s.commit(vcs(1, [4])), []);
    let rows = vcs(1, 1..=3)
        .into_iter()
        .zip([
            DeliveryState::Delivered,
            DeliveryState::Pending,
            DeliveryState::Pending,
        ])
        .map(|(row, state)| {
            let outcome = stands(&row, state, 0, None);
            StoredEvent::Whole(row, outcome)
        })
        .collect();
    let read = Input::Loaded(session(1), backlog(rows));
    assert_eq!(s.give(read), [(1, 2, false)]);
    assert_eq!(s.end(1, 2, delivered()), [(1, 3, false)]);
    assert_eq!(s.end(1, 3, delivered()), [(1, 4, false)]);
    assert_eq!(s.commit(vcs(1, [5])), [], "4 is in flight");
    assert_eq!(s.end(1, 4, delivered()), [(1, 5, false)]);
    assert_eq!(s.loads.len(), 1);
}

#[test]
fn a_session_that_can_t_be_read_is_read_again() {
    let mut s = Script::new();
    s.commit(vcs(1, [2]));
    s.give(Input::LoadFailed(session(1)));
    assert_eq!(s.loads.len(), 1);
    s.pass(SECOND);
    assert_eq!(s.loads.len(), 2);
}

#[test]
fn what_does_not_fit_is_read_from_the_store_when_there_is_room() {
    let mut s = Script::with(DeliveryConfig {
        events_in_memory: 16,
        ..DeliveryConfig::default()
    });
    assert_eq!(s.commit(vcs(1, 1..=6)), [(1, 1, false)]);
    assert_eq!(
        s.lanes.levels().events,
        4,
        "as many as are free beyond half"
    );
    assert!(s.lanes.levels().behind);
    assert_eq!(s.scans.len(), 0, "no room yet");
    s.end(1, 1, delivered());
    assert_eq!(s.scans.len(), 1);
    let rows: Vec<_> = vcs(1, 2..=6)
        .into_iter()
        .map(|row| {
            let outcome = stands(&row, DeliveryState::Pending, 0, None);
            StoredEvent::Whole(row, outcome)
        })
        .collect();
    s.give(Input::Scanned(rows.into()));
    assert_eq!(s.lanes.levels().events, 4);
    for ordinal in 2..=4 {
        assert_eq!(s.end(1, ordinal, delivered()), [(1, ordinal + 1, false)]);
    }
    assert_eq!(
        s.scans.last(),
        Some(&Some((session(1), 5))),
        "it goes on from there"
    );
}

#[test]
fn nothing_is_started_while_too_much_is_unrecorded() {
    let mut s = Script::with(DeliveryConfig {
        unrecorded: 2,
        ..DeliveryConfig::default()
    });
    s.recording = false;
    s.commit(vcs(1, 1..=3));
    s.commit(vcs(2, 1..=3));
    assert_eq!(s.end(1, 1, delivered()), [(1, 2, false)]);
    assert_eq!(s.end(2, 1, delivered()), []);
    assert_eq!(s.end(1, 2, delivered()), []);
    assert_eq!(s.lanes.levels().unrecorded, 3);
    s.give(Input::Recorded(vec![session(1)]));
    let started = s.give(Input::Recorded(vec![session(2), session(1)]));
    assert_eq!(started, [(2, 2, false), (1, 3, false)]);
}

#[test]
fn sessions_that_ended_are_forgotten_and_those_that_go_on_are_kept() {
    let mut s = Script::new();
    s.commit(vcs(1, 1..=1));
    s.commit(vec![vss(1, 2)]);
    s.commit(vcs(2, 1..=1));
    s.end(1, 1, delivered());
    s.end(1, 2, delivered());
    s.end(2, 1, delivered());
    assert_eq!(s.lanes.sessions.keys().collect::<Vec<_>>(), [&session(2)]);
    assert_eq!(s.commit(vcs(2, [2])), [(2, 2, false)]);
    assert_eq!(s.lanes.levels().lanes, 1);
    s.end(2, 2, delivered());
    assert_eq!(s.lanes.levels(), Levels::default());
    assert!(s.lanes.is_quiet());
}

#[test]
fn a_session_that_was_forgotten_for_room_is_read_when_it_goes_on() {
    let mut s = Script::with(DeliveryConfig {
        events_in_memory: 2,
        ..DeliveryConfig::default()
    });
    for n in 1..=3 {
        s.commit(vcs(n, 1..=1));
        s.end(n, 1, delivered());
    }
    assert_eq!(s.lanes.sessions.len(), 2);
    assert_eq!(s.commit(vcs(1, [2])), []);
    assert_eq!(s.loads, [(1, 0)]);
}

#[test]
fn retry_after_is_kept_to() {
    let mut s = Script::new();
    s.commit(vcs(1, 1..=1));
    let result = AttemptResult::Failed {
        status: Some(429),
        error: "the receiver answered 429".to_owned(),
        retry_after: Some(Duration::from_secs(7)),
    };
    s.end(1, 1, result);
    assert_eq!(s.pass(7 * SECOND - 1), []);
    assert_eq!(s.pass(1), [(1, 1, false)]);
}

#[test]
fn an_open_breaker_only_delays_and_neither_counts_nor_parks_what_was_not_tried() {
    let mut s = Script::new();
    let mut tried: BTreeMap<Uuid, u32> = BTreeMap::new();
    let mut running = Vec::new();
    for n in 1..=100 {
        running.extend(s.commit(vcs(n, 1..=1)));
    }
    for _ in 0..2_000 {
        while let Some((n, ordinal, _)) = running.pop() {
            *tried
                .entry(row(n, ordinal, WebhookType::Vcs).event_id)
                .or_default() += 1;
            running.extend(s.end(n, ordinal, failed()));
        }
        running.extend(s.pass(SECOND));
    }
    let attempts: u32 = tried.values().sum();
    assert!((30..60).contains(&attempts), "{tried:?}");
    let mut counted: BTreeMap<Uuid, u32> = BTreeMap::new();
    for (_, outcome) in &s.outcomes {
        assert_ne!(outcome.state, DeliveryState::Dead);
        counted.insert(outcome.event_id, outcome.attempts);
    }
    assert_eq!(counted, tried);
    assert_eq!(s.lanes.levels().events, 100);
    assert_eq!(s.breakers, [true], "it is said once, however long it lasts");
    for _ in 0..2_000 {
        while let Some((n, ordinal, _)) = running.pop() {
            running.extend(s.end(n, ordinal, delivered()));
        }
        running.extend(s.pass(SECOND));
    }
    assert_eq!(s.lanes.levels().events, 0);
    assert_eq!(s.lanes.levels().places, Places::default());
    assert_eq!(s.breakers, [true, false]);
}

#[test]
fn an_endpoint_s_own_schedule_goes_for_its_events() {
    let mut s = Script::new();
    let endpoint = (Arc::from("shop"), WebhookType::Vcs);
    let mut policy = DeliveryConfig::default().policy();
    policy.schedule.delays = vec![Duration::from_secs(3)];
    policy.schedule.order_deadline = Duration::from_secs(2);
    s.commit(vcs(1, 1..=2));
    s.give(Input::Policy(endpoint, Some(policy)));
    assert!(s.end(1, 1, failed()).is_empty());
    assert_eq!(s.pass(2 * SECOND), [(1, 2, true)], "parked");
    assert_eq!(s.pass(SECOND), [(1, 1, false)]);
    s.end(1, 1, failed());
    assert_eq!(s.state(1), DeliveryState::Dead);
}

#[test]
fn the_backlog_of_one_sub_account_leaves_room_for_every_other() {
    let mut s = Script::with(DeliveryConfig {
        events_in_memory: 100,
        ..DeliveryConfig::default()
    });
    // As many as are free beyond half, and of those that are dead after that one each.
    let mut had = 0;
    for (dead, most) in [25, 13, 6, 3, 2, 1].into_iter().chain([1; 18]).enumerate() {
        for n in 1..=100 {
            s.commit(of(&format!("dead{dead}"), 1_000 * dead as u128 + n, 1..=2));
        }
        had += most;
        assert_eq!(s.lanes.levels().events, had, "dead{dead}");
    }
    for n in 100_002..100_200 {
        assert_eq!(s.commit(of("well", n, 1..=1)), [(n, 1, false)]);
        assert_eq!(s.end(n, 1, delivered()), []);
    }
    assert!(s.lanes.levels().behind);
    assert!(
        s.scans.is_empty(),
        "nothing is read that would find no room"
    );
}

#[test]
fn at_a_start_a_page_of_each_sub_account_is_read_in_turn() {
    let mut s = Script::with(DeliveryConfig {
        events_in_memory: 10_000,
        page: 10,
        ..DeliveryConfig::default()
    });
    s.give(Input::Missed);
    s.give(Input::Owners(vec!["dead".to_owned(), "well".to_owned()]));
    assert_eq!(s.scans, [None]);
    let page = |from: u128| {
        let rows = (from..from + 10).flat_map(|n| of("dead", n, 1..=1));
        stored(rows.collect(), DeliveryState::Pending)
    };
    s.give(Input::Scanned(page(1).into()));
    assert_eq!(s.scans, [None, None], "the other one's");
    let rows = stored(of("well", 1_000, 1..=1), DeliveryState::Pending);
    assert!(
        s.give(Input::Scanned(rows.into()))
            .contains(&(1_000, 1, false))
    );
    assert_eq!(s.scans.last(), Some(&Some((session(10), 1))));
    s.give(Input::Scanned(page(11).into()));
    assert_eq!(s.scans.last(), Some(&Some((session(20), 1))));
    s.give(Input::ScanFailed);
    assert_eq!(s.scans.len(), 4);
    s.pass(SECOND);
    assert_eq!(s.scans.last(), Some(&Some((session(20), 1))));
    s.give(Input::Scanned(Vec::new().into()));
    assert_eq!((s.scans.len(), s.lanes.levels().behind), (5, false));
}

#[test]
fn a_row_that_can_t_be_read_stops_its_session_alone_and_is_told_once() {
    let mut s = Script::new();
    s.give(Input::Missed);
    for _ in 0..2 {
        s.give(Input::Owners(vec!["shop".to_owned()]));
        let mut rows = stored(vcs(1, [1]), DeliveryState::Pending);
        rows.push(broken(1, 2));
        rows.extend(stored(vcs(1, [3]), DeliveryState::Pending));
        rows.extend(stored(vec![vss(1, 4)], DeliveryState::Pending));
        rows.extend(stored(vcs(2, [1]), DeliveryState::Pending));
        rows.push(StoredEvent::Broken {
            session_id: None,
            ordinal: 0,
            reason: "1 pending row has no readable session".to_owned(),
        });
        let started = s.give(Input::Scanned(rows.into()));
        if s.lanes.levels().events == 2 {
            assert_eq!(started, [(1, 1, false), (2, 1, false)]);
            assert_eq!(s.end(1, 1, delivered()), []);
            assert_eq!(s.end(2, 1, delivered()), []);
        } else {
            assert_eq!(started, [], "a second pass finds nothing new");
        }
        assert_eq!(s.broken, [(Some(session(1)), 2), (None, 0)]);
        s.give(Input::Missed);
    }
    assert_eq!(s.commit(vcs(1, [5])), []);
    assert_eq!(s.commit(vcs(2, [2])), [(2, 2, false)]);
    // The same for a session that is read by itself.
    s.commit(vcs(3, [3]));
    let mut rows = stored(vcs(3, [1]), DeliveryState::Delivered);
    rows.push(broken(3, 2));
    rows.extend(stored(vcs(3, [3]), DeliveryState::Pending));
    assert_eq!(s.give(Input::Loaded(session(3), backlog(rows))), []);
    assert_eq!(s.broken.last(), Some(&(Some(session(3)), 2)));
    assert_eq!(s.lanes.levels().events, 1, "only 2 of session 2");
}

#[test]
fn what_is_replayed_goes_in_order_when_nothing_else_of_its_session_is_under_way() {
    let mut s = Script::new();
    s.recording = false;
    s.commit(vcs(1, 1..=3));
    s.end(1, 1, delivered());
    s.end(1, 2, delivered());
    let replay = || Input::Replayed(Arc::from("shop"), vec![session(1)]);
    assert_eq!(s.give(replay()), []);
    // What was scanned for others finds it, and takes nothing of it: it may have changed since.
    assert_eq!(s.scans, [None]);
    let rows = stored(vcs(1, [1, 3]), DeliveryState::Pending);
    assert_eq!(s.give(Input::Scanned(rows.into())), []);
    assert!(s.loads.is_empty(), "3 is in flight");
    s.end(1, 3, delivered());
    assert!(s.loads.is_empty(), "outcomes are on their way to the store");
    s.give(Input::Recorded(vec![session(1); 3]));
    assert_eq!(s.loads, [(1, 0)]);
    assert_eq!(s.commit(vcs(1, [4])), [], "it queues behind");
    let rows = [
        stored(vcs(1, [1]), DeliveryState::Pending),
        stored(vcs(1, [2]), DeliveryState::Delivered),
        stored(vcs(1, [3, 4]), DeliveryState::Pending),
    ];
    assert_eq!(
        s.give(Input::Loaded(session(1), backlog(rows.concat()))),
        [(1, 1, false)]
    );
    assert_eq!(s.end(1, 1, delivered()), [(1, 3, false)]);
    assert_eq!(s.end(1, 3, delivered()), [(1, 4, false)]);
    assert_eq!(s.end(1, 4, delivered()), []);
    // A session that is not in memory is found as what does not fit is.
    s.give(Input::Replayed(Arc::from("shop"), vec![session(9)]));
    let rows = stored(vcs(9, [2, 5]), DeliveryState::Pending);
    assert_eq!(s.give(Input::Scanned(rows.into())), [(9, 2, false)]);
    assert_eq!(s.loads.len(), 1);
}

#[test]
fn a_replay_reads_a_session_only_when_no_older_page_of_it_is_on_its_way() {
    let mut s = Script::new();
    s.commit(vcs(1, 1..=1));
    s.give(Input::Missed);
    s.give(Input::Owners(vec!["shop".to_owned()]));
    assert_eq!(s.scans, [None]);
    s.end(1, 1, delivered());
    s.give(Input::Replayed(Arc::from("shop"), vec![session(1)]));
    assert!(s.loads.is_empty(), "the page may say that 1 is pending");
    let rows = stored(vcs(1, [1]), DeliveryState::Pending);
    assert_eq!(s.give(Input::Scanned(rows.into())), []);
    assert_eq!(s.loads, [(1, 0)]);
}
