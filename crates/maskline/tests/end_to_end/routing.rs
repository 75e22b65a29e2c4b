//! How calls leave: which trunk, which of its addresses, and what follows when one does not take
//! the call. Each row runs over UDP and TCP, some over TLS, except where it is about one of them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UdpSocket};

use crate::support::client;
use crate::support::expect::{check_rules, fits, summed_up, told};
use crate::support::ports::Ports;
use crate::support::sipp::{Sipp, Transport};
use crate::support::site::{
    CALLEE, CALLEE_ADDRESS, CALLER_ADDRESS, FROM, OTHER_ADDRESS, Options, Site,
};
use crate::support::tunnel::Tunnel;

/// What the first way to B does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// Nothing listens there: an ICMP error over UDP, a refused connection over TCP.
    Nobody,
    /// It takes what comes and says nothing.
    Silent,
    /// It refuses with this status line, by this scenario.
    Refuses(&'static str, &'static str),
}

/// A row: the ways out, and what must come of it.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The `[[trunk]]` and `[[route]]` blocks.
    ways: fn(&Ports, Transport) -> String,
    /// The virtual number's trunk.
    number_trunk: Option<&'static str>,
    first: First,
    /// Whether the phone at the second way answers; otherwise nobody is there.
    second_answers: bool,
    told: &'static [&'static str],
    summary: &'static str,
    hears: u16,
}

const ANSWERED: Row = Row {
    ways: two_trunks,
    number_trunk: Some("first"),
    first: First::Nobody,
    second_answers: true,
    told: &[
        "A received",
        "B initiated",
        "B ringing",
        "B connected",
        "A connected",
        "A disconnected 200",
        "B disconnected 200",
    ],
    summary: "COMPLETED A=COMPLETED B=COMPLETED",
    hears: 200,
};

fn trunk(name: &str, address: &str, transport: Transport, more: &str) -> String {
    let tls = match transport {
        Transport::Udp | Transport::Tcp => "",
        Transport::Tls => "tls.server_name = \"phone.example\"\ntls.ca = \"ca.pem\"",
    };
    let transport = transport.name();
    format!(
        "[[trunk]]\nname = \"{name}\"\naddress = \"{address}\"\ntransport = \"{transport}\"\n\
         allow = [\"{CALLER_ADDRESS}\", \"{CALLEE_ADDRESS}\", \"{OTHER_ADDRESS}\"]\n{tls}\n{more}\n"
    )
}

fn first_address(ports: &Ports, transport: Transport) -> String {
    let port = match transport {
        Transport::Udp | Transport::Tcp => ports.callee_sip(),
        Transport::Tls => ports.callee_tunnel(),
    };
    format!("{OTHER_ADDRESS}:{port}")
}

fn second_address(ports: &Ports, _: Transport) -> String {
    format!("{CALLEE_ADDRESS}:{}", ports.callee_sip())
}

/// The first trunk's calls may overflow to the second.
fn two_trunks(ports: &Ports, transport: Transport) -> String {
    let overflow = "overflow = [\"second\"]";
    trunk(
        "first",
        &first_address(ports, transport),
        transport,
        overflow,
    ) + &trunk("second", &second_address(ports, transport), transport, "")
}

fn route(prefix: &str, trunk: &str, priority: u16) -> String {
    format!("[[route]]\nprefix = \"{prefix}\"\ntrunk = \"{trunk}\"\npriority = {priority}\n")
}

/// Routes by prefix and priority: the callee's is that of the second trunk.
fn by_prefix(ports: &Ports, transport: Transport) -> String {
    trunk("first", &first_address(ports, transport), transport, "")
        + &trunk("second", &second_address(ports, transport), transport, "")
        + &route("+", "first", 1)
        + &route("+6598", "second", 9)
        + &route("+44", "first", 1)
}

/// Both trunks by the same prefix, one after the other.
fn by_priority(ports: &Ports, transport: Transport) -> String {
    trunk("first", &first_address(ports, transport), transport, "")
        + &trunk("second", &second_address(ports, transport), transport, "")
        + &route("+65", "second", 2)
        + &route("+65", "first", 1)
}

/// A number's own trunk is not the first one, and a route leads elsewhere.
fn own_trunk(ports: &Ports, transport: Transport) -> String {
    by_priority(ports, transport)
}

macro_rules! row {
    ($name:ident on $($transport:ident),+ : $row:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "not every row needs everything")]
            use super::*;
            $(row!(@one $transport, $row);)+
        }
    };
    ($name:ident : $row:expr) => { row!($name on udp, tcp: $row); };
    (@one udp, $row:expr) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn over_udp() {
            run(module_path!(), $row, Transport::Udp).await;
        }
    };
    (@one tcp, $row:expr) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn over_tcp() {
            run(module_path!(), $row, Transport::Tcp).await;
        }
    };
    (@one tls, $row:expr) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn over_tls() {
            run(module_path!(), $row, Transport::Tls).await;
        }
    };
}

