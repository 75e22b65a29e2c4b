//! SQL of what endpoints are set to, and of an endpoint whole, as the sender needs it.
//!
//! What lives elsewhere: setting a webhook itself (`sqlite::config`), what it is that is set
//! (`settings`).

use std::collections::BTreeMap;

use async_trait::async_trait;
use maskline_events::signing::SigningKey;
use maskline_events::{Hiding, Timestamp, WebhookType};
use rusqlite::{Connection, OptionalExtension, params};

use super::SqliteStore;
use super::config::{WEBHOOK, secret_place, webhook_place};
use super::events::webhook_type as read_webhook_type;
use super::fault::{Fault, broken};
use crate::model::Endpoint;
use crate::origin;
use crate::secrets::{Vault, place};
use crate::settings::{
    EndpointConfig, EndpointSecrets, EndpointSettings, ShownSettings, TlsSettings, WebhookSettings,
};
use crate::store::StoreError;

#[async_trait]
impl WebhookSettings for SqliteStore {
    async fn settings(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
    ) -> Result<ShownSettings, StoreError> {
        let (vault, id) = (self.vault.clone(), sub_account_id.to_owned());
        self.readers
            .run(move |connection| shown(connection, &vault, &id, webhook_type))
            .await
    }

    async fn hidings(
        &self,
        sub_account_id: &str,
    ) -> Result<BTreeMap<WebhookType, Hiding>, StoreError> {
        let (vault, id) = (self.vault.clone(), sub_account_id.to_owned());
        self.readers
            .run(move |connection| hidings(connection, &vault, &id))
            .await
    }

    async fn replace_settings(
        &self,
        sub_account_id: &str,
        webhook_type: WebhookType,
        read: ShownSettings,
        config: EndpointConfig,
        now: Timestamp,
    ) -> Result<Option<ShownSettings>, StoreError> {
        let (vault, id) = (self.vault.clone(), sub_account_id.to_owned());
        self.writer
            .run(move |connection| {
                replace_settings(connection, &vault, &id, webhook_type, &read, &config, now)
            })
            .await
    }
}

fn shown(
    connection: &Connection,
    vault: &Vault,
    owner: &str,
    kind: WebhookType,
) -> Result<ShownSettings, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT url, enabled, disabled_reason, failing_since, settings, settings_sealed, \
         secret_sealed FROM webhooks WHERE sub_account_id = ?1 AND webhook_type = ?2",
    )?;
    let mut rows = statement.query([owner, kind.as_str()])?;
    let Some(row) = rows.next()? else {
        return Err(StoreError::NotFound { what: WEBHOOK }.into());
    };
    let (settings, sealed): (String, Option<Vec<u8>>) = (row.get(4)?, row.get(5)?);
    let failing_since: Option<i64> = row.get(3)?;
    let secret: Vec<u8> = row.get(6)?;
    let secret = vault.open(&secret_place(owner, kind), &secret)?;
    Ok(ShownSettings {
        url: row.get(0)?,
        enabled: row.get(1)?,
        disabled_reason: row.get(2)?,
        failing_since: failing_since.map(Timestamp::from_unix_ms),
        config: read(vault, owner, kind, &settings, sealed.as_deref())?,
        public_key: signing_key(vault, owner, kind, &secret).public_key(),
    })
}

fn replace_settings(
    connection: &Connection,
    vault: &Vault,
    owner: &str,
    kind: WebhookType,
    read: &ShownSettings,
    config: &EndpointConfig,
    now: Timestamp,
) -> Result<Option<ShownSettings>, Fault> {
    let found = shown(connection, vault, owner, kind)?;
    if found.url != read.url || found.config != read.config {
        return Ok(None);
    }
    let (settings, sealed) = written(vault, owner, kind, config)?;
    connection.execute(
        "UPDATE webhooks SET settings = ?3, settings_sealed = ?4, updated = MAX(?5, updated + 1) \
         WHERE sub_account_id = ?1 AND webhook_type = ?2",
        params![owner, kind.as_str(), settings, sealed, now.unix_ms()],
    )?;
    let config = config.clone();
    Ok(Some(ShownSettings { config, ..found }))
}

