//! What is told of a call's audio is what the network did to it. The calls are made in a network
//! namespace of their own, whose packet filter drops or repeats what it is told to and counts that.
//! Delay and disorder are made by the sender, which notes when each packet left: not every kernel
//! has `netem`.
//!
//! Where namespaces are refused, these tests fail and say how to leave them out.

use std::process::Command;
use std::time::{Duration, Instant};

use maskline_events::WebhookType;
use tokio::net::UdpSocket;

use crate::support::media::{A, B, Media, Packet, told_to_send};
use crate::support::sipp::{Run, Sipp, Transport};
use crate::support::site::{CALLEE_ADDRESS, CALLER_ADDRESS, FROM, Options, Site};
use crate::support::steps::{Says, Steps};
use crate::support::switch::ADMIN_KEY;

const INSIDE: &str = "MASKLINE_TEST_NETWORK";
const LEAVE_OUT: &str = "MASKLINE_WITHOUT_NAMESPACES";
const PACKETS: u16 = 600;
const APART: Duration = Duration::from_millis(2);

/// Runs a test in a network of its own: this program is started again, for that test alone, in a new
/// namespace, and there it does what it is about.
fn in_a_network_of_its_own(test: &str, body: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        runtime.unwrap().block_on(body);
        return;
    }
    if std::env::var_os(LEAVE_OUT).is_some() {
        eprintln!("NOT RUN: {test} needs a network namespace, and {LEAVE_OUT} is set");
        return;
    }
    let root = run("id", &["-u"]) == "0\n";
    let namespace = if root { "--net" } else { "-rn" };
    let allowed = Command::new("unshare").args([namespace, "true"]).status();
    assert!(
        allowed.is_ok_and(|status| status.success()),
        "no network namespace may be made here. Run as root, or allow user namespaces, or set {LEAVE_OUT}=1 to go without this test"
    );
    let inner = Command::new("unshare")
        .arg(namespace)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "own")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inner.stdout);
    assert!(
        inner.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&inner.stderr)
    );
}

#[test]
fn the_loss_that_is_reported_is_what_the_network_lost_and_the_score_falls_with_it() {
    in_a_network_of_its_own(
        "impaired::the_loss_that_is_reported_is_what_the_network_lost_and_the_score_falls_with_it",
        loss(),
    );
}

#[test]
fn jitter_disorder_and_repetition_are_told_as_they_were_made_and_are_no_loss() {
    in_a_network_of_its_own(
        "impaired::jitter_disorder_and_repetition_are_told_as_they_were_made_and_are_no_loss",
        jitter(),
    );
}

fn run(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output();
    let done =
        done.unwrap_or_else(|error| panic!("{program}: {error} (scripts/setup installs it)"));
    assert!(
        done.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap()
}

/// What the packet filter does to packets of a party.
#[derive(Clone, Copy)]
enum Fate {
    Dropped,
    Repeated,
}

/// A rule for what leaves a party's RTP port: whose, of which packets, and what becomes of them.
struct Rule<'a> {
    address: &'a str,
    port: u16,
    which: &'a str,
    fate: Fate,
}

/// The packet filter's rules for one call.
struct Filter {
    table: String,
}

