//! The egress guard as a table: a URL, what DNS says at each time it is asked, and which addresses
//! are connected to. The client is the real one; DNS and the far ends of connections are made up.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use maskline_store::Endpoint;
use maskline_webhook::client::{Answer, EgressClient, Post, Target};
use maskline_webhook::network::{Later, Network};
use maskline_webhook::{EgressPolicy, Refused, SendError, UrlFault};
use support::{Receiver, Reply};
use tokio::net::TcpStream;
use uuid::Uuid;

use Expected::{NotConnected, NotUrl, OnlyRefused, Reached, Unresolved};

const DEADLINE: Duration = Duration::from_secs(5);

/// Answers DNS from a list, and leads every connection to one receiver.
#[derive(Debug)]
struct World {
    /// One for each time it is asked; the last one stays.
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
    connected: Mutex<Vec<SocketAddr>>,
    /// Addresses at which nothing listens.
    dead: Vec<IpAddr>,
    receiver: SocketAddr,
}

impl World {
    fn new(answers: &[&[&str]], dead: &[&str], receiver: &Receiver) -> Arc<Self> {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let port = receiver.url.split([':', '/']).nth(4).unwrap();
        Arc::new(Self {
            answers: Mutex::new(answers.iter().map(|texts| read(texts)).collect()),
            asked: Mutex::default(),
            connected: Mutex::default(),
            dead: read(dead),
            receiver: format!("127.0.0.1:{port}").parse().unwrap(),
        })
    }

    fn connected(&self) -> Vec<String> {
        let connected = self.connected.lock().unwrap();
        connected.iter().map(SocketAddr::to_string).collect()
    }
}

impl Network for World {
    fn resolve(&self, name: String) -> Later<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(name);
        let mut answers = self.answers.lock().unwrap();
        let answer = match answers.len() {
            0 => Err(io::Error::other("no such name")),
            1 => Ok(answers[0].clone()),
            _ => Ok(answers.pop_front().unwrap()),
        };
        Box::pin(std::future::ready(answer))
    }

    fn connect(&self, to: SocketAddr) -> Later<TcpStream> {
        self.connected.lock().unwrap().push(to);
        if self.dead.contains(&to.ip()) {
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            return Box::pin(std::future::ready(Err(refused)));
        }
        Box::pin(TcpStream::connect(self.receiver))
    }
}

async fn send(client: &EgressClient, url: &str) -> Result<Answer, SendError> {
    let endpoint = Endpoint {
        url: url.to_owned(),
        signing_secrets: vec![vec![1; 32]],
        ..Endpoint::default()
    };
    let post = Post {
        event_id: Uuid::from_u128(7),
        body: Bytes::from_static(b"{}"),
        gap: false,
        unix_seconds: 1_767_694_639,
    };
    let target = Target::new(endpoint, client.policy())?;
    client.post(&target, post, 100, DEADLINE).await
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    /// Through this connection, the last of those that were tried.
    Reached(&'static [&'static str]),
    /// The URL itself is none.
    NotUrl(UrlFault),
    /// The name has refused addresses only.
    OnlyRefused,
    Unresolved,
    /// Tried in vain.
    NotConnected(&'static [&'static str]),
}

const fn literal(refused: Refused) -> Expected {
    NotUrl(UrlFault::Address(refused))
}

type Row = (&'static str, &'static [&'static [&'static str]], Expected);

