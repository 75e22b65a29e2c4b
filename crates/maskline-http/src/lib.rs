//! Maskline's HTTP API (contract §5), administration, health, metrics and the OpenAPI document.
//!
//! [`router`] makes the routes from an [`ApiConfig`], [`serve()`] runs them on a listener with limits
//! fit for a public port. What the API needs of other crates comes in as closures and traits: the
//! clock, the egress guard's opinion of a URL, the country of a number, the metrics text.
//!
//! What lives elsewhere: keeping what is provisioned (`maskline-store`), deciding whether a webhook
//! target is allowed (`maskline-webhook`), reading configuration (`maskline`).

mod admin;
mod auth;
mod call_events;
mod changes;
mod countries;
mod endpoint_settings;
mod error;
mod event_parameters;
mod events;
mod extract;
mod frame;
mod media;
mod number_change;
mod numbers;
mod openapi;
mod replays;
mod serve;
mod state;
mod system;
mod throttle;
mod traces;
mod trunks;
mod turns;
mod webhooks;

pub use call_events::{CallEventSink, NotReported};
pub use endpoint_settings::TlsCheck;
pub use openapi::openapi_json;
pub use replays::ReplayedEvents;
pub use serve::{ServeLimits, serve, serve_with};
pub use state::{
    ApiConfig, Clock, CountryLookup, DEFAULT_FAILED_AUTHENTICATIONS_PER_MINUTE, MediaReports,
    MetricsText, ProvisioningChanged, TrunkStatuses, UrlCheck, router,
};
pub use traces::{SessionEntry, SessionList, Traces, session_list};
pub use trunks::{TrunkRegistrationStatus, TrunkStatus, TrunkTarget};
