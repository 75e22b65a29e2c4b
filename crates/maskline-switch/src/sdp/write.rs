//! Writing our own descriptions, from nothing.
//!
//! What reaches the text are numbers, addresses of our own and words of this file; codec
//! parameters go through the sieve of [`super::codec`] once more. The only words of a party are
//! the tokens of the streams that we refuse, and they go back to that party.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::codec::known_parameters;
use super::parse::is_token;
use super::{Codec, Crypto, Direction, Local, MediaDescription, OurSrtp};

/// An offer with one audio stream to a party that has not described itself yet. Lines end in CRLF.
///
/// It offers to share the RTP port with RTCP (RFC 5761 §5.1.1); who does not know that uses the next.
///
/// Without a codec the stream is written as refused (port 0). It is protected where our keys are offered.
#[must_use]
pub fn write_offer(
    local: &Local,
    codecs: &[Codec],
    ptime_ms: Option<u16>,
    direction: Direction,
) -> String {
    let mut text = session_part(local, local.address);
    let keys = local.srtp.filter(|own| own.offered);
    let keys: Vec<Crypto> = keys.iter().flat_map(OurSrtp::offer).collect();
    let ours = Ours {
        port: local.port,
        rtcp_mux: true,
        keys: &keys,
    };
    audio_stream(&mut text, &ours, codecs, ptime_ms, direction);
    text
}

/// An answer: one `m=` line for each line of the offer, all but the audio one refused with port 0
/// (RFC 3264 §6), at our address of the offer's family. It goes to the party that made `offer` and to
/// nobody else.
///
/// It shares the RTP port with RTCP if the offer does (RFC 5761 §5.1.1). It is protected if the offer is. `codecs` are in the offering party's payload types (see [`super::Negotiated`]). Without a codec
/// the audio stream is refused as well.
#[must_use]
pub fn write_answer(
    local: &Local,
    offer: &MediaDescription,
    codecs: &[Codec],
    ptime_ms: Option<u16>,
    direction: Direction,
) -> String {
    let mut text = session_part(local, local.towards(offer.rtp.ip()));
    for (index, stream) in offer.streams.iter().enumerate() {
        if index == offer.audio_index {
            let keys = local.srtp.zip(offer.srtp);
            let keys = keys.map(|(own, theirs)| own.answer(&theirs));
            let ours = Ours {
                port: local.port,
                rtcp_mux: offer.rtcp_mux,
                keys: keys.as_slice(),
            };
            audio_stream(&mut text, &ours, codecs, ptime_ms, direction);
        } else if [&stream.media, &stream.proto, &stream.format]
            .into_iter()
            .all(|it| is_token(it))
        {
            line(
                &mut text,
                format_args!("m={} 0 {} {}", stream.media, stream.proto, stream.format),
            );
        } else {
            line(&mut text, format_args!("m=application 0 UDP *"));
        }
    }
    text
}

fn session_part(local: &Local, address: IpAddr) -> String {
    let family = match address {
        IpAddr::V4(_) => "IP4",
        IpAddr::V6(_) => "IP6",
    };
    let signed = |number: u64| number & (u64::MAX >> 1);
    let (id, version) = (signed(local.session_id), signed(local.version));
    let mut text = String::with_capacity(512);
    line(&mut text, format_args!("v=0"));
    line(
        &mut text,
        format_args!("o=- {id} {version} IN {family} {address}"),
    );
    line(&mut text, format_args!("s=-"));
    line(&mut text, format_args!("c=IN {family} {address}"));
    line(&mut text, format_args!("t=0 0"));
    text
}

/// Our end of an audio stream.
struct Ours<'a> {
    port: u16,
    rtcp_mux: bool,
    /// Of a protected one.
    keys: &'a [Crypto],
}

fn audio_stream(
    text: &mut String,
    ours: &Ours<'_>,
    codecs: &[Codec],
    ptime_ms: Option<u16>,
    direction: Direction,
) {
    let proto = if ours.keys.is_empty() {
        "RTP/AVP"
    } else {
        "RTP/SAVP"
    };
    if codecs.is_empty() {
        line(text, format_args!("m=audio 0 {proto} 0"));
        return;
    }
    let formats: String = codecs
        .iter()
        .map(|codec| format!(" {}", codec.payload_type))
        .collect();
    line(text, format_args!("m=audio {} {proto}{formats}", ours.port));
    for codec in codecs {
        let (payload_type, clock_rate) = (codec.payload_type, codec.clock_rate);
        let encoding = codec.name.encoding();
        let channels = match codec.name.channels() {
            1 => String::new(),
            channels => format!("/{channels}"),
        };
        line(
            text,
            format_args!("a=rtpmap:{payload_type} {encoding}/{clock_rate}{channels}"),
        );
        if let Some(fmtp) = known_parameters(codec.name, codec.fmtp.as_deref()) {
            line(text, format_args!("a=fmtp:{payload_type} {fmtp}"));
        }
    }
    if let Some(ptime_ms) = ptime_ms {
        line(text, format_args!("a=ptime:{ptime_ms}"));
    }
    if ours.rtcp_mux {
        line(text, format_args!("a=rtcp-mux"));
    }
    for crypto in ours.keys {
        line(text, format_args!("a=crypto:{}", crypto.text()));
    }
    line(text, format_args!("a={}", direction.attribute()));
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{content}\r\n");
}
