//! A database that may not grow: a real SQLITE_FULL, made by `max_page_count`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{batch, directory, entry, events_of, id, open, until};
use crate::journal::{CommittedEvents, Journal, JournalOptions, JournalReport, Submission};
use crate::model::EventRow;
use crate::secrets::MasterKey;
use crate::sqlite::reserve::Reserve;
use crate::sqlite::{SqliteLocation, SqliteOptions, SqliteStore};
use crate::store::{Store, StoreError};

/// Lets the database have so many pages more than it has.
async fn allow_pages(store: &SqliteStore, more: u32) {
    let used: u32 = store
        .writer
        .run(|connection| Ok(connection.pragma_query_value(None, "page_count", |row| row.get(0))?))
        .await
        .unwrap();
    store
        .writer
        .run(move |connection| {
            Ok(connection
                .pragma_update_and_check(None, "max_page_count", used + more, |_| Ok(()))?)
        })
        .await
        .unwrap();
}

fn large(session: u64, ordinal: u64) -> crate::model::JournalEntry {
    let mut entry = entry(session, ordinal..=ordinal);
    entry.events[0].body = format!("\"{}\"", "x".repeat(20_000));
    entry
}

#[tokio::test]
async fn a_full_database_says_so_keeps_what_it_has_and_goes_on_when_there_is_space() {
    let (_directory, path) = directory();
    let store = open(&path);
    store.commit(batch(vec![entry(1, 1..=1)])).await.unwrap();
    allow_pages(&store, 2).await;
    let error = store.commit(batch(vec![large(2, 1)])).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.is_passing());
    assert!(error.to_string().contains("maskline.db"));
    assert!(events_of(&store, id(0, 2)).await.is_empty());
    assert_eq!(events_of(&store, id(0, 1)).await.len(), 1);
    allow_pages(&store, 10_000).await;
    store.commit(batch(vec![large(2, 1)])).await.unwrap();
    assert_eq!(events_of(&store, id(0, 2)).await.len(), 1);
}

struct Collected(Mutex<Vec<EventRow>>);

impl CommittedEvents for Collected {
    fn committed(&self, events: Vec<EventRow>) {
        self.0.lock().unwrap().extend(events);
    }
}

#[tokio::test]
async fn a_full_disk_brings_the_journal_down_and_space_brings_it_up_with_nothing_lost() {
    let (_directory, path) = directory();
    let store = Arc::new(open(&path));
    allow_pages(&store, 60).await;
    let (reports, mut told) = mpsc::channel(4);
    let sink = Arc::new(Collected(Mutex::default()));
    let journal = Journal::start(
        Arc::clone(&store) as Arc<dyn Store>,
        vec![reports],
        Arc::clone(&sink) as Arc<dyn CommittedEvents>,
        JournalOptions {
            first_retry: Duration::from_millis(5),
            longest_retry: Duration::from_millis(20),
            ..JournalOptions::default()
        },
    );
    for ordinal in 1..=40 {
        let submission = Submission {
            shard: 0,
            commit_id: ordinal,
            entry: large(1, ordinal),
        };
        journal.submit(submission).unwrap();
        tokio::task::yield_now().await;
    }
    let mut committed = Vec::new();
    let mut next = async || tokio::time::timeout(Duration::from_secs(20), told.recv()).await;
    loop {
        match next().await.unwrap().unwrap() {
            JournalReport::Committed { commit_ids, .. } => committed.extend(commit_ids),
            JournalReport::Down => break,
            other => panic!("{other:?}"),
        }
    }
    // What was acknowledged before is there, the rest is neither there nor let out.
    let there = events_of(&store, id(0, 1)).await.len();
    assert!(there < 40 && committed.len() <= there);
    assert_eq!(journal.flush(Duration::from_millis(50)).await, 40 - there);

    allow_pages(&store, 10_000).await;
    let mut up = false;
    while committed.len() < 40 || !up {
        match next().await.unwrap().unwrap() {
            JournalReport::Committed { commit_ids, .. } => committed.extend(commit_ids),
            JournalReport::Up => up = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(committed, (1..=40).collect::<Vec<_>>());
    let let_out = sink.0.lock().unwrap().clone();
    let ordinals: Vec<_> = let_out.iter().map(|event| event.ordinal).collect();
    assert_eq!(ordinals, (1..=40).collect::<Vec<_>>());
    assert_eq!(journal.flush(Duration::ZERO).await, 0);
    assert_eq!(journal.counters().down.load(Ordering::Relaxed), 0);
    assert_eq!(events_of(&store, id(0, 1)).await.len(), 40);
}

#[tokio::test]
async fn a_store_that_used_its_reserve_is_low_on_space_until_the_reserve_is_back() {
    let (_directory, path) = directory();
    let location = SqliteLocation::File(path.clone());
    let key = MasterKey::random().unwrap();
    let options = SqliteOptions {
        reserve_bytes: 1 << 20,
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(&location, &key, options).unwrap();
    let reserve = path.with_file_name("maskline.db.reserve");
    assert_eq!(std::fs::metadata(&reserve).unwrap().len(), 1 << 20);
    assert!(!store.low_on_space());

    allow_pages(&store, 1).await;
    store.commit(batch(vec![large(1, 1)])).await.unwrap_err();
    assert!(store.low_on_space());
    assert!(!reserve.exists());
    allow_pages(&store, 10_000).await;
    store.commit(batch(vec![large(1, 1)])).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.low_on_space() {
        assert!(std::time::Instant::now() < deadline);
        store.commit(batch(vec![])).await.unwrap();
    }
    assert_eq!(std::fs::metadata(&reserve).unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn a_reserve_takes_real_blocks_and_gives_them_back() {
    use std::os::unix::fs::MetadataExt;
    let (directory, path) = directory();
    let low = Arc::new(AtomicBool::new(false));
    let mut reserve = Reserve::beside(&path, 300_000, Arc::clone(&low));
    let file = directory.path().join("maskline.db.reserve");
    let found = std::fs::metadata(&file).unwrap();
    assert_eq!(found.len(), 300_000);
    assert!(found.blocks() * 512 >= 300_000);
    assert!(reserve.release());
    assert!(low.load(Ordering::Acquire) && !file.exists());
    assert!(!reserve.release());
    until("the reserve is back", || {
        reserve.restore();
        !low.load(Ordering::Acquire)
    })
    .await;
    assert!(file.exists());
    // Switched off, an old file is given back.
    Reserve::beside(&path, 0, low);
    assert!(!file.exists());
}
