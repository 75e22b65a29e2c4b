//! The configuration: one TOML file over an embedded reference, overridden by the environment.
//!
//! Every fault names the file (or variable), the key and the reason.

mod auth;
mod delivery;
mod hold;
mod identity;
mod keepalive;
mod media;
mod otlp;
mod registration;
mod reports;
mod routing;
mod rtpengine;
mod tls;
mod trace;
mod trunk;

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use delivery::Delivery;
use figment::Figment;
use figment::providers::{Env, Format, Toml};
use hold::HoldSource;
use maskline_media::MediaAddresses;
use maskline_net::TlsConfig;
use maskline_rtpengine::RtpengineConfig;
use maskline_switch::config::Failover;
use maskline_switch::sdp::Transcoding;
use maskline_switch::sip::Transport;
use maskline_switch::{Route, Trunk};
use maskline_webhook::network::SourceAddresses;
use media::Media;
use serde::Deserialize;

pub(crate) use delivery::check_local;
pub(crate) use otlp::OtlpConfig;
pub(crate) use trace::TraceConfig;

/// The reference file: every key, its default, what it means.
pub(crate) const REFERENCE: &str = include_str!("../reference.toml");

const SECTIONS: [&str; 14] = [
    "http", "sip", "media", "call", "vca", "store", "egress", "delivery", "reports", "trace",
    "otlp", "drain", "log", "dns",
];

/// What is wrong with the configuration.
#[derive(Debug)]
pub(crate) struct ConfigError {
    /// File or variable.
    place: String,
    /// The key, as `[section] key`.
    key: String,
    /// What is wrong and what is expected.
    reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// The file as it is written; resolved by [`Config::load`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    http: Http,
    sip: Sip,
    media: Media,
    call: Call,
    vca: Vca,
    store: Store,
    egress: delivery::Egress,
    delivery: delivery::Section,
    reports: reports::Section,
    trace: trace::Section,
    otlp: otlp::Section,
    drain: Drain,
    log: Log,
    dns: routing::Dns,
    #[serde(default)]
    trunk: Vec<trunk::Block>,
    #[serde(default)]
    route: Vec<routing::Block>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    listen: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sip {
    listen: Vec<String>,
    public_address: String,
    t1_ms: u32,
    shards: u16,
    max_sessions: u32,
    tls: tls::Listeners,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    no_answer_seconds: u32,
    max_duration_seconds: u32,
    session_expires_seconds: u32,
    trunk_silence_ms: u32,
    trunk_failover_seconds: u32,
    adopt_within_seconds: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vca {
    timeout_ms: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    url: String,
    reserve_mib: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    deadline_seconds: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    filter: String,
}

/// One SIP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenSpec {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
    /// How it is reached from outside, when that differs from the others.
    pub(crate) public: Option<PublicAddress>,
}

/// What we write into Via and Contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicAddress {
    /// An address or a name; IPv6 in brackets.
    pub(crate) host: String,
    /// `None`: the port that is listened on.
    pub(crate) port: Option<u16>,
}

impl PublicAddress {
    /// As `sent-by` writes it, for a socket that is bound to this port.
    pub(crate) fn host_port(&self, bound: u16) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(bound))
    }
}

