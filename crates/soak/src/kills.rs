//! The switch is killed at random moments under load, again and again: nothing may be lost, turned
//! round or left over, and delivery goes on at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use crate::history::{Closed, History};
use crate::ledger::{Fault, Ledger};
use crate::load::{Load, Pace};
use crate::receiver::{Moods, Receiver};
use crate::report::Report;
use crate::say;
use crate::subject::{Place, Subject, machine};

/// How soon webhooks come again after a start.
const RESUMES: Duration = Duration::from_secs(2);
/// An acknowledgement is on disk after so long, at most.
const FORGETS: Duration = Duration::from_secs(1);
/// A start of which nothing is heard for so long has failed.
const SILENT: Duration = Duration::from_secs(20);
/// Events per second once no more calls begin.
const LAST_CALLS: u32 = 2_000;
/// For what is left at the end: retries of 1, 10 and 30 s, by a breaker that may wait for 60 s.
const SETTLES: Duration = Duration::from_secs(180);

/// What is done.
#[derive(Clone, Debug)]
pub struct Kills {
    /// The program and where it runs.
    pub place: Place,
    /// What all chance comes from.
    pub seed: u64,
    /// How often it is killed.
    pub kills: u32,
    /// Events per second.
    pub rate: u32,
    /// How long it lives before a kill, at most, counted from its first webhook.
    pub longest_life: Duration,
    /// Attempts of an event that may fail. Retries come after 1, 10, 30 s.
    pub failures: u16,
    /// Whether times are promised: not on a machine that has other things to do.
    pub timed: bool,
}

/// The times that were seen.
#[derive(Debug, Default)]
struct Times {
    first: Vec<Duration>,
    first_old: Vec<Duration>,
    duplicates: Vec<u32>,
    while_starting: u32,
}

impl Kills {
    /// Does it.
    ///
    /// # Errors
    ///
    /// When the switch does not start or end, or its API does not answer: not for broken promises.
    pub async fn run(self) -> anyhow::Result<Report> {
        let accounts: Vec<u16> = (0..8).collect();
        let moods = Moods {
            fails: 60,
            resets: 30,
            hangs: 5,
            slow: 50,
            slowest: Duration::from_millis(80),
            last_attempt: self.failures + 1,
            hung: 0,
        };
        let ledger = Arc::new(Ledger::new(0, Duration::MAX));
        let receiver = Receiver::start(Arc::clone(&ledger), moods, self.seed, None).await?;
        let mut subject = Subject::new(self.place.clone(), "attempt_timeout_seconds = 2")?;
        ledger.starts();
        subject.spawn()?;
        subject.ready().await?;
        for account in &accounts {
            subject
                .provision(*account, &receiver.url(*account), "{}")
                .await?;
        }
        let pace = Pace {
            workers: 8,
            events_per_second: self.rate,
            batch: 4,
            calls: 5,
            sessions: u64::MAX,
            on_their_way: 20_000,
        };
        let began = Instant::now();
        let load = Load::start(subject.api(), &ledger, &accounts, pace, self.seed);
        let times = self.kill_again(&mut subject, &ledger, &receiver).await?;
        load.stop();
        load.set_rate(LAST_CALLS);
        receiver.heal();
        load.ended().await;
        let open = settled(&ledger).await;
        say(format!(
            "{open} events are left after {:.0?}",
            began.elapsed()
        ));
        let history = History::read(subject.api(), &accounts).await?;
        subject.end().await?;
        let closed = Closed::open(&subject.database())?;
        let mut report = Report::new(format!("soak kills --seed {} on {}", self.seed, machine()));
        self.tell(&mut report, &ledger, &times);
        receiver.tell(&mut report);
        faults(&mut report, &ledger, &history);
        report.tell("events by the API", history.in_words());
        let told = ledger.accepted.load(Ordering::Relaxed) + ledger.sessions();
        let missing = told.abs_diff(history.events());
        report.none_of("events that the API lacks or has in excess", missing);
        report.none_of("sessions with a gap", ledger.gaps().len() as u64);
        closed.check(&mut report)?;
        Ok(report)
    }

