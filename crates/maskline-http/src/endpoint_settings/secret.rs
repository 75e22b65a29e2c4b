//! What of a webhook's settings is taken and not shown: headers and keys. An error here repeats
//! nothing of what was sent.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderName, HeaderValue};
use maskline_store::SettingsFault;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Headers of one webhook.
const MOST_HEADERS: usize = 16;
/// Names and values together.
const MOST_HEADER_BYTES: usize = 4_096;

/// What we write ourselves, what frames the request or the connection, and what only a proxy may.
const RESERVED: [&str; 14] = [
    "authorization",
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
const RESERVED_PREFIXES: [&str; 3] = ["content-", "proxy-", "webhook-"];

/// A text that a fault never repeats.
#[derive(Default, Serialize)]
pub(super) struct Text(pub(super) Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Null => Ok(Self(None)),
            serde_json::Value::String(text) => Ok(Self(Some(text))),
            serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => Err(D::Error::custom("has to be a string or null")),
        }
    }
}

/// Headers to be sent along: names, and values or null.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Headers(pub(super) BTreeMap<String, Text>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named;

        impl<'de> Visitor<'de> for Named {
            type Value = Headers;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of header names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Text>()? {
                    if headers.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name is there twice"));
                    }
                }
                Ok(Headers(headers))
            }

            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Headers, E> {
                Err(E::custom("has to be an object of header names and values"))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Headers, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Err(A::Error::custom(
                    "has to be an object of header names and values",
                ))
            }
        }

        deserializer.deserialize_any(Named)
    }
}

/// The headers that are sent from now on: a null value stays what it was.
pub(super) fn headers(
    wanted: Option<&Headers>,
    was: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, SettingsFault> {
    let Some(Headers(wanted)) = wanted else {
        return Ok(BTreeMap::new());
    };
    if wanted.len() > MOST_HEADERS {
        let reason = format!("has to hold {MOST_HEADERS} headers at most");
        return Err(SettingsFault::new("headers", reason));
    }
    let mut headers = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (written, value) in wanted {
        let field = format!("headers.{written}");
        let refused = |reason: &str| Err(SettingsFault::new(&field, reason));
        let Ok(name) = HeaderName::from_bytes(written.as_bytes()) else {
            return refused("is no header name");
        };
        let name = name.as_str();
        if RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|it| name.starts_with(it)) {
            return refused(if name == "authorization" {
                "can't be set here: set httpAuthHeader of the webhook"
            } else {
                "can't be set: Maskline or the connection has it for itself"
            });
        }
        if !seen.insert(name.to_owned()) {
            return refused("is there twice");
        }
        let value = match (&value.0, was.get(name)) {
            (Some(value), _) => value,
            (None, Some(kept)) => kept,
            (None, None) => return refused("has no value that could be kept: give one"),
        };
        if value.is_empty() || value.trim() != value {
            return refused("is empty, or begins or ends with a space");
        }
        if !value.is_ascii() || HeaderValue::from_str(value).is_err() {
            return refused("is no header value: visible ASCII, space and tab only");
        }
        headers.insert(name.to_owned(), value.clone());
    }
    let bytes: usize = headers.iter().map(|(name, it)| name.len() + it.len()).sum();
    if bytes > MOST_HEADER_BYTES {
        let reason = format!("holds more than {MOST_HEADER_BYTES} bytes of names and values");
        return Err(SettingsFault::new("headers", reason));
    }
    Ok(headers)
}
