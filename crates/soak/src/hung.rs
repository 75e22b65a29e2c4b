//! A healthy endpoint beside many that take requests and never answer: it is served as if it were alone.
//!
//! Two switches run: in one there is the healthy endpoint alone, in the other the hung ones, too. They are measured in turn,
//! window by window, so that what else the machine does meets both. Before each window the hung ones get a new URL,
//! which closes their breakers: all of them hang in every window, and none is left alone for what it did before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::call::{STEPS, write_step};
use crate::client::Client;
use crate::kills::median;
use crate::ledger::{Ledger, Slot};
use crate::load::{Load, Pace};
use crate::receiver::{Moods, Receiver, Seen};
use crate::report::Report;
use crate::say;
use crate::subject::{Place, Subject, account_name, free_ports, machine};

/// Connections that report the healthy endpoint's calls.
const PROBES: u32 = 10;
/// How long the last webhook of a window is waited for.
const LATE: Duration = Duration::from_secs(10);
/// Of each hung endpoint, before anything is measured.
const BACKLOG: u64 = 50;
/// How long that may take.
const FILLS: Duration = Duration::from_secs(120);
/// How long it may take until all of them hang again.
const HANGS: Duration = Duration::from_secs(60);
/// Webhooks between two looks at them.
const MOST_SEEN: usize = 100_000;
/// Events per second to all hung endpoints together, while it is measured.
const TRICKLE: u32 = 50;

/// What is done.
#[derive(Clone, Debug)]
pub struct Hung {
    /// The program, and where the switch with the hung endpoints runs. The other one's folder is in this one.
    pub place: Place,
    /// What all chance comes from.
    pub seed: u64,
    /// How many endpoints never answer.
    pub endpoints: u16,
    /// How often each of both is measured, and for how long.
    pub windows: u32,
    /// The length of a window.
    pub window: Duration,
    /// Events per second of the healthy endpoint.
    pub rate: u32,
    /// Whether times are promised.
    pub timed: bool,
}

/// A switch with its healthy endpoint.
struct Site {
    subject: Subject,
    ledger: Arc<Ledger>,
    receiver: Receiver,
    seen: mpsc::Receiver<Seen>,
    account: u16,
}

/// What a window measured, in order of size.
#[derive(Clone, Debug, Default)]
struct Window {
    times: Vec<Duration>,
    missing: u64,
}

impl Hung {
    /// Does it.
    ///
    /// # Errors
    ///
    /// When a switch does not start or end, or its API does not answer: not for broken promises.
    pub async fn run(self) -> anyhow::Result<Report> {
        let mut beside = self.place.clone();
        beside.folder.push("alone");
        let mut hung = self.open(self.place.clone(), self.endpoints).await?;
        (beside.http, beside.sip) = free_ports()?;
        let mut alone = match self.timed {
            true => Some(self.open(beside, 0).await?),
            false => None,
        };
        let load = self.fill(&hung).await?;
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let mut fewest = usize::MAX;
        for number in 1..=self.windows {
            if let Some(alone) = &mut alone {
                load.pause(true);
                without.push(self.measure(alone).await?);
                load.pause(false);
            }
            self.hang(&hung, number).await?;
            with.push(self.measure(&mut hung).await?);
            fewest = fewest.min(hung.receiver.hanging(number));
            let last = |windows: &[Window]| {
                windows
                    .last()
                    .map_or(Duration::ZERO, |it| it.percentile(99))
            };
            say(format!(
                "window {number}: p99 {:.1?} alone, {:.1?} beside the hung ones",
                last(&without),
                last(&with)
            ));
        }
        let title = format!("soak hung --seed {} on {}", self.seed, machine());
        let mut report = Report::new(title);
        self.tell(&mut report, &with, &without);
        let accepted = hung.ledger.accepted.load(Ordering::Relaxed);
        report.tell("events taken beside them", accepted);
        let all = usize::from(self.endpoints);
        let what = "fewest endpoints that hang at the end of a window";
        report.promise(what, fewest, &all.to_string(), fewest == all);
        load.stop();
        drop(load);
        hung.subject.kill()?;
        if let Some(alone) = &mut alone {
            alone.subject.kill()?;
        }
        Ok(report)
    }

    async fn open(&self, place: Place, endpoints: u16) -> anyhow::Result<Site> {
        let ledger = Arc::new(Ledger::new(endpoints, Duration::MAX));
        let moods = Moods {
            hung: endpoints,
            ..Moods::default()
        };
        let (told, seen) = mpsc::channel(MOST_SEEN);
        let watched = Some((endpoints, told));
        let receiver = Receiver::start(Arc::clone(&ledger), moods, self.seed, watched).await?;
        let delivery = if self.timed {
            ""
        } else {
            "attempt_timeout_seconds = 30"
        };
        let mut subject = Subject::new(place, delivery)?;
        ledger.starts();
        subject.spawn()?;
        subject.ready().await?;
        for account in 0..=endpoints {
            subject
                .provision(account, &receiver.url(account), "{}")
                .await?;
        }
        Ok(Site {
            subject,
            ledger,
            receiver,
            seen,
            account: endpoints,
        })
    }

