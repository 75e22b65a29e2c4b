//! What `parse` takes from a description and what it refuses, with the line.

use maskline_media::MediaAddresses;

use super::*;

#[test]
fn a_carriers_offer_is_read() {
    let offer = parse(
        b"v=0\r\no=gw 18446744073709551617 2 IN IP4 192.0.2.9\r\ns=a b\r\nc=IN IP4 192.0.2.1\r\n\
          b=AS:80\r\nt=0 0\r\nm=audio 10500 RTP/AVP 8 0 18 101\r\na=rtpmap:8 pcma/8000\r\n\
          a=rtpmap:18 G729/8000/1\r\na=fmtp:18 annexb=NO\r\na=rtpmap:101 Telephone-Event/8000\r\n\
          a=fmtp:101 0-16\r\na=ptime:20\r\na=rtcp:10600\r\na=sendrecv\r\n",
    )
    .unwrap();
    assert_eq!(offer.rtp, "192.0.2.1:10500".parse().unwrap());
    assert_eq!(offer.rtcp, Some("192.0.2.1:10600".parse().unwrap()));
    assert_eq!(
        names(&offer.codecs),
        [
            "Pcma/8000@8",
            "Pcmu/8000@0",
            "G729/8000@18 annexb=no",
            "TelephoneEvent/8000@101 0-15"
        ]
    );
    assert_eq!(offer.ptime_ms, Some(20));
    assert_eq!(offer.direction, Direction::SendRecv);
    assert_eq!((offer.audio_index, offer.streams.len()), (0, 1));
}

#[test]
fn line_feeds_alone_trailing_blanks_unknown_letters_and_other_alphabets_are_tolerated() {
    let text = b"v=0 \no=J\xfcrg 1 1 IN IP4 h\ns=\xff\xfe\nq=what\nc=in ip4 192.0.2.1  \nt=0 0\n\
        m=AUDIO 4000 rtp/avp  0\na=RTPMAP:0  PCMU/8000\n\n";
    let read = parse(text).unwrap();
    assert_eq!(names(&read.codecs), ["Pcmu/8000@0"]);
}

#[test]
fn the_static_payload_types_need_no_rtpmap_and_the_dynamic_ones_do() {
    assert_eq!(
        names(&audio("9 18 3 0 8 111 13", "").codecs),
        [
            "G722/8000@9",
            "G729/8000@18",
            "Pcmu/8000@0",
            "Pcma/8000@8",
            "ComfortNoise/8000@13"
        ]
    );
}

#[test]
fn an_rtpmap_overrides_a_static_payload_type_and_must_be_a_codec_that_we_know() {
    let below = "a=rtpmap:0 PCMA/8000\r\na=rtpmap:8 L16/8000\r\na=rtpmap:96 PCMU/16000\r\n\
        a=rtpmap:97 opus/48000\r\na=rtpmap:98 opus/48000/2\r\na=rtpmap:99 G722/8000/2\r\n";
    assert_eq!(
        names(&audio("0 8 96 97 98 99", below).codecs),
        ["Pcma/8000@0", "Opus/48000@98"]
    );
}

#[test]
fn a_codec_or_a_payload_type_named_twice_counts_once() {
    let below = "a=rtpmap:96 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
        a=rtpmap:110 telephone-event/48000\r\na=rtpmap:101 PCMA/8000\r\n";
    assert_eq!(
        names(&audio("0 96 0 101 110", below).codecs),
        [
            "Pcmu/8000@0",
            "TelephoneEvent/8000@101 0-15",
            "TelephoneEvent/48000@110 0-15"
        ]
    );
}

