//! Who asks, and whether they may: bearer keys, their scope, and the limit on failures.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use maskline_store::ApiKeyScope;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::error::ApiError;
use crate::extract;
use crate::serve::Peer;
use crate::state::ApiState;
use crate::throttle::{Counts, Source};

/// The longest key that is looked at, bytes.
const LONGEST_KEY: usize = 256;

/// How many keys are remembered as good.
const PROVEN_KEYS: usize = 1024;

/// For how long the store's answer about a key is taken as it was.
const KNOWN_FOR: Duration = Duration::from_secs(2);

/// SHA-256 of a key: what is compared and remembered instead of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyHash([u8; 32]);

impl KeyHash {
    pub(crate) fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Failures per address, and the keys that are exempt from the limit.
///
/// Behind a reverse proxy all clients have one address: a client with a wrong key must not lock out
/// those whose key is known to be good.
pub(crate) struct Throttles {
    failures: Mutex<Counts<Source>>,
    proven: Mutex<ProvenKeys>,
}

#[derive(Default)]
struct ProvenKeys {
    keys: BTreeSet<KeyHash>,
    order: VecDeque<KeyHash>,
}

impl ProvenKeys {
    fn insert(&mut self, key: KeyHash) {
        if !self.keys.insert(key) {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > PROVEN_KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &KeyHash) {
        if self.keys.remove(key) {
            self.order.retain(|known| known != key);
        }
    }
}

impl Throttles {
    pub(crate) fn new(failures_per_minute: u32) -> Self {
        Self {
            failures: Mutex::new(Counts::new(failures_per_minute)),
            proven: Mutex::new(ProvenKeys::default()),
        }
    }

    /// Whether this address may try a key now. Behind a proxy all clients are one address, so one of
    /// them must not lock out the others: a key that was accepted before, and one of the form that we
    /// make, whose 256 bits nobody guesses, are looked at in any case.
    fn admit(
        &self,
        source: Source,
        key: Option<&str>,
        hash: Option<&KeyHash>,
    ) -> Result<(), ApiError> {
        let wait = lock(&self.failures).wait(&source, Instant::now());
        let Some(wait) = wait else {
            return Ok(());
        };
        if key.is_some_and(is_generated)
            || hash.is_some_and(|hash| lock(&self.proven).keys.contains(hash))
        {
            return Ok(());
        }
        Err(ApiError::TooManyFailures {
            retry_after_s: wait.as_secs().saturating_add(1),
        })
    }

    fn failed(&self, source: Source, key: Option<&KeyHash>) {
        metrics::counter!("maskline_http_authentication_failures_total").increment(1);
        if let Some(key) = key {
            lock(&self.proven).remove(key);
        }
        if lock(&self.failures).count(source, Instant::now()) {
            tracing::warn!(
                ?source,
                "too many failed API authentications; further ones from there get 429 for up to a minute"
            );
        }
    }

    pub(crate) fn succeeded(&self, key: KeyHash) {
        lock(&self.proven).insert(key);
    }
}

/// The tables hold no invariant that a panic could break, so a poisoned lock is taken as it is.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The key of `Authorization: Bearer …` (RFC 6750 §2.1; the scheme's case does not matter, RFC 9110
/// §11.1). Exactly one such header, a key of visible ASCII and at most 256 bytes.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    let key = key.trim_matches(' ');
    let is_key = !key.is_empty()
        && key.len() <= LONGEST_KEY
        && key.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && is_key).then_some(key)
}

/// Whether a key has the form of those that the store makes: `mk_` or `mka_` and 256 bits in base64url.
fn is_generated(key: &str) -> bool {
    let random = key.strip_prefix("mk_").or_else(|| key.strip_prefix("mka_"));
    random.is_some_and(|random| {
        random.len() == 43
            && random
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    })
}

async fn authenticate(parts: &Parts, state: &ApiState) -> Result<ApiKeyScope, ApiError> {
    let address = parts
        .extensions
        .get::<Peer>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    let source = Source::from(address);
    let key = bearer(&parts.headers);
    let hash = key.map(KeyHash::of);
    state.throttles.admit(source, key, hash.as_ref())?;
    let (Some(key), Some(hash)) = (key, hash) else {
        state.throttles.failed(source, None);
        return Err(ApiError::Unauthenticated);
    };
    match scope_of(key, &hash, state).await? {
        Some(scope) => {
            state.throttles.succeeded(hash);
            Ok(scope)
        }
        None => {
            state.throttles.failed(source, Some(&hash));
            Err(ApiError::Unauthenticated)
        }
    }
}

async fn scope_of(
    key: &str,
    hash: &KeyHash,
    state: &ApiState,
) -> Result<Option<ApiKeyScope>, ApiError> {
    if let Some(admin_key) = &state.admin_key
        && admin_key.matches(hash)
    {
        return Ok(Some(ApiKeyScope::Admin));
    }
    if let Some(scope) = state.known_keys.scope(hash) {
        return Ok(Some(scope));
    }
    let scope = state.store().authenticate(key).await?;
    let scope = scope.filter(|scope| state.admin_key.is_none() || *scope != ApiKeyScope::Admin);
    if let Some(scope) = &scope {
        state.known_keys.remember(*hash, scope.clone());
    }
    Ok(scope)
}

