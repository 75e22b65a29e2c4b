//! Callflows: what a VCA endpoint answers (contract §4), checked whole before they run.

use crate::msisdn::Msisdn;

/// A checked callflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Callflow {
    /// Echoed with `ACTION_COMPLETED`.
    pub client_action_id: Option<String>,
    /// In order; empty means `hangup`.
    pub actions: Vec<Action>,
}

/// One action of a callflow.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Connect the caller to `destination`, showing `source`.
    MakeCall {
        /// One of the sub-account's virtual numbers.
        source: Msisdn,
        /// Whom to call.
        destination: Msisdn,
        /// Whether to record from the bridge on.
        call_recording: bool,
    },
    /// Speak a text.
    Say {
        /// At most 3,000 characters.
        text: String,
        /// The voice's name.
        voice_profile: String,
        /// 1-3, default 1.
        repetition: u8,
        /// 0.5-2.0, default 1.0.
        speed: f32,
    },
    /// Play a file.
    PlayFile {
        /// An http or https URL.
        file_url: String,
        /// 1-3, default 1.
        repetition: u8,
    },
    /// Speak, then wait for keys.
    SayAndCapture(Box<SayAndCapture>),
    /// End the session.
    Hangup,
}

/// The parameters of `sayAndCapture`.
#[derive(Clone, Debug, PartialEq)]
pub struct SayAndCapture {
    /// What is asked.
    pub prompt_message: String,
    /// The voice's name.
    pub voice_profile: String,
    /// Said after a valid capture.
    pub success_message: Option<String>,
    /// Said after an invalid one.
    pub failure_message: Option<String>,
    /// 0.5-2.0, default 1.0.
    pub speed: f32,
    /// Fewest keys.
    pub min_digits: Option<u8>,
    /// Most keys, at most 25.
    pub max_digits: Option<u8>,
    /// Milliseconds between keys.
    pub digit_timeout_ms: Option<u32>,
    /// Milliseconds for all keys.
    pub overall_timeout_ms: Option<u32>,
    /// Whether `#` ends the capture; default true.
    pub complete_on_hash: bool,
    /// Default 3.
    pub no_of_tries: u8,
}

/// Why an answer is no callflow: where, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct CallflowFault {
    /// JSON path of the fault, such as `$.callflow[0].params.source`.
    pub path: String,
    /// What is wrong and what was expected. Holds no phone number.
    pub reason: String,
}

impl Callflow {
    /// Largest answer that is looked at, in bytes.
    pub const MAX_BYTES: usize = 256 * 1024;
}