    async fn kill_again(
        &self,
        subject: &mut Subject,
        ledger: &Ledger,
        receiver: &Receiver,
    ) -> anyhow::Result<Times> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut times = Times::default();
        for kill in 1..=self.kills {
            let started = Instant::now();
            if random.random_ratio(1, 8) {
                // While it starts.
                times.while_starting += 1;
                sleep(random.random_range(Duration::ZERO..Duration::from_millis(150))).await;
            } else {
                while ledger.life().first.is_none() && started.elapsed() < SILENT {
                    sleep(Duration::from_millis(5)).await;
                }
                let life = random.random_range(Duration::from_millis(50)..self.longest_life);
                sleep(life).await;
            }
            ledger.is_killed();
            subject.kill()?;
            times.take(ledger);
            // What it sent is read to its end: it belongs to the life that is over.
            let deadline = Instant::now() + Duration::from_secs(10);
            sleep(Duration::from_millis(20)).await;
            while receiver.open() > 0 && Instant::now() < deadline {
                sleep(Duration::from_millis(5)).await;
            }
            ledger.starts();
            subject.spawn()?;
            if kill % 10 == 0 {
                let accepted = ledger.accepted.load(Ordering::Relaxed);
                say(format!("{kill} kills, {accepted} events taken"));
            }
        }
        let started = Instant::now();
        while ledger.life().first.is_none() && started.elapsed() < SILENT {
            sleep(Duration::from_millis(5)).await;
        }
        times.take(ledger);
        Ok(times)
    }

    fn tell(&self, report: &mut Report, ledger: &Ledger, times: &Times) {
        let count = |it: &std::sync::atomic::AtomicU64| it.load(Ordering::Relaxed);
        report.tell(
            "kills",
            format!(
                "{}, {} of them while it started",
                self.kills, times.while_starting
            ),
        );
        let (accepted, sessions) = (count(&ledger.accepted), ledger.sessions());
        report.tell("events taken", format!("{accepted} of {sessions} sessions"));
        report.tell(
            "requests of the load without answer, put off",
            format!("{}, {}", count(&ledger.unanswered), count(&ledger.put_off)),
        );
        report.tell("webhook requests", count(&ledger.arrivals));
        let most = times.duplicates.iter().max().copied().unwrap_or_default();
        report.tell(
            "of them acknowledged before a kill",
            format!(
                "{}, {most} at most after one kill",
                count(&ledger.duplicates)
            ),
        );
        let age = ledger.oldest_duplicate();
        let what = "acknowledged before that kill at most";
        self.timed(report, what, age, FORGETS);
        for (what, times) in [
            ("start to first webhook", &times.first),
            (
                "start to first webhook of an event before it",
                &times.first_old,
            ),
        ] {
            let most = times.iter().max().copied().unwrap_or_default();
            self.timed(report, what, most, RESUMES);
            report.tell(
                "  median, measured",
                format!("{:.0?}, {}", median(times), times.len()),
            );
        }
    }

    fn timed(&self, report: &mut Report, what: &str, seen: Duration, most: Duration) {
        let text = format!("{seen:.0?}");
        if self.timed {
            report.promise(what, text, &format!("≤ {most:?}"), seen <= most);
        } else {
            report.tell(what, text);
        }
    }
}

impl Times {
    fn take(&mut self, ledger: &Ledger) {
        let life = ledger.life();
        self.first.extend(life.first);
        self.first_old.extend(life.first_old);
        self.duplicates.push(life.duplicates);
    }
}

/// Waits until nothing more is owed. How much is.
async fn settled(ledger: &Ledger) -> usize {
    let deadline = Instant::now() + SETTLES;
    loop {
        let open = ledger.open_events().len();
        if open == 0 || Instant::now() > deadline {
            return open;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What must not have happened, whatever else did.
pub(crate) fn faults(report: &mut Report, ledger: &Ledger, history: &History) {
    let open = ledger.open_events();
    let lost = open.iter().filter(|(slot, id)| !history.keeps(*slot, *id));
    report.none_of("events lost", lost.count() as u64);
    let inversions = ledger.inversions(&history.dead);
    report.none_of("order inversions", inversions.len() as u64);
    if !inversions.is_empty() {
        let first: Vec<_> = inversions.iter().take(3).collect();
        report.tell("  such as", format!("{first:?}"));
    }
    for (what, fault) in [
        ("events sent again without a kill", Fault::Doubled),
        ("events with two ids", Fault::TwoIds),
        ("ids with two bodies", Fault::TwoBodies),
        ("requests of no event, or at another endpoint", Fault::Stray),
        (
            "events that were refused, or answered otherwise",
            Fault::Refused,
        ),
    ] {
        let (count, examples) = ledger.faults(fault);
        report.none_of(what, count);
        for example in examples {
            report.tell("  such as", example);
        }
    }
}

/// The middle one.
pub(crate) fn median(times: &[Duration]) -> Duration {
    let sorted: BTreeSet<_> = times
        .iter()
        .enumerate()
        .map(|(at, time)| (*time, at))
        .collect();
    let middle = sorted.iter().nth(sorted.len() / 2);
    middle.map_or(Duration::ZERO, |(time, _)| *time)
}
