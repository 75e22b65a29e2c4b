//! The limit of open files: a call takes four sockets or more, and what a shell or service manager
//! allows at first (1,024) is far less than a node is meant to carry.

use maskline_webhook::MAX_CONNECTIONS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// For SIP connections, the API, webhooks and the store.
const OTHERS: u64 = 4_096;
/// Webhooks leave half of them.
const _: () = assert!(2 * MAX_CONNECTIONS as u64 <= OTHERS);
/// RTP and RTCP, towards each party.
const SOCKETS_PER_CALL: u64 = 4;

/// Allows as many open files as `[sip] max_sessions` calls need, or as many as we may.
pub(crate) fn allow_for(config: &Config) {
    let families = config.media_addresses.iter().count() as u64;
    let sockets = match &config.rtpengine {
        None => SOCKETS_PER_CALL * families,
        Some(_) => 0,
    };
    let calls = config.max_sessions as u64;
    let allowed = raise_to(calls * sockets + OTHERS);
    let room = allowed.saturating_sub(OTHERS).checked_div(sockets);
    if let Some(room) = room.filter(|room| *room < calls) {
        tracing::warn!(
            limit = allowed,
            calls = room,
            wanted = calls,
            "the limit of open files (ulimit -n, LimitNOFILE=) leaves room for fewer calls than [sip] max_sessions"
        );
    }
}

/// The limit from now on: as wanted, or the most that this process may have. It is never lowered.
fn raise_to(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let may = maximum.unwrap_or(u64::MAX);
    let now = current.unwrap_or(u64::MAX);
    let target = wanted.min(may);
    if target <= now {
        return now;
    }
    let raised = Rlimit {
        current: Some(target),
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => target,
        Err(_) => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_be_and_never_lowered() {
        let before = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: Some(200),
            ..before
        };
        setrlimit(Resource::Nofile, low).unwrap();
        assert_eq!(raise_to(300), 300);
        assert_eq!(getrlimit(Resource::Nofile).current, Some(300));
        assert_eq!(raise_to(100), 300);
        let most = before.maximum.unwrap_or(u64::MAX);
        assert!(raise_to(u64::MAX) <= most);
    }
}
