//! Short runs of `cargo xtask soak`: every event of a load is accounted for. Long ones, and times, are that
//! tool's own.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use soak::hung::Hung;
use soak::kills::Kills;
use soak::million::Million;
use soak::report::Report;
use soak::subject::Place;

use crate::support::ports::Ports;

/// A folder and ports, held as long as the second one.
fn place(name: &str) -> (Place, Ports) {
    let ports = Ports::take();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    let place = Place {
        binary: env!("CARGO_BIN_EXE_maskline").into(),
        folder,
        http: ports.http(),
        sip: ports.sip(),
    };
    (place, ports)
}

fn check(report: &Report) {
    assert!(report.broken().is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_is_killed_under_load_loses_doubles_and_turns_round_nothing() {
    let (place, _ports) = place("soak-kills");
    let kills = Kills {
        place,
        seed: 1,
        kills: 6,
        rate: 200,
        longest_life: Duration::from_millis(400),
        failures: 1,
        timed: false,
    };
    check(&kills.run().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_gets_everything_while_forty_others_hang() {
    let (place, _ports) = place("soak-hung");
    let hung = Hung {
        place,
        seed: 1,
        endpoints: 40,
        windows: 1,
        window: Duration::from_secs(2),
        rate: 100,
        timed: false,
    };
    check(&hung.run().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_delivered_or_kept_in_order_whatever_endpoints_do() {
    let (place, _ports) = place("soak-million");
    let million = Million {
        place,
        seed: 1,
        events: 4_000,
        accounts: 10,
        rate: 1_500,
        failures: 1,
        flat: false,
    };
    check(&million.run().await.unwrap());
}
