//! Sub-accounts, keys, numbers, webhooks.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maskline_events::{EarlyMedia, Msisdn, WebhookType};

use super::{at, directory, disable, ephemeral, open};
use crate::deliveries::Deliveries;
use crate::model::{
    ApiKeyScope, NewNumber, NewSubAccount, NewWebhook, NumberChange, SubAccount, SwitchedOff,
    Webhook,
};
use crate::settings::WebhookSettings as _;
use crate::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

async fn with_acme(store: &SqliteStore) {
    let acme = NewSubAccount {
        sub_account_id: "acme".to_owned(),
        countries: vec!["SG".to_owned(), "MY".to_owned()],
    };
    store.create_sub_account(acme, at(0)).await.unwrap();
}

fn vcs(auth: Option<&str>) -> NewWebhook {
    NewWebhook {
        sub_account_id: "acme".to_owned(),
        webhook_type: WebhookType::Vcs,
        url: "https://receiver.example/vcs".to_owned(),
        http_auth_header: auth.map(str::to_owned),
        enabled: true,
    }
}

fn secret_bytes(shown: &str) -> Vec<u8> {
    STANDARD
        .decode(shown.strip_prefix("whsec_").unwrap())
        .unwrap()
}

fn number(msisdn: &str) -> NewNumber {
    NewNumber {
        msisdn: Msisdn::parse(msisdn).unwrap(),
        sub_account_id: "acme".to_owned(),
        reference_id: "desk".to_owned(),
        trunk: Some("carrier".to_owned()),
        country_code: Some("SG".to_owned()),
        early_media: EarlyMedia::PassThrough,
    }
}