/// Before a webhook gets this URL. What its owner alone may know is for one receiver: another one, as
/// which whoever has an API key could set himself, gets none of it. A certificate is of no use without
/// its key, and goes with it; but where there is no TLS it stays, so that nothing is sent there: who has
/// shown who he is does not go on in the clear unless he says so.
pub(super) fn forget_if_moved(
    connection: &Connection,
    owner: &str,
    kind: WebhookType,
    url: &str,
) -> Result<(), Fault> {
    let before: Option<(String, String)> = connection
        .prepare_cached(
            "SELECT url, settings FROM webhooks WHERE sub_account_id = ?1 AND webhook_type = ?2",
        )?
        .query_row([owner, kind.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((url_before, mut settings)) = before else {
        return Ok(());
    };
    if origin::is_same(&url_before, url) {
        return Ok(());
    }
    // Settings that can't be read stay so, and are neither shown nor sent with.
    if origin::is_https(url)
        && let Ok(mut read) = serde_json::from_str::<EndpointSettings>(&settings)
        && let Some(mut tls) = read.tls.take_if(|tls| tls.client_certificate.is_some())
    {
        tls.client_certificate = None;
        read.tls = Some(tls).filter(|tls| *tls != TlsSettings::default());
        settings = serde_json::to_string(&read)
            .map_err(|_| broken("webhooks", "the settings can't be written"))?;
    }
    connection.execute(
        "UPDATE webhooks SET settings = ?3, settings_sealed = NULL \
         WHERE sub_account_id = ?1 AND webhook_type = ?2",
        params![owner, kind.as_str(), settings],
    )?;
    Ok(())
}

/// The private key of a webhook. It is kept nowhere: whoever has the signing secret, as its owner does,
/// can't make it without the master key; and as it depends on the secret, both are rotated at once.
fn signing_key(vault: &Vault, owner: &str, kind: WebhookType, secret: &[u8]) -> SigningKey {
    let purpose = webhook_place(owner, kind, "ed25519");
    let seed = vault.derive(&purpose, secret);
    SigningKey::from_seed(&seed)
}

/// How these settings hide numbers, if they do. All of a sub-account's webhooks have the same tokens.
fn hiding(vault: &Vault, owner: &str, settings: &EndpointSettings) -> Option<Hiding> {
    let purpose = || place(&["sub_accounts", owner, "tokens"]);
    Hiding::new(settings.redaction.unwrap_or_default(), || {
        vault.derive(&purpose(), &[])
    })
}

fn hidings(
    connection: &Connection,
    vault: &Vault,
    owner: &str,
) -> Result<BTreeMap<WebhookType, Hiding>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT webhook_type, settings FROM webhooks \
         WHERE sub_account_id = ?1 AND settings <> '{}'",
    )?;
    let mut rows = statement.query([owner])?;
    let mut found = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (kind, settings): (String, String) = (row.get(0)?, row.get(1)?);
        let kind = read_webhook_type(&kind, "webhooks")?;
        // What can't be read may want numbers hidden: then nothing is shown.
        let settings: EndpointSettings = serde_json::from_str(&settings)
            .map_err(|_| broken("webhooks", "the settings can't be read"))?;
        if let Some(hiding) = hiding(vault, owner, &settings) {
            found.insert(kind, hiding);
        }
    }
    Ok(found)
}

/// Settings that can't be read stop nobody else's.
pub(super) fn all(
    connection: &Connection,
) -> Result<Vec<(String, WebhookType, EndpointSettings)>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT sub_account_id, webhook_type, settings FROM webhooks WHERE settings <> '{}'",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (kind, settings): (String, String) = (row.get(1)?, row.get(2)?);
        if let (Ok(kind), Ok(settings)) = (
            read_webhook_type(&kind, "webhooks"),
            serde_json::from_str(&settings),
        ) {
            found.push((row.get(0)?, kind, settings));
        }
    }
    Ok(found)
}

