//! Calls at a daemon that no session has: left there by an earlier run whose calls could not go on, or by a
//! deletion that did not arrive. They are deleted, or the daemon would keep their ports until its own timeouts.
//!
//! What an earlier run left open is known by its sessions and deleted by name. Whatever else is ours is found in
//! the daemon's list, of which a part is looked at each time. Calls of other installations and of other programs
//! are not touched.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::Shared;
use crate::instance::{Fault, Instance};
use crate::naming::Naming;
use crate::protocol::{Named, Request};

/// How often a daemon is looked through.
const EVERY: Duration = Duration::from_secs(60);
/// How soon again after it was found down or busy.
const AGAIN: Duration = Duration::from_secs(2);
/// So many names are asked for; fewer if an answer with so many does not fit a datagram.
const NAMES: [u32; 2] = [1_000, 200];

/// Looks through one daemon, again and again, from the end of adoption on.
pub(crate) async fn delete(
    shared: Arc<Shared>,
    instance: Arc<Instance>,
    mut found: Vec<u64>,
    stop: CancellationToken,
) {
    let looks = async {
        shared.adopted.cancelled().await;
        loop {
            let looked = match instance.is_up() {
                true => look(&shared, &instance, &mut found).await,
                false => Err(Fault::Silent),
            };
            let pause = match looked {
                Err(Fault::Silent | Fault::Gone) => AGAIN,
                // It would say the same once more.
                Ok(()) | Err(Fault::Refused(_) | Fault::Unreadable(_)) => EVERY,
            };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = looks => {}
        () = stop.cancelled() => {}
    }
}

async fn look(shared: &Shared, instance: &Instance, found: &mut Vec<u64>) -> Result<(), Fault> {
    delete_found(shared, instance, found).await?;
    delete_listed(shared, instance).await
}

/// What an earlier run left open and no session took up, each once.
async fn delete_found(
    shared: &Shared,
    instance: &Instance,
    found: &mut Vec<u64>,
) -> Result<(), Fault> {
    while let Some(key) = found.last().copied() {
        if !shared.has_session(key) {
            for name in [shared.naming.call_id(key), Naming::earlier_call_id(key)] {
                delete_one(instance, name).await?;
            }
        }
        found.pop();
    }
    Ok(())
}

/// Whatever else of ours the daemon names.
async fn delete_listed(shared: &Shared, instance: &Instance) -> Result<(), Fault> {
    let mut listed = Err(Fault::Silent);
    for limit in NAMES {
        listed = instance.ask(&Request::List { limit }).await;
        if !matches!(listed, Err(Fault::Silent)) {
            break;
        }
    }
    for name in listed?.calls {
        let key = shared.naming.own_key_in(&name);
        if key.is_some_and(|key| !shared.has_session(key)) {
            delete_one(instance, name).await?;
        }
    }
    instance.looks.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// That there was none is no fault.
async fn delete_one(instance: &Instance, call_id: String) -> Result<(), Fault> {
    let named = Named {
        call_id: call_id.clone(),
    };
    match instance.ask(&Request::Delete { named, delay: 0 }).await {
        Ok(done) => {
            if done.warning.is_none() {
                instance.leftovers.fetch_add(1, Ordering::Relaxed);
                tracing::info!(instance = %instance.address, call = call_id, "a call that nobody has any more was deleted at rtpengine");
            }
            Ok(())
        }
        Err(Fault::Refused(_)) => Ok(()),
        Err(fault @ (Fault::Silent | Fault::Gone | Fault::Unreadable(_))) => Err(fault),
    }
}
