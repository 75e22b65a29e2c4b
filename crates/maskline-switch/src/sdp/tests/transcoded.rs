//! What is offered, agreed on and programmed where two parties share no codec.

use maskline_media::{Carriage, PayloadMap, Side, Voice};

use super::*;

const EVENTS: &str = "a=rtpmap:97 telephone-event/8000\r\n";
const OPUS: &str = "a=rtpmap:96 opus/48000/2\r\n";

fn agreed(offer: &str, answer: &str) -> Negotiated {
    negotiate(&audio(offer, OPUS), &audio(answer, OPUS), Transcoding::On).unwrap()
}

fn numbers(codecs: &[Codec]) -> Vec<u8> {
    codecs.iter().map(|codec| codec.payload_type).collect()
}

fn ways(maps: &[PayloadMap]) -> Vec<(u8, u8, Carriage)> {
    let way = |it: &PayloadMap| (it.here, it.there, it.carriage);
    maps.iter().map(way).collect()
}

const fn turned(from: Voice, to: Voice) -> Carriage {
    Carriage::Transcoded { from, to }
}

#[test]
fn behind_what_the_caller_offers_stands_what_we_can_transcode_to() {
    for (offer, expected) in [
        ("8", &[8, 0, 9][..]),
        ("0", &[0, 8, 9]),
        ("9 18", &[9, 18, 8, 0]),
        ("0 8 9", &[0, 8, 9]),
        ("96 18 0", &[111, 18, 0, 8, 9]),
        ("18", &[18]),
        ("96 18", &[111, 18]),
    ] {
        let offer = audio(offer, OPUS);
        let towards = towards_callee(&offer, Transcoding::On);
        assert_eq!(numbers(&towards), expected);
        let without = towards_callee(&offer, Transcoding::Off);
        assert_eq!(without.len(), offer.codecs.len());
    }
}

#[test]
fn key_presses_are_offered_for_a_party_without_them_only_where_it_is_listened_to() {
    let offered = |formats: &str, transcoding| {
        let offer = audio(formats, &format!("{OPUS}{EVENTS}"));
        numbers(&towards_callee(&offer, transcoding))
    };
    assert_eq!(offered("8", Transcoding::Listening), [8, 0, 9, 101]);
    assert_eq!(offered("8", Transcoding::On), [8, 0, 9]);
    assert_eq!(offered("8 97", Transcoding::Listening), [8, 101, 0, 9]);
    assert_eq!(offered("96", Transcoding::Listening), [111]);
}

#[test]
fn an_addition_stands_by_the_number_that_the_party_has_for_it() {
    let known = audio(
        "96 0",
        "a=rtpmap:96 PCMA/8000\r\na=rtpmap:0 opus/48000/2\r\n",
    );
    let offer = audio("0", "");
    let towards = offered_to(&offer.codecs, Some(&known), Transcoding::On);
    assert_eq!(
        names(&towards),
        ["Pcmu/8000@97", "Pcma/8000@96", "G722/8000@9"]
    );
}

#[test]
fn a_codec_that_both_know_passes_through_and_comes_first() {
    let agreed = agreed("8 0", "9 0");
    assert_eq!(numbers(&agreed.codecs(Side::Callee)), [0, 9]);
    assert_eq!(numbers(&agreed.codecs(Side::Caller)), [0, 8]);
    assert_eq!(agreed.voice(), Some(CodecName::Pcmu));
    let (caller, callee) = media_payloads(&agreed);
    assert_eq!(
        ways(&caller),
        [
            (0, 0, Carriage::AsIs),
            (8, 9, turned(Voice::Pcma, Voice::G722))
        ]
    );
    assert_eq!(
        ways(&callee),
        [
            (0, 0, Carriage::AsIs),
            (9, 8, turned(Voice::G722, Voice::Pcma))
        ]
    );
}

#[test]
fn the_caller_is_answered_once_with_its_best_codec_whatever_the_callee_may_send() {
    let agreed = agreed("8", "9 0");
    assert_eq!(names(&agreed.codecs(Side::Caller)), ["Pcma/8000@8"]);
    assert_eq!(
        names(&agreed.codecs(Side::Callee)),
        ["G722/8000@9", "Pcmu/8000@0"]
    );
    let (caller, callee) = media_payloads(&agreed);
    assert_eq!(
        ways(&caller),
        [(8, 9, turned(Voice::Pcma, Voice::G722))],
        "what the caller sends goes as what the callee likes best"
    );
    assert_eq!(
        ways(&callee),
        [
            (9, 8, turned(Voice::G722, Voice::Pcma)),
            (0, 8, turned(Voice::Pcmu, Voice::Pcma))
        ]
    );
}

#[test]
fn g711_is_turned_into_g711_where_the_caller_has_it() {
    let narrow = agreed("9 8", "0");
    assert_eq!(numbers(&narrow.codecs(Side::Caller)), [8]);
    let only_wide = agreed("9", "0");
    assert_eq!(numbers(&only_wide.codecs(Side::Caller)), [9]);
    let in_order = agreed("0 8", "9");
    assert_eq!(numbers(&in_order.codecs(Side::Caller)), [0]);
}

#[test]
fn what_cannot_be_transcoded_or_may_not_be_is_not_agreed() {
    let codecs = ["18", "96", "0"];
    for (offer, answer) in [
        ("18", "0"),
        ("0", "18"),
        ("96", "8"),
        ("8", "96"),
        ("18", "96"),
    ] {
        let (offer, answer) = (audio(offer, OPUS), audio(answer, OPUS));
        assert_eq!(negotiate(&offer, &answer, Transcoding::On), None);
    }
    for codec in codecs {
        let (offer, answer) = (audio("8", ""), audio(codec, OPUS));
        assert_eq!(negotiate(&offer, &answer, Transcoding::Off), None);
    }
}

