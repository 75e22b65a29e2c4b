//! What is proved of SDP: what is read and refused, what is written, what is agreed on, and that
//! nothing of one party reaches the other.

mod agreeing;
mod crypto;
mod hostile;
mod reading;
mod transcoded;
mod writing;

use std::net::{IpAddr, Ipv4Addr};

use super::*;

/// A description with one audio stream: what stands at session level, the `m=` line's port and
/// formats, and what stands below it.
fn described(session: &str, port_and_formats: &str, media: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n{session}t=0 0\r\nm=audio {port_and_formats}\r\n{media}"
    )
}

const AT: &str = "c=IN IP4 192.0.2.1\r\n";

/// A description at 192.0.2.1 with these formats and what stands below them.
fn audio(formats: &str, media: &str) -> MediaDescription {
    parse(described(AT, &format!("4000 RTP/AVP {formats}"), media).as_bytes()).unwrap()
}

fn local() -> Local {
    Local {
        address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)),
        second: None,
        srtp: None,
        port: 20_000,
        session_id: 42,
        version: 7,
    }
}

/// `name/clock@payload type fmtp` of each codec.
fn names(codecs: &[Codec]) -> Vec<String> {
    let name = |codec: &Codec| {
        let fmtp = codec
            .fmtp
            .as_ref()
            .map_or_else(String::new, |fmtp| format!(" {fmtp}"));
        format!(
            "{:?}/{}@{}{fmtp}",
            codec.name, codec.clock_rate, codec.payload_type
        )
    };
    codecs.iter().map(name).collect()
}
