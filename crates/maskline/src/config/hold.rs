//! `[media] hold`: what a party on hold hears.

use std::path::PathBuf;

use maskline_media::HoldAudio;

use super::{Config, ConfigError, Resolver};
use crate::music;

const HOLD: &str = "[media] hold";

/// What a party on hold hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HoldSource {
    /// Nothing.
    Silence,
    /// The built-in tone.
    Tone,
    /// A WAV file.
    File(PathBuf),
}

impl HoldSource {
    /// Whether it is more than nothing.
    pub(crate) const fn is_heard(&self) -> bool {
        match self {
            Self::Silence => false,
            Self::Tone | Self::File(_) => true,
        }
    }
}

impl Resolver {
    pub(super) fn hold(&self, text: &str) -> Result<HoldSource, ConfigError> {
        match (text, text.split_once(':')) {
            ("silence", _) => Ok(HoldSource::Silence),
            ("tone", _) => Ok(HoldSource::Tone),
            (_, Some(("file", path))) if !path.is_empty() => Ok(HoldSource::File(path.into())),
            (_, _) => {
                let reason = format!("{text:?} is not \"tone\", \"silence\" or \"file:PATH\"");
                Err(self.bad(HOLD, reason))
            }
        }
    }
}

impl Config {
    /// Makes or reads what a party on hold hears, as [`crate::node::Node::start`] will.
    ///
    /// # Errors
    /// The file can't be used: why, and what is wanted.
    pub(crate) fn hold_audio(&self) -> Result<Option<HoldAudio>, ConfigError> {
        match &self.hold {
            HoldSource::Silence => Ok(None),
            HoldSource::Tone => Ok(Some(HoldAudio::tone())),
            HoldSource::File(path) => music::load(path)
                .map(Some)
                .map_err(|fault| self.fault(HOLD, format!("{}: {fault:#}", path.display()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let config = load("[media]\nhold = \"file:/nowhere/music.wav\"").unwrap();
        let error = config.hold_audio().unwrap_err().to_string();
        assert!(
            error.contains("[media] hold: /nowhere/music.wav: ") && error.contains("No such file"),
            "{error}"
        );
        let quiet = load("[media]\nhold = \"silence\"").unwrap();
        assert_eq!(quiet.hold_audio().unwrap(), None);
    }
}
