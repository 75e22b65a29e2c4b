//! Everything that Maskline sends to a customer's server: call actions (VCA) whose answer decides a
//! call, and the delivery of events.
//!
//! Both go through one guarded client ([`client::EgressClient`]): addresses are checked where they
//! are connected to, answers are read up to a bound, one deadline covers a whole exchange.
//!
//! What lives elsewhere: what is said (`maskline-switch`), the wire types and signatures
//! (`maskline-events`), configuration and outcomes (`maskline-store`).

pub mod action;
mod address;
pub mod client;
mod clock;
mod connections;
mod connector;
pub mod delivery;
pub mod egress;
pub mod endpoints;
mod lookups;
pub mod network;
mod profiles;
pub mod retention;
mod tls;

pub use action::{ActionAnswer, ActionFault, ActionRequest, CallActionClient};
pub use address::Refused;
pub use client::{EgressClient, SendError};
pub use connections::{ConnectionLevels, MAX_CONNECTIONS};
pub use delivery::{
    AttemptReport, BreakerConfig, DeliveryConfig, DeliveryCounters, DeliveryObserver, Dispatcher,
    Drained, EndpointPolicy, LAG_BOUNDS_MS, Rate, Schedule, TypeCounters,
};
pub use egress::{EgressPolicy, UrlFault, check_url};
pub use endpoints::Endpoints;
pub use retention::Retention;
pub use tls::{MAX_PEM_BYTES, check_tls};
