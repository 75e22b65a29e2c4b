//! Building messages from nothing: what we say is ours, never copied from the other party.

use sipx_sip::message::{Header, StatusCode};
use sipx_sip::{HeaderName, Method, Request, RequestBuilder, Response, ResponseBuilder, Uri};

use super::view;
use super::wire::Transport;

/// Methods that we take; in `Allow` (RFC 3261 §20.5).
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK, INFO";

/// How we are reached on one transport: what stands in `Via` and `Contact`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentBy {
    /// `host:port`, the host in brackets when it is IPv6.
    pub host_port: String,
    /// How messages travel to it.
    pub transport: Transport,
}

impl SentBy {
    pub(crate) fn via(&self, branch: &str) -> String {
        format!(
            "SIP/2.0/{} {};branch={branch};rport",
            self.transport.as_str(),
            self.host_port
        )
    }

    /// The value of our `Contact`.
    #[must_use]
    pub fn contact(&self) -> String {
        format!("<sip:{}{}>", self.host_port, self.transport.uri_parameter())
    }

    /// Our URI with a user part, as a registrar keeps it.
    #[must_use]
    pub fn uri_of(&self, user: &str) -> String {
        let parameter = self.transport.uri_parameter();
        format!("sip:{user}@{}{parameter}", self.host_port)
    }
}

/// Our `Contact` where the peer asked for `sips:`; `transport=tls` says nothing more there
/// (RFC 5630 §3.1.4). A Contact of another transport stays: nothing listens there for TLS.
fn as_sips(contact: &str) -> String {
    let plain = contact
        .strip_prefix("<sip:")
        .and_then(|rest| rest.strip_suffix(";transport=tls>"));
    plain.map_or_else(
        || contact.to_owned(),
        |host_port| format!("<sips:{host_port}>"),
    )
}

/// Whether the answer to a request must name us by `sips:` (RFC 3261 §12.1.1).
fn asks_for_sips(request: &Request) -> bool {
    let is_sips = |uri: &str| uri.trim_start_matches('<').starts_with("sips:");
    if is_sips(&view::uri_text(&request.uri)) {
        return true;
    }
    let routes = view::record_routes(&request.headers).unwrap_or_default();
    match routes.first() {
        Some(route) => is_sips(route),
        None => view::contact(&request.headers).is_some_and(|contact| is_sips(&contact)),
    }
}

/// A request's parts; every text is ours or was checked when it was read.
#[derive(Clone, Debug)]
pub struct RequestParts<'a> {
    /// The method.
    pub method: Method,
    /// The Request-URI.
    pub uri: &'a str,
    /// `Route` values in order.
    pub routes: &'a [String],
    /// Our side.
    pub sent_by: &'a SentBy,
    /// The `Via` branch.
    pub branch: &'a str,
    /// The whole `From` value.
    pub from: &'a str,
    /// The whole `To` value.
    pub to: &'a str,
    /// `Call-ID`.
    pub call_id: &'a str,
    /// `CSeq` number.
    pub cseq: u32,
    /// An SDP body.
    pub sdp: Option<&'a str>,
    /// More headers: name and value.
    pub extra: &'a [(HeaderName, String)],
}

/// Builds a request; `None` when a part holds what no header may hold (a line break, say).
#[must_use]
pub fn request(parts: &RequestParts<'_>) -> Option<Request> {
    let uri = Uri::parse(bytes::Bytes::copy_from_slice(parts.uri.as_bytes())).ok()?;
    let mut builder = RequestBuilder::new(parts.method.clone(), uri)
        .header(HeaderName::Via, parts.sent_by.via(parts.branch))
        .ok()?;
    for route in parts.routes {
        builder = builder.header(HeaderName::Route, route.clone()).ok()?;
    }
    builder = builder
        .max_forwards(70)
        .header(HeaderName::From, parts.from.to_owned())
        .ok()?
        .header(HeaderName::To, parts.to.to_owned())
        .ok()?
        .header(HeaderName::CallId, parts.call_id.to_owned())
        .ok()?
        .cseq(parts.cseq, &parts.method)
        .ok()?;
    if matches!(parts.method, Method::Invite | Method::Update) {
        // RFC 3261 §8.1.1.8.
        let first = parts.routes.first().map_or(parts.uri, String::as_str);
        let sips = [parts.uri, first]
            .iter()
            .any(|uri| uri.trim_start_matches('<').starts_with("sips:"));
        let mut contact = parts.sent_by.contact();
        if sips {
            contact = as_sips(&contact);
        }
        builder = builder
            .header(HeaderName::Contact, contact)
            .ok()?
            .header(HeaderName::Allow, ALLOW)
            .ok()?;
    }
    for (name, value) in parts.extra {
        builder = builder.header(name.clone(), value.clone()).ok()?;
    }
    if let Some(sdp) = parts.sdp {
        builder = builder
            .header(HeaderName::ContentType, "application/sdp")
            .ok()?
            .body(sdp.to_owned());
    }
    Some(builder.build())
}

/// Puts a body into a request that has none; `None` when its type is no header value.
#[must_use]
pub fn with_body(mut request: Request, content_type: &str, body: String) -> Option<Request> {
    let length = Header::build(HeaderName::ContentLength, body.len().to_string()).ok()?;
    let kind = Header::build(HeaderName::ContentType, content_type.to_owned()).ok()?;
    request.headers.remove_all(&HeaderName::ContentLength);
    request.headers.push(kind);
    request.headers.push(length);
    request.set_body(body.into());
    Some(request)
}

