//! What a run is made of: the calls, and everything that goes wrong around them.

use std::time::Duration;

use maskline_events::EarlyMedia;
use maskline_media::{Side, Voice};
use maskline_phone::{
    Announcement, Callee, Caller, Change, Manners, Outcome, Then, TimerPlan, What,
};
use maskline_switch::sip::Transport;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::numbering::Numbering;
use crate::site::ipv6_media;

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Feeds every random choice of the run.
    pub seed: u64,
    /// Shards of the switch, at least 1.
    pub shards: u16,
    /// The wires.
    pub network: NetworkPlan,
    /// The store.
    pub store: StorePlan,
    /// The calls.
    pub calls: Vec<CallPlan>,
    /// When the process dies.
    pub crashes: Vec<CrashPlan>,
    /// After how short an absence of the process connected calls go on.
    pub adopt_within: Duration,
    /// How long a callee may ring.
    pub no_answer: Duration,
    /// How long a call may last.
    pub max_duration: Duration,
    /// The callers' trunk takes this many calls at once.
    pub max_calls: u32,
    /// Whether our media have an address of each family, in place of one of IPv4.
    pub both_families: bool,
    /// How the carriers write numbers.
    pub numbering: Numbering,
    /// Whether the callers' trunk asks for credentials.
    pub callers_asked: bool,
    /// How much waits for a shard, and how long it takes for each; `None`: it takes no time.
    pub queue: Option<QueuePlan>,
    /// Whether the ways to callees are asked by OPTIONS, and when they do not answer. Needs a drain,
    /// or the run never rests.
    pub supervision: Option<SupervisionPlan>,
    /// What the carrier is like with which a trunk registers. Needs a drain, or the run never rests.
    pub registrar: Option<RegistrarPlan>,
    /// From when on new calls are refused, and after how much longer live ones are ended.
    pub drain: Option<(Duration, Duration)>,
    /// What is broken on purpose, to see that it is noticed.
    pub sabotage: Sabotage,
}

/// What the wires do to packets. Streams neither lose nor reorder.
#[derive(Clone, Copy, Debug)]
pub struct NetworkPlan {
    /// Shortest way.
    pub latency_min: Duration,
    /// Longest way; a large spread reorders.
    pub latency_max: Duration,
    /// Lost datagrams per thousand.
    pub loss_per_mille: u32,
    /// Doubled datagrams per thousand.
    pub duplicates_per_mille: u32,
}

/// The queue between the wires and each shard.
#[derive(Clone, Copy, Debug)]
pub struct QueuePlan {
    /// Messages that may wait.
    pub capacity: usize,
    /// What a shard takes for one.
    pub service: Duration,
}

/// How the ways to callees are supervised.
#[derive(Clone, Debug)]
pub struct SupervisionPlan {
    /// How often each address is asked.
    pub every: Duration,
    /// When some do not answer as they should.
    pub outages: Vec<Outage>,
}

/// A time in which ways to callees answer OPTIONS with 503 or not at all.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// Whose callee's; `None`: all.
    pub call: Option<usize>,
    /// By which way, 0 being the first; `None`: all.
    pub line: Option<usize>,
    /// From then on.
    pub from: Duration,
    /// Until then.
    pub to: Duration,
    /// Whether they say nothing, instead of 503.
    pub silent: bool,
}

/// A carrier's registrars.
#[derive(Clone, Debug)]
pub struct RegistrarPlan {
    /// How many there are; they share one table.
    pub count: usize,
    /// Whether they ask for credentials.
    pub asks: bool,
    /// The shortest registration that they take, in seconds.
    pub least_seconds: u32,
    /// The registration that we ask for, in seconds.
    pub expires_seconds: u32,
    /// When they do not do their work.
    pub faults: Vec<RegistrarFault>,
}

/// A time in which a registrar does not do its work.
#[derive(Clone, Copy, Debug)]
pub struct RegistrarFault {
    /// Which one.
    pub registrar: usize,
    /// From then on.
    pub from: Duration,
    /// Until then.
    pub to: Duration,
    /// Whether it says nothing, instead of 503.
    pub silent: bool,
}

/// How the store behaves.
#[derive(Clone, Debug)]
pub struct StorePlan {
    /// Quickest commit.
    pub latency_min: Duration,
    /// Slowest commit.
    pub latency_max: Duration,
    /// Periods in which commits fail: from, to. What failed is kept and committed later, in order.
    pub failing: Vec<(Duration, Duration)>,
    /// The so-manieth commit, counted from 0, is refused for what it holds.
    pub rejects: Option<u64>,
}

