//! The words of the `ng` protocol that are used here: JSON dictionaries behind a cookie, one per
//! datagram. Anything else in an answer is passed over.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest answer that is read, in bytes: what a UDP datagram holds.
pub(crate) const MAX_DATAGRAM_BYTES: usize = 65_535;

/// The tag of the caller's side.
pub(crate) const CALLER: &str = "caller";
/// The tag of the callee's side.
pub(crate) const CALLEE: &str = "callee";

/// What is asked of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Whether it is there.
    Ping {},
    /// What the caller described.
    Offer(Exchange),
    /// What the callee described.
    Answer(Exchange),
    /// How a call goes.
    Query(Named),
    /// That a key is to be played, as if this party had pressed it: as a telephone-event if the other
    /// one knows those, else as a tone.
    #[serde(rename = "play DTMF")]
    Play {
        /// The call.
        #[serde(flatten)]
        named: Named,
        /// Who pressed it.
        #[serde(rename = "from-tag")]
        from_tag: &'static str,
        /// The key.
        code: char,
        /// Milliseconds, 100 at least.
        duration: u32,
    },
    /// That a party hears a file of the daemon's machine, again and again.
    #[serde(rename = "play media")]
    PlayFile {
        /// The call.
        #[serde(flatten)]
        named: Named,
        /// Who hears it.
        #[serde(rename = "from-tag")]
        from_tag: &'static str,
        /// Its path there.
        file: String,
        /// How often.
        #[serde(rename = "repeat-times")]
        repeat_times: u32,
    },
    /// That a party hears no file any more.
    #[serde(rename = "stop media")]
    StopFile {
        /// The call.
        #[serde(flatten)]
        named: Named,
        /// Who heard it.
        #[serde(rename = "from-tag")]
        from_tag: &'static str,
    },
    /// Which calls it has.
    List {
        /// So many of them at most.
        limit: u32,
    },
    /// That a call is over, and its ports free at once.
    Delete {
        /// The call.
        #[serde(flatten)]
        named: Named,
        /// In seconds; the daemon's default is 30.
        #[serde(rename = "delete delay")]
        delay: u32,
    },
}

/// A call by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Named {
    /// The call's name at the daemon.
    pub(crate) call_id: String,
}

/// One half of an offer/answer exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Exchange {
    pub(crate) call_id: String,
    pub(crate) from_tag: &'static str,
    pub(crate) to_tag: &'static str,
    pub(crate) sdp: String,
    pub(crate) flags: Vec<&'static str>,
    #[serde(rename = "ICE")]
    pub(crate) ice: &'static str,
    #[serde(rename = "DTLS")]
    pub(crate) dtls: &'static str,
    pub(crate) replace: [&'static str; 2],
    pub(crate) rtcp_mux: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) codec: Option<CodecChange>,
}

/// Codecs that one side knows and the other does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CodecChange {
    /// Kept from the other side.
    pub(crate) mask: Vec<String>,
    /// Offered to it instead.
    pub(crate) transcode: Vec<String>,
}

/// What an instance says. Only its words are read strictly: a figure of another kind than expected is none.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Response {
    pub(crate) result: String,
    #[serde(rename = "error-reason")]
    pub(crate) reason: Option<String>,
    /// That a call which was to be deleted was not there.
    pub(crate) warning: Option<String>,
    pub(crate) sdp: Option<String>,
    /// Names of calls.
    #[serde(default)]
    pub(crate) calls: Vec<String>,
    #[serde(default)]
    tags: Value,
    /// By the SSRC of a party, in decimal: what it reported of what it hears.
    #[serde(default, rename = "SSRC")]
    reported: Value,
}

/// The RTP port of the daemon towards one side, and what came in by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) ssrc: Option<u64>,
    pub(crate) local_port: Option<u64>,
    pub(crate) packets: u64,
    /// Their bytes, with headers.
    pub(crate) bytes: u64,
}

/// What a party reported, over all of its reports that could be scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reported {
    /// Tenths.
    pub(crate) mos: f64,
    /// Milliseconds.
    pub(crate) jitter: f64,
    /// Per cent.
    pub(crate) loss: f64,
}

impl Reported {
    /// 0.0-1.0.
    pub(crate) const fn loss_rate(&self) -> f64 {
        (self.loss / 100.0).clamp(0.0, 1.0)
    }

    /// 1.0-4.5.
    pub(crate) const fn score(&self) -> f64 {
        (self.mos / 10.0).clamp(1.0, 4.5)
    }
}

/// A key press, as it is logged to a UDP socket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Press {
    pub(crate) callid: String,
    pub(crate) source_tag: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) event: u8,
}

impl Request {
    /// The datagram.
    pub(crate) fn write(&self, cookie: &str) -> Result<Vec<u8>, serde_json::Error> {
        let mut datagram = format!("{cookie} ").into_bytes();
        serde_json::to_writer(&mut datagram, self)?;
        Ok(datagram)
    }
}

