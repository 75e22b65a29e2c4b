//! The journal over a real database whose commits can be made to fail.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::panic,
    clippy::unreachable
)]

mod faulty;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maskline_events::{Timestamp, WebhookType};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;
use crate::journal::tail::size;
use faulty::FaultyStore;

#[derive(Default)]
struct Collected(Mutex<Vec<EventRow>>);

impl CommittedEvents for Collected {
    fn committed(&self, events: Vec<EventRow>) {
        self.0.lock().unwrap().extend(events);
    }
}

impl Collected {
    /// The ordinals that were let out, by session, in their order.
    fn by_session(&self) -> BTreeMap<Uuid, Vec<u64>> {
        let mut sessions: BTreeMap<Uuid, Vec<u64>> = BTreeMap::new();
        for event in self.0.lock().unwrap().iter() {
            sessions
                .entry(event.session_id)
                .or_default()
                .push(event.ordinal);
        }
        sessions
    }
}

struct Bench {
    store: Arc<FaultyStore>,
    sink: Arc<Collected>,
    journal: Journal,
    told: Vec<mpsc::Receiver<JournalReport>>,
}

fn quick() -> JournalOptions {
    JournalOptions {
        first_retry: Duration::from_millis(2),
        longest_retry: Duration::from_millis(20),
        stall: Duration::from_secs(10),
        ..JournalOptions::default()
    }
}

fn bench(shards: usize, options: JournalOptions) -> Bench {
    let store = Arc::new(FaultyStore::new());
    let sink = Arc::new(Collected::default());
    let (channels, told) = (0..shards).map(|_| mpsc::channel(2)).unzip();
    let journal = Journal::start(
        Arc::clone(&store) as Arc<dyn Store>,
        channels,
        Arc::clone(&sink) as Arc<dyn CommittedEvents>,
        options,
    );
    Bench {
        store,
        sink,
        journal,
        told,
    }
}

fn submission(shard: u16, session: u64, ordinal: u64) -> Submission {
    let session_id = Uuid::from_u64_pair(0, session);
    Submission {
        shard,
        commit_id: ordinal,
        entry: JournalEntry {
            session_id,
            sub_account_id: "acme".to_owned(),
            snapshot: Some(vec![7; 10]),
            events: vec![EventRow {
                event_id: Uuid::from_u64_pair(session, ordinal),
                session_id,
                sub_account_id: "acme".to_owned(),
                ordinal,
                webhook_type: WebhookType::Vcs,
                at: Timestamp::from_unix_ms(1),
                body: "{}".to_owned(),
            }],
        },
    }
}

async fn next(told: &mut mpsc::Receiver<JournalReport>) -> JournalReport {
    tokio::time::timeout(Duration::from_secs(20), told.recv())
        .await
        .unwrap()
        .unwrap()
}

/// Reads reports until so many submissions were told about; returns committed and rejected ones.
async fn finished(told: &mut mpsc::Receiver<JournalReport>, count: usize) -> (Vec<u64>, Vec<u64>) {
    let (mut committed, mut rejected) = (Vec::new(), Vec::new());
    while committed.len() + rejected.len() < count {
        match next(told).await {
            JournalReport::Committed { commit_ids, .. } => committed.extend(commit_ids),
            JournalReport::Rejected { commit_ids, .. } => rejected.extend(commit_ids),
            JournalReport::Down | JournalReport::Up => {}
        }
    }
    (committed, rejected)
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test]
async fn what_is_submitted_together_is_committed_together_and_let_out_in_order() {
    let mut bench = bench(2, quick());
    for ordinal in 1..=50 {
        bench.journal.submit(submission(0, 1, ordinal)).unwrap();
        bench.journal.submit(submission(1, 2, ordinal)).unwrap();
    }
    for told in &mut bench.told {
        let (committed, rejected) = finished(told, 50).await;
        assert_eq!(committed, (1..=50).collect::<Vec<_>>());
        assert!(rejected.is_empty());
    }
    assert_eq!(bench.journal.flush(Duration::from_secs(5)).await, 0);
    for ordinals in bench.sink.by_session().values() {
        assert_eq!(*ordinals, (1..=50).collect::<Vec<_>>());
    }
    let counters = bench.journal.counters();
    assert_eq!(
        (count(&counters.entries), count(&counters.events)),
        (100, 100)
    );
    assert_eq!(count(&counters.commits), 1);
    assert_eq!(count(&counters.group_sizes[7]), 1);
    assert_eq!(count(&counters.tail_entries), 0);
    assert_eq!(count(&counters.tail_bytes), 0);
}

