//! What `write_offer` and `write_answer` put on the wire.

use super::*;

const CALLER: &str = "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n\
    a=rtpmap:97 telephone-event/8000\r\n";

#[test]
fn an_offer_is_written_from_nothing() {
    let codecs = towards_callee(&audio("8 96 97", CALLER), Transcoding::Off);
    assert_eq!(
        write_offer(&local(), &codecs, Some(20), Direction::SendRecv),
        "v=0\r\n\
         o=- 42 7 IN IP4 203.0.113.5\r\n\
         s=-\r\n\
         c=IN IP4 203.0.113.5\r\n\
         t=0 0\r\n\
         m=audio 20000 RTP/AVP 8 111 101\r\n\
         a=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:111 opus/48000/2\r\n\
         a=fmtp:111 useinbandfec=1\r\n\
         a=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-15\r\n\
         a=ptime:20\r\n\
         a=rtcp-mux\r\n\
         a=sendrecv\r\n"
    );
}

#[test]
fn an_answer_has_a_line_for_each_line_of_the_offer_and_refuses_all_but_one() {
    let offer = format!(
        "v=0\r\n{AT}m=audio 4000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n\
         m=audio 4000 RTP/AVP 0 8\r\nm=video 5000 RTP/AVP 96 97\r\nm=image 4002 udptl t38\r\n\
         m=message 6000 TCP/MSRP *\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
    );
    let offer = parse(offer.as_bytes()).unwrap();
    let answer = write_answer(
        &local(),
        &offer,
        &offer.codecs[1..],
        None,
        Direction::RecvOnly,
    );
    let streams: Vec<&str> = answer.lines().skip(5).collect();
    assert_eq!(
        streams,
        [
            "m=audio 0 RTP/SAVP 0",
            "m=audio 20000 RTP/AVP 8",
            "a=rtpmap:8 PCMA/8000",
            "a=recvonly",
            "m=video 0 RTP/AVP 96",
            "m=image 0 udptl t38",
            "m=message 0 TCP/MSRP *",
            "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
        ]
    );
}

#[test]
fn an_answer_shares_the_port_if_the_offer_does() {
    for (below, shares) in [("", false), ("a=rtcp-mux\r\n", true)] {
        let offer = audio("0", below);
        assert_eq!(offer.rtcp_mux, shares);
        let answer = write_answer(&local(), &offer, &offer.codecs, None, Direction::SendRecv);
        assert_eq!(answer.contains("\r\na=rtcp-mux\r\n"), shares, "{answer}");
    }
}

#[test]
fn without_a_codec_the_audio_stream_is_refused() {
    let text = write_offer(&local(), &[], Some(20), Direction::SendRecv);
    assert!(text.ends_with("t=0 0\r\nm=audio 0 RTP/AVP 0\r\n"), "{text}");
    assert_eq!(
        parse(text.as_bytes()).unwrap_err().kind,
        SdpFaultKind::Refused
    );
}

#[test]
fn an_ipv6_address_is_announced_as_one_and_numbers_fit_a_signed_one() {
    let local = Local {
        address: "2001:db8::5".parse().unwrap(),
        session_id: u64::MAX,
        version: u64::MAX,
        ..local()
    };
    let text = write_offer(&local, &audio("0", "").codecs, None, Direction::SendRecv);
    assert!(text.contains("o=- 9223372036854775807 9223372036854775807 IN IP6 2001:db8::5\r\n"));
    assert!(text.contains("c=IN IP6 2001:db8::5\r\n"));
}

#[test]
fn a_field_changed_behind_the_readers_back_breaks_no_line() {
    let mut offer = audio("0 96", CALLER);
    offer.codecs[1].fmtp = Some("useinbandfec=1\r\na=tool:secret;stereo=1".to_owned());
    offer.streams.push(Stream {
        media: "video".to_owned(),
        proto: "RTP/AVP\r\na=tool:secret".to_owned(),
        format: "96".to_owned(),
    });
    let answer = write_answer(&local(), &offer, &offer.codecs, None, Direction::SendRecv);
    assert!(!answer.contains("secret"), "{answer}");
    assert!(answer.ends_with("m=application 0 UDP *\r\n"), "{answer}");
    assert!(answer.contains("a=fmtp:96 stereo=1\r\n"), "{answer}");
}