/// The configuration, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The file's name, for errors that show up later.
    pub(crate) place: String,
    pub(crate) http_listen: SocketAddr,
    pub(crate) sip_listen: Vec<ListenSpec>,
    pub(crate) sip_public_address: Option<PublicAddress>,
    pub(crate) t1: Duration,
    pub(crate) shards: u16,
    pub(crate) max_sessions: usize,
    pub(crate) media_addresses: MediaAddresses,
    pub(crate) media_public_addresses: MediaAddresses,
    pub(crate) media_ports: RangeInclusive<u16>,
    pub(crate) media_silence: Duration,
    pub(crate) transcoding: Transcoding,
    pub(crate) hold: HoldSource,
    /// `None`: the built-in engine carries the audio.
    pub(crate) rtpengine: Option<RtpengineConfig>,
    pub(crate) no_answer: Duration,
    pub(crate) max_duration: Duration,
    pub(crate) session_expires: Option<Duration>,
    pub(crate) failover: Failover,
    pub(crate) adopt_within: Duration,
    pub(crate) vca_timeout: Duration,
    pub(crate) store_url: String,
    pub(crate) store_reserve_bytes: u64,
    pub(crate) allow_private_targets: bool,
    pub(crate) egress_addresses: Vec<String>,
    pub(crate) egress_sources: SourceAddresses,
    pub(crate) delivery: Delivery,
    pub(crate) reports_idle: Duration,
    pub(crate) trace: TraceConfig,
    /// Where traces are exported to.
    pub(crate) otlp: Option<OtlpConfig>,
    pub(crate) drain_deadline: Duration,
    pub(crate) log_filter: String,
    pub(crate) dns_servers: Vec<SocketAddr>,
    pub(crate) trunks: Vec<Trunk>,
    pub(crate) tls: TlsConfig,
    /// What works and should not stay so.
    pub(crate) warnings: Vec<String>,
    pub(crate) routes: Vec<Route>,
}

