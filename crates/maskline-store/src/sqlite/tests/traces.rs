//! The trace file: what is written is read back, found by number, and forgotten in small steps.

use std::os::unix::fs::PermissionsExt;

use maskline_events::Timestamp;
use uuid::Uuid;

use crate::sqlite::traces::{TraceBatch, TraceFile, TraceFilter, TraceHead, TraceRetention};
use crate::{SqliteLocation, StoreError};

fn batch(session: u128, at: i64, size: usize) -> TraceBatch {
    TraceBatch {
        session_id: Uuid::from_u128(session),
        at: Timestamp::from_unix_ms(at),
        entries: vec![u8::try_from(session % 250).unwrap(); size],
        known: TraceHead::default(),
    }
}

fn list(file: &TraceFile, number: Option<&str>) -> Vec<u128> {
    let filter = TraceFilter {
        limit: 10,
        number: number.map(str::to_owned),
    };
    let sessions = file.sessions(&filter).unwrap();
    sessions.iter().map(|it| it.session_id.as_u128()).collect()
}

#[test]
fn a_session_is_gathered_from_its_batches_and_found_by_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("maskline.db");
    let location = SqliteLocation::File(database.clone());
    let path = folder.path().join("maskline-trace.db");
    {
        let file = TraceFile::open(&location, 3).unwrap();
        let mut first = batch(1, 1_000, 10);
        first.known.caller = Some("+6591234567".to_owned());
        file.append(&[first, batch(2, 1_500, 5)]).unwrap();
    }
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let file = TraceFile::open(&location, 4).unwrap();
    let mut last = batch(1, 2_000, 7);
    last.known.callee = Some("+6581111111".to_owned());
    last.known.status = Some("COMPLETED".to_owned());
    last.known.ended = Some(Timestamp::from_unix_ms(2_100));
    file.append(&[last]).unwrap();

    let reader = TraceFile::open_to_read(&database).unwrap();
    let entries = reader.entries(Uuid::from_u128(1)).unwrap();
    let runs: Vec<_> = entries.iter().map(|(run, it)| (*run, it.len())).collect();
    assert_eq!(runs, [(3, 10), (4, 7)]);
    assert_eq!(list(&reader, None), [2, 1]);
    assert_eq!(list(&reader, Some("+6591234567")), [1]);
    assert_eq!(list(&reader, Some("+6581111111")), [1]);
    assert_eq!(list(&reader, Some("+6581111112")), []);
    let filter = TraceFilter {
        limit: 10,
        number: Some("+6581111111".to_owned()),
    };
    let found = reader.sessions(&filter).unwrap().remove(0);
    assert_eq!(found.started.unix_ms(), 1_000);
    assert_eq!(found.head.status.as_deref(), Some("COMPLETED"));
    assert!(matches!(
        reader.append(&[batch(3, 1, 1)]),
        Err(StoreError::Unavailable { .. })
    ));
}

#[test]
fn what_is_too_old_or_too_much_goes_in_small_steps_oldest_first() {
    let file = TraceFile::open(&SqliteLocation::Ephemeral, 1).unwrap();
    let batches: Vec<_> = (0..1_200_i64)
        .map(|n| batch(u128::try_from(n).unwrap(), n, 2_000))
        .collect();
    file.append(&batches).unwrap();
    let keep = |before, max_bytes| TraceRetention {
        before: Timestamp::from_unix_ms(before),
        max_bytes,
    };
    assert!(!file.clean(keep(0, u64::MAX)).unwrap());
    // By age: 600 in two steps.
    assert!(file.clean(keep(600, u64::MAX)).unwrap());
    assert!(!file.clean(keep(600, u64::MAX)).unwrap());
    assert!(file.entries(Uuid::from_u128(599)).unwrap().is_empty());
    assert_eq!(file.entries(Uuid::from_u128(600)).unwrap().len(), 1);
    // By size: 600 are left, about 1.3 MB.
    assert!(file.clean(keep(0, 500_000)).unwrap());
    assert!(file.entries(Uuid::from_u128(1_099)).unwrap().is_empty());
    assert!(!file.clean(keep(0, 500_000)).unwrap());
    assert_eq!(list(&file, None).len(), 10);
    let all = TraceFilter {
        limit: 5_000,
        number: None,
    };
    assert!(file.sessions(&all).unwrap().len() <= 700);
}

#[test]
fn a_file_that_is_no_database_or_of_a_newer_version_is_an_error_and_not_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let location = SqliteLocation::File(folder.path().join("maskline.db"));
    let path = folder.path().join("maskline-trace.db");
    std::fs::write(&path, vec![7; 10_000]).unwrap();
    assert!(TraceFile::open(&location, 1).is_err());
    std::fs::remove_file(&path).unwrap();
    drop(TraceFile::open(&location, 1).unwrap());
    rusqlite::Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 9)
        .unwrap();
    assert!(matches!(
        TraceFile::open(&location, 1),
        Err(StoreError::TooNew { found: 9, .. })
    ));
    assert!(TraceFile::open_to_read(&folder.path().join("other.db")).is_err());
}
