//! Arbitrary and oversized input, and properties over many descriptions.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

use super::*;

fn any_direction() -> impl Strategy<Value = Direction> {
    use Direction::*;
    prop_oneof![
        Just(SendRecv),
        Just(SendOnly),
        Just(RecvOnly),
        Just(Inactive)
    ]
}

/// Codecs in any order, under distinct payload types.
fn any_codecs() -> impl Strategy<Value = Vec<Codec>> {
    use CodecName::*;
    let kinds = vec![
        (Pcmu, 8_000, None),
        (Pcma, 8_000, None),
        (G722, 8_000, None),
        (G729, 8_000, Some("annexb=no")),
        (Opus, 48_000, Some("minptime=10;useinbandfec=1")),
        (TelephoneEvent, 8_000, Some("0-15")),
        (TelephoneEvent, 48_000, Some("0-15")),
    ];
    let count = kinds.len();
    (subsequence(kinds, 1..=count).prop_shuffle(), 0..128_u8).prop_map(|(kinds, first)| {
        let numbers = (0..128_u8).map(move |step| (first + step) % 128);
        let codecs = kinds.into_iter().zip(numbers);
        codecs
            .map(|((name, clock, fmtp), number)| Codec::new(name, number, clock, fmtp))
            .collect()
    })
}

fn voiced(codecs: &[Codec]) -> bool {
    codecs.iter().any(|codec| codec.name.is_voice())
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_lines_make_the_reader_panic_and_what_it_reads_can_be_answered(
        lines in prop::collection::vec("[a-z]=([ -~]{0,30}|(rtpmap|fmtp|rtcp|ptime):[ -~]{0,20}\
            |audio [0-9]{1,6} RTP/AVP( [0-9]{1,3}){0,5}|IN IP[46] [0-9.:/]{0,15})", 0..20)
    ) {
        let text = format!("v=0\r\n{AT}m=audio 4000 RTP/AVP 0\r\n{}\r\n", lines.join("\r\n"));
        if let Ok(read) = parse(text.as_bytes()) {
            let answer = write_answer(&local(), &read, &read.codecs, read.ptime_ms, read.direction);
            let again = parse(answer.as_bytes()).unwrap();
            prop_assert_eq!(&again.codecs, &read.codecs);
            prop_assert_eq!(again.streams.len(), read.streams.len());
        }
    }

    #[test]
    fn no_changed_byte_makes_the_reader_panic(at in any::<Index>(), byte in any::<u8>()) {
        let codecs = audio("0 8 101", "a=rtpmap:101 telephone-event/8000\r\n").codecs;
        let mut bytes = write_offer(&local(), &codecs, Some(20), Direction::SendRecv).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = parse(&bytes);
        let _ = parse(&bytes[..at]);
    }

    #[test]
    fn what_is_offered_is_what_is_read(
        codecs in any_codecs().prop_filter("voice", |codecs| voiced(codecs)),
        ptime_ms in prop::option::of(1..=200_u16),
        direction in any_direction(),
        address in any::<IpAddr>().prop_filter("one host", |address| {
            let canonical = address.to_canonical();
            canonical == *address && !address.is_multicast() && !address.is_unspecified()
                && *address != IpAddr::V4(Ipv4Addr::BROADCAST)
        }),
        port in 1..u16::MAX,
        session_id in any::<u64>(),
        version in any::<u64>(),
    ) {
        let local = Local { address, second: None, srtp: None, port, session_id, version };
        let read = parse(write_offer(&local, &codecs, ptime_ms, direction).as_bytes()).unwrap();
        prop_assert_eq!(read.rtp, SocketAddr::new(address, port));
        prop_assert_eq!(read.rtcp, Some(SocketAddr::new(address, port)));
        prop_assert!(read.rtcp_mux);
        prop_assert_eq!(read.codecs, codecs);
        prop_assert_eq!((read.ptime_ms, read.direction), (ptime_ms, direction));
        prop_assert_eq!((read.audio_index, read.streams.len()), (0, 1));
    }

    #[test]
    fn what_is_agreed_on_is_in_both_descriptions_pair_by_pair(
        caller in any_codecs(),
        callee in any_codecs(),
    ) {
        let with = |codecs: &[Codec]| MediaDescription { codecs: codecs.to_vec(), ..audio("0", "") };
        let agreed = negotiate(&with(&caller), &with(&callee), Transcoding::Off);
        let common: Vec<&Codec> =
            callee.iter().filter(|theirs| caller.iter().any(|ours| ours.is_same(theirs))).collect();
        prop_assert_eq!(agreed.is_some(), common.iter().any(|codec| codec.name.is_voice()));
        if let Some(agreed) = agreed {
            prop_assert_eq!(agreed.caller.len(), common.len());
            prop_assert_eq!(agreed.callee.len(), common.len());
            for ((one, other), theirs) in agreed.caller.iter().zip(&agreed.callee).zip(common) {
                prop_assert!(one.is_same(other) && other.is_same(theirs));
                prop_assert_eq!(other.payload_type, theirs.payload_type);
            }
            let (one, other) = media_payloads(&agreed);
            prop_assert!(one.len() <= 16 && other.len() <= 16);
            let mut heard: Vec<u8> = other.iter().map(|entry| entry.here).collect();
            heard.sort_unstable();
            heard.dedup();
            prop_assert_eq!(heard.len(), other.len(), "a number means one codec");
        }
    }
}

#[test]
fn a_description_is_bounded_in_bytes_streams_and_formats() {
    use SdpFaultKind::*;
    let of_size = |bytes: usize| {
        let head = described(AT, "4000 RTP/AVP 0", "a=");
        let filler = "x".repeat(bytes - head.len());
        parse(format!("{head}{filler}").as_bytes()).map_err(|fault| fault.kind)
    };
    assert!(of_size(MAX_BYTES).is_ok());
    assert_eq!(of_size(MAX_BYTES + 1), Err(TooLarge));

    let with_streams = |count: usize| {
        let others = "m=video 0 RTP/AVP 31\r\n".repeat(count - 1);
        parse(described(AT, "4000 RTP/AVP 0", &others).as_bytes())
            .map(|read| read.streams.len())
            .map_err(|fault| fault.kind)
    };
    assert_eq!(with_streams(MAX_STREAMS), Ok(MAX_STREAMS));
    assert_eq!(with_streams(MAX_STREAMS + 1), Err(TooManyStreams));

    let with_formats = |count: usize| {
        let formats: String = (0..count).map(|it| format!(" {it}")).collect();
        parse(described(AT, &format!("4000 RTP/AVP{formats}"), "").as_bytes())
            .map_err(|fault| fault.kind)
    };
    assert!(with_formats(MAX_FORMATS).is_ok());
    assert_eq!(with_formats(MAX_FORMATS + 1), Err(TooManyFormats));
}
