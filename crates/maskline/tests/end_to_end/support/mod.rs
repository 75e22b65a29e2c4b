//! What the end-to-end tests stand on: ports, the switch as a process, SIPp as two processes, baresip, and
//! the customer's server.

pub mod baresip;
pub mod certificates;
pub mod client;
pub mod expect;
pub mod kamailio;
pub mod media;
pub mod ports;
pub mod proxy;
pub mod raw;
pub mod receiver;
pub mod rtpengine;
pub mod sipp;
pub mod site;
pub mod sound;
pub mod steps;
pub mod switch;
pub mod tunnel;

use std::time::Duration;

/// Waits until `condition` gives something.
///
/// # Panics
///
/// When nothing came before the deadline; `what` says what was missing.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let end = tokio::time::Instant::now() + deadline;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "not within {deadline:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
