//! TLS of a webhook, as the API takes and shows it.

use std::fmt;

use maskline_store::{SettingsFault, TlsSettings, is_https};
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::secret::Text;

const WHAT: &str = "has to be an object of ca, clientCertificate and clientKey";

/// TLS of a webhook's own; only for https. PEM of at most 16 kB in each field.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TlsBody {
    /// Certificates of authorities: the receiver's certificate has to come from one of these, and no
    /// other is trusted. Null: those of the system.
    #[schema(value_type = Option<String>, example = "-----BEGIN CERTIFICATE-----\n…")]
    ca: Text,
    /// The certificate that is shown to the receiver, and those between it and its authority.
    #[schema(value_type = Option<String>, example = "-----BEGIN CERTIFICATE-----\n…")]
    client_certificate: Text,
    /// The certificate's private key, not encrypted. Null: as it was. Never shown.
    #[schema(value_type = Option<String>)]
    client_key: Text,
}

impl<'de> Deserialize<'de> for TlsBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = TlsBody;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WHAT)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TlsBody, A::Error> {
                let mut tls = TlsBody {
                    ca: Text::default(),
                    client_certificate: Text::default(),
                    client_key: Text::default(),
                };
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "ca" => tls.ca = map.next_value()?,
                        "clientCertificate" => tls.client_certificate = map.next_value()?,
                        "clientKey" => tls.client_key = map.next_value()?,
                        _ => return Err(A::Error::custom(WHAT)),
                    }
                }
                Ok(tls)
            }

            // What was sent is not repeated: it may be a key in the wrong place.
            fn visit_str<E: Error>(self, _: &str) -> Result<TlsBody, E> {
                Err(E::custom(WHAT))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TlsBody, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Err(A::Error::custom(WHAT))
            }
        }

        deserializer.deserialize_any(Fields)
    }
}

impl From<TlsSettings> for TlsBody {
    fn from(tls: TlsSettings) -> Self {
        Self {
            ca: Text(tls.ca),
            client_certificate: Text(tls.client_certificate),
            client_key: Text(None),
        }
    }
}

/// What TLS becomes, with its key, if that can be used: a key that is not given stays what it was.
pub(super) fn tls(
    wanted: Option<&TlsBody>,
    url: &str,
    key_was: Option<&String>,
) -> Result<(Option<TlsSettings>, Option<String>), SettingsFault> {
    let Some(wanted) = wanted else {
        return Ok((None, None));
    };
    let tls = TlsSettings {
        ca: wanted.ca.0.clone(),
        client_certificate: wanted.client_certificate.0.clone(),
    };
    let kept = key_was.filter(|_| tls.client_certificate.is_some());
    let key = wanted.client_key.0.as_ref().or(kept).cloned();
    if tls == TlsSettings::default() && key.is_none() {
        return Ok((None, None));
    }
    if !is_https(url) {
        return Err(SettingsFault::new(
            "tls",
            "is for a webhook whose url is https: set the webhook anew first, or leave it out",
        ));
    }
    Ok((Some(tls), key))
}
