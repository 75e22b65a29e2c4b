//! The header `webhook-gap` after events that ended undelivered.

use super::*;

const DEAD: DeliveryState = DeliveryState::Dead;
const NO_ENDPOINT: DeliveryState = DeliveryState::NoEndpoint;
const PENDING: DeliveryState = DeliveryState::Pending;

/// Lanes that try each event once and then so many times more.
fn script(retries: usize) -> Script {
    let mut config = DeliveryConfig::default();
    config.schedule.delays = vec![Duration::from_secs(1); retries];
    config.schedule.order_deadline = Duration::from_secs(1);
    Script::with(config)
}

fn lost(ended: &[(u64, WebhookType, DeliveryState)]) -> Lost {
    let mut lost = Lost::default();
    for (ordinal, kind, state) in ended {
        lost.note(*ordinal, *kind, *state);
    }
    lost
}

fn page(rows: Vec<EventRow>, ended: Vec<(u128, Lost)>) -> Input {
    Input::Scanned(PendingPage {
        events: stored(rows, PENDING),
        lost: ended.into_iter().map(|(n, it)| (session(n), it)).collect(),
    })
}

fn scan(s: &mut Script) {
    s.give(Input::Missed);
    s.give(Input::Owners(vec!["shop".to_owned()]));
}

#[test]
fn after_a_dead_event_all_later_ones_of_every_type_have_a_gap() {
    let mut s = script(0);
    assert_eq!(s.commit(vcs(1, 1..=3)), [(1, 1, false)]);
    s.commit(vec![vss(1, 4)]);
    assert_eq!(s.end(1, 1, delivered()), [(1, 2, false)]);
    assert_eq!(s.end(1, 2, failed()), [(1, 3, true)]);
    assert_eq!(s.state(2), DEAD);
    assert_eq!(s.end(1, 3, delivered()), [(1, 4, true)]);
    assert_eq!(s.commit(vcs(2, [1])), [(2, 1, false)], "another session");
}

#[test]
fn an_event_that_was_parked_and_then_died_still_leaves_a_gap() {
    let mut s = script(2);
    s.commit(vcs(1, 1..=3));
    s.end(1, 1, failed());
    assert_eq!(s.pass(SECOND), [(1, 1, false), (1, 2, true)]);
    assert_eq!(s.state(1), DeliveryState::Parked);
    s.end(1, 1, failed());
    assert_eq!(s.pass(SECOND), [(1, 1, false)]);
    assert_eq!(s.end(1, 1, failed()), []);
    assert_eq!(s.state(1), DEAD);
    assert_eq!(s.lanes.levels().parked, 0);
    assert_eq!(s.end(1, 2, delivered()), [(1, 3, true)]);
}

#[test]
fn what_found_no_endpoint_is_a_gap_for_its_own_type_only() {
    let mut s = script(0);
    s.commit(vec![vcs(1, [1]).remove(0), row(1, 2, WebhookType::Vru)]);
    assert_eq!(s.end(1, 1, AttemptResult::NoEndpoint), []);
    assert_eq!(s.end(1, 2, delivered()), []);
    assert_eq!(
        s.commit(vec![row(1, 3, WebhookType::Vru)]),
        [(1, 3, false)],
        "its owner may have no other webhook"
    );
    assert_eq!(s.commit(vcs(1, [4])), [(1, 4, true)]);
    assert_eq!(s.end(1, 4, delivered()), []);
    assert_eq!(s.commit(vec![vss(1, 5)]), [(1, 5, false)]);
}

#[test]
fn what_is_replayed_and_delivered_is_a_gap_no_longer() {
    let mut s = script(0);
    s.commit(vcs(1, 1..=3));
    s.end(1, 1, failed());
    s.end(1, 2, AttemptResult::NoEndpoint);
    assert_eq!(s.end(1, 3, delivered()), []);
    assert_eq!(s.commit(vcs(1, [4])), [(1, 4, true)]);
    s.end(1, 4, delivered());
    // Both are pending once more, and 4, which was delivered.
    s.give(Input::Replayed(Arc::from("shop"), vec![session(1)]));
    let again: Vec<_> = [1, 2, 4].into_iter().flat_map(|it| vcs(1, [it])).collect();
    let read = SessionBacklog {
        pending: stored(again, PENDING),
        last: 4,
        ..SessionBacklog::default()
    };
    s.give(page(Vec::new(), Vec::new()));
    assert_eq!(s.loads, [(1, 0)]);
    assert_eq!(s.give(Input::Loaded(session(1), read)), [(1, 1, false)]);
    assert_eq!(s.end(1, 1, delivered()), [(1, 2, false)]);
    assert_eq!(s.end(1, 2, delivered()), [(1, 4, false)]);
    assert_eq!(s.end(1, 4, delivered()), []);
    assert_eq!(s.commit(vcs(1, [5])), [(1, 5, false)]);
}

