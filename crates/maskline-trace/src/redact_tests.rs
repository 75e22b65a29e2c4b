//! What is hidden and what stays.

use proptest::prelude::*;

use super::*;

fn shown(name: &str, value: &str) -> String {
    let message = Text {
        start: "OPTIONS sip:x SIP/2.0".to_owned(),
        headers: vec![(name.to_owned(), value.to_owned())],
        body: String::new(),
    };
    let redacted = redact(&message, &[]);
    redacted
        .headers
        .first()
        .map(|(_, value)| value.clone())
        .unwrap_or_default()
}

#[test]
fn numbers_and_names_are_hidden_where_they_stand() {
    for (name, value, expected) in [
        (
            "From",
            "\"Alice, \\\"A\\\"\" <sip:+6591234567@192.0.2.1:5061;user=phone>;tag=a1b2",
            "\"…\" <sip:+65••••4567@192.0.2.1:5061;user=phone>;tag=a1b2",
        ),
        ("To", "Bob B <sips:bob:secret@h>", "\"…\" <sips:…;…@h>"),
        ("Contact", "sip:6591234567@h;x=1", "sip:65••••4567@h;x=1"),
        ("Contact", "*", "*"),
        (
            "P-Asserted-Identity",
            "<tel:+65-9123-4567;phone-context=x>, <sip:anonymous@h>",
            "<tel:+65••••4567;phone-context=x>, <sip:anonymous@h>",
        ),
        (
            "Diversion",
            "<sip:%2B65%39123456%37;npdi@h>;reason=user-busy",
            "<sip:+65••••4567;…@h>;reason=user-busy",
        ),
        ("Reason", "Q.850;cause=16", "Q.850;cause=16"),
        (
            "Reason",
            "SIP;cause=486;text=\"no 6591234567\"",
            "SIP;cause=486;text=\"…\"",
        ),
        (
            "X-Any",
            "a sip:bob@h at 65 9123 4567",
            "a sip:…@h at 65••••4567",
        ),
        (
            "Authorization",
            "Digest username=\"x\", response=\"y\"",
            "Digest …",
        ),
        ("Subject", "anything", "…"),
        ("CSeq", "102341 INVITE", "102341 INVITE"),
        ("User-Agent", "Asterisk PBX 18.12.0", "Asterisk PBX 18.12.0"),
        (
            "Via",
            "SIP/2.0/TCP 192.0.2.7:50600;branch=z9hG4bKm0.1;rport=50601",
            "SIP/2.0/TCP 192.0.2.7:50600;branch=z9hG4bKm0.1;rport=50601",
        ),
        (
            "Call-ID",
            "0123456789abcdef0123456789abcdef",
            "0123456789abcdef0123456789abcdef",
        ),
        ("Call-ID", "6591234567-1@h", "65••••5671@h"),
    ] {
        assert_eq!(shown(name, value), expected, "{name}: {value}");
    }
}

#[test]
fn a_body_keeps_addresses_and_codecs_and_nothing_else() {
    let message = Text::of(
        b"INVITE sip:6591234567@h SIP/2.0\r\nContent-Type: application/sdp\r\n\r\nv=0\r\no=bob 6591234567 1 IN IP4 192.0.2.1\r\n\
          s=Bob's call\r\np=+65 9123 4567\r\nc=IN IP4 192.0.2.1\r\nm=audio 40000 RTP/AVP 8 0 101\r\na=rtpmap:101 telephone-event/8000\r\n\
          a=fmtp:101 0-15\r\na=x-who:bob\r\na=sendrecv\r\n",
    );
    let redacted = redact(&message, &[]);
    assert_eq!(redacted.start, "INVITE sip:65••••4567@h SIP/2.0");
    assert_eq!(
        redacted.body.replace("\r\n", "|"),
        "v=0|o=… 65••••4567 1 IN IP4 192.0.2.1|s=…|p=…|c=IN IP4 192.0.2.1|m=audio 40000 RTP/AVP 8 0 101|\
         a=rtpmap:101 telephone-event/8000|a=fmtp:101 0-15|a=x-who:…|a=sendrecv|"
    );
    let keys =
        Text::of(b"INFO sip:x SIP/2.0\r\nContent-Type: application/dtmf-relay\r\n\r\nSignal=5\r\n");
    assert_eq!(
        redact(&keys, &[]).body,
        "(10 bytes of application/dtmf-relay hidden)"
    );
}

