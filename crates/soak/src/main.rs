//! `soak kills`, `soak million`, `soak hung`: the command line. What it does is in the library.
#![allow(clippy::print_stdout, reason = "a command-line tool talks to its user")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use soak::hung::Hung;
use soak::kills::Kills;
use soak::million::Million;
use soak::subject::{Place, free_ports};
use tempfile::TempDir;

/// Soaks a release build of `maskline`; prints a table; fails if a promise is broken.
#[derive(Debug, Parser)]
struct Command {
    #[command(subcommand)]
    show: Show,
}

#[derive(Debug, Subcommand)]
enum Show {
    /// Kills it again and again under load.
    Kills {
        #[command(flatten)]
        of: Of,
        /// How often.
        #[arg(long, default_value_t = 100)]
        kills: u32,
        /// Events per second.
        #[arg(long, default_value_t = 400)]
        rate: u32,
    },
    /// Many events to endpoints that fail in every way.
    Million {
        #[command(flatten)]
        of: Of,
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
        /// Sub-accounts, a multiple of ten: two of ten have an endpoint that is never there.
        #[arg(long, default_value_t = 40)]
        accounts: u16,
        /// Events per second that are offered.
        #[arg(long, default_value_t = 6_000)]
        rate: u32,
    },
    /// A healthy endpoint beside many that never answer.
    Hung {
        #[command(flatten)]
        of: Of,
        /// How many never answer.
        #[arg(long, default_value_t = 100)]
        endpoints: u16,
        /// How often it is measured, with them and without.
        #[arg(long, default_value_t = 12)]
        windows: u32,
        /// For how long each time, in seconds.
        #[arg(long, default_value_t = 5)]
        window: u64,
        /// Events per second of the healthy one.
        #[arg(long, default_value_t = 100)]
        rate: u32,
    },
}

#[derive(Args, Debug)]
struct Of {
    /// The program.
    #[arg(long)]
    binary: PathBuf,
    /// What all chance comes from; drawn if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Keeps configuration, database and log here.
    #[arg(long)]
    folder: Option<PathBuf>,
}

impl Of {
    /// The place, the seed, and what removes the files.
    fn place(self) -> anyhow::Result<(Place, u64, Option<TempDir>)> {
        let temporary = match self.folder {
            Some(_) => None,
            None => Some(tempfile::tempdir()?),
        };
        let folder = temporary.as_ref().map(|it| it.path().to_owned());
        let (http, sip) = free_ports()?;
        let place = Place {
            binary: self.binary,
            folder: folder.or(self.folder).unwrap_or_default(),
            http,
            sip,
        };
        let seed = match self.seed {
            Some(seed) => seed,
            None => OsRng.try_next_u32()?.into(),
        };
        println!("--seed {seed}");
        Ok((place, seed, temporary))
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let report = match Command::parse().show {
        Show::Kills { of, kills, rate } => {
            let (place, seed, _temporary) = of.place()?;
            let kills = Kills {
                place,
                seed,
                kills,
                rate,
                longest_life: Duration::from_millis(1_500),
                failures: 2,
                timed: true,
            };
            Box::pin(kills.run()).await?
        }
        Show::Million {
            of,
            events,
            accounts,
            rate,
        } => {
            let (place, seed, _temporary) = of.place()?;
            let million = Million {
                place,
                seed,
                events,
                accounts,
                rate,
                failures: 3,
                flat: true,
            };
            Box::pin(million.run()).await?
        }
        Show::Hung {
            of,
            endpoints,
            windows,
            window,
            rate,
        } => {
            let (place, seed, _temporary) = of.place()?;
            let hung = Hung {
                place,
                seed,
                endpoints,
                windows,
                window: Duration::from_secs(window),
                rate,
                timed: true,
            };
            Box::pin(hung.run()).await?
        }
    };
    println!("{report}");
    Ok(match report.broken().is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
