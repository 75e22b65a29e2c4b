//! Keys that are derived and not kept: those of `v1a` signatures, and those of tokens.

use std::path::Path;

use maskline_events::signing::PublicKey;
use maskline_events::{Msisdn, Redaction, WebhookType};

use super::{at, directory, disable, ephemeral, open};
use crate::model::{Endpoint, NewSubAccount, NewWebhook};
use crate::settings::{EndpointConfig, EndpointSettings, Signatures, WebhookSettings};
use crate::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

const VCS: WebhookType = WebhookType::Vcs;
const VSS: WebhookType = WebhookType::Vss;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

async fn with_webhooks(store: &SqliteStore) {
    for owner in ["acme", "other"] {
        let new = NewSubAccount {
            sub_account_id: owner.to_owned(),
            countries: vec![],
        };
        store.create_sub_account(new, at(0)).await.unwrap();
        for webhook_type in [VCS, VSS] {
            let new = NewWebhook {
                sub_account_id: owner.to_owned(),
                webhook_type,
                url: "https://receiver.example".to_owned(),
                http_auth_header: None,
                enabled: true,
            };
            store.set_webhook(new, at(0)).await.unwrap();
        }
    }
}

async fn set(store: &SqliteStore, owner: &str, kind: WebhookType, settings: EndpointSettings) {
    let read = store.settings(owner, kind).await.unwrap();
    let config = EndpointConfig {
        settings,
        ..read.config.clone()
    };
    let changed = store.replace_settings(owner, kind, read, config, at(0));
    assert!(changed.await.unwrap().is_some());
}

fn signed(signatures: Signatures) -> EndpointSettings {
    EndpointSettings {
        signatures: Some(signatures),
        ..EndpointSettings::default()
    }
}

fn redacted(redaction: Redaction) -> EndpointSettings {
    EndpointSettings {
        redaction: Some(redaction),
        ..EndpointSettings::default()
    }
}

async fn endpoint(store: &SqliteStore, at_ms: i64) -> Endpoint {
    let found = store.endpoint("acme", VCS, at(at_ms)).await.unwrap();
    found.unwrap()
}

fn public(endpoint: &Endpoint) -> Vec<PublicKey> {
    let keys = endpoint.signing_keys.iter();
    keys.map(maskline_events::signing::SigningKey::public_key)
        .collect()
}

async fn shown(store: &SqliteStore, owner: &str, kind: WebhookType) -> PublicKey {
    store.settings(owner, kind).await.unwrap().public_key
}

#[tokio::test]
async fn an_endpoint_has_the_keys_of_the_versions_that_it_wants_and_v1_alone_at_first() {
    let store = ephemeral();
    with_webhooks(&store).await;
    let first = endpoint(&store, 0).await;
    assert_eq!(
        (first.signing_secrets.len(), first.signing_keys.len()),
        (1, 0)
    );
    for (signatures, secrets, keys) in [
        (Signatures::Both, 1, 1),
        (Signatures::V1a, 0, 1),
        (Signatures::V1, 1, 0),
    ] {
        set(&store, "acme", VCS, signed(signatures)).await;
        let now = endpoint(&store, 0).await;
        let found = (now.signing_secrets.len(), now.signing_keys.len());
        assert_eq!(found, (secrets, keys), "{signatures:?}");
    }
}

#[tokio::test]
async fn a_private_key_is_the_same_after_a_restart_and_each_webhook_has_its_own() {
    let (_directory, path) = directory();
    let store = open(&path);
    with_webhooks(&store).await;
    set(&store, "acme", VCS, signed(Signatures::V1a)).await;
    let key = shown(&store, "acme", VCS).await;
    assert_eq!(public(&endpoint(&store, 0).await), [key]);
    for (owner, kind) in [("acme", VSS), ("other", VCS)] {
        assert_ne!(shown(&store, owner, kind).await, key);
    }
    drop(store);
    let store = open(&path);
    assert_eq!(public(&endpoint(&store, 0).await), [key]);
    assert_eq!(shown(&store, "acme", VCS).await, key);
}

#[tokio::test]
async fn a_rotation_makes_both_anew_and_the_old_ones_sign_too_for_a_day() {
    let store = ephemeral();
    with_webhooks(&store).await;
    set(&store, "acme", VCS, signed(Signatures::Both)).await;
    let before = endpoint(&store, 0).await;
    store.rotate_secret("acme", VCS, at(0)).await.unwrap();
    let key = shown(&store, "acme", VCS).await;
    let during = endpoint(&store, DAY_MS - 1).await;
    assert_eq!(public(&during), [key, public(&before)[0]]);
    assert_eq!(during.signing_secrets[1], before.signing_secrets[0]);
    assert_ne!(key, public(&before)[0]);
    let after = endpoint(&store, DAY_MS).await;
    assert_eq!(public(&after), [key]);
    assert_eq!(after.signing_secrets.len(), 1);
}

/// What each webhook of the owner shows of a number.
async fn tokens(store: &SqliteStore, owner: &str) -> Vec<(WebhookType, String)> {
    let number = Msisdn::parse("+6591234567").unwrap();
    let hidings = store.hidings(owner).await.unwrap().into_iter();
    hidings
        .map(|(kind, hiding)| (kind, hiding.number(&number)))
        .collect()
}

#[tokio::test]
async fn tokens_are_the_same_for_all_webhooks_of_a_sub_account_and_after_a_restart() {
    let (_directory, path) = directory();
    let store = open(&path);
    with_webhooks(&store).await;
    assert!(tokens(&store, "acme").await.is_empty());
    assert!(endpoint(&store, 0).await.hiding.is_none());
    for (owner, kind) in [("acme", VCS), ("acme", VSS), ("other", VCS)] {
        set(&store, owner, kind, redacted(Redaction::Token)).await;
    }
    let acme = tokens(&store, "acme").await;
    assert_eq!(acme[0].1, acme[1].1);
    assert!(acme[0].1.starts_with("tok_"));
    assert_ne!(tokens(&store, "other").await[0].1, acme[0].1);
    let number = Msisdn::parse("+6591234567").unwrap();
    let sent = endpoint(&store, 0).await.hiding.unwrap().number(&number);
    assert_eq!(sent, acme[0].1, "what is sent is what is shown");
    store.rotate_secret("acme", VCS, at(0)).await.unwrap();
    drop(store);
    let store = open(&path);
    assert_eq!(tokens(&store, "acme").await, acme);
    // Also while a webhook is off.
    disable(&store, VCS).await;
    assert_eq!(tokens(&store, "acme").await, acme);
    set(&store, "acme", VCS, redacted(Redaction::Full)).await;
    set(&store, "acme", VSS, redacted(Redaction::Masked)).await;
    assert_eq!(
        tokens(&store, "acme").await,
        [(VSS, "+65••••4567".to_owned())]
    );
}

fn damage(path: &Path, settings: &str) {
    rusqlite::Connection::open(path)
        .unwrap()
        .execute("UPDATE webhooks SET settings = ?1", [settings])
        .unwrap();
}

#[tokio::test]
async fn settings_that_can_t_be_read_show_no_number() {
    let (_directory, path) = directory();
    let store = open(&path);
    with_webhooks(&store).await;
    damage(&path, "{\"redaction\":\"later\"}");
    let error = store.hidings("acme").await.err().unwrap();
    assert!(matches!(error, StoreError::BrokenRow { .. }), "{error}");
    let error = store.endpoint("acme", VCS, at(0)).await.err().unwrap();
    assert!(matches!(error, StoreError::BrokenRow { .. }), "{error}");
}
