//! Databases of earlier versions, `tests/fixtures`: opened, migrated, and read whole.

use std::path::Path;

use maskline_events::{EarlyMedia, Msisdn, Timestamp, WebhookType};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::{directory, events_of, options, pending_events};
use crate::model::{ApiKeyScope, DeliveryState, NewNumber, Outcome};
use crate::sqlite::schema::known;
use crate::sqlite::{SqliteLocation, SqliteStore};
use crate::store::Store;

/// 32 bytes of 0x07.
const MASTER_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// Each released schema, its database as SQL text, and the API key of acme.
const RELEASED: [(u32, &str, &str); 2] = [
    (
        1,
        include_str!("../../../tests/fixtures/v1.sql"),
        "mk_ra60yr49cPnPBClWvsYeDOp3b2-YFfF5RzCUqdD71aA",
    ),
    (
        2,
        include_str!("../../../tests/fixtures/v2.sql"),
        "mk_bXVm43jcvwRkKMqzc06zPJH4rtThWhK4YZdkPnsNze4",
    ),
];

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
    let unsettled = pending_events(store).await;
    assert_eq!(unsettled.len(), 1);
    let (event, outcome) = &unsettled[0];
    assert_eq!((event.session_id, event.ordinal), (open[0].session_id, 1));
    assert!(event.body.contains("CALL_RECEIVED"));
    assert_eq!(outcome.state, DeliveryState::Pending);
}

/// Each state of a delivery, as the first two schemas hold it: a row of an event.
#[tokio::test]
async fn each_delivery_stands_after_the_migration_as_it_stood_before() {
    for (_, sql, _) in RELEASED {
        let (_directory, path) = directory();
        let old = Connection::open(&path).unwrap();
        old.execute_batch(sql).unwrap();
        let stood = [
            (DeliveryState::Pending, 0, 0, None, None, None),
            (
                DeliveryState::Pending,
                0,
                2,
                Some(90),
                Some(503),
                Some("busy"),
            ),
            (DeliveryState::Parked, 1, 4, Some(91), None, Some("silent")),
            (DeliveryState::Delivered, 2, 1, None, Some(204), None),
            (DeliveryState::Dead, 3, 11, None, Some(500), Some("broken")),
            (DeliveryState::NoEndpoint, 4, 0, None, None, None),
        ];
        let session = Uuid::from_u128(7);
        for (ordinal, (state, code, attempts, next, status, error)) in (1_u32..).zip(stood) {
            old.execute(
                "INSERT INTO events VALUES \
                 (?1, ?2, 'acme', ?3, 'VCS', 5, 'body', ?4, ?5, ?6, ?7, ?8, 6, ?9)",
                params![
                    Uuid::from_u128(u128::from(ordinal)).to_string(),
                    session.to_string(),
                    ordinal,
                    code,
                    attempts,
                    next,
                    status,
                    error,
                    state.is_final().then_some(6),
                ],
            )
            .unwrap();
        }
        drop(old);
        let store = open(&path);
        let found = events_of(&store, session).await;
        assert_eq!(found.len(), stood.len());
        for ((event, outcome), (state, _, attempts, next, status, error)) in found.iter().zip(stood)
        {
            assert_eq!(event.body, "body");
            let expected = Outcome {
                event_id: event.event_id,
                state,
                attempts,
                next_attempt_at: next.map(Timestamp::from_unix_ms),
                status,
                error: error.map(str::to_owned),
                at: outcome.at,
            };
            assert_eq!(*outcome, expected);
        }
        let unsettled = pending_events(&store).await;
        let ordinals = unsettled.iter().filter(|(it, _)| it.session_id == session);
        let ordinals: Vec<_> = ordinals.map(|(it, _)| it.ordinal).collect();
        assert_eq!(ordinals, [1, 2, 3]);
    }
}