row!(a_503_leads_to_the_next_trunk on udp, tcp, tls: Row {
    first: First::Refuses("503 Service Unavailable", "callee_refuses"),
    ..ANSWERED
});

row!(a_408_leads_to_the_next_trunk: Row {
    first: First::Refuses("408 Request Timeout", "callee_refuses"),
    ..ANSWERED
});

row!(silence_leads_to_the_next_trunk on udp, tcp, tls: Row { first: First::Silent, ..ANSWERED });

row!(a_trunk_that_is_not_there_leads_to_the_next on udp, tcp, tls: ANSWERED);

row!(a_callee_that_rang_is_not_called_again: Row {
    first: First::Refuses("503 Service Unavailable", "callee_rings_and_refuses"),
    second_answers: false,
    told: &["A received", "B initiated", "B ringing", "B disconnected 503", "A disconnected 480"],
    summary: "FAILED A=COMPLETED B=FAILED",
    hears: 480,
    ..ANSWERED
});

row!(busy_is_an_answer: Row {
    first: First::Refuses("486 Busy Here", "callee_refuses"),
    second_answers: false,
    told: &["A received", "B initiated", "B disconnected 486", "A disconnected 486"],
    summary: "BUSY A=COMPLETED B=BUSY",
    hears: 486,
    ..ANSWERED
});

row!(the_last_trunk_decides: Row {
    first: First::Refuses("503 Service Unavailable", "callee_refuses"),
    second_answers: false,
    told: &["A received", "B initiated", "B disconnected 408 -2002", "A disconnected 500 -2002"],
    summary: "ERROR A=COMPLETED B=ERROR -2002",
    hears: 500,
    ..ANSWERED
});

row!(the_longest_prefix_chooses_the_trunk: Row {
    ways: by_prefix,
    number_trunk: None,
    ..ANSWERED
});

row!(a_lower_priority_is_tried_first: Row {
    ways: by_priority,
    number_trunk: None,
    first: First::Refuses("503 Service Unavailable", "callee_refuses"),
    ..ANSWERED
});

row!(a_number_leaves_by_its_own_trunk_alone: Row {
    ways: own_trunk,
    number_trunk: Some("second"),
    ..ANSWERED
});

/// Runs a row from an empty folder to the end of the switch.
async fn run(module: &str, row: Row, transport: Transport) {
    let mut options = Options::new(transport);
    options.ways = Some(row.ways);
    options.number_trunk = row.number_trunk;
    options.trunk_silence = Duration::from_millis(1_000);
    let name = module.rsplit("::").next().unwrap_or(module);
    let site = Site::open(&format!("{name}-{}", transport.name()), options).await;
    let first_at: SocketAddr = first_address(&site.ports, transport).parse().unwrap();
    let silent = match row.first {
        First::Silent => Some(be_silent(first_at, transport).await),
        First::Nobody | First::Refuses(..) => None,
    };
    let mut tunnel = None;
    let first = match row.first {
        First::Refuses(status, scenario) => {
            if transport == Transport::Tls {
                let phone = SocketAddr::new(first_at.ip(), site.ports.callee_sip());
                let pair = site.folder.join("phone");
                tunnel = Some(Tunnel::out_of_tls(first_at, phone, &pair).await);
            }
            let fill = [("STATUS", status), ("HEADER", "Allow: INVITE")];
            let mut run = site.callee_run(scenario);
            run.address = OTHER_ADDRESS;
            run.fill = &fill;
            Some(site.phone(run).await)
        }
        First::Nobody | First::Silent => None,
    };
    let second = if row.second_answers {
        Some(site.phone(site.callee_run("callee_answers")).await)
    } else {
        None
    };
    call(site, row.told, row.summary, row.hears, [first, second]).await;
    drop(tunnel);
    if let Some(silent) = silent {
        silent.abort();
    }
}