/// A crash and the restart after it.
#[derive(Clone, Copy, Debug)]
pub struct CrashPlan {
    /// When.
    pub at: CrashAt,
    /// Until the new process stands.
    pub down_for: Duration,
    /// Whether the commit that is under way still becomes durable.
    pub last_commit_survives: bool,
}

/// When a process dies. A moment at which none runs is made up for at once when the next does.
#[derive(Clone, Copy, Debug)]
pub enum CrashAt {
    /// After this step of the run.
    Step(u64),
    /// After the first step at or behind this time.
    Time(Duration),
}

/// One call.
#[derive(Clone, Debug)]
pub struct CallPlan {
    /// When the caller dials.
    pub starts: Duration,
    /// How the caller's messages travel.
    pub caller_transport: Transport,
    /// How the callee's messages travel.
    pub callee_transport: Transport,
    /// The caller's user.
    pub caller: Caller,
    /// Whether the caller's media are at an IPv6 address.
    pub caller_over_ipv6: bool,
    /// The caller's faults.
    pub caller_manners: Manners,
    /// The callee's user.
    pub callee: Callee,
    /// The callee's faults.
    pub callee_manners: Manners,
    /// Other ways to the callee, tried behind the first.
    pub others: Vec<OtherWay>,
    /// How many calls at once the callee's trunk takes.
    pub callee_trunk_calls: u32,
    /// What the callflow endpoint answers.
    pub vca: VcaAnswer,
    /// And after how long; `None`: never.
    pub vca_after: Option<Duration>,
    /// Whether the media engine has no port.
    pub no_ports: bool,
    /// Whether the ports of a call are gone after a restart.
    pub ports_lost: bool,
    /// Keys: so long after the call is connected, who, which.
    pub keys: Vec<(Duration, Side, char)>,
    /// How much later the switch hears of those.
    pub keys_told_after: Duration,
    /// The same by INFO, so long after the dialling.
    pub info_keys: Vec<(Duration, Side, char)>,
    /// Whose media stops, so long after the call is connected.
    pub silence: Option<(Duration, Side)>,
    /// Both users hang up at this very moment after the dialling.
    pub both_hang_up: Option<Duration>,
    /// Who holds, from when after the dialling, for how long.
    pub hold: Option<(Side, Duration, Duration)>,
    /// Who changes the call, when after the dialling, and how.
    pub changes: Vec<(Side, Duration, Change)>,
    /// When the streams of both phones break, after the dialling.
    pub stream_breaks: Option<Duration>,
    /// What the dialled number's callers hear before the answer.
    pub early_media: EarlyMedia,
    /// Whether the caller dials a number that nobody has.
    pub unassigned: bool,
    /// Whether the caller's carrier tells the number and asks not to show it.
    pub withholds: bool,
    /// Whether the caller's number is a virtual one: a call of ours that a carrier sent back.
    pub forwarded: bool,
    /// Whether the caller has the wrong password, should it be asked.
    pub caller_guesses: bool,
    /// What the callee asks for before it takes the call.
    pub callee_asks: Option<CalleeAsks>,
}

/// How a callee asks who calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct CalleeAsks {
    /// 407 instead of 401.
    pub proxy: bool,
    /// MD5 alone, instead of SHA-256 beside it.
    pub only_md5: bool,
    /// The first right answer is refused as stale.
    pub stale_once: bool,
    /// A BYE is asked as well.
    pub asks_bye: bool,
    /// Re-INVITEs and UPDATEs are asked as well, each again.
    pub asks_changes: bool,
    /// Whether the switch has another password.
    pub wrong_password: bool,
}

/// A way to the callee behind the first: a phone of its own stands for it.
#[derive(Clone, Debug)]
pub struct OtherWay {
    /// Whether it is a trunk of its own, or another address of the callee's.
    pub own_trunk: bool,
    /// How its messages travel.
    pub transport: Transport,
    /// Its user.
    pub callee: Callee,
    /// Its faults.
    pub manners: Manners,
}

