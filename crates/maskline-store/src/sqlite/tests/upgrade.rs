//! Databases of earlier versions, `tests/fixtures`: opened, migrated, and read whole.

use std::path::Path;

use maskline_events::{EarlyMedia, Msisdn, Timestamp, WebhookType};
use rusqlite::Connection;

use super::{directory, options};
use crate::model::{ApiKeyScope, DeliveryState, NewNumber};
use crate::sqlite::schema::known;
use crate::sqlite::{SqliteLocation, SqliteStore};
use crate::store::Store;

/// 32 bytes of 0x07.
const MASTER_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// Each released schema, its database as SQL text, and the API key of acme.
const RELEASED: [(u32, &str, &str); 1] = [(
    1,
    include_str!("../../../tests/fixtures/v1.sql"),
    "mk_ra60yr49cPnPBClWvsYeDOp3b2-YFfF5RzCUqdD71aA",
)];

fn open(path: &Path) -> SqliteStore {
    let location = SqliteLocation::File(path.to_owned());
    let key = location.master_key(Some(MASTER_KEY)).unwrap();
    SqliteStore::open(&location, &key, options()).unwrap()
}

fn version(path: &Path) -> u32 {
    let connection = Connection::open(path).unwrap();
    connection
        .query_row("SELECT version FROM schema_version", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn there_is_a_database_of_each_version_before_this_one() {
    let versions: Vec<u32> = RELEASED.iter().map(|(version, ..)| *version).collect();
    assert_eq!(versions, (1..known()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_database_of_each_earlier_version_is_migrated_and_keeps_everything() {
    for (released, sql, api_key) in RELEASED {
        let (_directory, path) = directory();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        assert_eq!(version(&path), released);
        let store = open(&path);
        assert_eq!(version(&path), known());

        let accounts = store.sub_accounts().await.unwrap();
        assert_eq!(accounts.len(), 1);
        assert_eq!(accounts[0].sub_account_id, "acme");
        assert_eq!(accounts[0].countries, ["MY", "SG"]);
        let numbers = store.numbers(Some("acme")).await.unwrap();
        let told: Vec<_> = numbers
            .iter()
            .map(|it| (it.msisdn.as_str(), it.reference_id.as_str(), &it.trunk))
            .collect();
        let carrier = Some("carrier".to_owned());
        assert_eq!(
            told,
            [
                ("+6531580001", "desk", &carrier),
                ("+6531580002", "pool", &None)
            ]
        );
        assert!(
            numbers
                .iter()
                .all(|it| it.early_media == EarlyMedia::Ringback),
            "a number of before sounds as it did"
        );
        assert_eq!(
            store.authenticate(api_key).await.unwrap(),
            Some(ApiKeyScope::SubAccounts(vec!["acme".to_owned()]))
        );
        check_webhooks(&store, accounts[0].created).await;
        check_journal(&store).await;

        let new = NewNumber {
            msisdn: Msisdn::parse("+6531580003").unwrap(),
            sub_account_id: "acme".to_owned(),
            reference_id: "new".to_owned(),
            trunk: None,
            country_code: None,
            early_media: EarlyMedia::PassThrough,
        };
        let made = store.assign_number(new, accounts[0].created).await.unwrap();
        drop(store);
        let again = open(&path);
        let found = again.number("acme", &made.msisdn).await.unwrap();
        assert_eq!(found, Some(made));
        assert_eq!(again.begin_epoch().await.unwrap().boot_epoch, 2);
    }
}

async fn check_webhooks(store: &SqliteStore, made: Timestamp) {
    let webhooks = store.webhooks("acme").await.unwrap();
    assert_eq!(webhooks.len(), 3);
    // Sealed columns open; the secret of VCS was rotated.
    for (webhook_type, secrets) in [
        (WebhookType::Vca, 1),
        (WebhookType::Vcs, 2),
        (WebhookType::Vss, 1),
    ] {
        let endpoint = store.endpoint("acme", webhook_type, made).await.unwrap();
        let endpoint = endpoint.unwrap();
        assert_eq!(
            endpoint.http_auth_header.as_deref(),
            Some("Bearer fixture"),
            "{webhook_type:?}"
        );
        assert_eq!(endpoint.signing_secrets.len(), secrets, "{webhook_type:?}");
    }
}

/// The call that the crash cut off, and its event that nobody has acknowledged.
async fn check_journal(store: &SqliteStore) {
    let open = store.open_sessions(None, 10).await.unwrap();
    assert_eq!(open.len(), 1);
    let unsettled = store.unsettled(None, 10).await.unwrap();
    assert_eq!(unsettled.len(), 1);
    let (event, outcome) = &unsettled[0];
    assert_eq!((event.session_id, event.ordinal), (open[0].session_id, 1));
    assert!(event.body.contains("CALL_RECEIVED"));
    assert_eq!(outcome.state, DeliveryState::Pending);
}
