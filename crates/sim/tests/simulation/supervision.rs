//! Ways to callees that are asked by OPTIONS: calls go round those that seem to be down, and return.

use std::time::Duration;

use maskline_phone::{Manners, Outcome};
use maskline_switch::sip::Transport;
use sim::{CallPlan, CrashAt, CrashPlan, OtherWay, Outage, Scenario, SupervisionPlan};

use crate::holds;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A call with two ways to B, which both answer.
fn call(starts: Duration, own_trunk: bool, transport: Transport) -> CallPlan {
    let callee = CallPlan::default().callee;
    CallPlan {
        starts,
        callee_transport: transport,
        others: vec![OtherWay {
            own_trunk,
            transport,
            callee,
            manners: Manners::default(),
        }],
        ..CallPlan::default()
    }
}

/// Calls before, in and after a time in which these ways answer no OPTIONS, or with 503.
fn around(outage: Outage, own_trunk: bool, transport: Transport) -> Scenario {
    let mut scenario = Scenario::calm(CallPlan::default());
    scenario.calls = [1, 30, 60]
        .map(|at| call(s(at), own_trunk, transport))
        .to_vec();
    // So that most calls are not of the shard that asks.
    scenario.shards = 8;
    scenario.supervision = Some(SupervisionPlan {
        every: s(10),
        outages: vec![outage],
    });
    scenario.drain = Some((s(90), s(5)));
    scenario
}

const FIRST_WAY: Outage = Outage {
    call: None,
    line: Some(0),
    from: s(5),
    to: s(45),
    silent: true,
};

/// Which ways each call took, and how soon its caller was answered.
fn invited(scenario: &Scenario) -> Vec<Vec<bool>> {
    let outcome = holds(scenario);
    for session in &outcome.sessions {
        assert_eq!(
            session.lines().last().unwrap(),
            "SUMMARY COMPLETED COMPLETED COMPLETED",
            "{}",
            outcome.ladder
        );
    }
    let ways = outcome.lines.iter();
    ways.map(|lines| lines.iter().map(|it| it.shows.is_some()).collect())
        .collect()
}

#[test]
fn calls_go_round_a_way_that_answers_no_options_and_return_when_it_does() {
    for silent in [true, false] {
        for own_trunk in [false, true] {
            for transport in [Transport::Udp, Transport::Tcp] {
                let outage = Outage {
                    silent,
                    ..FIRST_WAY
                };
                assert_eq!(
                    invited(&around(outage, own_trunk, transport)),
                    [[true, false], [false, true], [true, false]],
                    "silent: {silent}, own trunk: {own_trunk}, {transport:?}"
                );
            }
        }
    }
}

#[test]
fn a_call_whose_ways_are_all_down_is_tried_all_the_same() {
    let outage = Outage {
        line: None,
        ..FIRST_WAY
    };
    let ways = invited(&around(outage, true, Transport::Udp));
    assert_eq!(ways, [[true, false], [true, false], [true, false]]);
}

#[test]
fn a_way_that_misses_one_question_is_not_down() {
    let outage = Outage {
        from: s(19),
        to: s(25),
        ..FIRST_WAY
    };
    let ways = invited(&around(outage, true, Transport::Udp));
    assert_eq!(ways[1], [true, false]);
}

#[test]
fn a_restarted_node_takes_a_way_for_up_until_it_has_asked_twice() {
    let mut scenario = around(FIRST_WAY, true, Transport::Udp);
    scenario.crashes = vec![CrashPlan {
        at: CrashAt::Time(s(27)),
        down_for: s(1),
        last_commit_survives: true,
    }];
    let ways = invited(&scenario);
    assert_eq!(ways[1], [true, false]);
}

#[test]
fn addresses_that_come_and_go_harm_no_call_of_any_seed() {
    for seed in 0..48 {
        let mut scenario = Scenario::random(90_000 + seed);
        let outage = |line, from, to| Outage {
            call: None,
            line,
            from: s(from),
            to: s(to),
            silent: seed % 2 == 0,
        };
        scenario.supervision = Some(SupervisionPlan {
            every: s(1),
            outages: vec![
                outage(Some(0), 0, 4),
                outage(Some(1), 3, 9),
                outage(None, 8, 10),
            ],
        });
        scenario.drain.get_or_insert((s(30), s(5)));
        for call in &mut scenario.calls {
            if call.others.is_empty() {
                let callee = CallPlan::default().callee;
                call.callee.outcome = Outcome::Silence;
                call.others.push(OtherWay {
                    own_trunk: seed % 3 == 0,
                    transport: Transport::Udp,
                    callee,
                    manners: Manners::default(),
                });
            }
        }
        holds(&scenario);
    }
}
