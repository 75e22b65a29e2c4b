//! A million events to endpoints that fail, reset, hang and are slow at random, and to some that are
//! never there: each is delivered or kept, in order, and memory stays where it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::time::sleep;

use crate::history::{Closed, History};
use crate::kills::faults;
use crate::ledger::Ledger;
use crate::load::{Load, Pace};
use crate::receiver::{Moods, Receiver};
use crate::report::Report;
use crate::say;
use crate::subject::{Place, Subject, machine};

/// Of these, every tenth never answers and every tenth can't be reached.
const TENTH: u16 = 10;
/// Where nothing listens.
const NOBODY: &str = "http://127.0.0.1:1/";
/// There an event is dead at its second failure.
const GIVES_UP: &str = r#"{"retryDelaysSeconds":[1]}"#;
/// From event to event of a session, at most, before it is parked.
const ORDER_DEADLINE: Duration = Duration::from_secs(20);
/// Memory is looked at so often.
const LOOKS: Duration = Duration::from_secs(1);
/// Looks between two lines on the way.
const TOLD: usize = 15;
/// For what is left at the end: retries of 1, 10, 30 and 90 s.
const SETTLES: Duration = Duration::from_secs(240);
/// Nothing was delivered for so long: it hangs.
const STANDS: Duration = Duration::from_secs(120);

/// What is done.
#[derive(Clone, Debug)]
pub struct Million {
    /// The program and where it runs.
    pub place: Place,
    /// What all chance comes from.
    pub seed: u64,
    /// How many events: eight for each session.
    pub events: u64,
    /// Sub-accounts, a multiple of ten.
    pub accounts: u16,
    /// Events per second that are offered, at most.
    pub rate: u32,
    /// Attempts of an event that may fail. Retries come after 1, 10, 30, 90 s.
    pub failures: u16,
    /// Whether memory is promised; a short run has hardly reached it when it ends.
    pub flat: bool,
}

/// Memory at a time.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Duration,
    through: u64,
    bytes: u64,
}

impl Million {
    /// Does it.
    ///
    /// # Errors
    ///
    /// When the switch does not start or end, or its API does not answer: not for broken promises.
    pub async fn run(self) -> anyhow::Result<Report> {
        let tenth = self.accounts / TENTH;
        let accounts: Vec<u16> = (0..self.accounts).collect();
        let moods = Moods {
            fails: 40,
            resets: 20,
            hangs: 3,
            slow: 60,
            slowest: Duration::from_millis(300),
            last_attempt: self.failures + 1,
            hung: tenth,
        };
        let ledger = Arc::new(Ledger::new(2 * tenth, ORDER_DEADLINE));
        let receiver = Receiver::start(Arc::clone(&ledger), moods, self.seed, None).await?;
        let deadline = ORDER_DEADLINE.as_secs();
        let mut subject = Subject::new(
            self.place.clone(),
            &format!("attempt_timeout_seconds = 2\norder_deadline_seconds = {deadline}"),
        )?;
        ledger.starts();
        subject.spawn()?;
        subject.ready().await?;
        for account in &accounts {
            let (url, settings) = match *account {
                account if (tenth..2 * tenth).contains(&account) => (NOBODY.to_owned(), GIVES_UP),
                account => (receiver.url(account), "{}"),
            };
            subject.provision(*account, &url, settings).await?;
        }
        let pace = Pace {
            workers: 16,
            events_per_second: self.rate,
            batch: 20,
            calls: 20,
            sessions: self.events / 8,
            on_their_way: 20_000,
        };
        let began = Instant::now();
        let load = Load::start(subject.api(), &ledger, &accounts, pace, self.seed);
        let looks = self.watch(&subject, &ledger, load).await?;
        let took = began.elapsed();
        receiver.heal();
        settled(&ledger).await;
        say(format!(
            "settled after {:.0?}; now the events API",
            began.elapsed()
        ));
        let history = History::read(subject.api(), &accounts).await?;
        let last = subject.resident_bytes();
        subject.end().await?;
        let closed = Closed::open(&subject.database())?;
        let title = format!("soak million --seed {} on {}", self.seed, machine());
        let mut report = Report::new(title);
        self.tell(&mut report, &ledger, took);
        receiver.tell(&mut report);
        faults(&mut report, &ledger, &history);
        report.tell("events by the API", history.in_words());
        let told = ledger.accepted.load(Ordering::Relaxed) + ledger.sessions();
        let missing = told.abs_diff(history.events());
        report.none_of("events that the API lacks or has in excess", missing);
        let owed = ledger.owed();
        report.none_of(
            "of endpoints that answer, not delivered",
            owed.unsigned_abs(),
        );
        let late_or_lost = closed.late_or_lost()?;
        let gaps = ledger.gaps();
        report.tell("sessions with a gap", gaps.len());
        let unfounded = gaps.difference(&late_or_lost).count();
        report.none_of("of them without a parked or lost event", unfounded as u64);
        report.tell(
            "summaries after the order deadline",
            ledger.late_summaries(),
        );
        closed.check(&mut report)?;
        self.memory(&mut report, &looks, last);
        Ok(report)
    }

