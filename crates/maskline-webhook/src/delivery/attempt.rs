//! One attempt at one event: find the endpoint, send, and say what the answer means.
//!
//! What lives elsewhere: sending (`client`), what follows from the result (`lanes`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use maskline_store::{AttemptRecord, EventRow, Store, SwitchedOff};
use tokio::time::{Instant, timeout};

use super::failing::Failing;
use super::told::Told;
use super::{ANSWER_BYTES, AttemptResult, DeliveryCounters, schedule};
use crate::client::{Answer, EgressClient, Post, SendError, Target};
use crate::clock;
use crate::endpoints::Endpoints;

/// What every attempt needs.
pub(super) struct Sender {
    pub(super) client: EgressClient,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) store: Arc<dyn Store>,
    pub(super) deadline: Duration,
    pub(super) disable_after: Option<Duration>,
    pub(super) failing: Arc<Failing>,
    pub(super) told: Arc<Told>,
    pub(super) counters: Arc<DeliveryCounters>,
}

/// An event's text as bytes without a copy of it.
struct Body(Arc<EventRow>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self.0.body.as_bytes()
    }
}

impl Sender {
    /// The result, and what the log says of the request if one was made. Disables a webhook that
    /// has had nothing but failures for too long.
    pub(super) async fn attempt(
        &self,
        event: Arc<EventRow>,
        gap: bool,
    ) -> (AttemptResult, Option<AttemptRecord>) {
        let target = self.target(&event).await;
        let own = target.as_ref().ok();
        let own = own.and_then(|target| target.settings().disable_after());
        let after = own.unwrap_or(self.disable_after);
        let (result, record) = match target {
            Ok(target) => self.send(Arc::clone(&event), &target, gap).await,
            Err(result) => (result, None),
        };
        let (owner, kind) = (event.sub_account_id.as_str(), event.webhook_type);
        let now = (clock::wall(), Instant::now());
        let ended = self.failing.ended(owner, kind, after, &result, now);
        if let Some(since) = ended.await {
            tracing::warn!(
                sub_account = owner, webhook = kind.as_str(), %since,
                "webhook disabled: nothing but failures since then; set it again to enable it"
            );
            self.counters.disabled.fetch_add(1, Ordering::Relaxed);
            self.endpoints.changed(owner, kind);
            // What waits for it is settled now: there is no endpoint.
            self.told.changed((Arc::from(owner), kind));
        }
        (result, record)
    }

    /// Where the event goes, or what it means that it goes nowhere.
    async fn target(&self, event: &EventRow) -> Result<Arc<Target>, AttemptResult> {
        let lookup =
            self.endpoints
                .lookup(&event.sub_account_id, event.webhook_type, clock::wall());
        match timeout(self.deadline, lookup).await {
            Ok(Ok(Some(Ok(target)))) => Ok(target),
            Ok(Ok(Some(Err(error)))) => Err(unanswered(&error)),
            Ok(Ok(None)) => Err(AttemptResult::NoEndpoint),
            Ok(Err(_)) | Err(_) => Err(AttemptResult::Postponed),
        }
    }

    async fn send(
        &self,
        event: Arc<EventRow>,
        target: &Target,
        gap: bool,
    ) -> (AttemptResult, Option<AttemptRecord>) {
        let own = target.settings().attempt_timeout();
        let deadline = own.map_or(self.deadline, |own| own.min(self.deadline));
        let body = match target.hiding().map(|hiding| hiding.body(&event.body)) {
            None => Bytes::from_owner(Body(Arc::clone(&event))),
            Some(Ok(hidden)) => Bytes::from(hidden),
            Some(Err(error)) => return (unanswered(&error.into()), None),
        };
        let post = Post {
            event_id: event.event_id,
            body,
            gap,
            unix_seconds: clock::wall().unix_ms().div_euclid(1_000),
        };
        let began = Instant::now();
        let sent = self.client.post(target, post, ANSWER_BYTES, deadline).await;
        // A 2xx whose body stalls or is cut off is no acknowledgement: the deadline covers the body,
        // and who stops in the middle may not have kept the event. A repeat does no harm.
        let mut record = AttemptRecord {
            duration: began.elapsed(),
            ..AttemptRecord::default()
        };
        let result = match sent {
            Ok(answer) => {
                let result = if answer.status == 410 {
                    self.gone(&event, target).await
                } else {
                    answered(&answer)
                };
                record.answer = answer.body;
                record.truncated = answer.truncated;
                result
            }
            // It is ours to mend: no attempt of the endpoint's is used up, and its breaker is not told.
            Err(SendError::Full) => {
                self.counters.postponed.fetch_add(1, Ordering::Relaxed);
                return (AttemptResult::Postponed, None);
            }
            Err(error) => unanswered(&error),
        };
        (result, Some(record))
    }

