//! Reading a description: bounded, tolerant of what real phones write, strict in what is kept.
//!
//! Lines may end in LF alone, unknown letters and attributes are skipped, and a fault in a stream
//! that is not carried does not spoil the one that is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use maskline_media::MediaAddresses;

use super::codec::{read_encoding, static_codec};
use super::crypto::OfferedLine;
use super::{
    Codec, Crypto, Direction, MediaDescription, SdpFault, SdpFaultKind, SrtpPolicy, Stream,
};

/// The largest description that is read.
pub const MAX_BYTES: usize = 64 * 1024;
/// The most `m=` lines.
pub const MAX_STREAMS: usize = 64;
/// The most formats on one `m=` line.
pub const MAX_FORMATS: usize = 64;

/// The longest token of an `m=` line that is written back in a refusal.
const MAX_TOKEN_BYTES: usize = 40;
/// The longest packet time that is passed on.
const MAX_PTIME_MS: u16 = 200;

/// What can be carried of one party.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Where we are, by which its own address is judged.
    pub addresses: MediaAddresses,
    /// Whether its media are protected.
    pub srtp: SrtpPolicy,
}

/// As [`parse_for`], with addresses of both families, and of plain media.
///
/// # Errors
/// As [`parse_for`].
pub fn parse(body: &[u8]) -> Result<MediaDescription, SdpFault> {
    read(body, &|_| true, Said::Offer(SrtpPolicy::Off))
}

/// Reads a party's offer, or its answer as one that nothing is known of, and picks its first audio stream
/// that can be carried to where we are.
///
/// Work and memory are linear in the body, of which at most [`MAX_BYTES`] are read.
///
/// # Errors
/// [`SdpFault`]; where audio streams exist but none can be carried, why the first of them can't.
pub fn parse_for(body: &[u8], terms: Terms) -> Result<MediaDescription, SdpFault> {
    let reaches = |address| terms.addresses.like(address).is_some();
    read(body, &reaches, Said::Offer(terms.srtp))
}

/// As [`parse_for`], a party's answer to an offer of these lines, or of plain media if there are none. Its
/// media are protected as they were offered to be, by one of those lines (RFC 4568 §5.1.3).
///
/// # Errors
/// As [`parse_for`]; [`SdpFaultKind::NotOffered`].
pub fn parse_answer(
    body: &[u8],
    terms: Terms,
    offered: &[OfferedLine],
) -> Result<MediaDescription, SdpFault> {
    let reaches = |address| terms.addresses.like(address).is_some();
    read(body, &reaches, Said::Answer(terms.srtp, offered))
}

/// What a description is, as far as keys go.
#[derive(Clone, Copy)]
enum Said<'a> {
    Offer(SrtpPolicy),
    Answer(SrtpPolicy, &'a [OfferedLine]),
}

/// Whether we have an address of this one's family.
type Reaches<'a> = &'a dyn Fn(IpAddr) -> bool;

fn read(body: &[u8], reaches: Reaches<'_>, said: Said<'_>) -> Result<MediaDescription, SdpFault> {
    if body.len() > MAX_BYTES {
        return Err(fault(1, SdpFaultKind::TooLarge));
    }
    let mut session = Level::default();
    let mut drafts: Vec<Draft<'_>> = Vec::new();
    let mut last = 0;
    for (index, raw) in body.split(|byte| *byte == b'\n').enumerate() {
        let (line, text) = (index + 1, raw.trim_ascii_end());
        if text.is_empty() {
            continue;
        }
        let [letter, b'=', value @ ..] = text else {
            return Err(fault(line, SdpFaultKind::NotALine));
        };
        if last == 0 && (*letter != b'v' || value != b"0") {
            return Err(fault(line, SdpFaultKind::Version));
        }
        last = line;
        if *letter == b'm' {
            if drafts.len() == MAX_STREAMS {
                return Err(fault(line, SdpFaultKind::TooManyStreams));
            }
            drafts.push(Draft::open(line, value)?);
            continue;
        }
        // What is not UTF-8 is a name or a text, of which nothing is wanted.
        let Ok(value) = std::str::from_utf8(value) else {
            continue;
        };
        match drafts.last_mut() {
            Some(draft) => draft.line_below(*letter, line, value),
            None => session.line_below(*letter, line, value),
        }
    }
    if last == 0 {
        return Err(fault(1, SdpFaultKind::Version));
    }
    choose(&session, drafts, last, (reaches, said))
}