/// A header; `None` when the value holds what no header may hold.
#[must_use]
pub fn header(name: &HeaderName, value: String) -> Option<Header> {
    Header::build(name.clone(), value).ok()
}

/// The CANCEL of an INVITE of ours (RFC 3261 §9.1).
#[must_use]
pub fn cancel_of(invite: &Request) -> Option<Request> {
    let mut cancel = RequestBuilder::new(Method::Cancel, invite.uri.clone()).build();
    let mut headers = Vec::new();
    for name in [
        HeaderName::Via,
        HeaderName::Route,
        HeaderName::From,
        HeaderName::To,
        HeaderName::CallId,
    ] {
        headers.extend(invite.headers.get_all(&name).cloned());
    }
    let (sequence, _) = view::cseq(&invite.headers)?;
    headers.push(Header::build(HeaderName::CSeq, format!("{sequence} CANCEL")).ok()?);
    headers.push(Header::build(HeaderName::MaxForwards, "70").ok()?);
    for header in headers.into_iter().rev() {
        cancel.headers.push_front(header);
    }
    Some(cancel)
}

/// Adds headers; one that holds what no header may hold is left out.
pub fn push_all(request: &mut Request, headers: impl IntoIterator<Item = (HeaderName, String)>) {
    for (name, value) in headers {
        if let Ok(header) = Header::build(name, value) {
            request.headers.push(header);
        }
    }
}

/// A request again with other credentials (RFC 3261 §22.2): a new branch and `CSeq`, all else the
/// same.
#[must_use]
pub fn again(
    request: &Request,
    sent_by: &SentBy,
    branch: &str,
    cseq: u32,
    credentials: Vec<(HeaderName, String)>,
) -> Option<Request> {
    let mut request = request.clone();
    let method = String::from_utf8_lossy(request.method.as_bytes()).into_owned();
    for name in [
        HeaderName::CSeq,
        HeaderName::Authorization,
        HeaderName::ProxyAuthorization,
    ] {
        request.headers.remove_all(&name);
    }
    request.headers.remove_first(&HeaderName::Via);
    let via = Header::build(HeaderName::Via, sent_by.via(branch)).ok()?;
    request.headers.push_front(via);
    let cseq = (HeaderName::CSeq, format!("{cseq} {method}"));
    for (name, value) in std::iter::once(cseq).chain(credentials) {
        request.headers.push(Header::build(name, value).ok()?);
    }
    Some(request)
}

/// A response to a request, with our To tag and nothing of anyone else's; the caller adds
/// `Contact`, `Record-Route` and a body where they belong.
#[must_use]
pub fn response(
    request: &Request,
    status: u16,
    local_tag: Option<&str>,
    extra: &[(HeaderName, String)],
    sdp: Option<&str>,
) -> Option<Response> {
    let mut builder =
        ResponseBuilder::to_request(request, StatusCode::new(status)?, phrase(status)).ok()?;
    if let (Some(tag), None) = (local_tag, view::to_tag(&request.headers)) {
        let to = view::text(&request.headers, &HeaderName::To)?;
        // A quoted control character may be received but not be written: then without a tag, which
        // is better than no answer.
        if !to.contains(|c: char| c.is_control()) {
            builder = builder
                .set_header(&HeaderName::To, format!("{to};tag={tag}"))
                .ok()?;
        }
    }
    // A dialog is made by 101-299: the caller's own route set goes back to it (RFC 3261 §12.1.1).
    if (101..300).contains(&status) && request.method == Method::Invite {
        for route in view::record_routes(&request.headers)? {
            builder = builder.header(HeaderName::RecordRoute, route).ok()?;
        }
    }
    for (name, value) in extra {
        let value = if *name == HeaderName::Contact && asks_for_sips(request) {
            as_sips(value)
        } else {
            value.clone()
        };
        builder = builder.header(name.clone(), value).ok()?;
    }
    if let Some(sdp) = sdp {
        builder = builder
            .header(HeaderName::ContentType, "application/sdp")
            .ok()?
            .body(sdp.to_owned());
    }
    let mut response = builder.build();
    // The library reflects History-Info, and makes one up when the peer supports it: it would name
    // numbers.
    response.headers.remove_all(&HeaderName::HistoryInfo);
    Some(response)
}

/// The reason phrase that we send with a status.
#[must_use]
pub fn phrase(status: u16) -> &'static str {
    known_phrase(status).unwrap_or("Refused")
}

/// Our reason phrase of a status; `None`: we have none of its own.
#[must_use]
pub const fn known_phrase(status: u16) -> Option<&'static str> {
    match status {
        100 => Some("Trying"),
        180 => Some("Ringing"),
        183 => Some("Session Progress"),
        200 => Some("OK"),
        400 => Some("Bad Request"),
        401 => Some("Unauthorized"),
        403 => Some("Forbidden"),
        404 => Some("Not Found"),
        405 => Some("Method Not Allowed"),
        408 => Some("Request Timeout"),
        415 => Some("Unsupported Media Type"),
        420 => Some("Bad Extension"),
        422 => Some("Session Interval Too Small"),
        480 => Some("Temporarily Unavailable"),
        481 => Some("Call/Transaction Does Not Exist"),
        482 => Some("Loop Detected"),
        483 => Some("Too Many Hops"),
        486 => Some("Busy Here"),
        487 => Some("Request Terminated"),
        488 => Some("Not Acceptable Here"),
        491 => Some("Request Pending"),
        500 => Some("Server Internal Error"),
        501 => Some("Not Implemented"),
        503 => Some("Service Unavailable"),
        505 => Some("Version Not Supported"),
        600 => Some("Busy Everywhere"),
        603 => Some("Decline"),
        _ => None,
    }
}
