//! What an earlier run left open: its sessions, and those among them that nobody can read.

use maskline_store::{SqliteStore, Store as _};
use maskline_switch::snapshot::Snapshot;

/// Snapshots of every session that an earlier run left open. Those that can't be read are logged by
/// their session, once per start, and counted in `maskline_sessions_unreadable`.
///
/// # Errors
/// The store can't be read.
pub(crate) async fn left_open(store: &SqliteStore) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut unreadable = 0_u32;
    let mut after = None;
    loop {
        let page = store.open_sessions(after, 500).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.session_id);
        for session in page {
            if let Err(error) = Snapshot::from_bytes(&session.snapshot) {
                unreadable = unreadable.saturating_add(1);
                tracing::error!(
                    session_id = %session.session_id,
                    sub_account = session.sub_account_id,
                    %error,
                    "a session of an earlier run is left as it is: no end of it is told"
                );
            }
            found.push(session.snapshot);
        }
    }
    metrics::gauge!("maskline_sessions_unreadable").set(unreadable);
    if !found.is_empty() {
        tracing::info!(
            sessions = found.len(),
            unreadable,
            "taking over calls of the previous run"
        );
    }
    Ok(found)
}