fn read(
    vault: &Vault,
    owner: &str,
    kind: WebhookType,
    settings: &str,
    sealed: Option<&[u8]>,
) -> Result<EndpointConfig, Fault> {
    // serde_json's own text would repeat a value.
    let unread = |_| broken("webhooks", "the settings can't be read");
    let secrets = match sealed {
        Some(sealed) => {
            let opened = vault.open(&webhook_place(owner, kind, "settings"), sealed)?;
            serde_json::from_slice(&opened).map_err(unread)?
        }
        None => EndpointSecrets::default(),
    };
    Ok(EndpointConfig {
        settings: serde_json::from_str(settings).map_err(unread)?,
        secrets,
    })
}

fn written(
    vault: &Vault,
    owner: &str,
    kind: WebhookType,
    config: &EndpointConfig,
) -> Result<(String, Option<Vec<u8>>), Fault> {
    let unwritten = |_| broken("webhooks", "the settings can't be written");
    let settings = serde_json::to_string(&config.settings).map_err(unwritten)?;
    if config.secrets == EndpointSecrets::default() {
        return Ok((settings, None));
    }
    let secrets = serde_json::to_vec(&config.secrets).map_err(unwritten)?;
    let sealed = vault.seal(&webhook_place(owner, kind, "settings"), &secrets)?;
    Ok((settings, Some(sealed)))
}

/// An [`Endpoint`] as it lies in the database.
struct SealedEndpoint {
    url: String,
    auth_header: Option<Vec<u8>>,
    secret: Vec<u8>,
    previous: Option<Vec<u8>>,
    previous_valid_until: Option<i64>,
    settings: String,
    settings_sealed: Option<Vec<u8>>,
    updated: i64,
}

pub(crate) fn endpoint(
    connection: &Connection,
    vault: &Vault,
    sub_account_id: &str,
    webhook_type: WebhookType,
    now: Timestamp,
) -> Result<Option<Endpoint>, Fault> {
    let sealed = connection
        .prepare_cached(
            "SELECT url, auth_header_sealed, secret_sealed, previous_secret_sealed, \
             previous_valid_until, settings, settings_sealed, updated FROM webhooks \
             WHERE sub_account_id = ?1 AND webhook_type = ?2 AND enabled <> 0",
        )?
        .query_row([sub_account_id, webhook_type.as_str()], |row| {
            Ok(SealedEndpoint {
                url: row.get(0)?,
                auth_header: row.get(1)?,
                secret: row.get(2)?,
                previous: row.get(3)?,
                previous_valid_until: row.get(4)?,
                settings: row.get(5)?,
                settings_sealed: row.get(6)?,
                updated: row.get(7)?,
            })
        })
        .optional()?;
    let Some(sealed) = sealed else {
        return Ok(None);
    };
    let http_auth_header = match &sealed.auth_header {
        Some(value) => {
            let here = webhook_place(sub_account_id, webhook_type, "auth_header");
            Some(String::from_utf8(vault.open(&here, value)?).map_err(|_| StoreError::Secret)?)
        }
        None => None,
    };
    let here = secret_place(sub_account_id, webhook_type);
    let mut signing_secrets = vec![vault.open(&here, &sealed.secret)?];
    if let (Some(previous), Some(until)) = (&sealed.previous, sealed.previous_valid_until)
        && now.unix_ms() < until
    {
        signing_secrets.push(vault.open(&here, previous)?);
    }
    let config = read(
        vault,
        sub_account_id,
        webhook_type,
        &sealed.settings,
        sealed.settings_sealed.as_deref(),
    )?;
    let signatures = config.settings.signatures.unwrap_or_default();
    let mut signing_keys = Vec::new();
    if signatures.has_v1a() {
        let keys = signing_secrets
            .iter()
            .map(|secret| signing_key(vault, sub_account_id, webhook_type, secret));
        signing_keys.extend(keys);
    }
    if !signatures.has_v1() {
        signing_secrets.clear();
    }
    Ok(Some(Endpoint {
        url: sealed.url,
        http_auth_header,
        signing_secrets,
        signing_keys,
        hiding: hiding(vault, sub_account_id, &config.settings),
        config,
        revision: sealed.updated,
    }))
}
