//! Session timers (RFC 4028): either side, either refresher, and one that forgets.

use std::time::Duration;

use maskline_media::Side;
use maskline_phone::TimerPlan;
use sim::{CallPlan, Outcome, Scenario};

use crate::holds;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const PLAN: TimerPlan = TimerPlan {
    seconds: 90,
    refresher: None,
    refreshes: true,
};

/// A call of 200 s, in which a side has a timer of 90 s.
fn call(side: Side, plan: TimerPlan) -> Scenario {
    let mut call = CallPlan::default();
    call.caller.hang_up_after = Some(ms(200_000));
    match side {
        Side::Caller => call.caller_manners.timer = Some(plan),
        Side::Callee => call.callee_manners.timer = Some(plan),
    }
    let mut scenario = Scenario::calm(call);
    scenario.max_duration = ms(600_000);
    scenario
}

fn report(outcome: &Outcome, side: Side) -> &maskline_phone::Report {
    let (a, b) = &outcome.phones[0];
    match side {
        Side::Caller => a,
        Side::Callee => b,
    }
}

#[track_caller]
fn ends(outcome: &Outcome, summary: &str) {
    let lines = outcome.sessions[0].lines();
    assert_eq!(lines.last().unwrap(), summary, "{}", outcome.ladder);
}

const ENDED_WELL: &str = "SUMMARY COMPLETED COMPLETED COMPLETED";
const EXPIRED: &str = "SUMMARY COMPLETED COMPLETED ERROR -2002";

#[test]
fn we_refresh_at_half_the_interval_where_it_is_our_part() {
    for (side, refresher) in [(Side::Caller, "uas"), (Side::Callee, "uac")] {
        let plan = TimerPlan {
            refresher: Some(refresher),
            ..PLAN
        };
        let outcome = holds(&call(side, plan));
        let report = report(&outcome, side);
        assert_eq!((report.refreshes_taken, report.expired), (4, false));
        assert_eq!(outcome.counts.get("session_refreshed"), Some(&4));
        ends(&outcome, ENDED_WELL);
    }
}

#[test]
fn a_caller_without_a_wish_is_refreshed_by_us() {
    let outcome = holds(&call(Side::Caller, PLAN));
    assert_eq!(outcome.phones[0].0.refreshes_taken, 4);
    ends(&outcome, ENDED_WELL);
}

#[test]
fn a_peer_that_refreshes_keeps_the_call() {
    for (side, refresher) in [(Side::Caller, "uac"), (Side::Callee, "uas")] {
        let plan = TimerPlan {
            refresher: Some(refresher),
            ..PLAN
        };
        let outcome = holds(&call(side, plan));
        let report = report(&outcome, side);
        assert_eq!((report.refreshes_sent, report.expired), (4, false));
        assert_eq!(outcome.counts.get("session_refreshed"), None);
        ends(&outcome, ENDED_WELL);
    }
}

#[test]
fn a_peer_that_forgets_to_refresh_is_ended_before_the_interval_is_over() {
    for (side, refresher) in [(Side::Caller, "uac"), (Side::Callee, "uas")] {
        let plan = TimerPlan {
            refresher: Some(refresher),
            refreshes: false,
            ..PLAN
        };
        let outcome = holds(&call(side, plan));
        assert_eq!(outcome.counts.get("session_expired"), Some(&1));
        ends(&outcome, EXPIRED);
        let (a, b) = &outcome.phones[0];
        assert!(!a.expired && !b.expired);
        // Answered at about 2 s, ended 60 s later: 30 s before the end of its 90.
        assert!(outcome.rested_at < ms(100_000), "{:?}", outcome.rested_at);
    }
}

#[test]
fn both_sides_have_their_own_timer() {
    let mut scenario = call(
        Side::Caller,
        TimerPlan {
            refresher: Some("uac"),
            ..PLAN
        },
    );
    scenario.calls[0].callee_manners.timer = Some(TimerPlan {
        seconds: 120,
        refresher: Some("uac"),
        ..PLAN
    });
    let outcome = holds(&scenario);
    let (a, b) = &outcome.phones[0];
    assert_eq!((a.refreshes_sent, a.refreshes_taken), (4, 0));
    assert_eq!((b.refreshes_sent, b.refreshes_taken), (0, 3));
    ends(&outcome, ENDED_WELL);
}

#[test]
fn an_interval_below_ninety_seconds_is_refused_with_422() {
    let outcome = holds(&call(
        Side::Caller,
        TimerPlan {
            seconds: 89,
            ..PLAN
        },
    ));
    assert_eq!(outcome.phones[0].0.final_status, Some(422));
    assert!(outcome.sessions.is_empty());
}

#[test]
fn refreshes_get_through_a_lossy_network() {
    for seed in 0..20 {
        let mut scenario = call(
            Side::Caller,
            TimerPlan {
                refresher: Some(if seed % 2 == 0 { "uas" } else { "uac" }),
                ..PLAN
            },
        );
        scenario.seed = seed;
        scenario.calls[0].callee_manners.timer = Some(PLAN);
        scenario.calls[0].hold = Some((Side::Callee, ms(44_500), ms(5_000)));
        scenario.network.loss_per_mille = 150;
        scenario.network.duplicates_per_mille = 50;
        scenario.network.latency_max = ms(200);
        let outcome = holds(&scenario);
        let (a, b) = &outcome.phones[0];
        assert!(!a.expired && !b.expired, "seed {seed}\n{}", outcome.ladder);
    }
}