/// What the callflow endpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcaAnswer {
    /// Call the callee, from the virtual number.
    MakeCall,
    /// Call the callee, from a number that the sub-account doesn't have.
    MakeCallFromElsewhere,
    /// Call a country that is not allowed.
    MakeCallAbroad,
    /// Call another virtual number.
    MakeCallToVirtual,
    /// `hangup`.
    Hangup,
    /// No action at all.
    Empty,
    /// An action that this version cannot carry out.
    Unsupported,
    /// It could not be asked.
    Unreachable,
    /// It answered what is no callflow.
    Invalid,
}

/// What a run breaks on purpose. Each must be noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing.
    #[default]
    None,
    /// Commits are reported before they are durable.
    ReportCommitsEarly,
    /// No BYE of the switch ever leaves.
    SwallowByes,
    /// The caller's display name is let through to the callee.
    LeakCallerName,
    /// Callers who withhold their number are shown.
    RevealWithheld,
    /// What the switch tells of B's messages is lost.
    LoseTrace,
    /// Nothing is added to events.
    LoseParameters,
    /// This field stands at the end of each event.
    AddToEvents(&'static str),
}

impl Default for CallPlan {
    /// Answered after 2 s of ringing; the caller hangs up after 5 s of talk.
    fn default() -> Self {
        Self {
            starts: Duration::from_millis(10),
            caller_transport: Transport::Udp,
            callee_transport: Transport::Udp,
            caller: Caller {
                cancel_after: None,
                hang_up_after: Some(Duration::from_secs(5)),
            },
            caller_over_ipv6: false,
            caller_manners: Manners::default(),
            callee: Callee {
                ring_after: Some(Duration::from_millis(200)),
                outcome: Outcome::Answer(Duration::from_secs(2)),
                hang_up_after: None,
            },
            callee_manners: Manners::default(),
            others: Vec::new(),
            callee_trunk_calls: 100,
            vca: VcaAnswer::MakeCall,
            vca_after: Some(Duration::from_millis(30)),
            no_ports: false,
            ports_lost: false,
            keys: Vec::new(),
            keys_told_after: Duration::ZERO,
            info_keys: Vec::new(),
            silence: None,
            both_hang_up: None,
            hold: None,
            changes: Vec::new(),
            stream_breaks: None,
            early_media: EarlyMedia::Ringback,
            unassigned: false,
            withholds: false,
            forwarded: false,
            caller_guesses: false,
            callee_asks: None,
        }
    }
}

impl Scenario {
    /// One call on a network and a store without faults.
    #[must_use]
    pub fn calm(call: CallPlan) -> Self {
        Self {
            seed: 1,
            shards: 2,
            network: NetworkPlan {
                latency_min: Duration::from_millis(5),
                latency_max: Duration::from_millis(5),
                loss_per_mille: 0,
                duplicates_per_mille: 0,
            },
            store: StorePlan {
                latency_min: Duration::from_millis(2),
                latency_max: Duration::from_millis(4),
                failing: Vec::new(),
                rejects: None,
            },
            calls: vec![call],
            crashes: Vec::new(),
            adopt_within: Duration::from_secs(5),
            no_answer: Duration::from_secs(30),
            max_duration: Duration::from_secs(120),
            max_calls: 100,
            both_families: false,
            numbering: Numbering::E164,
            callers_asked: false,
            queue: None,
            supervision: None,
            registrar: None,
            drain: None,
            sabotage: Sabotage::None,
        }
    }