    /// 410 disables the webhook that was asked, not what it has become meanwhile.
    async fn gone(&self, event: &EventRow, asked: &Target) -> AttemptResult {
        let (owner, kind) = (&event.sub_account_id, event.webhook_type);
        let disabled = self
            .store
            .disable_webhook(owner, kind, asked.revision())
            .await;
        self.endpoints.changed(owner, kind);
        let error = match disabled {
            Ok(SwitchedOff::Now) => {
                tracing::warn!(
                    sub_account = owner.as_str(),
                    webhook = kind.as_str(),
                    "webhook disabled: its receiver answered 410; set it again to enable it"
                );
                self.counters.disabled.fetch_add(1, Ordering::Relaxed);
                return AttemptResult::Gone;
            }
            Ok(SwitchedOff::Before) => return AttemptResult::Gone,
            Ok(SwitchedOff::No) => match self.endpoints.lookup(owner, kind, clock::wall()).await {
                Ok(None) => return AttemptResult::Gone,
                Ok(Some(_)) => "410 from a webhook that was changed meanwhile",
                Err(_) => "410, but the store could not be read",
            },
            Err(_) => "410, but the store could not disable the webhook",
        };
        AttemptResult::Failed {
            status: Some(410),
            error: error.to_owned(),
            retry_after: None,
        }
    }
}

fn answered(answer: &Answer) -> AttemptResult {
    let status = answer.status;
    if (200..300).contains(&status) {
        return AttemptResult::Delivered { status };
    }
    let asks_to_wait = status == 429 || status == 503;
    let retry_after = answer
        .retry_after
        .as_deref()
        .filter(|_| asks_to_wait)
        .and_then(|text| schedule::retry_after(text, clock::wall()));
    let error = if (300..400).contains(&status) {
        format!("the receiver answered {status}; redirects are not followed")
    } else {
        format!("the receiver answered {status}")
    };
    AttemptResult::Failed {
        status: Some(status),
        error,
        retry_after,
    }
}

fn unanswered(error: &SendError) -> AttemptResult {
    AttemptResult::Failed {
        status: None,
        error: error.to_string(),
        retry_after: None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use maskline_events::{Timestamp, WebhookType};
    use maskline_store::{
        Deliveries, MasterKey, NewSubAccount, NewWebhook, SqliteLocation, SqliteOptions,
        SqliteStore,
    };
    use uuid::Uuid;

    use super::*;
    use crate::egress::EgressPolicy;

    #[tokio::test]
    async fn who_finds_no_connection_of_ours_is_put_off_and_nothing_is_said_of_its_endpoint() {
        let folder = tempfile::tempdir().unwrap();
        let location = SqliteLocation::File(folder.path().join("store.db"));
        let key = MasterKey::from_base64(&format!("{}=", "A".repeat(43))).unwrap();
        let options = SqliteOptions {
            reserve_bytes: 0,
            ..SqliteOptions::default()
        };
        let store = Arc::new(SqliteStore::open(&location, &key, options).unwrap());
        let at = clock::wall();
        let sub_account = NewSubAccount {
            sub_account_id: "shop".to_owned(),
            countries: Vec::new(),
        };
        store.create_sub_account(sub_account, at).await.unwrap();
        let webhook = NewWebhook {
            sub_account_id: "shop".to_owned(),
            webhook_type: WebhookType::Vcs,
            url: "http://127.0.0.1:9/".to_owned(),
            http_auth_header: None,
            enabled: true,
        };
        store.set_webhook(webhook, at).await.unwrap();
        let policy = EgressPolicy {
            allow_private_targets: true,
        };
        let as_store = Arc::clone(&store) as Arc<dyn Store>;
        let endpoints = || Endpoints::new(Arc::clone(&as_store), policy, Duration::ZERO);
        let sender = |connections| Sender {
            client: EgressClient::at_most(connections, policy).unwrap(),
            endpoints: Arc::new(endpoints()),
            store: Arc::clone(&as_store),
            deadline: Duration::from_millis(500),
            disable_after: Some(Duration::ZERO),
            failing: Arc::new(Failing::new(Arc::clone(&store) as Arc<dyn Deliveries>)),
            told: Arc::default(),
            counters: Arc::default(),
        };
        let event = Arc::new(EventRow {
            event_id: Uuid::from_u128(1),
            session_id: Uuid::from_u128(2),
            sub_account_id: "shop".to_owned(),
            ordinal: 1,
            webhook_type: WebhookType::Vcs,
            at: Timestamp::from_unix_ms(0),
            body: "{}".to_owned(),
        });
        let none = sender(0);
        let (result, record) = none.attempt(Arc::clone(&event), false).await;
        assert!(matches!(result, AttemptResult::Postponed), "{result:?}");
        assert!(record.is_none());
        assert_eq!(none.counters.postponed.load(Ordering::Relaxed), 1);
        let lookup = endpoints().lookup("shop", WebhookType::Vcs, at).await;
        assert!(lookup.unwrap().is_some(), "it is not disabled");
        // With one the endpoint's own failure is its own.
        let (result, _) = sender(1).attempt(event, false).await;
        assert!(matches!(result, AttemptResult::Failed { .. }), "{result:?}");
    }
}
