//! Who may call in by a trunk that asks for credentials: challenges, their nonces, and what was
//! answered with them (RFC 7616 §3.3, §3.4, §5).
//!
//! A nonce proves itself: it holds when it was made, and a keyed hash over that, the trunk and the
//! Call-ID. A challenge therefore costs no memory. The Call-ID also binds a nonce to the shard that
//! made it, so that each shard's own list of used nonces is enough to refuse a replay. A restarted
//! node has another key: nonces of the earlier run are stale.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use maskline_media::Tick;
use rand::RngCore;
use sha2::Sha256;
use sipx_sip::Headers;

use crate::config::TrunkId;
use crate::credentials::InboundAuth;
use crate::sip::digest::{Algorithm, Given, hex};

/// How long a nonce may be used.
const NONCE_LIFETIME: Duration = Duration::from_secs(60);
/// Most used nonces that are remembered. When one more comes, the oldest is forgotten, and whatever
/// is as old counts as stale.
const MOST_NONCES: usize = 10_000;
/// Wrong answers of one source within [`FAILURE_WINDOW`] before it hears nothing for [`SILENCE`].
const MOST_FAILURES: u32 = 10;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(60);
/// Most sources whose wrong answers are counted.
const MOST_SOURCES: usize = 1_000;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admittance {
    /// It comes from who it says.
    Granted,
    /// It is to be asked; the reason is for the counter.
    Challenge {
        /// Whether the answer was right but for its nonce.
        stale: bool,
        /// Why.
        reason: &'static str,
    },
}

/// A nonce that has been used, by its age and its random part.
type Used = (u64, u64);

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Tick,
    count: u32,
}

/// One shard's doorkeeper.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    key: [u8; 32],
    /// The highest count that each used nonce came with.
    used: BTreeMap<Used, u32>,
    /// Nonces of this age and older are stale.
    forgotten: Option<u64>,
    failures: BTreeMap<IpAddr, Failures>,
}

impl Doorkeeper {
    /// With a key that nobody else knows.
    pub(crate) const fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            used: BTreeMap::new(),
            forgotten: None,
            failures: BTreeMap::new(),
        }
    }

    /// Whether a source has answered wrongly so often that it hears nothing.
    ///
    /// Only an answer to a nonce of ours counts, and that nonce goes to the address that it is
    /// asked from: nobody can silence a carrier by forging its address.
    pub(crate) fn is_silenced(&self, now: Tick, source: IpAddr) -> bool {
        self.failures.get(&source).is_some_and(|failures| {
            failures.count >= MOST_FAILURES && now.since(failures.since) < SILENCE
        })
    }

    /// Judges a request by its credentials.
    pub(crate) fn judge(
        &mut self,
        now: Tick,
        inbound: &InboundAuth,
        trunk: TrunkId,
        request: (&str, &str, &Headers),
        source: IpAddr,
    ) -> Admittance {
        let (method, call_id, headers) = request;
        let mut verdict = Admittance::Challenge {
            stale: false,
            reason: "auth_asked",
        };
        for given in Given::read_all(headers, false) {
            if given.realm != inbound.realm {
                continue;
            }
            let right = given.username == inbound.username
                && inbound
                    .ha1(given.algorithm)
                    .is_some_and(|ha1| given.proves(ha1, method));
            let nonce = self.open(&given.nonce, trunk, call_id);
            verdict = match (nonce, right) {
                (Some(nonce), true) => self.use_nonce(now, nonce, given.count),
                (None, true) => Admittance::Challenge {
                    stale: true,
                    reason: "auth_foreign_nonce",
                },
                (Some(_), false) => {
                    self.fail(now, source);
                    Admittance::Challenge {
                        stale: false,
                        reason: "auth_wrong",
                    }
                }
                (None, false) => Admittance::Challenge {
                    stale: false,
                    reason: "auth_wrong_and_foreign",
                },
            };
            if verdict == Admittance::Granted {
                self.failures.remove(&source);
                return verdict;
            }
        }
        verdict
    }

    /// The values of `WWW-Authenticate`, the stronger algorithm first (RFC 8760 §2.4).
    pub(crate) fn challenges(
        &self,
        now: Tick,
        inbound: &InboundAuth,
        trunk: TrunkId,
        call_id: &str,
        stale: bool,
        rng: &mut dyn RngCore,
    ) -> Vec<String> {
        let made = milliseconds(now);
        let salt = rng.next_u64();
        let proof = self.proof(made, salt, trunk, call_id);
        let nonce = format!("{made:016x}{salt:016x}{proof}");
        let stale = if stale { ", stale=true" } else { "" };
        [Algorithm::Sha256, Algorithm::Md5]
            .into_iter()
            .filter(|algorithm| inbound.ha1(*algorithm).is_some())
            .map(|algorithm| {
                format!(
                    "Digest realm=\"{}\", nonce=\"{nonce}\", algorithm={}, qop=\"auth\"{stale}",
                    inbound.realm,
                    algorithm.as_str()
                )
            })
            .collect()
    }

    /// When a nonce of ours was made, and its random part; `None`: it is not ours, or it was made
    /// for another trunk or call.
    fn open(&self, nonce: &str, trunk: TrunkId, call_id: &str) -> Option<Used> {
        let number = |range| u64::from_str_radix(nonce.get(range)?, 16).ok();
        let (made, salt) = (number(0..16)?, number(16..32)?);
        (nonce.get(32..)? == self.proof(made, salt, trunk, call_id)).then_some((made, salt))
    }

    fn proof(&self, made: u64, salt: u64, trunk: TrunkId, call_id: &str) -> String {
        // A key of any length will do.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else {
            return String::new();
        };
        mac.update(&made.to_be_bytes());
        mac.update(&salt.to_be_bytes());
        mac.update(&trunk.0.to_be_bytes());
        mac.update(call_id.as_bytes());
        hex(mac.finalize().into_bytes().get(..16).unwrap_or_default())
    }

    fn use_nonce(&mut self, now: Tick, nonce: Used, count: u32) -> Admittance {
        let lifetime = u64::try_from(NONCE_LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let oldest = milliseconds(now).saturating_sub(lifetime);
        self.used = self.used.split_off(&(oldest, 0));
        if nonce.0 < oldest || self.forgotten.is_some_and(|age| nonce.0 <= age) {
            return Admittance::Challenge {
                stale: true,
                reason: "auth_stale",
            };
        }
        if self.used.get(&nonce).is_some_and(|used| count <= *used) || count == 0 {
            // Whoever repeats a captured answer doesn't know the password, and gains nothing by a
            // new nonce; whoever knows it goes on with that.
            return Admittance::Challenge {
                stale: true,
                reason: "auth_replayed",
            };
        }
        self.used.insert(nonce, count);
        if self.used.len() > MOST_NONCES
            && let Some(((age, _), _)) = self.used.pop_first()
        {
            self.forgotten = self.forgotten.max(Some(age));
        }
        Admittance::Granted
    }

    fn fail(&mut self, now: Tick, source: IpAddr) {
        let fresh = Failures {
            since: now,
            count: 0,
        };
        if !self.failures.contains_key(&source) && self.failures.len() >= MOST_SOURCES {
            let oldest = self.failures.iter().min_by_key(|(_, it)| it.since);
            if let Some(oldest) = oldest.map(|(source, _)| *source) {
                self.failures.remove(&oldest);
            }
        }
        let failures = self.failures.entry(source).or_insert(fresh);
        if now.since(failures.since) >= FAILURE_WINDOW {
            *failures = fresh;
        }
        failures.count += 1;
        if failures.count == MOST_FAILURES {
            // The silence begins now.
            failures.since = now;
        }
    }
}

