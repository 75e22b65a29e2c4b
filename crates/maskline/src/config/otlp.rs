//! `[otlp]`: where traces are exported to.

use serde::Deserialize;

use super::{ConfigError, Resolver};

const KEY: &str = "[otlp] endpoint";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    endpoint: String,
    service_name: String,
}

/// A collector that takes OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtlpConfig {
    /// `HOST:PORT`.
    pub(crate) authority: String,
    /// Where traces go there.
    pub(crate) path: String,
    /// What this node is called there.
    pub(crate) service_name: String,
}

impl Resolver {
    /// `None`: nothing is exported.
    pub(super) fn otlp(&self, section: Section) -> Result<Option<OtlpConfig>, ConfigError> {
        if section.endpoint.is_empty() {
            return Ok(None);
        }
        let Some(rest) = section.endpoint.strip_prefix("http://") else {
            return Err(self.bad(
                KEY,
                "must begin with http://: a collector on this machine or network takes it, and speaks TLS from there on",
            ));
        };
        let (authority, base) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let is_plain = |text: &str| text.bytes().all(|it| it.is_ascii_graphic());
        if !has_port || authority.contains('@') || !is_plain(rest) || base.contains(['?', '#']) {
            return Err(self.bad(KEY, "must be http://HOST:PORT, as in http://127.0.0.1:4318"));
        }
        let base = base.trim_end_matches('/');
        let path = match base {
            "" => "/v1/traces".to_owned(),
            base => format!("/{base}/v1/traces"),
        };
        Ok(Some(OtlpConfig {
            authority: authority.to_owned(),
            path,
            service_name: section.service_name,
        }))
    }
}