/// A calls; what is told of it, and what its phones say.
async fn call(
    mut site: Site,
    expected: &[&str],
    summary: &str,
    hears: u16,
    callees: [Option<Sipp>; 2],
) {
    let scenario = if hears == 200 {
        "caller_hangs_up"
    } else {
        "caller_refused"
    };
    let refused = hears.to_string();
    let fill = [("FINAL", refused.as_str())];
    let mut caller = site.caller_run(scenario, FROM);
    caller.fill = &fill;
    let caller = site.phone(caller).await.finish().await;
    let mut complaints = vec![caller.complaint.clone()];
    for callee in callees.into_iter().flatten() {
        complaints.push(callee.finish().await.complaint);
    }
    let summed = summed_up(&site.receiver.summary().await);
    let switch = site.switch.take().unwrap();
    let log = switch.log();
    let ended = switch.drain().await;
    let received = site.receiver.received();
    let story = told(&received);
    assert!(
        fits(&story, expected) && complaints.iter().all(String::is_empty),
        "told {story:#?}\nexpected {expected:#?}\ncomplaints: {complaints:#?}\nsee {}\n{log}",
        site.folder.display(),
    );
    assert!(ended.success(), "the switch ended with {ended}\n{log}");
    check_rules(&received, CALLEE);
    assert_eq!((summed.as_str(), caller.heard()), (summary, Some(hears)));
}

/// Something that takes what is sent to it, and says nothing.
async fn be_silent(address: SocketAddr, transport: Transport) -> tokio::task::JoinHandle<()> {
    match transport {
        Transport::Udp => {
            let socket = UdpSocket::bind(address).await.unwrap();
            tokio::spawn(async move { while socket.recv(&mut [0; 2048]).await.is_ok() {} })
        }
        Transport::Tcp | Transport::Tls => {
            let listener = TcpListener::bind(address).await.unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                while stream.read(&mut [0; 2048]).await.is_ok_and(|read| read > 0) {}
            })
        }
    }
}

/// What `/metrics` says of the addresses of trunks: 1 for those that are up.
async fn targets(site: &Site) -> Vec<String> {
    let answer = client::request(site.ports.http(), "GET", "/metrics", "", None).await;
    let text = answer.map(|answer| answer.body).unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with("maskline_trunk_target_up{"))
        .map(str::to_owned)
        .collect()
}