/// What keys may do, for [`KNOWN_FOR`]: whoever reports a thousand updates a second is looked up
/// once. A key that is not known is asked for each time.
#[derive(Default)]
pub(crate) struct KnownKeys(Mutex<BTreeMap<KeyHash, (Instant, ApiKeyScope)>>);

impl KnownKeys {
    fn scope(&self, key: &KeyHash) -> Option<ApiKeyScope> {
        let known = lock(&self.0);
        let (until, scope) = known.get(key)?;
        (Instant::now() < *until).then(|| scope.clone())
    }

    fn remember(&self, key: KeyHash, scope: ApiKeyScope) {
        let now = Instant::now();
        let mut known = lock(&self.0);
        if known.len() >= PROVEN_KEYS {
            known.retain(|_, (until, _)| now < *until);
        }
        if known.len() < PROVEN_KEYS {
            known.insert(key, (now + KNOWN_FOR, scope));
        }
    }
}

/// The request has an admin key.
pub(crate) struct AdminAccess;

impl FromRequestParts<ApiState> for AdminAccess {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        match authenticate(parts, state).await? {
            ApiKeyScope::Admin => Ok(Self),
            ApiKeyScope::SubAccounts(_) => Err(ApiError::Forbidden),
        }
    }
}

/// The request's key has a right to the sub-account in its path, and that sub-account exists.
///
/// A key of other sub-accounts gets 403 whether this one exists or not, so that names can't be
/// probed; only an admin key learns by 404 that there is none.
pub(crate) struct SubAccountAccess {
    pub(crate) sub_account_id: String,
    /// Whether the operator asks, and not the sub-account.
    pub(crate) is_admin: bool,
}

impl SubAccountAccess {
    /// In whose line the request stands for what takes long: the operator's is its own, so that it can
    /// look and replay whatever a sub-account does. No sub-account is called "".
    pub(crate) fn line(&self) -> &str {
        if self.is_admin {
            ""
        } else {
            &self.sub_account_id
        }
    }
}

impl FromRequestParts<ApiState> for SubAccountAccess {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let scope = authenticate(parts, state).await?;
        let sub_account_id = extract::path_parameter(parts, "subAccountId").await?;
        match scope {
            ApiKeyScope::SubAccounts(own) => {
                if !own.contains(&sub_account_id) {
                    return Err(ApiError::Forbidden);
                }
                Ok(Self {
                    sub_account_id,
                    is_admin: false,
                })
            }
            ApiKeyScope::Admin => {
                let all = state.store().sub_accounts().await?;
                if !all.iter().any(|one| one.sub_account_id == sub_account_id) {
                    return Err(ApiError::NotFound("The sub-account"));
                }
                Ok(Self {
                    sub_account_id,
                    is_admin: true,
                })
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn key_of(values: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::AUTHORIZATION,
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn only_one_well_formed_bearer_header_has_a_key() {
        assert_eq!(key_of(&[b"Bearer mk_1"]).as_deref(), Some("mk_1"));
        assert_eq!(key_of(&[b"bEARER   mk_1 "]).as_deref(), Some("mk_1"));
        let long = [b"Bearer ".as_slice(), &[b'a'; 257]].concat();
        let refused: [&[&[u8]]; 10] = [
            &[],
            &[b"Bearer"],
            &[b"Bearer "],
            &[b"Basic bWtfMQ=="],
            &[b"mk_1"],
            &[b"Bearer mk 1"],
            &[b"Bearer mk\t1"],
            &[b"Bearer \xff\xfe"],
            &[&long],
            &[b"Bearer mk_1", b"Bearer mk_1"],
        ];
        for values in refused {
            assert_eq!(key_of(values), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_key_may_do_is_known_for_two_seconds_and_of_so_many_keys_at_most() {
        let known = KnownKeys::default();
        let key = KeyHash::of("key");
        assert_eq!(known.scope(&key), None);
        known.remember(key, ApiKeyScope::Admin);
        tokio::time::advance(Duration::from_millis(1_999)).await;
        assert_eq!(known.scope(&key), Some(ApiKeyScope::Admin));
        tokio::time::advance(Duration::from_millis(2)).await;
        assert_eq!(known.scope(&key), None);
        for number in 0..2_000 {
            known.remember(KeyHash::of(&number.to_string()), ApiKeyScope::Admin);
        }
        assert_eq!(lock(&known.0).len(), PROVEN_KEYS);
    }

    #[test]
    fn the_list_of_proven_keys_stays_bounded() {
        let mut proven = ProvenKeys::default();
        for number in 0..5_000 {
            proven.insert(KeyHash::of(&number.to_string()));
        }
        assert_eq!((proven.keys.len(), proven.order.len()), (1024, 1024));
        proven.remove(&KeyHash::of("4999"));
        assert_eq!((proven.keys.len(), proven.order.len()), (1023, 1023));
    }
}
