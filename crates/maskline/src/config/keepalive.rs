//! `[trunk.keepalive]`: what keeps a trunk's way open.

use std::time::Duration;

use maskline_switch::Keepalive;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Block {
    crlf_seconds: u32,
}

impl Block {
    pub(super) fn resolve(&self) -> Keepalive {
        let seconds = u64::from(self.crlf_seconds);
        Keepalive {
            crlf: (seconds > 0).then(|| Duration::from_secs(seconds)),
        }
    }
}
