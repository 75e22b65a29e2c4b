//! `[trunk.keepalive]`: what keeps a trunk's way open.

use std::time::Duration;

use maskline_switch::Keepalive;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Block {
    crlf_seconds: u32,
    options_seconds: u32,
}

impl Block {
    pub(super) fn resolve(&self) -> Keepalive {
        let every = |seconds: u32| (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)));
        Keepalive {
            crlf: every(self.crlf_seconds),
            options: every(self.options_seconds),
        }
    }
}