    /// Anything at all, by the seed.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        let mut dice = Dice(ChaCha12Rng::seed_from_u64(seed));
        let rough = dice.chance(60);
        let jitter = dice.pick(&[0, 10, 80, 400]);
        let mut scenario = Self::calm(CallPlan::default());
        scenario.seed = seed;
        scenario.shards = dice.pick(&[1, 2, 3, 4]);
        scenario.network = NetworkPlan {
            latency_min: dice.millis(1, 40),
            latency_max: Duration::from_millis(40 + jitter),
            loss_per_mille: if rough {
                dice.pick(&[20, 50, 100, 200])
            } else {
                0
            },
            duplicates_per_mille: if rough { dice.pick(&[0, 20, 100]) } else { 0 },
        };
        scenario.store.latency_max = dice.pick(&[4, 20, 200, 1_500].map(Duration::from_millis));
        if dice.chance(30) {
            let from = dice.millis(0, 12_000);
            scenario
                .store
                .failing
                .push((from, from + dice.millis(200, 9_000)));
        }
        if dice.chance(6) {
            scenario.store.rejects = Some(dice.0.random_range(0..12));
        }
        scenario.no_answer = dice.pick(&[3, 8, 20].map(Duration::from_secs));
        scenario.max_duration = dice.pick(&[4, 15, 60, 200].map(Duration::from_secs));
        scenario.calls = (0..dice.pick(&[1, 1, 2, 3]))
            .map(|_| random_call(&mut dice))
            .collect();
        if dice.chance(10) {
            scenario.max_calls = 1;
        }
        scenario.callers_asked = dice.chance(30);
        if dice.chance(35) {
            for _ in 0..dice.pick(&[1, 1, 2]) {
                let crash = CrashPlan {
                    at: if dice.chance(50) {
                        CrashAt::Step(dice.0.random_range(2..130))
                    } else {
                        CrashAt::Time(dice.millis(100, 12_000))
                    },
                    down_for: dice.millis(10, 7_000),
                    last_commit_survives: dice.chance(50),
                };
                scenario.crashes.push(crash);
            }
        }
        if dice.chance(5) {
            scenario.drain = Some((dice.millis(0, 9_000), dice.millis(0, 9_000)));
        }
        if dice.chance(25) {
            let count = dice.pick(&[1, 2, 3]);
            let faults = (0..dice.pick(&[0, 1, 3])).map(|_| {
                let from = dice.millis(0, 60_000);
                RegistrarFault {
                    registrar: dice.0.random_range(0..count),
                    from,
                    to: from + dice.millis(0, 60_000),
                    silent: dice.chance(50),
                }
            });
            scenario.registrar = Some(RegistrarPlan {
                faults: faults.collect(),
                count,
                asks: dice.chance(70),
                least_seconds: dice.pick(&[0, 0, 40]),
                expires_seconds: dice.pick(&[30, 60, 300]),
            });
            scenario
                .drain
                .get_or_insert((dice.millis(20_000, 120_000), dice.millis(0, 9_000)));
        }
        scenario.numbering = dice.pick(&Numbering::ALL);
        for call in &mut scenario.calls {
            call.withholds = dice.chance(20);
            // A restarted process does not know which INVITEs the one before it took.
            call.caller_manners.merges = scenario.crashes.is_empty() && dice.chance(20);
            call.caller_manners.echoes = dice.chance(10);
            if dice.chance(40) {
                call.early_media = EarlyMedia::PassThrough;
            }
            call.callee_manners.announces = dice.chance(35).then(|| Announcement {
                after: dice.millis(0, 2_500),
                then: dice.pick(&[Then::Same, Then::Moves, Then::OnlyPcmu, Then::OtherDialog]),
            });
        }
        scenario.load(&mut dice);
        for call in &mut scenario.calls {
            for manners in [&mut call.caller_manners, &mut call.callee_manners] {
                manners.only = dice.pick(&[None, None, Some(Voice::Pcmu), Some(Voice::Pcma)]);
                manners.lacks_events = dice.chance(15);
                manners.lacks_info = dice.chance(30);
            }
        }
        scenario.both_families = dice.chance(50);
        for (at, call) in scenario.calls.iter_mut().enumerate() {
            call.caller_over_ipv6 = dice.chance(15);
            if dice.chance(15) {
                let side = dice.pick(&[Side::Caller, Side::Callee]);
                let moves = What::Move(ipv6_media(at, side)).by_invite();
                call.changes.push((side, dice.millis(500, 9_000), moves));
            }
        }
        scenario
    }
}

impl Scenario {
    /// Shards that are slow, floods, and addresses that seem to be down.
    fn load(&mut self, dice: &mut Dice) {
        if dice.chance(15) {
            self.queue = Some(QueuePlan {
                capacity: dice.pick(&[4, 8, 32]),
                service: dice.pick(&[1, 5, 20].map(Duration::from_millis)),
            });
            let at = dice.millis(0, 4_000);
            for _ in 0..dice.pick(&[0, 0, 8, 16]) {
                let mut call = random_call(dice);
                call.starts = at + dice.millis(0, 30);
                self.calls.push(call);
            }
            for call in &mut self.calls {
                // A copy of a call that is refused for overload may be taken.
                call.caller_manners.merges = false;
                call.caller_manners.echoes = false;
            }
        }
        if dice.chance(12) {
            let outages = (0..dice.pick(&[0, 1, 3])).map(|_| {
                let from = dice.millis(0, 6_000);
                Outage {
                    call: None,
                    line: dice.pick(&[None, Some(0), Some(1)]),
                    from,
                    to: from + dice.millis(0, 20_000),
                    silent: dice.chance(50),
                }
            });
            self.supervision = Some(SupervisionPlan {
                outages: outages.collect(),
                every: dice.pick(&[1, 3, 10].map(Duration::from_secs)),
            });
            self.drain
                .get_or_insert((dice.millis(10_000, 30_000), dice.millis(0, 9_000)));
        }
    }
}

