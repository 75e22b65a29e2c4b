//! One test's whole world: the customer's server, the switch with a sub-account and a virtual
//! number, and where the two phones are.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use maskline_events::WebhookType;
use serde_json::{Value, json};

use super::certificates::Authority;
use super::client;
use super::ports::Ports;
use super::receiver::{Receiver, Secrets, Vca};
use super::sipp::{Run, Sipp, Transport};
use super::switch::{ADMIN_KEY, Switch};
use super::tunnel::Tunnel;

/// The number that both parties see.
pub const VIRTUAL: &str = "+6531580001";
/// A's number.
pub const CALLER: &str = "+6591110001";
/// B's number.
pub const CALLEE: &str = "+6598887777";
/// A's From header.
pub const FROM: &str = "\"Alice\" <sip:+6591110001@127.0.0.2>";
/// The virtual number's reference.
pub const REFERENCE: &str = "line-1";
/// The sub-account.
pub const SUB_ACCOUNT: &str = "marketplace";

/// Where the trunk's caller is.
pub const CALLER_ADDRESS: &str = "127.0.0.2";
/// Where the trunk's callee is.
pub const CALLEE_ADDRESS: &str = "127.0.0.3";
/// Where another carrier is.
pub const OTHER_ADDRESS: &str = "127.0.0.5";
/// Outside of every trunk's allow-list.
pub const STRANGER_ADDRESS: &str = "127.0.0.4";
pub const SWITCH_ADDRESS: &str = "127.0.0.1";

/// What differs from test to test.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the VCA endpoint behaves.
    pub vca: Vca,
    /// How SIP travels on both sides.
    pub transport: Transport,
    /// The no-answer timer.
    pub no_answer: Duration,
    /// The maximum duration of a call.
    pub max_duration: Duration,
    /// More tables of the trunk, as TOML.
    pub trunk_tables: &'static str,
    /// Changes the configuration before the switch reads it; files go into the folder.
    pub edit: fn(&Ports, &Path, String) -> String,
    /// Trunks, routes and what else is of them, in place of the one trunk.
    pub ways: Option<fn(&Ports, Transport) -> String>,
    /// The virtual number's trunk.
    pub number_trunk: Option<&'static str>,
    /// The virtual number's policy for early media.
    pub early_media: Option<&'static str>,
    /// After how long a silent trunk is given up.
    pub trunk_silence: Duration,
    /// How long the switch may be gone for calls to go on.
    pub adopt_within: Duration,
}

impl Options {
    /// VCA answers with `makeCall` to B, and no timer gets in the way.
    pub fn new(transport: Transport) -> Self {
        Self {
            vca: Vca::Callflow(make_call(VIRTUAL, CALLEE)),
            transport,
            no_answer: Duration::from_secs(20),
            max_duration: Duration::from_secs(60),
            trunk_tables: "",
            edit: |_, _, configuration| configuration,
            ways: None,
            number_trunk: Some("carrier"),
            early_media: None,
            trunk_silence: Duration::from_secs(4),
            // Long enough for the slowest start.
            adopt_within: Duration::from_secs(60),
        }
    }
}

/// The callflow that connects the caller to a number.
pub fn make_call(source: &str, destination: &str) -> Value {
    let params = json!({ "source": source, "destination": destination });
    json!({ "callflow": [{ "action": "makeCall", "params": params }] })
}

/// Everything running.
#[derive(Debug)]
pub struct Site {
    /// The customer's server.
    pub receiver: Receiver,
    /// The switch, unless it was killed.
    pub switch: Option<Switch>,
    /// The test's ports.
    pub ports: Ports,
    /// Signing secrets by webhook.
    pub secrets: Secrets,
    /// Logs, traces and the database; kept after the test.
    pub folder: PathBuf,
    transport: Transport,
    /// Of SIPp over TLS.
    _tunnels: Vec<Tunnel>,
    number_trunk: Option<&'static str>,
    early_media: Option<&'static str>,
}

