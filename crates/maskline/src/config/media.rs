//! `[media]`: the sockets of the audio, and what becomes of it.

use serde::Deserialize;

/// The table as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Media {
    pub(super) address: String,
    pub(super) ports: String,
    pub(super) public_address: String,
    pub(super) silence_seconds: u32,
    pub(super) transcode: bool,
}