impl Filter {
    fn begin(name: &str, rules: &[Rule<'_>]) -> Self {
        let table = name.replace('-', "_");
        let mut text = format!("table ip {table} {{\n");
        for (index, rule) in rules.iter().enumerate() {
            let Rule {
                address,
                port,
                which,
                fate,
            } = rule;
            let fate = match fate {
                Fate::Dropped => "drop",
                Fate::Repeated => "dup to 127.0.0.1 device \"lo\"",
            };
            text += &format!(
                "counter met{index} {{ }}\n\
                 chain input{index} {{ type filter hook input priority 0;\n\
                 ip saddr {address} udp sport {port} {which} counter name met{index} {fate}\n}}\n"
            );
        }
        text += "}\n";
        let file = std::env::temp_dir().join(format!("{table}-{}.nft", std::process::id()));
        std::fs::write(&file, text).unwrap();
        run("nft", &["-f", file.to_str().unwrap()]);
        std::fs::remove_file(file).unwrap();
        Self { table }
    }

    /// Ends it, and tells how many packets met each rule.
    fn end<const N: usize>(self) -> [u64; N] {
        let counted = std::array::from_fn(|index| {
            let name = format!("met{index}");
            let text = run("nft", &["list", "counter", "ip", &self.table, &name]);
            let mut words = text
                .split_whitespace()
                .skip_while(|word| *word != "packets");
            words.nth(1).unwrap().parse().unwrap()
        });
        run("nft", &["delete", "table", "ip", &self.table]);
        counted
    }
}

/// So many of each hundred packets, evenly.
fn percent(loss: u16) -> String {
    let step = 100 / loss;
    let which: Vec<String> = (0..loss).map(|n| (n * step + 3).to_string()).collect();
    format!("numgen inc mod 100 {{ {} }}", which.join(", "))
}

/// What the summary says of the legs.
struct Told {
    loss: [f64; 2],
    jitter_ms: [f64; 2],
    mos: [f64; 2],
}

/// One call, in which `talk` sends.
async fn call(
    name: &str,
    talk: impl AsyncFnOnce(&Site, [&Media; 2], [std::net::SocketAddr; 2]),
) -> Told {
    let mut site = Site::open(name, Options::new(Transport::Udp)).await;
    let (caller_media, callee_media) = Media::of_both(&site).await;
    let callee = site.phone(site.callee_run("callee_answers")).await;
    let steps = Steps::default()
        .calls(Some(Says::FIRST), "")
        .acks(1, None)
        .gets("OPTIONS")
        .asks("BYE", 2, None)
        .hears(200);
    let run = Run {
        fill: &[("STEPS", steps.text())],
        ..site.caller_run("caller_steps", FROM)
    };
    let phone = format!("{}:{}", run.address, run.port);
    let caller = site.phone(run).await;
    caller.acknowledges().await;
    let (towards_a, towards_b) = told_to_send(&caller, &callee);
    talk(
        &site,
        [&caller_media, &callee_media],
        [towards_a, towards_b],
    )
    .await;
    hang_up(&caller, &phone).await;
    assert_eq!(caller.finish().await.complaint, "");
    assert_eq!(callee.finish().await.complaint, "");
    let summary = site.receiver.summary().await;
    assert!(site.switch.take().unwrap().drain().await.success());
    let of = |field: &str| {
        ["callA", "callB"].map(|leg| {
            let quality = &summary.payload("details")[leg]["callQuality"];
            quality[field]
                .as_f64()
                .unwrap_or_else(|| panic!("{leg}: {quality}"))
        })
    };
    Told {
        loss: of("packetLossRate"),
        jitter_ms: of("jitter"),
        mos: of("mos"),
    }
}

/// Tells A's phone, by what it waits for, that enough was said.
async fn hang_up(caller: &Sipp, phone: &str) {
    let messages = caller.messages();
    let call_id = messages[0].header("Call-ID").unwrap();
    let text = format!(
        "OPTIONS sip:{phone} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK-enough\r\n\
         From: <sip:test@127.0.0.1>;tag=t\r\nTo: <sip:{phone}>\r\nCall-ID: {call_id}\r\n\
         CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(text.as_bytes(), phone).await.unwrap();
}

fn assert_near(what: &str, told: f64, made: f64, coarse: f64) {
    assert!(
        (told - made).abs() <= made * 0.1 + coarse,
        "{what}: {told} was told and {made} made"
    );
}

/// The nth packet of a party, 5 ms of its clock after the one before.
fn packet(ssrc: [u8; 4], n: u16) -> Packet {
    Packet {
        timestamp: 40 * u32::from(n),
        ..Packet::audio(ssrc, n, 0x11)
    }
}

/// Both parties send; of A so many percent are dropped in turn, of B as many by chance.
async fn lossy(loss: u16) -> (Told, [f64; 2]) {
    let mut lost = [0; 2];
    let name = format!("impaired-{loss}");
    let filtered = format!("loss-{loss}");
    let told = call(&name, async |site, [a, b], [towards_a, towards_b]| {
        // The first and the last come through, so that none is lost unseen.
        a.send(&packet(A, 0), towards_a).await;
        b.send(&packet(B, 0), towards_b).await;
        let filter = (loss > 0).then(|| {
            let in_turn = percent(loss);
            let by_chance = format!("numgen random mod 100 < {loss}");
            let of_caller = (CALLER_ADDRESS, site.ports.caller_media(), &*in_turn);
            let of_callee = (CALLEE_ADDRESS, site.ports.callee_media(), &*by_chance);
            let rules = [of_caller, of_callee].map(|(address, port, which)| Rule {
                address,
                port,
                which,
                fate: Fate::Dropped,
            });
            Filter::begin(&filtered, &rules)
        });
        for n in 1..PACKETS {
            a.send(&packet(A, n), towards_a).await;
            b.send(&packet(B, n), towards_b).await;
            tokio::time::sleep(APART).await;
        }
        if let Some(filter) = filter {
            lost = filter.end();
        }
        a.send(&packet(A, PACKETS), towards_a).await;
        b.send(&packet(B, PACKETS), towards_b).await;
    })
    .await;
    let sent = f64::from(PACKETS) + 1.0;
    (told, lost.map(|lost: u64| lost as f64 / sent))
}

async fn loss() {
    // Two at a time: the machine may have two cores.
    let (none, one) = tokio::join!(lossy(0), lossy(1));
    let (three, five) = tokio::join!(lossy(3), lossy(5));
    let ten = lossy(10).await;
    let rows = [(0, none), (1, one), (3, three), (5, five), (10, ten)];
    for (loss, (told, made)) in &rows {
        for side in [0, 1] {
            let what = format!("{loss} % of side {side}");
            assert_near(&what, told.loss[side], made[side], 0.0002);
        }
        assert!(
            (made[0] - f64::from(*loss) / 100.0).abs() < 0.005,
            "{made:?}"
        );
    }
    let scores = rows.map(|(_, (told, _))| told.mos[0]);
    assert!(
        scores.windows(2).all(|pair| pair[0] > pair[1]),
        "{scores:?}"
    );
}

/// What the API says of A's audio, once so many packets came of it.
async fn live(site: &Site, packets: u64) -> serde_json::Value {
    let event = site
        .receiver
        .wait_for("an event", |it| it.webhook == WebhookType::Vcs)
        .await;
    let session = event.payload("sessionId").as_str().unwrap().to_owned();
    let path = format!("admin/calls/{session}/media");
    let mut said = String::new();
    for _ in 0..150 {
        let answer = site.call_api("GET", &path, ADMIN_KEY, None).await;
        said = answer.body.clone();
        if answer.status == 200 {
            let received = answer.json()["callA"]["received"].clone();
            if received["packets"].as_u64() >= Some(packets) {
                return received;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not {packets} packets of A within 15 s: {said}");
}

/// RFC 3550 §A.8 by the times at which packets leave, in milliseconds.
#[derive(Default)]
struct Jitter {
    transit: Option<f64>,
    now: f64,
    sum: f64,
    peak: f64,
    steps: u32,
}

impl Jitter {
    fn on_packet(&mut self, transit: f64) {
        if let Some(before) = self.transit.replace(transit) {
            self.now += ((transit - before).abs() - self.now) / 16.0;
            self.sum += self.now;
            self.peak = self.peak.max(self.now);
            self.steps += 1;
        }
    }

    fn mean(&self) -> f64 {
        self.sum / f64::from(self.steps)
    }
}

/// A's packets leave up to 60 ms late, by a sequence that looks random, so that many overtake
/// others; one of twenty comes twice.
async fn jitter() {
    let spacing = Duration::from_millis(5);
    let mut made = Jitter::default();
    let (mut overtaken, mut repeated) = (0, 0);
    let mut live_now = serde_json::Value::Null;
    let told = call(
        "impaired-jitter",
        async |site, [a, b], [towards_a, towards_b]| {
            b.send(&packet(B, 0), towards_b).await;
            let mut state = 7_u64;
            let mut departures: Vec<(Duration, u16)> = (0..PACKETS)
                .map(|n| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let late = if n == 0 { 0 } else { (state >> 33) % 60_000 };
                    (spacing * u32::from(n) + Duration::from_micros(late), n)
                })
                .collect();
            departures.sort_unstable();
            let rule = Rule {
                address: CALLER_ADDRESS,
                port: site.ports.caller_media(),
                which: "numgen inc mod 20 3",
                fate: Fate::Repeated,
            };
            let filter = Filter::begin("jitter", &[rule]);
            let start = Instant::now();
            let (mut newest, mut met) = (0, 0);
            for (at, n) in &departures {
                tokio::time::sleep(at.saturating_sub(start.elapsed())).await;
                let left = start.elapsed().as_secs_f64() * 1_000.0;
                a.send(&packet(A, *n), towards_a).await;
                // The second one of a packet passes the filter too.
                let times = if met % 20 == 3 { 2 } else { 1 };
                for _ in 0..times {
                    made.on_packet(left - f64::from(*n) * 5.0);
                    met += 1;
                }
                overtaken += u64::from(*n < newest);
                newest = newest.max(*n);
            }
            [repeated] = filter.end();
            live_now = live(site, u64::from(PACKETS) + repeated).await;
            b.send(&packet(B, 1), towards_b).await;
        },
    )
    .await;
    let made_ms = made.mean();
    assert!(made_ms > 10.0, "{made_ms}");
    // The summary has whole milliseconds.
    assert_near("jitter", told.jitter_ms[0], made_ms, 0.5);
    assert_eq!(told.loss, [0.0, 0.0], "late is not lost");
    assert!(overtaken > 100 && repeated > 25, "{overtaken} {repeated}");
    let told = |field: &str| live_now[field].as_f64().unwrap();
    assert_near("jitter, live", told("jitterMs"), made_ms, 0.1);
    assert_near("its peak", told("jitterMaxMs"), made.peak, 0.1);
    assert_near("disorder", told("reordered"), overtaken as f64, 0.0);
    assert_near("repetition", told("duplicates"), repeated as f64, 0.0);
}
