//! The fields that sub-accounts add to their events.

use maskline_events::{ParameterEntry, SessionValue};

use super::{at, directory, open};
use crate::model::NewSubAccount;
use crate::parameters::ParameterStore;
use crate::store::{Store, StoreError};

fn entry(name: &str, value: Option<i64>) -> ParameterEntry {
    ParameterEntry {
        name: name.to_owned(),
        value: value.map(Into::into),
        from: value.is_none().then_some(SessionValue::Leg),
        country: Some("SG".to_owned()),
        prefix: None,
    }
}

#[tokio::test]
async fn parameters_are_kept_in_their_order_over_a_restart_and_go_when_replaced() {
    let (_directory, path) = directory();
    let store = open(&path);
    for id in ["acme", "other"] {
        let new = NewSubAccount {
            sub_account_id: id.to_owned(),
            countries: vec![],
        };
        store.create_sub_account(new, at(0)).await.unwrap();
    }
    assert!(store.all_event_parameters().await.unwrap().is_empty());
    let entries = vec![entry("b", Some(1)), entry("a", None)];
    let set = store.set_event_parameters("acme", entries.clone());
    set.await.unwrap();
    drop(store);

    let store = open(&path);
    assert_eq!(store.event_parameters("acme").await.unwrap(), entries);
    assert!(store.event_parameters("other").await.unwrap().is_empty());
    let all = store.all_event_parameters().await.unwrap();
    assert_eq!(all, [("acme".to_owned(), Some(entries))]);
    store.set_event_parameters("acme", vec![]).await.unwrap();
    assert!(store.all_event_parameters().await.unwrap().is_empty());
    for error in [
        store.event_parameters("nobody").await.unwrap_err(),
        store
            .set_event_parameters("nobody", vec![])
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_can_t_be_read_stops_nobody_else() {
    let (_directory, path) = directory();
    let store = open(&path);
    for id in ["acme", "other"] {
        let new = NewSubAccount {
            sub_account_id: id.to_owned(),
            countries: vec![],
        };
        store.create_sub_account(new, at(0)).await.unwrap();
        let set = store.set_event_parameters(id, vec![entry("a", None)]);
        set.await.unwrap();
    }
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "UPDATE sub_accounts SET event_parameters = '[{' WHERE sub_account_id = 'acme'",
        )
        .unwrap();
    let all = store.all_event_parameters().await.unwrap();
    assert_eq!(all[0], ("acme".to_owned(), None));
    assert_eq!(all[1].1, Some(vec![entry("a", None)]));
    let error = store.event_parameters("acme").await.unwrap_err();
    assert!(matches!(error, StoreError::BrokenRow { .. }), "{error}");
}