/// What a URL says by itself. DNS would lead to a public address, if it were asked.
const URLS: &[(&str, Expected)] = &[
    ("http://8.8.8.8/hook", Reached(&["8.8.8.8:80"])),
    ("http://8.8.8.8:8080/hook", Reached(&["8.8.8.8:8080"])),
    ("http://134744072/hook", Reached(&["8.8.8.8:80"])),
    ("http://0x08080808/hook", Reached(&["8.8.8.8:80"])),
    ("http://010.010.010.010/hook", Reached(&["8.8.8.8:80"])),
    ("http://8.526344/hook", Reached(&["8.8.8.8:80"])),
    (
        "http://[2606:4700::6810:85e5]/x",
        Reached(&["[2606:4700::6810:85e5]:80"]),
    ),
    (
        "http://[::ffff:8.8.8.8]/hook",
        Reached(&["[::ffff:8.8.8.8]:80"]),
    ),
    ("http://hooks.example.com/x", Reached(&["8.8.4.4:80"])),
    ("http://HOOKS.example.com./x", Reached(&["8.8.4.4:80"])),
    ("http://127.0.0.1/", literal(Refused::Loopback)),
    ("http://127.255.0.3:9/", literal(Refused::Loopback)),
    ("http://2130706433/", literal(Refused::Loopback)),
    ("http://0x7f000001/", literal(Refused::Loopback)),
    ("http://017700000001/", literal(Refused::Loopback)),
    ("http://0x7f.1/", literal(Refused::Loopback)),
    ("http://127.1/", literal(Refused::Loopback)),
    ("http://127.0.0.1./", literal(Refused::Loopback)),
    ("http://localhost/", literal(Refused::Loopback)),
    ("http://hooks.localhost./", literal(Refused::Loopback)),
    ("http://0/", literal(Refused::Unspecified)),
    ("http://0.0.0.0:8080/", literal(Refused::Unspecified)),
    ("http://10.0.0.1/", literal(Refused::Private)),
    ("http://167772161/", literal(Refused::Private)),
    ("http://172.16.9.9/", literal(Refused::Private)),
    ("http://192.168.0.1/", literal(Refused::Private)),
    ("http://0xc0a80001/", literal(Refused::Private)),
    ("http://100.64.0.1/", literal(Refused::Private)),
    ("http://169.254.169.254/", literal(Refused::LinkLocal)),
    ("http://2852039166/", literal(Refused::LinkLocal)),
    ("http://0xa9fea9fe/", literal(Refused::LinkLocal)),
    ("http://0251.0376.0251.0376/", literal(Refused::LinkLocal)),
    ("http://224.0.0.1/", literal(Refused::Multicast)),
    ("http://255.255.255.255/", literal(Refused::Multicast)),
    ("http://192.0.2.1/", literal(Refused::Reserved)),
    ("http://198.18.0.1/", literal(Refused::Reserved)),
    ("http://240.0.0.1/", literal(Refused::Reserved)),
    ("http://[::1]/", literal(Refused::Loopback)),
    ("http://[0:0:0:0:0:0:0:1]/", literal(Refused::Loopback)),
    ("http://[::]/", literal(Refused::Unspecified)),
    ("http://[::ffff:127.0.0.1]/", literal(Refused::Loopback)),
    ("http://[::ffff:a9fe:a9fe]/", literal(Refused::LinkLocal)),
    ("http://[::ffff:0:10.0.0.1]/", literal(Refused::Private)),
    ("http://[64:ff9b::a00:1]/", literal(Refused::Private)),
    ("http://[64:ff9b:1::a00:1]/", literal(Refused::Reserved)),
    ("http://[2002:7f00:1::]/", literal(Refused::Loopback)),
    ("http://[2001:0:7f00:1::]/", literal(Refused::Reserved)),
    ("http://[fc00::1]/", literal(Refused::Private)),
    ("http://[fd00:ec2::254]/", literal(Refused::Private)),
    ("http://[fe80::1]/", literal(Refused::LinkLocal)),
    ("http://[ff02::1]/", literal(Refused::Multicast)),
    ("http://[2001:db8::1]/", literal(Refused::Reserved)),
    ("http://a@hooks.example.com/", NotUrl(UrlFault::UserInfo)),
    ("http://hooks.example.com/#a", NotUrl(UrlFault::Fragment)),
    ("gopher://hooks.example.com:70/", NotUrl(UrlFault::Scheme)),
    (
        "http://hooks.example.com\\@10.0.0.1/",
        NotUrl(UrlFault::Malformed),
    ),
    ("http://hooks.example.com:0/", NotUrl(UrlFault::Port)),
    ("http://256.0.0.1/", NotUrl(UrlFault::Host)),
    ("http://1.2.3.4.5/", NotUrl(UrlFault::Host)),
];

/// What DNS says of one name.
const NAMES: &[Row] = &[
    ("one", &[&["8.8.8.8"]], Reached(&["8.8.8.8:80"])),
    (
        "one-v6",
        &[&["2606:4700::1"]],
        Reached(&["[2606:4700::1]:80"]),
    ),
    ("nothing", &[], Unresolved),
    ("an-empty-answer", &[&[]], Unresolved),
    ("loopback", &[&["127.0.0.1"]], OnlyRefused),
    ("loopback-v6", &[&["::1"]], OnlyRefused),
    ("unspecified", &[&["0.0.0.0"]], OnlyRefused),
    ("unspecified-v6", &[&["::"]], OnlyRefused),
    ("private", &[&["192.168.1.1"]], OnlyRefused),
    ("metadata", &[&["169.254.169.254"]], OnlyRefused),
    ("metadata-v6", &[&["fd00:ec2::254"]], OnlyRefused),
    ("mapped", &[&["::ffff:10.0.0.1"]], OnlyRefused),
    ("translated", &[&["64:ff9b::7f00:1"]], OnlyRefused),
    ("carrier-grade", &[&["100.127.0.1"]], OnlyRefused),
    ("multicast", &[&["239.1.1.1"]], OnlyRefused),
    (
        "all-refused",
        &[&["10.0.0.1", "::1", "169.254.1.1"]],
        OnlyRefused,
    ),
    (
        "refused-among-allowed",
        &[&["10.0.0.1", "8.8.8.8", "::1"]],
        Reached(&["8.8.8.8:80"]),
    ),
    (
        "the-first-is-dead",
        &[&["9.9.9.9", "8.8.8.8"]],
        Reached(&["9.9.9.9:80", "8.8.8.8:80"]),
    ),
    (
        "the-dead-one-does-not-open-the-refused-one",
        &[&["9.9.9.9", "127.0.0.1"]],
        NotConnected(&["9.9.9.9:80"]),
    ),
    (
        "rebound-after-the-check",
        &[&["8.8.8.8"], &["127.0.0.1"]],
        Reached(&["8.8.8.8:80"]),
    ),
    (
        "rebound-while-the-first-is-dead",
        &[&["9.9.9.9"], &["127.0.0.1"]],
        NotConnected(&["9.9.9.9:80"]),
    ),
    (
        "too-many",
        &[&[
            "9.9.9.9", "9.9.9.9", "9.9.9.9", "9.9.9.9", "9.9.9.9", "9.9.9.9", "9.9.9.9", "9.9.9.9",
            "8.8.8.8",
        ]],
        NotConnected(&[
            "9.9.9.9:80",
            "9.9.9.9:80",
            "9.9.9.9:80",
            "9.9.9.9:80",
            "9.9.9.9:80",
            "9.9.9.9:80",
            "9.9.9.9:80",
            "9.9.9.9:80",
        ]),
    ),
];

