//! A connected call goes on after a short restart, and no event says anything of it.

use std::time::Duration;

use maskline_media::Side;
use maskline_phone::{Callee, Caller, Manners, Outcome, TimerPlan, What};
use maskline_switch::sip::Transport;
use sim::{CallPlan, CrashAt, CrashPlan, Scenario};

use crate::holds;

const TRANSPORTS: [Transport; 2] = [Transport::Udp, Transport::Tcp];

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Connected after two seconds; ended by the caller seven seconds after the dialling.
fn call(transport: Transport) -> CallPlan {
    CallPlan {
        caller_transport: transport,
        callee_transport: transport,
        ..CallPlan::default()
    }
}

fn crashing(call: CallPlan, at: Duration, down_for: Duration) -> Scenario {
    let mut scenario = Scenario::calm(call);
    scenario.crashes = vec![crash(at, down_for)];
    scenario
}

const fn crash(at: Duration, down_for: Duration) -> CrashPlan {
    CrashPlan {
        at: CrashAt::Time(at),
        down_for,
        last_commit_survives: true,
    }
}

#[track_caller]
fn lines(scenario: &Scenario) -> Vec<String> {
    let outcome = holds(scenario);
    for (a, b) in &outcome.phones {
        let alone = a.patience_ran_out || b.patience_ran_out;
        assert!(!alone, "a party is left alone\n{}", outcome.ladder);
    }
    outcome.sessions[0].lines()
}

#[test]
fn a_call_that_was_cut_off_is_told_as_if_nothing_had_happened() {
    for transport in TRANSPORTS {
        let expected = lines(&Scenario::calm(call(transport)));
        for at in (2_400..7_100).step_by(100) {
            let scenario = crashing(call(transport), ms(at), ms(900));
            assert_eq!(lines(&scenario), expected, "{transport:?} at {at} ms");
        }
    }
}

#[test]
fn it_is_so_for_the_callee_that_hangs_up_and_after_two_crashes() {
    let plan = || CallPlan {
        caller: Caller::default(),
        callee: Callee {
            ring_after: Some(ms(200)),
            outcome: Outcome::Answer(ms(500)),
            hang_up_after: Some(ms(9_000)),
        },
        ..CallPlan::default()
    };
    let expected = lines(&Scenario::calm(plan()));
    let mut scenario = crashing(plan(), ms(2_000), ms(300));
    // The second comes while the first one's questions are under way.
    scenario.crashes.push(crash(ms(2_306), ms(300)));
    scenario.crashes.push(crash(ms(5_000), ms(4_900)));
    assert_eq!(lines(&scenario), expected);
}

#[test]
fn a_hold_that_began_before_the_crash_is_ended_after_it() {
    for transport in TRANSPORTS {
        let mut plan = call(Transport::Udp);
        plan.caller_transport = transport;
        plan.hold = Some((Side::Callee, ms(3_000), ms(2_000)));
        let expected = lines(&Scenario::calm(plan.clone()));
        assert!(expected.iter().any(|line| line.ends_with("RESUMED")));
        for at in [3_100, 3_500, 4_000] {
            let scenario = crashing(plan.clone(), ms(at), ms(500));
            assert_eq!(lines(&scenario), expected, "{transport:?} at {at} ms");
        }
    }
}

#[test]
fn a_call_lasts_no_longer_than_it_may_from_its_answer() {
    let mut plan = call(Transport::Udp);
    plan.caller.hang_up_after = None;
    let mut scenario = crashing(plan, ms(40_000), ms(3_000));
    scenario.max_duration = Duration::from_secs(60);
    let outcome = holds(&scenario);
    assert!(outcome.counts.contains_key("max_duration"));
    // What is left after the end takes 64·T1; a new hour glass would have begun at 43 s.
    assert!(
        outcome.rested_at < Duration::from_secs(100),
        "{:?}\n{}",
        outcome.rested_at,
        outcome.ladder
    );
}

#[test]
fn a_longer_absence_ends_the_call_in_error() {
    let scenario = crashing(call(Transport::Udp), ms(4_000), ms(5_100));
    let told = lines(&scenario);
    assert_eq!(
        told.last().unwrap(),
        "SUMMARY COMPLETED COMPLETED ERROR -2001"
    );
}

#[test]
fn a_call_whose_ports_are_another_s_is_ended_in_error() {
    let mut plan = call(Transport::Udp);
    plan.ports_lost = true;
    let told = lines(&crashing(plan, ms(4_000), ms(500)));
    assert_eq!(
        told.last().unwrap(),
        "SUMMARY COMPLETED COMPLETED ERROR -2001"
    );
}

/// The BYE was answered and the process died before it was durable: the party that is asked does
/// not know its dialog any more.
#[test]
fn a_party_that_hung_up_unheard_ends_the_call() {
    let mut unheard = 0;
    let steps = holds(&Scenario::calm(call(Transport::Udp))).steps;
    for step in 1..=steps {
        let mut scenario = Scenario::calm(call(Transport::Udp));
        scenario.crashes = vec![CrashPlan {
            at: CrashAt::Step(step),
            down_for: ms(700),
            last_commit_survives: false,
        }];
        let outcome = holds(&scenario);
        if outcome.counts.contains_key("hung_up_unheard") {
            unheard += 1;
            let told = outcome.sessions[0].lines();
            assert_eq!(
                told.last().unwrap(),
                "SUMMARY COMPLETED COMPLETED COMPLETED"
            );
        }
    }
    assert!(unheard > 0, "no crash came at such a moment");
}