/// The first audio stream that can be carried, beside the lines of all.
fn choose(
    session: &Level,
    drafts: Vec<Draft<'_>>,
    last: usize,
    terms: (Reaches<'_>, Said<'_>),
) -> Result<MediaDescription, SdpFault> {
    let mut chosen = Err(fault(last, SdpFaultKind::NoAudio));
    let audio = drafts
        .iter()
        .enumerate()
        .filter(|(_, draft)| draft.is_audio());
    for (tried, (index, draft)) in audio.enumerate() {
        let outcome = draft.read(session, index, terms);
        if outcome.is_ok() || tried == 0 {
            chosen = outcome;
        }
        if chosen.is_ok() {
            break;
        }
    }
    let mut chosen = chosen?;
    chosen.streams = drafts.into_iter().map(|draft| draft.stream).collect();
    chosen.origin = session.origin;
    Ok(chosen)
}

/// What may stand at session level and, overriding it, at media level.
#[derive(Default)]
struct Level {
    origin: Option<(u64, u64)>,
    connection: Option<Result<IpAddr, SdpFault>>,
    direction: Option<Direction>,
    no_sender_reports: bool,
    no_receiver_reports: bool,
}

impl Level {
    fn line_below(&mut self, letter: u8, line: usize, value: &str) {
        match letter {
            b'o' => self.origin = self.origin.or_else(|| origin(value)),
            b'c' => {
                let read = connection(value).map_err(|kind| fault(line, kind));
                self.connection.get_or_insert(read);
            }
            b'b' => {
                let (kind, kbits) = value.split_once(':').unwrap_or((value, ""));
                self.no_sender_reports |= kind == "RS" && number(kbits) == Some(0_u64);
                self.no_receiver_reports |= kind == "RR" && number(kbits) == Some(0_u64);
            }
            b'a' => {
                let directions = [
                    Direction::SendRecv,
                    Direction::SendOnly,
                    Direction::RecvOnly,
                    Direction::Inactive,
                ];
                let named =
                    |it: &Direction| it.attribute().eq_ignore_ascii_case(value.trim_ascii());
                self.direction = directions.into_iter().find(named).or(self.direction);
            }
            _ => {}
        }
    }
}

/// One `m=` line and what stands below it.
struct Draft<'a> {
    line: usize,
    stream: Stream,
    port: u16,
    one_port: bool,
    formats: Vec<&'a str>,
    level: Level,
    encodings: BTreeMap<u8, &'a str>,
    parameters: BTreeMap<u8, &'a str>,
    ptime_ms: Option<u16>,
    rtcp: Rtcp,
    rtcp_mux: bool,
    crypto: Option<Crypto>,
    /// How many lines there are, those that can't be used among them.
    crypto_lines: usize,
}

/// What a stream says of RTCP (RFC 3605).
#[derive(Clone, Copy)]
enum Rtcp {
    NextPort,
    At { port: u16, address: Option<IpAddr> },
    Unreadable,
}

impl<'a> Draft<'a> {
    fn open(line: usize, value: &'a [u8]) -> Result<Self, SdpFault> {
        let malformed = || fault(line, SdpFaultKind::MediaLine);
        let value = std::str::from_utf8(value).map_err(|_| malformed())?;
        let mut words = value.split_ascii_whitespace();
        let mut word = || words.next().ok_or_else(malformed);
        let (media, ports, proto) = (word()?, word()?, word()?);
        let formats: Vec<&str> = words.by_ref().take(MAX_FORMATS).collect();
        if words.next().is_some() {
            return Err(fault(line, SdpFaultKind::TooManyFormats));
        }
        let (port, count) = ports.split_once('/').unwrap_or((ports, "1"));
        let count = number::<u32>(count).ok_or_else(malformed)?;
        let format = formats.first().ok_or_else(malformed)?;
        if ![media, proto, format].into_iter().all(is_token) {
            return Err(malformed());
        }
        Ok(Self {
            line,
            stream: Stream {
                media: media.to_ascii_lowercase(),
                proto: proto.to_owned(),
                format: (*format).to_owned(),
            },
            port: number(port).ok_or_else(malformed)?,
            one_port: count == 1,
            formats,
            level: Level::default(),
            encodings: BTreeMap::new(),
            parameters: BTreeMap::new(),
            ptime_ms: None,
            rtcp: Rtcp::NextPort,
            rtcp_mux: false,
            crypto: None,
            crypto_lines: 0,
        })
    }

    fn is_audio(&self) -> bool {
        self.stream.media == "audio"
    }