impl Site {
    /// Starts all of it. `name` names the folder.
    pub async fn open(name: &str, options: Options) -> Self {
        let ports = Ports::take();
        let transport = options.transport;
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name.replace("::", "-"));
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        let mut text = configuration(&ports, &options);
        let mut tunnels = Vec::new();
        if transport == Transport::Tls {
            (text, tunnels) = within_tls(&ports, &folder, &text).await;
        }
        let text = (options.edit)(&ports, &folder, text);
        fs::write(folder.join("maskline.toml"), text).unwrap();
        let receiver = Receiver::start(options.vca, ports.nobody()).await;
        let switch = Switch::start(&folder, ports.http()).await;
        let mut site = Self {
            receiver,
            switch: Some(switch),
            ports,
            secrets: Secrets::new(),
            folder,
            transport,
            _tunnels: tunnels,
            number_trunk: options.number_trunk,
            early_media: options.early_media,
        };
        site.provision().await;
        site
    }

    /// Starts the switch again, on the same store.
    pub async fn restart(&mut self) {
        assert!(self.switch.is_none(), "the switch still runs");
        self.switch = Some(Switch::start(&self.folder, self.ports.http()).await);
    }

    /// One request to the API.
    pub async fn call_api(
        &self,
        method: &str,
        path: &str,
        key: &str,
        body: Option<&Value>,
    ) -> client::Answer {
        let path = format!("/api/v1/{path}");
        let answer = client::request(self.ports.http(), method, &path, key, body).await;
        answer.expect("the API answers")
    }

    async fn provision(&mut self) {
        let body = json!({ "subAccountId": SUB_ACCOUNT, "countries": ["SG"] });
        self.call_api("POST", "admin/subaccounts", ADMIN_KEY, Some(&body))
            .await
            .json();
        let of_account = format!("admin/subaccounts/{SUB_ACCOUNT}");
        let trunk = self.number_trunk;
        let mut body = json!({ "msisdn": VIRTUAL, "referenceId": REFERENCE, "trunk": trunk });
        if let Some(policy) = self.early_media {
            body["earlyMedia"] = json!(policy);
        }
        self.call_api(
            "POST",
            &format!("{of_account}/numbers"),
            ADMIN_KEY,
            Some(&body),
        )
        .await
        .json();
        let path = format!("{of_account}/keys");
        let answer = self.call_api("POST", &path, ADMIN_KEY, None).await.json();
        let key = answer["apiKey"].as_str().unwrap();
        let path = format!("subaccounts/{SUB_ACCOUNT}/webhooks");
        for webhook in [WebhookType::Vca, WebhookType::Vcs, WebhookType::Vss] {
            let body = json!({ "type": webhook, "url": self.receiver.url(webhook) });
            let answer = self.call_api("POST", &path, key, Some(&body)).await.json();
            let entries = answer["webhooks"].as_array().unwrap();
            let entry = entries
                .iter()
                .find(|entry| entry["type"] == json!(webhook))
                .unwrap();
            let secret = entry["signingSecret"]
                .as_str()
                .expect("a new webhook shows its secret");
            self.secrets.insert(webhook, secret.to_owned());
        }
    }

    /// What A's phone runs: a call to the virtual number.
    pub fn caller_run<'a>(&self, scenario: &'a str, from: &'a str) -> Run<'a> {
        Run {
            scenario,
            towards: Some(match self.transport {
                Transport::Udp | Transport::Tcp => format!("{SWITCH_ADDRESS}:{}", self.ports.sip()),
                Transport::Tls => format!("{CALLER_ADDRESS}:{}", self.ports.caller_tunnel()),
            }),
            address: CALLER_ADDRESS,
            port: self.ports.caller_sip(),
            media: self.ports.caller_media(),
            transport: self.transport,
            number: VIRTUAL,
            from,
            pause: Duration::from_millis(300),
            loss: 0,
            call_id: "%u-%p@%s",
            fill: &[],
        }
    }

    /// What B's phone runs: it waits for a call.
    pub fn callee_run<'a>(&self, scenario: &'a str) -> Run<'a> {
        Run {
            towards: None,
            address: CALLEE_ADDRESS,
            port: self.ports.callee_sip(),
            media: self.ports.callee_media(),
            ..self.caller_run(scenario, "")
        }
    }

    /// Starts a SIPp in the test's folder.
    pub async fn phone(&self, run: Run<'_>) -> Sipp {
        Sipp::start(&self.folder, run).await
    }

    /// B's SIP address.
    pub fn callee_sip(&self) -> SocketAddr {
        let address: Ipv4Addr = CALLEE_ADDRESS.parse().unwrap();
        SocketAddr::new(IpAddr::V4(address), self.ports.callee_sip())
    }
}

