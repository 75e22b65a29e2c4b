//! `[trunk.registration]`: where and as whom a trunk registers.

use std::net::{IpAddr, SocketAddr};

use maskline_switch::{OutboundAuth, TrunkRegistration};
use serde::Deserialize;

use super::{ConfigError, Resolver};

/// Registrars forget one sooner than that only by 423, and a shorter life is all refreshing.
const LEAST_SECONDS: u32 = 30;
const MOST_SECONDS: u32 = 86_400;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Block {
    registrar: String,
    #[serde(default)]
    targets: Vec<String>,
    address_of_record: Option<String>,
    contact_user: Option<String>,
    #[serde(default = "ten_minutes")]
    expires_seconds: u32,
}

const fn ten_minutes() -> u32 {
    600
}

impl Resolver {
    /// `key` names a key of the trunk, `address` is where its calls go.
    pub(super) fn registration(
        &self,
        block: Option<Block>,
        key: &dyn Fn(&str) -> String,
        address: Option<SocketAddr>,
        auth: Option<&OutboundAuth>,
    ) -> Result<Option<TrunkRegistration>, ConfigError> {
        let Some(block) = block else {
            return Ok(None);
        };
        let key = |name: &str| key(&format!("registration.{name}"));
        let host = block
            .registrar
            .strip_prefix("sip:")
            .filter(|host| is_host(host));
        let Some(host) = host else {
            return Err(self.bad(
                &key("registrar"),
                "is not \"sip:HOST\" or \"sip:HOST:PORT\"",
            ));
        };
        let mut targets = block
            .targets
            .iter()
            .map(|text| self.parse(&key("targets"), text, "IP-ADDRESS:PORT"))
            .collect::<Result<Vec<SocketAddr>, _>>()?;
        if targets.is_empty() {
            let named = address_in(host).or(address);
            targets.push(named.ok_or_else(|| {
                let reason = "must be set where neither registrar nor the trunk has an IP address";
                self.bad(&key("targets"), reason)
            })?);
        }
        let address_of_record = match (&block.address_of_record, auth) {
            (Some(text), _) => text.clone(),
            (None, Some(auth)) => format!("sip:{}@{host}", auth.username),
            (None, None) => String::new(),
        };
        let user = address_of_record
            .strip_prefix("sip:")
            .and_then(|rest| rest.split_once('@'))
            .filter(|(user, host)| is_user(user) && is_host(host))
            .map(|(user, _)| user.to_owned());
        let Some(user) = user else {
            let reason =
                "must be \"sip:USER@HOST\"; without it, it is made of [trunk.auth] username";
            return Err(self.bad(&key("address_of_record"), reason));
        };
        let contact_user = block.contact_user.unwrap_or(user);
        if !is_user(&contact_user) {
            let reason = "must be letters, digits and -_.!~*'()&=+$";
            return Err(self.bad(&key("contact_user"), reason));
        }
        if !(LEAST_SECONDS..=MOST_SECONDS).contains(&block.expires_seconds) {
            let reason = format!("must be {LEAST_SECONDS} to {MOST_SECONDS}");
            return Err(self.bad(&key("expires_seconds"), reason));
        }
        Ok(Some(TrunkRegistration {
            registrar: block.registrar,
            address_of_record,
            contact_user,
            targets,
            expires_seconds: block.expires_seconds,
        }))
    }
}

/// Whether this is a host, with or without a port, as a SIP URI has it.
fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 260
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

/// The user part of a SIP URI, without escapes.
fn is_user(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 200
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$".contains(&b))
}

