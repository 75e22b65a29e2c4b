//! Prompts, driven by scripts: what a party is played in place of the other, packet by packet.
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
    CalleeMedia, CallerMedia, Carriage, EncodedSound, PayloadMap, Prompt, Relay, RelayOutput,
    RemoteMedia, Side, Tick, Verdict, Voice, VoiceCodec,
};

const A: &str = "192.0.2.1:4000";
const B: &str = "192.0.2.2:5000";
const HZ: f64 = 1_000.0;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ms(ms: u64) -> Tick {
    Tick::from_start(Duration::from_millis(ms))
}

/// A party of one voice codec by this number.
fn party(at: &str, number: u8, codec: VoiceCodec) -> RemoteMedia {
    RemoteMedia {
        rtp: addr(at),
        rtcp: None,
        rtcp_mux: false,
        srtp: None,
        sources: vec![addr(at).ip()],
        payloads: vec![PayloadMap {
            here: number,
            there: number,
            clock_rate: 8_000,
            telephone_event: false,
            codec: Some(codec),
            carriage: Carriage::AsIs,
        }],
        sends: true,
        receives: true,
        listens: false,
        holds: false,
    }
}

/// A tone of so many milliseconds.
fn prompt(id: u64, lasts: usize, times: u8) -> Prompt {
    let samples: Vec<_> = Tone::new(HZ, 16_000, 8_000).take(lasts * 16).collect();
    Prompt {
        id,
        sound: Arc::new(EncodedSound::once(&samples)),
        times,
    }
}

#[derive(Clone, Debug)]
struct Sent {
    at: u64,
    marker: bool,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    payload: Vec<u8>,
}

/// A call of which A is programmed, and B if it says so.
struct Bench {
    relay: Relay,
    now: u64,
    to_a: Vec<Sent>,
    over: Vec<(u64, u64, bool)>,
}

impl Bench {
    fn new(a: RemoteMedia) -> Self {
        let mut relay = Relay::new(Tick::ZERO, 42, Duration::from_secs(60));
        relay.program_caller(Tick::ZERO, CallerMedia(a));
        Self {
            relay,
            now: 0,
            to_a: Vec::new(),
            over: Vec::new(),
        }
    }

    fn bridged() -> Self {
        let mut bench = Self::new(party(A, 8, VoiceCodec::Pcma));
        let b = CalleeMedia(party(B, 8, VoiceCodec::Pcma));
        bench.relay.program_callee(Tick::ZERO, b);
        bench
    }

    fn play(&mut self, prompt: Prompt) {
        self.relay.play_prompt(ms(self.now), Side::Caller, prompt);
        self.look(self.now);
    }

    fn keep(&mut self, at: u64, datagram: &[u8]) {
        let packet = RtpPacket::parse(datagram).unwrap();
        self.to_a.push(Sent {
            at,
            marker: packet.marker,
            payload_type: packet.payload_type,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            payload: packet.payload.to_vec(),
        });
    }

    fn look(&mut self, at: u64) {
        while let Some(output) = self.relay.poll() {
            match output {
                RelayOutput::SendRtp { side, to, datagram } => {
                    assert_eq!((side, to), (Side::Caller, addr(A)));
                    self.keep(at, &datagram);
                }
                RelayOutput::Played { side, id, whole } => {
                    assert_eq!(side, Side::Caller);
                    self.over.push((at, id, whole));
                }
                RelayOutput::SendRtcp { .. }
                | RelayOutput::Dtmf { .. }
                | RelayOutput::NotInRtp { .. }
                | RelayOutput::OneWay { .. }
                | RelayOutput::Report(_)
                | RelayOutput::Silent { .. } => {}
            }
        }
    }

    /// Lets so much time pass; B sends every 20 ms, or nothing.
    fn pass(&mut self, lasts: u64, b_sends: bool) {
        let until = self.now + lasts;
        let mut out = Vec::new();
        while self.now < until {
            if b_sends {
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
                let now = ms(self.now);
                let verdict = self
                    .relay
                    .on_rtp(now, Side::Callee, addr(B), &datagram, &mut out);
                if verdict == (Verdict::Forward { to: addr(A) }) {
                    self.keep(self.now, &out);
                }
            }
            let turn = self.now + 20;
            while let Some((due, _)) = self.relay.deadline().filter(|(due, _)| *due < ms(turn)) {
                self.relay.on_deadline(due);
                self.look(u64::try_from(due.since_start().as_millis()).unwrap());
            }
            self.now = turn;
        }
    }

    fn times(&self) -> Vec<u64> {
        self.to_a.iter().map(|it| it.at).collect()
    }
}

fn every_20_ms(from: u64, to: u64) -> Vec<u64> {
    (from..to).step_by(20).collect()
}

