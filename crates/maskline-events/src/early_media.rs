//! What a caller hears of the callee before the answer: a virtual number's policy.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a caller of a virtual number hears until the callee answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EarlyMedia {
    /// The ringing tone that the caller's own carrier makes, whatever the callee sends.
    #[default]
    Ringback,
    /// What the callee's side sends: its ringing tone, an announcement.
    PassThrough,
}

impl EarlyMedia {
    /// As the API and the store write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ringback => "ringback",
            Self::PassThrough => "passThrough",
        }
    }
}

/// A text that names no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("early media is `ringback` or `passThrough`")]
pub struct UnknownEarlyMedia;

impl FromStr for EarlyMedia {
    type Err = UnknownEarlyMedia;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Ringback, Self::PassThrough]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or(UnknownEarlyMedia)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_written_and_read_by_the_same_word_everywhere() {
        for policy in [EarlyMedia::Ringback, EarlyMedia::PassThrough] {
            let json = serde_json::to_string(&policy).unwrap();
            assert_eq!(json, format!("\"{}\"", policy.as_str()));
            assert_eq!(serde_json::from_str::<EarlyMedia>(&json).unwrap(), policy);
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        assert_eq!("Ringback".parse::<EarlyMedia>(), Err(UnknownEarlyMedia));
        assert_eq!(EarlyMedia::default(), EarlyMedia::Ringback);
    }
}