impl Config {
    /// Reads and checks a file; without one, the defaults.
    ///
    /// # Errors
    /// The first fault, with file, key and reason.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut place = "defaults".to_owned();
        let mut figment = Figment::from(Toml::string(REFERENCE));
        if let Some(path) = path {
            place = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
                place: place.clone(),
                key: String::new(),
                reason: format!("can't be read: {error}"),
            })?;
            // A syntax error has a line and a column; figment would lose the file's name.
            figment = figment.merge(Toml::string(&text));
        }
        let environment = Env::prefixed("MASKLINE_")
            .filter(|name| {
                let name = name.as_str().to_ascii_lowercase();
                name.split_once('_')
                    .is_some_and(|(section, _)| SECTIONS.contains(&section))
            })
            .map(|name| name.as_str().replacen('_', ".", 1).into());
        let file: File = figment
            .merge(environment)
            .extract()
            .map_err(|error| explain(&place, &error))?;
        Resolver {
            place,
            warnings: RefCell::default(),
        }
        .resolve(file)
    }

    /// An error that shows up when the configuration is put to use: a port that is taken, say.
    pub(crate) fn fault(&self, key: &str, reason: impl fmt::Display) -> ConfigError {
        ConfigError {
            place: overriding(key).unwrap_or_else(|| self.place.clone()),
            key: key.to_owned(),
            reason: reason.to_string(),
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Threads for signalling: half of the cores. More threads than there is work wake each other for
/// nothing, and media, store and webhooks have theirs.
pub(crate) fn sip_threads() -> usize {
    cores().div_ceil(2)
}

/// Threads for webhooks and the API: a quarter of the cores.
pub(crate) fn web_threads() -> usize {
    cores().div_ceil(4)
}

/// The variable that sets `[section] key` instead of the file, if it is set.
fn overriding(key: &str) -> Option<String> {
    let name = key.strip_prefix('[')?.replacen("] ", "_", 1);
    let variable = format!("MASKLINE_{}", name.to_uppercase());
    std::env::var_os(&variable).map(|_| format!("environment {variable}"))
}

fn explain(place: &str, error: &figment::Error) -> ConfigError {
    let from_environment = error
        .metadata
        .as_ref()
        .is_some_and(|metadata| metadata.name.contains("environment"));
    let key = match error.path.as_slice() {
        [] => String::new(),
        [one] => format!("[{one}]"),
        [section, rest @ ..] => format!("[{section}] {}", rest.join(".")),
    };
    ConfigError {
        place: if from_environment {
            format!(
                "environment MASKLINE_{}",
                error.path.join("_").to_uppercase()
            )
        } else {
            place.to_owned()
        },
        key,
        reason: format!(
            "{} (maskline check-config --reference prints every key)",
            error.kind
        ),
    }
}

struct Resolver {
    place: String,
    warnings: RefCell<Vec<String>>,
}

impl Resolver {
    fn bad(&self, key: &str, reason: impl fmt::Display) -> ConfigError {
        ConfigError {
            place: overriding(key).unwrap_or_else(|| self.place.clone()),
            key: key.to_owned(),
            reason: reason.to_string(),
        }
    }

    fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    fn parse<T>(&self, key: &str, text: &str, expected: &str) -> Result<T, ConfigError>
    where
        T: std::str::FromStr,
    {
        text.parse()
            .map_err(|_| self.bad(key, format!("{text:?} is not {expected}")))
    }

    fn positive(&self, key: &str, value: u32) -> Result<u32, ConfigError> {
        if value == 0 {
            return Err(self.bad(key, "must be above 0"));
        }
        Ok(value)
    }

    fn seconds(&self, key: &str, value: u32) -> Result<Duration, ConfigError> {
        Ok(Duration::from_secs(u64::from(self.positive(key, value)?)))
    }

    fn millis(&self, key: &str, value: u32) -> Result<Duration, ConfigError> {
        Ok(Duration::from_millis(u64::from(self.positive(key, value)?)))
    }

    /// 0 is off; RFC 4028 §4 has no interval below 90 s.
    fn session_expires(&self, seconds: u32) -> Result<Option<Duration>, ConfigError> {
        match seconds {
            0 => Ok(None),
            90..=86_400 => Ok(Some(Duration::from_secs(u64::from(seconds)))),
            _ => Err(self.bad(
                "[call] session_expires_seconds",
                "must be 0 (off) or from 90 to 86400",
            )),
        }
    }

    fn resolve(self, file: File) -> Result<Config, ConfigError> {
        let (media_addresses, media_public_addresses) = self.media_addresses(&file.media)?;
        let media_silence = self.seconds("[media] silence_seconds", file.media.silence_seconds)?;
        let max_sessions = self.positive("[sip] max_sessions", file.sip.max_sessions)? as usize;
        let rtpengine = self.rtpengine(&file.media, media_silence, max_sessions)?;
        let sip_public_address =
            self.public_address("[sip] public_address", &file.sip.public_address)?;
        let sip_listen = self.listen(&file.sip.listen)?;
        let server = self.tls_server(file.sip.tls, &sip_listen)?;
        let host = match (&sip_public_address, sip_listen.first()) {
            (Some(public), _) => public.host.clone(),
            (None, Some(spec)) => spec.address.ip().to_string(),
            (None, None) => String::new(),
        };
        let (trunks, of_trunks) = self.trunks(file.trunk, &host)?;
        self.srtp_of_engine(&file.media, &trunks)?;
        if sip_public_address.is_none()
            && let Some(spec) = sip_listen
                .iter()
                .find(|s| s.address.ip().is_unspecified() && s.public.is_none())
        {
            return Err(self.bad(
                "[sip] public_address",
                format!(
                    "must be set, because {} listens everywhere and can't stand in Via and Contact",
                    spec.address
                ),
            ));
        }
        let (allow_private_targets, egress_addresses, egress_sources) = self.egress(file.egress)?;
        Ok(Config {
            http_listen: self.parse("[http] listen", &file.http.listen, "ADDRESS:PORT")?,
            sip_listen,
            sip_public_address,
            t1: self.millis("[sip] t1_ms", file.sip.t1_ms)?,
            shards: match file.sip.shards {
                0 => u16::try_from(sip_threads()).unwrap_or(u16::MAX),
                shards => shards,
            },
            max_sessions,
            media_addresses,
            media_public_addresses,
            media_ports: self.ports(&file.media.ports)?,
            transcoding: file.media.transcode.into(),
            hold: self.hold(&file.media.hold, rtpengine.is_some())?,
            media_silence,
            rtpengine,
            no_answer: self.seconds("[call] no_answer_seconds", file.call.no_answer_seconds)?,
            max_duration: self.seconds(
                "[call] max_duration_seconds",
                file.call.max_duration_seconds,
            )?,
            session_expires: self.session_expires(file.call.session_expires_seconds)?,
            failover: self.failover(&file.call)?,
            adopt_within: Duration::from_secs(u64::from(file.call.adopt_within_seconds)),
            vca_timeout: self.millis("[vca] timeout_ms", file.vca.timeout_ms)?,
            store_url: file.store.url,
            store_reserve_bytes: u64::from(file.store.reserve_mib) << 20,
            allow_private_targets,
            egress_addresses,
            egress_sources,
            delivery: self.delivery(&file.delivery)?,
            reports_idle: self.reports(&file.reports)?,
            trace: self.trace(&file.trace)?,
            otlp: self.otlp(file.otlp)?,
            drain_deadline: Duration::from_secs(u64::from(file.drain.deadline_seconds)),
            log_filter: file.log.filter,
            tls: self.tls(server, of_trunks, &trunks)?,
            dns_servers: self.dns_servers(&file.dns)?,
            routes: self.routes(&file.route, &trunks)?,
            trunks,
            warnings: self.warnings.into_inner(),
            place: self.place,
        })
    }

    fn public_address(&self, key: &str, text: &str) -> Result<Option<PublicAddress>, ConfigError> {
        if text.is_empty() {
            return Ok(None);
        }
        let plain = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Some(PublicAddress {
                host: plain(ip),
                port: None,
            }));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Some(PublicAddress {
                host: plain(address.ip()),
                port: Some(address.port()),
            }));
        }
        let wrong = || {
            self.bad(
                key,
                format!(
                    "{text:?} is neither an IP address nor a host name, with a port or without"
                ),
            )
        };
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let is_name = name.len() <= 253
            && name.split('.').all(|label| {
                !label.is_empty()
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            });
        if !is_name {
            return Err(wrong());
        }
        Ok(Some(PublicAddress {
            host: name.to_owned(),
            port,
        }))
    }

    fn listen(&self, texts: &[String]) -> Result<Vec<ListenSpec>, ConfigError> {
        const KEY: &str = "[sip] listen";
        if texts.is_empty() {
            return Err(self.bad(KEY, "needs at least one socket"));
        }
        texts
            .iter()
            .map(|text| {
                let (socket, public) = text.split_once(" as ").unwrap_or((text, ""));
                let (transport, address) = match socket.split_once(':') {
                    Some(("udp", address)) => (Transport::Udp, address),
                    Some(("tcp", address)) => (Transport::Tcp, address),
                    Some(("tls", address)) => (Transport::Tls, address),
                    _ => {
                        return Err(self.bad(
                            KEY,
                            format!("{text:?} is not \"udp:ADDRESS:PORT\", nor with tcp: or tls:"),
                        ));
                    }
                };
                Ok(ListenSpec {
                    transport,
                    address: self.parse(KEY, address, "ADDRESS:PORT")?,
                    public: self.public_address(KEY, public)?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()))
    }

    #[test]
    fn the_reference_file_is_the_defaults() {
        let config = Config::load(None).unwrap();
        assert_eq!(config.http_listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(config.media_ports, 20_000..=29_999);
        assert_eq!(config.transcoding, Transcoding::On);
        assert_eq!(config.hold, HoldSource::Tone);
        assert_eq!(config.t1, Duration::from_millis(500));
        assert!(config.trunks.is_empty());
    }

    #[test]
    fn every_commented_key_of_a_trunk_is_a_key() {
        let block: String = REFERENCE
            .lines()
            .skip_while(|line| *line != "# [[trunk]]")
            .map(|line| line.trim_start_matches("# ").to_owned() + "\n")
            .collect();
        let config = load(&block).unwrap();
        assert_eq!(config.trunks.len(), 1);
        assert_eq!(config.trunks[0].max_calls, 1000);
        assert_eq!(config.routes.len(), 1);
    }

    #[test]
    fn a_fault_names_file_key_and_reason() {
        for (text, key, reason) in [
            ("[http]\nlisen = \"x\"", "[http] lisen", "unknown field"),
            ("[htp]\nlisten = \"x\"", "[htp]", "unknown field"),
            ("[http]\nlisten = 5", "[http] listen", "invalid type"),
            (
                "[http]\nlisten = \"nowhere\"",
                "[http] listen",
                "is not ADDRESS:PORT",
            ),
            (
                "[sip]\nlisten = [\"5060\"]",
                "[sip] listen",
                "udp:ADDRESS:PORT",
            ),
            ("[sip]\nlisten = []", "[sip] listen", "at least one"),
            (
                "[sip]\nlisten = [\"udp:0.0.0.0:5060\"]",
                "[sip] public_address",
                "must be set",
            ),
            (
                "[sip]\npublic_address = \"a b\"",
                "[sip] public_address",
                "neither",
            ),
            ("[sip]\nt1_ms = 0", "[sip] t1_ms", "above 0"),
            (
                "[call]\nsession_expires_seconds = 89",
                "[call] session_expires_seconds",
                "from 90",
            ),
            ("[media]\nports = \"5-2\"", "[media] ports", "1024"),
            ("[media]\nports = \"x\"", "[media] ports", "FIRST-LAST"),
            ("[media]\nhold = \"music.wav\"", "[media] hold", "file:"),
            ("[media]\nhold = \"file:\"", "[media] hold", "file:"),
            (
                "[media]\naddress = \"0.0.0.0\"",
                "[media] public_address",
                "SDP",
            ),
            (
                "[egress]\naddresses = [\"x\"]",
                "[egress] addresses",
                "neither",
            ),
            (
                "[[trunk]]\nname = \"a\"\naddress = \"a b:1\"\nallow = []",
                "[[trunk]] \"a\" address",
                "a host name, with or without :PORT",
            ),
            (
                "[[trunk]]\nname = \"a\"\naddress = \"a.example:0\"\nallow = []",
                "[[trunk]] \"a\" address",
                "a host name, with or without :PORT",
            ),
            (
                "[[trunk]]\nname = \"a\"\naddress = \"a.example\"\ntransport = \"sctp\"\nallow = []",
                "[[trunk]] \"a\" transport",
                "\"auto\"",
            ),
            (
                "[[trunk]]\nname = \"a\"\naddress = \"192.0.2.1\"\nallow = []\nkeepalive.options_second = 1",
                "[trunk]",
                "options_second",
            ),
            (
                "[dns]\nservers = [\"192.0.2.1\"]",
                "[dns] servers",
                "ADDRESS:PORT",
            ),
            (
                "[[trunk]]\nname = \"a\"\naddress = \"192.0.2.1\"\nallow = []\noverflow = [\"b\"]",
                "[[trunk]] \"a\" overflow",
                "\"b\" is not the name of a trunk",
            ),
            (
                "[[trunk]]\nname = \"a\"\naddress = \"[2001:db8::1]\"\nallow = []\noverflow = [\"a\"]",
                "[[trunk]] \"a\" overflow",
                "its own",
            ),
            (
                "[[route]]\nprefix = \"65\"\ntrunk = \"a\"",
                "[[route]] \"65\" prefix",
                "+ and up to 15 digits",
            ),
            (
                "[[route]]\nprefix = \"+65\"\ntrunk = \"a\"",
                "[[route]] \"+65\" trunk",
                "is not the name of a trunk",
            ),
            (
                "[call]\ntrunk_silence_ms = 0",
                "[call] trunk_silence_ms",
                "above 0",
            ),
            (
                "[[trunk]]\nname = \"a\"\naddress = \"192.0.2.1:1\"\nallow = [\"x\"]",
                "[[trunk]] \"a\" allow",
                "network",
            ),
            (
                "[reports]\nidle_seconds = 0",
                "[reports] idle_seconds",
                "1 to 86400",
            ),
            (
                "[reports]\nidle_seconds = 86401",
                "[reports] idle_seconds",
                "1 to 86400",
            ),
            ("[trace]\nkeep_hours = 0", "[trace] keep_hours", "above 0"),
            ("[trace]\nmax_mib = 0", "[trace] max_mib", "above 0"),
            (
                "[otlp]\nendpoint = \"https://c:1\"",
                "[otlp] endpoint",
                "http://",
            ),
            (
                "[otlp]\nendpoint = \"http://c\"",
                "[otlp] endpoint",
                "HOST:PORT",
            ),
            ("[http\n", "", "expected"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.key.contains(key), "{text}: {error}");
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert!(error.place.contains("tmp"), "{text}: {error}");
        }
    }

    #[test]
    fn a_public_address_has_a_port_or_not_for_all_sockets_or_for_one() {
        let config = load(
            "[sip]\npublic_address = \"203.0.113.7\"\nlisten = [\"udp:10.0.0.5:5060\", \
             \"tcp:0.0.0.0:5060 as sip.example.com:5080\", \"udp:[::1]:5060 as [2001:db8::1]:5090\"]",
        )
        .unwrap();
        let common = config.sip_public_address.unwrap();
        assert_eq!(common.host_port(5060), "203.0.113.7:5060");
        let of = |at: usize| {
            config.sip_listen[at]
                .public
                .as_ref()
                .map(|it| it.host_port(1))
        };
        assert_eq!(of(0), None);
        assert_eq!(of(1).as_deref(), Some("sip.example.com:5080"));
        assert_eq!(of(2).as_deref(), Some("[2001:db8::1]:5090"));
        for text in ["a b", "name:port", "name:70000", "a..b"] {
            let text = format!("[sip]\npublic_address = \"{text}\"");
            let error = load(&text).unwrap_err().to_string();
            assert!(error.contains("neither an IP address"), "{error}");
        }
    }

    #[test]
    fn what_tls_needs_is_asked_for_by_key() {
        let tls = "[sip.tls]\ncertificate = \"c.pem\"\nkey = \"c.key\"\n";
        let trunk = |keys: &str| {
            format!("[[trunk]]\nname = \"a\"\naddress = \"192.0.2.1:5061\"\nallow = []\n{keys}\n")
        };
        for (text, key, reason) in [
            (
                "[sip]\nlisten = [\"tls:127.0.0.1:5061\"]".to_owned(),
                "[sip.tls] certificate",
                "must be set",
            ),
            (
                "[sip.tls]\ncertificate = \"c.pem\"".to_owned(),
                "[sip.tls] key",
                "with the certificate",
            ),
            (
                trunk("[trunk.tls]\nclient_names = [\"a.example\"]"),
                "tls.client_names",
                "needs [sip.tls] client_ca",
            ),
            (
                trunk("[trunk.tls]\nclient_names = [\"*.example\"]"),
                "tls.client_names",
                "wildcard",
            ),
            (
                trunk("[trunk.tls]\nclient_fingerprints = [\"00\"]"),
                "tls.client_fingerprints",
                "64 digits",
            ),
            (trunk("[trunk.tls]\nsips = true"), "tls.sips", "transport"),
            (
                format!(
                    "{tls}{}{}",
                    trunk("transport = \"tls\""),
                    trunk("transport = \"tls\"\n[trunk.tls]\nca = \"x\"").replace("\"a\"", "\"b\"")
                ),
                "tls.server_name, ca, certificate",
                "share",
            ),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.key.contains(key), "{text}: {error}");
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
        let config = load(&format!(
            "{tls}{}",
            trunk("[trunk.keepalive]\ncrlf_seconds = 30")
        ))
        .unwrap();
        assert_eq!(
            config.trunks[0].keepalive.crlf,
            Some(Duration::from_secs(30))
        );
        let error = config.check_certificates().unwrap_err().to_string();
        assert!(
            error.contains("[sip.tls] certificate: c.pem: can't be read"),
            "{error}"
        );
    }
}
