//! Changes within a call: what reaches the other party, what is answered, and what is told.

use std::time::Duration;

use maskline_media::Side;
use maskline_phone::{Change, Manners, What};
use maskline_switch::sdp::{CodecName, Direction};
use maskline_switch::sip::Transport;
use sim::{CallPlan, Outcome, Scenario};

use crate::holds;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The call is up from 2.3 s on and ends at 7.3 s.
fn changed(changes: &[(Side, u64, Change)]) -> CallPlan {
    CallPlan {
        changes: changes
            .iter()
            .map(|(side, at, change)| (*side, ms(*at), *change))
            .collect(),
        ..CallPlan::default()
    }
}

/// The call's own updates, as they are told.
fn updates(outcome: &Outcome) -> Vec<String> {
    let lines = outcome.sessions[0].lines();
    let is_update = |line: &String| line.contains("CALL_UPDATED") && !line.contains("RINGING");
    lines.into_iter().filter(is_update).collect()
}

fn ends_well(outcome: &Outcome) {
    let lines = outcome.sessions[0].lines();
    assert_eq!(
        lines.last().unwrap(),
        "SUMMARY COMPLETED COMPLETED COMPLETED",
        "{}",
        outcome.ladder
    );
}

/// What a side's far end said last: direction and codecs.
fn hears(outcome: &Outcome, side: Side) -> (Direction, Vec<CodecName>) {
    let (caller, callee) = &outcome.phones[0];
    let report = match side {
        Side::Caller => caller,
        Side::Callee => callee,
    };
    let remote = report.remote.clone().unwrap();
    let names = remote.codecs.iter().map(|codec| codec.name);
    (remote.direction, names.collect())
}

fn count(outcome: &Outcome, reason: &'static str) -> u64 {
    outcome.counts.get(reason).copied().unwrap_or(0)
}

const BOTH: [Side; 2] = [Side::Caller, Side::Callee];

#[test]
fn a_hold_reaches_the_other_party_by_either_method_and_over_either_transport() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for (side, name) in [(Side::Caller, "A"), (Side::Callee, "B")] {
            for change in [What::Hold.by_invite(), What::Hold.by_update()] {
                let mut call = changed(&[(side, 3_000, change)]);
                call.caller_transport = transport;
                call.callee_transport = transport;
                let outcome = holds(&Scenario::calm(call));
                assert_eq!(hears(&outcome, side.other()).0, Direction::SendOnly);
                assert_eq!(hears(&outcome, side).0, Direction::RecvOnly);
                assert_eq!(updates(&outcome), [format!("{name} CALL_UPDATED HELD")]);
                ends_well(&outcome);
            }
        }
    }
}

#[test]
fn who_is_held_without_a_word_is_told_that_something_will_be_heard() {
    for (side, relay) in [(Side::Caller, "relay: A"), (Side::Callee, "relay: B")] {
        for resumes in [false, true] {
            let mut changes = vec![(side, 3_000, What::HoldInactive.by_invite())];
            changes.extend(resumes.then_some((side, 4_000, What::Resume.by_invite())));
            let outcome = holds(&Scenario::calm(changed(&changes)));
            let (held, holder) = if resumes {
                (Direction::SendRecv, Direction::SendRecv)
            } else {
                (Direction::SendOnly, Direction::Inactive)
            };
            assert_eq!(hears(&outcome, side.other()).0, held);
            assert_eq!(hears(&outcome, side).0, holder);
            let ladder = outcome.ladder.lines();
            let orders: Vec<_> = ladder.filter(|line| line.contains(relay)).collect();
            let last = orders.last().unwrap();
            assert_eq!(
                last.ends_with("does not hear and holds"),
                !resumes,
                "{last}"
            );
            ends_well(&outcome);
        }
    }
}

#[test]
fn whoever_takes_the_call_back_is_heard_again() {
    for side in BOTH {
        let call = changed(&[
            (side, 3_000, What::Hold.by_invite()),
            (side, 4_000, What::Resume.by_update()),
        ]);
        let outcome = holds(&Scenario::calm(call));
        for party in BOTH {
            assert_eq!(hears(&outcome, party).0, Direction::SendRecv);
        }
        assert_eq!(updates(&outcome).len(), 2);
        ends_well(&outcome);
    }
}

#[test]
fn a_hold_of_both_lasts_until_both_have_taken_the_call_back() {
    let call = changed(&[
        (Side::Caller, 3_000, What::Hold.by_invite()),
        (Side::Callee, 3_500, What::Hold.by_invite()),
        (Side::Caller, 4_500, What::Resume.by_invite()),
    ]);
    let outcome = holds(&Scenario::calm(call));
    assert_eq!(hears(&outcome, Side::Caller).0, Direction::SendOnly);
    assert_eq!(
        updates(&outcome),
        [
            "A CALL_UPDATED HELD",
            "B CALL_UPDATED HELD",
            "A CALL_UPDATED RESUMED"
        ]
    );
    ends_well(&outcome);
}

