//! Finding a carrier's SIP servers (RFC 3263 §4): NAPTR, SRV, addresses.

use std::net::{IpAddr, SocketAddr};

use maskline_switch::Target;
use maskline_switch::sip::Transport;
use maskline_switch::targets::MAX_TARGETS;

use super::client::{Client, DnsError};
use super::message::{Kind, Record};

/// Addresses of one name that are kept.
const MAX_ADDRESSES: usize = 8;
/// SRV targets whose addresses are looked up.
const MAX_SERVERS: usize = 16;

/// What is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// Whether DNS decides the transport.
    pub(crate) any_transport: bool,
    /// The transport otherwise, or if DNS says nothing.
    pub(crate) transport: Transport,
    /// What we have sockets for: transport, and whether they are IPv4.
    pub(crate) usable: Vec<(Transport, bool)>,
}

/// Where a service is, and for how many seconds that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) targets: Vec<Target>,
    pub(crate) ttl: u32,
}

/// Looks a trunk's name up.
///
/// # Errors
/// [`DnsError`], also when nothing usable was found.
pub(crate) async fn locate(client: &Client, wanted: &Wanted) -> Result<Located, DnsError> {
    let mut search = Search {
        client,
        wanted,
        ttl: u32::MAX,
    };
    let targets = match wanted.port {
        Some(port) => search.host(&wanted.host, port, wanted.transport).await?,
        None => search.service().await?,
    };
    if targets.is_empty() {
        return Err(DnsError::NoAddress(wanted.host.clone()));
    }
    Ok(Located {
        targets,
        ttl: search.ttl,
    })
}

struct Search<'a> {
    client: &'a Client,
    wanted: &'a Wanted,
    /// The shortest of what was found.
    ttl: u32,
}

impl Search<'_> {
    async fn ask(&mut self, name: &str, kind: Kind) -> Result<Vec<Record>, DnsError> {
        let found = self.client.ask(name, kind).await?;
        self.ttl = self.ttl.min(found.ttl);
        Ok(found.records)
    }

    fn may_use(&self, transport: Transport) -> bool {
        self.wanted.usable.iter().any(|(of, _)| *of == transport)
    }

    /// A name without a port: its services first, then the name itself.
    async fn service(&mut self) -> Result<Vec<Target>, DnsError> {
        let host = self.wanted.host.clone();
        let services = if self.wanted.any_transport {
            let named = self.named_services(&host).await?;
            if named.is_empty() {
                [Transport::Udp, Transport::Tcp, Transport::Tls]
                    .into_iter()
                    .filter(|transport| self.may_use(*transport))
                    .map(|transport| (service_of(&host, transport), transport))
                    .collect()
            } else {
                named
            }
        } else {
            let transport = self.wanted.transport;
            vec![(service_of(&host, transport), transport)]
        };
        for (name, transport) in services {
            let records = self.ask(&name, Kind::Srv).await?;
            // A target of the root alone says that there is no such service (RFC 2782).
            let targets = self.servers(records, transport).await?;
            if !targets.is_empty() {
                return Ok(targets);
            }
        }
        let port = match self.wanted.transport {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
        };
        self.host(&host, port, self.wanted.transport).await
    }

    /// The services that NAPTR records name and that we can speak, best first (RFC 3263 §4.1).
    async fn named_services(&mut self, host: &str) -> Result<Vec<(String, Transport)>, DnsError> {
        let mut named: Vec<_> = self
            .ask(host, Kind::Naptr)
            .await?
            .into_iter()
            .filter_map(|record| match record {
                Record::Naptr {
                    order,
                    preference,
                    flags,
                    service,
                    replacement,
                } if flags.eq_ignore_ascii_case("s") && !replacement.is_empty() => {
                    let transport = transport_of(&service)?;
                    Some(((order, preference), (replacement, transport)))
                }
                Record::A(_) | Record::Aaaa(_) | Record::Srv { .. } | Record::Naptr { .. } => None,
            })
            .filter(|(_, (_, transport))| self.may_use(*transport))
            .collect();
        named.sort_by_key(|(rank, _)| *rank);
        Ok(named.into_iter().map(|(_, service)| service).collect())
    }

    async fn servers(
        &mut self,
        records: Vec<Record>,
        transport: Transport,
    ) -> Result<Vec<Target>, DnsError> {
        let mut servers: Vec<_> = records
            .into_iter()
            .filter_map(|record| match record {
                Record::Srv {
                    priority,
                    weight,
                    port,
                    target,
                } if !target.is_empty() => Some((priority, weight, port, target)),
                Record::A(_) | Record::Aaaa(_) | Record::Srv { .. } | Record::Naptr { .. } => None,
            })
            .collect();
        servers.sort();
        servers.truncate(MAX_SERVERS);
        let mut targets = Vec::new();
        let mut failure = None;
        for (priority, weight, port, name) in servers {
            // One server whose address can't be had does not hide the others.
            match self.host(&name, port, transport).await {
                Ok(found) => targets.extend(found.into_iter().map(|target| Target {
                    priority,
                    weight,
                    ..target
                })),
                Err(error) => failure = Some(error),
            }
        }
        targets.truncate(MAX_TARGETS);
        match failure {
            Some(error) if targets.is_empty() => Err(error),
            _ => Ok(targets),
        }
    }

    /// The addresses of a host, as far as we have sockets for them.
    async fn host(
        &mut self,
        name: &str,
        port: u16,
        transport: Transport,
    ) -> Result<Vec<Target>, DnsError> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (kind, is_ipv4) in [(Kind::A, true), (Kind::Aaaa, false)] {
            if !self.wanted.usable.contains(&(transport, is_ipv4)) {
                continue;
            }
            let records = self.ask(name, kind).await?;
            addresses.extend(records.into_iter().filter_map(|record| match record {
                Record::A(ip) => Some(IpAddr::V4(ip)),
                Record::Aaaa(ip) => Some(IpAddr::V6(ip)),
                Record::Srv { .. } | Record::Naptr { .. } => None,
            }));
        }
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses
            .into_iter()
            .map(|ip| Target {
                priority: 0,
                weight: 0,
                addr: SocketAddr::new(ip, port),
                transport,
            })
            .collect())
    }
}

fn service_of(host: &str, transport: Transport) -> String {
    match transport {
        Transport::Udp => format!("_sip._udp.{host}"),
        Transport::Tcp => format!("_sip._tcp.{host}"),
        Transport::Tls => format!("_sips._tcp.{host}"),
    }
}

/// The transport of a NAPTR service (RFC 3263 §4.1).
fn transport_of(service: &str) -> Option<Transport> {
    match service.to_ascii_uppercase().as_str() {
        "SIP+D2U" => Some(Transport::Udp),
        "SIP+D2T" => Some(Transport::Tcp),
        "SIPS+D2T" => Some(Transport::Tls),
        _ => None,
    }
}
