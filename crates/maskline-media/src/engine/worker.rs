//! A worker: the thread that carries out the orders of its mailbox and runs its sessions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet, LocalSet};

use crate::command::{MediaEvent, MediaKey, OpenFailure};
use crate::engine::EngineConfig;
use crate::engine::counters::CounterCells;
use crate::engine::mailbox::{Mailbox, Opening, Taken, Work};
use crate::engine::outlet::Outlet;
use crate::engine::ports::PortPool;
use crate::engine::session::{self, Buffers, Session, Sides, Surroundings};
use crate::relay::Relay;

/// How long an ending worker waits for its sessions to end and for the shards to hear of it.
const FAREWELL: Duration = Duration::from_secs(2);

/// A worker that does not run yet.
#[derive(Debug)]
pub(super) struct Worker {
    runtime: Runtime,
    mailbox: Arc<Mailbox>,
    counters: Arc<CounterCells>,
    ports: Arc<PortPool>,
    events: Vec<mpsc::Sender<MediaEvent>>,
    silence: Duration,
    start: Instant,
}

struct Running {
    session: Rc<Session>,
    task: AbortHandle,
}

struct Sessions {
    open: HashMap<MediaKey, Running>,
    /// The tasks of open sessions, and of those that are closing.
    tasks: JoinSet<()>,
    around: Rc<Surroundings>,
    mailbox: Arc<Mailbox>,
    ports: Arc<PortPool>,
    silence: Duration,
}

/// A worker that ends, for whatever reason, leaves a mailbox that answers at once.
struct StopMailbox(Arc<Mailbox>);

impl Drop for StopMailbox {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Worker {
    pub(super) fn new(
        config: &EngineConfig,
        mailbox: Arc<Mailbox>,
        counters: Arc<CounterCells>,
        ports: Arc<PortPool>,
        events: Vec<mpsc::Sender<MediaEvent>>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        Ok(Self {
            runtime,
            mailbox,
            counters,
            ports,
            events,
            silence: config.silence,
            start: config.start,
        })
    }

    /// Runs until the mailbox is stopped.
    pub(super) fn run(self) {
        let Self {
            runtime,
            mailbox,
            counters,
            ports,
            events,
            silence,
            start,
        } = self;
        let _stop = StopMailbox(Arc::clone(&mailbox));
        LocalSet::new().block_on(&runtime, async move {
            let around = Rc::new(Surroundings {
                outlet: Outlet::new(events, &mailbox, Arc::clone(&counters)),
                counters,
                buffers: RefCell::new(Buffers::new()),
                start,
            });
            let mut sessions = Sessions {
                open: HashMap::new(),
                tasks: JoinSet::new(),
                around,
                mailbox: Arc::clone(&mailbox),
                ports,
                silence,
            };
            loop {
                match mailbox.take() {
                    Taken::Work(key, work) => {
                        sessions.work(key, *work);
                        // Packets go first: many orders at once shall not hold them up.
                        tokio::task::yield_now().await;
                    }
                    Taken::Nothing => mailbox.posted().await,
                    Taken::Stopped => break,
                }
            }
            if tokio::time::timeout(FAREWELL, sessions.end())
                .await
                .is_err()
            {
                tracing::warn!("media ended before every shard had taken its last events");
            }
        });
    }
}

impl Sessions {
    fn work(&mut self, key: MediaKey, work: Work) {
        let Work {
            open,
            caller,
            callee,
            close,
        } = work;
        if let Some(opening) = open {
            if let Err(reason) = self.open(key, opening) {
                self.around.outlet.push(MediaEvent::Refused { key, reason });
            }
        } else if !close && !self.open.contains_key(&key) {
            // Programmed after its opening was refused: nothing else will free its place.
            self.mailbox.release(key);
        }
        let now = self.around.now();
        if let Some(running) = self.open.get(&key) {
            if let Some(media) = caller {
                running.session.program_caller(now, media);
            }
            if let Some(media) = callee {
                running.session.program_callee(now, media);
            }
        }
        if close {
            self.close(key);
        }
    }

    fn open(&mut self, key: MediaKey, opening: Opening) -> Result<(), OpenFailure> {
        let (seed, sides) = match opening {
            Opening::Anew { seed } => {
                let caller = self.ports.take()?;
                let callee = self.ports.take()?;
                (seed, Sides { caller, callee })
            }
            Opening::Again {
                seed,
                caller,
                callee,
            } => {
                let caller = PortPool::bind(caller)?;
                let callee = PortPool::bind(callee)?;
                (seed, Sides { caller, callee })
            }
        };
        let relay = Relay::new(self.around.now(), seed, self.silence);
        let session = Rc::new(Session::new(key, relay));
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a media session died");
            }
        }
        let task = self.tasks.spawn_local(session::run(
            Rc::clone(&session),
            sides,
            Rc::clone(&self.around),
        ));
        self.open.insert(key, Running { session, task });
        Ok(())
    }

    /// The session's task answers; there is none if the opening was refused.
    fn close(&mut self, key: MediaKey) {
        match self.open.remove(&key) {
            Some(running) if !running.task.is_finished() => running.session.close(),
            Some(_) | None => self.around.outlet.push(MediaEvent::Closed {
                key,
                caller: None,
                callee: None,
            }),
        }
    }

    async fn end(mut self) {
        for running in self.open.values() {
            running.session.close();
        }
        while self.tasks.join_next().await.is_some() {}
        self.around.outlet.emptied().await;
    }
}
