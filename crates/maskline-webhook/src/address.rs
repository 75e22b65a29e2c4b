//! Which addresses belong to the public internet, and what a URL's host is when it is one.
//!
//! What lives elsewhere: resolving names and connecting (`connector`), whether private targets
//! are allowed (`egress`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not a public one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// 127.0.0.0/8, ::1, `localhost`
    #[error("loopback")]
    Loopback,
    /// RFC 1918, unique local (RFC 4193), shared address space (RFC 6598), site-local.
    #[error("private")]
    Private,
    /// 169.254.0.0/16 with the metadata services of clouds, fe80::/10.
    #[error("link-local")]
    LinkLocal,
    /// Multicast and broadcast.
    #[error("multicast")]
    Multicast,
    /// 0.0.0.0/8, ::
    #[error("unspecified")]
    Unspecified,
    /// Everything else that IANA's special-purpose registries don't call globally reachable.
    #[error("reserved")]
    Reserved,
}

/// Says why an address is not a public one; `None`: it is.
///
/// An IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4, ISATAP) is judged by that.
pub(crate) fn refusal(address: IpAddr) -> Option<Refused> {
    match address {
        IpAddr::V4(v4) => refusal_v4(v4),
        IpAddr::V6(v6) => refusal_v6(v6),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<Refused> {
    match address.octets() {
        [0, ..] => Some(Refused::Unspecified),
        [127, ..] => Some(Refused::Loopback),
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => {
            Some(Refused::Private)
        }
        [169, 254, ..] => Some(Refused::LinkLocal),
        [224..=239, ..] | [255, 255, 255, 255] => Some(Refused::Multicast),
        // Protocol assignments, documentation, 6to4 relays, benchmarks, the old class E.
        [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [240..=255, ..] => Some(Refused::Reserved),
        _ => None,
    }
}

fn refusal_v6(address: Ipv6Addr) -> Option<Refused> {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        refusal_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Refused::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Refused::Loopback),
        // Mapped, the translated form of SIIT, and NAT64's well-known prefix (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4
        [0x2002, high, low, ..] => embedded(high, low),
        [0xfe80..=0xfebf, ..] => Some(Refused::LinkLocal),
        [0xfec0..=0xfeff, ..] | [0xfc00..=0xfdff, ..] => Some(Refused::Private),
        [0xff00..=0xffff, ..] => Some(Refused::Multicast),
        // IETF assignments (Teredo, which hides an IPv4 address, among them) and documentation.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => {
            Some(Refused::Reserved)
        }
        // ISATAP
        [0x2000..=0x3fff, _, _, _, 0 | 0x0200, 0x5efe, high, low] => embedded(high, low),
        // Global unicast is 2000::/3; nothing else is assigned, IPv4-compatible is obsolete.
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Refused::Reserved),
    }
}

/// What the host of a URL is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// An address, in whatever notation.
    Address(IpAddr),
    /// A name to be resolved, lower case, without a final dot.
    Name(String),
}

/// Reads a URL's host the way a resolver might, so that no notation of an address passes for a
/// name: `2130706433`, `0x7f.1` and `127.0.0.01` are addresses (WHATWG URL §3.5). `None`: neither.
pub(crate) fn read_host(host: &str) -> Option<Host> {
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return inner
            .parse::<Ipv6Addr>()
            .ok()
            .map(|v6| Host::Address(IpAddr::V6(v6)));
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric =
        !last.is_empty() && (last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x"));
    if numeric {
        return ipv4(&name).map(|v4| Host::Address(IpAddr::V4(v4)));
    }
    let clean = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (name.len() <= 253 && name.split('.').all(clean)).then_some(Host::Name(name))
}

/// One to four parts, each decimal, octal or hexadecimal; the last one fills what is left.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts = text.split('.').map(ipv4_part).collect::<Option<Vec<_>>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 {
        return None;
    }
    let mut value: u64 = 0;
    for part in leading {
        value = (value << 8) | u64::from(u8::try_from(*part).ok()?);
    }
    let bits = 8 * (4 - leading.len() as u32);
    if u64::from(*last) >= 1 << bits {
        return None;
    }
    u32::try_from((value << bits) | u64::from(*last))
        .ok()
        .map(Ipv4Addr::from)
}

fn ipv4_part(part: &str) -> Option<u32> {
    if let Some(hex) = part.strip_prefix("0x") {
        return if hex.is_empty() {
            Some(0)
        } else {
            radix(hex, 16)
        };
    }
    match part.strip_prefix('0') {
        Some("") => Some(0),
        Some(octal) => radix(octal, 8),
        None => radix(part, 10),
    }
}

