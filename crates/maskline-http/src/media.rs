//! How the audio of a live call goes. Needs the admin key.

use axum::Json;
use axum::extract::State;
use maskline_media::{CarriedBy, MediaReport, Received, SideReport};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::auth::AdminAccess;
use crate::error::ApiError;
use crate::state::ApiState;
use crate::traces::SessionInPath;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(call_media))
}

/// The audio of a live call, at most 3 seconds old.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallMedia {
    /// The session.
    #[schema(value_type = String, format = "uuid")]
    session_id: Uuid,
    /// The caller's side.
    call_a: LegMedia,
    /// The callee's side.
    call_b: LegMedia,
    /// The daemon that carries it; absent where the built-in engine does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    carried_by: Option<Daemon>,
}

/// A call as an rtpengine knows it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Daemon {
    /// Where it takes orders (`ng`).
    #[schema(example = "192.0.2.10:2223")]
    instance: String,
    /// The call's name there, as in its log.
    #[schema(example = "maskline-1f0e9d8c7b6a5948-000000000000feed")]
    call_id: String,
}

/// One party's audio: what came of it, what was sent to it, and what it says of that.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LegMedia {
    /// Where its description wants RTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "192.0.2.10:4000")]
    described: Option<String>,
    /// Where its RTP comes from; absent until any came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "192.0.2.10:61000")]
    latched: Option<String>,
    /// Whether RTP and RTCP share a port.
    rtcp_mux: bool,
    /// Whether it is expected to send.
    sends: bool,
    /// Whether it wants to receive.
    receives: bool,
    /// Whether it has put the other on hold.
    holds: bool,
    /// What came of it; absent until anything did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    received: Option<ReceivedAudio>,
    /// RTP packets sent to it.
    sent_packets: u32,
    /// Their payload bytes.
    sent_octets: u32,
    /// What it reports of those (RTCP): the fraction that it lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    far_loss_rate: Option<f64>,
    /// The jitter that it reports of those, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    far_jitter_ms: Option<f64>,
    /// The mean opinion score of those by its reports, 1.0 to 4.5; only of an rtpengine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    far_mos: Option<f64>,
    /// The mean round trip to it (RTCP), milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    round_trip_ms: Option<f64>,
    /// The shortest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    round_trip_min_ms: Option<f64>,
    /// The longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    round_trip_max_ms: Option<f64>,
    /// Since when neither RTP nor RTCP came of it; absent until any came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    silent_ms: Option<u64>,
    /// It should be heard and is not while the other party is: since when, and what came instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    one_way: Option<String>,
}

/// What came of a party.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReceivedAudio {
    /// The voice codec of the last packet.
    #[schema(example = "PCMA")]
    codec: String,
    /// RTP packets.
    packets: u64,
    /// Their payload bytes.
    octets: u64,
    /// The fraction that never came.
    packet_loss_rate: f64,
    /// The most packets lost in a row.
    longest_loss: u64,
    /// Bursts of loss (RFC 3611 section 4.7.2).
    bursts: u64,
    /// How many packets they span in the mean.
    mean_burst_packets: f64,
    /// The fraction lost within them.
    burst_density: f64,
    /// The fraction lost outside of them.
    gap_density: f64,
    /// Packets that came late.
    reordered: u64,
    /// Packets that came again.
    duplicates: u64,
    /// Mean interarrival jitter, milliseconds.
    jitter_ms: f64,
    /// Its peak.
    jitter_max_ms: f64,
    /// Mean opinion score, 1.0 to 4.5 (ITU-T G.107).
    mos: f64,
}

impl CallMedia {
    fn new(session_id: Uuid, report: MediaReport) -> Self {
        Self {
            session_id,
            call_a: report.caller.into(),
            call_b: report.callee.into(),
            carried_by: report.carried_by.map(Daemon::from),
        }
    }
}

impl From<CarriedBy> for Daemon {
    fn from(at: CarriedBy) -> Self {
        Self {
            instance: at.instance.to_string(),
            call_id: at.call_id,
        }
    }
}

impl From<SideReport> for LegMedia {
    fn from(side: SideReport) -> Self {
        let mos = side.mos.unwrap_or(1.0);
        Self {
            described: side.described.map(|it| it.to_string()),
            latched: side.latched.map(|it| it.to_string()),
            rtcp_mux: side.rtcp_mux,
            sends: side.sends,
            receives: side.receives,
            holds: side.holds,
            received: side.received.map(|it| received_audio(&it, mos)),
            sent_packets: side.sent_packets,
            sent_octets: side.sent_octets,
            far_loss_rate: side.far.map(|it| rounded(it.loss, 10_000.0)),
            far_jitter_ms: side.far.map(|it| rounded(it.jitter_ms, 10.0)),
            far_mos: side.far.and_then(|it| it.mos).map(|it| rounded(it, 10.0)),
            round_trip_ms: side.round_trip.map(|it| rounded(it.mean_ms, 10.0)),
            round_trip_min_ms: side.round_trip.map(|it| rounded(it.min_ms, 10.0)),
            round_trip_max_ms: side.round_trip.map(|it| rounded(it.max_ms, 10.0)),
            silent_ms: side
                .silent_for
                .map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
            one_way: side.one_way.map(|it| it.to_string()),
        }
    }
}

fn received_audio(received: &Received, mos: f64) -> ReceivedAudio {
    ReceivedAudio {
        codec: received.codec.label().to_owned(),
        packets: received.packets,
        octets: received.octets,
        packet_loss_rate: rounded(received.loss, 10_000.0),
        longest_loss: received.pattern.longest_run,
        bursts: received.pattern.bursts,
        mean_burst_packets: rounded(received.pattern.mean_burst_packets, 10.0),
        burst_density: rounded(received.pattern.burst_density, 10_000.0),
        gap_density: rounded(received.pattern.gap_density, 10_000.0),
        reordered: received.reordered,
        duplicates: received.duplicates,
        jitter_ms: rounded(received.jitter_mean_ms, 10.0),
        jitter_max_ms: rounded(received.jitter_max_ms, 10.0),
        mos: rounded(mos, 10.0),
    }
}

/// A number with so many parts of one.
fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// How the audio of a live call goes, both ways. 404 before both parties have described their audio,
/// and after the call.
#[utoipa::path(get, path = "/api/v1/admin/calls/{sessionId}/media", tag = "operations",
    operation_id = "callMedia",
    params(("sessionId" = String, Path, description = "The session")),
    responses((status = 200, description = "Its audio", body = CallMedia)),
    security(("adminKey" = [])))]
async fn call_media(
    _admin: AdminAccess,
    SessionInPath(session): SessionInPath,
    State(state): State<ApiState>,
) -> Result<Json<CallMedia>, ApiError> {
    let report = (state.config.media_report)(session);
    let report = report.ok_or(ApiError::NotFound("A live call with audio of that id"))?;
    Ok(Json(CallMedia::new(session, report)))
}