#[tokio::test]
async fn a_failing_store_is_told_to_every_shard_and_what_was_submitted_is_kept_in_order() {
    let mut bench = bench(2, quick());
    bench.store.fail_next(5);
    for ordinal in 1..=3 {
        bench.journal.submit(submission(0, 1, ordinal)).unwrap();
    }
    for told in &mut bench.told {
        assert_eq!(next(told).await, JournalReport::Down);
    }
    assert!(bench.sink.by_session().is_empty());
    bench.journal.submit(submission(0, 1, 4)).unwrap();
    let (committed, _) = finished(&mut bench.told[0], 4).await;
    assert_eq!(committed, [1, 2, 3, 4]);
    assert_eq!(next(&mut bench.told[1]).await, JournalReport::Up);
    assert_eq!(
        bench.sink.by_session().into_values().collect::<Vec<_>>(),
        [[1, 2, 3, 4]]
    );
    assert_eq!(count(&bench.journal.counters().failures), 5);
    assert_eq!(count(&bench.journal.counters().down), 0);
}

#[tokio::test]
async fn a_commit_whose_outcome_is_unknown_is_repeated_and_is_there_once() {
    let mut bench = bench(1, quick());
    bench.store.fail_next_after_writing(1);
    bench.journal.submit(submission(0, 1, 1)).unwrap();
    let (committed, _) = finished(&mut bench.told[0], 1).await;
    assert_eq!(committed, [1]);
    let session_id = Uuid::from_u64_pair(0, 1);
    let events = bench.store.inner.session(session_id).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(bench.sink.0.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_entry_that_the_store_never_takes_is_dropped_alone_and_reported() {
    for poison in [1_u64, 2, 77, 100] {
        let mut bench = bench(1, quick());
        for ordinal in 1..=100 {
            // One event a session; the poisoned one takes an ordinal twice.
            let mut submission = submission(0, ordinal, ordinal);
            if ordinal == poison {
                let mut again = submission.entry.events[0].clone();
                again.event_id = Uuid::from_u64_pair(ordinal, 1000);
                submission.entry.events.push(again);
            }
            bench.journal.submit(submission).unwrap();
        }
        let (committed, rejected) = finished(&mut bench.told[0], 100).await;
        assert_eq!(rejected, [poison]);
        let others: Vec<_> = (1..=100).filter(|ordinal| *ordinal != poison).collect();
        assert_eq!(committed, others);
        assert_eq!(bench.journal.flush(Duration::from_secs(5)).await, 0);
        assert_eq!(bench.sink.by_session().len(), 99);
        let counters = bench.journal.counters();
        assert_eq!(count(&counters.rejected), 1);
        assert_eq!(count(&counters.failures), 0);
        assert!(count(&counters.commits) <= 8, "halving: {counters:?}");
    }
}

#[tokio::test]
async fn a_full_tail_keeps_the_oldest_and_gives_the_newest_back() {
    let options = JournalOptions {
        tail_entries: 5,
        ..quick()
    };
    let mut bench = bench(2, options);
    bench.store.fail_next(usize::MAX);
    for ordinal in 1..=5 {
        bench.journal.submit(submission(0, 1, ordinal)).unwrap();
    }
    let refused = bench.journal.submit(submission(1, 2, 9)).unwrap_err();
    assert_eq!(refused.why, Refusal::TailFull);
    assert_eq!(refused.submission, submission(1, 2, 9));
    assert_eq!(count(&bench.journal.counters().refused), 1);
    assert_eq!(count(&bench.journal.counters().tail_entries), 5);
    assert_eq!(bench.journal.flush(Duration::from_millis(50)).await, 5);

    bench.store.fail_next(0);
    let (committed, _) = finished(&mut bench.told[0], 5).await;
    assert_eq!(committed, [1, 2, 3, 4, 5]);
    assert_eq!(bench.journal.flush(Duration::from_secs(5)).await, 0);
    bench.journal.submit(refused.submission).unwrap();
    let (committed, _) = finished(&mut bench.told[1], 1).await;
    assert_eq!(committed, [9]);
}

#[tokio::test]
async fn the_tail_is_bounded_in_bytes_too() {
    let options = JournalOptions {
        tail_bytes: 2 * size(&submission(0, 1, 1)),
        ..quick()
    };
    let bench = bench(1, options);
    bench.store.fail_next(usize::MAX);
    bench.journal.submit(submission(0, 1, 1)).unwrap();
    bench.journal.submit(submission(0, 1, 2)).unwrap();
    let refused = bench.journal.submit(submission(0, 1, 3)).unwrap_err();
    assert_eq!(refused.why, Refusal::TailFull);
    assert!(count(&bench.journal.counters().tail_bytes) > 0);
}

#[tokio::test]
async fn a_shard_that_takes_no_reports_stops_neither_the_others_nor_grows_without_bound() {
    let options = JournalOptions {
        tail_entries: 20,
        ..quick()
    };
    let mut bench = bench(2, options);
    // Shard 0 never reads: its channel holds 2 reports, its mailbox at most 20 numbers.
    let mut taken = 0;
    let refused = loop {
        match bench.journal.submit(submission(0, 1, taken + 1)) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
        assert_eq!(bench.journal.flush(Duration::from_secs(5)).await, 0);
        assert!(taken < 100, "no bound");
    };
    assert_eq!(refused.why, Refusal::TailFull);
    for ordinal in 1..=50 {
        bench.journal.submit(submission(1, 2, ordinal)).unwrap();
        let (committed, _) = finished(&mut bench.told[1], 1).await;
        assert_eq!(committed, [ordinal]);
    }
    // When it reads again, it is told everything, merged, and may submit again.
    let count = usize::try_from(taken).unwrap();
    let (committed, _) = finished(&mut bench.told[0], count).await;
    assert_eq!(committed, (1..=taken).collect::<Vec<_>>());
    bench.journal.submit(refused.submission).unwrap();
}

#[tokio::test]
async fn a_commit_that_hangs_brings_the_journal_down_until_it_ends() {
    let options = JournalOptions {
        stall: Duration::from_millis(20),
        ..quick()
    };
    let mut bench = bench(1, options);
    let hold = bench.store.hold().await;
    bench.journal.submit(submission(0, 1, 1)).unwrap();
    assert_eq!(next(&mut bench.told[0]).await, JournalReport::Down);
    drop(hold);
    let (committed, _) = finished(&mut bench.told[0], 1).await;
    assert_eq!(committed, [1]);
    bench.journal.submit(submission(0, 1, 2)).unwrap();
    finished(&mut bench.told[0], 1).await;
    assert_eq!(count(&bench.journal.counters().down), 0);
}

#[tokio::test]
async fn a_store_on_its_reserve_goes_on_writing_and_is_down_for_new_calls_until_it_recovers() {
    let mut bench = bench(1, quick());
    bench.store.low.store(true, Ordering::Relaxed);
    bench.journal.submit(submission(0, 1, 1)).unwrap();
    let (mut down, mut committed) = (false, false);
    while !(down && committed) {
        match next(&mut bench.told[0]).await {
            JournalReport::Down => down = true,
            JournalReport::Committed { .. } => committed = true,
            other => panic!("{other:?}"),
        }
    }
    // Nobody submits: the journal looks by itself.
    bench.store.low.store(false, Ordering::Relaxed);
    assert_eq!(next(&mut bench.told[0]).await, JournalReport::Up);
}

#[tokio::test]
async fn a_journal_that_is_dropped_commits_what_it_has_and_ends_its_reports() {
    let mut bench = bench(1, quick());
    for ordinal in 1..=10 {
        bench.journal.submit(submission(0, 1, ordinal)).unwrap();
    }
    drop(bench.journal);
    let (committed, _) = finished(&mut bench.told[0], 10).await;
    assert_eq!(committed.len(), 10);
    assert_eq!(bench.told[0].recv().await, None);
}

#[tokio::test]
async fn an_unknown_shard_is_refused_with_its_submission() {
    let bench = bench(1, quick());
    let refused = bench.journal.submit(submission(1, 1, 1)).unwrap_err();
    assert_eq!(refused.why, Refusal::NoSuchShard);
    assert_eq!(refused.submission.shard, 1);
}