#[test]
fn parameters_pass_only_with_known_names_and_values_in_range() {
    let fmtp = |formats: &str, below: &str| audio(formats, below).codecs[0].fmtp.clone();
    let opus = |fmtp_line: &str| {
        fmtp(
            "111",
            &format!("a=rtpmap:111 opus/48000/2\r\na=fmtp:111 {fmtp_line}\r\n"),
        )
    };
    assert_eq!(
        opus("x-device=secret; USEINBANDFEC=1 ;minptime=10;stereo=2;maxplaybackrate=+8000")
            .as_deref(),
        Some("minptime=10;useinbandfec=1")
    );
    assert_eq!(opus("maxaveragebitrate=4930123456;stereo=one;usedtx"), None);
    assert_eq!(fmtp("0", "a=fmtp:0 annexb=no;secret=1\r\n"), None);
    assert_eq!(fmtp("18", "a=fmtp:18 annexb=maybe\r\n"), None);
    assert_eq!(
        fmtp("18", "a=fmtp:18 x=1; annexb=Yes\r\n").as_deref(),
        Some("annexb=yes")
    );
}

#[test]
fn a_connection_at_the_stream_overrides_that_of_the_session() {
    let text = described(AT, "4000 RTP/AVP 0", "c=IN IP6 2001:db8::1\r\n");
    assert_eq!(
        parse(text.as_bytes()).unwrap().rtp,
        "[2001:db8::1]:4000".parse().unwrap()
    );
    let text = described("", "4000 RTP/AVP 0", "c=IN IP6 ::ffff:192.0.2.3\r\n");
    assert_eq!(
        parse(text.as_bytes()).unwrap().rtp,
        "192.0.2.3:4000".parse().unwrap()
    );
    let text = described("c=IN IP4 host.example\r\n", "4000 RTP/AVP 0", AT);
    assert!(parse(text.as_bytes()).is_ok());
}

#[test]
fn each_unusable_stream_has_its_reason_and_its_line() {
    use SdpFaultKind::*;
    let cases: &[(&str, &str, SdpFaultKind, usize)] = &[
        ("", "4000 RTP/AVP 0", NoConnection, 5),
        (AT, "0 RTP/AVP 0", Refused, 6),
        (AT, "4000 RTP/SAVP 0", Transport, 6),
        (AT, "4000 UDP/TLS/RTP/SAVPF 0", Transport, 6),
        (AT, "4000/2 RTP/AVP 0", Transport, 6),
        (AT, "4000 RTP/AVP 3 101", NoCodec, 6),
        (AT, "4000 RTP/AVP 0 x", MediaLine, 6),
        (AT, "4000 RTP/AVP 0 128", MediaLine, 6),
        (AT, "70000 RTP/AVP 0", MediaLine, 6),
        (AT, "+4000 RTP/AVP 0", MediaLine, 6),
        (AT, "4000 RTP/AVP", MediaLine, 6),
        (AT, "4000", MediaLine, 6),
        (AT, "4000 RTP/\u{e9} 0", MediaLine, 6),
        (
            "c=IN IP4 media.example.org\r\n",
            "4000 RTP/AVP 0",
            HostName,
            4,
        ),
        (
            "c=IN IP6 media.example.org\r\n",
            "4000 RTP/AVP 0",
            HostName,
            4,
        ),
        ("c=IN IP4 2001:db8::1\r\n", "4000 RTP/AVP 0", Connection, 4),
        ("c=IN IP6 192.0.2.1\r\n", "4000 RTP/AVP 0", Connection, 4),
        ("c=IN IP5 192.0.2.1\r\n", "4000 RTP/AVP 0", Connection, 4),
        ("c=ATM NSAP 1\r\n", "4000 RTP/AVP 0", Connection, 4),
        ("c=IN IP4\r\n", "4000 RTP/AVP 0", Connection, 4),
        (
            "c=IN IP4 224.2.36.42/127\r\n",
            "4000 RTP/AVP 0",
            NotUnicast,
            4,
        ),
        (
            "c=IN IP4 255.255.255.255\r\n",
            "4000 RTP/AVP 0",
            NotUnicast,
            4,
        ),
        ("c=IN IP6 ff02::1\r\n", "4000 RTP/AVP 0", NotUnicast, 4),
        ("garbage\r\n", "4000 RTP/AVP 0", NotALine, 4),
        ("=\r\n", "4000 RTP/AVP 0", NotALine, 4),
    ];
    for (session, stream, kind, line) in cases {
        let fault = parse(described(session, stream, "").as_bytes()).unwrap_err();
        assert_eq!(
            fault,
            SdpFault {
                line: *line,
                kind: *kind
            },
            "{session} {stream}"
        );
    }
    let events = "a=rtpmap:101 telephone-event/8000\r\n";
    let fault = parse(described(AT, "4000 RTP/AVP 101", events).as_bytes()).unwrap_err();
    assert_eq!(fault.kind, NoCodec, "key presses alone are no call");
    for (body, kind) in [
        ("", Version),
        ("\r\n\r\n", Version),
        ("o=- 1 1 IN IP4 h\r\nv=0\r\n", Version),
        ("v=1\r\n", Version),
        ("v=0\r\ns=-\r\n", NoAudio),
        ("v=0\r\nm=video 4000 RTP/AVP 31\r\n", NoAudio),
    ] {
        assert_eq!(parse(body.as_bytes()).unwrap_err().kind, kind, "{body:?}");
    }
}

