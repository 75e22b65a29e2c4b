//! What the platform may send requests to: the policy, and the check of a URL before it is stored
//! or used.
//!
//! A URL that passes here may still name a private address by DNS: that is found out where the
//! connection is made (`connector`).

use hyper::Uri;
use hyper::http::uri::Scheme;

use crate::address::{self, Host, Refused};

/// What the operator allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    /// Whether loopback, private, link-local and other non-public addresses may be asked.
    /// `false` unless the operator says otherwise: a customer's URL must not reach into the
    /// operator's own network.
    pub allow_private_targets: bool,
}

/// Why a URL can't be a webhook's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// Above [`MAX_URL_BYTES`].
    #[error("the URL is above {MAX_URL_BYTES} bytes")]
    TooLong,
    /// Not an absolute URL, or with characters that a URL has to escape.
    #[error("this is not an absolute URL (host names are ASCII, international ones as punycode)")]
    Malformed,
    /// Neither http nor https.
    #[error("the URL's scheme has to be http or https")]
    Scheme,
    /// `user:password@`
    #[error("the URL holds a user name: set httpAuthHeader instead")]
    UserInfo,
    /// `#fragment`
    #[error("the URL holds a fragment, which is never sent")]
    Fragment,
    /// No host, or one that is neither a name nor an address.
    #[error("the URL's host is neither a name nor an address")]
    Host,
    /// Port 0, or no number.
    #[error("the URL's port is not between 1 and 65535")]
    Port,
    /// The host is an address, or `localhost`, that the policy does not allow.
    #[error("the URL's host is a {0} address, which is refused unless the operator allows it")]
    Address(Refused),
}

/// Longest URL of a webhook.
pub const MAX_URL_BYTES: usize = 2_048;

/// Checks a webhook's URL and gives it parsed.
///
/// # Errors
/// See [`UrlFault`].
pub fn check_url(url: &str, policy: &EgressPolicy) -> Result<Uri, UrlFault> {
    if url.len() > MAX_URL_BYTES {
        return Err(UrlFault::TooLong);
    }
    if url.contains('#') {
        return Err(UrlFault::Fragment);
    }
    // A backslash is a slash to some parsers and part of the host to others.
    let clean = |b: u8| b.is_ascii_graphic() && b != b'\\';
    if !url.bytes().all(clean) {
        return Err(UrlFault::Malformed);
    }
    let uri: Uri = url.parse().map_err(|_| UrlFault::Malformed)?;
    let scheme = uri.scheme().ok_or(UrlFault::Malformed)?;
    if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
        return Err(UrlFault::Scheme);
    }
    let authority = uri.authority().ok_or(UrlFault::Host)?;
    if authority.as_str().contains('@') {
        return Err(UrlFault::UserInfo);
    }
    port(&uri)?;
    match target_host(&uri, policy) {
        Ok(_) => Ok(uri),
        Err(fault) => Err(fault),
    }
}

/// The port that a URL names, or its scheme's.
pub(crate) fn port(uri: &Uri) -> Result<u16, UrlFault> {
    let host = uri.host().unwrap_or_default();
    let written = uri
        .authority()
        .and_then(|authority| authority.as_str().rsplit('@').next())
        .and_then(|rest| rest.strip_prefix(host))
        .unwrap_or_default();
    match written.strip_prefix(':') {
        None | Some("") if uri.scheme() == Some(&Scheme::HTTPS) => Ok(443),
        None | Some("") => Ok(80),
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or(UrlFault::Port),
    }
}

