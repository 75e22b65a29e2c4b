//! `[media.rtpengine]`: the daemons that carry the audio, if the built-in engine does not.

use std::net::SocketAddr;
use std::time::Duration;

use maskline_rtpengine::RtpengineConfig;
use maskline_switch::Trunk;
use maskline_switch::sdp::SrtpPolicy;
use serde::Deserialize;

use super::hold::HoldSource;
use super::media::Media;
use super::{ConfigError, Resolver};

/// The table as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    instances: Vec<String>,
    dtmf_listen: String,
}

impl Resolver {
    /// `None`: the built-in engine.
    pub(super) fn rtpengine(
        &self,
        media: &Media,
        silence: Duration,
        max_sessions: usize,
    ) -> Result<Option<RtpengineConfig>, ConfigError> {
        const INSTANCES: &str = "[media.rtpengine] instances";
        match media.engine.as_str() {
            "built-in" => return Ok(None),
            "rtpengine" => {}
            other => {
                return Err(self.bad(
                    "[media] engine",
                    format!("{other:?} is neither \"built-in\" nor \"rtpengine\""),
                ));
            }
        }
        if !media.second_address.is_empty() {
            return Err(self.bad(
                "[media] second_address",
                "needs [media] engine = \"built-in\": with rtpengine there is one family, that of address",
            ));
        }
        let written = &media.rtpengine;
        let mut instances: Vec<SocketAddr> = Vec::new();
        for text in &written.instances {
            let instance = self.parse(INSTANCES, text, "ADDRESS:PORT")?;
            if instances.contains(&instance) {
                return Err(self.bad(INSTANCES, format!("{instance} stands there twice")));
            }
            instances.push(instance);
        }
        if instances.is_empty() {
            return Err(self.bad(
                INSTANCES,
                "must name at least one: where it listens by its option --listen-ng",
            ));
        }
        let dtmf_listen = match written.dtmf_listen.as_str() {
            "" => None,
            text => Some(self.parse("[media.rtpengine] dtmf_listen", text, "ADDRESS:PORT")?),
        };
        Ok(Some(RtpengineConfig {
            instances,
            dtmf_listen,
            hold_file: match self.hold(&media.hold, true)? {
                HoldSource::File(path) => Some(path.display().to_string()),
                HoldSource::Silence | HoldSource::Tone => None,
            },
            silence,
            max_sessions,
        }))
    }

    /// The daemons are told no keys.
    pub(super) fn srtp_of_engine(
        &self,
        media: &Media,
        trunks: &[Trunk],
    ) -> Result<(), ConfigError> {
        let encrypts = |trunk: &&Trunk| trunk.srtp != SrtpPolicy::Off;
        match trunks.iter().find(encrypts) {
            Some(trunk) if media.engine != "built-in" => Err(self.bad(
                &format!("[[trunk]] {:?} srtp", trunk.name),
                "needs [media] engine = \"built-in\", which encrypts",
            )),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    #[test]
    fn only_the_built_in_engine_encrypts() {
        let error = load(
            "[media]\nengine = \"rtpengine\"\nrtpengine.instances = [\"192.0.2.1:2223\"]\n\
             [[trunk]]\nname = \"a\"\naddress = \"192.0.2.1:5061\"\nallow = []\n\
             transport = \"tls\"\nsrtp = \"accepted\"\n",
        )
        .unwrap_err();
        assert_eq!(error.key, "[[trunk]] \"a\" srtp");
        assert!(error.to_string().contains("built-in"), "{error}");
    }

    #[test]
    fn rtpengine_is_named_by_its_instances() {
        assert!(load("").unwrap().rtpengine.is_none());
        let named = "engine = \"rtpengine\"\n[media.rtpengine]\n";
        let config = load(&format!(
            "[media]\n{named}instances = [\"192.0.2.1:2223\", \"[2001:db8::1]:2223\"]"
        ));
        let config = config.unwrap().rtpengine.unwrap();
        assert_eq!(config.instances.len(), 2);
        assert_eq!(config.dtmf_listen, None);
        for (text, key, reason) in [
            ("engine = \"x\"", "[media] engine", "neither"),
            ("engine = \"rtpengine\"", "instances", "at least one"),
            (
                "engine = \"rtpengine\"\nsecond_address = \"::1\"",
                "second_address",
                "built-in",
            ),
            (
                &format!("{named}instances = [\"x\"]"),
                "instances",
                "ADDRESS:PORT",
            ),
            (
                &format!("{named}instances = [\"192.0.2.1:1\", \"192.0.2.1:1\"]"),
                "instances",
                "twice",
            ),
            (
                &format!("{named}instances = [\"192.0.2.1:1\"]\ndtmf_listen = \"x\""),
                "dtmf_listen",
                "ADDRESS:PORT",
            ),
        ] {
            let error = load(&format!("[media]\n{text}")).unwrap_err();
            assert!(error.key.contains(key), "{text}: {error}");
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }
}
