//! SQL of the configuration: sub-accounts, API keys, numbers, webhooks with their sealed secrets.
//!
//! What lives elsewhere: the journal (`sqlite::events`), sealing itself (`secrets`), checking what a
//! caller of the API sent (`maskline-http`).

use std::str::FromStr as _;

use maskline_events::{EarlyMedia, Msisdn, Timestamp, WebhookType};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::events::webhook_type as read_webhook_type;
use super::fault::{Fault, broken, named};
use super::settings;
use crate::model::{
    ApiKeyScope, NewNumber, NewSubAccount, NewWebhook, NumberChange, SubAccount, SwitchedOff,
    VirtualNumber, Webhook,
};
use crate::secrets::{self, ApiKeyHash, Vault, place};
use crate::store::StoreError;

/// How long the secret before a rotation signs too (contract §5).
const ROTATION_OVERLAP_MS: i64 = 24 * 60 * 60 * 1000;
/// `api_keys.scope`.
const SCOPE_ADMIN: i64 = 0;
/// `api_keys.scope`.
const SCOPE_SUB_ACCOUNT: i64 = 1;

const SUB_ACCOUNT: &str = "the sub-account";
pub(super) const WEBHOOK: &str = "the webhook";
const NUMBER: &str = "the number";

/// Fails with [`StoreError::Secret`] if the database was made under another master key.
pub(crate) fn check_key(connection: &Connection, vault: &Vault) -> Result<(), Fault> {
    let here = place(&["store_keys", "check", "sealed"]);
    let known: Option<Vec<u8>> = connection
        .query_row(
            "SELECT sealed FROM store_keys WHERE name = 'check'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    match known {
        Some(sealed) => {
            vault.open(&here, &sealed)?;
        }
        None => {
            connection.execute(
                "INSERT INTO store_keys (name, sealed) VALUES ('check', ?1)",
                [vault.seal(&here, b"maskline")?],
            )?;
        }
    }
    Ok(())
}

pub(crate) fn create_sub_account(
    connection: &Connection,
    new: &NewSubAccount,
    now: Timestamp,
) -> Result<SubAccount, Fault> {
    let countries = serde_json::to_string(&new.countries)
        .map_err(|error| broken("sub_accounts", error.to_string()))?;
    connection
        .execute(
            "INSERT INTO sub_accounts (sub_account_id, countries, created) VALUES (?1, ?2, ?3)",
            params![new.sub_account_id, countries, now.unix_ms()],
        )
        .map_err(|error| named(error, SUB_ACCOUNT, SUB_ACCOUNT))?;
    Ok(SubAccount {
        sub_account_id: new.sub_account_id.clone(),
        countries: new.countries.clone(),
        created: now,
    })
}

pub(crate) fn sub_accounts(connection: &Connection) -> Result<Vec<SubAccount>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT sub_account_id, countries, created FROM sub_accounts ORDER BY sub_account_id",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let countries: String = row.get(1)?;
        found.push(SubAccount {
            sub_account_id: row.get(0)?,
            countries: serde_json::from_str(&countries)
                .map_err(|_| broken("sub_accounts", "the countries are no list"))?,
            created: Timestamp::from_unix_ms(row.get(2)?),
        });
    }
    Ok(found)
}

/// Keeps the hash of a key, for a sub-account or (`None`) as admin key.
pub(crate) fn insert_api_key(
    connection: &Connection,
    hash: &ApiKeyHash,
    sub_account_id: Option<&str>,
    now: Timestamp,
) -> Result<(), Fault> {
    let scope = match sub_account_id {
        Some(_) => SCOPE_SUB_ACCOUNT,
        None => SCOPE_ADMIN,
    };
    connection
        .execute(
            "INSERT INTO api_keys (key_hash, scope, sub_account_id, created) \
             VALUES (?1, ?2, ?3, ?4)",
            params![hash.as_bytes(), scope, sub_account_id, now.unix_ms()],
        )
        .map_err(|error| named(error, "the API key", SUB_ACCOUNT))?;
    Ok(())
}

pub(crate) fn has_admin_key(connection: &Connection) -> Result<bool, Fault> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM api_keys WHERE scope = ?1")?
        .exists([SCOPE_ADMIN])?)
}