/// The host that a URL names, if the policy allows what can be seen of it without DNS.
pub(crate) fn target_host(uri: &Uri, policy: &EgressPolicy) -> Result<Host, UrlFault> {
    let host = uri
        .host()
        .and_then(address::read_host)
        .ok_or(UrlFault::Host)?;
    if policy.allow_private_targets {
        return Ok(host);
    }
    let refused = match &host {
        Host::Address(address) => address::refusal(*address),
        // RFC 6761 §6.3
        Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
            Some(Refused::Loopback)
        }
        Host::Name(_) => None,
    };
    match refused {
        Some(refused) => Err(UrlFault::Address(refused)),
        None => Ok(host),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const STRICT: EgressPolicy = EgressPolicy {
        allow_private_targets: false,
    };
    const OPEN: EgressPolicy = EgressPolicy {
        allow_private_targets: true,
    };

    #[test]
    fn public_urls_pass() {
        for url in [
            "https://hooks.example.com/voice?a=b",
            "http://hooks.example.com:8080",
            "HTTPS://hooks.example.com:/x",
            "https://8.8.8.8/x",
            "https://[2606:4700::6810:85e5]:8443/x",
            "https://xn--exmple-cua.com/",
        ] {
            assert!(check_url(url, &STRICT).is_ok(), "{url}");
        }
    }

    #[test]
    fn each_fault_is_named() {
        for (url, fault) in [
            ("", UrlFault::Malformed),
            ("/voice", UrlFault::Malformed),
            ("hooks.example.com", UrlFault::Malformed),
            ("ftp://hooks.example.com/", UrlFault::Scheme),
            ("file:///etc/passwd", UrlFault::Malformed),
            ("https://user:pass@hooks.example.com/", UrlFault::UserInfo),
            ("https://hooks.example.com@127.0.0.1/", UrlFault::UserInfo),
            ("https://hooks.example.com/#x", UrlFault::Fragment),
            (
                "https://hooks.example.com\\@127.0.0.1/",
                UrlFault::Malformed,
            ),
            ("https://hooks example.com/", UrlFault::Malformed),
            ("https://hooks.example.com/\n", UrlFault::Malformed),
            ("https://exämple.com/", UrlFault::Malformed),
            ("https://hooks.example.com:0/", UrlFault::Port),
            ("https://256.1.1.1/", UrlFault::Host),
        ] {
            assert_eq!(check_url(url, &STRICT), Err(fault), "{url}");
            assert_eq!(check_url(url, &OPEN), Err(fault), "{url}");
        }
        let long = format!("https://hooks.example.com/{}", "x".repeat(MAX_URL_BYTES));
        assert_eq!(check_url(&long, &STRICT), Err(UrlFault::TooLong));
        for url in [
            "https:///x",
            "https://",
            "https://:80/",
            "https://hooks.example.com:99999/",
            "https://[::1",
            "https://a%2eb/",
        ] {
            assert!(check_url(url, &OPEN).is_err(), "{url}");
        }
    }

    #[test]
    fn no_notation_of_a_private_address_passes_unless_allowed() {
        for (url, refused) in [
            ("http://127.0.0.1/", Refused::Loopback),
            ("http://127.0.0.1:8080/", Refused::Loopback),
            ("http://2130706433/", Refused::Loopback),
            ("http://0x7f.1/", Refused::Loopback),
            ("http://0177.1/", Refused::Loopback),
            ("http://127.1./", Refused::Loopback),
            ("http://localhost/", Refused::Loopback),
            ("http://LOCALHOST./", Refused::Loopback),
            ("http://a.localhost/", Refused::Loopback),
            ("http://0/", Refused::Unspecified),
            (
                "http://169.254.169.254/latest/meta-data",
                Refused::LinkLocal,
            ),
            ("http://2852039166/", Refused::LinkLocal),
            ("http://[::1]/", Refused::Loopback),
            ("http://[::ffff:10.0.0.1]/", Refused::Private),
            ("http://[::ffff:7f00:1]/", Refused::Loopback),
            ("http://[64:ff9b::7f00:1]/", Refused::Loopback),
            ("http://[fd00:ec2::254]/", Refused::Private),
            ("http://[fe80::1]/", Refused::LinkLocal),
        ] {
            assert_eq!(
                check_url(url, &STRICT),
                Err(UrlFault::Address(refused)),
                "{url}"
            );
            assert!(check_url(url, &OPEN).is_ok(), "{url}");
        }
    }
}