#[test]
fn another_codec_is_agreed_on_by_both() {
    use CodecName::{Pcma, Pcmu, TelephoneEvent};
    for side in BOTH {
        let call = changed(&[
            (side, 3_000, What::OnlyPcma.by_invite()),
            (side, 4_000, What::OnlyPcmu.by_update()),
        ]);
        let outcome = holds(&Scenario::calm(call));
        for party in BOTH {
            let (_, codecs) = hears(&outcome, party);
            let voice = codecs.iter().find(|codec| codec.is_voice());
            assert_eq!(voice, Some(&Pcmu), "it passes through");
            assert!(codecs.contains(&TelephoneEvent));
            assert!(
                party != side || !codecs.contains(&Pcma),
                "it was not offered"
            );
        }
        assert_eq!(outcome.phones[0].0.changed + outcome.phones[0].1.changed, 2);
        ends_well(&outcome);
    }
}

#[test]
fn a_codec_that_the_first_offer_lacked_may_come_later() {
    // B leaves only PCMU in the first place, and takes PCMA in the end.
    let call = changed(&[
        (Side::Callee, 3_000, What::OnlyPcmu.by_invite()),
        (Side::Callee, 3_500, What::OnlyPcma.by_invite()),
        (Side::Caller, 4_500, What::AnyCodec.by_invite()),
    ]);
    let outcome = holds(&Scenario::calm(call));
    let (_, codecs) = hears(&outcome, Side::Caller);
    assert_eq!(codecs.first(), Some(&CodecName::Pcma), "{codecs:?}");
    ends_well(&outcome);
}

#[test]
fn another_address_is_told_on_the_leg_and_not_to_the_other_party() {
    let moved = What::Move("192.0.2.77:4444".parse().unwrap());
    let call = changed(&[(Side::Caller, 3_000, moved.by_invite())]);
    let outcome = holds(&Scenario::calm(call));
    assert_eq!(updates(&outcome), ["A CALL_UPDATED MEDIA"]);
    let rtp = outcome.phones[0].1.remote.clone().unwrap().rtp;
    assert_ne!(rtp, "192.0.2.77:4444".parse().unwrap());
    ends_well(&outcome);
}

#[test]
fn who_asks_for_an_offer_gets_the_other_partys() {
    for side in BOTH {
        let call = changed(&[(side, 3_000, What::Ask.by_invite())]);
        let outcome = holds(&Scenario::calm(call));
        assert_eq!(hears(&outcome, side).0, Direction::SendRecv);
        assert_eq!(outcome.phones[0].0.changed + outcome.phones[0].1.changed, 1);
        assert_eq!(count(&outcome, "answered_for_asker"), 0);
        ends_well(&outcome);
    }
}

#[test]
fn who_asks_for_an_offer_and_does_not_answer_it_changes_nothing() {
    let mut call = changed(&[(Side::Caller, 3_000, What::Ask.by_invite())]);
    call.caller_manners.answers_no_offer = true;
    let outcome = holds(&Scenario::calm(call));
    assert_eq!(count(&outcome, "answer_unusable"), 1);
    assert!(updates(&outcome).is_empty());
    ends_well(&outcome);
}

#[test]
fn what_is_said_again_is_no_business_of_the_other_party() {
    for side in BOTH {
        for change in [What::Refresh.by_invite(), What::Refresh.by_update()] {
            let outcome = holds(&Scenario::calm(changed(&[(side, 3_000, change)])));
            let other = match side {
                Side::Caller => "switch --> B INVITE",
                Side::Callee => "A <-- switch      INVITE",
            };
            let invites = outcome.ladder.matches(other).count();
            let first = usize::from(side == Side::Caller);
            assert_eq!(invites, first, "{}", outcome.ladder);
            assert_eq!(outcome.phones[0].0.changed + outcome.phones[0].1.changed, 1);
            ends_well(&outcome);
        }
    }
}

#[test]
fn a_refusal_of_the_other_party_leaves_everything_as_it_was() {
    for side in BOTH {
        for (status, hears_status) in [(488, 488), (603, 488), (500, 488), (415, 488)] {
            let mut call = changed(&[(side, 3_000, What::Hold.by_invite())]);
            let refuses = Manners {
                refuses_changes: Some(status),
                ..Manners::default()
            };
            match side {
                Side::Caller => call.callee_manners = refuses,
                Side::Callee => call.caller_manners = refuses,
            }
            let outcome = holds(&Scenario::calm(call));
            let (caller, callee) = &outcome.phones[0];
            let refused = caller.refused_change.or(callee.refused_change);
            assert_eq!(refused, Some(hears_status), "{}", outcome.ladder);
            assert!(updates(&outcome).is_empty());
            ends_well(&outcome);
        }
    }
}

#[test]
fn a_491_is_tried_again_and_heard_in_the_end() {
    let mut call = changed(&[(Side::Caller, 3_000, What::Hold.by_invite())]);
    call.callee_manners.refuses_changes = Some(491);
    call.caller.hang_up_after = Some(ms(60_000));
    let outcome = holds(&Scenario::calm(call));
    assert!(count(&outcome, "modification_retried") >= 3);
    assert_eq!(outcome.phones[0].0.refused_change, Some(491));
    ends_well(&outcome);
}

