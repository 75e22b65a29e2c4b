//! How the audio of a live call goes: for the admin key, and of calls that are there.

use maskline_media::one_way::Seen;
use maskline_media::{CarriedBy, FarReport, MediaReport, OneWay, Received, RoundTrip, SideReport};
use uuid::Uuid;

use crate::support::{ADMIN_KEY, Setup, start_with};

const SESSION: Uuid = Uuid::from_u128(0x0192_aaaa_bbbb_7ccc_8ddd_0000_0000_0001);

fn report(session: Uuid) -> Option<MediaReport> {
    (session == SESSION).then(|| MediaReport {
        caller: SideReport {
            described: Some("192.0.2.1:4000".parse().unwrap()),
            latched: Some("192.0.2.1:4002".parse().unwrap()),
            received: Some(Received {
                packets: 1_000,
                loss: 0.012_345,
                ..Received::default()
            }),
            mos: Some(3.84),
            holds: true,
            far: Some(FarReport {
                loss: 0.025,
                jitter_ms: 12.34,
                mos: Some(3.449),
            }),
            round_trip: Some(RoundTrip {
                samples: 3,
                min_ms: 20.0,
                mean_ms: 40.04,
                max_ms: 90.0,
            }),
            ..SideReport::default()
        },
        callee: SideReport {
            one_way: Some(OneWay {
                stopped: false,
                seen: Seen::Nothing,
            }),
            ..SideReport::default()
        },
        carried_by: Some(CarriedBy {
            instance: "192.0.2.10:2223".parse().unwrap(),
            call_id: "maskline-5e-7".to_owned(),
        }),
    })
}

#[tokio::test]
async fn a_live_calls_audio_is_shown_with_its_faults_and_of_an_unknown_one_nothing() {
    let api = start_with(Setup {
        media_report: report,
        ..Setup::default()
    })
    .await;
    let path = format!("/api/v1/admin/calls/{SESSION}/media");
    let reply = api.get(&path, ADMIN_KEY).await.expect(200);
    let a = &reply.json["callA"];
    assert_eq!(a["latched"], "192.0.2.1:4002");
    assert_eq!(a["received"]["codec"], "PCMU");
    assert_eq!(a["received"]["packetLossRate"], 0.0123);
    assert_eq!(a["received"]["mos"], 3.8);
    assert!(a.get("oneWay").is_none(), "{}", reply.text);
    assert_eq!(a["holds"], true);
    assert_eq!(a["farLossRate"], 0.025);
    assert_eq!(a["farJitterMs"], 12.3);
    assert_eq!(a["farMos"], 3.4);
    assert_eq!(reply.json["carriedBy"]["instance"], "192.0.2.10:2223");
    assert_eq!(reply.json["carriedBy"]["callId"], "maskline-5e-7");
    let round_trips = ["roundTripMinMs", "roundTripMs", "roundTripMaxMs"].map(|key| a[key].clone());
    assert_eq!(round_trips, [20.0, 40.0, 90.0]);
    let b = &reply.json["callB"];
    assert!(b.get("received").is_none(), "{}", reply.text);
    let words = b["oneWay"].as_str().unwrap();
    assert!(words.starts_with("was never heard: nothing"), "{words}");

    api.get(&path, "not-the-key").await.expect(401);
    let other = Uuid::from_u128(7);
    for unknown in [other.to_string(), "nonsense".to_owned()] {
        let path = format!("/api/v1/admin/calls/{unknown}/media");
        api.get(&path, ADMIN_KEY).await.expect(404);
    }
}