/// The configuration with TLS on both sides, its certificates, and the tunnels of both phones.
async fn within_tls(ports: &Ports, folder: &Path, configuration: &str) -> (String, Vec<Tunnel>) {
    let authority = Authority::new(folder, "ca");
    authority.sign(folder, "switch", "switch.example");
    authority.sign(folder, "phone", "phone.example");
    let (tls, callee) = (ports.tls(), ports.callee_tunnel());
    let configuration = configuration
        .replace(
            "listen = [\"udp:",
            &format!("listen = [\"tls:{SWITCH_ADDRESS}:{tls}\", \"udp:"),
        )
        .replace(
            "\n[media]\n",
            "\n[sip.tls]\ncertificate = \"switch.pem\"\nkey = \"switch.key\"\n\n[media]\n",
        )
        .replace(
            &format!("address = \"{CALLEE_ADDRESS}:{}\"", ports.callee_sip()),
            &format!("address = \"{CALLEE_ADDRESS}:{callee}\""),
        );
    // A test that writes its own trunks says so of each.
    let of_trunk = if configuration.contains("tls.server_name") {
        ""
    } else {
        "\n[trunk.tls]\nserver_name = \"phone.example\"\nca = \"ca.pem\"\n"
    };
    let configuration = configuration + of_trunk;
    let address = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    let tunnels = vec![
        Tunnel::into_tls(
            address(CALLER_ADDRESS, ports.caller_tunnel()),
            address(SWITCH_ADDRESS, tls),
            "switch.example",
            &folder.join("ca.pem"),
        )
        .await,
        Tunnel::out_of_tls(
            address(CALLEE_ADDRESS, callee),
            address(CALLEE_ADDRESS, ports.callee_sip()),
            &folder.join("phone"),
        )
        .await,
    ];
    (configuration, tunnels)
}

fn configuration(ports: &Ports, options: &Options) -> String {
    let (http, sip, media) = (ports.http(), ports.sip(), ports.media());
    let callee_sip = ports.callee_sip();
    let (no_answer, max) = (options.no_answer.as_secs(), options.max_duration.as_secs());
    let adopt_within = options.adopt_within.as_secs();
    let transport = options.transport.name();
    let trunk_tables = options.trunk_tables;
    let silence = options.trunk_silence.as_millis();
    let ways = match options.ways {
        Some(ways) => ways(ports, options.transport),
        None => format!(
            r#"
[[trunk]]
name = "carrier"
address = "{CALLEE_ADDRESS}:{callee_sip}"
transport = "{transport}"
allow = ["{CALLER_ADDRESS}/32", "{CALLEE_ADDRESS}/32"]
{trunk_tables}
"#
        ),
    };
    format!(
        r#"
[http]
listen = "{SWITCH_ADDRESS}:{http}"

[sip]
listen = ["udp:{SWITCH_ADDRESS}:{sip}", "tcp:{SWITCH_ADDRESS}:{sip}"]
t1_ms = 50

[media]
address = "{SWITCH_ADDRESS}"
ports = "{media}"

[store]
url = "sqlite:maskline.db"

[egress]
allow_private_targets = true

[call]
no_answer_seconds = {no_answer}
max_duration_seconds = {max}
trunk_silence_ms = {silence}
adopt_within_seconds = {adopt_within}

[vca]
timeout_ms = 1000

{ways}
"#
    )
}