fn address_in(host: &str) -> Option<SocketAddr> {
    let with_port = host.parse::<SocketAddr>().ok();
    let alone = || {
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>().ok()?;
        Some(SocketAddr::new(ip, 5060))
    };
    with_port.or_else(alone)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::tests::load;
    use super::*;

    fn registration(text: &str) -> Result<TrunkRegistration, ConfigError> {
        let trunk = "[[trunk]]\nname = \"a\"\naddress = \"192.0.2.1:5070\"\nallow = []\n";
        let config = load(&format!("{trunk}{text}"))?;
        Ok(config.trunks[0].registration.clone().unwrap())
    }

    const AUTH: &str = "[trunk.auth]\nusername = \"acme\"\npassword = \"x\"\n";

    #[test]
    fn little_has_to_be_said() {
        for (registrar, target) in [
            ("carrier.example", "192.0.2.1:5070"),
            ("192.0.2.9", "192.0.2.9:5060"),
            ("192.0.2.9:5080", "192.0.2.9:5080"),
            ("[2001:db8::1]", "[2001:db8::1]:5060"),
        ] {
            let text = format!("{AUTH}[trunk.registration]\nregistrar = \"sip:{registrar}\"");
            let read = registration(&text).unwrap();
            assert_eq!(read.targets, [target.parse().unwrap()]);
            assert_eq!(read.address_of_record, format!("sip:acme@{registrar}"));
            assert_eq!(read.contact_user, "acme");
            assert_eq!(read.expires_seconds, 600);
        }
    }

    #[test]
    fn all_can_be_said() {
        let read = registration(
            "[trunk.registration]\nregistrar = \"sip:carrier.example\"\n\
             targets = [\"192.0.2.2:5060\", \"192.0.2.3:5060\"]\n\
             address_of_record = \"sip:+6531580000@ims.example\"\ncontact_user = \"line-1\"\n\
             expires_seconds = 3600",
        )
        .unwrap();
        assert_eq!(read.targets.len(), 2);
        assert_eq!(read.address_of_record, "sip:+6531580000@ims.example");
        assert_eq!(read.contact_user, "line-1");
        assert_eq!(read.expires_seconds, 3_600);
    }

    #[test]
    fn a_trunk_by_name_says_where_its_registrar_is() {
        let load_with = |registrar: &str| {
            load(&format!(
                "[[trunk]]\nname = \"a\"\naddress = \"sip.carrier.example\"\nallow = []\n\
                 {AUTH}[trunk.registration]\n{registrar}"
            ))
        };
        let error = load_with("registrar = \"sip:carrier.example\"").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("registration.targets"), "{error}");
        assert!(error.contains("must be set"), "{error}");
        for registrar in [
            "registrar = \"sip:192.0.2.9\"",
            "registrar = \"sip:carrier.example\"\ntargets = [\"192.0.2.9:5060\"]",
        ] {
            let config = load_with(registrar).unwrap();
            let registration = config.trunks[0].registration.as_ref().unwrap();
            assert_eq!(registration.targets, ["192.0.2.9:5060".parse().unwrap()]);
        }
    }

    #[test]
    fn a_fault_names_its_key() {
        for (text, key, reason) in [
            ("registrar = \"carrier.example\"", "registrar", "sip:HOST"),
            ("registrar = \"sip:a b\"", "registrar", "sip:HOST"),
            (
                "registrar = \"sip:a\"",
                "address_of_record",
                "sip:USER@HOST",
            ),
            (
                "registrar = \"sip:a\"\naddress_of_record = \"sip:a;x@b\"",
                "address_of_record",
                "sip:USER@HOST",
            ),
            (
                "registrar = \"sip:a\"\ntargets = [\"b:1\"]",
                "targets",
                "IP-ADDRESS:PORT",
            ),
            (
                "registrar = \"sip:a\"\naddress_of_record = \"sip:a@b\"\ncontact_user = \"a b\"",
                "contact_user",
                "letters",
            ),
            (
                "registrar = \"sip:a\"\naddress_of_record = \"sip:a@b\"\nexpires_seconds = 5",
                "expires_seconds",
                "30 to 86400",
            ),
        ] {
            let text = format!("[trunk.registration]\n{text}");
            let error = registration(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("registration.{key}")), "{error}");
            assert!(error.contains(reason), "{error}");
        }
    }
}
