//! `maskline bench media`: what a relayed packet costs, and how many calls one core carries.
//!
//! The media engine runs in a process of its own (this program's hidden `bench media-subject`), bound to
//! one core; this process is both parties of all calls, bound to another. Beside it, in the same run, a
//! forwarder that does nothing but pass on what it receives, and `rtpengine` in user space if it
//! is installed. Nothing leaves the loopback interface.

mod load;
mod rtpengine;
mod subject;

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use self::load::{Load, Step};
use self::subject::{Carrier, Peer};
use super::usage::{self, Usage};

pub(crate) use self::subject::{Parties, carry};

/// Packets per second and call: one each way every 20 ms.
const PACKETS_PER_SECOND: f64 = 100.0;
/// How long packets flow before they count.
const WARM: Duration = Duration::from_millis(500);
/// Calls are not held when half of their packets come later than this: what carries falls behind. (What
/// else runs on the machine delays some, so the slowest say little of that.)
const TOO_LATE: Duration = Duration::from_millis(5);
/// A load that is behind by more is told.
const BEHIND: Duration = Duration::from_millis(5);
/// How often a step is tried, since whatever else runs on the machine disturbs it.
const ATTEMPTS: u32 = 2;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// How many calls at once, step by step, until packets are lost.
    #[arg(long, value_delimiter = ',',
        default_values_t = [100, 200, 400, 600, 800, 900, 1_000, 1_100, 1_200, 1_400, 1_600, 1_800, 2_000])]
    calls: Vec<u32>,
    /// How long each step lasts.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// The core that carries; the load is bound to another.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// The core that the load is bound to.
    #[arg(long, default_value_t = 0)]
    load_core: usize,
    /// Give the engine an address of each family.
    #[arg(long)]
    both_families: bool,
    /// Measure the engine only.
    #[arg(long)]
    alone: bool,
}

/// Runs the measurement and prints its table.
///
/// # Errors
/// What kept it from running. Packets that are lost are a result, not an error.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let machine = usage::machine();
    bind_to(std::process::id(), options.load_core)?;
    let profile = if cfg!(debug_assertions) {
        "debug build: figures say little, use cargo run --release"
    } else {
        "release build"
    };
    println!("maskline {} ({profile})", env!("CARGO_PKG_VERSION"));
    println!("machine   {machine}");
    println!(
        "method    G.711 of 20 ms both ways (100 packets a second and call) over loopback, {} s a step; what carries is bound to core {},\n          \
         both parties of all calls to core {}; CPU of the carrying process alone; latency beyond that of the same load without anything between;\n          \
         held: nothing lost, median below {} ms, best of {ATTEMPTS} attempts\n",
        options.seconds,
        options.core,
        options.load_core,
        TOO_LATE.as_millis()
    );
    let load = Load::new()?;
    let few = options.calls.iter().copied().min().unwrap_or(1);
    let direct = load.direct(few, Duration::from_secs(u64::from(options.seconds)))?;
    println!(
        "{:<12} {few} calls: p50 {:.3} ms, p99 {:.3} ms, {} lost",
        "direct",
        ms(direct.latency(0.5)),
        ms(direct.latency(0.99)),
        direct.lost()
    );
    println!(
        "{:<12} {:>6} {:>9} {:>8} {:>11} {:>6} {:>13} {:>13}",
        "", "calls", "packets", "lost", "us/packet", "core", "added p50 ms", "added p99 ms"
    );
    measure(
        options,
        &load,
        &direct,
        Peer::own(options.core, Carrier::Engine, &load, options.both_families)?,
    )?;
    if options.alone {
        return Ok(());
    }
    measure(
        options,
        &load,
        &direct,
        Peer::own(options.core, Carrier::Forwarder, &load, false)?,
    )?;
    match Peer::rtpengine(options.core, &load)? {
        Some(peer) => measure(options, &load, &direct, peer)?,
        None => println!("rtpengine is not installed: no peer beside it"),
    }
    Ok(())
}

fn measure(options: &Options, load: &Load, direct: &Step, mut peer: Peer) -> anyhow::Result<()> {
    let name = peer.name();
    let idle = usage::resident_bytes(peer.process());
    let mut sessions = Vec::new();
    let mut held = 0;
    let mut cheapest = f64::INFINITY;
    let mut bytes_per_call = 0;
    for calls in &options.calls {
        let wanted = usize::try_from(*calls)?.saturating_sub(sessions.len());
        sessions.extend(peer.open(wanted)?);
        ensure!(!sessions.is_empty(), "{name} opened no session");
        let mut holds = false;
        for _ in 0..ATTEMPTS {
            load.run(&sessions, WARM)?;
            let before = Usage::of(&[peer.process()]);
            let step = load.run(&sessions, Duration::from_secs(u64::from(options.seconds)))?;
            let cpu = Usage::of(&[peer.process()]).since(&before).cpu;
            let each = cpu.as_secs_f64() * 1e6 / step.sent.max(1) as f64;
            cheapest = cheapest.min(each);
            holds = step.lost() == 0 && step.latency(0.5) < TOO_LATE;
            row(name, sessions.len(), direct, &step, cpu, each);
            if holds {
                break;
            }
        }
        bytes_per_call =
            usage::resident_bytes(peer.process()).saturating_sub(idle) / sessions.len() as u64;
        if !holds {
            break;
        }
        held = sessions.len();
    }
    println!(
        "{name:<12} held {held} calls on one core; by CPU per packet {:.0}; {} KiB a call; {}\n",
        1e6 / (cheapest * PACKETS_PER_SECOND),
        bytes_per_call / 1024,
        peer.end()?
    );
    Ok(())
}

fn row(name: &str, calls: usize, direct: &Step, step: &Step, cpu: Duration, each: f64) {
    let added = |part| ms(step.latency(part)) - ms(direct.latency(part));
    println!(
        "{name:<12} {calls:>6} {:>9} {:>8} {each:>11.2} {:>5.0}% {:>13.3} {:>13.3}{}",
        step.sent,
        step.lost(),
        cpu.as_secs_f64() * 100.0 / step.took.as_secs_f64(),
        added(0.5),
        added(0.99),
        if step.behind > BEHIND {
            format!(
                "  the load itself was up to {:.0} ms behind",
                ms(step.behind)
            )
        } else {
            String::new()
        }
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Binds all threads of a process to one core.
fn bind_to(process: u32, core: usize) -> anyhow::Result<()> {
    let status = Command::new("taskset")
        .args(["-a", "-c", "-p", &core.to_string(), &process.to_string()])
        .stdout(Stdio::null())
        .status()
        .context("taskset (of util-linux)")?;
    ensure!(status.success(), "taskset cannot bind to core {core}");
    Ok(())
}