    fn line_below(&mut self, letter: u8, line: usize, value: &'a str) {
        if !self.is_audio() {
            return;
        }
        let (name, rest) = value.split_once(':').unwrap_or((value, ""));
        if letter == b'a' && value.trim_ascii().eq_ignore_ascii_case("rtcp-mux") {
            self.rtcp_mux = true;
        } else if letter != b'a' || rest.is_empty() {
            self.level.line_below(letter, line, value);
        } else if name.eq_ignore_ascii_case("rtpmap") {
            keep_first(&mut self.encodings, rest);
        } else if name.eq_ignore_ascii_case("fmtp") {
            keep_first(&mut self.parameters, rest);
        } else if name.eq_ignore_ascii_case("ptime") {
            let value = number(rest.trim_ascii()).filter(|ms| (1..=MAX_PTIME_MS).contains(ms));
            self.ptime_ms = self.ptime_ms.or(value);
        } else if name.eq_ignore_ascii_case("rtcp") {
            self.rtcp = rtcp(rest);
        } else if name.eq_ignore_ascii_case("crypto") {
            // The first one that we know is the one that the party likes best (RFC 4568 §5.1.1).
            self.crypto = self.crypto.or_else(|| Crypto::read(rest));
            self.crypto_lines += 1;
        }
    }

    /// The stream as one to be carried, without the lines of the others.
    fn read(
        &self,
        session: &Level,
        audio_index: usize,
        (reaches, said): (Reaches<'_>, Said<'_>),
    ) -> Result<MediaDescription, SdpFault> {
        let failed = |kind| fault(self.line, kind);
        if self.port == 0 {
            return Err(failed(SdpFaultKind::Refused));
        }
        if !self.one_port {
            return Err(failed(SdpFaultKind::Transport));
        }
        let srtp = self.protection(said).map_err(failed)?;
        let codecs = self.codecs()?;
        if !codecs.iter().any(|codec| codec.name.is_voice()) {
            return Err(failed(SdpFaultKind::NoCodec));
        }
        let connection = self.level.connection.or(session.connection);
        let address = connection.ok_or_else(|| failed(SdpFaultKind::NoConnection))??;
        let direction = self
            .level
            .direction
            .or(session.direction)
            .unwrap_or(Direction::SendRecv);
        let held = address.is_unspecified();
        if !held && !reaches(address) {
            return Err(failed(SdpFaultKind::AddressFamily));
        }
        Ok(MediaDescription {
            rtp: SocketAddr::new(address, self.port),
            rtcp: if held {
                None
            } else {
                self.rtcp_address(session, address)
                    .filter(|rtcp| reaches(rtcp.ip()))
            },
            rtcp_mux: self.rtcp_mux,
            srtp,
            codecs,
            ptime_ms: self.ptime_ms,
            direction: if held { direction.deaf() } else { direction },
            audio_index,
            streams: Vec::new(),
            origin: None,
        })
    }

    /// The key, of a protected stream.
    fn protection(&self, said: Said<'_>) -> Result<Option<Crypto>, SdpFaultKind> {
        let is = |proto| self.stream.proto.eq_ignore_ascii_case(proto);
        let policy = match said {
            Said::Offer(policy) | Said::Answer(policy, _) => policy,
        };
        let read = match policy {
            SrtpPolicy::Off | SrtpPolicy::Accepted if is("RTP/AVP") => None,
            SrtpPolicy::Accepted | SrtpPolicy::Required if is("RTP/SAVP") => {
                Some(self.crypto.ok_or(SdpFaultKind::NoKey)?)
            }
            SrtpPolicy::Off | SrtpPolicy::Accepted | SrtpPolicy::Required => {
                return Err(SdpFaultKind::Transport);
            }
        };
        match (said, read) {
            (Said::Offer(_), _) => Ok(read),
            (Said::Answer(_, []), None) => Ok(None),
            (Said::Answer(_, []), Some(_)) | (Said::Answer(..), None) => {
                Err(SdpFaultKind::Transport)
            }
            (Said::Answer(_, offered), Some(key)) => {
                let fits = self.crypto_lines == 1 && offered.contains(&(key.tag, key.suite));
                fits.then_some(Some(key)).ok_or(SdpFaultKind::NotOffered)
            }
        }
    }