fn radix(digits: &str, radix: u32) -> Option<u32> {
    // `from_str_radix` takes a sign as well.
    let clean = digits.bytes().all(|b| b.is_ascii_alphanumeric());
    clean
        .then(|| u32::from_str_radix(digits, radix).ok())
        .flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass() {
        for (address, expected) in [
            ("127.0.0.1", Some(Refused::Loopback)),
            ("127.255.255.254", Some(Refused::Loopback)),
            ("0.0.0.0", Some(Refused::Unspecified)),
            ("0.1.2.3", Some(Refused::Unspecified)),
            ("10.0.0.1", Some(Refused::Private)),
            ("172.15.0.1", None),
            ("172.16.0.1", Some(Refused::Private)),
            ("172.31.255.255", Some(Refused::Private)),
            ("172.32.0.1", None),
            ("192.168.1.1", Some(Refused::Private)),
            ("100.63.255.255", None),
            ("100.64.0.1", Some(Refused::Private)),
            ("100.127.255.255", Some(Refused::Private)),
            ("100.128.0.0", None),
            ("169.254.169.254", Some(Refused::LinkLocal)),
            ("192.0.0.8", Some(Refused::Reserved)),
            ("192.0.2.1", Some(Refused::Reserved)),
            ("198.18.0.1", Some(Refused::Reserved)),
            ("198.51.100.1", Some(Refused::Reserved)),
            ("203.0.113.1", Some(Refused::Reserved)),
            ("224.0.0.1", Some(Refused::Multicast)),
            ("240.0.0.1", Some(Refused::Reserved)),
            ("255.255.255.255", Some(Refused::Multicast)),
            ("8.8.8.8", None),
            ("::", Some(Refused::Unspecified)),
            ("::1", Some(Refused::Loopback)),
            ("::127.0.0.1", Some(Refused::Reserved)),
            ("::8.8.8.8", Some(Refused::Reserved)),
            ("::ffff:127.0.0.1", Some(Refused::Loopback)),
            ("::ffff:8.8.8.8", None),
            ("::ffff:0:10.0.0.1", Some(Refused::Private)),
            ("64:ff9b::169.254.169.254", Some(Refused::LinkLocal)),
            ("64:ff9b::8.8.8.8", None),
            ("64:ff9b:1::8.8.8.8", Some(Refused::Reserved)),
            ("2002:7f00:1::", Some(Refused::Loopback)),
            ("2002:0808:0808::1", None),
            ("2001:0:1::", Some(Refused::Reserved)),
            ("2001:db8::1", Some(Refused::Reserved)),
            ("3fff::1", Some(Refused::Reserved)),
            ("2606:4700::5efe:10.0.0.1", Some(Refused::Private)),
            ("2606:4700::6810:85e5", None),
            ("fe80::1", Some(Refused::LinkLocal)),
            ("fec0::1", Some(Refused::Private)),
            ("fc00::1", Some(Refused::Private)),
            ("fd00:ec2::254", Some(Refused::Private)),
            ("ff02::1", Some(Refused::Multicast)),
            ("100::1", Some(Refused::Reserved)),
            ("4000::1", Some(Refused::Reserved)),
        ] {
            assert_eq!(refusal(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn every_notation_of_an_address_is_read_as_one() {
        let loopback = Some(Host::Address("127.0.0.1".parse().unwrap()));
        for host in [
            "127.0.0.1",
            "127.0.0.1.",
            "2130706433",
            "0x7f000001",
            "0X7F000001",
            "017700000001",
            "0x7f.1",
            "127.1",
            "127.0.1",
            "0177.0.0.01",
            "0x7f.0x0.0x0.0x1",
        ] {
            assert_eq!(read_host(host), loopback, "{host}");
        }
        assert_eq!(
            read_host("0x"),
            Some(Host::Address("0.0.0.0".parse().unwrap()))
        );
        assert_eq!(
            read_host("[::1]"),
            Some(Host::Address("::1".parse().unwrap()))
        );
    }

    #[test]
    fn what_looks_like_an_address_but_is_none_is_no_name_either() {
        for host in [
            "",
            ".",
            "a..b",
            "256.0.0.1",
            "1.2.3.4.5",
            "4294967296",
            "127.0.0.08",
            "0x7g",
            "0x+1",
            "example.0x",
            "example.1",
            "[::1%lo]",
            "[127.0.0.1]",
            "a b",
            "a%2e",
            "exämple.com",
        ] {
            let read = read_host(host);
            assert!(read.is_none(), "{host}: {read:?}");
        }
        let name = read_host("Hooks.Example.COM.");
        assert_eq!(name, Some(Host::Name("hooks.example.com".to_owned())));
    }
}