#[test]
fn a_fault_says_the_line_and_repeats_nothing_of_the_description() {
    let fault = parse(described("c=IN IP4 secret.example\r\n", "4000 RTP/AVP 0", "").as_bytes())
        .unwrap_err();
    assert_eq!(
        fault.to_string(),
        "SDP line 4: a connection address is a number, not a host name"
    );
}

#[test]
fn of_several_audio_streams_the_first_usable_one_is_taken() {
    let text = format!(
        "v=0\r\n{AT}m=audio 4000 RTP/SAVP 0\r\nm=video 5000 RTP/AVP 96\r\n\
         m=audio 6000 RTP/AVP 3\r\nm=audio 7000 RTP/AVP 8\r\nm=audio 8000 RTP/AVP 0\r\n"
    );
    let read = parse(text.as_bytes()).unwrap();
    assert_eq!((read.audio_index, read.rtp.port()), (3, 7_000));
    assert_eq!(names(&read.codecs), ["Pcma/8000@8"]);
    assert_eq!(read.streams.len(), 5);
}

#[test]
fn attributes_of_another_stream_are_not_those_of_the_audio() {
    let text = format!(
        "v=0\r\n{AT}a=sendonly\r\nm=video 5000 RTP/AVP 0\r\nc=IN IP4 192.0.2.7\r\na=inactive\r\n\
         a=rtpmap:0 opus/48000/2\r\na=ptime:40\r\nm=audio 6000 RTP/AVP 0\r\nm=video 5000 RTP/AVP 0\r\n\
         a=ptime:60\r\na=recvonly\r\n"
    );
    let read = parse(text.as_bytes()).unwrap();
    assert_eq!(names(&read.codecs), ["Pcmu/8000@0"]);
    assert_eq!((read.direction, read.ptime_ms), (Direction::SendOnly, None));
    assert_eq!(read.rtp, "192.0.2.1:6000".parse().unwrap());
}

#[test]
fn a_hold_by_attribute_or_by_address_is_seen() {
    use Direction::*;
    for (session, media, direction) in [
        (AT, "a=sendonly\r\n", SendOnly),
        (AT, "a=inactive\r\n", Inactive),
        ("c=IN IP4 192.0.2.1\r\na=recvonly\r\n", "", RecvOnly),
        (
            "c=IN IP4 192.0.2.1\r\na=inactive\r\n",
            "a=sendrecv\r\n",
            SendRecv,
        ),
        ("c=IN IP4 0.0.0.0\r\n", "", SendOnly),
        ("c=IN IP4 0.0.0.0\r\n", "a=recvonly\r\n", Inactive),
        ("c=IN IP6 ::\r\n", "a=sendonly\r\n", SendOnly),
    ] {
        let read = parse(described(session, "4000 RTP/AVP 0", media).as_bytes()).unwrap();
        assert_eq!(read.direction, direction, "{session} {media}");
        assert_eq!(read.rtcp.is_none(), read.rtp.ip().is_unspecified());
    }
}

#[test]
fn a_direction_is_answered_by_its_mirror_image() {
    use Direction::*;
    for direction in [SendRecv, SendOnly, RecvOnly, Inactive] {
        let answered = direction.answered();
        assert_eq!(answered.answered(), direction);
        assert_eq!(
            (answered.sends(), answered.receives()),
            (direction.receives(), direction.sends())
        );
    }
}

