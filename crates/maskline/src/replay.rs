//! `maskline replay`: has a running node send events of a sub-account once more.

use clap::{ArgGroup, Args};
use maskline_events::WebhookType;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::node_api::NodeApi;

/// Which events.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["event", "session", "kind"])))]
pub(crate) struct Order {
    /// Whose.
    #[arg(value_name = "SUB-ACCOUNT")]
    sub_account: String,
    /// This event, as its webhook-id names it.
    #[arg(long, value_name = "ID")]
    event: Option<Uuid>,
    /// Every event of this session.
    #[arg(long, value_name = "ID")]
    session: Option<Uuid>,
    /// Events of this type (VCS, VSS, …) that happened between --from and --to.
    #[arg(long = "type", value_name = "TYPE", requires_all = ["from", "to"])]
    kind: Option<WebhookType>,
    /// The earliest, as 2026-01-06T10:00:00Z.
    #[arg(long, value_name = "TIME", requires = "kind")]
    from: Option<String>,
    /// The latest.
    #[arg(long, value_name = "TIME", requires = "kind")]
    to: Option<String>,
    /// Only those whose delivery ended so. Without it: any by id, dead and no-endpoint by time.
    #[arg(long, value_name = "STATE")]
    state: Vec<Ended>,
    /// The node's API. The admin key comes from MASKLINE_ADMIN_KEY.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Ended {
    /// Acknowledged by a 2xx.
    Delivered,
    /// Every retry was used up, or the receiver answered 410.
    Dead,
    /// There was no enabled webhook of its type.
    NoEndpoint,
}

impl Ended {
    const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "DELIVERED",
            Self::Dead => "DEAD",
            Self::NoEndpoint => "NO_ENDPOINT",
        }
    }
}

/// Orders it, in as many requests as it takes, and says how many events it was.
///
/// # Errors
/// What keeps it from being ordered; what was ordered before is said and stays ordered.
pub(crate) fn run(order: &Order) -> anyhow::Result<()> {
    let node = NodeApi::new(&order.url)?;
    let account: String = order
        .sub_account
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let path = format!("/api/v1/subaccounts/{account}/replays");
    let mut request = order.request();
    let mut events = 0;
    let mut without = Vec::new();
    loop {
        let body = serde_json::to_value(&request)?;
        let answer = match node.post(&path, &body) {
            Err(error) if events > 0 => {
                return Err(error.context(format!("{events} events are on their way, then")));
            }
            answer => answer?,
        };
        events += answer
            .get("events")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        if let Some(kinds) = answer.get("withoutWebhook").and_then(Value::as_array) {
            without = kinds
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
        }
        request.after = answer
            .get("next")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if request.after.is_none() {
            break;
        }
    }
    match events {
        1 => println!("1 event is on its way once more"),
        _ => println!("{events} events are on their way once more"),
    }
    if !without.is_empty() {
        println!(
            "there is no enabled webhook for {}: events of these types end as NO_ENDPOINT again",
            without.join(" and ")
        );
    }
    Ok(())
}

impl Order {
    fn request(&self) -> Request<'_> {
        let names = self.state.iter().map(|it| it.name()).collect();
        Request {
            event_id: self.event,
            session_id: self.session,
            kind: self.kind,
            from: self.from.as_deref(),
            to: self.to.as_deref(),
            states: (!self.state.is_empty()).then_some(names),
            after: None,
        }
    }
}

/// The API's request; what is absent is null.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    event_id: Option<Uuid>,
    session_id: Option<Uuid>,
    #[serde(rename = "type")]
    kind: Option<WebhookType>,
    from: Option<&'a str>,
    to: Option<&'a str>,
    states: Option<Vec<&'static str>>,
    after: Option<String>,
}