fn milliseconds(tick: Tick) -> u64 {
    u64::try_from(tick.since_start().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::net::Ipv4Addr;

    use rand::SeedableRng as _;
    use rand_chacha::ChaCha12Rng;
    use sipx_sip::Header;

    use super::*;
    use crate::sip::HeaderName;
    use crate::sip::digest::{Challenge, Protected};

    const CARRIER: TrunkId = TrunkId(0);
    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    struct Door {
        keeper: Doorkeeper,
        rng: ChaCha12Rng,
        now: Tick,
        inbound: InboundAuth,
    }

    impl Door {
        fn new() -> Self {
            Self {
                keeper: Doorkeeper::new([7; 32]),
                rng: ChaCha12Rng::seed_from_u64(1),
                now: Tick::from_start(Duration::from_secs(1_000)),
                inbound: InboundAuth::with_password("carrier", "sip.example", "secret"),
            }
        }

        fn ask(&mut self, trunk: TrunkId, call_id: &str) -> Vec<Challenge> {
            let mut headers = Headers::new();
            for value in self.keeper.challenges(
                self.now,
                &self.inbound,
                trunk,
                call_id,
                false,
                &mut self.rng,
            ) {
                headers.push(Header::build(HeaderName::WwwAuthenticate, value).unwrap());
            }
            let read = Challenge::read_all(&headers);
            read.into_iter().map(Option::unwrap).collect()
        }

        fn judge(&mut self, trunk: TrunkId, call_id: &str, answer: &str) -> Admittance {
            let mut headers = Headers::new();
            let header = Header::build(HeaderName::Authorization, answer.to_owned());
            headers.push(header.unwrap());
            self.keeper.judge(
                self.now,
                &self.inbound,
                trunk,
                ("INVITE", call_id, &headers),
                SOURCE,
            )
        }
    }

    fn answer(challenge: &Challenge, password: &str, count: u32) -> String {
        let request = Protected {
            method: "INVITE",
            uri: "sip:+6568330000@192.0.2.9",
            body: b"",
        };
        challenge
            .answer("carrier", password, &request, count, "c")
            .1
    }

    const fn again(stale: bool, reason: &'static str) -> Admittance {
        Admittance::Challenge { stale, reason }
    }

    #[test]
    fn the_right_answer_opens_the_door_by_either_algorithm_and_once_per_count() {
        let mut door = Door::new();
        let challenges = door.ask(CARRIER, "call");
        let algorithms: Vec<_> = challenges.iter().map(|it| it.algorithm).collect();
        assert_eq!(algorithms, [Algorithm::Sha256, Algorithm::Md5]);
        let first = answer(&challenges[0], "secret", 1);
        assert_eq!(door.judge(CARRIER, "call", &first), Admittance::Granted);
        assert_eq!(
            door.judge(CARRIER, "call", &first),
            again(true, "auth_replayed")
        );
        // Both challenges share their nonce, and so its count.
        let second = answer(&challenges[1], "secret", 2);
        assert_eq!(door.judge(CARRIER, "call", &second), Admittance::Granted);
        let zero = answer(&challenges[1], "secret", 0);
        assert_eq!(
            door.judge(CARRIER, "call", &zero),
            again(true, "auth_replayed")
        );
    }

    #[test]
    fn a_nonce_is_good_for_one_call_on_one_trunk_in_one_run() {
        let mut door = Door::new();
        let challenge = door.ask(CARRIER, "call").remove(0);
        let answer = answer(&challenge, "secret", 1);
        let foreign = again(true, "auth_foreign_nonce");
        assert_eq!(door.judge(CARRIER, "another", &answer), foreign);
        assert_eq!(door.judge(TrunkId(1), "call", &answer), foreign);
        door.keeper.key = [8; 32];
        assert_eq!(door.judge(CARRIER, "call", &answer), foreign);
    }

    #[test]
    fn a_nonce_grows_stale_and_its_use_is_forgotten() {
        let mut door = Door::new();
        let challenge = door.ask(CARRIER, "call").remove(0);
        door.now = door.now + NONCE_LIFETIME;
        let granted = door.judge(CARRIER, "call", &answer(&challenge, "secret", 1));
        assert_eq!(granted, Admittance::Granted);
        door.now = door.now + Duration::from_millis(1);
        let late = door.judge(CARRIER, "call", &answer(&challenge, "secret", 2));
        assert_eq!(late, again(true, "auth_stale"));
        assert!(door.keeper.used.is_empty());
    }

    #[test]
    fn a_full_list_of_used_nonces_lets_no_replay_through() {
        let mut door = Door::new();
        let mut first = None;
        for call in 0..=MOST_NONCES {
            let challenge = door.ask(CARRIER, &call.to_string()).remove(0);
            let answer = answer(&challenge, "secret", 1);
            let verdict = door.judge(CARRIER, &call.to_string(), &answer);
            assert_eq!(verdict, Admittance::Granted);
            first.get_or_insert(answer);
            door.now = door.now + Duration::from_millis(1);
        }
        assert_eq!(door.keeper.used.len(), MOST_NONCES);
        assert_eq!(
            door.judge(CARRIER, "0", &first.unwrap()),
            again(true, "auth_stale")
        );
    }

    #[test]
    fn whoever_guesses_is_silenced_for_a_while_and_a_forger_silences_nobody() {
        let mut door = Door::new();
        for _ in 0..100 {
            let mut challenge = door.ask(CARRIER, "call").remove(0);
            challenge.nonce.replace_range(40..41, "-");
            let forged = door.judge(CARRIER, "call", &answer(&challenge, "guess", 1));
            assert_eq!(forged, again(false, "auth_wrong_and_foreign"));
        }
        assert!(!door.keeper.is_silenced(door.now, SOURCE));
        for _ in 0..MOST_FAILURES {
            assert!(!door.keeper.is_silenced(door.now, SOURCE));
            let challenge = door.ask(CARRIER, "call").remove(0);
            let wrong = door.judge(CARRIER, "call", &answer(&challenge, "guess", 1));
            assert_eq!(wrong, again(false, "auth_wrong"));
        }
        assert!(door.keeper.is_silenced(door.now, SOURCE));
        assert!(
            !door
                .keeper
                .is_silenced(door.now, IpAddr::V4(Ipv4Addr::LOCALHOST))
        );
        door.now = door.now + SILENCE;
        assert!(!door.keeper.is_silenced(door.now, SOURCE));
        // One more wrong answer doesn't silence again at once.
        let challenge = door.ask(CARRIER, "call").remove(0);
        door.judge(CARRIER, "call", &answer(&challenge, "guess", 1));
        assert!(!door.keeper.is_silenced(door.now, SOURCE));
    }

    #[test]
    fn the_sources_that_are_counted_are_bounded() {
        let mut door = Door::new();
        for source in 0..2_000_u32 {
            door.keeper
                .fail(door.now, IpAddr::V4(Ipv4Addr::from_bits(source)));
        }
        assert_eq!(door.keeper.failures.len(), MOST_SOURCES);
    }
}