#[test]
fn key_presses_pass_beside_voice_that_does_not() {
    let agreed = negotiate(
        &audio("8 97", EVENTS),
        &audio("0 97", EVENTS),
        Transcoding::On,
    );
    let (caller, _) = media_payloads(&agreed.unwrap());
    assert_eq!(
        ways(&caller),
        [
            (97, 97, Carriage::AsIs),
            (8, 0, turned(Voice::Pcma, Voice::Pcmu))
        ]
    );
    assert!(caller[0].telephone_event);
}

#[test]
fn a_callee_that_offers_is_helped_out_as_well() {
    let offer = audio("0", "");
    let offered = offered_to(&offer.codecs, Some(&audio("8", "")), Transcoding::On);
    assert_eq!(numbers(&offered), [0, 8, 9]);
    let answer = audio("8", "");
    let agreed = between(Side::Callee, &offer, &offered, &answer, Transcoding::On).unwrap();
    let (caller, callee) = media_payloads(&agreed);
    assert_eq!(ways(&caller), [(8, 0, turned(Voice::Pcma, Voice::Pcmu))]);
    assert_eq!(ways(&callee), [(0, 8, turned(Voice::Pcmu, Voice::Pcma))]);
}

#[test]
fn a_caller_that_offered_nothing_is_offered_more_than_the_callee_chose() {
    let late = |transcoding| {
        let agreed = negotiate_defaults(&audio("9", ""), transcoding).unwrap();
        numbers(&agreed.offered_late(transcoding))
    };
    assert_eq!(late(Transcoding::On), [9, 101, 8, 0]);
    assert_eq!(late(Transcoding::Off), [9]);
}

#[test]
fn the_keys_of_a_party_are_made_anew_for_one_that_knows_none() {
    let with = audio("8 97", EVENTS);
    for without in ["8", "0", "9"] {
        let without = audio(without, "");
        let agreed = negotiate(&with, &without, Transcoding::On).unwrap();
        assert_eq!(numbers(&agreed.codecs(Side::Caller)), [8, 97]);
        assert_eq!(agreed.codecs(Side::Callee).len(), 1);
        assert!(agreed.takes_presses(Side::Callee, Transcoding::On));
        assert!(!agreed.takes_presses(Side::Callee, Transcoding::Off));
        let (caller, callee) = media_payloads(&agreed);
        let there = without.codecs[0].payload_type;
        assert_eq!(ways(&caller)[1], (97, there, Carriage::Anew));
        assert!(caller[1].telephone_event && callee.len() == 1);

        let agreed = negotiate(&without, &with, Transcoding::On).unwrap();
        assert_eq!(agreed.codecs(Side::Caller).len(), 1);
        let (caller, callee) = media_payloads(&agreed);
        assert_eq!(caller.len(), 1);
        // B numbers them 97 and answers our 101.
        assert_eq!(
            ways(&callee)[1..],
            [(97, there, Carriage::Anew), (101, there, Carriage::Anew)]
        );
        assert!(negotiate(&with, &without, Transcoding::Off).is_none_or(|it| it.callee.len() == 1));
    }
}

#[test]
fn keys_at_clock_rates_that_differ_are_made_anew_both_ways() {
    let fast = "a=rtpmap:98 telephone-event/48000\r\n";
    for voice in ["96 8", "96"] {
        let agreed = negotiate(
            &audio(&format!("{voice} 98"), &format!("{OPUS}{fast}")),
            &audio(&format!("{voice} 97"), &format!("{OPUS}{EVENTS}")),
            Transcoding::On,
        );
        let (caller, callee) = media_payloads(&agreed.unwrap());
        assert_eq!(ways(&caller).last(), Some(&(98, 97, Carriage::Anew)));
        assert!(ways(&callee).contains(&(97, 98, Carriage::Anew)));
        let rates = [&caller, &callee].map(|maps| {
            let event = maps.iter().find(|it| it.telephone_event);
            event.unwrap().clock_rate
        });
        assert_eq!(rates, [48_000, 8_000]);
    }
}

#[test]
fn a_party_of_opus_alone_takes_no_tones() {
    let agreed = negotiate(
        &audio("96 97", &format!("{OPUS}{EVENTS}")),
        &audio("96", OPUS),
        Transcoding::On,
    );
    let agreed = agreed.unwrap();
    assert_eq!(agreed.caller.len(), 1);
    assert!(!agreed.takes_presses(Side::Callee, Transcoding::On));
}

#[test]
fn comfort_noise_passes_where_both_know_it_also_beside_voice_that_is_transcoded() {
    for (answer, expected) in [("0 13", &[8, 13][..]), ("0", &[8])] {
        let agreed = negotiate(&audio("8 13", ""), &audio(answer, ""), Transcoding::On);
        let agreed = agreed.unwrap();
        assert_eq!(numbers(&agreed.codecs(Side::Caller)), expected);
        let (caller, callee) = media_payloads(&agreed);
        let noise = (13, 13, Carriage::AsIs);
        for maps in [&caller, &callee] {
            assert_eq!(ways(maps).contains(&noise), expected.len() == 2);
        }
    }
    let alone = negotiate(&audio("8 13", ""), &audio("18 13", ""), Transcoding::On);
    assert_eq!(alone, None, "comfort noise is no call");
    let offered = towards_callee(&audio("8 13", ""), Transcoding::On);
    assert_eq!(numbers(&offered), [8, 13, 0, 9]);
}
