//! Trunks with digest credentials: SIPp knows the password of its trunk or doesn't, and asks for ours.

use maskline_switch::OutboundAuth;
use maskline_switch::credentials::Answers;
use maskline_switch::sip::digest::{Algorithm, Given, Ha1, Protected};
use maskline_switch::sip::{Message as SipMessage, Peer, Transport as SipTransport, wire};

use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::raw::Raw;
use crate::support::sipp::{Message, Transport};
use crate::support::site::{CALLEE, CALLER_ADDRESS, FROM, Options, Site};
use crate::support::steps::{Says, Steps};

/// Callers must know "secret". SIPp answers MD5 only, and only where nothing else stands beside it.
const ASKS: &str = "[trunk.auth]\ninbound_username = \"carrier\"\n\
    inbound_realm = \"sip.acme.example\"\ninbound_ha1_md5 = \"403f1ad4a83e72a255679cc80055d319\"";
/// As the first; both algorithms are offered, and the realm is our host.
const ASKS_BY_PASSWORD: &str =
    "[trunk.auth]\ninbound_username = \"carrier\"\ninbound_password = \"secret\"";
/// We know the password of B's trunk.
const KNOWS: &str = "[trunk.auth]\nusername = \"acme\"\npassword = \"ours\"";

const CONNECTED: [&str; 7] = [
    "A received",
    "B initiated",
    "?B ringing",
    "B connected",
    "A connected",
    "A disconnected 200",
    "B disconnected 200",
];

fn options(transport: Transport, trunk: &'static str) -> Options {
    Options {
        trunk_tables: trunk,
        ..Options::new(transport)
    }
}

fn name(test: &str, transport: Transport) -> String {
    format!("auth-{test}-{}", transport.name())
}

async fn completed(site: &Site) {
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "COMPLETED A=COMPLETED B=COMPLETED");
    let received = site.receiver.received();
    check_rules(&received, CALLEE);
    let story = told(&received);
    assert!(fits(&story, &CONNECTED), "{story:#?}");
}