fn talk(dice: &mut Dice) -> Option<Duration> {
    match dice.0.random_range(0..4) {
        0 => None,
        1 => Some(Duration::ZERO),
        _ => Some(dice.millis(1, 9_000)),
    }
}

fn random_callee(dice: &mut Dice) -> Callee {
    let outcome = match dice.0.random_range(0..10) {
        0 => Outcome::Ignore,
        1 => Outcome::Silence,
        2 | 3 => Outcome::Refuse {
            after: dice.millis(0, 3_000),
            status: dice.pick(&[302, 404, 408, 480, 484, 486, 488, 500, 503, 600, 603]),
            cause: dice.pick(&[None, None, Some(17), Some(19), Some(1), Some(34), Some(16)]),
        },
        _ => Outcome::Answer(dice.millis(0, 6_000)),
    };
    Callee {
        ring_after: dice.chance(75).then(|| dice.millis(0, 1_500)),
        outcome,
        hang_up_after: talk(dice),
    }
}

/// What makes a call go on to another way, more often than not.
fn random_failing_callee(dice: &mut Dice, manners: &mut Manners) -> Callee {
    let mut callee = random_callee(dice);
    if dice.chance(70) {
        callee.ring_after = None;
        callee.outcome = match dice.0.random_range(0..4) {
            0 => Outcome::Silence,
            1 => Outcome::Refuse {
                after: dice.millis(0, 5_000),
                status: dice.pick(&[503, 408]),
                cause: dice.pick(&[None, None, None, Some(34), Some(17)]),
            },
            _ => callee.outcome,
        };
    }
    if dice.chance(40) {
        manners.deaf_for = dice.millis(3_000, 9_000);
    } else if dice.chance(15) {
        manners.dies_after = Some(dice.millis(0, 6_000));
    }
    callee
}