async fn wait_for_targets(site: &Site, what: &str, fits: impl Fn(&[String]) -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let targets = targets(site).await;
        if fits(&targets) {
            return;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "{what}: {targets:#?}\n{}",
            site.switch.as_ref().unwrap().log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Debian's `dnsmasq`, answering for `carrier.test` alone: SRV records for UDP and TCP that name a
/// dead host first, and NAPTR records that name one of them.
struct NameServer(Child);

impl NameServer {
    async fn start(folder: &Path, ports: &Ports, transport: Transport) -> Self {
        let (dns, sip) = (ports.dns(), ports.callee_sip());
        let service = match transport {
            Transport::Udp => ("SIP+D2U", "_sip._udp.carrier.test"),
            Transport::Tcp => ("SIP+D2T", "_sip._tcp.carrier.test"),
            Transport::Tls => ("SIPS+D2T", "_sips._tcp.carrier.test"),
        };
        let process = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
            ])
            .args([
                "--no-hosts",
                "--bind-interfaces",
                "--listen-address=127.0.0.1",
            ])
            .arg(format!("--port={dns}"))
            .arg(format!(
                "--pid-file={}",
                folder.join("dnsmasq.pid").display()
            ))
            .args(["--log-facility=-", "--local=/test/", "--local-ttl=60"])
            .arg(format!(
                "--srv-host={},alive.carrier.test,{sip},20,0",
                service.1
            ))
            .arg(format!(
                "--srv-host={},dead.carrier.test,{sip},10,0",
                service.1
            ))
            .arg(format!("--host-record=dead.carrier.test,{OTHER_ADDRESS}"))
            .arg(format!("--host-record=alive.carrier.test,{CALLEE_ADDRESS}"))
            .arg(format!(
                "--naptr-record=carrier.test,10,10,S,{},,{}",
                service.0, service.1
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("dnsmasq.log")).unwrap())
            .spawn()
            .expect("dnsmasq starts; scripts/setup installs it");
        Self(process)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn by_name(ports: &Ports, _: Transport) -> String {
    format!(
        "[dns]\nservers = [\"127.0.0.1:{}\"]\n\
         [[trunk]]\nname = \"first\"\naddress = \"carrier.test\"\nallow = [\"{CALLER_ADDRESS}\"]\n",
        ports.dns()
    )
}

async fn srv(transport: Transport) {
    let mut options = Options::new(transport);
    options.ways = Some(by_name);
    options.number_trunk = Some("first");
    options.trunk_silence = Duration::from_millis(1_000);
    let name = format!("a_dead_srv_target-{}", transport.name());
    let site = Site::open(&name, options).await;
    // It starts behind the switch, which has to ask again.
    let _dns = NameServer::start(&site.folder, &site.ports, transport).await;
    wait_for_targets(&site, "both SRV targets are found", |found| {
        found.len() == 2 && found.iter().all(|it| it.contains(transport.name()))
    })
    .await;
    let second = site.phone(site.callee_run("callee_answers")).await;
    call(
        site,
        ANSWERED.told,
        ANSWERED.summary,
        200,
        [None, Some(second)],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_passes_over_a_dead_srv_target_that_naptr_names_by_udp() {
    srv(Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_passes_over_a_dead_srv_target_that_naptr_names_by_tcp() {
    srv(Transport::Tcp).await;
}

fn by_name_and_kept_alive(ports: &Ports, transport: Transport) -> String {
    by_name(ports, transport) + "keepalive.crlf_seconds = 1\n"
}

async fn kept_alive(transport: Transport) -> (Site, NameServer) {
    let mut options = Options::new(transport);
    options.ways = Some(by_name_and_kept_alive);
    options.number_trunk = Some("first");
    let site = Site::open(&format!("kept-alive-{}", transport.name()), options).await;
    let dns = NameServer::start(&site.folder, &site.ports, transport).await;
    (site, dns)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_addresses_of_a_trunks_name_are_pinged_by_udp() {
    let (site, _dns) = kept_alive(Transport::Udp).await;
    for address in [first_address, second_address] {
        let socket = UdpSocket::bind(address(&site.ports, Transport::Udp)).await;
        let mut heard = [0; 100];
        let heard_of = socket.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(20), heard_of.recv(&mut heard)).await;
        let read = read.expect("a ping arrives").unwrap();
        assert_eq!(heard[..read], *b"\r\n\r\n");
    }
    assert!(site.switch.unwrap().drain().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_connection_to_a_trunks_name_is_pinged() {
    let (site, _dns) = kept_alive(Transport::Tcp).await;
    wait_for_targets(&site, "both SRV targets are found", |found| {
        found.len() == 2
    })
    .await;
    let carrier = TcpListener::bind(second_address(&site.ports, Transport::Tcp)).await;
    let _caller = site.phone(site.caller_run("caller_hangs_up", FROM)).await;
    let pinged = async {
        let (mut stream, _) = carrier.unwrap().accept().await.unwrap();
        let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
        // The INVITE ends with the one line break of its description.
        while !heard.ends_with(b"\r\n\r\n") || !heard.starts_with(b"INVITE ") {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "it stays open");
            heard.extend_from_slice(&buffer[..read]);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), pinged)
        .await
        .expect("a ping arrives");
}

fn supervised(ports: &Ports, transport: Transport) -> String {
    let keepalive = "overflow = [\"second\"]\nkeepalive.options_seconds = 1";
    trunk(
        "first",
        &first_address(ports, transport),
        transport,
        keepalive,
    ) + &trunk("second", &second_address(ports, transport), transport, "")
}

/// Answers every OPTIONS with 200.
async fn answer_options(address: SocketAddr) -> tokio::task::JoinHandle<()> {
    let socket = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if !request.starts_with("OPTIONS ") {
                continue;
            }
            let kept = request.lines().filter(|line| {
                ["Via:", "From:", "To:", "Call-ID:", "CSeq:"]
                    .iter()
                    .any(|name| line.starts_with(name))
            });
            let head: Vec<&str> = kept.collect();
            let answer = format!(
                "SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n",
                head.join("\r\n")
            );
            socket.send_to(answer.as_bytes(), from).await.unwrap();
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_answers_no_options_is_down_and_tried_last_until_it_answers() {
    let mut options = Options::new(Transport::Udp);
    options.ways = Some(supervised);
    options.number_trunk = Some("first");
    // Longer than the test: a call that went to the dead address first would not be answered.
    options.trunk_silence = Duration::from_secs(30);
    let site = Site::open("supervised-udp", options).await;
    let first_at: SocketAddr = first_address(&site.ports, Transport::Udp).parse().unwrap();
    let state = |up: u8| {
        let first = format!("target=\"udp:{first_at}\"}} {up}");
        move |found: &[String]| found.iter().any(|line| line.contains(&first))
    };
    let answering = answer_options(first_at).await;
    wait_for_targets(&site, "it is up", state(1)).await;
    answering.abort();
    let _gone = answering.await;
    wait_for_targets(&site, "it is down", state(0)).await;
    let answering = answer_options(first_at).await;
    wait_for_targets(&site, "it is up again", state(1)).await;
    answering.abort();
    let _gone = answering.await;
    wait_for_targets(&site, "it is down again", state(0)).await;
    let second = site.phone(site.callee_run("callee_answers")).await;
    call(
        site,
        ANSWERED.told,
        ANSWERED.summary,
        200,
        [None, Some(second)],
    )
    .await;
}
