//! How calls leave: addresses of trunks, overflow, the `[[route]]` blocks, and when a call goes on
//! to the next address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use maskline_switch::config::Failover;
use maskline_switch::sip::Transport;
use maskline_switch::{Route, Trunk, TrunkAddress, TrunkId};
use serde::Deserialize;
use serde::de::IntoDeserializer as _;

use super::{ConfigError, Resolver};

/// SIP's port where none is given (RFC 3261 §19.1.2).
const SIP_PORT: u16 = 5060;
/// That of SIP over TLS.
const SIPS_PORT: u16 = 5061;
/// The transport that DNS decides.
pub(super) const AUTO: &str = "auto";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Block {
    prefix: String,
    trunk: String,
    #[serde(default = "one")]
    priority: u16,
    #[serde(default = "one")]
    weight: u16,
}

const fn one() -> u16 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dns {
    servers: Vec<String>,
}

fn parse_address(text: &str, any_transport: bool, default_port: u16) -> Option<TrunkAddress> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return (addr.port() > 0).then_some(TrunkAddress::Fixed(addr));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(TrunkAddress::Fixed(SocketAddr::new(ip, default_port)));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port > 0)?)),
        None => (text, None),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_name = host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        });
    // A top-level domain is never all digits: what looks like an address and is none is a mistake.
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_name = is_name && !last.bytes().all(|b| b.is_ascii_digit());
    is_name.then(|| TrunkAddress::Name {
        host: host.to_ascii_lowercase(),
        port,
        any_transport: any_transport && port.is_none(),
    })
}

impl Resolver {
    /// Where a trunk's calls go out, and how: the keys and their texts.
    pub(super) fn trunk_address(
        &self,
        (address_key, address): (&str, &str),
        (transport_key, transport): (&str, &str),
    ) -> Result<(TrunkAddress, Transport), ConfigError> {
        let named: Option<Transport> = if transport == AUTO {
            None
        } else {
            let read: Result<_, serde::de::value::Error> =
                Transport::deserialize(transport.into_deserializer());
            let read = read.map_err(|_| {
                let reason = format!("{transport:?} is not \"udp\", \"tcp\", \"tls\" or \"auto\"");
                self.bad(transport_key, reason)
            })?;
            Some(read)
        };
        let port = match named {
            Some(Transport::Tls) => SIPS_PORT,
            Some(Transport::Udp | Transport::Tcp) | None => SIP_PORT,
        };
        let address = parse_address(address, named.is_none(), port).ok_or_else(|| {
            let expected = "an IP address or a host name, with or without :PORT";
            self.bad(address_key, format!("{address:?} is not {expected}"))
        })?;
        // RFC 3263 §4.1: for an address or a name with a port, UDP.
        Ok((address, named.unwrap_or(Transport::Udp)))
    }

    pub(super) fn dns_servers(&self, dns: &Dns) -> Result<Vec<SocketAddr>, ConfigError> {
        dns.servers
            .iter()
            .map(|text| self.parse("[dns] servers", text, "ADDRESS:PORT"))
            .collect()
    }

    /// Fills in what each trunk names as its overflow.
    pub(super) fn overflow(
        &self,
        trunks: &mut [Trunk],
        named: &[Vec<String>],
    ) -> Result<(), ConfigError> {
        for at in 0..trunks.len() {
            let Some(name) = trunks.get(at).map(|trunk| trunk.name.clone()) else {
                continue;
            };
            let key = format!("[[trunk]] {name:?} overflow");
            let found = named
                .get(at)
                .map_or(&[][..], Vec::as_slice)
                .iter()
                .map(|other| {
                    if *other == name {
                        return Err(self.bad(&key, "a trunk can't be its own overflow"));
                    }
                    self.trunk_named(&key, other, trunks)
                })
                .collect::<Result<_, _>>()?;
            if let Some(trunk) = trunks.get_mut(at) {
                trunk.overflow = found;
            }
        }
        Ok(())
    }

    fn trunk_named(&self, key: &str, name: &str, trunks: &[Trunk]) -> Result<TrunkId, ConfigError> {
        trunks
            .iter()
            .position(|trunk| trunk.name == name)
            .and_then(|at| u16::try_from(at).ok())
            .map(TrunkId)
            .ok_or_else(|| self.bad(key, format!("{name:?} is not the name of a trunk")))
    }

    pub(super) fn routes(
        &self,
        blocks: &[Block],
        trunks: &[Trunk],
    ) -> Result<Vec<Route>, ConfigError> {
        blocks
            .iter()
            .map(|block| {
                let key = |name: &dyn fmt::Display| format!("[[route]] {:?} {name}", block.prefix);
                let digits = block.prefix.strip_prefix('+');
                let right = digits.is_some_and(|digits| {
                    digits.len() <= 15 && digits.bytes().all(|digit| digit.is_ascii_digit())
                });
                if !right {
                    return Err(self.bad(
                        &key(&"prefix"),
                        "must be + and up to 15 digits; + alone is every number",
                    ));
                }
                Ok(Route {
                    prefix: block.prefix.clone(),
                    trunk: self.trunk_named(&key(&"trunk"), &block.trunk, trunks)?,
                    priority: block.priority,
                    weight: block.weight,
                })
            })
            .collect()
    }

    pub(super) fn failover(&self, call: &super::Call) -> Result<Failover, ConfigError> {
        Ok(Failover {
            silence: self.millis("[call] trunk_silence_ms", call.trunk_silence_ms)?,
            // 0: nothing else is tried.
            within: Duration::from_secs(u64::from(call.trunk_failover_seconds)),
            ..Failover::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_fixed_or_a_name() {
        let fixed = |text: &str| Some(TrunkAddress::Fixed(text.parse().unwrap()));
        let name = |host: &str, port, any_transport| {
            Some(TrunkAddress::Name {
                host: host.to_owned(),
                port,
                any_transport,
            })
        };
        for (text, expected) in [
            ("192.0.2.1:5080", fixed("192.0.2.1:5080")),
            ("192.0.2.1", fixed("192.0.2.1:5060")),
            ("[2001:db8::1]:5080", fixed("[2001:db8::1]:5080")),
            ("[2001:db8::1]", fixed("[2001:db8::1]:5060")),
            ("2001:db8::1", fixed("[2001:db8::1]:5060")),
            (
                "SIP.carrier.example.",
                name("sip.carrier.example", None, true),
            ),
            (
                "sip.carrier.example:5070",
                name("sip.carrier.example", Some(5070), false),
            ),
            ("localhost", name("localhost", None, true)),
            ("192.0.2.256", None),
            ("192.0.2.1:0", None),
            ("a..b", None),
            ("a b", None),
            ("host:99999", None),
            ("", None),
            ("sip:host", None),
        ] {
            assert_eq!(parse_address(text, true, 5060), expected, "{text}");
        }
        assert_eq!(
            parse_address("192.0.2.1", false, 5061),
            fixed("192.0.2.1:5061")
        );
        assert_eq!(
            parse_address("a.example", false, 5061),
            name("a.example", None, false)
        );
    }
}
