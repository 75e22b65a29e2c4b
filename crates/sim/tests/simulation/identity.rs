//! Carriers that write numbers in their own ways, and callers who withhold theirs. What every event
//! says of the caller, and what the callee's display shows, is checked in each run.

use maskline_switch::sip::Transport;
use sim::{CallPlan, Numbering, Scenario};

use crate::holds;

#[test]
fn a_call_is_the_same_call_however_its_carriers_write_numbers() {
    let mut stories = Vec::new();
    for numbering in Numbering::ALL {
        for transport in [Transport::Udp, Transport::Tcp] {
            let mut scenario = Scenario::calm(CallPlan {
                caller_transport: transport,
                callee_transport: transport,
                ..CallPlan::default()
            });
            scenario.numbering = numbering;
            let outcome = holds(&scenario);
            assert!(outcome.phones[0].1.talked, "{}", outcome.ladder);
            stories.push(outcome.sessions[0].lines());
        }
    }
    stories.dedup();
    assert_eq!(stories.len(), 1, "{stories:?}");
}

#[test]
fn a_withheld_caller_is_connected_and_anonymous_under_every_numbering() {
    for numbering in Numbering::ALL {
        let mut scenario = Scenario::calm(CallPlan {
            withholds: true,
            ..CallPlan::default()
        });
        scenario.numbering = numbering;
        let outcome = holds(&scenario);
        assert!(outcome.phones[0].1.talked, "{}", outcome.ladder);
    }
}
