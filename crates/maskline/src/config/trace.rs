//! `[trace]`: whether and for how long it is kept how calls went.

use serde::Deserialize;

use super::{ConfigError, Resolver};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    enabled: bool,
    keep_hours: u32,
    max_mib: u32,
}

/// What is kept of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceConfig {
    /// Whether anything is.
    pub(crate) enabled: bool,
    /// For so long, milliseconds.
    pub(crate) keep_ms: i64,
    /// At most so much.
    pub(crate) max_bytes: u64,
}

impl Resolver {
    pub(super) fn trace(&self, section: &Section) -> Result<TraceConfig, ConfigError> {
        let hours = self.positive("[trace] keep_hours", section.keep_hours)?;
        let mib = self.positive("[trace] max_mib", section.max_mib)?;
        Ok(TraceConfig {
            enabled: section.enabled,
            keep_ms: i64::from(hours) * 3_600_000,
            max_bytes: u64::from(mib) << 20,
        })
    }
}