#[test]
fn rtcp_goes_to_the_next_port_or_to_where_the_party_says_or_nowhere() {
    let rtcp = |port: u16, below: &str| {
        let text = described(AT, &format!("{port} RTP/AVP 0"), below);
        parse(text.as_bytes())
            .unwrap()
            .rtcp
            .map(|it| it.to_string())
    };
    assert_eq!(rtcp(4_000, "").as_deref(), Some("192.0.2.1:4001"));
    assert_eq!(rtcp(65_535, ""), None);
    assert_eq!(rtcp(4_000, "a=rtcp:9\r\n").as_deref(), Some("192.0.2.1:9"));
    assert_eq!(
        rtcp(4_000, "a=rtcp:9 IN IP6 2001:db8::2\r\n").as_deref(),
        Some("[2001:db8::2]:9")
    );
    for unreadable in [
        "0",
        "x",
        "70000",
        "9 IN IP4 host.example",
        "9 IN IP4 0.0.0.0",
        "9 IN IP4 224.0.0.1",
        "9 9",
    ] {
        assert_eq!(
            rtcp(4_000, &format!("a=rtcp:{unreadable}\r\n")),
            None,
            "{unreadable}"
        );
    }
    assert_eq!(rtcp(4_000, "b=RS:0\r\nb=RR:0\r\n"), None);
    assert!(rtcp(4_000, "b=RS:0\r\nb=RR:800\r\n").is_some());
    for shared in ["a=rtcp-mux\r\n", "a=rtcp:9\r\na=rtcp-mux \r\n"] {
        assert_eq!(rtcp(4_000, shared).as_deref(), Some("192.0.2.1:4000"));
    }
    assert_eq!(rtcp(4_000, "a=rtcp-mux\r\nb=RS:0\r\nb=RR:0\r\n"), None);
}

#[test]
fn a_packet_time_that_no_phone_uses_is_ignored() {
    for (written, read) in [
        ("20", Some(20)),
        (" 30", Some(30)),
        ("0", None),
        ("201", None),
        ("x", None),
    ] {
        assert_eq!(
            audio("0", &format!("a=ptime:{written}\r\n")).ptime_ms,
            read,
            "{written}"
        );
    }
}

#[test]
fn a_description_survives_a_snapshot() {
    let before = audio(
        "8 101",
        "a=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n",
    );
    let after: MediaDescription =
        serde_json::from_slice(&serde_json::to_vec(&before).unwrap()).unwrap();
    assert_eq!(after, before);
}

#[test]
fn an_address_of_a_family_that_we_lack_is_a_fault_unless_another_stream_has_one_that_we_have() {
    let four = Terms {
        addresses: MediaAddresses::from(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5))),
        srtp: SrtpPolicy::Off,
    };
    let six = "c=IN IP6 2001:db8::1\r\n";
    let text = described(six, "4000 RTP/AVP 0", "");
    assert!(parse(text.as_bytes()).is_ok());
    let fault = parse_for(text.as_bytes(), four).unwrap_err();
    assert_eq!(fault.kind, SdpFaultKind::AddressFamily);
    let both = format!("{text}m=audio 4002 RTP/AVP 0\r\n{AT}");
    let read = parse_for(both.as_bytes(), four).unwrap();
    assert_eq!((read.rtp.port(), read.audio_index), (4_002, 1));
    // A hold names nobody's address, and reports that can't be sent are not sent.
    let held = described("c=IN IP6 ::\r\n", "4000 RTP/AVP 0", "");
    assert!(parse_for(held.as_bytes(), four).is_ok());
    let elsewhere = described(AT, "4000 RTP/AVP 0", "a=rtcp:4001 IN IP6 2001:db8::1\r\n");
    assert_eq!(parse_for(elsewhere.as_bytes(), four).unwrap().rtcp, None);
    assert!(parse(elsewhere.as_bytes()).unwrap().rtcp.is_some());
}
