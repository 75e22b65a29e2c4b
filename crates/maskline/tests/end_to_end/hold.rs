//! Hold: a party that is held in silence hears the tone or the operator's music, and then the other's
//! voice again, all of it as one stream.

use std::path::Path;
use std::time::{Duration, Instant};

use maskline_media::codec::g711::decode_alaw;
use maskline_media::rtp::RtpPacket;
use maskline_media::tone::{Tone, tone_share};

use crate::support::media::{Media, Packet, announced};
use crate::support::ports::Ports;
use crate::support::sipp::{Message, Run, Sipp, Transport};
use crate::support::site::{FROM, Options, Site};
use crate::support::steps::{Says, Steps};

const VOICE: [u8; 160] = [0x11; 160];
const MUSIC_HZ: f64 = 1_000.0;
const NOTES_HZ: [f64; 2] = [523.25, 659.25];
/// How long each party talks, and is held.
const PART: Duration = Duration::from_secs(2);

/// A call in which one party holds the other for a while; `held_by` are its requests.
async fn play(
    name: &str,
    options: Options,
    [caller, callee]: [&Steps; 2],
    by_caller: bool,
    held_by: [u32; 2],
) -> (Vec<Vec<u8>>, [Vec<Message>; 2]) {
    let mut site = Site::open(name, options).await;
    let (caller_media, callee_media) = Media::of_both(&site).await;
    let callee_run = Run {
        fill: &[("STEPS", callee.text())],
        pause: PART,
        ..site.callee_run("callee_steps")
    };
    let callee = site.phone(callee_run).await;
    let caller_run = Run {
        fill: &[("STEPS", caller.text())],
        pause: PART,
        ..site.caller_run("caller_steps", FROM)
    };
    let caller = site.phone(caller_run).await;
    caller.acknowledges().await;
    let (holder, media, held_media) = if by_caller {
        (&caller, &caller_media, &callee_media)
    } else {
        (&callee, &callee_media, &caller_media)
    };
    let description = |it: &Message| it.received && it.text.contains("m=audio");
    let towards_holder = holder.messages().into_iter().find(description);
    let towards_holder = announced(&towards_holder.expect("it was told where to send"));

    let mut heard = Vec::new();
    let mut index = 0;
    let mut stage = Stage::Talks;
    while stage != Stage::Over {
        if index % 5 == 0 {
            stage = Stage::of(holder, held_by);
        }
        if stage == Stage::Talks {
            let packet = Packet::audio(*b"AAAA", index, VOICE[0]);
            media.send(&packet, towards_holder).await;
        }
        index += 1;
        assert!(index < 1_500, "the call does not end");
        let turn = Instant::now() + Duration::from_millis(20);
        while let Some(left) = turn.checked_duration_since(Instant::now()) {
            heard.extend(held_media.receive_within(left).await);
        }
    }
    let messages = [caller.messages(), callee.messages()];
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    site.receiver.summary().await;
    assert!(site.switch.take().unwrap().drain().await.success());
    (heard, messages)
}

/// What the party that holds does now.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Talks,
    Holds,
    Over,
}

impl Stage {
    fn of(holder: &Sipp, [hold, resume]: [u32; 2]) -> Self {
        let messages = holder.messages();
        let did = |method: &str, cseq: u32| {
            messages.iter().any(|it| {
                !it.received
                    && it.first_line().starts_with(method)
                    && it.header("CSeq") == Some(&format!("{cseq} {method}"))
            })
        };
        if messages.iter().any(|it| it.first_line().starts_with("BYE")) {
            Self::Over
        } else if did("INVITE", hold) && !did("ACK", resume) {
            Self::Holds
        } else {
            Self::Talks
        }
    }
}