fn random_call(dice: &mut Dice) -> CallPlan {
    let transports = [
        Transport::Udp,
        Transport::Udp,
        Transport::Udp,
        Transport::Tcp,
        Transport::Tls,
    ];
    let vca = match dice.0.random_range(0..20) {
        0 => VcaAnswer::Hangup,
        1 => VcaAnswer::Empty,
        2 => VcaAnswer::Unreachable,
        3 => VcaAnswer::Invalid,
        4 => VcaAnswer::MakeCallAbroad,
        5 => VcaAnswer::MakeCallFromElsewhere,
        6 => VcaAnswer::MakeCallToVirtual,
        7 => VcaAnswer::Unsupported,
        _ => VcaAnswer::MakeCall,
    };
    let side = |dice: &mut Dice| {
        if dice.chance(50) {
            Side::Caller
        } else {
            Side::Callee
        }
    };
    let timer = |dice: &mut Dice| {
        dice.chance(25).then(|| TimerPlan {
            seconds: dice.pick(&[80, 90, 90, 600]),
            refresher: dice.pick(&[None, Some("uac"), Some("uas")]),
            refreshes: dice.chance(80),
        })
    };
    let mut call = CallPlan {
        starts: dice.millis(0, 4_000),
        caller_transport: dice.pick(&transports),
        callee_transport: dice.pick(&transports),
        caller: Caller {
            cancel_after: dice.chance(25).then(|| dice.millis(0, 7_000)),
            hang_up_after: talk(dice),
        },
        caller_manners: Manners {
            never_acknowledges: dice.chance(6),
            ignores_bye: dice.chance(6),
            sends_noise: dice.chance(15),
            reliable: dice.chance(40),
            timer: timer(dice),
            requires_reliable: dice.chance(10),
            never_pracks: dice.chance(5),
            ..Manners::default()
        },
        callee: random_callee(dice),
        callee_manners: Manners {
            ignores_bye: dice.chance(6),
            answers_when_cancelled: dice.chance(25),
            forks: dice.chance(12),
            answers_early: dice.chance(30),
            updates_early: dice.chance(20),
            sends_noise: dice.chance(15),
            reliable: dice.chance(40),
            timer: timer(dice),
            ..Manners::default()
        },
        vca,
        vca_after: match dice.0.random_range(0..30) {
            0 => None,
            // Behind the shard's own guard.
            1 => Some(dice.millis(7_000, 9_000)),
            _ => Some(dice.millis(1, 2_500)),
        },
        no_ports: dice.chance(4),
        ports_lost: dice.chance(4),
        unassigned: dice.chance(3),
        caller_guesses: dice.chance(10),
        callee_asks: dice.chance(30).then(|| CalleeAsks {
            proxy: dice.chance(50),
            only_md5: dice.chance(50),
            stale_once: dice.chance(30),
            asks_bye: dice.chance(50),
            wrong_password: dice.chance(10),
            asks_changes: dice.chance(40),
        }),
        ..CallPlan::default()
    };
    for _ in 0..dice.pick(&[0, 0, 1, 3]) {
        let key = dice.pick(&['1', '5', '#', 'A']);
        call.keys.push((dice.millis(0, 5_000), side(dice), key));
    }
    for _ in 0..dice.pick(&[0, 0, 0, 3]) {
        let key = dice.pick(&['1', '5', '#', 'A']);
        let after = dice.millis(2_000, 9_000);
        call.info_keys.push((after, side(dice), key));
    }
    if dice.chance(30) {
        call.callee = random_failing_callee(dice, &mut call.callee_manners);
        for _ in 0..dice.pick(&[1, 1, 2, 4]) {
            let mut manners = Manners {
                answers_when_cancelled: dice.chance(25),
                ..Manners::default()
            };
            let callee = if dice.chance(50) {
                random_failing_callee(dice, &mut manners)
            } else {
                random_callee(dice)
            };
            call.others.push(OtherWay {
                own_trunk: dice.chance(50),
                transport: dice.pick(&transports),
                callee,
                manners,
            });
        }
        if dice.chance(10) {
            call.callee_trunk_calls = 0;
        }
    }
    if dice.chance(8) {
        call.silence = Some((dice.millis(0, 5_000), side(dice)));
    }
    if dice.chance(15) {
        call.both_hang_up = Some(dice.millis(0, 9_000));
    }
    if dice.chance(15) {
        call.hold = Some((side(dice), dice.millis(1_000, 6_000), dice.millis(0, 3_000)));
    }
    random_changes(dice, &mut call);
    if dice.chance(15) {
        call.stream_breaks = Some(dice.millis(0, 8_000));
    }
    call
}

/// Changes within the call, often at the same moment, and phones that deal with them badly.
fn random_changes(dice: &mut Dice, call: &mut CallPlan) {
    for _ in 0..dice.pick(&[0, 0, 0, 1, 2, 4]) {
        let change = Change {
            what: dice.pick(&[
                What::Hold,
                What::HoldInactive,
                What::Resume,
                What::OnlyPcmu,
                What::OnlyPcma,
                What::AnyCodec,
                What::Ask,
                What::Refresh,
            ]),
            by_update: dice.chance(30),
            cancel_after: dice.chance(15).then(|| dice.millis(0, 600)),
        };
        let at = dice.millis(500, 9_000);
        let side = dice.pick(&[Side::Caller, Side::Callee]);
        call.changes.push((side, at, change));
        if dice.chance(40) {
            let other = What::Hold.by_invite();
            let later = at + dice.millis(0, 60);
            call.changes.push((side.other(), later, other));
        }
    }
    call.caller_manners.dials_without_offer = dice.chance(12);
    for manners in [&mut call.caller_manners, &mut call.callee_manners] {
        if dice.chance(10) {
            manners.refuses_changes = Some(dice.pick(&[488, 491, 500, 603, 481, 408]));
        }
        manners.ignores_changes = dice.chance(4);
        manners.answers_no_offer = dice.chance(5);
    }
}

struct Dice(ChaCha12Rng);

impl Dice {
    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.0.random_range(from..=to))
    }

    #[allow(
        clippy::indexing_slicing,
        reason = "the index is below the list's length"
    )]
    fn pick<T: Copy, const N: usize>(&mut self, of: &[T; N]) -> T {
        of[self.0.random_range(0..N)]
    }
}
