//! `[media]`: the sockets of the audio, and what becomes of it.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use maskline_media::MediaAddresses;
use serde::Deserialize;

use super::rtpengine::Section;
use super::{ConfigError, Resolver};

/// The table as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Media {
    pub(super) engine: String,
    pub(super) address: String,
    pub(super) ports: String,
    pub(super) public_address: String,
    pub(super) second_address: String,
    pub(super) second_public_address: String,
    pub(super) silence_seconds: u32,
    pub(super) transcode: bool,
    pub(super) hold: String,
    pub(super) rtpengine: Section,
}

impl Resolver {
    /// The addresses that are bound, and what is said of them.
    pub(super) fn media_addresses(
        &self,
        media: &Media,
    ) -> Result<(MediaAddresses, MediaAddresses), ConfigError> {
        const SECOND: &str = "[media] second_address";
        const SECOND_PUBLIC: &str = "[media] second_public_address";
        let bound = self.parse("[media] address", &media.address, "an IP address")?;
        let public = self.announced("[media] public_address", &media.public_address, bound)?;
        if media.second_address.is_empty() {
            if !media.second_public_address.is_empty() {
                return Err(self.bad(SECOND_PUBLIC, format!("needs {SECOND}")));
            }
            return Ok((bound.into(), public.into()));
        }
        let second = self.parse(SECOND, &media.second_address, "an IP address")?;
        let second_public = self.announced(SECOND_PUBLIC, &media.second_public_address, second)?;
        let both = |key, first: IpAddr, second: IpAddr| {
            MediaAddresses::both(first, second).ok_or_else(|| {
                let family = if first.is_ipv4() { "IPv4" } else { "IPv6" };
                self.bad(
                    key,
                    format!("{second} is {family} like {first}: each family has one address"),
                )
            })
        };
        Ok((
            both(SECOND, bound, second)?,
            both(SECOND_PUBLIC, public, second_public)?,
        ))
    }

    pub(super) fn ports(&self, text: &str) -> Result<RangeInclusive<u16>, ConfigError> {
        const KEY: &str = "[media] ports";
        let range: RangeInclusive<u16> = text
            .split_once('-')
            .and_then(|(first, last)| Some(first.trim().parse().ok()?..=last.trim().parse().ok()?))
            .ok_or_else(|| self.bad(KEY, format!("{text:?} is not FIRST-LAST")))?;
        if *range.start() < 1024 || range.end().saturating_sub(*range.start()) < 3 {
            return Err(self.bad(
                KEY,
                "must begin at 1024 or above and hold at least four ports: one call",
            ));
        }
        Ok(range)
    }

    /// What stands in SDP for an address that is bound.
    fn announced(&self, key: &str, text: &str, bound: IpAddr) -> Result<IpAddr, ConfigError> {
        let announced = match text {
            "" => bound,
            text => self.parse(key, text, "an IP address")?,
        };
        if announced.is_unspecified() {
            return Err(self.bad(
                key,
                "an address that listens everywhere can't stand in SDP: set the one that callers reach",
            ));
        }
        if announced.is_ipv4() != bound.is_ipv4() {
            return Err(self.bad(
                key,
                format!("{announced} is not of the family of {bound}, which it stands for"),
            ));
        }
        Ok(announced)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    #[test]
    fn media_have_an_address_of_each_family_or_of_one() {
        let (v4, v6): (IpAddr, IpAddr) =
            ("192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap());
        let config =
            load("[media]\naddress = \"0.0.0.0\"\npublic_address = \"192.0.2.7\"").unwrap();
        assert_eq!(config.media_public_addresses, v4.into());
        let config = load("[media]\naddress = \"2001:db8::7\"").unwrap();
        assert_eq!(config.media_addresses, v6.into());
        let config = load(
            "[media]\naddress = \"2001:db8::7\"\nsecond_address = \"0.0.0.0\"\n\
             second_public_address = \"192.0.2.7\"",
        )
        .unwrap();
        assert_eq!(
            config.media_public_addresses,
            MediaAddresses::both(v6, v4).unwrap()
        );
        assert_eq!(
            config.media_addresses.second(),
            Some("0.0.0.0".parse().unwrap())
        );
        for (text, key, reason) in [
            (
                "second_address = \"192.0.2.7\"",
                "second_address",
                "is IPv4 like 127.0.0.1",
            ),
            ("second_address = \"x\"", "second_address", "an IP address"),
            ("second_address = \"::\"", "second_public_address", "SDP"),
            (
                "second_address = \"::1\"\nsecond_public_address = \"192.0.2.7\"",
                "second_public_address",
                "not of the family of ::1",
            ),
            (
                "second_public_address = \"2001:db8::7\"",
                "second_public_address",
                "needs [media] second_address",
            ),
            (
                "public_address = \"2001:db8::7\"",
                "public_address",
                "not of the family",
            ),
        ] {
            let error = load(&format!("[media]\n{text}")).unwrap_err();
            assert!(error.key.contains(key), "{text}: {error}");
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }
}