/// Checks that it is one stream, of voice, something else, and voice again; the samples of the
/// something else.
#[track_caller]
fn between_voice_and_voice(heard: &[Vec<u8>]) -> Vec<i16> {
    let packets: Vec<_> = heard
        .iter()
        .map(|bytes| RtpPacket::parse(bytes).unwrap())
        .collect();
    for pair in packets.windows(2) {
        let [before, after] = pair else { panic!() };
        let apart = after.sequence.wrapping_sub(before.sequence);
        assert_eq!((after.ssrc, apart), (before.ssrc, 1));
        let ticks = after.timestamp.wrapping_sub(before.timestamp);
        assert!((1..80_000).contains(&ticks), "{ticks}");
    }
    let is_voice = |packet: &RtpPacket<'_>| packet.payload == VOICE;
    let parts: Vec<_> = packets
        .chunk_by(|a, b| is_voice(a) == is_voice(b))
        .collect();
    let [before, held, after] = parts[..] else {
        panic!("{} parts", parts.len());
    };
    assert!(is_voice(&before[0]) && held.len() > 25 && after.len() > 25);
    assert!(held[0].marker && after[0].marker);
    let pause = held[0]
        .timestamp
        .wrapping_sub(before[before.len() - 1].timestamp);
    assert!(pause >= 8_000, "it begins after a second of silence");
    let octets = held.iter().flat_map(|it| it.payload);
    octets.map(|octet| decode_alaw(*octet)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_is_held_by_inactive_hears_the_tone_and_then_the_caller_again() {
    let a = Steps::default()
        .calls(Some(Says::FIRST), "")
        .acks(1, None)
        .waits()
        .asks("INVITE", 2, Some(Says::as_version(2, "inactive")))
        .hears(200)
        .acks(2, None)
        .waits()
        .asks("INVITE", 3, Some(Says::as_version(3, "sendrecv")))
        .hears(200)
        .acks(3, None)
        .waits()
        .asks("BYE", 4, None)
        .hears(200);
    let b = Steps::default()
        .answers_call(Says::FIRST, "")
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(2, "recvonly")))
        .gets("ACK")
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(3, "sendrecv")))
        .gets("ACK")
        .gets("BYE")
        .answers("200 OK", None);
    let options = Options::new(Transport::Udp);
    let (heard, [a, b]) = play("hold-tone", options, [&a, &b], true, [2, 3]).await;
    let samples = between_voice_and_voice(&heard);
    for (part, hz) in [(400..1_200, NOTES_HZ[0]), (2_000..2_800, NOTES_HZ[1])] {
        let share = tone_share(&samples[part], hz, 8_000);
        assert!(share > 0.9, "{hz} Hz: {share}");
    }
    let told = |messages: &[Message], start: &str, cseq: &str| {
        let it = messages.iter().find(|it| {
            it.received && it.first_line().starts_with(start) && it.header("CSeq") == Some(cseq)
        });
        it.expect("it is told").text.clone()
    };
    assert!(told(&b, "INVITE", "2 INVITE").contains("a=sendonly"));
    assert!(told(&a, "SIP/2.0 200", "2 INVITE").contains("a=inactive"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_held_without_music_hears_the_operators_and_then_the_callee_again() {
    let a = Steps::default()
        .calls(Some(Says::FIRST), "")
        .acks(1, None)
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(2, "recvonly")))
        .gets("ACK")
        .gets("INVITE")
        .answers("200 OK", Some(Says::as_version(3, "sendrecv")))
        .gets("ACK")
        .waits()
        .asks("BYE", 2, None)
        .hears(200);
    let b = Steps::default()
        .answers_call(Says::FIRST, "")
        .waits()
        .asks_as_callee("INVITE", 1, Some(Says::as_version(2, "sendonly")))
        .hears(200)
        .asks_as_callee("ACK", 1, None)
        .waits()
        .asks_as_callee("INVITE", 2, Some(Says::as_version(3, "sendrecv")))
        .hears(200)
        .asks_as_callee("ACK", 2, None)
        .gets("BYE")
        .answers("200 OK", None);
    let options = Options {
        edit: with_music,
        ..Options::new(Transport::Udp)
    };
    let (heard, _) = play("hold-music", options, [&a, &b], false, [1, 2]).await;
    let samples = between_voice_and_voice(&heard);
    let share = tone_share(&samples[400..4_000], MUSIC_HZ, 8_000);
    assert!(share > 0.95, "{share}");
}

/// A second of music at 16 kHz, in stereo.
fn with_music(_ports: &Ports, folder: &Path, configuration: String) -> String {
    let path = folder.join("music.wav");
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = hound::WavWriter::create(&path, spec).unwrap();
    for sample in Tone::new(MUSIC_HZ, 16_000, 8_000).take(16_000) {
        file.write_sample(sample).unwrap();
        file.write_sample(sample).unwrap();
    }
    file.finalize().unwrap();
    let key = format!("[media]\nhold = \"file:{}\"\n", path.display());
    configuration.replace("[media]\n", &key)
}