    /// Gives each hung endpoint its backlog, and goes on slowly.
    async fn fill(&self, site: &Site) -> anyhow::Result<Load> {
        let accounts: Vec<u16> = (0..self.endpoints).collect();
        let pace = Pace {
            workers: 4,
            events_per_second: 2_000,
            batch: 10,
            calls: 5,
            sessions: u64::MAX,
            on_their_way: i64::MAX,
        };
        let load = Load::start(site.subject.api(), &site.ledger, &accounts, pace, self.seed);
        let wanted = BACKLOG * u64::from(self.endpoints);
        let deadline = Instant::now() + FILLS;
        while site.ledger.accepted.load(Ordering::Relaxed) < wanted
            || site.receiver.hanging(0) < usize::from(self.endpoints)
        {
            if Instant::now() > deadline {
                bail!(
                    "the hung endpoints have no backlog after {FILLS:?}\n{}",
                    site.subject.log()
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
        load.set_rate(TRICKLE);
        Ok(load)
    }

    /// Has all of them hang anew.
    async fn hang(&self, site: &Site, number: u32) -> anyhow::Result<()> {
        for account in 0..self.endpoints {
            let url = site.receiver.url_again(account, number);
            site.subject.move_webhook(account, &url).await?;
        }
        let deadline = Instant::now() + HANGS;
        while site.receiver.hanging(number) < usize::from(self.endpoints) {
            if Instant::now() > deadline {
                let hanging = site.receiver.hanging(number);
                bail!(
                    "{hanging} endpoints hang after {HANGS:?}\n{}",
                    site.subject.log()
                );
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Reports calls of the healthy endpoint for the length of a window, one event a request.
    async fn measure(&self, site: &mut Site) -> anyhow::Result<Window> {
        while site.seen.try_recv().is_ok() {}
        let begun: Arc<Mutex<BTreeMap<Slot, Instant>>> = Arc::default();
        let ends = Instant::now() + self.window;
        let failed = Arc::new(AtomicU32::new(0));
        let mut probes = JoinSet::new();
        let each = Duration::from_secs(1) * PROBES / self.rate.max(1);
        for number in 0..PROBES {
            let probe = Probe {
                api: site.subject.api(),
                ledger: Arc::clone(&site.ledger),
                account: site.account,
                begun: Arc::clone(&begun),
                failed: Arc::clone(&failed),
            };
            probes.spawn(probe.run(each * number / PROBES, each, ends));
        }
        while probes.join_next().await.is_some() {}
        if failed.load(Ordering::Relaxed) > 0 {
            bail!("the API refused events\n{}", site.subject.log());
        }
        let begun = std::mem::take(&mut *begun.lock().unwrap_or_else(PoisonError::into_inner));
        let mut window = Window::default();
        let mut open = begun;
        let late = tokio::time::Instant::now() + LATE;
        while !open.is_empty() {
            let Ok(Some(seen)) = tokio::time::timeout_at(late, site.seen.recv()).await else {
                break;
            };
            // A summary has no request of its own.
            if let Some(begun) = open.remove(&seen.slot) {
                window.times.push(seen.at.duration_since(begun));
            }
        }
        window.missing = open.len() as u64;
        window.times.sort_unstable();
        Ok(window)
    }

    fn tell(&self, report: &mut Report, with: &[Window], without: &[Window]) {
        report.tell("hung endpoints", self.endpoints);
        report.tell(
            "windows",
            format!(
                "{} of each kind, {:?} long, {} events/s",
                self.windows, self.window, self.rate
            ),
        );
        let middle = |windows: &[Window], percent| {
            let all: Vec<_> = windows.iter().map(|it| it.percentile(percent)).collect();
            median(&all)
        };
        if self.timed {
            let both = |percent| (middle(without, percent), middle(with, percent));
            let (alone, beside) = both(50);
            report.tell(
                "p50 from POST to webhook, median of the windows",
                format!("{alone:.2?} alone, {beside:.2?} beside them"),
            );
            let (alone, beside) = both(99);
            report.promise(
                "p99",
                format!("{alone:.2?} alone, {beside:.2?} beside them"),
                "≤ 2 times alone",
                beside <= alone * 2,
            );
        }
        let of = |sum: fn(&Window) -> u64| with.iter().chain(without).map(sum).sum::<u64>();
        report.tell(
            "webhooks of the healthy endpoint",
            of(|it| it.times.len() as u64),
        );
        report.none_of("missing after 10 s", of(|it| it.missing));
    }
}

impl Window {
    fn percentile(&self, percent: usize) -> Duration {
        let at = self.times.len() * percent / 100;
        let time = self.times.get(at.min(self.times.len().saturating_sub(1)));
        time.copied().unwrap_or_default()
    }
}

struct Probe {
    api: SocketAddr,
    ledger: Arc<Ledger>,
    account: u16,
    begun: Arc<Mutex<BTreeMap<Slot, Instant>>>,
    failed: Arc<AtomicU32>,
}

impl Probe {
    async fn run(self, first: Duration, each: Duration, ends: Instant) {
        let mut client = Client::new(self.api);
        let path = format!(
            "/api/v1/subaccounts/{}/call-events",
            account_name(self.account)
        );
        let mut call = (self.ledger.open(self.account), 0);
        let mut due = Instant::now() + first;
        while due < ends {
            tokio::time::sleep_until(due.into()).await;
            due += each;
            let (session, event) = call;
            let mut body = String::new();
            write_step(&mut body, session, event);
            let slot = Slot { session, event };
            self.begun
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(slot, Instant::now());
            let answer = client.request("POST", &path, &body).await;
            if !answer.is_ok_and(|answer| answer.status == 202) {
                self.failed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            call = match event + 1 {
                STEPS => (self.ledger.open(self.account), 0),
                next => (session, next),
            };
        }
    }
}
