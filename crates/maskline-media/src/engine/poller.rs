//! What a worker waits for: sockets that hold a datagram, and the bell that announces orders.
//!
//! Level-triggered: one datagram is taken whenever a socket is reported, and one that holds more is
//! reported again. That costs one receiving call a packet, and shares a worker's time among its sockets.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

/// How many sockets are looked at before orders and timers have their turn.
const SOCKETS_PER_TURN: usize = 64;

/// One worker's `epoll`.
#[derive(Debug)]
pub(super) struct Poller(OwnedFd);

/// Wakes a worker from any thread.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Reports what can be read from now on by this token, until it is closed.
    pub(super) fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        let data = EventData::new_u64(token);
        Ok(epoll::add(&self.0, source, data, EventFlags::IN)?)
    }

    /// Waits, `None`: without end, until something can be read, and gives the tokens of that. There may be
    /// none.
    pub(super) fn wait(&self, wait: Option<Duration>, ready: &mut Vec<u64>) -> io::Result<()> {
        let wait = wait.map(|wait| {
            Timespec::try_from(wait).unwrap_or(Timespec {
                tv_sec: 3_600,
                tv_nsec: 0,
            })
        });
        ready.clear();
        let mut room = [const { MaybeUninit::uninit() }; SOCKETS_PER_TURN];
        match epoll::wait(&self.0, &mut room, wait.as_ref()) {
            Ok((events, _)) => ready.extend(events.iter().map(|event| event.data.u64())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Rings until it is silenced.
    pub(super) fn ring(&self) {
        // It can only fail because it rings already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    pub(super) fn silence(&self) {
        // It can only fail because it does not ring.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
