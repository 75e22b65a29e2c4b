//! SDP between this process and `rtpengine`: a party as it was negotiated, written for the daemon
//! alone, and the daemon's port read out of what it makes of that. No party ever sees either.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use maskline_media::{Carriage, PayloadMap, RemoteMedia, Voice, VoiceCodec};

use crate::protocol::{CALLEE, CALLER, CodecChange, Exchange};

/// Where a party is said to be that is not known yet: nothing is sent there, as nobody may send.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// Key presses (RFC 4733).
const EVENTS: &str = "telephone-event";

/// Both parties, as far as they are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parties {
    pub(crate) caller: Option<RemoteMedia>,
    pub(crate) callee: Option<RemoteMedia>,
}

impl Parties {
    /// What is asked of the daemon for both, in this order.
    pub(crate) fn exchanges(&self, call_id: &str) -> [Exchange; 2] {
        let muxed = |party: &Option<RemoteMedia>| party.as_ref().is_some_and(|it| it.rtcp_mux);
        let mut towards_callee = vec![if muxed(&self.callee) {
            "require"
        } else {
            "demux"
        }];
        if muxed(&self.caller) {
            towards_callee.push("accept");
        }
        let exchange = |party: &Option<RemoteMedia>| Exchange {
            call_id: call_id.to_owned(),
            from_tag: CALLER,
            to_tag: CALLEE,
            sdp: describe(party.as_ref()),
            flags: flags(party.as_ref()),
            ice: "remove",
            dtls: "off",
            replace: ["origin", "session-connection"],
            rtcp_mux: Vec::new(),
            codec: None,
        };
        [
            Exchange {
                rtcp_mux: towards_callee,
                codec: self.codec_change(),
                ..exchange(&self.caller)
            },
            exchange(&self.callee),
        ]
    }

    /// What is to be turned into something else for the callee.
    fn codec_change(&self) -> Option<CodecChange> {
        let mut change = CodecChange::default();
        for payload in self.caller.iter().flat_map(|caller| &caller.payloads) {
            match payload.carriage {
                Carriage::AsIs => {}
                Carriage::Transcoded { from, to } => {
                    push_new(&mut change.mask, label(from));
                    push_new(&mut change.transcode, label(to));
                }
                Carriage::Anew => push_new(&mut change.mask, EVENTS),
            }
        }
        let mut of_callee = self.callee.iter().flat_map(|callee| &callee.payloads);
        if of_callee.any(|payload| payload.carriage == Carriage::Anew) {
            push_new(&mut change.transcode, EVENTS);
            // It only makes events towards a party whose voice it turns, be it into the same codec.
            for payload in self.caller.iter().flat_map(|caller| &caller.payloads) {
                if let Some(codec) = payload.codec {
                    push_new(&mut change.mask, codec.label());
                }
            }
        }
        (change != CodecChange::default()).then_some(change)
    }
}

/// What the daemon is to do with a party's packets.
fn flags(party: Option<&RemoteMedia>) -> Vec<&'static str> {
    let mut flags = vec![
        // The addresses are those of the SDP, which was checked against the trunk.
        "trust-address",
        // Ports stay over further offers.
        "port-latching",
        // The parties' own RTCP ends here: it names their devices.
        "generate-RTCP",
        // Packets from elsewhere are dropped.
        "strict-source",
        // Every packet is made anew: the parties' SSRC and header extensions do not pass.
        "inject-DTMF",
    ];
    // A daemon does not take this back: it is not said of a party that is not known yet.
    let only_there = party.is_some_and(|party| {
        let described = party.rtp.ip();
        party.sources.iter().all(|source| *source == described)
    });
    if party.is_some_and(|party| party.listens) {
        flags.push("detect-DTMF");
    }
    if only_there {
        // Nothing is learned from where packets come: they come from where was said.
        flags.push("asymmetric");
    }
    flags
}

const fn label(voice: Voice) -> &'static str {
    match voice {
        Voice::Pcmu => VoiceCodec::Pcmu.label(),
        Voice::Pcma => VoiceCodec::Pcma.label(),
        Voice::G722 => VoiceCodec::G722.label(),
    }
}

fn push_new(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

/// A party's SDP; of one that is not known, a place that neither sends nor receives.
fn describe(party: Option<&RemoteMedia>) -> String {
    let rtp = party.map_or(NOWHERE, |party| party.rtp);
    let family = match rtp.ip() {
        IpAddr::V4(_) => "IP4",
        IpAddr::V6(_) => "IP6",
    };
    let (ip, port) = (rtp.ip(), rtp.port());
    let payloads: &[PayloadMap] = party.map_or(&[], |party| &party.payloads);
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP"
    );
    if payloads.is_empty() {
        sdp.push_str(" 0");
    }
    // Writing to a string does not fail.
    for payload in payloads {
        let _ = write!(sdp, " {}", payload.here);
    }
    sdp.push_str("\r\n");
    for payload in payloads {
        let _ = write!(
            sdp,
            "a=rtpmap:{} {}/{}{}\r\n",
            payload.here,
            encoding(payload),
            payload.clock_rate,
            // RFC 7587 §7: always two channels.
            if payload.clock_rate == 48_000 && !payload.telephone_event {
                "/2"
            } else {
                ""
            }
        );
    }
    let Some(party) = party else {
        sdp.push_str("a=inactive\r\n");
        return sdp;
    };
    if party.rtcp_mux {
        sdp.push_str("a=rtcp-mux\r\n");
    } else if let Some(rtcp) = party.rtcp {
        let _ = write!(sdp, "a=rtcp:{}\r\n", rtcp.port());
    }
    sdp.push_str(match (party.sends, party.receives) {
        (true, true) => "a=sendrecv\r\n",
        (true, false) => "a=sendonly\r\n",
        (false, true) => "a=recvonly\r\n",
        (false, false) => "a=inactive\r\n",
    });
    sdp
}

