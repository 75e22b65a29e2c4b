//! Fields that a sub-account adds to its call events (contract §3.1): what may be configured, and the
//! text that an event gets.
//!
//! What lives elsewhere: keeping them (`maskline-store`), the HTTP API, when a body is made
//! (`maskline-switch`).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call_status::{CallDirection, CallStatusPayload};
use crate::msisdn::Msisdn;
use crate::redaction::KEPT;

/// Most entries of a sub-account.
pub const MOST_ENTRIES: usize = 200;
/// Most bytes that an event grows by.
pub const MOST_BYTES: usize = 2_048;
/// The longest name, bytes.
const LONGEST_NAME: usize = 64;
/// What a value of the session takes at most: a reference id of 100 characters.
const SESSION_VALUE_BYTES: usize = 402;

/// Every field that a VCS or VCA payload may have, also where it has none of its own now.
pub const CONTRACT_FIELDS: [&str; 22] = [
    "eventId",
    "callId",
    "sessionId",
    "subAccountId",
    "callStatus",
    "callDirection",
    "callType",
    "source",
    "destination",
    "sourceFormat",
    "destinationFormat",
    "sourceCountryCode",
    "destinationCountryCode",
    "callDuration",
    "sipCode",
    "timestamp",
    "sequence",
    "sourceRefId",
    "destinationRefId",
    "eventData",
    "errorDetails",
    "clientActionId",
];

/// A value that depends on the call. None holds a phone number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionValue {
    /// The virtual number's reference id, on either leg; left out where there is none.
    ReferenceId,
    /// The sub-account.
    SubAccountId,
    /// `A` or `B`.
    Leg,
}

/// One configured field: a name, its value, and the calls that it is for. With neither `country` nor
/// `prefix` it is for all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParameterEntry {
    /// The field's name.
    pub name: String,
    /// A value that is always the same: a text, a number or a boolean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Or one of the call's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SessionValue>,
    /// Only where the destination is in this country, ISO 3166-1 alpha-2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Or only where the destination begins with this, with or without `+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// The entry that can't be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[{index}].{field}: {reason}")]
pub struct ParameterFault {
    /// Which entry, from 0.
    pub index: usize,
    /// Its field.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// The fields of a sub-account, ready to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventParameters {
    /// By the name in lower case, so that the order is always the same.
    names: BTreeMap<String, Named>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    name: String,
    /// The most specific first.
    rules: Vec<(Scope, Given)>,
}

/// What a rule is for, the least specific first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    All,
    Country(String),
    Prefix { digits: usize, prefix: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    /// JSON.
    Static(String),
    Of(SessionValue),
}

impl EventParameters {
    /// Checks what was configured. `is_country` knows the codes that are assigned.
    ///
    /// # Errors
    /// The first entry that can't be used.
    pub fn new(
        entries: &[ParameterEntry],
        is_country: impl Fn(&str) -> bool,
    ) -> Result<Self, ParameterFault> {
        let fault = |index, field, reason: String| ParameterFault {
            index,
            field,
            reason,
        };
        if entries.len() > MOST_ENTRIES {
            let reason = format!("is beyond the {MOST_ENTRIES} entries that there may be");
            return Err(fault(MOST_ENTRIES, "name", reason));
        }
        let mut parameters = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            let name = check_name(&entry.name).map_err(|it| fault(index, "name", it))?;
            let scope = scope(entry, &is_country).map_err(|(at, it)| fault(index, at, it))?;
            let given = given(entry).map_err(|it| fault(index, "value", it))?;
            let named = parameters.names.entry(name).or_insert_with(|| Named {
                name: entry.name.clone(),
                rules: Vec::new(),
            });
            if named.name != entry.name {
                let reason = "differs from another name by its capitals alone".to_owned();
                return Err(fault(index, "name", reason));
            }
            if named.rules.iter().any(|(known, _)| *known == scope) {
                let reason = "is there already for the same destinations".to_owned();
                return Err(fault(index, "name", reason));
            }
            named.rules.push((scope, given));
            named.rules.sort_by(|(one, _), (other, _)| other.cmp(one));
            let most = parameters.most_bytes();
            if most > MOST_BYTES {
                let reason = format!("an event may grow by {MOST_BYTES} bytes, not by {most}");
                return Err(fault(index, "value", reason));
            }
        }
        Ok(parameters)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds them to the body of a VCS or VCA request, which says of the call what `payload` does. The
    /// rest of the body stays as it is, byte for byte.
    pub fn add_to(&self, body: &mut String, payload: &CallStatusPayload) {
        // The payload is the envelope's last field, and never empty.
        let Some(before) = body.strip_suffix("}}").map(str::len) else {
            return;
        };
        body.truncate(before);
        for named in self.names.values() {
            let rule = named.rules.iter().find(|(scope, _)| scope.covers(payload));
            let Some(value) = rule.and_then(|(_, given)| given.json(payload)) else {
                continue;
            };
            body.push_str(",\"");
            body.push_str(&named.name);
            body.push_str("\":");
            body.push_str(&value);
        }
        body.push_str("}}");
    }