#[tokio::test]
async fn a_sub_account_is_made_once_and_listed_by_id() {
    let store = ephemeral();
    with_acme(&store).await;
    let again = NewSubAccount {
        sub_account_id: "acme".to_owned(),
        countries: vec![],
    };
    let error = store.create_sub_account(again, at(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "the sub-account exists already");
    let first = NewSubAccount {
        sub_account_id: "aaa".to_owned(),
        countries: vec![],
    };
    store.create_sub_account(first, at(2)).await.unwrap();
    let all = store.sub_accounts().await.unwrap();
    assert_eq!(all[0].sub_account_id, "aaa");
    assert_eq!(
        all[1],
        SubAccount {
            sub_account_id: "acme".to_owned(),
            countries: vec!["SG".to_owned(), "MY".to_owned()],
            created: at(0),
        }
    );
}

#[tokio::test]
async fn an_api_key_opens_its_sub_account_and_only_its_hash_is_on_disk() {
    let (directory, path) = directory();
    let store = open(&path);
    with_acme(&store).await;
    let key = store.create_api_key("acme", at(0)).await.unwrap();
    assert!(key.starts_with("mk_"));
    assert_eq!(
        store.authenticate(&key).await.unwrap(),
        Some(ApiKeyScope::SubAccounts(vec!["acme".to_owned()]))
    );
    for wrong in ["", "mk_", &key[..key.len() - 1], &"k".repeat(10_000)] {
        assert_eq!(store.authenticate(wrong).await.unwrap(), None);
    }
    assert!(matches!(
        store.create_api_key("nobody", at(0)).await,
        Err(StoreError::NotFound {
            what: "the sub-account"
        })
    ));
    drop(store);
    assert_not_on_disk(directory.path(), key.as_bytes());
}

#[tokio::test]
async fn the_admin_key_is_made_once() {
    let store = ephemeral();
    let key = store.ensure_admin_key(at(0)).await.unwrap().unwrap();
    assert!(key.starts_with("mka_"));
    assert_eq!(store.ensure_admin_key(at(1)).await.unwrap(), None);
    assert_eq!(
        store.authenticate(&key).await.unwrap(),
        Some(ApiKeyScope::Admin)
    );
}

#[tokio::test]
async fn a_number_is_assigned_once_and_belongs_to_one_sub_account() {
    let store = ephemeral();
    let orphan = store.assign_number(number("+6568330330"), at(0)).await;
    assert!(matches!(
        orphan,
        Err(StoreError::NotFound {
            what: "the sub-account"
        })
    ));
    with_acme(&store).await;
    let later = store
        .assign_number(number("+6568330331"), at(5))
        .await
        .unwrap();
    let first = store
        .assign_number(number("+6568330330"), at(0))
        .await
        .unwrap();
    let again = store.assign_number(number("+6568330330"), at(0)).await;
    assert!(matches!(
        again,
        Err(StoreError::Conflict { what: "the number" })
    ));

    let both = [first.clone(), later];
    assert_eq!(store.numbers(None).await.unwrap(), both);
    assert_eq!(store.numbers(Some("acme")).await.unwrap(), both);
    assert!(store.numbers(Some("other")).await.unwrap().is_empty());
    let found = store.number("acme", &first.msisdn).await.unwrap();
    assert_eq!(found.as_ref(), Some(&first));
    assert_eq!(store.number("other", &first.msisdn).await.unwrap(), None);
}

#[tokio::test]
async fn a_change_of_a_number_is_kept_and_leaves_what_it_does_not_name() {
    let (_directory, path) = directory();
    let store = open(&path);
    with_acme(&store).await;
    let mut expected = store
        .assign_number(number("+6568330330"), at(0))
        .await
        .unwrap();
    let other = store
        .assign_number(number("+6568330331"), at(0))
        .await
        .unwrap();
    let msisdn = expected.msisdn.clone();
    let no_trunk = NumberChange {
        trunk: Some(None),
        ..NumberChange::default()
    };
    expected.trunk = None;
    expected.updated = at(1);
    let changed = store.change_number("acme", &msisdn, no_trunk, at(1)).await;
    assert_eq!(changed.unwrap(), expected);
    let rest = NumberChange {
        reference_id: Some("shop".to_owned()),
        trunk: Some(Some("backup".to_owned())),
        early_media: Some(EarlyMedia::Ringback),
    };
    expected.reference_id = "shop".to_owned();
    expected.trunk = Some("backup".to_owned());
    expected.early_media = EarlyMedia::Ringback;
    expected.updated = at(2);
    let changed = store.change_number("acme", &msisdn, rest, at(2)).await;
    assert_eq!(changed.unwrap(), expected);
    let nothing = NumberChange::default();
    expected.updated = at(3);
    let changed = store.change_number("acme", &msisdn, nothing, at(3)).await;
    assert_eq!(changed.unwrap(), expected);
    drop(store);
    assert_eq!(
        open(&path).numbers(None).await.unwrap(),
        [expected, other],
        "on disk, and the other one as it was"
    );
}

#[tokio::test]
async fn a_number_of_another_sub_account_does_not_change() {
    let store = ephemeral();
    with_acme(&store).await;
    let assigned = store
        .assign_number(number("+6568330330"), at(0))
        .await
        .unwrap();
    for (id, msisdn) in [("other", "+6568330330"), ("acme", "+6568330331")] {
        let change = NumberChange {
            trunk: Some(None),
            ..NumberChange::default()
        };
        let msisdn = Msisdn::parse(msisdn).unwrap();
        assert!(matches!(
            store.change_number(id, &msisdn, change, at(1)).await,
            Err(StoreError::NotFound { what: "the number" })
        ));
    }
    assert_eq!(store.numbers(None).await.unwrap(), [assigned]);
}

#[tokio::test]
async fn a_webhook_is_replaced_by_the_next_of_its_type_and_keeps_its_secret() {
    let store = ephemeral();
    let orphan = store.set_webhook(vcs(None), at(0)).await;
    assert!(matches!(
        orphan,
        Err(StoreError::NotFound {
            what: "the sub-account"
        })
    ));
    with_acme(&store).await;
    let shown = store
        .set_webhook(vcs(Some("Bearer x")), at(0))
        .await
        .unwrap();
    let secret = secret_bytes(&shown.unwrap());
    assert_eq!(secret.len(), 32);
    let endpoint = store
        .endpoint("acme", WebhookType::Vcs, at(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(endpoint.http_auth_header.as_deref(), Some("Bearer x"));
    assert_eq!(endpoint.signing_secrets, std::slice::from_ref(&secret));

    let mut next = vcs(None);
    next.url = "https://receiver.example/other".to_owned();
    assert_eq!(store.set_webhook(next, at(2)).await.unwrap(), None);
    let endpoint = store
        .endpoint("acme", WebhookType::Vcs, at(3))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(endpoint.url, "https://receiver.example/other");
    assert_eq!(endpoint.http_auth_header, None);
    assert_eq!(endpoint.signing_secrets, [secret]);
}

#[tokio::test]
async fn the_secret_before_a_rotation_signs_too_for_a_day() {
    let store = ephemeral();
    with_acme(&store).await;
    let first = store.set_webhook(vcs(None), at(0)).await.unwrap().unwrap();
    let second = store
        .rotate_secret("acme", WebhookType::Vcs, at(0))
        .await
        .unwrap();
    assert_ne!(first, second);
    let secrets = async |now| {
        let endpoint = store.endpoint("acme", WebhookType::Vcs, now).await;
        endpoint.unwrap().unwrap().signing_secrets
    };
    let (first, second) = (secret_bytes(&first), secret_bytes(&second));
    assert_eq!(secrets(at(DAY_MS - 1)).await, [second.clone(), first]);
    assert_eq!(secrets(at(DAY_MS)).await, std::slice::from_ref(&second));
    let third = store
        .rotate_secret("acme", WebhookType::Vcs, at(10))
        .await
        .unwrap();
    assert_eq!(secrets(at(11)).await, [secret_bytes(&third), second]);
    assert!(matches!(
        store.rotate_secret("acme", WebhookType::Vru, at(0)).await,
        Err(StoreError::NotFound {
            what: "the webhook"
        })
    ));
}

#[tokio::test]
async fn a_disabled_webhook_is_no_endpoint_but_is_still_listed() {
    let store = ephemeral();
    with_acme(&store).await;
    let mut vca = vcs(Some("Basic x"));
    vca.webhook_type = WebhookType::Vca;
    store.set_webhook(vcs(None), at(0)).await.unwrap();
    store.set_webhook(vca, at(0)).await.unwrap();
    disable(&store, WebhookType::Vcs).await;
    let endpoint = store
        .endpoint("acme", WebhookType::Vcs, at(1))
        .await
        .unwrap();
    assert!(endpoint.is_none());

    let listed = store.webhooks("acme").await.unwrap();
    let kinds: Vec<_> = listed
        .iter()
        .map(|hook| {
            (
                hook.webhook_type,
                hook.enabled,
                hook.http_auth_header_available,
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [
            (WebhookType::Vca, true, true),
            (WebhookType::Vcs, false, false)
        ]
    );
    let none = store.disable_webhook("acme", WebhookType::Vss, 0).await;
    assert_eq!(none.unwrap(), SwitchedOff::No);
}

#[tokio::test]
async fn a_webhook_that_was_changed_meanwhile_is_not_switched_off() {
    let store = ephemeral();
    with_acme(&store).await;
    let vcs_revision = || async {
        let endpoint = store.endpoint("acme", WebhookType::Vcs, at(9)).await;
        endpoint.unwrap().map(|it| it.revision)
    };
    store.set_webhook(vcs(None), at(7)).await.unwrap();
    for change in 0..4 {
        let asked = vcs_revision().await.unwrap();
        // Within the same millisecond, or with a clock that was put back.
        match change {
            0 => drop(store.set_webhook(vcs(None), at(7)).await.unwrap()),
            1 => drop(store.set_webhook(vcs(None), at(3)).await.unwrap()),
            2 => drop(
                store
                    .rotate_secret("acme", WebhookType::Vcs, at(3))
                    .await
                    .unwrap(),
            ),
            _ => {
                let shown = store.settings("acme", WebhookType::Vcs).await.unwrap();
                let mut config = shown.config.clone();
                config.settings.max_in_flight = Some(5);
                let set = store.replace_settings("acme", WebhookType::Vcs, shown, config, at(3));
                assert!(set.await.unwrap().is_some());
            }
        }
        let disabled = store.disable_webhook("acme", WebhookType::Vcs, asked).await;
        assert_eq!(disabled.unwrap(), SwitchedOff::No, "change {change}");
        assert!(vcs_revision().await.is_some());
    }
    let asked = vcs_revision().await.unwrap();
    // All that were under way say so, and once is enough.
    for switched in [SwitchedOff::Now, SwitchedOff::Before] {
        let disabled = store.disable_webhook("acme", WebhookType::Vcs, asked).await;
        assert_eq!(disabled.unwrap(), switched);
    }
    assert!(vcs_revision().await.is_none());
}

#[tokio::test]
async fn a_webhook_that_fails_is_noted_until_it_is_well_or_set_or_disabled() {
    let store = ephemeral();
    with_acme(&store).await;
    store.set_webhook(vcs(None), at(0)).await.unwrap();
    let kind = WebhookType::Vcs;
    let note = async |since| store.note_failing("acme", kind, since).await.unwrap();
    assert_eq!(note(Some(at(5))).await, Some(at(5)));
    assert_eq!(note(Some(at(9))).await, Some(at(5)), "since the first");
    let noted = store.failing().await.unwrap();
    assert_eq!(noted, [("acme".to_owned(), kind, at(5))]);
    assert_eq!(note(None).await, None);
    assert!(store.failing().await.unwrap().is_empty());
    note(Some(at(10))).await;
    store.set_webhook(vcs(None), at(11)).await.unwrap();
    assert!(store.failing().await.unwrap().is_empty());
    note(Some(at(12))).await;
    let disable = async |since| store.disable_failing("acme", kind, since).await.unwrap();
    assert!(!disable(at(10)).await, "it was set since");
    assert!(disable(at(12)).await);
    assert!(!disable(at(12)).await);
    assert!(!store.webhooks("acme").await.unwrap()[0].enabled);
    assert!(store.failing().await.unwrap().is_empty());
    let of_another = store
        .note_failing("acme", WebhookType::Vss, Some(at(1)))
        .await;
    assert_eq!(of_another.unwrap(), None, "there is none");
}

#[tokio::test]
async fn a_deleted_webhook_is_shown_once_more_and_is_gone() {
    let store = ephemeral();
    with_acme(&store).await;
    store
        .set_webhook(vcs(Some("Bearer x")), at(0))
        .await
        .unwrap();
    let gone = store
        .delete_webhook("acme", WebhookType::Vcs)
        .await
        .unwrap();
    assert_eq!(
        gone,
        Webhook {
            sub_account_id: "acme".to_owned(),
            webhook_type: WebhookType::Vcs,
            url: "https://receiver.example/vcs".to_owned(),
            enabled: true,
            http_auth_header_available: true,
        }
    );
    assert!(store.webhooks("acme").await.unwrap().is_empty());
    assert!(matches!(
        store.delete_webhook("acme", WebhookType::Vcs).await,
        Err(StoreError::NotFound {
            what: "the webhook"
        })
    ));
}

#[tokio::test]
async fn secrets_are_nowhere_on_disk_in_the_clear() {
    let (directory, path) = directory();
    let store = open(&path);
    with_acme(&store).await;
    let auth = "Bearer sentinel-of-the-header";
    let shown = store
        .set_webhook(vcs(Some(auth)), at(0))
        .await
        .unwrap()
        .unwrap();
    let rotated = store
        .rotate_secret("acme", WebhookType::Vcs, at(0))
        .await
        .unwrap();
    let texts = [auth.as_bytes(), shown.as_bytes(), rotated.as_bytes()];
    let bytes = [secret_bytes(&shown), secret_bytes(&rotated)];
    for secret in texts.into_iter().chain(bytes.iter().map(Vec::as_slice)) {
        assert_not_on_disk(directory.path(), secret);
    }
    drop(store);
    for secret in texts.into_iter().chain(bytes.iter().map(Vec::as_slice)) {
        assert_not_on_disk(directory.path(), secret);
    }
}

#[tokio::test]
async fn a_sealed_value_that_was_moved_to_another_row_does_not_open() {
    let (_directory, path) = directory();
    let store = open(&path);
    with_acme(&store).await;
    store.set_webhook(vcs(None), at(0)).await.unwrap();
    let mut vss = vcs(None);
    vss.webhook_type = WebhookType::Vss;
    store.set_webhook(vss, at(0)).await.unwrap();
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute(
            "UPDATE webhooks SET secret_sealed = \
             (SELECT secret_sealed FROM webhooks WHERE webhook_type = 'VSS')",
            [],
        )
        .unwrap();
    let moved = store.endpoint("acme", WebhookType::Vcs, at(1)).await;
    assert!(matches!(moved, Err(StoreError::Secret)));
    assert!(
        store
            .endpoint("acme", WebhookType::Vss, at(1))
            .await
            .is_ok()
    );
}

fn assert_not_on_disk(directory: &std::path::Path, secret: &[u8]) {
    for file in fs::read_dir(directory).unwrap() {
        let file = file.unwrap().path();
        let bytes = fs::read(&file).unwrap();
        let found = bytes.windows(secret.len()).any(|part| part == secret);
        assert!(!found, "a secret is readable in {}", file.display());
    }
}
