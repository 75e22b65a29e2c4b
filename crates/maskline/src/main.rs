//! The command line: `maskline serve`, `maskline demo`, `maskline trace`,
//! `maskline replay`, `maskline check-config`.
//!
//! Configuration is read in [`config`], everything is wired together in [`node`].
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program talks to its user"
)]

mod bench;
mod config;
mod demo;
mod explain;
mod left_open;
mod metrics_text;
mod music;
mod node;
mod node_api;
mod open_files;
mod otlp;
mod provisioning;
mod replay;
mod reports;
mod sample_site;
mod serve;
mod traces;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, REFERENCE};

/// What calls took while they lived goes back when they have ended, and threads hand messages to
/// each other for less.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A self-hosted number-masking switch: two people talk over a virtual number, and your server is
/// told every step.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the switch until it is told to end (SIGTERM or Ctrl-C: live calls may finish).
    Serve {
        /// The configuration file. Without it, the defaults: no trunk, so no calls.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Place a masked call on this machine, between two built-in phones, and show all of it.
    Demo {
        /// Print each webhook's body as one line of JSON, in order of delivery, and nothing else.
        #[arg(long)]
        json: bool,
    },
    /// Show how a call went: its messages, what each stage took, who ended it and why.
    Trace(explain::Question),
    /// Have events that were delivered, given up or had no endpoint sent once more, in order.
    Replay(replay::Order),
    /// Measure what calls cost on this machine: a switch of its own, load and receiver included.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Check a configuration file without starting anything.
    CheckConfig {
        /// The configuration file.
        #[arg(long, value_name = "FILE", required_unless_present = "reference")]
        config: Option<PathBuf>,
        /// Print every key with its default and what it means.
        #[arg(long)]
        reference: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Whole masked calls without RTP: calls per second, CPU and memory per call, beside Kamailio
    /// with topology hiding if it is installed.
    Call(bench::Options),
    /// Relayed audio: calls that one core carries without loss, CPU and latency per packet, memory per
    /// call, beside a bare forwarder, and rtpengine in user space if it is installed.
    Media(bench::media::Options),
    /// Status updates of calls by HTTP and their webhooks: events accepted and delivered per second, CPU
    /// per event and latency, beside the floor of both, or the same of another sender.
    Webhooks(bench::webhooks::Options),
    /// What `bench media` measures.
    #[command(hide = true)]
    MediaSubject(bench::media::Parties),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve { config } => Config::load(config.as_deref())
            .map_err(anyhow::Error::from)
            .and_then(serve::run),
        Command::Demo { json } => demo::run(json),
        Command::Trace(question) => explain::run(&question),
        Command::Replay(order) => replay::run(&order),
        Command::Bench {
            what: Bench::Call(options),
        } => bench::run(&options),
        Command::Bench {
            what: Bench::Media(options),
        } => bench::media::run(&options),
        Command::Bench {
            what: Bench::Webhooks(options),
        } => bench::webhooks::run(&options),
        Command::Bench {
            what: Bench::MediaSubject(parties),
        } => bench::media::carry(&parties),
        Command::CheckConfig { config, reference } => {
            if reference {
                print!("{REFERENCE}");
                return ExitCode::SUCCESS;
            }
            Config::load(config.as_deref())
                .and_then(|config| config.check_certificates().map(|()| config))
                .and_then(|config| config.hold_audio().map(|_| config))
                .map(|config| {
                    for warning in &config.warnings {
                        eprintln!("maskline: warning: {warning}");
                    }
                    println!("{}: ok", config.place);
                })
                .map_err(anyhow::Error::from)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("maskline: {error:#}");
            ExitCode::FAILURE
        }
    }
}
