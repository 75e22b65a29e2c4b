//! Keys in SDP: which lines are used, what is written, what is refused, and that no key shows.

use maskline_media::{MediaAddresses, SrtpKey, SrtpSuite};

use super::*;

/// 30 bytes of 0, as RFC 4568 writes them.
const ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn terms(srtp: SrtpPolicy) -> Terms {
    Terms {
        addresses: MediaAddresses::from(local().address),
        srtp,
    }
}

fn read_as(srtp: SrtpPolicy, proto: &str, below: &str) -> Result<MediaDescription, SdpFaultKind> {
    let text = described(AT, &format!("4000 {proto} 0"), below);
    parse_for(text.as_bytes(), terms(srtp)).map_err(|fault| fault.kind)
}

fn with_keys(offered: bool) -> Local {
    Local {
        srtp: Some(OurSrtp {
            keys: [SrtpKey([0; 30]), SrtpKey([255; 30])],
            offered,
        }),
        ..local()
    }
}

#[test]
fn the_first_line_that_we_know_is_used() {
    let lines = format!(
        "a=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:{ZEROS}\r\n\
         a=crypto:2 F8_128_HMAC_SHA1_80 inline:{ZEROS}\r\n\
         a=crypto:3 AES_CM_128_HMAC_SHA1_32 inline:{ZEROS}|2^20\r\n\
         a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS}\r\n"
    );
    let read = read_as(SrtpPolicy::Accepted, "RTP/SAVP", &lines).unwrap();
    let crypto = Crypto {
        tag: 3,
        suite: SrtpSuite::AesCm128Sha1Tag32,
        key: SrtpKey([0; 30]),
    };
    assert_eq!(read.srtp, Some(crypto));
}

#[test]
fn lines_that_change_what_is_protected_and_broken_ones_are_passed_over() {
    let long = format!("{ZEROS}AAAA");
    for line in [
        format!("1 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS}|2^20|1:4"),
        format!("1 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS}|1:4"),
        format!("1 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS};inline:{ZEROS}"),
        format!("1 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS} UNENCRYPTED_SRTP"),
        format!("1 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS} UNENCRYPTED_SRTCP"),
        format!("1 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS} UNAUTHENTICATED_SRTP"),
        format!("1 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS} KDR=1"),
        format!("1 AES_CM_128_HMAC_SHA1_80 inline:{}", &ZEROS[1..]),
        format!("1 AES_CM_128_HMAC_SHA1_80 inline:{long}"),
        format!("1 AES_CM_128_HMAC_SHA1_80 inline:{}!", &ZEROS[1..]),
        format!("x AES_CM_128_HMAC_SHA1_80 inline:{ZEROS}"),
        format!("1234567890 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS}"),
        format!("1 aes_cm_128 inline:{ZEROS}"),
        format!("1 AES_CM_128_HMAC_SHA1_80 {ZEROS}"),
        "1 AES_CM_128_HMAC_SHA1_80".to_owned(),
        String::new(),
    ] {
        let below = format!("a=crypto:{line}\r\n");
        let read = read_as(SrtpPolicy::Required, "RTP/SAVP", &below);
        assert_eq!(read, Err(SdpFaultKind::NoKey), "{line}");
    }
    let below = format!("a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS}|2^31 KDR=0 WSH=128\r\n");
    let read = read_as(SrtpPolicy::Required, "RTP/SAVP", &below).unwrap();
    assert_eq!(read.srtp.unwrap().tag, 7);
}