pub(crate) fn authenticate(
    connection: &Connection,
    hash: &ApiKeyHash,
) -> Result<Option<ApiKeyScope>, Fault> {
    let found: Option<(Vec<u8>, i64, Option<String>)> = connection
        .prepare_cached("SELECT key_hash, scope, sub_account_id FROM api_keys WHERE key_hash = ?1")?
        .query_row([hash.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((stored, scope, sub_account_id)) = found else {
        return Ok(None);
    };
    if !hash.matches(&stored) {
        return Ok(None);
    }
    match (scope, sub_account_id) {
        (SCOPE_ADMIN, None) => Ok(Some(ApiKeyScope::Admin)),
        (SCOPE_SUB_ACCOUNT, Some(id)) => Ok(Some(ApiKeyScope::SubAccounts(vec![id]))),
        _ => Err(broken("api_keys", "scope and sub-account do not agree")),
    }
}

pub(crate) fn assign_number(
    connection: &Connection,
    new: &NewNumber,
    now: Timestamp,
) -> Result<VirtualNumber, Fault> {
    connection
        .execute(
            "INSERT INTO numbers (msisdn, sub_account_id, reference_id, trunk, country_code, \
             early_media, created, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
            params![
                new.msisdn.as_str(),
                new.sub_account_id,
                new.reference_id,
                new.trunk,
                new.country_code,
                new.early_media.as_str(),
                now.unix_ms()
            ],
        )
        .map_err(|error| named(error, NUMBER, SUB_ACCOUNT))?;
    Ok(VirtualNumber {
        msisdn: new.msisdn.clone(),
        sub_account_id: new.sub_account_id.clone(),
        reference_id: new.reference_id.clone(),
        trunk: new.trunk.clone(),
        country_code: new.country_code.clone(),
        early_media: new.early_media,
        created: now,
        updated: now,
    })
}

/// The columns of a number, as [`read_number`] has them.
const NUMBER_ROW: &str = "msisdn, sub_account_id, reference_id, trunk, country_code, early_media, \
                          created, updated";

pub(crate) fn numbers(
    connection: &Connection,
    sub_account_id: Option<&str>,
) -> Result<Vec<VirtualNumber>, Fault> {
    let filter = match sub_account_id {
        Some(_) => "WHERE sub_account_id = ?1",
        None => "WHERE ?1 IS NULL",
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {NUMBER_ROW} FROM numbers {filter} ORDER BY msisdn"
    ))?;
    let mut rows = statement.query([sub_account_id])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_number(row)?);
    }
    Ok(found)
}

pub(crate) fn number(
    connection: &Connection,
    sub_account_id: &str,
    msisdn: &Msisdn,
) -> Result<Option<VirtualNumber>, Fault> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {NUMBER_ROW} FROM numbers WHERE sub_account_id = ?1 AND msisdn = ?2"
    ))?;
    let mut rows = statement.query([sub_account_id, msisdn.as_str()])?;
    rows.next()?.map(read_number).transpose()
}

pub(crate) fn change_number(
    connection: &Connection,
    sub_account_id: &str,
    msisdn: &Msisdn,
    change: &NumberChange,
    now: Timestamp,
) -> Result<VirtualNumber, Fault> {
    let mut statement = connection.prepare_cached(&format!(
        "UPDATE numbers SET reference_id = COALESCE(?3, reference_id), \
         trunk = CASE ?4 WHEN 1 THEN ?5 ELSE trunk END, \
         early_media = COALESCE(?6, early_media), updated = ?7 \
         WHERE sub_account_id = ?1 AND msisdn = ?2 RETURNING {NUMBER_ROW}"
    ))?;
    let mut rows = statement.query(params![
        sub_account_id,
        msisdn.as_str(),
        change.reference_id,
        i64::from(change.trunk.is_some()),
        change.trunk.as_ref().and_then(Option::as_ref),
        change.early_media.map(EarlyMedia::as_str),
        now.unix_ms()
    ])?;
    let Some(row) = rows.next()? else {
        return Err(StoreError::NotFound { what: NUMBER }.into());
    };
    let changed = read_number(row)?;
    // The statement has to run to its end.
    while rows.next()?.is_some() {}
    Ok(changed)
}

fn read_number(row: &Row<'_>) -> Result<VirtualNumber, Fault> {
    let (msisdn, early_media): (String, String) = (row.get(0)?, row.get(5)?);
    let broken_text = |error: &dyn std::fmt::Display| broken("numbers", error.to_string());
    Ok(VirtualNumber {
        msisdn: Msisdn::parse(&msisdn).map_err(|error| broken_text(&error))?,
        sub_account_id: row.get(1)?,
        reference_id: row.get(2)?,
        trunk: row.get(3)?,
        country_code: row.get(4)?,
        early_media: EarlyMedia::from_str(&early_media).map_err(|error| broken_text(&error))?,
        created: Timestamp::from_unix_ms(row.get(6)?),
        updated: Timestamp::from_unix_ms(row.get(7)?),
    })
}

/// Where a webhook's sealed column is, for the seal.
pub(super) fn webhook_place(
    sub_account_id: &str,
    webhook_type: WebhookType,
    what: &str,
) -> Vec<u8> {
    place(&["webhooks", sub_account_id, webhook_type.as_str(), what])
}

/// Current and previous secrets are sealed for the same place: a rotation moves the one to the other.
pub(super) fn secret_place(sub_account_id: &str, webhook_type: WebhookType) -> Vec<u8> {
    webhook_place(sub_account_id, webhook_type, "signing_secret")
}

