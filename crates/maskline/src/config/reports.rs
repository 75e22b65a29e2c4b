//! `[reports]`: calls that other switches report.

use std::time::Duration;

use maskline_events::reported::LONGEST_IDLE_SECONDS;
use serde::Deserialize;

use super::{ConfigError, Resolver};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    idle_seconds: u32,
}

impl Resolver {
    /// After how long without a report a session is closed.
    pub(super) fn reports(&self, section: &Section) -> Result<Duration, ConfigError> {
        const KEY: &str = "[reports] idle_seconds";
        if !(1..=LONGEST_IDLE_SECONDS).contains(&section.idle_seconds) {
            return Err(self.bad(KEY, "must be within 1 to 86400"));
        }
        Ok(Duration::from_secs(section.idle_seconds.into()))
    }
}
