//! Messages in the manner of RFC 4475, each with its verdict, and noise.

use bytes::Bytes;
use sipx_sip::headers::misc::{MaxForwards, Require};
use sipx_sip::headers::{Contact, From, RecordRoute, Route, To};
use sipx_sip::{
    CSeq, Limits, Message, Reason, Reliability, Timers, TransactionKey, TransactionLayer, Via,
    parse_datagram, validate_request, validate_response,
};

use crate::messages::{INVITE, branch_of, reparse};
use crate::verdict::{TORTURE, refuse, salvage, verdict};
use Reliability::Unreliable;

#[test]
fn each_torture_message_gets_the_verdict_written_here() {
    // (what, the text replaced in TORTURE, its replacement, the verdict)
    let cases: &[(&str, &str, &str, &str)] = &[
        ("untouched", "", "", "ok"),
        (
            "extended method token",
            "OPTIONS",
            "!interesting-Method0123456789_*+`.%indeed'~",
            "CSeqMethodMismatch 400",
        ),
        (
            "trailing octets",
            "\r\n\r\n",
            "\r\n\r\nINVITE sip:x SIP/2.0\r\n\r\n",
            "ok",
        ),
        (
            "two spaces",
            "OPTIONS sip",
            "OPTIONS  sip",
            "malformed start line: a request line must have exactly three space-separated elements -> 400",
        ),
        (
            "trailing space",
            "SIP/2.0\r\nVia",
            "SIP/2.0 \r\nVia",
            "malformed start line: a request line must have exactly three space-separated elements -> 400",
        ),
        (
            "bracketed request URI",
            "sip:a@b.example SIP",
            "<sip:a@b.example> SIP",
            "malformed start line: bad Request-URI: illegal character in URI -> 400",
        ),
        (
            "space in the request URI",
            "sip:a@b.example SIP",
            "sip:a@b.example; lr SIP",
            "malformed start line: a request line must have exactly three space-separated elements -> 400",
        ),
        (
            "headers in the request URI",
            "sip:a@b.example SIP",
            "sip:a@b.example?Route=%3Csip:x%3E SIP",
            "RequestUriHasHeaders 400",
        ),
        (
            "unknown scheme",
            "sip:a@b.example SIP",
            "nobodyKnowsThisScheme:totallyopaquecontent SIP",
            "ok",
        ),
        (
            "bad escape",
            "sip:a@b.example SIP",
            "sip:a%zz@b.example SIP",
            "malformed start line: bad Request-URI: malformed percent escape -> 400",
        ),
        (
            "version 7.0",
            "SIP/2.0\r\nVia",
            "SIP/7.0\r\nVia",
            "UnsupportedVersion 505",
        ),
        (
            "no version",
            " SIP/2.0\r\nVia",
            "\r\nVia",
            "malformed start line: a request line must have exactly three space-separated elements -> 400",
        ),
        (
            "negative content length",
            "Content-Length: 0",
            "Content-Length: -999",
            "cannot frame message body: Content-Length is not a decimal number -> 400",
        ),
        (
            "content length beyond the datagram",
            "Content-Length: 0",
            "Content-Length: 9999",
            "cannot frame message body: Content-Length exceeds the octets present -> 400",
        ),
        (
            "content length twice",
            "Content-Length: 0",
            "Content-Length: 0\r\nl: 0",
            "cannot frame message body: repeated Content-Length -> 400",
        ),
        (
            "CSeq number too large",
            "CSeq: 1 ",
            "CSeq: 36893488147419103232 ",
            "MalformedRequiredHeader(\"CSeq\") 400",
        ),
        (
            "CSeq method mismatch",
            "CSeq: 1 OPTIONS",
            "CSeq: 1 INVITE",
            "CSeqMethodMismatch 400",
        ),
        (
            "Max-Forwards 300",
            "Max-Forwards: 70",
            "Max-Forwards: 300",
            "MalformedRequiredHeader(\"Max-Forwards\") 400",
        ),
        (
            "Max-Forwards 0",
            "Max-Forwards: 70",
            "Max-Forwards: 0",
            "ok",
        ),
        (
            "no Max-Forwards",
            "Max-Forwards: 70\r\n",
            "",
            "MissingRequiredHeader(\"Max-Forwards\") 400",
        ),
        (
            "no Call-ID",
            "Call-ID: x\r\n",
            "",
            "MissingRequiredHeader(\"Call-ID\") 400",
        ),
        (
            "no Via",
            "Via: SIP/2.0/UDP h.example;branch=z9hG4bK1\r\n",
            "",
            "MissingRequiredHeader(\"Via\") 400",
        ),
        (
            "two To headers",
            "Call-ID",
            "To: <sip:z@z.example>\r\nCall-ID",
            "RepeatedSingleValueHeader(\"To\") 400",
        ),
        (
            "unclosed quote",
            "<sip:c@d",
            "\"Bell, Alexander <sip:c@d",
            "MalformedRequiredHeader(\"From\") 400",
        ),
        (
            "comma outside quotes",
            "<sip:c@d",
            "Bell, Alexander <sip:c@d",
            "MalformedRequiredHeader(\"From\") 400",
        ),
        (
            "branch without a value",
            "branch=z9hG4bK1",
            "branch=",
            "MalformedRequiredHeader(\"Via\") 400",
        ),
        (
            "bare magic cookie",
            "branch=z9hG4bK1",
            "branch=z9hG4bK",
            "ok",
        ),
        (
            "Via without sent-by",
            "UDP h.example;",
            "UDP ;",
            "MalformedRequiredHeader(\"Via\") 400",
        ),
        (
            "Via of another protocol",
            "SIP/2.0/UDP",
            "HTTP/1.1/XYZ",
            "ok",
        ),
        (
            "header without a colon",
            "Max-Forwards: 70",
            "Max-Forwards 70",
            "malformed header field on line 3: no colon -> 400",
        ),
        (
            "header name with a space",
            "Max-Forwards: 70",
            "Max Forwards: 70",
            "malformed header field on line 3: field name is not a token -> 400",
        ),
        (
            "bare line feed",
            "Max-Forwards: 70\r\n",
            "Max-Forwards: 70\n",
            "malformed header field on line 3: bare CR or LF -> 400",
        ),
        ("NUL in a value", "Call-ID: x", "Call-ID: x\0y", "ok"),
        (
            "folded first line",
            "OPTIONS",
            " OPTIONS",
            "malformed header field on line 1: header section begins with a continuation line -> 400",
        ),
        (
            "leading line break",
            "OPTIONS sip",
            "\r\nOPTIONS sip",
            "malformed start line: empty -> 400",
        ),
        (
            "no blank line",
            "Content-Length: 0\r\n\r\n",
            "Content-Length: 0\r\n",
            "cannot frame message body: no blank line after headers -> 400",
        ),
        (
            "broken ACK",
            "OPTIONS sip:",
            "ACK  sip:",
            "malformed start line: a request line must have exactly three space-separated elements -> dropped",
        ),
        (
            "broken response",
            "OPTIONS sip:a@b.example SIP/2.0",
            "SIP/2.0 4294967301 better not",
            "malformed start line: status code is not three digits in 100..=699 -> dropped",
        ),
        (
            "status 700",
            "OPTIONS sip:a@b.example SIP/2.0",
            "SIP/2.0 700 No",
            "malformed start line: status code is not three digits in 100..=699 -> dropped",
        ),
        (
            "response without a reason",
            "OPTIONS sip:a@b.example SIP/2.0",
            "SIP/2.0 200",
            "ok",
        ),
    ];
    for (what, old, new, expected) in cases {
        let datagram = TORTURE.replacen(old, new, 1);
        assert!(
            old.is_empty() || datagram != TORTURE,
            "{what}: nothing replaced"
        );
        assert_eq!(verdict(datagram.as_bytes()), *expected, "{what}");
    }
}

