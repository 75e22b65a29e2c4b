//! What the node knows of its trunks: the calls that each carries, and whether it is registered.

use std::sync::{Arc, Mutex, PoisonError};

use maskline_switch::{Admission, RegistrationState, Trunk, TrunkId};

/// One trunk, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Legs that are up, in and out.
    pub calls: u32,
    /// Its registration; `None` when it needs none.
    pub registration: Option<RegistrationState>,
}

/// What is told of the trunks; clones are handles of the same.
#[derive(Clone, Debug)]
pub(crate) struct Trunks {
    admission: Arc<Mutex<Admission>>,
    known: Arc<Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    name: String,
    registration: Option<Mutex<RegistrationState>>,
}

impl Trunks {
    pub(crate) fn new(trunks: &[Trunk], admission: Arc<Mutex<Admission>>) -> Self {
        let known = trunks.iter().map(|trunk| Known {
            name: trunk.name.clone(),
            registration: trunk.registration.as_ref().map(|_| Mutex::default()),
        });
        Self {
            admission,
            known: Arc::new(known.collect()),
        }
    }

    /// All of them, in the configuration's order.
    pub(crate) fn status(&self) -> Vec<TrunkStatus> {
        let admission = self
            .admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (0..=u16::MAX)
            .zip(self.known.iter())
            .map(|(at, known)| TrunkStatus {
                name: known.name.clone(),
                calls: admission.calls(TrunkId(at)),
                registration: known
                    .registration
                    .as_ref()
                    .map(|state| *state.lock().unwrap_or_else(PoisonError::into_inner)),
            })
            .collect()
    }

    /// A registration has changed: for the gauge, the log and the API.
    pub(crate) fn registered(&self, trunk: TrunkId, state: RegistrationState) {
        let Some(known) = self.known.get(usize::from(trunk.0)) else {
            return;
        };
        let Some(kept) = &known.registration else {
            return;
        };
        let before = std::mem::replace(
            &mut *kept.lock().unwrap_or_else(PoisonError::into_inner),
            state,
        );
        let name = &known.name;
        let level = if state.registered { 1.0 } else { 0.0 };
        metrics::gauge!("maskline_trunk_registered", "trunk" => name.clone()).set(level);
        match (state.registered, state.failure) {
            (true, None) => tracing::info!(trunk = name, "registered"),
            (true, Some(failure)) => {
                tracing::warn!(trunk = name, "the registration is not refreshed: {failure}");
            }
            (false, Some(failure)) => tracing::warn!(trunk = name, "not registered: {failure}"),
            (false, None) if before.registered => {
                tracing::info!(trunk = name, "no longer registered");
            }
            (false, None) => {}
        }
    }
}
