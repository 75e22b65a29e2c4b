//! Reading headers, building messages, and what a response copies.

use bytes::Bytes;
use sipx_sip::headers::misc::{MaxForwards, Require};
use sipx_sip::headers::via::first_hop_end;
use sipx_sip::headers::{Contact, From, RecordRoute, Route, To};
use sipx_sip::{
    CSeq, CallId, Header, HeaderName, Message, Method, Reason, Request, ResponseBuilder,
    StatusCode, TransactionKey, Uri, Via, validate_request, validate_response,
};

use crate::messages::{INVITE, answer, parse, parse_request, reparse};

#[test]
fn every_header_we_read_has_a_typed_form() {
    let request = parse_request(INVITE);
    let headers = &request.headers;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    let via = headers.typed::<Via>().unwrap().unwrap();
    assert_eq!(
        (via.host.to_string(), via.port),
        ("192.0.2.1".to_owned(), Some(5060))
    );
    assert_eq!(via.branch(), Some(&b"z9hG4bKa1"[..]));
    assert_eq!(via.rport(), Some(None));
    assert_eq!(headers.typed_all::<Via>().count(), 3);
    assert_eq!(
        headers.typed::<From>().unwrap().unwrap().tag(),
        Some(&b"from-a"[..])
    );
    assert_eq!(headers.typed::<To>().unwrap().unwrap().tag(), None);
    assert_eq!(
        headers.typed::<CallId>().unwrap().unwrap().0,
        b"call-1@192.0.2.1"
    );
    let cseq = headers.typed::<CSeq>().unwrap().unwrap();
    assert_eq!((cseq.sequence, cseq.method), (7, Method::Invite));
    let contact = headers.typed::<Contact>().unwrap().unwrap();
    assert_eq!(
        contact.uri.to_string(),
        "sip:alice@192.0.2.1:5060;transport=udp"
    );
    let hops: Vec<String> = headers
        .typed_all::<RecordRoute>()
        .map(|r| r.unwrap().uri.to_string())
        .collect();
    assert_eq!(hops, ["sip:p2.example;lr", "sip:p1.example;lr"]);
    assert!(
        headers
            .typed::<Route>()
            .unwrap()
            .unwrap()
            .uri
            .params()
            .unwrap()
            .contains("lr")
    );
    assert_eq!(headers.typed::<MaxForwards>().unwrap().unwrap().0, 70);
    let reasons = headers.typed::<Reason>().unwrap().unwrap().0;
    assert_eq!(
        (text(reasons[1].protocol()), reasons[1].cause()),
        ("Q.850".to_owned(), 16)
    );
    let required: Vec<String> = headers
        .typed_all::<Require>()
        .flat_map(|row| row.unwrap().0.0)
        .map(|tag| text(&tag))
        .collect();
    assert_eq!(required, ["100rel", "timer", "replaces"]);
    assert_eq!(request.uri.user(), Some(&b"+4930123456"[..]));
    assert_eq!(request.body().as_ref(), b"v=0\r\n");
}

#[test]
fn an_untouched_message_is_written_as_it_came() {
    assert_eq!(parse(INVITE).to_bytes(), INVITE.as_bytes());
}

#[test]
fn compact_folded_and_oddly_cased_headers_are_the_same_headers() {
    let request = parse_request(
        "OPTIONS sip:a@b SIP/2.0\r\nv: SIP/2.0/UDP h\r\n ;branch=z9hG4bK1\r\nf: <sip:c@d>;TAG=1\r\n\
         T: <sip:a@b>\r\ni: x\r\ncseq :\t0009\r\n  OPTIONS\r\nmAX-fORWARDS: 5\r\nl: 0\r\n\r\n",
    );
    assert_eq!(validate_request(&request), []);
    let via = request.headers.typed::<Via>().unwrap().unwrap();
    assert_eq!(via.branch(), Some(&b"z9hG4bK1"[..]));
    assert_eq!(
        request.headers.typed::<From>().unwrap().unwrap().tag(),
        Some(&b"1"[..])
    );
    assert_eq!(
        request.headers.typed::<CSeq>().unwrap().unwrap().sequence,
        9
    );
}

#[test]
fn a_response_copies_the_vias_in_order_and_the_four_identifying_headers() {
    let response = answer(&parse_request(INVITE), 180, "b");
    let parsed = reparse(&Message::Response(response));
    assert_eq!(validate_response(parsed.as_response().unwrap()), []);
    let branches: Vec<_> = parsed
        .headers()
        .typed_all::<Via>()
        .map(|via| String::from_utf8_lossy(via.unwrap().branch().unwrap()).into_owned())
        .collect();
    assert_eq!(branches, ["z9hG4bKa1", "z9hG4bKz0", "z9hG4bKz1"]);
    assert_eq!(
        parsed.headers().count(&HeaderName::RecordRoute),
        0,
        "a user adds Record-Route"
    );
}

/// RFC 3261 section 18.2.1 and RFC 3581: a `Via` has no writer of its own, so its hop is rewritten.
fn stamp_top_via(request: &mut Request, address: &str, port: u16) {
    let header = request.headers.remove_first(&HeaderName::Via).unwrap();
    let value = header.value();
    let (hop, other_hops) = value.split_at(first_hop_end(&value));
    let via = Via::parse_one(hop).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut stamped = format!(
        "{}/{}/{} {}",
        text(&via.protocol),
        text(&via.version),
        text(&via.transport),
        via.host
    );
    if let Some(port) = via.port {
        stamped += &format!(":{port}");
    }
    for param in via
        .params
        .iter()
        .filter(|param| !param.is("received") && !param.is("rport"))
    {
        let value = param
            .value
            .as_ref()
            .map(|value| format!("={}", text(value)));
        stamped += &format!(";{}{}", text(&param.name), value.unwrap_or_default());
    }
    stamped += &format!(";received={address}");
    if via.rport().is_some() {
        stamped += &format!(";rport={port}");
    }
    stamped += &text(other_hops);
    request
        .headers
        .push_front(Header::build(HeaderName::Via, stamped).unwrap());
}

#[test]
fn the_top_via_can_be_stamped_with_the_source_of_the_datagram() {
    let mut request = parse_request(INVITE);
    let key = TransactionKey::from_request(&request);
    stamp_top_via(&mut request, "203.0.113.7", 40_000);
    assert_eq!(TransactionKey::from_request(&request), key);
    let response = Message::Response(answer(&request, 100, ""));
    assert_eq!(
        response.headers().value(&HeaderName::Via).unwrap(),
        &b"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa1;received=203.0.113.7;rport=40000"[..]
    );
    assert_eq!(response.headers().typed_all::<Via>().count(), 3);
}

#[test]
fn no_builder_lets_a_line_break_through() {
    for bad in ["a\r\nX: 1", "a\nb", "a\rb", "a\0b"] {
        assert!(Header::build(HeaderName::Subject, bad).is_err());
        assert!(ResponseBuilder::new(StatusCode::new(200).unwrap(), bad).is_err());
        assert!(Uri::parse(Bytes::copy_from_slice(bad.as_bytes())).is_err());
        let name = HeaderName::Other(Bytes::copy_from_slice(bad.as_bytes()));
        assert!(Header::build(name, "x").is_err());
    }
}
