//! The media engine: the sockets and threads that carry the packets of all sessions.
//!
//! Worker threads of its own, each with one `epoll` loop, so that packets never wait for
//! signalling. A session lives on one worker. What a packet means is decided by the pure
//! [`crate::relay`]; this module and its parts only move bytes, time and orders.
//!
//! **Nothing is lost and nothing grows without bound.** An order is kept per session, as the work
//! still to be done for it: a session that was admitted has room for all its further orders, so
//! only [`MediaCommand::Open`] can be refused, and that at once. A session keeps its place until
//! its last answer was taken by its shard, so that a shard which does not listen can open no
//! further sessions instead of piling up answers. Key presses that a shard does not take in time
//! are dropped and counted.

mod counters;
mod mailbox;
mod outlet;
mod poller;
mod ports;
mod reports;
mod session;
mod socket;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::mpsc;

use crate::addresses::MediaAddresses;
use crate::command::{MediaCommand, MediaEvent, MediaKey, OpenFailure};
use crate::hold::HoldAudio;
use crate::relay::DEFAULT_SILENCE;
use crate::report::MediaReport;
use counters::CounterCells;
use mailbox::{Mailbox, Opening};
use ports::PortPool;
use reports::Reports;
use worker::Worker;

pub use counters::EngineCounters;

/// How many sessions may wait to be opened, per worker.
const WAITING_OPENS: usize = 1_024;

/// How a media engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The addresses that all ports are bound to: each port on each of them.
    pub addresses: MediaAddresses,
    /// Where parties are told that they are: what names one of these with a port of the same session is no
    /// party.
    pub announced: MediaAddresses,
    /// The ports to use, RTP on even ones and RTCP on the odd one above. A session takes four.
    pub ports: RangeInclusive<u16>,
    /// How many threads carry packets.
    pub workers: NonZeroUsize,
    /// How long a party that should send may be silent before that is reported.
    pub silence: Duration,
    /// How long a freed port rests, so that late packets of one call do not reach the next.
    pub quarantine: Duration,
    /// What a party on hold hears while the other sends nothing; `None`: nothing.
    pub hold: Option<Arc<HoldAudio>>,
    /// The origin of the process's [`crate::Tick`]s.
    pub start: Instant,
}