#[test]
fn plain_and_protected_media_are_taken_by_what_the_trunk_has_and_nothing_of_webrtc_is() {
    use SdpFaultKind::Transport;
    use SrtpPolicy::{Accepted, Off, Required};
    let lines = format!(
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS}\r\na=fingerprint:sha-256 00:11\r\n\
         a=setup:actpass\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
         a=candidate:1 1 UDP 1 192.0.2.1 4000 typ host\r\n"
    );
    let taken = |policy, proto| read_as(policy, proto, &lines).map(|it| it.srtp.is_some());
    assert_eq!(taken(Off, "RTP/AVP"), Ok(false));
    assert_eq!(taken(Off, "RTP/SAVP"), Err(Transport));
    assert_eq!(
        taken(Accepted, "RTP/AVP"),
        Ok(false),
        "keys beside plain media are nothing"
    );
    assert_eq!(taken(Accepted, "RTP/SAVP"), Ok(true));
    assert_eq!(taken(Required, "RTP/AVP"), Err(Transport));
    assert_eq!(taken(Required, "RTP/SAVP"), Ok(true));
    for policy in [Off, Accepted, Required] {
        for proto in [
            "RTP/AVPF",
            "RTP/SAVPF",
            "UDP/TLS/RTP/SAVP",
            "UDP/TLS/RTP/SAVPF",
        ] {
            assert_eq!(taken(policy, proto), Err(Transport), "{proto}");
        }
    }
}

#[test]
fn an_offer_of_protected_media_has_a_key_for_each_suite_and_an_answer_the_one_that_was_chosen() {
    let codecs = audio("0", "").codecs;
    let offer = write_offer(&with_keys(true), &codecs, None, Direction::SendRecv);
    assert!(
        offer.ends_with(&format!(
            "m=audio 20000 RTP/SAVP 0\r\na=rtpmap:0 PCMU/8000\r\na=rtcp-mux\r\n\
             a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS}\r\n\
             a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:{}\r\na=sendrecv\r\n",
            "/".repeat(40)
        )),
        "{offer}"
    );
    let plain = write_offer(&with_keys(false), &codecs, None, Direction::SendRecv);
    assert!(
        plain.contains("RTP/AVP") && !plain.contains("crypto"),
        "{plain}"
    );

    let below = format!("a=crypto:9 AES_CM_128_HMAC_SHA1_32 inline:{}\r\n", ZEROS);
    let offered = read_as(SrtpPolicy::Accepted, "RTP/SAVP", &below).unwrap();
    let ours = with_keys(false);
    let answer = write_answer(&ours, &offered, &offered.codecs, None, Direction::SendRecv);
    let crypto = answer.lines().filter(|line| line.starts_with("a=crypto"));
    let expected = format!(
        "a=crypto:9 AES_CM_128_HMAC_SHA1_32 inline:{}",
        "/".repeat(40)
    );
    assert_eq!(crypto.collect::<Vec<_>>(), [expected]);
    assert!(answer.contains("m=audio 20000 RTP/SAVP 0"), "{answer}");
    let keys = ours.srtp.unwrap().with(&offered.srtp.unwrap());
    assert_eq!(
        (keys.ours, keys.theirs),
        (SrtpKey([255; 30]), SrtpKey([0; 30]))
    );
    let answer = write_answer(&ours, &audio("0", ""), &codecs, None, Direction::SendRecv);
    assert!(
        answer.contains("RTP/AVP") && !answer.contains("crypto"),
        "{answer}"
    );
    let refused = write_answer(&ours, &offered, &[], None, Direction::SendRecv);
    assert!(refused.contains("m=audio 0 RTP/SAVP 0"), "{refused}");
}