async fn knows_the_password(transport: Transport) {
    let site = Site::open(&name("knows", transport), options(transport, ASKS)).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let mut run = site.caller_run("caller_authenticates", FROM);
    run.fill = &[("PASSWORD", "secret")];
    let caller = site.phone(run).await.finish().await;
    assert_eq!(caller.complaint, "");
    let callee = callee.finish().await;
    assert_eq!(callee.complaint, "");
    // What A proved is between us and A.
    for message in &callee.messages {
        for word in ["Authorization", "carrier", "sip.acme.example", "Digest"] {
            assert!(!message.text.contains(word), "{word} in {}", message.text);
        }
    }
    completed(&site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_knows_the_password_gets_through_over_udp() {
    knows_the_password(Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_knows_the_password_gets_through_over_tcp() {
    knows_the_password(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_guesses_is_refused_and_nobody_is_told_of_it() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let site = Site::open(&name("guesses", transport), options(transport, ASKS)).await;
        let mut run = site.caller_run("caller_guesses", FROM);
        run.fill = &[("PASSWORD", "guess")];
        let caller = site.phone(run).await.finish().await;
        assert_eq!(caller.complaint, "");
        let asked = caller.messages.iter().filter(|it| it.status() == Some(401));
        assert_eq!(asked.count(), 2);
        assert!(site.receiver.received().is_empty());
    }
}

/// What a client makes of a refused request: its values of `Authorization` by SHA-256.
fn answer(challenge: &str) -> String {
    let peer = Peer {
        listener: 0,
        transport: SipTransport::Udp,
        addr: "127.0.0.1:5060".parse().unwrap(),
    };
    let message = wire::read_datagram(challenge.as_bytes(), peer).unwrap();
    let SipMessage::Response(response) = message else {
        panic!("{challenge}");
    };
    let outbound = OutboundAuth {
        username: "carrier".to_owned(),
        password: maskline_switch::Password::new("secret".to_owned()),
        realm: Some("127.0.0.1".to_owned()),
    };
    let mut answers = Answers::default();
    answers.take(&outbound, &response, 0).unwrap();
    let protected = Protected {
        method: "INVITE",
        uri: "sip:+6531580001@127.0.0.1",
        body: b"",
    };
    let (_, value) = answers.headers(&outbound, &protected, "c").remove(0);
    assert!(value.contains("algorithm=SHA-256"), "{value}");
    value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captured_credentials_open_no_door_and_a_restart_asks_anew() {
    let options = options(Transport::Udp, ASKS_BY_PASSWORD);
    let mut site = Site::open("auth-replay", options).await;
    let raw = Raw::open(CALLER_ADDRESS, site.ports.sip()).await;
    // An INVITE without an offer is refused with a status of its own, once it is let in.
    let invite = |call: &str, branch: &str, line: &str| {
        let lines = format!("{line}Content-Type: text/plain\r\n");
        let request = raw.request("INVITE", call, &lines, "x");
        request.replace(&format!("z9hG4bK-{call}"), &format!("z9hG4bK-{branch}"))
    };
    let (status, challenge) = raw.status_of(&invite("one", "1", "")).await;
    assert_eq!(status, Some(401), "{challenge}");
    assert_eq!(challenge.matches("WWW-Authenticate").count(), 2);
    let sha256 = challenge.find("SHA-256").unwrap();
    assert!(sha256 < challenge.find("MD5").unwrap(), "{challenge}");

    let authorization = format!("Authorization: {}\r\n", answer(&challenge));
    let (status, refusal) = raw.status_of(&invite("one", "2", &authorization)).await;
    assert_eq!(status, Some(415), "the door opens: {refusal}");
    for (call, branch) in [("one", "3"), ("two", "4")] {
        let (status, refusal) = raw.status_of(&invite(call, branch, &authorization)).await;
        assert_eq!(status, Some(401), "{refusal}");
        assert!(refusal.contains("stale=true"), "{refusal}");
    }

    site.switch.take().unwrap().kill();
    site.restart().await;
    let (status, stale) = raw.status_of(&invite("one", "5", &authorization)).await;
    assert_eq!(status, Some(401), "{stale}");
    assert!(stale.contains("stale=true"), "{stale}");
    let authorization = format!("Authorization: {}\r\n", answer(&stale));
    let (status, refusal) = raw.status_of(&invite("one", "6", &authorization)).await;
    assert_eq!(status, Some(415), "{refusal}");
}

/// The challenge that B's SIPp sends.
fn challenge(status: u16, algorithm: &str, nonce: &str) -> String {
    let name = if status == 407 { "Proxy" } else { "WWW" };
    format!(
        "{name}-Authenticate: Digest realm=\"b.example\", nonce=\"{nonce}\", \
         algorithm={algorithm}, qop=\"auth,auth-int\", opaque=\"keep me\""
    )
}

/// Whether a request proves our password for this nonce, so many times used.
fn proves(message: &Message, nonce: &str, count: u32) -> bool {
    let peer = Peer {
        listener: 0,
        transport: SipTransport::Udp,
        addr: "127.0.0.1:5060".parse().unwrap(),
    };
    let text = message.text.replace("\r\n", "\n").replace('\n', "\r\n");
    let SipMessage::Request(request) = wire::read_datagram(text.as_bytes(), peer).unwrap() else {
        panic!("{text}");
    };
    let method = message.first_line().split(' ').next().unwrap();
    let proxy = text.contains("Proxy-Authorization");
    assert!(text.contains("opaque=\"keep me\""), "{text}");
    let given = Given::read_all(&request.headers, proxy);
    assert_eq!(given.len(), 1, "{text}");
    let given = &given[0];
    let ha1 = Ha1::new(given.algorithm, "acme", "b.example", "ours");
    given.nonce == nonce && given.count == count && given.proves(&ha1, method)
}

async fn is_asked(transport: Transport, status: u16, algorithm: Algorithm, again_by_bye: bool) {
    let test = format!("asked-{status}-{}", algorithm.as_str());
    let site = Site::open(&name(&test, transport), options(transport, KNOWS)).await;
    let scenario = if again_by_bye {
        "callee_asks_twice"
    } else {
        "callee_asks"
    };
    let (first, second) = (
        challenge(status, algorithm.as_str(), "n1"),
        challenge(status, algorithm.as_str(), "n2"),
    );
    let mut run = site.callee_run(scenario);
    let status = status.to_string();
    let fill = [
        ("STATUS", status.as_str()),
        ("CHALLENGE", first.as_str()),
        ("CHALLENGE_OF_BYE", second.as_str()),
    ];
    run.fill = &fill;
    let callee = site.phone(run).await;
    let caller = site.phone(site.caller_run("caller_hangs_up", FROM)).await;
    assert_eq!(caller.finish().await.complaint, "");
    let callee = callee.finish().await;
    assert_eq!(callee.complaint, "");
    completed(&site).await;

    let of = |method: &str| -> Vec<&Message> {
        let requests = callee.messages.iter();
        let requests = requests.filter(|it| it.received && it.first_line().starts_with(method));
        requests.collect()
    };
    // Repeated INVITEs of a slow machine stand between the two.
    let invites = of("INVITE");
    let (asked, proven) = (invites[0], invites[invites.len() - 1]);
    assert!(!asked.text.contains("uthorization"));
    assert!(proves(proven, "n1", 1), "{}", proven.text);
    for kept in ["Call-ID", "From"] {
        assert_eq!(asked.header(kept), proven.header(kept));
    }
    assert_ne!(asked.header("Via"), proven.header("Via"));
    assert_eq!(proven.header("CSeq"), Some("2 INVITE"));
    // The ACK of the 200 carries what its INVITE carried (RFC 3261 §22.1).
    let acks = of("ACK");
    assert!(acks[acks.len() - 1].text.contains("uthorization"));
    let byes = of("BYE");
    assert!(proves(byes[0], "n1", 2), "{}", byes[0].text);
    if again_by_bye {
        let last = byes[byes.len() - 1];
        assert!(proves(last, "n2", 1), "{}", last.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_asks_by_401_is_answered_over_udp() {
    is_asked(Transport::Udp, 401, Algorithm::Md5, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_asks_by_407_is_answered_over_tcp() {
    is_asked(Transport::Tcp, 407, Algorithm::Sha256, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_asks_again_at_the_bye_is_answered_again() {
    is_asked(Transport::Udp, 407, Algorithm::Md5, true).await;
}

async fn is_asked_at_a_change(transport: Transport) {
    let site = Site::open(&name("change", transport), options(transport, KNOWS)).await;
    let held = |direction| Some(Says::as_version(2, direction));
    let a = Steps::default()
        .calls(Some(Says::FIRST), "")
        .acks(1, None)
        .asks("INVITE", 2, held("sendonly"))
        .hears(200)
        .acks(2, None)
        .asks("BYE", 3, None)
        .hears(200);
    let b = Steps::default()
        .answers_call(Says::FIRST, "")
        .gets("INVITE")
        .refuses(
            "407 Proxy Authentication Required",
            &challenge(407, "SHA-256", "n1"),
        )
        .gets("ACK")
        .gets("INVITE")
        .answers("200 OK", held("recvonly"))
        .gets("ACK")
        .gets("BYE")
        .answers("200 OK", None);
    let fill = [("STEPS", b.text())];
    let mut run = site.callee_run("callee_steps");
    run.fill = &fill;
    let callee = site.phone(run).await;
    let fill = [("STEPS", a.text())];
    let mut run = site.caller_run("caller_steps", FROM);
    run.fill = &fill;
    let caller = site.phone(run).await.finish().await;
    assert_eq!(caller.complaint, "");
    let callee = callee.finish().await;
    assert_eq!(callee.complaint, "");
    let summary = site.receiver.summary().await;
    assert_eq!(summed_up(&summary), "COMPLETED A=COMPLETED B=COMPLETED");
    let story = told(&site.receiver.received());
    assert!(story.contains(&"A held".to_owned()), "{story:#?}");

    let of = |method: &str, cseq: &str| {
        let mut requests = callee.messages.iter().filter(|it| {
            it.received && it.first_line().starts_with(method) && it.header("CSeq") == Some(cseq)
        });
        requests.next().expect("it came").clone()
    };
    let (asked, proven) = (of("INVITE", "2 INVITE"), of("INVITE", "3 INVITE"));
    assert!(!asked.text.contains("uthorization"));
    assert!(proves(&proven, "n1", 1), "{}", proven.text);
    assert_ne!(asked.header("Via"), proven.header("Via"));
    // The ACK of the refusal is its transaction's; that of the 200 proves what its INVITE proved.
    assert_eq!(of("ACK", "2 ACK").header("Via"), asked.header("Via"));
    let (ack, name) = (of("ACK", "3 ACK"), "Proxy-Authorization");
    assert_eq!(ack.header(name), proven.header(name));
    assert!(proves(&of("BYE", "4 BYE"), "n1", 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_callee_asks_for_is_proven_over_udp() {
    is_asked_at_a_change(Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_callee_asks_for_is_proven_over_tcp() {
    is_asked_at_a_change(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_we_cannot_convince_ends_the_call_as_failed() {
    for (trunk, scenario) in [("", "callee_asks_once"), (KNOWS, "callee_asks_in_vain")] {
        let site = Site::open(&format!("auth-{scenario}"), options(Transport::Udp, trunk)).await;
        let challenge = challenge(401, "MD5", "n1");
        let mut run = site.callee_run(scenario);
        let fill = [("STATUS", "401"), ("CHALLENGE", challenge.as_str())];
        run.fill = &fill;
        let callee = site.phone(run).await;
        let mut run = site.caller_run("caller_refused", FROM);
        run.fill = &[("FINAL", "480")];
        let caller = site.phone(run).await.finish().await;
        assert_eq!(caller.complaint, "");
        assert_eq!(callee.finish().await.complaint, "");
        let summary = site.receiver.summary().await;
        assert_eq!(summed_up(&summary), "FAILED A=COMPLETED B=FAILED");
        let story = told(&site.receiver.received());
        let expected = [
            "A received",
            "B initiated",
            "B disconnected 401",
            "A disconnected 480",
        ];
        assert!(fits(&story, &expected), "{story:#?}");
    }
}
