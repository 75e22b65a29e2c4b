//! The platform's error codes (contract §3).

use serde::{Deserialize, Serialize};

/// Why the platform ended a leg or a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "i32", from = "i32")]
pub enum ErrorCode {
    /// -2001: internal error.
    Internal,
    /// -2002: the VCA endpoint or the trunk was unreachable, timed out or failed.
    Connectivity,
    /// -2003: the callflow is invalid.
    CallflowInvalid,
    /// -2004: no coverage for the requested area.
    NoCoverage,
    /// -2005: text to speech failed.
    TextToSpeech,
    /// -2006: a file for playback could not be downloaded.
    FileDownload,
    /// -2007: the callflow's validity expired.
    CallflowExpired,
    /// -2008: source or caller id not allowed.
    CallerIdNotAllowed,
    /// -2009: scenario parameters invalid.
    ScenarioInvalid,
    /// -2010: trunk capacity exceeded.
    TrunkCapacity,
    /// -9999, and whatever a newer platform may send.
    Unknown,
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Internal => -2001,
            Self::Connectivity => -2002,
            Self::CallflowInvalid => -2003,
            Self::NoCoverage => -2004,
            Self::TextToSpeech => -2005,
            Self::FileDownload => -2006,
            Self::CallflowExpired => -2007,
            Self::CallerIdNotAllowed => -2008,
            Self::ScenarioInvalid => -2009,
            Self::TrunkCapacity => -2010,
            Self::Unknown => -9999,
        }
    }

    /// The code's general meaning; `errorMsg` may say more.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Internal => "Internal error",
            Self::Connectivity => "Internal connectivity error",
            Self::CallflowInvalid => "Callflow invalid",
            Self::NoCoverage => "No coverage for the requested area",
            Self::TextToSpeech => "Text to speech failed",
            Self::FileDownload => "File for playback could not be downloaded",
            Self::CallflowExpired => "Validity of the callflow expired",
            Self::CallerIdNotAllowed => "Source or caller id not whitelisted",
            Self::ScenarioInvalid => "Scenario parameters invalid",
            Self::TrunkCapacity => "Trunk capacity exceeded",
            Self::Unknown => "Unknown error",
        }
    }
}

impl From<ErrorCode> for i32 {
    fn from(code: ErrorCode) -> Self {
        code.code()
    }
}

impl From<i32> for ErrorCode {
    fn from(code: i32) -> Self {
        match code {
            -2001 => Self::Internal,
            -2002 => Self::Connectivity,
            -2003 => Self::CallflowInvalid,
            -2004 => Self::NoCoverage,
            -2005 => Self::TextToSpeech,
            -2006 => Self::FileDownload,
            -2007 => Self::CallflowExpired,
            -2008 => Self::CallerIdNotAllowed,
            -2009 => Self::ScenarioInvalid,
            -2010 => Self::TrunkCapacity,
            _ => Self::Unknown,
        }
    }
}

/// `errorDetails` of an event or a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorDetails {
    /// The code.
    pub error_code: ErrorCode,
    /// What happened, for a person. Holds no phone number.
    pub error_msg: String,
}

impl ErrorDetails {
    /// The code with its general meaning.
    #[must_use]
    pub fn new(error_code: ErrorCode) -> Self {
        Self::with_reason(error_code, "")
    }

    /// The code, its general meaning and what exactly happened (empty: nothing to add).
    #[must_use]
    pub fn with_reason(error_code: ErrorCode, reason: &str) -> Self {
        let error_msg = if reason.is_empty() {
            error_code.message().to_owned()
        } else {
            format!("{}: {reason}", error_code.message())
        };
        Self {
            error_code,
            error_msg,
        }
    }
}