/// Nothing of a refusal, of a CANCEL or of a BYE depends on one packet.
#[test]
fn a_call_that_was_not_answered_yet_is_over_for_both_however_much_is_lost() {
    let mut rang = 0;
    for seed in 0..40 {
        let mut scenario = crashing(call(Transport::Udp), ms(1_500), ms(900));
        scenario.seed = seed;
        scenario.network.loss_per_mille = 400;
        let outcome = holds(&scenario);
        let (a, b) = &outcome.phones[0];
        let alone = a.patience_ran_out || b.patience_ran_out;
        assert!(!alone, "a party is left alone\n{}", outcome.ladder);
        let told = outcome.sessions.first().map(sim::SessionLog::lines);
        if told.is_some_and(|told| told.iter().any(|line| line.ends_with("ERROR -2001"))) {
            assert_eq!(a.final_status, Some(500), "{}", outcome.ladder);
            rang += u32::from(b.rang);
        }
    }
    assert!(rang > 10, "{rang}");
}

/// A call of 200 s with a timer of 90 s on A's side; the process dies after a minute.
fn timed(refresher: &'static str, refreshes: bool) -> Scenario {
    let mut plan = call(Transport::Udp);
    plan.caller.hang_up_after = Some(ms(200_000));
    plan.caller_manners.timer = Some(TimerPlan {
        seconds: 90,
        refresher: Some(refresher),
        refreshes,
    });
    let mut scenario = crashing(plan, ms(60_000), ms(2_000));
    scenario.max_duration = ms(600_000);
    scenario
}

#[test]
fn a_call_that_goes_on_is_refreshed_by_whose_part_it_is() {
    for refresher in ["uac", "uas"] {
        let mut scenario = timed(refresher, true);
        let told = lines(&scenario);
        let outcome = holds(&scenario);
        let a = &outcome.phones[0].0;
        assert!(!a.expired, "{refresher}");
        let refreshes = a.refreshes_sent + a.refreshes_taken;
        assert!(refreshes >= 4, "{refresher}: {refreshes}");
        scenario.crashes.clear();
        assert_eq!(told, lines(&scenario), "{refresher}");
    }
}

#[test]
fn a_call_that_goes_on_ends_when_its_refresher_is_silent() {
    let mut scenario = timed("uac", false);
    scenario.crashes = vec![crash(ms(40_000), ms(2_000))];
    let outcome = holds(&scenario);
    assert_eq!(outcome.counts.get("session_expired"), Some(&1));
    let told = outcome.sessions[0].lines();
    let expired = "SUMMARY COMPLETED COMPLETED ERROR -2002";
    assert_eq!(told.last().unwrap(), expired, "{}", outcome.ladder);
    // Its 60 s begin at the restart.
    assert!(outcome.rested_at < ms(42_000 + 60_000 + 40_000));
}

/// RFC 3264 §8: what differs has a higher version, also behind what was refused, or was under way,
/// when the process died.
#[test]
fn what_a_party_is_told_after_a_restart_has_a_version_that_it_has_not_seen() {
    let version = |outcome: &sim::Outcome| {
        let remote = outcome.phones[0].1.remote.clone().unwrap();
        remote.origin.unwrap().1
    };
    let with = |changes: &[(u64, What)], refuses: bool| {
        let mut plan = call(Transport::Udp);
        plan.changes = changes
            .iter()
            .map(|(at, what)| (Side::Caller, ms(*at), what.by_invite()))
            .collect();
        plan.callee_manners = Manners {
            refuses_changes: refuses.then_some(488),
            ..Manners::default()
        };
        plan
    };
    // The first offer, then one that is put on hold.
    let first = version(&holds(&Scenario::calm(with(&[], false))));
    let held = with(&[(3_000, What::Hold)], false);
    assert_eq!(version(&holds(&Scenario::calm(held))), first + 1);
    // The process dies between hold and resume.
    let both = with(&[(3_000, What::Hold), (5_000, What::Resume)], false);
    let outcome = holds(&crashing(both, ms(4_000), ms(300)));
    assert!(version(&outcome) > first + 2, "{}", outcome.ladder);
    let orders = outcome.ladder.lines().filter(|it| it.contains("relay: A"));
    let held = orders.filter(|it| it.ends_with("and holds")).count();
    assert_eq!(held, 2, "before the crash and after it: {}", outcome.ladder);
    // While the hold is on its way to B, which never answers it.
    let both = with(&[(3_000, What::Hold), (5_000, What::OnlyPcmu)], false);
    for at in (3_000..3_200).step_by(5) {
        let outcome = holds(&crashing(both.clone(), ms(at), ms(300)));
        assert!(
            version(&outcome) > first + 1,
            "at {at} ms\n{}",
            outcome.ladder
        );
    }
}

/// The final answer to the second change dies with the process, and the stream takes the first one,
/// which was answered, with it: only the second has no answer.
#[test]
fn a_change_that_the_process_took_with_it_leaves_nothing_behind() {
    for transport in TRANSPORTS {
        let mut plan = call(transport);
        plan.changes = vec![
            (Side::Caller, ms(3_000), What::Refresh.by_invite()),
            (Side::Caller, ms(4_000), What::Hold.by_invite()),
        ];
        plan.callee_manners.ignores_changes = true;
        let outcome = holds(&crashing(plan, ms(4_300), ms(500)));
        let (a, b) = &outcome.phones[0];
        assert!(a.left_unanswered, "{}", outcome.ladder);
        assert!(!a.patience_ran_out && !b.patience_ran_out);
    }
}
