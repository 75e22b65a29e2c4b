//! Hold, driven by scripts: what a party on hold hears, as one stream with what it heard before and
//! hears after.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use maskline_media::codec::g711::{decode_alaw, decode_ulaw};
use maskline_media::codec::g722::Decoder;
use maskline_media::codec::half_band::Downsampler;
use maskline_media::rtp::RtpPacket;
use maskline_media::tone::{Tone, tone_share};
use maskline_media::{
    CalleeMedia, CallerMedia, Carriage, HoldAudio, PayloadMap, Relay, RelayOutput, RemoteMedia,
    Side, Tick, Verdict, Voice, VoiceCodec,
};

const A: &str = "192.0.2.1:4000";
const B: &str = "192.0.2.2:5000";
const MUSIC_HZ: f64 = 1_000.0;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ms(ms: u64) -> Tick {
    Tick::from_start(Duration::from_millis(ms))
}

/// A party that speaks one codec by `here`, which the other knows as `there`.
fn party(at: &str, (here, there): (u8, u8), codec: VoiceCodec, carriage: Carriage) -> RemoteMedia {
    RemoteMedia {
        rtp: addr(at),
        rtcp: None,
        rtcp_mux: false,
        srtp: None,
        sources: vec![addr(at).ip()],
        payloads: vec![PayloadMap {
            here,
            there,
            clock_rate: 8_000,
            telephone_event: false,
            codec: Some(codec),
            carriage,
        }],
        sends: true,
        receives: true,
        listens: false,
        holds: false,
    }
}

fn pcma(at: &str) -> RemoteMedia {
    party(at, (8, 8), VoiceCodec::Pcma, Carriage::AsIs)
}

/// The same party, which holds the other and sends by this.
fn holds(media: RemoteMedia, sends: bool) -> RemoteMedia {
    RemoteMedia {
        sends,
        receives: false,
        holds: true,
        ..media
    }
}

/// What left for one party: when, and the packet.
#[derive(Clone, Debug)]
struct Sent {
    at: u64,
    marker: bool,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    payload: Vec<u8>,
}

struct Bench {
    relay: Relay,
    now: u64,
    to_b: Vec<Sent>,
}

impl Bench {
    fn new(hold: Option<HoldAudio>, a: RemoteMedia, b: RemoteMedia) -> Self {
        let relay =
            Relay::new(Tick::ZERO, 42, Duration::from_secs(60)).with_hold(hold.map(Arc::new));
        let mut bench = Self {
            relay,
            now: 0,
            to_b: Vec::new(),
        };
        bench.a(a);
        bench.b(b);
        bench
    }

    fn a(&mut self, media: RemoteMedia) {
        self.relay.program_caller(ms(self.now), CallerMedia(media));
    }

    fn b(&mut self, media: RemoteMedia) {
        self.relay.program_callee(ms(self.now), CalleeMedia(media));
    }

    fn keep(&mut self, at: u64, datagram: &[u8]) {
        let packet = RtpPacket::parse(datagram).unwrap();
        self.to_b.push(Sent {
            at,
            marker: packet.marker,
            payload_type: packet.payload_type,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            ssrc: packet.ssrc,
            payload: packet.payload.to_vec(),
        });
    }

    /// Lets so much time pass; A sends every 20 ms, or nothing.
    fn pass(&mut self, lasts: u64, a_sends: bool) {
        let until = self.now + lasts;
        let mut out = Vec::new();
        while self.now < until {
            if a_sends {
                let n = self.now / 20;
                let mut datagram = Vec::new();
                RtpPacket {
                    marker: false,
                    payload_type: 8,
                    sequence: n as u16,
                    timestamp: n as u32 * 160,
                    ssrc: 7,
                    payload: &[0x55; 160],
                }
                .write(&mut datagram);
                let from = addr(A);
                let now = ms(self.now);
                let verdict = self
                    .relay
                    .on_rtp(now, Side::Caller, from, &datagram, &mut out);
                if verdict == (Verdict::Forward { to: addr(B) }) {
                    self.keep(self.now, &out);
                }
            }
            let turn = self.now + 20;
            while let Some((due, _)) = self.relay.deadline().filter(|(due, _)| *due < ms(turn)) {
                self.relay.on_deadline(due);
                let at = u64::try_from(due.since_start().as_millis()).unwrap();
                while let Some(output) = self.relay.poll() {
                    if let RelayOutput::SendRtp { side, to, datagram } = output {
                        assert_eq!((side, to), (Side::Callee, addr(B)));
                        self.keep(at, &datagram);
                    }
                }
            }
            self.now = turn;
        }
    }

    fn take(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.to_b)
    }
}

fn music() -> HoldAudio {
    HoldAudio::at_8_khz(
        &Tone::new(MUSIC_HZ, 8_000, 8_000)
            .take(8_000)
            .collect::<Vec<_>>(),
    )
}

/// One stream: one SSRC, no sequence number left out, each timestamp as the time passed has it.
fn assert_one_stream(sent: &[Sent]) {
    for pair in sent.windows(2) {
        let [before, after] = pair else { panic!() };
        let apart = after.sequence.wrapping_sub(before.sequence);
        assert_eq!((after.ssrc, apart), (before.ssrc, 1), "{pair:?}");
        let ticks = after.timestamp.wrapping_sub(before.timestamp);
        assert_eq!(u64::from(ticks), (after.at - before.at) * 8, "{pair:?}");
    }
}