impl Response {
    /// An answer's cookie and the rest of it.
    pub(crate) fn split(datagram: &[u8]) -> Option<(&str, &[u8])> {
        let space = datagram.iter().position(|byte| *byte == b' ')?;
        let (cookie, rest) = datagram.split_at(space);
        Some((std::str::from_utf8(cookie).ok()?, rest.get(1..)?))
    }

    pub(crate) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// Whether it did what it was asked.
    pub(crate) fn is_ok(&self) -> bool {
        matches!(self.result.as_str(), "ok" | "pong")
    }

    /// The RTP stream of one side.
    pub(crate) fn stream(&self, tag: &str) -> Option<Stream> {
        let stream = self.streams(tag).next()?;
        Some(Stream {
            ssrc: stream.get("SSRC").and_then(Value::as_u64),
            local_port: stream.get("local port").and_then(Value::as_u64),
            packets: packets(stream),
            bytes: stat(stream, "bytes"),
        })
    }

    /// Packets of RTP and of RTCP that came from one side.
    pub(crate) fn packets_of(&self, tag: &str) -> u64 {
        self.streams(tag).map(packets).fold(0, u64::saturating_add)
    }

    /// What the party that sends by this SSRC reported.
    pub(crate) fn reported_by(&self, ssrc: u64) -> Option<Reported> {
        let average = self.reported.get(ssrc.to_string())?.get("average MOS")?;
        let figure = |name| average.get(name).and_then(Value::as_f64);
        let scored = average.get("samples")?.as_u64()? > 0;
        scored.then_some(Reported {
            mos: figure("MOS")?,
            jitter: figure("jitter")?,
            loss: figure("packet loss")?,
        })
    }

    /// Those of RTP and of RTCP of each medium.
    fn streams(&self, tag: &str) -> impl Iterator<Item = &Value> {
        let side = self.tags.get(tag);
        list(side, "medias").flat_map(|medium| list(Some(medium), "streams"))
    }
}

fn list<'a>(of: Option<&'a Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    let list = of.and_then(|of| of.get(name)).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn packets(stream: &Value) -> u64 {
    stat(stream, "packets")
}

fn stat(stream: &Value, name: &str) -> u64 {
    let stat = stream.get("stats").and_then(|stats| stats.get(name));
    stat.and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_is_a_cookie_and_a_dictionary() {
        let request = Request::Delete {
            named: Named {
                call_id: "x".to_owned(),
            },
            delay: 0,
        };
        let written = request.write("c1").unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            r#"c1 {"command":"delete","call-id":"x","delete delay":0}"#
        );
        assert_eq!(
            Request::Ping {}.write("c").unwrap(),
            br#"c {"command":"ping"}"#
        );
    }

    #[test]
    fn an_answer_is_read_by_what_is_known_of_it() {
        let datagram = br#"c7 {"result":"ok","created":1,"tags":{"caller":{"medias":[{"type":"audio","streams":[
            {"SSRC":7,"local port":30100,"stats":{"packets":12,"bytes":1,"errors":0}},
            {"local port":30101,"stats":{"packets":2,"bytes":1,"errors":0}}]}]}},
            "SSRC":{"7":{"average MOS":{"MOS":41,"jitter":3,"packet loss":2,"round-trip time":9,"samples":4}}}}"#;
        let (cookie, body) = Response::split(datagram).unwrap();
        assert_eq!(cookie, "c7");
        let response = Response::read(body).unwrap();
        assert!(response.is_ok());
        assert_eq!(response.stream(CALLER).unwrap().ssrc, Some(7));
        assert_eq!(response.packets_of(CALLER), 14);
        assert_eq!(response.packets_of(CALLEE), 0);
        assert!(response.stream(CALLEE).is_none());
        let reported = response.reported_by(7).unwrap();
        assert!((reported.mos - 41.0).abs() < 1e-9);
        assert_eq!(response.reported_by(8), None);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert!(Response::split(b"nospace").is_none());
        assert!(Response::split(b"\xff\xff {}").is_none());
        let deep = "[".repeat(MAX_DATAGRAM_BYTES);
        assert!(Response::read(deep.as_bytes()).is_err());
        assert!(Response::read(br#"{"result":7}"#).is_err());
    }

    #[test]
    fn figures_of_another_kind_are_none_and_spoil_nothing() {
        for tags in [
            "null",
            "7",
            r#"{"caller":{"medias":7}}"#,
            r#"{"caller":{"medias":[{"streams":{}}]}}"#,
            r#"{"caller":{"medias":[{"streams":[{"SSRC":-1,"local port":"x","stats":{"packets":1.5}}]}]}}"#,
        ] {
            let text = format!(
                r#"{{"result":"ok","tags":{tags},"SSRC":{{"7":{{"average MOS":{{"MOS":null,"samples":1}}}}}}}}"#
            );
            let response = Response::read(text.as_bytes()).unwrap();
            assert!(response.is_ok());
            assert_eq!(response.packets_of(CALLER), 0, "{tags}");
            assert_eq!(response.stream(CALLER).and_then(|it| it.ssrc), None);
            assert_eq!(response.reported_by(7), None);
        }
    }
}
