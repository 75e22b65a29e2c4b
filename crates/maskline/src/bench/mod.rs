//! `maskline bench call`: what a masked call costs, and how many a second this machine holds.
//!
//! The shipped program runs as a process of its own, with a durable store; this process is the
//! caller, the callee and the customer's server. Nothing leaves the loopback interface, and no RTP
//! is sent.

mod callee;
mod caller;
mod kamailio;
pub(crate) mod media;
mod receiver;
mod subject;
mod usage;
pub(crate) mod webhooks;
mod wire;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use callee::CalleeCounts;
use caller::{Load, Outcome};
use receiver::{Heard, Receiver};
use subject::Subject;
use usage::Usage;

/// The number that everyone calls.
const VIRTUAL: &str = "+6531580001";
/// Media sockets of one call.
const FILES_PER_CALL: u64 = 4;
/// Open files beside those of the calls.
const OTHER_FILES: u64 = 500;
/// How long the last webhooks may take after the last call.
const LAST_WEBHOOKS: Duration = Duration::from_secs(30);
/// After how long a switch has forgotten an ended call: 64·T1, and a little.
const FORGOTTEN: Duration = Duration::from_secs(36);

fn caller_number(call: u32) -> String {
    format!("+6591{call:06}")
}

fn callee_number(caller: &str) -> String {
    caller.replacen("+6591", "+6598", 1)
}

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// New calls per second.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// For how long calls are started.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// How long each call lasts.
    #[arg(long, default_value_t = 1_000)]
    hold_ms: u64,
    /// Measure the memory of this many calls at once (several are possible); 0: not at all.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    memory_at: Vec<u32>,
    /// Leave Kamailio out, even if it is installed.
    #[arg(long)]
    alone: bool,
}

/// Runs the measurement and prints its table.
///
/// # Errors
/// What kept it from running. A switch that loses calls is a result, not an error.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let receiver = runtime.block_on(Receiver::start())?;
    let profile = if cfg!(debug_assertions) {
        "debug build: figures say little, use cargo run --release"
    } else {
        "release build"
    };
    println!("maskline {} ({profile})", env!("CARGO_PKG_VERSION"));
    println!("machine   {}", usage::machine());
    println!(
        "method    {} calls/s over UDP for {} s, {} ms each, no RTP; caller, callee and receiver on the same machine;\n          \
         SQLite synchronous=FULL; CPU of the switch's process from /proc, load not counted\n",
        options.rate, options.seconds, options.hold_ms
    );
    let table = Table;
    table.head();
    let subject = runtime.block_on(Subject::maskline(receiver.address()))?;
    let measured = load(options, &subject, &receiver)?;
    table.row("maskline", options, &measured);
    drop(subject);
    if !options.alone {
        match Subject::kamailio()? {
            Some(subject) => {
                let measured = load(options, &subject, &receiver)?;
                table.row("kamailio+topoh", options, &measured);
            }
            None => println!("kamailio is not installed: no peer beside it"),
        }
    }
    for calls in options.memory_at.iter().filter(|calls| **calls > 0) {
        let subject = runtime.block_on(Subject::maskline(receiver.address()))?;
        memory(options, &subject, &receiver, *calls)?;
    }
    Ok(())
}

/// One run's figures.
struct Measured {
    outcome: Outcome,
    callee_calls: u64,
    callee_ended: u64,
    callee_repeated: u64,
    usage: Usage,
    /// What the receiver heard, where there is one; it is told nothing by the peer.
    heard: Heard,
    /// Whether every webhook came.
    told_all: bool,
}

fn load(options: &Options, subject: &Subject, receiver: &Receiver) -> anyhow::Result<Measured> {
    // A second of warming up: connections, caches, allocator.
    let warm = Load {
        towards: subject.sip(),
        per_second: options.rate.min(100),
        calls: options.rate.min(100),
        hold: Duration::from_millis(100),
        first: 900_000,
    };
    let warmed = calls(subject, receiver, warm, |_| {})?.0;
    ensure!(
        warmed.completed == warmed.started,
        "{} of {} calls failed while warming up (first status {:?}): see {}",
        warmed.failed,
        warmed.started,
        warmed.first_failure,
        subject.log().display()
    );
    let before_heard = receiver.heard();
    let processes = subject.processes();
    let before = Usage::of(&processes);
    let (outcome, counts, told_all) = calls(
        subject,
        receiver,
        Load {
            towards: subject.sip(),
            per_second: options.rate,
            calls: options.rate * options.seconds,
            hold: Duration::from_millis(options.hold_ms),
            first: 0,
        },
        |_| {},
    )?;
    let usage = Usage::of(&processes).since(&before);
    let heard = since(receiver.heard(), before_heard);
    Ok(Measured {
        outcome,
        callee_calls: counts.calls.load(Ordering::Relaxed),
        callee_ended: counts.ended.load(Ordering::Relaxed),
        callee_repeated: counts.repeated.load(Ordering::Relaxed),
        usage,
        heard,
        told_all,
    })
}