    /// Until the load has ended.
    async fn watch(
        &self,
        subject: &Subject,
        ledger: &Ledger,
        mut load: Load,
    ) -> anyhow::Result<Vec<Look>> {
        let began = Instant::now();
        let (mut looks, mut moved) = (Vec::new(), (0, began));
        while !load.has_ended() {
            sleep(LOOKS).await;
            let through = ledger.acknowledged.load(Ordering::Relaxed);
            if through > moved.0 {
                moved = (through, Instant::now());
            }
            if moved.1.elapsed() > STANDS {
                bail!("nothing was delivered for {STANDS:?}\n{}", subject.log());
            }
            let look = Look {
                at: began.elapsed(),
                through,
                bytes: subject.resident_bytes(),
            };
            looks.push(look);
            if looks.len().is_multiple_of(TOLD) {
                let taken = ledger.accepted.load(Ordering::Relaxed);
                say(format!(
                    "{:>4.0?}: {taken} status events taken, {through} events delivered, {} MiB resident",
                    look.at,
                    mib(look.bytes)
                ));
            }
        }
        Ok(looks)
    }

    fn tell(&self, report: &mut Report, ledger: &Ledger, took: Duration) {
        let accepted = ledger.accepted.load(Ordering::Relaxed);
        let sessions = ledger.sessions();
        let events = accepted + sessions;
        report.tell(
            "events",
            format!("{events} of {sessions} sessions, with their summaries"),
        );
        let tenth = self.accounts / TENTH;
        report.tell(
            "sub-accounts",
            format!(
                "{}: {tenth} never answer, {tenth} can't be reached",
                self.accounts
            ),
        );
        report.tell(
            "reported in",
            format!(
                "{took:.0?}: {:.0} events/s",
                events as f64 / took.as_secs_f64()
            ),
        );
        let arrivals = ledger.arrivals.load(Ordering::Relaxed);
        let through = ledger.acknowledged.load(Ordering::Relaxed);
        report.tell(
            "webhook requests",
            format!("{arrivals}, {through} events acknowledged"),
        );
        let (unanswered, put_off) = (&ledger.unanswered, &ledger.put_off);
        report.tell(
            "requests of the load without answer, put off",
            format!(
                "{}, {}",
                unanswered.load(Ordering::Relaxed),
                put_off.load(Ordering::Relaxed)
            ),
        );
    }

    /// Ten looks, and whether the second half of the run has more than the first.
    fn memory(&self, report: &mut Report, looks: &[Look], last: u64) {
        let middle = looks.len() / 2;
        let most = |looks: &[Look]| looks.iter().map(|it| it.bytes).max().unwrap_or_default();
        let (first, second) = looks.split_at(middle);
        for tenth in 1..=10 {
            if let Some(look) = looks.get((looks.len() * tenth / 10).saturating_sub(1)) {
                report.tell(
                    &format!("resident after {:.0?}", look.at),
                    format!("{} MiB, {} events delivered", mib(look.bytes), look.through),
                );
            }
        }
        report.tell("resident at the end", format!("{} MiB", mib(last)));
        let (first, second) = (most(first), most(second));
        let what = "most of it in the second half of the run";
        let seen = format!("{} MiB, {} in the first", mib(second), mib(first));
        if self.flat {
            let kept = second <= first + first / 5;
            report.promise(what, seen, "≤ 1.2 times the first", kept);
        } else {
            report.tell(what, seen);
        }
    }
}

/// Waits until nothing more is owed to endpoints that answer.
async fn settled(ledger: &Ledger) {
    let deadline = Instant::now() + SETTLES;
    while ledger.owed() > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(200)).await;
    }
}

const fn mib(bytes: u64) -> u64 {
    bytes >> 20
}
