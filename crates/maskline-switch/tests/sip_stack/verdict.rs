//! What becomes of a datagram: readable, refused with a 400, or dropped.

use bytes::Bytes;
use sipx_sip::{
    Finding, HeaderName, Limits, Message, Request, Response, ResponseBuilder, StatusCode, Via,
    parse_datagram, validate_request, validate_response,
};

/// The request behind a datagram that does not parse, rebuilt from the lines a 400 needs.
///
/// `None` when there is nothing to answer: a response, an ACK, or a head without the five
/// headers a response copies and a `Via` to send it by.
pub fn salvage(datagram: &[u8]) -> Option<Request> {
    let first = datagram.split(|&b| b == b'\r' || b == b'\n').next()?;
    if first.len() >= 4 && (first[..4].eq_ignore_ascii_case(b"SIP/") || first.starts_with(b"ACK "))
    {
        return None;
    }
    let needed = [
        HeaderName::Via,
        HeaderName::From,
        HeaderName::To,
        HeaderName::CallId,
        HeaderName::CSeq,
    ];
    let mut head = b"UNREADABLE sip:unreadable.invalid SIP/2.0\r\n".to_vec();
    let mut copying = false;
    for line in datagram[first.len()..].split(|&b| b == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        if !matches!(line[0], b' ' | b'\t') {
            let name = line.split(|&b| b == b':').next()?.trim_ascii_end();
            copying = needed.contains(&HeaderName::parse(&Bytes::copy_from_slice(name)));
        }
        if copying {
            head.extend_from_slice(line);
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    let message = parse_datagram(Bytes::from(head), &Limits::datagram()).ok()?;
    let request = message.as_request()?;
    request.headers.typed::<Via>()?.ok()?;
    needed
        .iter()
        .all(|name| request.headers.get(name).is_some())
        .then(|| request.clone())
}

/// A 400 copying whatever the request carries, well-formed or not.
pub fn refuse(request: &Request) -> Option<Response> {
    let status = StatusCode::new(400).unwrap();
    ResponseBuilder::to_request(request, status, "Bad Request")
        .ok()
        .map(ResponseBuilder::build)
}

/// What becomes of a datagram: `ok`, the findings, or the parse error and the status we can send.
pub fn verdict(datagram: &[u8]) -> String {
    match parse_datagram(Bytes::copy_from_slice(datagram), &Limits::datagram()) {
        Ok(Message::Request(request)) => describe(&validate_request(&request)),
        Ok(Message::Response(response)) => describe(&validate_response(&response)),
        Err(error) => match salvage(datagram).as_ref().and_then(refuse) {
            Some(_) => format!("{error} -> 400"),
            None => format!("{error} -> dropped"),
        },
    }
}

pub fn describe(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "ok".to_owned();
    }
    let each = findings
        .iter()
        .map(|finding| format!("{finding:?} {}", finding.status()));
    each.collect::<Vec<_>>().join(", ")
}

pub const TORTURE: &str = "OPTIONS sip:a@b.example SIP/2.0\r\nVia: SIP/2.0/UDP h.example;branch=z9hG4bK1\r\n\
    Max-Forwards: 70\r\nFrom: <sip:c@d.example>;tag=1\r\nTo: <sip:a@b.example>\r\nCall-ID: x\r\n\
    CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
