//! Session timers (RFC 4028) with SIPp on both sides: what is agreed. What happens when the time is
//! over takes minutes, and is the simulation's.

use crate::reliable::{COMPLETED, Call, TOLD, play};
use crate::support::sipp::Transport;
use crate::support::site::{FROM, Options, Site};

const CALL: Call = Call {
    caller: "caller_hangs_up",
    callee: "callee_answers",
    pause_ms: 300,
    fill: &[],
    callee_fill: &[],
    told: TOLD,
    summary: COMPLETED,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_agrees_on_a_timer_and_refreshes_it() {
    for (name, transport, fill) in [
        (
            "timer-uac",
            Transport::Udp,
            &[
                (
                    "EXTENSION",
                    "Supported: timer\n    Session-Expires: 600;refresher=uac",
                ),
                ("AGREED", "600;refresher=uac"),
            ],
        ),
        (
            "timer-open",
            Transport::Tcp,
            &[
                ("EXTENSION", "Supported: timer\n    Session-Expires: 600"),
                ("AGREED", "600;refresher=uas"),
            ],
        ),
        (
            "timer-ours",
            Transport::Udp,
            &[
                ("EXTENSION", "Supported: timer"),
                ("AGREED", "1800;refresher=uas"),
            ],
        ),
        (
            "timer-tls",
            Transport::Tls,
            &[
                (
                    "EXTENSION",
                    "Supported: timer\n    Session-Expires: 600;refresher=uac",
                ),
                ("AGREED", "600;refresher=uac"),
            ],
        ),
    ] {
        let call = Call {
            caller: "caller_refreshes",
            fill,
            ..CALL
        };
        play(name, &call, Options::new(transport)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_wants_a_longer_session_is_called_again_in_the_same_call() {
    let call = Call {
        callee: "callee_wants_a_longer_session",
        ..CALL
    };
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let name = format!("longer-session-{}", transport.name());
        let played = play(&name, &call, Options::new(transport)).await;
        let invites: Vec<(&str, &str)> = played
            .callee
            .messages
            .iter()
            .filter(|it| it.received && it.first_line().starts_with("INVITE"))
            .filter_map(|it| Some((it.header("CSeq")?, it.header("Min-SE")?)))
            .collect();
        assert_eq!(invites, [("1 INVITE", "90"), ("2 INVITE", "2000")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_asks_for_too_short_a_session_hears_422() {
    let mut site = Site::open("short-session", Options::new(Transport::Udp)).await;
    let mut caller = site.caller_run("caller_asks_for_too_short_a_session", FROM);
    caller.fill = &[("EXTENSION", "Supported: timer\n    Session-Expires: 89")];
    let caller = site.phone(caller).await.finish().await;
    assert_eq!(caller.complaint, "");
    assert_eq!(caller.heard(), Some(422));
    assert!(site.switch.take().unwrap().drain().await.success());
    assert!(site.receiver.received().is_empty());
}