    fn codecs(&self) -> Result<Vec<Codec>, SdpFault> {
        let mut codecs: Vec<Codec> = Vec::new();
        for format in &self.formats {
            let payload_type =
                payload_type(format).ok_or_else(|| fault(self.line, SdpFaultKind::MediaLine))?;
            let known = match self.encodings.get(&payload_type) {
                Some(encoding) => read_encoding(encoding),
                None => static_codec(payload_type),
            };
            let Some((name, clock_rate)) = known else {
                continue;
            };
            let fmtp = self.parameters.get(&payload_type).copied();
            let codec = Codec::new(name, payload_type, clock_rate, fmtp);
            let taken =
                |other: &Codec| other.is_same(&codec) || other.payload_type == codec.payload_type;
            if !codecs.iter().any(taken) {
                codecs.push(codec);
            }
        }
        Ok(codecs)
    }

    fn rtcp_address(&self, session: &Level, rtp: IpAddr) -> Option<SocketAddr> {
        let off = |level: &Level| level.no_sender_reports && level.no_receiver_reports;
        if off(&self.level) || off(session) {
            return None;
        }
        if self.rtcp_mux {
            return Some(SocketAddr::new(rtp, self.port));
        }
        match self.rtcp {
            Rtcp::NextPort => Some(SocketAddr::new(rtp, self.port.checked_add(1)?)),
            Rtcp::At { port, address } => Some(SocketAddr::new(address.unwrap_or(rtp), port)),
            Rtcp::Unreadable => None,
        }
    }
}

/// Files `<payload type> <rest>` under its payload type, unless there is one already.
fn keep_first<'a>(map: &mut BTreeMap<u8, &'a str>, value: &'a str) {
    let (number, rest) = value.split_once([' ', '\t']).unwrap_or((value, ""));
    if let Some(payload_type) = payload_type(number) {
        map.entry(payload_type).or_insert(rest.trim_ascii());
    }
}

/// Session id and version of `<username> <sess-id> <sess-version> …` (RFC 8866 §5.2).
fn origin(value: &str) -> Option<(u64, u64)> {
    let mut words = value.split_ascii_whitespace().skip(1);
    Some((number(words.next()?)?, number(words.next()?)?))
}

/// Reads `<nettype> <addrtype> <address>` (RFC 8866 §5.7).
fn connection(value: &str) -> Result<IpAddr, SdpFaultKind> {
    let mut words = value.split_ascii_whitespace();
    let (Some(network), Some(family), Some(address), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(SdpFaultKind::Connection);
    };
    if !network.eq_ignore_ascii_case("IN") {
        return Err(SdpFaultKind::Connection);
    }
    // Behind a slash stand a multicast address's scope and count.
    let address = address.split('/').next().unwrap_or_default();
    let read: Result<IpAddr, _> = if family.eq_ignore_ascii_case("IP4") {
        address.parse::<Ipv4Addr>().map(IpAddr::V4)
    } else if family.eq_ignore_ascii_case("IP6") {
        address.parse::<Ipv6Addr>().map(IpAddr::V6)
    } else {
        return Err(SdpFaultKind::Connection);
    };
    let other_family = address.parse::<IpAddr>().is_ok();
    match read.map(|address| address.to_canonical()) {
        Ok(address) if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Err(SdpFaultKind::NotUnicast)
        }
        Ok(address) => Ok(address),
        Err(_) if !other_family && is_host_name(address) => Err(SdpFaultKind::HostName),
        Err(_) => Err(SdpFaultKind::Connection),
    }
}

/// Reads `<port>` or `<port> <nettype> <addrtype> <address>` (RFC 3605 §2.1).
fn rtcp(value: &str) -> Rtcp {
    let value = value.trim_ascii();
    let (port, rest) = value.split_once([' ', '\t']).unwrap_or((value, ""));
    let Some(port) = number(port).filter(|port| *port != 0) else {
        return Rtcp::Unreadable;
    };
    if rest.trim_ascii().is_empty() {
        return Rtcp::At {
            port,
            address: None,
        };
    }
    match connection(rest) {
        Ok(address) if !address.is_unspecified() => Rtcp::At {
            port,
            address: Some(address),
        },
        Ok(_) | Err(_) => Rtcp::Unreadable,
    }
}

/// A payload type (RFC 3550 §5.1: seven bits).
fn payload_type(text: &str) -> Option<u8> {
    number(text).filter(|payload_type| *payload_type < 128)
}

/// A number in plain digits; no sign, no blank.
pub(super) fn number<T: FromStr>(text: &str) -> Option<T> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Whether a text could be a host name.
fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether a text is short and made of what media kinds, transports and formats are made of.
pub(super) fn is_token(text: &str) -> bool {
    (1..=MAX_TOKEN_BYTES).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/-_.+*".contains(&byte))
}

const fn fault(line: usize, kind: SdpFaultKind) -> SdpFault {
    SdpFault { line, kind }
}
