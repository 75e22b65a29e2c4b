//! What `towards_callee`, `negotiate` and `media_payloads` make of two descriptions.

use maskline_media::{PayloadMap, VoiceCodec};

use super::*;

const CALLER: &str = "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1;stereo=1\r\n\
    a=rtpmap:97 telephone-event/8000\r\na=rtpmap:98 telephone-event/48000\r\n";

#[test]
fn the_callee_is_offered_the_callers_codecs_in_order_under_our_own_numbers() {
    let offer = audio("9 96 0 18 8 98 97", CALLER);
    assert_eq!(
        names(&towards_callee(&offer, Transcoding::Off)),
        [
            "G722/8000@9",
            "Opus/48000@111 stereo=1;useinbandfec=1",
            "Pcmu/8000@0",
            "G729/8000@18",
            "Pcma/8000@8",
            "TelephoneEvent/48000@103 0-15",
            "TelephoneEvent/8000@101 0-15",
        ]
    );
}

#[test]
fn both_sides_get_the_common_codecs_in_the_callees_order_and_the_others_parameters() {
    let offer = audio("96 0 8 97", CALLER);
    let answer = audio(
        "101 8 111 18",
        "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 cbr=1\r\na=rtpmap:101 telephone-event/8000\r\n",
    );
    let agreed = negotiate(&offer, &answer, Transcoding::Off).unwrap();
    assert_eq!(
        names(&agreed.caller),
        [
            "TelephoneEvent/8000@97 0-15",
            "Pcma/8000@8",
            "Opus/48000@96 cbr=1"
        ]
    );
    assert_eq!(
        names(&agreed.callee),
        [
            "TelephoneEvent/8000@101 0-15",
            "Pcma/8000@8",
            "Opus/48000@111 stereo=1;useinbandfec=1"
        ]
    );
}

#[test]
fn without_a_common_voice_codec_nothing_is_agreed() {
    let events = "a=rtpmap:97 telephone-event/8000\r\n";
    assert_eq!(
        negotiate(
            &audio("0 97", events),
            &audio("8 97", events),
            Transcoding::Off
        ),
        None
    );
}

#[test]
fn key_presses_at_another_clock_rate_are_left_out() {
    let offer = audio("0 97", "a=rtpmap:97 telephone-event/8000\r\n");
    let answer = audio("0 97", "a=rtpmap:97 telephone-event/48000\r\n");
    assert_eq!(
        names(&negotiate(&offer, &answer, Transcoding::Off).unwrap().caller),
        ["Pcmu/8000@0"]
    );
}

#[test]
fn comfort_noise_frames_are_off_for_both_when_either_says_so() {
    let plain = audio("18", "");
    let off = audio("18", "a=fmtp:18 annexb=no\r\n");
    for (offer, answer) in [(&plain, &off), (&off, &plain), (&off, &off)] {
        let agreed = negotiate(offer, answer, Transcoding::Off).unwrap();
        assert_eq!(names(&agreed.caller), ["G729/8000@18 annexb=no"]);
        assert_eq!(agreed.caller, agreed.callee);
    }
}

#[test]
fn the_relay_is_told_each_sides_numbers() {
    let offer = audio("96 8 97", CALLER);
    let answer = audio(
        "111 8 101",
        "a=rtpmap:111 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n",
    );
    let (caller, callee) = media_payloads(&negotiate(&offer, &answer, Transcoding::Off).unwrap());
    let entry = |here, there, clock_rate, telephone_event| PayloadMap {
        here,
        there,
        clock_rate,
        telephone_event,
        codec: match (clock_rate, telephone_event) {
            (_, true) => None,
            (48_000, false) => Some(VoiceCodec::Opus),
            (_, false) => Some(VoiceCodec::Pcma),
        },
        carriage: maskline_media::Carriage::AsIs,
    };
    assert_eq!(
        caller,
        [
            entry(96, 111, 48_000, false),
            entry(8, 8, 8_000, false),
            entry(97, 101, 8_000, true)
        ]
    );
    assert_eq!(
        callee,
        [
            entry(111, 96, 48_000, false),
            entry(8, 8, 8_000, false),
            entry(101, 97, 8_000, true)
        ]
    );
}

#[test]
fn a_callee_that_numbers_differently_is_understood_by_either_number() {
    let offer = audio("96 0 97", CALLER);
    // Opus by a number of its own, and key presses by the number that we gave to Opus.
    let answer = audio(
        "120 111",
        "a=rtpmap:120 opus/48000/2\r\na=rtpmap:111 telephone-event/8000\r\n",
    );
    let (caller, callee) = media_payloads(&negotiate(&offer, &answer, Transcoding::Off).unwrap());
    let numbers = |maps: &[PayloadMap]| {
        maps.iter()
            .map(|it| (it.here, it.there))
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(&caller), [(96, 120), (97, 111)]);
    assert_eq!(numbers(&callee), [(120, 96), (111, 97), (101, 97)]);
}