#[test]
fn a_party_that_is_held_in_silence_hears_music_after_a_second_and_then_the_other_again() {
    for sends in [true, false] {
        let mut bench = Bench::new(Some(music()), pcma(A), pcma(B));
        bench.pass(2_000, true);
        bench.a(holds(pcma(A), sends));
        bench.pass(3_000, false);
        bench.a(pcma(A));
        bench.pass(1_000, true);
        let sent = bench.take();
        assert_one_stream(&sent);
        let of_music: Vec<_> = sent.iter().filter(|it| it.payload[0] != 0x55).collect();
        let times: Vec<_> = of_music.iter().map(|it| it.at).collect();
        let due: Vec<_> = (3_000..5_000).step_by(20).collect();
        assert_eq!(times, due, "sends: {sends}");
        let marked: Vec<_> = sent.iter().filter(|it| it.marker).map(|it| it.at).collect();
        assert_eq!(marked, [3_000, 5_000], "the beginning of each");
        let samples: Vec<_> = of_music
            .iter()
            .flat_map(|it| it.payload.iter().map(|octet| decode_alaw(*octet)))
            .collect();
        assert!(tone_share(&samples, MUSIC_HZ, 8_000) > 0.99);
    }
}

#[test]
fn whoever_holds_with_music_of_its_own_is_heard_and_ours_only_when_that_stops() {
    let mut bench = Bench::new(Some(music()), pcma(A), pcma(B));
    bench.a(holds(pcma(A), true));
    bench.pass(5_000, true);
    assert!(bench.take().iter().all(|it| it.payload[0] == 0x55));
    bench.pass(2_000, false);
    let ours = bench.take();
    assert_eq!((ours[0].at, ours.len()), (5_980, 51));
    bench.pass(500, true);
    let theirs = bench.take();
    assert!(theirs.iter().all(|it| it.payload[0] == 0x55));
    assert_one_stream(&[ours, theirs].concat());
}

#[test]
fn nobody_hears_music_who_is_not_held_or_does_not_listen_or_whose_operator_chose_silence() {
    let deaf = RemoteMedia {
        receives: false,
        ..pcma(B)
    };
    let mute = RemoteMedia {
        sends: false,
        receives: false,
        ..pcma(A)
    };
    let inactive = || holds(pcma(A), false);
    for (what, hold, a, b) in [
        ("not held", Some(music()), pcma(A), pcma(B)),
        ("before the answer", Some(music()), mute, pcma(B)),
        ("deaf", Some(music()), inactive(), deaf),
        ("both hold", Some(music()), inactive(), holds(pcma(B), true)),
        ("silence", None, inactive(), pcma(B)),
    ] {
        let mut bench = Bench::new(hold, a, b);
        bench.pass(5_000, false);
        assert!(bench.take().is_empty(), "{what}");
    }
}

#[test]
fn music_is_heard_in_the_codec_of_the_one_who_is_held_and_not_in_one_that_is_only_passed_on() {
    for (of_a, of_b, heard) in [
        (VoiceCodec::Pcmu, VoiceCodec::Pcmu, Some(Voice::Pcmu)),
        (VoiceCodec::G722, VoiceCodec::G722, Some(Voice::G722)),
        (VoiceCodec::Pcma, VoiceCodec::G722, Some(Voice::G722)),
        (VoiceCodec::G722, VoiceCodec::Pcmu, Some(Voice::Pcmu)),
        (VoiceCodec::Opus, VoiceCodec::Opus, None),
        (VoiceCodec::G729, VoiceCodec::G729, None),
    ] {
        let carriage = |from: VoiceCodec, to: VoiceCodec| match (Voice::of(from), Voice::of(to)) {
            (Some(from), Some(to)) if from != to => Carriage::Transcoded { from, to },
            _ => Carriage::AsIs,
        };
        let a = party(A, (100, 77), of_a, carriage(of_a, of_b));
        let b = party(B, (77, 100), of_b, carriage(of_b, of_a));
        let mut bench = Bench::new(Some(music()), holds(a, false), b);
        bench.pass(3_000, false);
        let sent = bench.take();
        let Some(voice) = heard else {
            assert!(sent.is_empty(), "{of_b:?}");
            continue;
        };
        assert!(sent.iter().all(|it| it.payload_type == 77));
        let (mut decoder, mut downsampler) = (Decoder::default(), Downsampler::default());
        let octets = sent.iter().flat_map(|it| it.payload.iter());
        let samples: Vec<_> = octets
            .map(|octet| match voice {
                Voice::Pcmu => decode_ulaw(*octet),
                Voice::Pcma => decode_alaw(*octet),
                Voice::G722 => downsampler.push(decoder.decode(*octet)),
            })
            .collect();
        let share = tone_share(&samples[800..], MUSIC_HZ, 8_000);
        assert!(share > 0.99, "{of_a:?} {of_b:?}: {share}");
    }
}

#[test]
fn a_relay_that_is_closed_plays_no_more() {
    let mut bench = Bench::new(Some(music()), holds(pcma(A), false), pcma(B));
    bench.pass(1_500, false);
    assert!(!bench.take().is_empty());
    bench.relay.close(ms(bench.now));
    bench.pass(1_000, false);
    assert!(bench.take().is_empty());
}