#[test]
fn changes_of_both_at_once_both_come_through() {
    for apart in 0..40 {
        let mut call = changed(&[
            (Side::Caller, 3_000, What::Hold.by_invite()),
            (Side::Callee, 2_980 + apart, What::OnlyPcma.by_invite()),
        ]);
        call.caller.hang_up_after = Some(ms(40_000));
        let outcome = holds(&Scenario::calm(call));
        let (caller, callee) = &outcome.phones[0];
        assert_eq!(
            (caller.changed, callee.changed),
            (1, 1),
            "{}",
            outcome.ladder
        );
        ends_well(&outcome);
    }
}

#[test]
fn a_party_that_lost_the_dialog_or_says_nothing_ends_the_call() {
    let end = [
        "A CALL_DISCONNECTED 200 -2002",
        "B CALL_DISCONNECTED 200 -2002",
        "SUMMARY COMPLETED COMPLETED ERROR -2002",
    ];
    for side in BOTH {
        for manners in [
            Manners {
                refuses_changes: Some(481),
                ..Manners::default()
            },
            Manners {
                refuses_changes: Some(408),
                ..Manners::default()
            },
            Manners {
                ignores_changes: true,
                ..Manners::default()
            },
        ] {
            for change in [What::Hold.by_invite(), What::Hold.by_update()] {
                let mut call = changed(&[(side, 3_000, change)]);
                call.caller.hang_up_after = None;
                match side {
                    Side::Caller => call.callee_manners = manners,
                    Side::Callee => call.caller_manners = manners,
                }
                let outcome = holds(&Scenario::calm(call));
                let lines = outcome.sessions[0].lines();
                assert_eq!(lines[lines.len() - 3..], end, "{}", outcome.ladder);
            }
        }
    }
}

#[test]
fn a_cancelled_change_leaves_the_call() {
    let moments = [0, 1, 5, 10, 11, 15, 20, 25];
    let each = |duplicates| moments.map(|cancel_after| (cancel_after, duplicates));
    for (cancel_after, duplicates) in [each(0), each(1_000)].concat() {
        let change = Change {
            cancel_after: Some(ms(cancel_after)),
            ..What::Hold.by_invite()
        };
        let mut scenario = Scenario::calm(changed(&[(Side::Caller, 3_000, change)]));
        scenario.network.duplicates_per_mille = duplicates;
        let outcome = holds(&scenario);
        let caller = &outcome.phones[0].0;
        let told = updates(&outcome).len();
        assert_eq!(
            u32::try_from(told).unwrap(),
            caller.changed,
            "{}",
            outcome.ladder
        );
        assert!(caller.changed == 1 || caller.refused_change == Some(487));
        ends_well(&outcome);
    }
}

#[test]
fn a_call_that_ends_in_the_middle_of_a_change_leaves_nothing_pending() {
    for who_changes in BOTH {
        let mut cut_off = 0;
        for hang_up in 0..60 {
            let mut call = changed(&[(who_changes, 5_000, What::Hold.by_invite())]);
            call.both_hang_up = None;
            call.caller.hang_up_after = Some(ms(2_930 + hang_up));
            let outcome = holds(&Scenario::calm(call));
            ends_well(&outcome);
            let (a, b) = &outcome.phones[0];
            cut_off += [a, b]
                .iter()
                .filter(|it| it.refused_change == Some(487))
                .count();
        }
        assert!(cut_off > 3, "the change is in the middle {cut_off} times");
    }
}

#[test]
fn a_caller_without_an_offer_answers_ours() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut call = changed(&[]);
        call.caller_transport = transport;
        call.caller_manners.dials_without_offer = true;
        let outcome = holds(&Scenario::calm(call));
        assert!(updates(&outcome).is_empty());
        assert!(outcome.phones[0].0.talked && outcome.phones[0].1.talked);
        ends_well(&outcome);
    }
}

#[test]
fn a_caller_that_never_answers_an_offer_has_no_call() {
    let mut call = changed(&[]);
    call.caller_manners.dials_without_offer = true;
    call.caller_manners.answers_no_offer = true;
    call.caller.hang_up_after = None;
    let outcome = holds(&Scenario::calm(call));
    let lines = outcome.sessions[0].lines();
    assert_eq!(
        lines.last().unwrap(),
        "SUMMARY COMPLETED COMPLETED ERROR -2002"
    );
}

#[test]
fn changes_survive_a_network_that_loses_and_doubles() {
    for seed in 0..40 {
        let mut call = changed(&[
            (Side::Caller, 3_000, What::Hold.by_invite()),
            (Side::Callee, 9_000, What::Ask.by_invite()),
            (Side::Caller, 16_000, What::Resume.by_update()),
        ]);
        call.caller.hang_up_after = Some(ms(40_000));
        let mut scenario = Scenario::calm(call);
        scenario.seed = seed;
        scenario.network.loss_per_mille = 100;
        scenario.network.duplicates_per_mille = 100;
        holds(&scenario);
    }
}