#[test]
fn a_parked_event_says_that_a_replayed_one_before_it_is_still_under_way() {
    let mut s = script(0);
    scan(&mut s);
    let mut page = PendingPage::from(stored(vcs(1, [2]), PENDING));
    let parked = vcs(1, [8]).remove(0);
    let outcome = stands(&parked, DeliveryState::Parked, 1, None);
    page.events.push(StoredEvent::Whole(parked, outcome));
    let started = s.give(Input::Scanned(page));
    assert_eq!(started, [(1, 2, false), (1, 8, true)]);
}

#[test]
fn what_is_not_replayed_with_the_others_is_still_a_gap() {
    let mut s = script(0);
    s.commit(vcs(1, 1..=3));
    s.end(1, 1, failed());
    s.end(1, 2, failed());
    s.end(1, 3, delivered());
    s.give(Input::Replayed(Arc::from("shop"), vec![session(1)]));
    s.give(page(Vec::new(), Vec::new()));
    let read = SessionBacklog {
        pending: stored(vcs(1, [1]), PENDING),
        last: 3,
        lost: lost(&[(2, WebhookType::Vcs, DEAD)]),
        ..SessionBacklog::default()
    };
    assert_eq!(s.give(Input::Loaded(session(1), read)), [(1, 1, false)]);
    assert_eq!(s.end(1, 1, delivered()), []);
    assert_eq!(s.commit(vcs(1, [4])), [(1, 4, true)]);
}

#[test]
fn a_new_process_hears_of_the_gap_with_the_pass_over_what_is_pending() {
    let mut s = script(0);
    scan(&mut s);
    let ended = vec![
        (1, lost(&[(3, WebhookType::Vcs, DEAD)])),
        (2, lost(&[(1, WebhookType::Vru, NO_ENDPOINT)])),
    ];
    let rows = [vcs(1, [2, 4]), vcs(2, [2])].concat();
    assert_eq!(s.give(page(rows, ended)), [(1, 2, false), (2, 2, false)]);
    assert_eq!(s.end(1, 2, delivered()), [(1, 4, true)]);
    assert_eq!(s.end(2, 2, delivered()), []);
    let own = vec![row(2, 3, WebhookType::Vru)];
    assert_eq!(s.commit(own), [(2, 3, true)]);
}

#[test]
fn an_event_of_a_page_that_ended_meanwhile_is_a_gap_like_any_other() {
    let mut s = script(0);
    scan(&mut s);
    let rows = [stored(vcs(1, [1]), DEAD), stored(vcs(1, [2]), PENDING)].concat();
    assert_eq!(s.give(Input::Scanned(rows.into())), [(1, 2, true)]);
}

#[test]
fn what_a_page_says_of_an_event_that_found_no_room_is_left_to_the_next_page() {
    let mut s = Script::with(DeliveryConfig {
        events_in_memory: 2,
        page: 2,
        ..DeliveryConfig::default()
    });
    scan(&mut s);
    let ended = vec![(1, lost(&[(2, WebhookType::Vcs, DEAD)]))];
    assert_eq!(s.give(page(vcs(1, [1, 3]), ended)), [(1, 1, false)]);
    // Now 2 is replayed, so that the next page has it.
    assert_eq!(s.end(1, 1, delivered()), []);
    assert_eq!(s.give(page(vcs(1, [2, 3]), Vec::new())), [(1, 2, false)]);
    assert_eq!(s.end(1, 2, delivered()), []);
    assert_eq!(s.give(page(vcs(1, [3]), Vec::new())), [(1, 3, false)]);
}

#[test]
fn a_session_that_is_read_from_the_store_brings_its_gap_with_it() {
    let mut s = script(0);
    assert_eq!(s.commit(vcs(1, [9])), []);
    let read = |pending: Vec<EventRow>, more, last, ended: &[_]| {
        let page = SessionBacklog {
            pending: stored(pending, PENDING),
            more,
            last,
            has_summary: false,
            lost: lost(ended),
        };
        Input::Loaded(session(1), page)
    };
    // Of its first page, of its second, and behind all that is pending.
    let first = [(1, WebhookType::Vru, NO_ENDPOINT)];
    let second = [(4, WebhookType::Vcs, NO_ENDPOINT)];
    assert_eq!(
        s.give(read(vcs(1, 2..=3), true, 9, &first)),
        [(1, 2, false)]
    );
    assert_eq!(s.give(read(vcs(1, 5..=6), true, 9, &second)), []);
    let last = [(7, WebhookType::Vcs, DEAD)];
    assert_eq!(s.give(read(Vec::new(), false, 8, &last)), []);
    assert_eq!(s.end(1, 2, delivered()), [(1, 3, false)]);
    assert_eq!(s.end(1, 3, delivered()), [(1, 5, true)]);
    assert_eq!(s.end(1, 5, delivered()), [(1, 6, true)]);
    assert_eq!(s.commit(vec![vss(1, 10)]), []);
    assert_eq!(s.end(1, 6, delivered()), [(1, 9, true)]);
    assert_eq!(s.end(1, 9, delivered()), [(1, 10, true)]);
}
