//! Reading headers of a message as plain values.

use std::net::SocketAddr;

use sipx_sip::headers::misc::{MaxForwards, Require};
use sipx_sip::headers::{CSeq, Contact, From, RecordRoute, To, Via};
use sipx_sip::{Headers, Host, Method, Uri};

use super::{HeaderName, Transport};

/// Most entries of a route set that are kept; a call through more proxies is refused by its size.
const MAX_ROUTES: usize = 16;

/// The `Call-ID`.
#[must_use]
pub fn call_id(headers: &Headers) -> Option<String> {
    text(headers, &HeaderName::CallId)
}

/// A header's first value as text.
#[must_use]
pub fn text(headers: &Headers, name: &HeaderName) -> Option<String> {
    let value = headers.value(name)?;
    Some(String::from_utf8_lossy(&value).trim().to_owned())
}

/// A header's name.
#[must_use]
pub fn header_name(name: &str) -> HeaderName {
    HeaderName::parse(&bytes::Bytes::copy_from_slice(name.as_bytes()))
}

/// The From tag.
#[must_use]
pub fn from_tag(headers: &Headers) -> Option<String> {
    let from = headers.typed::<From>()?.ok()?;
    from.tag()
        .map(|tag| String::from_utf8_lossy(tag).into_owned())
}

/// The To tag.
#[must_use]
pub fn to_tag(headers: &Headers) -> Option<String> {
    let to = headers.typed::<To>()?.ok()?;
    to.tag()
        .map(|tag| String::from_utf8_lossy(tag).into_owned())
}

/// `CSeq`.
#[must_use]
pub fn cseq(headers: &Headers) -> Option<(u32, Method)> {
    let cseq = headers.typed::<CSeq>()?.ok()?;
    Some((cseq.sequence, cseq.method))
}

/// The branch of the top `Via`.
#[must_use]
pub fn top_branch(headers: &Headers) -> Option<String> {
    let via = headers.typed::<Via>()?.ok()?;
    via.branch()
        .map(|branch| String::from_utf8_lossy(branch).into_owned())
}

/// `Max-Forwards`; 70 where it is missing (RFC 3261 §16.6 lets an element repair that).
#[must_use]
pub fn max_forwards(headers: &Headers) -> u8 {
    headers
        .typed::<MaxForwards>()
        .and_then(Result::ok)
        .map_or(70, |hops| hops.0)
}

/// The URI of the first `Contact`.
#[must_use]
pub fn contact(headers: &Headers) -> Option<String> {
    let contact = headers.typed::<Contact>()?.ok()?;
    Some(uri_text(&contact.uri))
}

/// The `Record-Route` URIs from top to bottom, each as `<uri>`; `None` when there are too many or
/// one does not parse.
#[must_use]
pub fn record_routes(headers: &Headers) -> Option<Vec<String>> {
    let mut routes = Vec::new();
    for route in headers.typed_all::<RecordRoute>() {
        if routes.len() == MAX_ROUTES {
            return None;
        }
        routes.push(format!("<{}>", uri_text(&route.ok()?.uri)));
    }
    Some(routes)
}

/// The option tags of all `Require` rows.
#[must_use]
pub fn required_extensions(headers: &Headers) -> Vec<String> {
    headers
        .typed_all::<Require>()
        .flatten()
        .flat_map(|list| list.0.0)
        .map(|tag| String::from_utf8_lossy(&tag).into_owned())
        .collect()
}

/// Whether `Allow` (RFC 3261 §20.5) names a method; `None`: there is no such header.
#[must_use]
pub fn allows(headers: &Headers, method: &str) -> Option<bool> {
    let mut found = None;
    for header in headers.iter().filter(|it| *it.name() == HeaderName::Allow) {
        let value = header.value();
        let value = String::from_utf8_lossy(&value);
        let names = value.split(',').any(|word| word.trim() == method);
        found = Some(found == Some(true) || names);
    }
    found
}

/// The seconds of `Retry-After` (RFC 3261 §20.33).
#[must_use]
pub fn retry_after(headers: &Headers) -> Option<u32> {
    let value = text(headers, &HeaderName::RetryAfter)?;
    let digits = value.split([' ', '(', ';']).next()?;
    digits.parse().ok()
}

/// Whether the body is SDP by its `Content-Type`.
#[must_use]
pub fn is_sdp(headers: &Headers) -> bool {
    text(headers, &HeaderName::ContentType).is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/sdp")
    })
}

/// The Q.850 cause of a `Reason` header (RFC 3326), whatever else the header says.
#[must_use]
pub fn q850_cause(headers: &Headers) -> Option<u8> {
    headers
        .iter()
        .filter(|header| *header.name() == HeaderName::Reason)
        .find_map(|header| {
            let value = header.value();
            let value = String::from_utf8_lossy(&value);
            value.split(',').find_map(|reason| {
                let mut parts = reason.split(';').map(str::trim);
                if !parts.next()?.eq_ignore_ascii_case("Q.850") {
                    return None;
                }
                parts.find_map(|part| {
                    let (name, cause) = part.split_once('=')?;
                    name.trim()
                        .eq_ignore_ascii_case("cause")
                        .then(|| cause.trim().parse::<u8>().ok().filter(|c| *c <= 127))
                        .flatten()
                })
            })
        })
}

/// The user part of a `sip:` or `sips:` URI, percent-decoded, or what a `tel:` URI says; both with
/// the parameters of the number (RFC 3261 §19.1.6).
#[must_use]
pub fn user_of(uri: &Uri) -> Option<String> {
    if uri.tel_parts().is_some() {
        return Some(String::from_utf8_lossy(uri.opaque()?).into_owned());
    }
    let user = uri.decoded_user()?;
    Some(String::from_utf8_lossy(&user).into_owned())
}

/// The user part of `From`, as [`user_of`] has it.
#[must_use]
pub fn from_user(headers: &Headers) -> Option<String> {
    user_of(&headers.typed::<From>()?.ok()?.uri)
}

/// Where a URI points by a transport, when its host is an address (names need DNS, which is not
/// here).
#[must_use]
pub fn address_of(uri: &Uri, transport: Transport) -> Option<SocketAddr> {
    match uri.host()? {
        Host::Ip(ip) => {
            let port = uri.port().unwrap_or(transport.default_port());
            Some(SocketAddr::new(*ip, port))
        }
        Host::Name(_) => None,
    }
}

/// A URI as text.
#[must_use]
pub fn uri_text(uri: &Uri) -> String {
    String::from_utf8_lossy(&uri.to_bytes()).into_owned()
}
