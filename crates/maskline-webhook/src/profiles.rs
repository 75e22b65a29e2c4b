//! The clients of endpoints that have TLS settings of their own: one for each distinct set, with
//! connections of its own, so that none says to one endpoint who it is to another.
//!
//! What lives elsewhere: what is set (`tls`), where a connection may go (`connector`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::RootCertStore;
use tokio::time::Instant;

use crate::client::{Http, SendError, http_client};
use crate::connector::GuardedConnector;
use crate::tls::TlsProfile;

/// Most clients that are kept; the one that was used longest ago goes first.
const MAX_CLIENTS: usize = 1_024;
/// A client that is not used for so long is dropped, and its key with it.
const IDLE: Duration = Duration::from_secs(600);

/// A bounded cache of clients.
pub(crate) struct Profiles {
    connector: GuardedConnector,
    /// Of endpoints that name no authority.
    roots: Arc<RootCertStore>,
    most: usize,
    clients: Mutex<Clients>,
}

struct Clients {
    of: BTreeMap<Arc<TlsProfile>, Used>,
    swept: Instant,
}

struct Used {
    http: Http,
    last: Instant,
}

impl Profiles {
    /// None yet; those to come connect by `connector`.
    pub(crate) fn new(connector: GuardedConnector, roots: Arc<RootCertStore>) -> Self {
        Self {
            connector,
            roots,
            most: MAX_CLIENTS,
            clients: Mutex::new(Clients {
                of: BTreeMap::new(),
                swept: Instant::now(),
            }),
        }
    }

    /// The client of this profile, made if there is none.
    pub(crate) fn client(&self, profile: &Arc<TlsProfile>) -> Result<Http, SendError> {
        let now = Instant::now();
        if let Some(http) = self.lock().known(profile, now) {
            return Ok(http);
        }
        // PEM is read while nobody waits for the others' clients.
        let config = profile
            .config(&self.roots)
            .map_err(|fault| SendError::Tls(format!("{} {}", fault.field, fault.reason)))?;
        let http = http_client(config, self.connector.clone());
        let mut clients = self.lock();
        // Who came first made it.
        if let Some(http) = clients.known(profile, now) {
            return Ok(http);
        }
        if clients.of.len() >= self.most {
            let oldest = clients.of.iter().min_by_key(|(_, used)| used.last);
            if let Some(oldest) = oldest.map(|(profile, _)| Arc::clone(profile)) {
                clients.of.remove(&oldest);
            }
        }
        let used = Used {
            http: http.clone(),
            last: now,
        };
        clients.of.insert(Arc::clone(profile), used);
        Ok(http)
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        // Nothing panics while it is held, and a map is whole between two calls.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    /// The client of this profile, if there is one; those that nobody uses go.
    fn known(&mut self, profile: &Arc<TlsProfile>, now: Instant) -> Option<Http> {
        if now >= self.swept + IDLE {
            self.swept = now;
            self.of.retain(|_, used| now < used.last + IDLE);
        }
        let used = self.of.get_mut(profile)?;
        used.last = now;
        Some(used.http.clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use maskline_store::TlsSettings;

    use super::*;
    use crate::egress::EgressPolicy;
    use crate::network::SystemNetwork;

    fn profiles(most: usize) -> Profiles {
        let network = Arc::new(SystemNetwork::default());
        let connector = GuardedConnector::new(EgressPolicy::default(), network);
        let roots = Arc::new(RootCertStore::empty());
        Profiles {
            most,
            ..Profiles::new(connector, roots)
        }
    }

    /// The authority of the tests, and so many line ends.
    fn profile(number: usize) -> Arc<TlsProfile> {
        let der = STANDARD.encode(include_bytes!("../tests/tls/authority.der"));
        let ends = "\n".repeat(number);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n{ends}");
        let tls = TlsSettings {
            ca: Some(pem),
            client_certificate: None,
        };
        Arc::new(TlsProfile::new(tls, None))
    }

    fn kept(profiles: &Profiles) -> Vec<usize> {
        let clients = profiles.clients.lock().unwrap();
        (0..10)
            .filter(|number| clients.of.contains_key(&profile(*number)))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_kept_by_what_is_set_and_the_one_used_longest_ago_goes_first() {
        let profiles = profiles(3);
        for number in [0, 1, 2, 0, 0, 3] {
            profiles.client(&profile(number)).unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(kept(&profiles), [0, 2, 3]);
        // A key that is no longer used is no longer kept.
        tokio::time::advance(IDLE / 2).await;
        profiles.client(&profile(2)).unwrap();
        tokio::time::advance(IDLE / 2).await;
        profiles.client(&profile(2)).unwrap();
        assert_eq!(kept(&profiles), [2]);
    }

    #[tokio::test]
    async fn settings_that_can_not_be_used_fail_the_attempt_and_take_no_place() {
        let profiles = profiles(3);
        let tls = TlsSettings {
            ca: Some("nothing".to_owned()),
            client_certificate: None,
        };
        let broken = Arc::new(TlsProfile::new(tls, None));
        let error = profiles.client(&broken).err().unwrap();
        assert_eq!(
            error.to_string(),
            "TLS: tls.ca holds no certificates in PEM (-----BEGIN CERTIFICATE-----)"
        );
        assert!(profiles.clients.lock().unwrap().of.is_empty());
    }
}
