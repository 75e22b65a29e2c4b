//! The `[[trunk]]` blocks: one carrier connection each.

use std::net::IpAddr;

use ipnet::IpNet;
use maskline_net::TlsTrunk;
use maskline_switch::Trunk;
use maskline_switch::sdp::SrtpPolicy;
use maskline_switch::sip::Transport;
use serde::Deserialize;

use super::{ConfigError, Resolver, keepalive, routing, tls};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Block {
    name: String,
    address: String,
    #[serde(default = "auto")]
    transport: String,
    allow: Vec<String>,
    #[serde(default)]
    media_sources: Vec<String>,
    #[serde(default = "default_max_calls")]
    max_calls: u32,
    #[serde(default = "default_calls_per_second")]
    max_calls_per_second: u32,
    #[serde(default)]
    max_calls_per_source_per_second: Option<u32>,
    #[serde(default)]
    identity: super::identity::Block,
    #[serde(default)]
    tls: tls::OfTrunk,
    #[serde(default)]
    auth: super::auth::Block,
    registration: Option<super::registration::Block>,
    #[serde(default)]
    keepalive: keepalive::Block,
    #[serde(default)]
    dtmf: Dtmf,
    #[serde(default)]
    overflow: Vec<String>,
    #[serde(default = "off")]
    srtp: String,
}

fn off() -> String {
    "off".to_owned()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dtmf {
    #[serde(default)]
    inband: bool,
}

fn auto() -> String {
    routing::AUTO.to_owned()
}

const fn default_max_calls() -> u32 {
    1000
}

const fn default_calls_per_second() -> u32 {
    100
}

impl Resolver {
    /// The trunks, and the files that TLS needs for each. `host` is what `Via` and `Contact` name.
    pub(super) fn trunks(
        &self,
        blocks: Vec<Block>,
        host: &str,
    ) -> Result<(Vec<Trunk>, Vec<TlsTrunk>), ConfigError> {
        let mut trunks: Vec<Trunk> = Vec::new();
        let mut of_trunks = Vec::new();
        let mut overflow = Vec::new();
        for block in blocks {
            let key = |name: &str| format!("[[trunk]] {:?} {name}", block.name);
            if block.name.is_empty() || trunks.iter().any(|trunk| trunk.name == block.name) {
                return Err(self.bad(&key("name"), "must be there, and once only"));
            }
            let allow = block
                .allow
                .iter()
                .map(|text| {
                    text.parse::<IpAddr>()
                        .map(IpNet::from)
                        .or_else(|_| text.parse())
                        .map_err(|_| {
                            self.bad(
                                &key("allow"),
                                format!("{text:?} is neither an IP address nor a network"),
                            )
                        })
                })
                .collect::<Result<_, _>>()?;
            let media_sources = block
                .media_sources
                .iter()
                .map(|text| self.parse(&key("media_sources"), text, "an IP address"))
                .collect::<Result<_, _>>()?;
            let (address, transport) = self.trunk_address(
                (&key("address"), &block.address),
                (&key("transport"), &block.transport),
            )?;
            overflow.push(block.overflow);
            let (tls, needed) = self.tls_trunk(&block.name, block.tls)?;
            of_trunks.push(needed);
            let auth = self.auth(block.auth, &key, host)?;
            let registration = self.registration(
                block.registration,
                &key,
                address.fixed(),
                auth.outbound.as_ref(),
            )?;
            trunks.push(Trunk {
                name: block.name.clone(),
                address,
                transport,
                allow,
                media_sources,
                inband_keys: block.dtmf.inband,
                max_calls: self.positive(&key("max_calls"), block.max_calls)?,
                max_calls_per_second: self
                    .positive(&key("max_calls_per_second"), block.max_calls_per_second)?,
                max_calls_per_source_per_second: block
                    .max_calls_per_source_per_second
                    .map(|rate| self.positive(&key("max_calls_per_source_per_second"), rate))
                    .transpose()?,
                identity: self
                    .identity(&|name| key(&format!("identity.{name}")), block.identity)?,
                tls,
                auth,
                registration,
                keepalive: block.keepalive.resolve(),
                srtp: self.srtp(&key("srtp"), &block.srtp, transport)?,
                ..Trunk::default()
            });
        }
        self.overflow(&mut trunks, &overflow)?;
        Ok((trunks, of_trunks))
    }

    /// RFC 4568 §9: keys in SDP are as secret as what carries them.
    fn srtp(&self, key: &str, text: &str, transport: Transport) -> Result<SrtpPolicy, ConfigError> {
        let policy = match text {
            "off" => return Ok(SrtpPolicy::Off),
            "accepted" => SrtpPolicy::Accepted,
            "required" => SrtpPolicy::Required,
            _ => {
                let expected = "is not \"off\", \"accepted\" or \"required\"";
                return Err(self.bad(key, format!("{text:?} {expected}")));
            }
        };
        if transport != Transport::Tls {
            return Err(self.bad(
                key,
                "needs transport = \"tls\": the keys travel in the signalling",
            ));
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    #[test]
    fn srtp_needs_tls_since_its_keys_travel_in_the_signalling() {
        let trunk = |keys: &str| {
            load(&format!(
                "[[trunk]]\nname = \"a\"\naddress = \"192.0.2.1:5061\"\nallow = []\n{keys}\n"
            ))
        };
        let of = |keys: &str| trunk(keys).unwrap().trunks[0].srtp;
        assert_eq!(of(""), SrtpPolicy::Off);
        assert_eq!(of("srtp = \"off\""), SrtpPolicy::Off);
        let over_tls = |srtp: &str| of(&format!("transport = \"tls\"\nsrtp = \"{srtp}\""));
        assert_eq!(over_tls("accepted"), SrtpPolicy::Accepted);
        assert_eq!(over_tls("required"), SrtpPolicy::Required);
        for (keys, reason) in [
            ("srtp = \"required\"", "needs transport = \"tls\""),
            (
                "transport = \"auto\"\nsrtp = \"accepted\"",
                "needs transport = \"tls\"",
            ),
            (
                "transport = \"tls\"\nsrtp = \"yes\"",
                "is not \"off\", \"accepted\" or",
            ),
        ] {
            let error = trunk(keys).unwrap_err();
            assert_eq!(error.key, "[[trunk]] \"a\" srtp");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
