//! Callflows: what a VCA endpoint answers (contract §4), checked whole before they run.
//!
//! What lives elsewhere: running a callflow, and what needs more than the text to decide, such as
//! whether `source` is one of the sub-account's numbers (`maskline-switch`).

mod check;

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
    /// Most actions of one callflow.
    pub const MAX_ACTIONS: usize = 50;
    /// Longest text that is spoken, in characters.
    pub const MAX_TEXT_CHARS: usize = 3_000;
    /// Longest `clientActionId` and `voiceProfile`, in characters.
    pub const MAX_NAME_CHARS: usize = 256;
    /// Longest `fileUrl`, in bytes.
    pub const MAX_URL_BYTES: usize = 2_048;
    /// Most keys of one capture.
    pub const MAX_DIGITS: u8 = 25;

    /// Reads an answer of a VCA endpoint and checks it whole.
    ///
    /// Fields that the contract does not name are ignored, and a `null` counts as absent. The
    /// work is bounded by [`Callflow::MAX_BYTES`] and by a nesting of 128.
    ///
    /// # Errors
    /// The first fault in document order, with its JSON path. A parameter that fits only together
    /// with another (`digitTimeout` and `overallTimeout`, say) is checked after each on its own.
    pub fn parse(body: &[u8]) -> Result<Self, CallflowFault> {
        check::callflow(body)
    }
}
