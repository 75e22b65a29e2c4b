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
    /// A WAV file; with rtpengine, a file of any kind on the machines where that runs.
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
    /// `elsewhere`: the audio is carried by an engine that has no tone of ours, and files of its own.
    pub(super) fn hold(&self, text: &str, elsewhere: bool) -> Result<HoldSource, ConfigError> {
        let source = match (text, text.split_once(':')) {
            ("silence", _) => HoldSource::Silence,
            ("tone", _) => HoldSource::Tone,
            (_, Some(("file", path))) if !path.is_empty() => HoldSource::File(path.into()),
            (_, _) => {
                let reason = format!("{text:?} is not \"tone\", \"silence\" or \"file:PATH\"");
                return Err(self.bad(HOLD, reason));
            }
        };
        Ok(match source {
            HoldSource::Tone if elsewhere => HoldSource::Silence,
            HoldSource::Silence | HoldSource::Tone | HoldSource::File(_) => source,
        })
    }
}

impl Config {
    /// Makes or reads what a party on hold hears, as [`crate::node::Node::start`] will, if we play it.
    ///
    /// # Errors
    /// The file can't be used: why, and what is wanted.
    pub(crate) fn hold_audio(&self) -> Result<Option<HoldAudio>, ConfigError> {
        if self.rtpengine.is_some() {
            return Ok(None);
        }
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

    #[test]
    fn with_rtpengine_there_is_silence_or_a_file_that_it_has() {
        let with = |hold: &str| {
            load(&format!(
                "[media]\nengine = \"rtpengine\"\n{hold}\n[media.rtpengine]\ninstances = [\"127.0.0.1:2223\"]"
            ))
        };
        assert!(!with("").unwrap().hold.is_heard());
        let config = with("hold = \"file:/there/music.wav\"").unwrap();
        assert!(config.hold.is_heard());
        assert_eq!(config.hold_audio().unwrap(), None, "it is not read here");
        let daemons = config.rtpengine.unwrap();
        assert_eq!(daemons.hold_file.as_deref(), Some("/there/music.wav"));
    }
}