/// Makes calls through a subject, and waits until the receiver has heard of the end of each; whether
/// it has.
fn calls(
    subject: &Subject,
    receiver: &Receiver,
    load: Load,
    answered: impl FnMut(u32),
) -> anyhow::Result<(Outcome, Arc<CalleeCounts>, bool)> {
    let counts = Arc::new(CalleeCounts::default());
    let stop = Arc::new(AtomicBool::new(false));
    let callee = socket(Some(subject.callee()))?;
    let caller = socket(None)?;
    let before = receiver.heard();
    let ended = std::thread::scope(|scope| {
        let answering = scope.spawn(|| callee::run(&callee, &counts, &stop));
        let outcome = caller::run(&caller, load, answered);
        // The callee's BYEs leave before the summaries do.
        let told_all = settle(receiver, subject, u64::from(outcome.completed), before);
        stop.store(true, Ordering::Relaxed);
        answering.join().map_err(|_| ())?;
        Ok((outcome, told_all))
    });
    let (outcome, told_all) =
        ended.map_err(|()| anyhow::anyhow!("the callee's thread ended badly"))?;
    Ok((outcome, counts, told_all))
}

/// Waits until the receiver has heard the end of so many calls; whether it has.
fn settle(receiver: &Receiver, subject: &Subject, calls: u64, before: Heard) -> bool {
    if !subject.tells() {
        return true;
    }
    let deadline = Instant::now() + LAST_WEBHOOKS;
    while Instant::now() < deadline {
        if since(receiver.heard(), before).summaries >= calls {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

const fn since(now: Heard, before: Heard) -> Heard {
    Heard {
        questions: now.questions - before.questions,
        events: now.events - before.events,
        summaries: now.summaries - before.summaries,
        disordered: now.disordered - before.disordered,
    }
}

/// The memory of so many calls at once, and after they have ended.
fn memory(
    options: &Options,
    subject: &Subject,
    receiver: &Receiver,
    wanted: u32,
) -> anyhow::Result<()> {
    let possible = usage::open_files_limit().saturating_sub(OTHER_FILES) / FILES_PER_CALL;
    let number = wanted.min(u32::try_from(possible).unwrap_or(u32::MAX));
    let rate = options.rate.min(300);
    let process = subject.process();
    let idle = usage::resident_bytes(process);
    let mut at_full = 0;
    let hold = Duration::from_secs(u64::from(number / rate) + 3);
    let (outcome, _, told_all) = calls(
        subject,
        receiver,
        Load {
            towards: subject.sip(),
            per_second: rate,
            calls: number,
            hold,
            first: 0,
        },
        |answered| {
            if answered == number {
                at_full = usage::resident_bytes(process);
            }
        },
    )?;
    std::thread::sleep(FORGOTTEN);
    let after = usage::resident_bytes(process);
    let kib = |bytes: u64| bytes / 1024;
    println!(
        "memory    {number} calls at once: {} KiB each ({} MiB before, {} MiB with them, {} MiB {} s after they ended); \
         {} failed{}{}",
        kib(at_full.saturating_sub(idle)) / u64::from(number.max(1)),
        kib(idle) / 1024,
        kib(at_full) / 1024,
        kib(after) / 1024,
        FORGOTTEN.as_secs(),
        outcome.failed,
        if told_all { "" } else { ", webhooks missing" },
        if number < wanted {
            format!(
                "\n          not {wanted}: the limit of open files is {}, a call's media takes {FILES_PER_CALL}",
                usage::open_files_limit()
            )
        } else {
            String::new()
        }
    );
    Ok(())
}

/// A socket with room for bursts, which waits a millisecond for a datagram.
fn socket(at: Option<SocketAddr>) -> anyhow::Result<UdpSocket> {
    let address = at.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(4 << 20)?;
    socket
        .bind(&address.into())
        .with_context(|| format!("binding {address}"))?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    Ok(socket)
}

/// The table's form.
struct Table;

impl Table {
    fn head(&self) {
        println!(
            "{:<15} {:>8} {:>7} {:>7} {:>8} {:>8} | {:>24} | {:>6} {:>9} {:>8} {:>8}",
            "",
            "calls/s",
            "calls",
            "failed",
            "p50 ms",
            "p99 ms",
            "CPU-s per 1000 calls: all",
            "sip",
            "journal",
            "webhooks",
            "media"
        );
    }

    fn row(&self, name: &str, options: &Options, measured: &Measured) {
        let outcome = &measured.outcome;
        let per_thousand = |cpu| usage::per(cpu, 1_000.0, outcome.completed.into());
        let part = |name| per_thousand(measured.usage.part(name));
        println!(
            "{name:<15} {:>8.0} {:>7} {:>7} {:>8.1} {:>8.1} | {:>25} | {:>6} {:>9} {:>8} {:>8}",
            f64::from(outcome.started) / outcome.started_in.as_secs_f64().max(1.0),
            outcome.started,
            outcome.failed,
            outcome.setup_ms(0.5),
            outcome.setup_ms(0.99),
            per_thousand(measured.usage.cpu),
            part("sip"),
            part("store-writer"),
            part("web"),
            part("media"),
        );
        let heard = measured.heard;
        if heard.questions > 0 {
            println!(
                "{:<15} {} questions, {} events, {} summaries, {} out of order{}",
                "",
                heard.questions,
                heard.events,
                heard.summaries,
                heard.disordered,
                if measured.told_all {
                    ""
                } else {
                    "; NOT ALL CAME"
                }
            );
        }
        if let Some(status) = outcome.first_failure {
            println!("{:<15} the first failure: {status}", "");
        }
        if outcome.repeated > 0 || measured.callee_repeated > 0 {
            println!(
                "{:<15} sent again: {} by the caller, {} by the callee",
                "", outcome.repeated, measured.callee_repeated
            );
        }
        let all = u64::from(options.rate * options.seconds);
        if measured.callee_calls != all || measured.callee_ended != all {
            println!(
                "{:<15} the callee saw {} calls and {} ends",
                "", measured.callee_calls, measured.callee_ended
            );
        }
    }
}
