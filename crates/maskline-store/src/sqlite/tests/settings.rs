//! Settings that take the place of those that were read, and of no others.

use maskline_events::WebhookType;

use super::{at, disable, ephemeral};
use crate::model::{NewSubAccount, NewWebhook};
use crate::settings::{
    EndpointConfig, EndpointSecrets, EndpointSettings, ShownSettings, TlsSettings, WebhookSettings,
};
use crate::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

const VCS: WebhookType = WebhookType::Vcs;

async fn hook(store: &SqliteStore, url: &str) {
    let new = NewWebhook {
        sub_account_id: "acme".to_owned(),
        webhook_type: VCS,
        url: url.to_owned(),
        http_auth_header: None,
        enabled: true,
    };
    store.set_webhook(new, at(0)).await.unwrap();
}

async fn shown(store: &SqliteStore) -> ShownSettings {
    store.settings("acme", VCS).await.unwrap()
}

async fn replace(
    store: &SqliteStore,
    read: &ShownSettings,
    config: &EndpointConfig,
) -> Option<ShownSettings> {
    let replace = store.replace_settings("acme", VCS, read.clone(), config.clone(), at(1));
    replace.await.unwrap()
}

fn config(most: u32, header: &str) -> EndpointConfig {
    EndpointConfig {
        settings: EndpointSettings {
            max_in_flight: Some(most),
            ..EndpointSettings::default()
        },
        secrets: EndpointSecrets {
            headers: [("x-a".to_owned(), header.to_owned())].into(),
            client_key: None,
        },
    }
}

async fn open() -> SqliteStore {
    let store = ephemeral();
    let new = NewSubAccount {
        sub_account_id: "acme".to_owned(),
        countries: vec![],
    };
    store.create_sub_account(new, at(0)).await.unwrap();
    hook(&store, "https://receiver.example/one").await;
    store
}

#[tokio::test]
async fn settings_are_replaced_only_where_they_and_the_url_are_as_they_were_read() {
    let store = open().await;
    let first = shown(&store).await;
    let set = replace(&store, &first, &config(1, "a")).await.unwrap();
    assert!(set.config == config(1, "a") && set == shown(&store).await);
    // As it was before that.
    assert!(replace(&store, &first, &config(2, "a")).await.is_none());
    // Only a secret is another.
    let again = replace(&store, &set, &config(1, "b")).await.unwrap();
    assert!(replace(&store, &set, &config(2, "a")).await.is_none());
    // Only the URL is another.
    hook(&store, "https://receiver.example/two").await;
    assert!(replace(&store, &again, &config(2, "a")).await.is_none());
    let last = shown(&store).await;
    assert_eq!(last.url, "https://receiver.example/two");
    assert!(last.config == config(1, "b"));
    // Whether it is used has nothing to do with them.
    disable(&store, VCS).await;
    let off = replace(&store, &last, &config(3, "c")).await.unwrap();
    assert!(!off.enabled && off.config == config(3, "c"));
    store.delete_webhook("acme", VCS).await.unwrap();
    let gone = store.replace_settings("acme", VCS, last, config(4, "d"), at(2));
    assert!(matches!(gone.await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn a_certificate_goes_with_its_key_but_stays_in_the_way_where_there_is_no_tls() {
    let store = open().await;
    let with_certificate = EndpointConfig {
        settings: EndpointSettings {
            tls: Some(TlsSettings {
                ca: None,
                client_certificate: Some("CERT".to_owned()),
            }),
            ..EndpointSettings::default()
        },
        secrets: EndpointSecrets {
            client_key: Some("KEY".to_owned()),
            ..EndpointSecrets::default()
        },
    };
    let left_in_the_clear = EndpointConfig {
        secrets: EndpointSecrets::default(),
        ..with_certificate.clone()
    };
    for (url, left) in [
        ("https://other.example", EndpointConfig::default()),
        ("http://receiver.example/one", left_in_the_clear),
    ] {
        hook(&store, "https://receiver.example/one").await;
        let read = shown(&store).await;
        replace(&store, &read, &with_certificate).await.unwrap();
        hook(&store, url).await;
        assert!(shown(&store).await.config == left, "{url}");
        // What was forgotten is forgotten on the way back, too.
        hook(&store, "https://receiver.example/one").await;
        assert!(shown(&store).await.config == EndpointConfig::default());
    }
}