#[test]
fn where_numbers_are_not_mapped_a_party_is_offered_those_of_the_other() {
    let offer = audio(
        "96 8 9",
        "a=rtpmap:96 opus/48000/2\r\na=rtpmap:9 telephone-event/8000\r\n",
    );
    let numbered = |known: Option<&MediaDescription>| {
        let codecs = offered_to(&offer.codecs, known, Transcoding::On);
        let codecs = numbered_as_offered(codecs, &offer.codecs, known);
        codecs
            .iter()
            .map(|it| (it.name, it.payload_type))
            .collect::<Vec<_>>()
    };
    // G.722, which we add, finds its number taken.
    let all = [
        (CodecName::Opus, 96),
        (CodecName::Pcma, 8),
        (CodecName::TelephoneEvent, 9),
        (CodecName::Pcmu, 0),
        (CodecName::G722, 97),
    ];
    assert_eq!(numbered(None), all);
    // A party's own numbers stay, and none of them comes to mean something else.
    let known = audio(
        "97 96",
        "a=rtpmap:97 opus/48000/2\r\na=rtpmap:96 telephone-event/48000\r\n",
    );
    let numbers: Vec<u8> = numbered(Some(&known)).iter().map(|it| it.1).collect();
    assert_eq!(numbers, [97, 8, 9, 0, 98]);
}

#[test]
fn an_offer_to_a_party_that_described_itself_uses_its_numbers() {
    // Opus under a number that we would give to key presses, key presses under one of its own.
    let known = audio(
        "101 8 97",
        "a=rtpmap:101 opus/48000/2\r\na=rtpmap:97 telephone-event/8000\r\n",
    );
    let offer = audio(
        "0 8 96 97 98",
        "a=rtpmap:96 opus/48000/2\r\na=rtpmap:97 telephone-event/8000\r\n\
         a=rtpmap:98 telephone-event/48000\r\n",
    );
    let numbers: Vec<u8> = offered_to(&offer.codecs, Some(&known), Transcoding::Off)
        .iter()
        .map(|codec| codec.payload_type)
        .collect();
    assert_eq!(numbers, [0, 8, 101, 97, 103]);
    let taken = audio("103", "a=rtpmap:103 opus/48000/2\r\n");
    let events = audio("0 98", "a=rtpmap:98 telephone-event/48000\r\n");
    let numbers = offered_to(&events.codecs, Some(&taken), Transcoding::Off);
    assert_eq!(numbers[1].payload_type, 96, "the first that is free");
}

#[test]
fn a_caller_that_answers_is_understood_by_either_number() {
    let offer = audio("8 101", "a=rtpmap:101 telephone-event/8000\r\n");
    let offered = offered_to(&offer.codecs, None, Transcoding::Off);
    let answer = audio("8 99", "a=rtpmap:99 telephone-event/8000\r\n");
    let agreed = between(
        maskline_media::Side::Callee,
        &offer,
        &offered,
        &answer,
        Transcoding::Off,
    )
    .unwrap();
    assert_eq!(agreed.caller[1].payload_type, 99);
    assert_eq!(agreed.callee[1].payload_type, 101);
    let (caller, callee) = media_payloads(&agreed);
    let here = |maps: &[PayloadMap]| maps.iter().map(|it| it.here).collect::<Vec<_>>();
    assert_eq!(here(&caller), [8, 99, 101]);
    assert_eq!(here(&callee), [8, 101]);
}

#[test]
fn what_is_offered_without_an_offer_is_what_every_phone_has() {
    assert_eq!(
        names(&defaults()),
        [
            "Pcmu/8000@0",
            "Pcma/8000@8",
            "G722/8000@9",
            "TelephoneEvent/8000@101 0-15"
        ]
    );
    let answer = audio("8", "");
    let agreed = negotiate_defaults(&answer, Transcoding::Off).unwrap();
    assert_eq!(
        (agreed.caller.len(), agreed.voice()),
        (1, Some(CodecName::Pcma))
    );
    assert_eq!(negotiate_defaults(&audio("18", ""), Transcoding::On), None);
}

#[test]
fn a_description_is_known_again_by_its_origin_line() {
    let first = audio("8", "");
    assert_eq!(first.origin, Some((1, 1)));
    let again = parse(described(AT, "4000 RTP/AVP 8", "").as_bytes()).unwrap();
    assert_eq!(first, again);
    let next = described(AT, "4000 RTP/AVP 8", "").replace("o=- 1 1 ", "o=- 1 2 ");
    assert_ne!(first, parse(next.as_bytes()).unwrap());
    for odd in [
        "o=- 1 x ",
        "o=- -1 1 ",
        "o=1 ",
        "o=- 18446744073709551616 1 ",
    ] {
        let text = described(AT, "4000 RTP/AVP 8", "").replace("o=- 1 1 ", odd);
        assert_eq!(parse(text.as_bytes()).unwrap().origin, None, "{odd}");
    }
}
