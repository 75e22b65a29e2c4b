//! A session that is read from the store in pages.

use super::*;

/// A page behind which there is more.
fn full_page(n: u128, ordinals: impl IntoIterator<Item = u64>, last: u64) -> Input {
    let page = SessionBacklog {
        pending: stored(vcs(n, ordinals), DeliveryState::Pending),
        more: true,
        last,
        ..SessionBacklog::default()
    };
    Input::Loaded(session(n), page)
}

fn last_page(n: u128, ordinals: impl IntoIterator<Item = u64>, last: u64) -> Input {
    let page = SessionBacklog {
        pending: stored(vcs(n, ordinals), DeliveryState::Pending),
        last,
        ..SessionBacklog::default()
    };
    Input::Loaded(session(n), page)
}

#[test]
fn a_long_session_is_read_page_by_page_and_only_behind_what_was_taken() {
    let mut s = Script::new();
    assert_eq!(s.commit(vcs(1, [9])), []);
    assert_eq!(s.give(full_page(1, [2, 4], 9)), [(1, 2, false)]);
    assert_eq!(s.loads, [(1, 0), (1, 4)]);
    assert_eq!(s.end(1, 2, delivered()), [(1, 4, false)]);
    assert_eq!(s.commit(vcs(1, [10])), [], "it comes behind all pages");
    assert_eq!(s.end(1, 4, delivered()), []);
    assert_eq!(s.give(full_page(1, [5, 6], 10)), [(1, 5, false)]);
    assert_eq!(s.loads.last(), Some(&(1, 6)));
    assert_eq!(s.give(last_page(1, [9], 10)), []);
    assert_eq!(s.end(1, 5, delivered()), [(1, 6, false)]);
    assert_eq!(s.end(1, 6, delivered()), [(1, 9, false)]);
    assert_eq!(s.commit(vcs(1, [11])), [], "9 is in flight");
    assert_eq!(s.end(1, 9, delivered()), [(1, 11, false)], "10 was settled");
    assert_eq!(s.loads.len(), 3);
    // What does not follow later is looked for behind what was taken.
    assert_eq!(s.commit(vcs(1, [14])), []);
    assert_eq!(s.loads.last(), Some(&(1, 11)));
}

#[test]
fn what_was_missed_while_the_last_page_was_read_is_read_too() {
    let mut s = Script::new();
    s.commit(vcs(1, [2]));
    assert_eq!(s.give(full_page(1, 1..=2, 2)), [(1, 1, false)]);
    // This page is read, then 3 is committed and missed, and 4 comes.
    assert_eq!(s.commit(vcs(1, [4])), []);
    assert_eq!(s.give(last_page(1, [], 0)), []);
    assert_eq!(s.loads, [(1, 0), (1, 2), (1, 2)]);
    assert_eq!(s.give(last_page(1, [3, 4], 4)), []);
    for ordinal in 1..=3 {
        assert_eq!(s.end(1, ordinal, delivered()), [(1, ordinal + 1, false)]);
    }
    assert_eq!(s.loads.len(), 3);
}

#[test]
fn the_end_of_a_session_that_was_settled_is_its_end() {
    let mut s = Script::new();
    s.commit(vcs(1, [2]));
    let over = SessionBacklog {
        last: 3,
        has_summary: true,
        ..SessionBacklog::default()
    };
    assert_eq!(s.give(Input::Loaded(session(1), over)), []);
    assert!(s.lanes.sessions.is_empty());
    assert_eq!(s.lanes.levels(), Levels::default());
}

#[test]
fn a_page_that_finds_no_room_leaves_the_rest_to_the_store() {
    let mut s = Script::with(DeliveryConfig {
        events_in_memory: 8,
        ..DeliveryConfig::default()
    });
    s.commit(vcs(1, [9]));
    assert_eq!(s.give(full_page(1, 1..=3, 9)), [(1, 1, false)]);
    assert_eq!(s.lanes.levels().events, 2);
    assert_eq!(s.loads.len(), 1, "what is behind has no room either");
    assert!(s.lanes.levels().behind);
    assert_eq!(s.end(1, 1, delivered()), [(1, 2, false)]);
    assert_eq!(s.end(1, 2, delivered()), []);
    assert_eq!(s.scans, [None]);
    let rows = stored(vcs(1, 3..=4), DeliveryState::Pending);
    assert_eq!(s.give(Input::Scanned(rows.into())), [(1, 3, false)]);
}

#[test]
fn a_pass_that_stands_within_a_replayed_session_goes_back_with_it() {
    let mut s = Script::with(DeliveryConfig {
        events_in_memory: 8,
        page: 2,
        ..DeliveryConfig::default()
    });
    s.give(Input::Missed);
    s.give(Input::Owners(vec!["shop".to_owned()]));
    let rows = stored(vcs(1, 4..=5), DeliveryState::Pending);
    assert_eq!(s.give(Input::Scanned(rows.into())), [(1, 4, false)]);
    assert_eq!(s.scans, [None], "it waits for room behind 5");
    s.give(Input::Replayed(Arc::from("shop"), vec![session(1)]));
    assert_eq!(s.end(1, 4, delivered()), [(1, 5, false)]);
    assert_eq!(s.end(1, 5, delivered()), []);
    assert_eq!(s.loads, [(1, 0)]);
    let first = s.scans.last().copied().flatten();
    assert_eq!(first, Some((session(1), 0)), "1 to 3 go before 6");
    assert_eq!(s.give(full_page(1, 1..=2, 9)), [(1, 1, false)]);
}

#[test]
fn two_sessions_are_read_at_once_each_a_page_in_turn() {
    let mut s = Script::new();
    for n in 1..=3 {
        s.commit(vcs(n, [9]));
    }
    assert_eq!(s.loads, [(1, 0), (2, 0)]);
    s.give(full_page(1, 1..=2, 9));
    s.give(full_page(2, 1..=2, 9));
    assert_eq!(s.loads[2..], [(3, 0), (1, 2)]);
}

#[test]
fn no_page_of_a_session_is_read_for_little_room() {
    let mut s = Script::with(DeliveryConfig {
        events_in_memory: 20,
        ..DeliveryConfig::default()
    });
    s.commit(vcs(1, 1..=4));
    assert_eq!(s.commit(vcs(2, [9])), []);
    assert!(s.loads.is_empty(), "one more would have room");
    assert!(s.lanes.levels().behind, "it is found when there is more");
    assert_eq!(s.end(1, 1, delivered()), [(1, 2, false)]);
    assert_eq!(s.scans, [None]);
    let rows = stored(vcs(2, [9]), DeliveryState::Pending);
    assert_eq!(s.give(Input::Scanned(rows.into())), [(2, 9, false)]);
    assert_eq!(s.commit(vcs(2, [10])), []);
    assert_eq!(s.end(2, 9, delivered()), [(2, 10, false)]);
}
