//! What an earlier run left open: its sessions, those among them that nobody can read, and whether
//! its connected calls may go on.

use std::time::Duration;

use maskline_store::{Beating, Heartbeat, SqliteLocation, SqliteStore, Store as _, UnknownAbsence};
use maskline_switch::snapshot::Snapshot;

use crate::config::Config;

/// Sessions that an earlier run left open.
#[derive(Debug, Default)]
pub(crate) struct LeftOpen {
    /// The last snapshot of each.
    pub(crate) snapshots: Vec<Vec<u8>>,
    /// What names their media.
    pub(crate) media: Vec<u64>,
    /// Those that are connected calls, which a short absence lets go on.
    connected: usize,
}

/// How long no process ran, or why that is not known.
type Absence = Result<Duration, UnknownAbsence>;

impl LeftOpen {
    /// The absence that calls go by; `None`: all are ended. Why connected calls are ended is logged.
    pub(crate) fn away(&self, absence: Absence, adopt_within: Duration) -> Option<Duration> {
        let calls = self.connected;
        match absence {
            _ if calls == 0 => {}
            _ if adopt_within.is_zero() => tracing::info!(
                calls,
                "connected calls of the previous run are ended: [call] adopt_within_seconds is 0"
            ),
            Ok(away) if away > adopt_within => tracing::info!(
                calls,
                away_ms = away.as_millis(),
                "connected calls of the previous run are ended: the switch was away for longer \
                 than [call] adopt_within_seconds"
            ),
            Ok(_) => {}
            Err(reason) => {
                tracing::warn!(calls, %reason, "connected calls of the previous run are ended");
            }
        }
        absence.ok()
    }
}

/// Begins to beat beside the database, and tells how long nothing did. That the file can't be used
/// is logged and keeps no call from being made: what is connected is then ended at a restart.
pub(crate) fn heartbeat(config: &Config) -> (Option<Beating>, Absence) {
    let Ok(SqliteLocation::File(database)) = SqliteLocation::parse(&config.store_url) else {
        // What goes with the process leaves no call.
        return (None, Err(UnknownAbsence::Missing));
    };
    let started = Heartbeat::beside(&database).and_then(|heartbeat| {
        let absence = heartbeat.away();
        Ok((heartbeat.start()?, absence))
    });
    match started {
        Ok((beating, absence)) => (Some(beating), absence),
        Err(error) => {
            tracing::error!(
                file = %Heartbeat::file_beside(&database).display(),
                %error,
                "the heartbeat file can't be used: connected calls are ended at a restart"
            );
            (None, Err(UnknownAbsence::Unusable))
        }
    }
}

/// Snapshots of every session that an earlier run left open. Those that can't be read are logged by
/// their session, once per start, and counted in `maskline_sessions_unreadable`.
///
/// # Errors
/// The store can't be read.
pub(crate) async fn left_open(store: &SqliteStore) -> anyhow::Result<LeftOpen> {
    let mut found = LeftOpen::default();
    let mut unreadable = 0_u32;
    let mut after = None;
    loop {
        let page = store.open_sessions(after, 500).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.session_id);
        for session in page {
            match Snapshot::from_bytes(&session.snapshot) {
                Ok(snapshot) => {
                    found.connected += usize::from(snapshot.living.is_some());
                    found.media.push(snapshot.key);
                }
                Err(error) => {
                    unreadable = unreadable.saturating_add(1);
                    tracing::error!(
                        session_id = %session.session_id,
                        sub_account = session.sub_account_id,
                        %error,
                        "a session of an earlier run is left as it is: no end of it is told"
                    );
                }
            }
            found.snapshots.push(session.snapshot);
        }
    }
    metrics::gauge!("maskline_sessions_unreadable").set(unreadable);
    if !found.snapshots.is_empty() {
        tracing::info!(
            sessions = found.snapshots.len(),
            unreadable,
            "taking over calls of the previous run"
        );
    }
    Ok(found)
}