#[test]
fn nothing_of_an_offer_but_its_codecs_reaches_the_other_side() {
    let offer = "v=0\r\n\
        o=SECRETuser 7777777777 8888888888 IN IP4 198.51.100.77\r\n\
        s=SECRETname\r\n\
        i=SECRETinfo\r\n\
        u=http://SECRET.example/\r\n\
        e=SECRET@example.org\r\n\
        p=+4930SECRET\r\n\
        c=IN IP4 198.51.100.77\r\n\
        b=AS:7777\r\n\
        t=7777777777 0\r\n\
        k=clear:SECRET\r\n\
        a=tool:SECRETphone/1.0\r\n\
        a=group:BUNDLE SECRET\r\n\
        a=ice-ufrag:SECRET\r\n\
        m=audio 47777 RTP/AVP 96 97 98 8\r\n\
        i=SECRETtitle\r\n\
        a=rtcp:47779 IN IP4 198.51.100.78\r\n\
        a=rtpmap:96 opus/48000/2\r\n\
        a=fmtp:96 useinbandfec=1; x-SECRET=1; maxaveragebitrate=77777777; stereo=SECRET\r\n\
        a=rtpmap:97 telephone-event/8000\r\n\
        a=fmtp:97 0-15,77,SECRET\r\n\
        a=rtpmap:98 SECRET/8000\r\n\
        a=rtpmap:8 PCMA/8000\r\n\
        a=fmtp:8 SECRET\r\n\
        a=mid:SECRET\r\n\
        a=ssrc:77777777 cname:SECRET\r\n\
        a=candidate:1 1 UDP 77777777 198.51.100.77 47777 typ host\r\n\
        a=SECRET\r\n\
        a=SECRET:SECRET\r\n\
        m=video 47800 RTP/SECRET 96\r\n\
        m=x-SECRET 47802 SECRET SECRET\r\n";
    let offer = parse(offer.as_bytes()).unwrap();
    let towards_b = write_offer(
        &local(),
        &towards_callee(&offer, Transcoding::Off),
        offer.ptime_ms,
        offer.direction,
    );
    for word in ["SECRET", "secret", "777", "888", "198.51", "\r\na=rtpmap:9"] {
        assert!(!towards_b.contains(word), "{word} in {towards_b}");
    }
    assert!(
        towards_b.contains("a=fmtp:111 useinbandfec=1\r\n"),
        "{towards_b}"
    );

    // The answer's way back: what B wrote must not reach A either.
    let answer = b"v=0\r\no=SECRETb 9999 1 IN IP4 198.51.100.99\r\ns=SECRETb\r\n\
        c=IN IP4 198.51.100.99\r\nt=0 0\r\na=tool:SECRETb\r\nm=audio 49999 RTP/AVP 99 8\r\n\
        a=rtpmap:99 opus/48000/2\r\na=fmtp:99 cbr=1;SECRETb=1\r\na=SECRETb\r\n";
    let answer = parse(answer).unwrap();
    let agreed = negotiate(&offer, &answer, Transcoding::Off).unwrap();
    let towards_a = write_answer(
        &local(),
        &offer,
        &agreed.caller,
        answer.ptime_ms,
        answer.direction,
    );
    for word in ["SECRETb", "999", "198.51"] {
        assert!(!towards_a.contains(word), "{word} in {towards_a}");
    }
    assert!(
        towards_a.contains("m=audio 20000 RTP/AVP 96 8\r\n"),
        "{towards_a}"
    );
    assert!(towards_a.contains("a=fmtp:96 cbr=1\r\n"), "{towards_a}");
}

#[test]
fn an_answer_is_at_our_address_of_the_offers_family() {
    let both = Local {
        second: Some("2001:db8::5".parse().unwrap()),
        ..local()
    };
    let offer_at = |family: &str, address: &str| {
        let at = format!("c=IN {family} {address}\r\n");
        parse(described(&at, "4000 RTP/AVP 0", "").as_bytes()).unwrap()
    };
    for (family, address, told) in [
        ("IP4", "192.0.2.1", "IP4 203.0.113.5"),
        ("IP6", "2001:db8::1", "IP6 2001:db8::5"),
        ("IP6", "::ffff:192.0.2.1", "IP4 203.0.113.5"),
        ("IP6", "::", "IP6 2001:db8::5"),
        // Phones of either family hold so.
        ("IP4", "0.0.0.0", "IP4 203.0.113.5"),
    ] {
        let offer = offer_at(family, address);
        let answer = write_answer(&both, &offer, &offer.codecs, None, Direction::SendRecv);
        let at: Vec<&str> = answer
            .split("\r\n")
            .filter(|it| it.contains("IN IP"))
            .collect();
        assert_eq!(at, [format!("o=- 42 7 IN {told}"), format!("c=IN {told}")]);
    }
    let held = offer_at("IP4", "0.0.0.0");
    let six = Local {
        address: "2001:db8::5".parse().unwrap(),
        second: Some(local().address),
        ..local()
    };
    let answer = write_answer(&six, &held, &held.codecs, None, Direction::SendRecv);
    assert!(answer.contains("c=IN IP6 2001:db8::5\r\n"), "{answer}");
    // Without an address of that family the only one is all that can be told.
    let offer = offer_at("IP6", "2001:db8::1");
    let answer = write_answer(&local(), &offer, &offer.codecs, None, Direction::SendRecv);
    assert!(answer.contains("c=IN IP4 203.0.113.5\r\n"), "{answer}");
}