/// Why a media engine did not start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A session takes two even ports and the odd ones above them.
    #[error(
        "the media ports {first}-{last} have no room for one call: it takes two pairs of an even port and the next one"
    )]
    TooFewPorts {
        /// The first port of the range.
        first: u16,
        /// The last port of the range.
        last: u16,
    },
    /// The address is not one of this machine's.
    #[error("the media address {address} cannot be bound: {source}")]
    Address {
        /// The configured address.
        address: IpAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// A worker could not be started.
    #[error("a media worker cannot be started: {0}")]
    Worker(#[source] io::Error),
}

/// The running media engine. Dropping it ends all sessions: a BYE goes to each party, and the
/// drop waits up to two seconds for that and for the shards to take the answers.
#[derive(Debug)]
pub struct MediaEngine {
    mailboxes: Vec<Arc<Mailbox>>,
    counters: Vec<Arc<CounterCells>>,
    reports: Arc<Reports>,
    ports: Arc<PortPool>,
    threads: Vec<JoinHandle<()>>,
    shards: usize,
}

impl EngineConfig {
    /// The default setup: one address, a worker per core, [`DEFAULT_SILENCE`], one second of quarantine,
    /// nothing to hear on hold.
    #[must_use]
    pub fn new(address: IpAddr, ports: RangeInclusive<u16>, start: Instant) -> Self {
        Self {
            addresses: address.into(),
            announced: address.into(),
            ports,
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            silence: DEFAULT_SILENCE,
            quarantine: Duration::from_secs(1),
            hold: None,
            start,
        }
    }
}

impl MediaEngine {
    /// Starts the workers. `events` holds one channel per shard, by shard number.
    ///
    /// # Errors
    ///
    /// [`EngineError`]: the configuration cannot work here. Ports that other processes use are no
    /// error: they are passed over when their turn comes, and counted.
    pub fn start(
        config: EngineConfig,
        events: Vec<mpsc::Sender<MediaEvent>>,
    ) -> Result<Self, EngineError> {
        for address in config.addresses.iter() {
            ports::probe(address).map_err(|source| EngineError::Address { address, source })?;
        }
        let ports = Arc::new(PortPool::new(&config));
        if ports.capacity() < 2 {
            return Err(EngineError::TooFewPorts {
                first: *config.ports.start(),
                last: *config.ports.end(),
            });
        }
        let mut engine = Self {
            mailboxes: Vec::new(),
            counters: Vec::new(),
            reports: Arc::default(),
            ports,
            threads: Vec::new(),
            shards: events.len(),
        };
        // Dropping the engine on an error ends the workers that did start.
        for index in 0..config.workers.get() {
            engine
                .start_worker(index, &config, &events)
                .map_err(EngineError::Worker)?;
        }
        Ok(engine)
    }

    /// Gives an order; never waits. May be called from any thread.
    ///
    /// The answer, if it can be given at once, is returned and does not come by the shard's
    /// channel: an [`MediaCommand::Open`] that cannot be admitted, a [`MediaCommand::Close`] of a
    /// session that is not there. Otherwise the order is kept and will be carried out, in the
    /// session's order; of several programmings of one side that wait, the last counts. A second
    /// `Close` before the first was answered shares its answer.
    #[must_use = "an answer that is returned does not come by the channel"]
    pub fn command(&self, command: MediaCommand) -> Option<MediaEvent> {
        let key = command.key();
        let worker = (key.id.wrapping_add(u64::from(key.shard))
            % self.mailboxes.len().max(1) as u64) as usize;
        let mailbox = match self.mailboxes.get(worker) {
            Some(mailbox) if usize::from(key.shard) < self.shards => mailbox,
            Some(_) | None => return command.answer_without_session(OpenFailure::Unavailable),
        };
        let MediaCommand::Resume {
            seed,
            caller_port,
            callee_port,
            address,
            ..
        } = command
        else {
            return mailbox.post(command);
        };
        // Taken now and not in the worker's turn: no session that another worker opens gets them.
        let taken = match address {
            None => self
                .ports
                .lease_again(caller_port)
                .zip(self.ports.lease_again(callee_port)),
            // Another engine had them.
            Some(_) => None,
        };
        match taken {
            Some((caller, callee)) => mailbox.post_resume(
                key,
                Opening::Again {
                    seed,
                    caller,
                    callee,
                },
            ),
            None => command.answer_without_session(OpenFailure::PortsLost),
        }
    }

    /// How the audio of a session goes, a few seconds old; `None` before both sides were programmed
    /// and after its end. Packets do not wait for it.
    #[must_use]
    pub fn report(&self, key: MediaKey) -> Option<MediaReport> {
        self.reports.of(key)
    }

    /// Ports that are taken, RTCP ports included.
    #[must_use]
    pub fn ports_in_use(&self) -> usize {
        self.ports.in_use()
    }

    /// Everything that the engine counts, as of now.
    #[must_use]
    pub fn counters(&self) -> EngineCounters {
        let mut sum = EngineCounters {
            ports_in_use: self.ports.in_use() as u64,
            ports_passed_over: self.ports.passed_over(),
            ..EngineCounters::default()
        };
        for cells in &self.counters {
            cells.add_to(&mut sum);
        }
        sum
    }

    fn start_worker(
        &mut self,
        index: usize,
        config: &EngineConfig,
        events: &[mpsc::Sender<MediaEvent>],
    ) -> io::Result<()> {
        let mailbox = Arc::new(Mailbox::new(
            WAITING_OPENS,
            self.ports.capacity() / 2 + WAITING_OPENS,
        )?);
        let counters = Arc::new(CounterCells::default());
        let worker = Worker::new(
            config,
            Arc::clone(&mailbox),
            Arc::clone(&counters),
            Arc::clone(&self.reports),
            Arc::clone(&self.ports),
            events.to_vec(),
        )?;
        self.mailboxes.push(mailbox);
        self.counters.push(counters);
        let thread = std::thread::Builder::new()
            .name(format!("media-{index}"))
            .spawn(move || worker.run())?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for MediaEngine {
    fn drop(&mut self) {
        for mailbox in &self.mailboxes {
            mailbox.stop();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a media worker had died");
            }
        }
    }
}

/// An address to bind to, with a port.
const fn at_port(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
