//! Prompts on loopback: what a socket gets of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maskline_media::rtp::RtpPacket;
use maskline_media::tone::Tone;
use maskline_media::{
    CallerMedia, Carriage, EncodedSound, EngineConfig, MediaCommand, MediaEngine, MediaEvent,
    MediaKey, PayloadMap, Prompt, RemoteMedia, Side, Voice, VoiceCodec,
};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(10);
const KEY: MediaKey = MediaKey { shard: 0, id: 1 };
const SIDE: Side = Side::Caller;

async fn next(events: &mut mpsc::Receiver<MediaEvent>) -> MediaEvent {
    timeout(PATIENCE, events.recv()).await.unwrap().unwrap()
}

async fn hear(phone: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2_048];
    let length = timeout(PATIENCE, phone.recv(&mut buffer)).await.unwrap();
    let packet = RtpPacket::parse(&buffer[..length.unwrap()]).unwrap();
    packet.payload.to_vec()
}

#[tokio::test]
async fn a_party_is_played_a_prompt_before_there_is_another_and_its_end_is_told() {
    let (shard, mut events) = mpsc::channel(8);
    let config = EngineConfig::new(LOOPBACK, 30_940..=30_959, Instant::now());
    let engine = MediaEngine::start(config, vec![shard]).unwrap();
    let order = |command| assert_eq!(engine.command(command), None);
    order(MediaCommand::Open { key: KEY, seed: 77 });
    let opened = next(&mut events).await;
    assert!(matches!(opened, MediaEvent::Opened { .. }), "{opened:?}");
    let phone = UdpSocket::bind(SocketAddr::new(LOOPBACK, 0)).await.unwrap();
    let rtp = phone.local_addr().unwrap();
    let media = RemoteMedia {
        rtp,
        rtcp: None,
        rtcp_mux: false,
        srtp: None,
        sources: vec![rtp.ip()],
        payloads: vec![PayloadMap {
            here: 0,
            there: PayloadMap::NOT_PASSED,
            clock_rate: 8_000,
            telephone_event: false,
            codec: Some(VoiceCodec::Pcmu),
            carriage: Carriage::AsIs,
        }],
        sends: true,
        receives: true,
        listens: false,
        holds: false,
    };
    order(MediaCommand::ProgramCaller {
        key: KEY,
        media: CallerMedia(media),
    });
    let tone: Vec<_> = Tone::new(440.0, 16_000, 8_000).take(3_200).collect();
    let sound = Arc::new(EncodedSound::once(&tone));
    let play = |id, times| MediaCommand::Play {
        key: KEY,
        side: SIDE,
        prompt: Prompt {
            id,
            sound: Arc::clone(&sound),
            times,
        },
    };
    let over = |id, whole| MediaEvent::Played {
        key: KEY,
        side: SIDE,
        id,
        whole,
    };
    order(play(1, 1));
    let mut heard = Vec::new();
    for _ in 0..10 {
        heard.extend(hear(&phone).await);
    }
    assert_eq!(heard, sound.octets(Voice::Pcmu));
    assert_eq!(next(&mut events).await, over(1, true));
    assert!(phone.try_recv(&mut [0; 2_048]).is_err());

    order(play(2, 255));
    hear(&phone).await;
    order(MediaCommand::StopPlaying {
        key: KEY,
        side: SIDE,
    });
    assert_eq!(next(&mut events).await, over(2, false));
    order(MediaCommand::Close { key: KEY });
    let closed = next(&mut events).await;
    assert!(matches!(closed, MediaEvent::Closed { .. }), "{closed:?}");
    assert_eq!(engine.command(play(3, 1)), Some(over(3, false)));
}