#[test]
fn a_prompt_is_heard_in_each_codec_at_its_pace_and_told_of_when_it_is_over() {
    for (number, codec, voice) in [
        (0, VoiceCodec::Pcmu, Voice::Pcmu),
        (8, VoiceCodec::Pcma, Voice::Pcma),
        (9, VoiceCodec::G722, Voice::G722),
    ] {
        // B need not be there.
        let mut bench = Bench::new(party(A, number, codec));
        bench.pass(40, false);
        bench.play(prompt(7, 1_000, 1));
        bench.pass(2_000, false);
        assert_eq!(bench.times(), every_20_ms(40, 1_040), "{codec:?}");
        assert_eq!(bench.over, [(1_040, 7, true)]);
        for (n, sent) in bench.to_a.iter().enumerate() {
            assert_eq!((sent.marker, sent.payload_type), (n == 0, number));
            let first = &bench.to_a[0];
            assert_eq!(sent.sequence, first.sequence.wrapping_add(n as u16));
            let ticks = first.timestamp.wrapping_add(160 * n as u32);
            assert_eq!(sent.timestamp, ticks);
        }
        let (mut decoder, mut downsampler) = (Decoder::default(), Downsampler::default());
        let octets = bench.to_a.iter().flat_map(|it| it.payload.clone());
        let heard: Vec<_> = octets
            .map(|octet| match voice {
                Voice::Pcmu => decode_ulaw(octet),
                Voice::Pcma => decode_alaw(octet),
                Voice::G722 => downsampler.push(decoder.decode(octet)),
            })
            .collect();
        assert!(tone_share(&heard, HZ, 8_000) > 0.98, "{codec:?}");
    }
}

#[test]
fn it_is_repeated_without_a_pause_and_filled_up_to_whole_packets() {
    let mut bench = Bench::new(party(A, 0, VoiceCodec::Pcmu));
    bench.play(prompt(1, 130, 3));
    bench.pass(1_000, false);
    assert_eq!(bench.times(), every_20_ms(0, 3 * 140));
    assert_eq!(bench.over, [(420, 1, true)]);
    assert!(bench.to_a.iter().all(|it| it.payload.len() == 160));
    assert_eq!(bench.to_a[0].payload, bench.to_a[7].payload);
    // Silence at the end of each, after what filters hold.
    assert!(
        bench.to_a[6].payload[120..]
            .iter()
            .all(|it| decode_ulaw(*it).abs() < 40)
    );
}

#[test]
fn the_other_party_is_not_heard_meanwhile_and_goes_on_in_the_same_stream_afterwards() {
    let mut bench = Bench::bridged();
    bench.pass(200, true);
    bench.play(prompt(1, 400, 1));
    bench.pass(1_000, true);
    let of_b: Vec<_> = bench
        .to_a
        .iter()
        .filter(|it| it.payload == [0x55; 160])
        .map(|it| it.at)
        .collect();
    assert_eq!(
        of_b,
        [every_20_ms(0, 200), every_20_ms(620, 1_200)].concat()
    );
    for pair in bench.to_a.windows(2) {
        assert_eq!(
            pair[1].sequence.wrapping_sub(pair[0].sequence),
            1,
            "{pair:?}"
        );
        let ticks = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert_eq!(u64::from(ticks), (pair[1].at - pair[0].at) * 8, "{pair:?}");
    }
}

#[test]
fn one_that_is_stopped_or_replaced_or_can_t_be_heard_is_told_of_once() {
    let mut bench = Bench::new(party(A, 0, VoiceCodec::Pcmu));
    bench.play(prompt(1, 1_000, 1));
    bench.pass(100, false);
    bench.play(prompt(2, 1_000, 1));
    assert_eq!(bench.over, [(100, 1, false)]);
    bench.pass(100, false);
    bench.relay.stop_prompt(Side::Caller);
    bench.relay.stop_prompt(Side::Caller);
    bench.look(200);
    assert_eq!(bench.over[1..], [(200, 2, false)]);
    bench.pass(500, false);
    assert_eq!(bench.times(), every_20_ms(0, 200));
    bench.play(prompt(3, 0, 1));
    bench.play(prompt(4, 100, 0));
    bench.pass(100, false);
    assert_eq!(bench.over[2..], [(700, 3, false), (700, 4, true)]);

    let deaf = RemoteMedia {
        receives: false,
        ..party(A, 0, VoiceCodec::Pcmu)
    };
    for a in [deaf, party(A, 18, VoiceCodec::G729)] {
        let mut bench = Bench::new(a);
        bench.play(prompt(1, 1_000, 1));
        assert_eq!(bench.over, [(0, 1, false)]);
        bench.pass(500, false);
        assert!(bench.to_a.is_empty());
    }
    let mut bench = Bench::new(party(A, 0, VoiceCodec::Pcmu));
    bench
        .relay
        .play_prompt(ms(0), Side::Callee, prompt(1, 1_000, 1));
    let over = RelayOutput::Played {
        side: Side::Callee,
        id: 1,
        whole: false,
    };
    assert_eq!(bench.relay.poll(), Some(over));
}

#[test]
fn a_player_that_was_held_up_does_not_hurry() {
    let mut bench = Bench::new(party(A, 0, VoiceCodec::Pcmu));
    bench.play(prompt(1, 200, 1));
    bench.pass(100, false);
    bench.relay.on_deadline(ms(5_000));
    bench.look(5_000);
    bench.now = 5_020;
    bench.pass(500, false);
    let later: Vec<_> = bench
        .times()
        .into_iter()
        .filter(|at| *at >= 5_000)
        .collect();
    assert_eq!(later, every_20_ms(5_000, 5_100));
    let first = bench.to_a.iter().find(|it| it.at == 5_000).unwrap();
    assert!(first.marker);
}
