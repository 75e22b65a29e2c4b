//! Another switch that reports its calls: interleaved, in lists, at a steady pace, each request again until
//! it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use std::net::SocketAddr;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::call::{STEPS, write_step};
use crate::client::Client;
use crate::ledger::{Fault, Ledger, Slot};
use crate::subject::account_name;

/// Before a request is made again.
const AGAIN: Duration = Duration::from_millis(20);
/// While too much is on its way.
const HOLD: Duration = Duration::from_millis(20);

/// How much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Connections.
    pub(crate) workers: u16,
    /// Events per second, all workers together.
    pub(crate) events_per_second: u32,
    /// Events of a request.
    pub(crate) batch: usize,
    /// Calls at once of an account and worker.
    pub(crate) calls: usize,
    /// Sessions in all; the load ends with the last one.
    pub(crate) sessions: u64,
    /// No further event while so many are on their way to endpoints that answer.
    pub(crate) on_their_way: i64,
}

/// Reports until all sessions are over.
pub(crate) struct Load {
    tasks: JoinSet<()>,
    orders: Arc<Orders>,
}

struct Orders {
    stopped: AtomicBool,
    paused: AtomicBool,
    events_per_second: AtomicU32,
}

impl Load {
    /// `accounts`: those that have calls, in turn.
    pub(crate) fn start(
        api: SocketAddr,
        ledger: &Arc<Ledger>,
        accounts: &[u16],
        pace: Pace,
        seed: u64,
    ) -> Self {
        let orders = Arc::new(Orders {
            stopped: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            events_per_second: AtomicU32::new(pace.events_per_second),
        });
        let mut tasks = JoinSet::new();
        for number in 0..pace.workers {
            let worker = Worker {
                client: Client::new(api),
                ledger: Arc::clone(ledger),
                random: ChaCha8Rng::seed_from_u64(seed ^ (u64::from(number) << 32)),
                books: accounts.iter().map(|account| Book::of(*account)).collect(),
                pace,
                orders: Arc::clone(&orders),
            };
            tasks.spawn(worker.run());
        }
        Self { tasks, orders }
    }

    /// Opens no more sessions.
    pub(crate) fn stop(&self) {
        self.orders.stopped.store(true, Ordering::Relaxed);
    }

    /// Reports so many events per second from now on.
    pub(crate) fn set_rate(&self, events_per_second: u32) {
        let rate = &self.orders.events_per_second;
        rate.store(events_per_second, Ordering::Relaxed);
    }

    /// Reports nothing for a while.
    pub(crate) fn pause(&self, paused: bool) {
        self.orders.paused.store(paused, Ordering::Relaxed);
    }

    /// Waits until each session is over.
    pub(crate) async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Whether each session is over.
    pub(crate) fn has_ended(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.is_empty()
    }
}

/// An account's open calls: number and next step.
struct Book {
    account: u16,
    open: Vec<(u32, usize)>,
}

impl Book {
    const fn of(account: u16) -> Self {
        Self {
            account,
            open: Vec::new(),
        }
    }
}

struct Worker {
    client: Client,
    ledger: Arc<Ledger>,
    random: ChaCha8Rng,
    books: Vec<Book>,
    pace: Pace,
    orders: Arc<Orders>,
}

impl Worker {
    async fn run(mut self) {
        let mut due = Instant::now() + self.each().mul_f64(self.random.random());
        // Every worker begins with another account.
        let mut turn: usize = self.random.random_range(0..self.books.len().max(1));
        let mut idle = 0;
        while idle < self.books.len() {
            turn = (turn + 1) % self.books.len();
            let Some((path, body, slots)) = self.request(turn) else {
                idle += 1;
                continue;
            };
            idle = 0;
            sleep_until(due).await;
            // What was missed is not made up for in a flood.
            due = (due + self.each()).max(Instant::now());
            self.hold().await;
            self.report(&path, &body, &slots).await;
        }
    }

    /// The next steps of some of an account's calls.
    fn request(&mut self, turn: usize) -> Option<(String, String, Vec<Slot>)> {
        let stopped = self.orders.stopped.load(Ordering::Relaxed);
        let book = self.books.get_mut(turn)?;
        while !stopped
            && book.open.len() < self.pace.calls
            && self.ledger.sessions() < self.pace.sessions
        {
            book.open.push((self.ledger.open(book.account), 0));
        }
        let mut slots = Vec::with_capacity(self.pace.batch);
        let mut body = String::from("[");
        while slots.len() < self.pace.batch && !book.open.is_empty() {
            let chosen = self.random.random_range(0..book.open.len());
            let Some((session, step)) = book.open.get_mut(chosen) else {
                break;
            };
            if !slots.is_empty() {
                body.push(',');
            }
            write_step(&mut body, *session, *step);
            slots.push(Slot {
                session: *session,
                event: *step,
            });
            *step += 1;
            if *step == STEPS {
                book.open.swap_remove(chosen);
            }
        }
        body.push(']');
        let path = format!(
            "/api/v1/subaccounts/{}/call-events",
            account_name(book.account)
        );
        (!slots.is_empty()).then_some((path, body, slots))
    }

    /// From request to request.
    fn each(&self) -> Duration {
        let batch = u32::try_from(self.pace.batch).unwrap_or(u32::MAX);
        let rate = self.orders.events_per_second.load(Ordering::Relaxed);
        Duration::from_secs(1) * batch * u32::from(self.pace.workers) / rate.max(1)
    }

    async fn hold(&self) {
        loop {
            let paused = self.orders.paused.load(Ordering::Relaxed);
            if !paused && self.ledger.owed() < self.pace.on_their_way {
                return;
            }
            sleep(HOLD).await;
        }
    }

    /// Sends it until it is taken.
    async fn report(&mut self, path: &str, body: &str, slots: &[Slot]) {
        let ledger = &self.ledger;
        loop {
            match self.client.request("POST", path, body).await {
                Ok(answer) if answer.status == 202 => {
                    match serde_json::from_slice::<Taken>(answer.body) {
                        Ok(taken) if taken.events.len() == slots.len() => {
                            for (slot, event) in slots.iter().zip(taken.events) {
                                ledger.accepted(*slot, event.event_id, event.sequence);
                            }
                        }
                        Ok(_) => ledger.fault(Fault::Refused, || "a short answer".to_owned()),
                        Err(error) => ledger.fault(Fault::Refused, || error.to_string()),
                    }
                    return;
                }
                Ok(answer) if matches!(answer.status, 408 | 429 | 500..) => {
                    ledger.put_off.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) => {
                    ledger.fault(Fault::Refused, || {
                        let text = String::from_utf8_lossy(answer.body);
                        format!("{} {text}", answer.status)
                    });
                    return;
                }
                Err(_) => {
                    ledger.unanswered.fetch_add(1, Ordering::Relaxed);
                }
            }
            sleep(AGAIN).await;
        }
    }
}

#[derive(Deserialize)]
struct Taken {
    events: Vec<TakenEvent>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TakenEvent {
    event_id: Uuid,
    sequence: u64,
}