#[test]
fn credentials_are_overwritten_in_place_and_the_rest_stays() {
    let text = "INVITE sip:x SIP/2.0\r\nauthorization: Digest username=\"u\", realm=\"r\",\r\n RESPONSE = \"abc\", nc=1\r\n\
        Proxy-Authorization: Basic dXNlcjpwYXNz\r\nX-Response: response=1\r\n\r\nresponse=\"body\"";
    let mut bytes = text.as_bytes().to_vec();
    hide_credentials(&mut bytes);
    let hidden = String::from_utf8(bytes).unwrap_or_default();
    assert_eq!(
        hidden,
        text.replace("\"abc\"", "\"xxx\"")
            .replace("dXNlcjpwYXNz", "xxxxxxxxxxxx")
    );
}

/// However a number may be written.
fn written(number: &str, how: usize) -> String {
    let national = number.get(2..).unwrap_or(number);
    let every = |text: &str, by: &str| {
        let chars: Vec<String> = text.chars().map(String::from).collect();
        chars
            .chunks(4)
            .map(<[String]>::concat)
            .collect::<Vec<_>>()
            .join(by)
    };
    match how % 9 {
        0 => format!("+{number}"),
        1 => national.to_owned(),
        2 => format!("0{national}"),
        3 => every(number, "-"),
        4 => every(national, " "),
        5 => number.bytes().map(|b| format!("%{b:02X}")).collect(),
        6 => number.bytes().map(|b| format!("%25{b:02x}")).collect(),
        7 => format!(
            "({}) {}",
            number.get(..2).unwrap_or_default(),
            every(national, ".")
        ),
        _ => format!("00{number}"),
    }
}

fn only_digits(text: &str) -> String {
    decoded_for_test(text)
        .chars()
        .filter(char::is_ascii_digit)
        .collect()
}

fn decoded_for_test(text: &str) -> String {
    digits::decoded(text)
}

proptest! {
    #[test]
    fn a_planted_number_is_in_no_output_however_it_is_written_and_wherever(
        tail in "[1-9][0-9]{7}",
        how in 0usize..9,
        header in 0usize..24,
        place in 0usize..9,
    ) {
        let number = format!("65{tail}");
        let planted = written(&number, how);
        let headers = [
            "From", "To", "Contact", "P-Asserted-Identity", "Remote-Party-ID", "Diversion", "History-Info",
            "Referred-By", "Route", "Via", "Call-ID", "Reason", "Warning", "User-Agent", "X-Unknown", "CSeq",
            "Subject", "Authorization", "Session-Expires", "P-Charging-Vector", "Supported", "Content-Type",
            "Replaces", "Privacy",
        ];
        let value = match place {
            0 => planted.clone(),
            1 => format!("\"{planted}\" <sip:x@192.0.2.1>;tag=1"),
            2 => format!("{planted} <sip:x@192.0.2.1>"),
            3 => format!("<sip:{planted}@192.0.2.1:5060>;tag=abc"),
            4 => format!("<tel:{planted};phone-context=+65>"),
            5 => format!("<sip:x@h;a={planted}?X={planted}>;tag={planted}"),
            6 => format!("x;cause=1;text=\"{planted}\";y={planted}"),
            7 => format!("1 INVITE, {planted}, <sip:{planted}>"),
            _ => format!("\"unfinished <sip:{planted}@h"),
        };
        let name = headers[header % headers.len()];
        let message = Text {
            start: format!("INVITE sip:{planted}@h SIP/2.0"),
            headers: vec![(name.to_owned(), value.clone()), (planted.clone(), "x".to_owned())],
            body: String::new(),
        };
        let redacted = redact(&message, &[]);
        let mut lines = vec![redacted.start];
        lines.extend(redacted.headers.into_iter().flat_map(|(name, value)| [name, value]));
        for line in lines {
            prop_assert!(!only_digits(&line).contains(&tail), "{name}: {value} gives {line}");
        }
    }

    #[test]
    fn any_text_is_redacted_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = bytes;
        let redacted = redact(&Text::of(&bytes), &["6591234567".to_owned()]);
        prop_assert!(redacted.body.len() <= bytes.len() * 4 + 200);
        hide_credentials(&mut bytes);
    }
}
