//! The messages that the tests send, and short ways to read one.

use bytes::Bytes;
use sipx_sip::headers::To;
use sipx_sip::{
    CSeq, Header, HeaderName, Limits, Message, Method, Request, RequestBuilder, Response,
    ResponseBuilder, StatusCode, Uri, Via, parse_datagram,
};

pub const INVITE: &str = "INVITE sip:+4930123456@switch.example SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa1;rport\r\n\
    Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKz0, SIP/2.0/TCP 192.0.2.8;branch=z9hG4bKz1\r\n\
    Record-Route: <sip:p2.example;lr>, <sip:p1.example;lr>\r\n\
    Route: <sip:switch.example;lr>\r\n\
    Max-Forwards: 70\r\n\
    From: \"Alice\" <sip:alice@example.org>;tag=from-a\r\n\
    To: <sip:+4930123456@switch.example>\r\n\
    Call-ID: call-1@192.0.2.1\r\n\
    CSeq: 7 INVITE\r\n\
    Contact: <sip:alice@192.0.2.1:5060;transport=udp>\r\n\
    Reason: SIP;cause=302, Q.850;cause=16;text=\"Normal\"\r\n\
    Require: 100rel, timer\r\n\
    Require: replaces\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 5\r\n\r\nv=0\r\n";

pub fn parse(text: &str) -> Message {
    parse_datagram(Bytes::copy_from_slice(text.as_bytes()), &Limits::datagram()).unwrap()
}

pub fn parse_request(text: &str) -> Request {
    match parse(text) {
        Message::Request(request) => request,
        Message::Response(_) => panic!("a response"),
    }
}

pub fn reparse(message: &Message) -> Message {
    parse_datagram(message.to_bytes(), &Limits::datagram()).unwrap()
}

pub fn uri(text: &str) -> Uri {
    Uri::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

/// A request of the dialog `call-1`, from Alice's side.
pub fn request(
    method: &Method,
    target: &str,
    branch: &str,
    cseq: u32,
    to_tag: Option<&str>,
) -> Request {
    let to = match to_tag {
        Some(tag) => format!("<sip:bob@example.org>;tag={tag}"),
        None => "<sip:bob@example.org>".to_owned(),
    };
    RequestBuilder::new(method.clone(), uri(target))
        .header(
            HeaderName::Via,
            format!("SIP/2.0/UDP alice.example:5060;branch={branch}"),
        )
        .unwrap()
        .max_forwards(70)
        .header(HeaderName::From, "<sip:alice@example.org>;tag=a")
        .unwrap()
        .header(HeaderName::To, to)
        .unwrap()
        .header(HeaderName::CallId, "call-1")
        .unwrap()
        .cseq(cseq, method)
        .unwrap()
        .header(HeaderName::Contact, "<sip:alice@alice.example:5060>")
        .unwrap()
        .build()
}

pub fn invite() -> Request {
    request(
        &Method::Invite,
        "sip:bob@example.org",
        "z9hG4bKinv",
        1,
        None,
    )
}

pub fn options() -> Request {
    request(
        &Method::Options,
        "sip:bob@example.org",
        "z9hG4bKopt",
        1,
        None,
    )
}

/// RFC 3261 section 9.1: the INVITE's Request-URI, top Via, From, To, Call-ID, Route and CSeq number.
pub fn cancel_of(invite: &Request) -> Request {
    let mut cancel = Request::new(Method::Cancel, invite.uri.clone());
    let copied = [
        HeaderName::From,
        HeaderName::To,
        HeaderName::CallId,
        HeaderName::Route,
    ];
    cancel
        .headers
        .push(invite.headers.get(&HeaderName::Via).unwrap().clone());
    for header in invite.headers.iter().filter(|h| copied.contains(h.name())) {
        cancel.headers.push(header.clone());
    }
    let cseq = format!(
        "{} CANCEL",
        cseq_of(&Message::Request(invite.clone())).sequence
    );
    cancel
        .headers
        .push(Header::build(HeaderName::MaxForwards, "70").unwrap());
    cancel
        .headers
        .push(Header::build(HeaderName::CSeq, cseq).unwrap());
    cancel
        .headers
        .push(Header::build(HeaderName::ContentLength, "0").unwrap());
    cancel
}

pub fn answer(request: &Request, code: u16, to_tag: &str) -> Response {
    let mut response =
        ResponseBuilder::to_request(request, StatusCode::new(code).unwrap(), "Reason")
            .unwrap()
            .build();
    let to = response.headers.typed::<To>().unwrap().unwrap();
    if code > 100 && to.tag().is_none() {
        let value = format!("<{}>;tag={to_tag}", to.uri);
        response.headers.remove_all(&HeaderName::To);
        response
            .headers
            .push(Header::build(HeaderName::To, value).unwrap());
    }
    response
}

pub fn cseq_of(message: &Message) -> CSeq {
    message.headers().typed::<CSeq>().unwrap().unwrap()
}

pub fn to_tag_of(message: &Message) -> Option<String> {
    let to = message.headers().typed::<To>()?.ok()?;
    to.tag()
        .map(|tag| String::from_utf8_lossy(tag).into_owned())
}

pub fn branch_of(message: &Message) -> String {
    let via = message.headers().typed::<Via>().unwrap().unwrap();
    String::from_utf8_lossy(via.branch().unwrap()).into_owned()
}

/// `INVITE`, or `200 INVITE` for a response.
pub fn label(message: &Message) -> String {
    match message {
        Message::Request(request) => request.method.to_string(),
        Message::Response(response) => format!("{} {}", response.status, cseq_of(message).method),
    }
}