#[test]
fn an_answer_takes_one_line_of_those_that_were_offered() {
    use SdpFaultKind::{NoKey, NotOffered, Transport};
    use SrtpPolicy::{Accepted, Required};
    let own = with_keys(true).srtp.unwrap();
    let both = own.lines(None);
    let offer = |tag, name| {
        let below = format!("a=crypto:{tag} AES_CM_128_HMAC_SHA1_{name} inline:{ZEROS}\r\n");
        read_as(Accepted, "RTP/SAVP", &below).unwrap()
    };
    let only = own.lines(Some(&offer(4, 32)));
    let plain = own.lines(Some(&audio("0", "")));
    assert_eq!(plain, [], "whoever described plain media is offered such");
    assert_eq!(with_keys(false).srtp.unwrap().lines(None), []);

    let answer = |policy, offered: &[OfferedLine], proto, lines: &[(u32, u8)]| {
        let below: String = lines
            .iter()
            .map(|(tag, name)| {
                format!("a=crypto:{tag} AES_CM_128_HMAC_SHA1_{name} inline:{ZEROS}\r\n")
            })
            .collect();
        let text = described(AT, &format!("4000 {proto} 0"), &below);
        let read = parse_answer(text.as_bytes(), terms(policy), offered);
        read.map(|it| it.srtp.map(|it| it.tag))
            .map_err(|fault| fault.kind)
    };
    for (offered, lines, taken) in [
        (&both, &[(1, 80)][..], Ok(Some(1))),
        (&both, &[(2, 32)], Ok(Some(2))),
        (&both, &[(2, 80)], Err(NotOffered)),
        (&both, &[(1, 32)], Err(NotOffered)),
        (&both, &[(3, 80)], Err(NotOffered)),
        (&both, &[(0, 80)], Err(NotOffered)),
        (&both, &[(1, 80), (2, 32)], Err(NotOffered)),
        (&both, &[(1, 80), (1, 80)], Err(NotOffered)),
        // A line that we can't read is a line.
        (&both, &[(1, 80), (2, 99)], Err(NotOffered)),
        (&both, &[(1, 99)], Err(NoKey)),
        (&both, &[], Err(NoKey)),
        (&only, &[(4, 32)], Ok(Some(4))),
        (&only, &[(4, 80)], Err(NotOffered)),
        (&only, &[(2, 32)], Err(NotOffered)),
        (&plain, &[(1, 80)], Err(Transport)),
    ] {
        let read = answer(Accepted, offered, "RTP/SAVP", lines);
        assert_eq!(read, taken, "{lines:?}");
    }
    assert_eq!(answer(Accepted, &plain, "RTP/AVP", &[(1, 80)]), Ok(None));
    assert_eq!(answer(Accepted, &both, "RTP/AVP", &[]), Err(Transport));
    assert_eq!(answer(Required, &plain, "RTP/AVP", &[]), Err(Transport));
}

#[test]
fn no_key_shows_in_debug_nor_in_a_snapshot_nor_in_a_trace() {
    let below = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{ZEROS}\r\n");
    let read = read_as(SrtpPolicy::Accepted, "RTP/SAVP", &below).unwrap();
    let shown = format!("{read:?} {:?}", with_keys(true));
    assert!(shown.contains("hidden") && !shown.contains("255, 255") && !shown.contains("0, 0, 0"));
    let kept = serde_json::to_string(&read).unwrap();
    assert!(!kept.contains("srtp") && !kept.contains("AES"), "{kept}");

    let message =
        format!("INVITE x\r\n\r\nv=0\r\n{below}a=Crypto:2 X INLINE:abc|2^20 KDR=0\r\nc=x");
    let hidden = without_keys(message.as_bytes()).unwrap();
    let hidden = String::from_utf8(hidden).unwrap();
    assert_eq!(hidden.len(), message.len());
    let stars = |count| "*".repeat(count);
    assert_eq!(
        hidden,
        format!(
            "INVITE x\r\n\r\nv=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{}\r\n\
             a=Crypto:2 X INLINE:{} KDR=0\r\nc=x",
            stars(40),
            stars(8)
        )
    );
    assert_eq!(
        without_keys(b"v=0\r\nk=clear:abc\r\nA=Key-Mgmt:mikey ab=\r\nt=0 0").as_deref(),
        Some(&b"v=0\r\nk=*********\r\nA=Key-Mgmt:*********\r\nt=0 0"[..])
    );
    assert_eq!(without_keys(b"v=0\r\na=sendrecv\r\n"), None);
    assert_eq!(without_keys(b"inline:"), Some(b"inline:".to_vec()));
}
