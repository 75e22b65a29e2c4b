//! What the store holds, as plain types.

use std::sync::Arc;

use maskline_events::signing::SigningKey;
use maskline_events::{EarlyMedia, Hiding, Msisdn, Timestamp, WebhookType};
use uuid::Uuid;

use crate::settings::EndpointConfig;

/// What one group of decisions writes, all or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JournalBatch {
    /// In the order in which they were decided.
    pub entries: Vec<Arc<JournalEntry>>,
}

/// One session's part of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// The session.
    pub session_id: Uuid,
    /// Its sub-account.
    pub sub_account_id: String,
    /// The switch's own snapshot of the session (opaque here), from which a restarted node adopts
    /// it. `None`: the session is over; its snapshot is deleted.
    pub snapshot: Option<Vec<u8>>,
    /// New events, in order.
    pub events: Vec<EventRow>,
}

/// One event, as it will be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// The idempotency key; the `webhook-id` of each request.
    pub event_id: Uuid,
    /// The session.
    pub session_id: Uuid,
    /// Its sub-account.
    pub sub_account_id: String,
    /// The order within the session: the VCS `sequence`; a VSS has the next number after them.
    pub ordinal: u64,
    /// Which webhook it goes to.
    pub webhook_type: WebhookType,
    /// When it happened.
    pub at: Timestamp,
    /// The whole request body, UTF-8 JSON, envelope included. Never changed after the commit.
    pub body: String,
}

/// A session that a node left open, to be adopted.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenSession {
    /// The session.
    pub session_id: Uuid,
    /// Its sub-account.
    pub sub_account_id: String,
    /// The last committed snapshot.
    pub snapshot: Vec<u8>,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Not yet tried, or to be tried again.
    Pending,
    /// Past the order deadline: still retried, no longer in the way of later events.
    Parked,
    /// Acknowledged by a 2xx.
    Delivered,
    /// Every retry was used up; kept for replay.
    Dead,
    /// There was no enabled webhook of its type; kept for replay.
    NoEndpoint,
}

impl DeliveryState {
    /// Whether nothing more will be tried by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Parked => false,
            Self::Delivered | Self::Dead | Self::NoEndpoint => true,
        }
    }
}

/// The result of one attempt (or of finding no endpoint).
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The event.
    pub event_id: Uuid,
    /// Where its delivery stands now.
    pub state: DeliveryState,
    /// Attempts made so far.
    pub attempts: u32,
    /// When the next one is due, if there is to be one.
    pub next_attempt_at: Option<Timestamp>,
    /// HTTP status of the last attempt, if there was an answer.
    pub status: Option<u16>,
    /// What went wrong, for a person. No phone number, no secret.
    pub error: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// A sub-account to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSubAccount {
    /// `^[A-Za-z0-9\-._&]{3,50}$`, checked by the caller.
    pub sub_account_id: String,
    /// ISO 3166-1 alpha-2; empty: the countries of its own numbers.
    pub countries: Vec<String>,
}

/// A sub-account.
#[derive(Clone, Debug, PartialEq)]
pub struct SubAccount {
    /// Its id.
    pub sub_account_id: String,
    /// Countries that it may call; empty: those of its own numbers.
    pub countries: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
}

/// A virtual number to be assigned.
#[derive(Clone, Debug, PartialEq)]
pub struct NewNumber {
    /// The number.
    pub msisdn: Msisdn,
    /// Its owner.
    pub sub_account_id: String,
    /// The owner's own name for it.
    pub reference_id: String,
    /// The trunk by which its calls go out; `None`: the first configured one.
    pub trunk: Option<String>,
    /// ISO 3166-1 alpha-2 of the number itself.
    pub country_code: Option<String>,
    /// What its callers hear before the answer.
    pub early_media: EarlyMedia,
}

/// A virtual number.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualNumber {
    /// The number.
    pub msisdn: Msisdn,
    /// Its owner.
    pub sub_account_id: String,
    /// The owner's own name for it.
    pub reference_id: String,
    /// The trunk by which its calls go out.
    pub trunk: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country_code: Option<String>,
    /// What its callers hear before the answer.
    pub early_media: EarlyMedia,
    /// When it was assigned.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// What a virtual number is to have from now on; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NumberChange {
    /// The owner's own name for it.
    pub reference_id: Option<String>,
    /// The trunk by which its calls go out; `Some(None)`: none of its own.
    pub trunk: Option<Option<String>>,
    /// What its callers hear before the answer.
    pub early_media: Option<EarlyMedia>,
}

/// A webhook to be set; replaces the one of the same type.
#[derive(Clone, PartialEq)]
pub struct NewWebhook {
    /// Whose.
    pub sub_account_id: String,
    /// Which.
    pub webhook_type: WebhookType,
    /// Where to, checked by the caller.
    pub url: String,
    /// The whole value of the `Authorization` header. Encrypted at rest.
    pub http_auth_header: Option<String>,
    /// Whether it is used.
    pub enabled: bool,
}

/// A webhook as the API shows it: no secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Whose.
    pub sub_account_id: String,
    /// Which.
    pub webhook_type: WebhookType,
    /// Where to.
    pub url: String,
    /// Whether it is used.
    pub enabled: bool,
    /// Whether an `Authorization` header is set.
    pub http_auth_header_available: bool,
}

/// A webhook as the sender needs it: with secrets, so no `Debug`.
#[derive(Clone, Default)]
pub struct Endpoint {
    /// Where to.
    pub url: String,
    /// The `Authorization` header's value.
    pub http_auth_header: Option<String>,
    /// Secrets to sign with, newest first (two while a rotation overlaps); none if it wants no `v1`.
    pub signing_secrets: Vec<Vec<u8>>,
    /// The same for `v1a`.
    pub signing_keys: Vec<SigningKey>,
    /// How numbers are hidden from it, if they are.
    pub hiding: Option<Hiding>,
    /// How it is sent to.
    pub config: EndpointConfig,
    /// Another one after each change of the webhook, but for being switched off.
    pub revision: i64,
}

/// Whether a webhook was switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchedOff {
    /// It was.
    Now,
    /// It was off already, and has not been changed since.
    Before,
    /// There is none, or it has been changed since.
    No,
}

/// What an API key may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiKeyScope {
    /// Everything under `/api/v1/admin`, and every sub-account.
    Admin,
    /// These sub-accounts.
    SubAccounts(Vec<String>),
}

/// This process's place in the history of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEpoch {
    /// The node; the same over restarts.
    pub node_id: Uuid,
    /// 1 at the first start, one more at each.
    pub boot_epoch: u64,
}
