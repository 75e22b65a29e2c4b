//! `[delivery]` and `[egress]`: how webhooks are sent, and from and to where.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use maskline_webhook::Rate;
use maskline_webhook::network::SourceAddresses;
use serde::Deserialize;

use super::{Config, ConfigError, Resolver};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    attempt_timeout_seconds: u32,
    order_deadline_seconds: u32,
    max_in_flight: u32,
    max_in_flight_per_endpoint: u32,
    max_per_second_per_endpoint: u32,
    disable_after_seconds: u32,
    keep_days: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Egress {
    allow_private_targets: bool,
    addresses: Vec<String>,
    source_addresses: Vec<String>,
}

/// How webhooks are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) attempt_timeout: Duration,
    pub(crate) order_deadline: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) max_in_flight_per_endpoint: usize,
    /// Attempts per second; `None`: no limit.
    pub(crate) max_per_second_per_endpoint: Option<Rate>,
    /// After how long with nothing but failures a webhook is disabled; `None`: never.
    pub(crate) disable_after: Option<Duration>,
    /// How long events are kept after their delivery was final; `None`: for ever.
    pub(crate) keep: Option<Duration>,
}

impl Resolver {
    pub(super) fn delivery(&self, section: &Section) -> Result<Delivery, ConfigError> {
        let count = |key, value| Ok::<_, ConfigError>(self.positive(key, value)? as usize);
        Ok(Delivery {
            attempt_timeout: self.seconds(
                "[delivery] attempt_timeout_seconds",
                section.attempt_timeout_seconds,
            )?,
            order_deadline: self.seconds(
                "[delivery] order_deadline_seconds",
                section.order_deadline_seconds,
            )?,
            max_in_flight: count("[delivery] max_in_flight", section.max_in_flight)?,
            max_in_flight_per_endpoint: count(
                "[delivery] max_in_flight_per_endpoint",
                section.max_in_flight_per_endpoint,
            )?,
            disable_after: (section.disable_after_seconds > 0)
                .then(|| Duration::from_secs(u64::from(section.disable_after_seconds))),
            max_per_second_per_endpoint: Rate::per_1000_seconds(
                section.max_per_second_per_endpoint.saturating_mul(1_000),
            ),
            keep: (section.keep_days > 0)
                .then(|| Duration::from_secs(86_400 * u64::from(section.keep_days))),
        })
    }

    /// Whether private targets are allowed, the addresses that are told to receivers, and those that
    /// connections are made from.
    pub(super) fn egress(
        &self,
        section: Egress,
    ) -> Result<(bool, Vec<String>, SourceAddresses), ConfigError> {
        let mut told = Vec::new();
        for address in &section.addresses {
            let network = address
                .parse::<IpNet>()
                .or_else(|_| address.parse::<IpAddr>().map(IpNet::from));
            told.push(network.map_err(|_| {
                self.bad(
                    "[egress] addresses",
                    format!("{address:?} is neither an IP address nor a network"),
                )
            })?);
        }
        let sources = self.source_addresses(&section.source_addresses, &told)?;
        Ok((section.allow_private_targets, section.addresses, sources))
    }

    fn source_addresses(
        &self,
        written: &[String],
        told: &[IpNet],
    ) -> Result<SourceAddresses, ConfigError> {
        const KEY: &str = "[egress] source_addresses";
        let mut sources = SourceAddresses::default();
        for text in written {
            let address: IpAddr = self.parse(KEY, text, "an IP address")?;
            if !told.iter().any(|network| network.contains(&address)) {
                let reason = format!(
                    "{address} is not among [egress] addresses, which receivers are told: add it there"
                );
                return Err(self.bad(KEY, reason));
            }
            let again = match address {
                IpAddr::V4(address) => sources.v4.replace(address).is_some(),
                IpAddr::V6(address) => sources.v6.replace(address).is_some(),
            };
            if again {
                return Err(self.bad(
                    KEY,
                    "names two addresses of one family: one of each at most",
                ));
            }
        }
        Ok(sources)
    }
}

/// Whether connections can be made from these addresses, which only the machine itself knows.
pub(crate) fn check_local(config: &Config) -> Result<(), ConfigError> {
    let SourceAddresses { v4, v6 } = config.egress_sources;
    let all = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6));
    for address in all {
        UdpSocket::bind((address, 0)).map_err(|error| {
            let reason = format!("{address} is no address of this machine: {error}");
            config.fault("[egress] source_addresses", reason)
        })?;
    }
    Ok(())
}
