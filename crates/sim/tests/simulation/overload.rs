//! More calls at once than a shard's queue takes: those that are refused leave no trace, the others
//! go on.

use std::time::Duration;

use maskline_switch::sip::Transport;
use sim::{CallPlan, CrashAt, CrashPlan, Outcome, QueuePlan, Scenario};

use crate::holds;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Calls that come together, to shards that take 10 ms for a message and let 16 wait.
fn flood(calls: usize, transport: Transport) -> Scenario {
    let mut scenario = Scenario::calm(CallPlan::default());
    scenario.calls = (0..calls)
        .map(|_| CallPlan {
            caller_transport: transport,
            callee_transport: transport,
            ..CallPlan::default()
        })
        .collect();
    scenario.queue = Some(QueuePlan {
        capacity: 16,
        service: ms(10),
    });
    scenario
}

/// How many calls were refused with 503 and how many went well; no call may do anything else.
#[track_caller]
fn refused_and_well(outcome: &Outcome) -> (usize, usize) {
    let finals = |status| {
        let callers = outcome.phones.iter();
        callers
            .filter(|(a, _)| a.final_status == Some(status))
            .count()
    };
    let (refused, well) = (finals(503), finals(200));
    assert_eq!(refused + well, outcome.phones.len(), "{}", outcome.ladder);
    assert_eq!(outcome.sessions.len(), well);
    for session in &outcome.sessions {
        assert_eq!(
            session.lines().last().unwrap(),
            "SUMMARY COMPLETED COMPLETED COMPLETED"
        );
    }
    (refused, well)
}

fn counted(outcome: &Outcome) -> u64 {
    ["overload", "overload_of_trunk"]
        .iter()
        .filter_map(|reason| outcome.counts.get(reason))
        .sum()
}

#[test]
fn calls_beyond_a_trunks_share_of_the_queue_are_refused_and_the_others_go_well() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let outcome = holds(&flood(40, transport));
        let (refused, well) = refused_and_well(&outcome);
        // Half of each of two queues.
        assert_eq!((refused, well), (24, 16), "{transport:?}");
        assert_eq!(counted(&outcome), 24);
        // What belongs to a call waits in its stream; a datagram is lost and comes again.
        let lost = outcome.counts.contains_key("queue_overflow");
        assert!(!lost || transport == Transport::Udp);
    }
}

#[test]
fn a_callers_next_call_is_taken_when_the_flood_is_over() {
    let mut scenario = flood(40, Transport::Udp);
    for call in scenario.calls.iter_mut().skip(34) {
        call.starts = ms(4_000);
    }
    let outcome = holds(&scenario);
    for (caller, _) in &outcome.phones[34..] {
        assert_eq!(caller.final_status, Some(200));
    }
    let (refused, _) = refused_and_well(&outcome);
    assert_eq!(counted(&outcome), refused as u64);
}

#[test]
fn calls_that_are_up_end_well_in_a_flood() {
    let mut scenario = flood(40, Transport::Udp);
    for call in scenario.calls.iter_mut().skip(6) {
        // When the first six hang up.
        call.starts = ms(7_000);
    }
    let outcome = holds(&scenario);
    for (caller, callee) in &outcome.phones[..6] {
        assert_eq!(
            (caller.final_status, callee.final_status),
            (Some(200), Some(200))
        );
    }
    assert!(refused_and_well(&outcome).0 > 0);
}

#[test]
fn a_repetition_meets_what_its_first_met() {
    // Everybody repeats before the shards have come to the last.
    let mut scenario = flood(40, Transport::Udp);
    scenario.queue = Some(QueuePlan {
        capacity: 16,
        service: ms(60),
    });
    scenario.network.duplicates_per_mille = 1_000;
    let outcome = holds(&scenario);
    let (refused, _) = refused_and_well(&outcome);
    assert!(refused >= 20);
    assert!(
        counted(&outcome) > refused as u64,
        "repetitions are answered again"
    );
}

/// Calls that were refused for overload and are in the journal all the same.
fn refused_and_taken(outcome: &Outcome) -> usize {
    let has = |call: &str, what: &str| {
        let mut lines = outcome.ladder.lines();
        lines.any(|line| line.split_whitespace().nth(1) == Some(call) && line.contains(what))
    };
    let calls = (0..outcome.phones.len()).map(|call| call.to_string());
    calls
        .filter(|call| has(call, "503 to INVITE") && has(call, "decided: A CallReceived"))
        .count()
}

#[test]
fn a_repetition_that_finds_room_is_refused_again_but_not_by_the_next_process() {
    // Some refusals are lost, and their callers repeat when the queues are empty.
    let mut scenario = flood(40, Transport::Udp);
    scenario.network.loss_per_mille = 300;
    assert_eq!(refused_and_taken(&holds(&scenario)), 0);
    // The process dies before that.
    scenario.crashes = vec![CrashPlan {
        at: CrashAt::Time(ms(300)),
        down_for: ms(100),
        last_commit_survives: true,
    }];
    let outcome = holds(&scenario);
    assert_ne!(refused_and_taken(&outcome), 0, "{}", outcome.ladder);
}

#[test]
fn floods_on_bad_networks_and_failing_stores_leave_every_session_whole() {
    for seed in 0..32 {
        let mut scenario = Scenario::random(95_000 + seed);
        let one = scenario.calls[0].clone();
        for _ in 0..24 {
            scenario.calls.push(CallPlan {
                starts: one.starts + ms(seed * 3),
                ..one.clone()
            });
        }
        for call in &mut scenario.calls {
            call.caller_manners.merges = false;
            call.caller_manners.echoes = false;
        }
        scenario.queue = Some(QueuePlan {
            capacity: 8,
            service: ms(5),
        });
        holds(&scenario);
    }
}