/// The encoding name of RFC 3551 and its kin.
fn encoding(payload: &PayloadMap) -> &'static str {
    match (payload.codec, payload.telephone_event, payload.here) {
        (_, true, _) => EVENTS,
        (Some(codec), false, _) => codec.label(),
        (None, false, 13) => "CN",
        // It only has to be the same name on both sides.
        (None, false, _) => "X-other",
    }
}

/// Where the daemon listens, by the SDP that it made.
pub(crate) fn place_in(sdp: &str) -> Option<(IpAddr, u16)> {
    let mut address = None;
    let mut port = None;
    for line in sdp.lines() {
        if let Some(rest) = line.strip_prefix("c=IN ") {
            address = rest.split(' ').nth(1).and_then(|text| text.parse().ok());
        } else if let Some(rest) = line.strip_prefix("m=audio ") {
            port = rest.split(' ').next().and_then(|text| text.parse().ok());
        }
    }
    Some((address?, port.filter(|port| *port != 0)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn payload(here: u8, codec: Option<VoiceCodec>, carriage: Carriage) -> PayloadMap {
        PayloadMap {
            here,
            there: here,
            clock_rate: 8_000,
            telephone_event: codec.is_none(),
            codec,
            carriage,
        }
    }

    fn party(port: u16, payloads: Vec<PayloadMap>) -> RemoteMedia {
        let rtp = SocketAddr::from(([192, 0, 2, 1], port));
        RemoteMedia {
            rtp,
            rtcp: Some(SocketAddr::from(([192, 0, 2, 1], port + 1))),
            rtcp_mux: false,
            srtp: None,
            sources: vec![rtp.ip()],
            payloads,
            sends: true,
            receives: false,
            listens: false,
            holds: false,
        }
    }

    #[test]
    fn a_party_is_described_by_what_it_negotiated() {
        let party = party(
            4_000,
            vec![
                payload(8, Some(VoiceCodec::Pcma), Carriage::AsIs),
                payload(101, None, Carriage::AsIs),
            ],
        );
        let sdp = describe(Some(&party));
        assert!(sdp.contains("c=IN IP4 192.0.2.1\r\n"), "{sdp}");
        assert!(
            sdp.ends_with(
                "m=audio 4000 RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\n\
                 a=rtpmap:101 telephone-event/8000\r\na=rtcp:4001\r\na=sendonly\r\n"
            ),
            "{sdp}"
        );
        assert!(describe(None).ends_with("m=audio 9 RTP/AVP 0\r\na=inactive\r\n"));
    }

    #[test]
    fn packets_count_from_elsewhere_only_if_the_trunk_says_so() {
        let mut party = party(4_000, Vec::new());
        assert!(flags(Some(&party)).contains(&"asymmetric"));
        party.sources.push(IpAddr::from([192, 0, 2, 9]));
        assert!(!flags(Some(&party)).contains(&"asymmetric"));
        assert!(flags(Some(&party)).contains(&"strict-source"));
        assert!(!flags(None).contains(&"asymmetric"));
    }

    #[test]
    fn a_codec_is_changed_where_the_parties_share_none() {
        let changed = Carriage::Transcoded {
            from: Voice::Pcma,
            to: Voice::Pcmu,
        };
        let parties = Parties {
            caller: Some(party(
                4_000,
                vec![payload(8, Some(VoiceCodec::Pcma), changed)],
            )),
            callee: None,
        };
        let [offer, answer] = parties.exchanges("call");
        let change = offer.codec.unwrap();
        assert_eq!(change.mask, ["PCMA"]);
        assert_eq!(change.transcode, ["PCMU"]);
        assert_eq!(offer.rtcp_mux, ["demux"]);
        assert!(answer.codec.is_none());
    }

    #[test]
    fn a_place_is_an_address_and_a_port() {
        let sdp = "v=0\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\nm=audio 30100 RTP/AVP 0\r\n";
        assert_eq!(place_in(sdp), Some((IpAddr::from([192, 0, 2, 7]), 30_100)));
        for broken in [
            "",
            "m=audio 30100 RTP/AVP 0\r\n",
            "c=IN IP4 192.0.2.7\r\nm=audio 0 RTP/AVP 0\r\n",
            "c=IN IP4 name\r\nm=audio 30100 RTP/AVP 0\r\n",
            "c=IN IP4 192.0.2.7\r\nm=audio 99999 RTP/AVP 0\r\n",
        ] {
            assert_eq!(place_in(broken), None, "{broken}");
        }
    }
}
