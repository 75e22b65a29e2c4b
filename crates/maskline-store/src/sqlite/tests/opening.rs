//! Opening a database: keys, locks, versions, modes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{batch, directory, entry, ephemeral, events_of, id, open, options, try_open};
use crate::secrets::MasterKey;
use crate::sqlite::{NotSqliteUrl, SqliteLocation, SqliteStore};
use crate::store::{Store, StoreError};

#[test]
fn a_store_url_is_sqlite_and_a_path_or_memory() {
    assert_eq!(
        SqliteLocation::parse("sqlite:maskline.db"),
        Ok(SqliteLocation::File("maskline.db".into()))
    );
    assert_eq!(
        SqliteLocation::parse("sqlite::memory:"),
        Ok(SqliteLocation::Ephemeral)
    );
    for url in ["", "sqlite:", "maskline.db", "postgres://x"] {
        assert_eq!(SqliteLocation::parse(url), Err(NotSqliteUrl), "{url}");
    }
}

#[test]
fn a_second_opener_is_told_that_another_process_has_the_database() {
    let (_directory, path) = directory();
    let first = open(&path);
    let Err(error) = try_open(&path) else {
        panic!("the second open went through");
    };
    assert!(error.to_string().contains("another process has it open"));
    // By another name too.
    let link = path.with_file_name("other.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let key = MasterKey::from_file_beside(&path).unwrap();
    let by_link = SqliteStore::open(&SqliteLocation::File(link), &key, options());
    assert!(matches!(by_link, Err(StoreError::Unavailable { .. })));
    drop(first);
    open(&path);
}

#[test]
fn another_master_key_is_found_out_at_once() {
    let (_directory, path) = directory();
    drop(open(&path));
    let location = SqliteLocation::File(path);
    let result = SqliteStore::open(&location, &MasterKey::random().unwrap(), options());
    assert!(matches!(result, Err(StoreError::Secret)));
}

#[test]
fn a_schema_of_a_later_version_is_refused_and_left_alone() {
    let (_directory, path) = directory();
    drop(open(&path));
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute("UPDATE schema_version SET version = 9", [])
        .unwrap();
    drop(connection);
    assert!(matches!(
        try_open(&path),
        Err(StoreError::TooNew {
            found: 9,
            known: 3,
            ..
        })
    ));
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let (_directory, path) = directory();
    MasterKey::from_file_beside(&path).unwrap();
    let text = "this is not a database, and longer than its header would be".repeat(20);
    fs::write(&path, &text).unwrap();
    assert!(matches!(
        try_open(&path),
        Err(StoreError::Unavailable { .. })
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_directory_that_does_not_exist_is_named() {
    let (_directory, path) = directory();
    let path = path.with_file_name("missing").join("maskline.db");
    let key = MasterKey::random().unwrap();
    let Err(error) = SqliteStore::open(&SqliteLocation::File(path), &key, options()) else {
        panic!("opened");
    };
    assert!(error.to_string().contains("missing/maskline.db"));
}

#[tokio::test]
async fn every_file_of_the_database_is_its_owners_alone() {
    let (directory, path) = directory();
    let store = open(&path);
    store.commit(batch(vec![entry(1, 1..=1)])).await.unwrap();
    for name in ["maskline.db", "maskline.db-wal", "maskline.db.key"] {
        let file = directory.path().join(name);
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[tokio::test]
async fn the_node_keeps_its_id_and_counts_its_starts() {
    let (_directory, path) = directory();
    let first = open(&path).begin_epoch().await.unwrap();
    assert_eq!(first.boot_epoch, 1);
    let second = open(&path).begin_epoch().await.unwrap();
    assert_eq!((second.node_id, second.boot_epoch), (first.node_id, 2));
}

#[tokio::test]
async fn an_ephemeral_store_works_and_leaves_no_file() {
    let store = ephemeral();
    store.ping().await.unwrap();
    store.commit(batch(vec![entry(1, 1..=2)])).await.unwrap();
    assert_eq!(events_of(&store, id(0, 1)).await.len(), 2);
    let directory = store._ephemeral.as_ref().unwrap().path().to_owned();
    assert!(directory.exists());
    drop(store);
    assert!(!directory.exists());
}