    /// Most bytes that an event grows by.
    fn most_bytes(&self) -> usize {
        let of = |named: &Named| {
            let longest = named.rules.iter().map(|(_, given)| given.most_bytes());
            named.name.len() + 4 + longest.max().unwrap_or(0)
        };
        self.names.values().map(of).sum()
    }
}

impl Scope {
    fn covers(&self, payload: &CallStatusPayload) -> bool {
        match self {
            Self::All => true,
            Self::Country(country) => payload.destination_country_code.as_ref() == Some(country),
            Self::Prefix { prefix, .. } => payload
                .destination
                .number()
                .is_some_and(|number| number.digits().starts_with(prefix)),
        }
    }
}

impl Given {
    fn json(&self, payload: &CallStatusPayload) -> Option<String> {
        match self {
            Self::Static(json) => Some(json.clone()),
            Self::Of(SessionValue::ReferenceId) => {
                let on_a = payload.destination_ref_id.as_deref();
                on_a.or(payload.source_ref_id.as_deref()).map(text)
            }
            Self::Of(SessionValue::SubAccountId) => Some(text(&payload.sub_account_id)),
            Self::Of(SessionValue::Leg) => Some(text(match payload.call_direction {
                CallDirection::Inbound => "A",
                CallDirection::Outbound => "B",
            })),
        }
    }

    fn most_bytes(&self) -> usize {
        match self {
            Self::Static(json) => json.len(),
            Self::Of(_) => SESSION_VALUE_BYTES,
        }
    }
}

fn text(of: &str) -> String {
    Value::from(of).to_string()
}

/// The name in lower case: readers that do not tell capitals apart must find no second field either.
fn check_name(name: &str) -> Result<String, String> {
    let is_word = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    let begins_well = name
        .bytes()
        .next()
        .is_some_and(|it| it.is_ascii_alphabetic());
    if !begins_well || name.len() > LONGEST_NAME || !name.bytes().all(is_word) {
        return Err(format!(
            "is not 1 to {LONGEST_NAME} letters, digits and `_`, with a letter first"
        ));
    }
    if let Some(field) = CONTRACT_FIELDS
        .iter()
        .chain(&KEPT)
        .find(|field| field.eq_ignore_ascii_case(name))
    {
        return Err(format!("must not be that of the field `{field}`"));
    }
    Ok(name.to_ascii_lowercase())
}

fn scope(
    entry: &ParameterEntry,
    is_country: impl Fn(&str) -> bool,
) -> Result<Scope, (&'static str, String)> {
    match (&entry.country, &entry.prefix) {
        (None, None) => Ok(Scope::All),
        (Some(_), Some(_)) => Err(("prefix", "can't stand beside `country`".to_owned())),
        (Some(country), None) if is_country(country) => Ok(Scope::Country(country.clone())),
        (Some(_), None) => {
            let reason = "is no assigned ISO 3166-1 alpha-2 code in upper case";
            Err(("country", reason.to_owned()))
        }
        (None, Some(text)) => {
            let prefix = text.strip_prefix('+').unwrap_or(text);
            let fits = (1..=Msisdn::MAX_DIGITS).contains(&prefix.len());
            if !fits || prefix.starts_with('0') || !prefix.bytes().all(|it| it.is_ascii_digit()) {
                let reason = "is no beginning of an MSISDN: 1 to 15 digits, not 0 first";
                return Err(("prefix", reason.to_owned()));
            }
            Ok(Scope::Prefix {
                digits: prefix.len(),
                prefix: prefix.to_owned(),
            })
        }
    }
}

fn given(entry: &ParameterEntry) -> Result<Given, String> {
    match (&entry.value, entry.from) {
        (Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))), None) => {
            Ok(Given::Static(value.to_string()))
        }
        (None, Some(from)) => Ok(Given::Of(from)),
        (Some(Value::Null | Value::Array(_) | Value::Object(_)), None) => {
            Err("must be a text, a number or a boolean".to_owned())
        }
        (Some(_), Some(_)) | (None, None) => {
            Err("an entry has either a `value` or a `from`".to_owned())
        }
    }
}