async fn check(url: &str, answers: &[&[&str]], expected: Expected) {
    let receiver = Receiver::start(|_, _| Reply::Status(204)).await;
    let world = World::new(answers, &["9.9.9.9"], &receiver);
    let client = EgressClient::over(world.clone(), EgressPolicy::default(), &[]).unwrap();
    let result = send(&client, url).await;
    let (fits, connected): (bool, &[&str]) = match (expected, &result) {
        (Reached(tried), Ok(answer)) => (answer.status == 204, tried),
        (NotUrl(fault), Err(SendError::Url(found))) => (*found == fault, &[]),
        (OnlyRefused, Err(SendError::Refused(_))) => (true, &[]),
        (Unresolved, Err(SendError::Connect(_))) => (true, &[]),
        (NotConnected(tried), Err(SendError::Connect(_))) => (true, tried),
        _ => (false, &[]),
    };
    assert!(fits, "{url}: {expected:?}, and it was {result:?}");
    assert_eq!(world.connected(), connected, "{url}");
    assert!(world.asked.lock().unwrap().len() <= 1, "{url}: asked once");
}

#[tokio::test]
async fn only_public_addresses_are_connected_to_however_a_url_is_written() {
    for (url, expected) in URLS {
        check(url, &[&["8.8.4.4"]], *expected).await;
    }
}

#[tokio::test]
async fn only_public_addresses_are_connected_to_whatever_dns_says() {
    assert!(URLS.len() + NAMES.len() >= 80);
    for (name, answers, expected) in NAMES {
        check(&format!("http://{name}.example.com/"), answers, *expected).await;
    }
}

#[tokio::test]
async fn a_name_that_moves_between_two_requests_is_checked_at_the_next_connection() {
    // The first answer ends its connection, so that the second request needs a new one.
    let receiver = Receiver::start(|_, _| Reply::CutOff).await;
    let world = World::new(&[&["8.8.8.8"], &["127.0.0.1"]], &[], &receiver);
    let client = EgressClient::over(world.clone(), EgressPolicy::default(), &[]).unwrap();
    let first = send(&client, "http://moves.example.com/").await;
    assert!(matches!(first, Err(SendError::CutOff)), "{first:?}");
    let second = send(&client, "http://moves.example.com/").await;
    assert!(matches!(second, Err(SendError::Refused(_))), "{second:?}");
    assert_eq!(world.connected(), ["8.8.8.8:80"]);
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_an_answer() {
    let to = "http://169.254.169.254/latest/meta-data".to_owned();
    let receiver = Receiver::start(move |_, _| Reply::Header(302, "location", to.clone())).await;
    let world = World::new(&[&["8.8.8.8"]], &[], &receiver);
    let client = EgressClient::over(world.clone(), EgressPolicy::default(), &[]).unwrap();
    let answer = send(&client, "http://hooks.example.com/").await.unwrap();
    assert_eq!(answer.status, 302);
    assert_eq!(world.connected(), ["8.8.8.8:80"]);
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_not_asked() {
    // The variables that programs obey; set for a process of its own.
    if std::env::var_os("http_proxy").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_proxy_of_the_environment_is_not_asked"])
            .env("http_proxy", "http://127.0.0.1:1")
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("ALL_PROXY", "http://127.0.0.1:1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    check(
        "http://hooks.example.com/",
        &[&["8.8.8.8"]],
        Reached(&["8.8.8.8:80"]),
    )
    .await;
}