#[test]
fn an_unreadable_request_is_refused_along_the_vias_it_came_with() {
    let datagram = TORTURE.replacen("OPTIONS sip", "OPTIONS  sip", 1).replacen(
        "Max-Forwards",
        "v: SIP/2.0/TCP\r\n p.example;branch=z9hG4bK0\r\nMax-Forwards",
        1,
    );
    let refusal = reparse(&Message::Response(
        refuse(&salvage(datagram.as_bytes()).unwrap()).unwrap(),
    ));
    assert_eq!(branch_of(&refusal), "z9hG4bK1");
    assert_eq!(refusal.headers().typed_all::<Via>().count(), 2);
    assert_eq!(validate_response(refusal.as_response().unwrap()), []);
}

#[test]
fn a_datagram_of_noise_is_an_error() {
    for noise in [
        &b""[..],
        b"\r\n",
        b"\r\n\r\n",
        b"\0\0\0\0",
        b"jaK",
        &[0xff; 1_500],
    ] {
        assert!(verdict(noise).ends_with("-> dropped"), "{noise:?}");
    }
}

/// Reads everything a hostile message could blow up in.
fn exercise(datagram: &[u8]) {
    let Ok(message) = parse_datagram(Bytes::copy_from_slice(datagram), &Limits::datagram()) else {
        if let Some(request) = salvage(datagram) {
            let _ = Message::Response(refuse(&request).unwrap()).to_bytes();
        }
        return;
    };
    let headers = message.headers();
    let _ = headers.typed_all::<Via>().count();
    let _ = (
        headers.typed::<From>(),
        headers.typed::<To>(),
        headers.typed::<CSeq>(),
    );
    let _ = (
        headers.typed_all::<Contact>().count(),
        headers.typed_all::<Route>().count(),
    );
    let _ = (
        headers.typed_all::<RecordRoute>().count(),
        headers.typed_all::<Reason>().count(),
    );
    let _ = (
        headers.typed_all::<Require>().count(),
        headers.typed::<MaxForwards>(),
    );
    let _ = message.to_bytes();
    let mut layer = TransactionLayer::new(Timers::default());
    if let Message::Request(request) = &message {
        let _ = (validate_request(request), refuse(request));
        let _ = TransactionKey::for_cancelled_invite(request);
    }
    layer.receive(message, Unreliable);
}

#[test]
fn no_cut_and_no_changed_byte_of_an_invite_panics() {
    let original = INVITE.as_bytes();
    for at in 0..original.len() {
        exercise(&original[..at]);
        for byte in *b"\0\r\n \",;:<>@=%/0\xff" {
            let mut changed = original.to_vec();
            changed[at] = byte;
            exercise(&changed);
        }
    }
}