pub(crate) fn set_webhook(
    connection: &Connection,
    vault: &Vault,
    new: &NewWebhook,
    now: Timestamp,
) -> Result<Option<String>, Fault> {
    let (id, kind) = (new.sub_account_id.as_str(), new.webhook_type);
    let auth_header = new
        .http_auth_header
        .as_ref()
        .map(|value| vault.seal(&webhook_place(id, kind, "auth_header"), value.as_bytes()))
        .transpose()?;
    settings::forget_if_moved(connection, id, kind, &new.url)?;
    let replaced = connection.execute(
        "UPDATE webhooks SET url = ?3, enabled = ?4, auth_header_sealed = ?5, \
         updated = MAX(?6, updated + 1), \
         failing_since = NULL, disabled_reason = NULL \
         WHERE sub_account_id = ?1 AND webhook_type = ?2",
        params![
            id,
            kind.as_str(),
            new.url,
            i64::from(new.enabled),
            auth_header,
            now.unix_ms()
        ],
    )?;
    if replaced > 0 {
        return Ok(None);
    }
    let secret = secrets::new_signing_secret()?;
    connection
        .execute(
            "INSERT INTO webhooks (sub_account_id, webhook_type, url, enabled, \
             auth_header_sealed, secret_sealed, created, updated) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
            params![
                id,
                kind.as_str(),
                new.url,
                i64::from(new.enabled),
                auth_header,
                vault.seal(&secret_place(id, kind), &secret)?,
                now.unix_ms()
            ],
        )
        .map_err(|error| named(error, WEBHOOK, SUB_ACCOUNT))?;
    Ok(Some(secrets::signing_secret_text(&secret)))
}

const SHOWN: &str = "webhook_type, url, enabled, auth_header_sealed IS NOT NULL";

fn read_webhook(sub_account_id: &str, row: &Row<'_>) -> Result<Webhook, Fault> {
    let kind: String = row.get(0)?;
    Ok(Webhook {
        sub_account_id: sub_account_id.to_owned(),
        webhook_type: read_webhook_type(&kind, "webhooks")?,
        url: row.get(1)?,
        enabled: row.get(2)?,
        http_auth_header_available: row.get(3)?,
    })
}

pub(crate) fn webhooks(
    connection: &Connection,
    sub_account_id: &str,
) -> Result<Vec<Webhook>, Fault> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {SHOWN} FROM webhooks WHERE sub_account_id = ?1"
    ))?;
    let mut rows = statement.query([sub_account_id])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_webhook(sub_account_id, row)?);
    }
    found.sort_by_key(|webhook| webhook.webhook_type);
    Ok(found)
}

pub(crate) fn delete_webhook(
    connection: &Connection,
    sub_account_id: &str,
    webhook_type: WebhookType,
) -> Result<Webhook, Fault> {
    let mut statement = connection.prepare_cached(&format!(
        "DELETE FROM webhooks WHERE sub_account_id = ?1 AND webhook_type = ?2 RETURNING {SHOWN}"
    ))?;
    let mut rows = statement.query([sub_account_id, webhook_type.as_str()])?;
    let Some(row) = rows.next()? else {
        return Err(StoreError::NotFound { what: WEBHOOK }.into());
    };
    let webhook = read_webhook(sub_account_id, row)?;
    // The statement has to run to its end.
    while rows.next()?.is_some() {}
    Ok(webhook)
}

pub(crate) fn disable_webhook(
    connection: &Connection,
    sub_account_id: &str,
    webhook_type: WebhookType,
    revision: i64,
) -> Result<SwitchedOff, Fault> {
    let asked = params![sub_account_id, webhook_type.as_str(), revision];
    let is_enabled = connection
        .prepare_cached(
            "SELECT enabled FROM webhooks \
             WHERE sub_account_id = ?1 AND webhook_type = ?2 AND updated = ?3",
        )?
        .query_row(asked, |row| row.get(0))
        .optional()?;
    match is_enabled {
        None => return Ok(SwitchedOff::No),
        Some(false) => return Ok(SwitchedOff::Before),
        Some(true) => {}
    }
    connection.execute(
        "UPDATE webhooks SET enabled = 0, failing_since = NULL, \
         disabled_reason = 'the receiver answered 410' \
         WHERE sub_account_id = ?1 AND webhook_type = ?2 AND updated = ?3",
        asked,
    )?;
    Ok(SwitchedOff::Now)
}

fn found(changed: usize) -> Result<(), Fault> {
    if changed == 0 {
        return Err(StoreError::NotFound { what: WEBHOOK }.into());
    }
    Ok(())
}

pub(crate) fn rotate_secret(
    connection: &Connection,
    vault: &Vault,
    sub_account_id: &str,
    webhook_type: WebhookType,
    now: Timestamp,
) -> Result<String, Fault> {
    let secret = secrets::new_signing_secret()?;
    let changed = connection.execute(
        "UPDATE webhooks SET previous_secret_sealed = secret_sealed, previous_valid_until = ?4, \
         secret_sealed = ?3, updated = MAX(?5, updated + 1) \
         WHERE sub_account_id = ?1 AND webhook_type = ?2",
        params![
            sub_account_id,
            webhook_type.as_str(),
            vault.seal(&secret_place(sub_account_id, webhook_type), &secret)?,
            now.plus_ms(ROTATION_OVERLAP_MS).unix_ms(),
            now.unix_ms()
        ],
    )?;
    found(changed)?;
    Ok(secrets::signing_secret_text(&secret))
}
