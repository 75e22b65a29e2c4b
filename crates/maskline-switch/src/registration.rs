//! Registering a trunk with its carrier (RFC 3261 §10.2): when to ask which registrar, and what its
//! answer means. The messages are made in [`crate::shard`].
//!
//! One registrar is asked at a time. One that is silent or overloaded is followed by the next; when
//! all have failed, or one has refused, it is tried again after a while that doubles (RFC 5626 §4.5).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use maskline_media::Tick;
use rand::{Rng as _, RngCore};
use sipx_sip::{Address, Headers};

use crate::sip::{HeaderName, view};

/// The first wait after a failure, and the longest (RFC 5626 §4.5).
const BACKOFF_FIRST: Duration = Duration::from_secs(30);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1_800);
/// The longest registration that a registrar can make us ask for.
const LONGEST_SECONDS: u32 = 86_400;
/// A registration of this length or longer is refreshed late in its life, a shorter one half-way.
const LONG_SECONDS: u32 = 120;

/// `[trunk.registration]`: where and as whom a trunk registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkRegistration {
    /// The Request-URI: the registrar's domain, as `sip:carrier.example`.
    pub registrar: String,
    /// Whom we register: `sip:acme@carrier.example`.
    pub address_of_record: String,
    /// The user part of our Contact, which stands in the Request-URI of calls that come by it.
    pub contact_user: String,
    /// Where the registrars are, the preferred first; at least one.
    pub targets: Vec<SocketAddr>,
    /// How long a registration should last, in seconds.
    pub expires_seconds: u32,
}

impl TrunkRegistration {
    /// Whether a registrar is at this address.
    #[must_use]
    pub fn is_at(&self, source: IpAddr) -> bool {
        self.targets.iter().any(|target| target.ip() == source)
    }
}

/// Why a trunk is not registered, or was not refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationFailure {
    /// No registrar answered.
    Unanswered,
    /// No listening socket reaches the registrar.
    NoSocket,
    /// The registrar refused with this status.
    Refused(u16),
    /// It asked for credentials that we don't have, or did not take ours.
    Credentials(u16),
    /// It answered 200 and has no binding of ours.
    NotBound,
}

impl fmt::Display for RegistrationFailure {
    /// What happened, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered => f.write_str(
                "no registrar answered: check [trunk.registration] targets, and that the network lets \
                 SIP through",
            ),
            Self::NoSocket => f.write_str(
                "no socket reaches the registrar: [sip] listen needs one of the trunk's transport",
            ),
            Self::Refused(status) => write!(
                f,
                "the registrar refused with {status}: check address_of_record, and ask the carrier"
            ),
            Self::Credentials(status) => write!(
                f,
                "the registrar did not take our credentials ({status}): check [trunk.auth] username, \
                 password and realm"
            ),
            Self::NotBound => f.write_str(
                "the registrar answered 200 without a binding of ours: ask the carrier",
            ),
        }
    }
}

/// Where a registration stands, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistrationState {
    /// Whether the registrar has a binding of ours that has not run out.
    pub registered: bool,
    /// Why the last attempt failed; `None` once one succeeds.
    pub failure: Option<RegistrationFailure>,
}

/// One REGISTER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) cseq: u32,
    /// 0: the binding is to be removed.
    pub(crate) expires_seconds: u32,
    pub(crate) target: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To be asked, from then on.
    Waiting(Tick),
    /// A REGISTER is out.
    Asking {
        /// Whether it removes the binding.
        leaves: bool,
    },
    /// Nothing more is done.
    Over,
}

/// One trunk's registration.
#[derive(Debug)]
pub(crate) struct Registration {
    plan: TrunkRegistration,
    cseq: u32,
    /// What is asked for: the plan's, or more if the registrar wants it.
    expires_seconds: u32,
    target: usize,
    /// Targets that failed since something else happened.
    failed_targets: usize,
    /// How often in a row all of it failed.
    failures: u32,
    bound_until: Option<Tick>,
    failure: Option<RegistrationFailure>,
    phase: Phase,
    /// Whether the binding is to be removed.
    leaving: bool,
}

impl Registration {
    /// Due at once.
    pub(crate) fn new(plan: TrunkRegistration) -> Self {
        Self {
            expires_seconds: plan.expires_seconds,
            plan,
            cseq: 0,
            target: 0,
            failed_targets: 0,
            failures: 0,
            bound_until: None,
            failure: None,
            phase: Phase::Waiting(Tick::ZERO),
            leaving: false,
        }
    }

    pub(crate) const fn plan(&self) -> &TrunkRegistration {
        &self.plan
    }

    pub(crate) const fn state(&self) -> RegistrationState {
        RegistrationState {
            registered: self.bound_until.is_some(),
            failure: self.failure,
        }
    }

    /// Whether nothing more is done.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether the binding is being removed: worth waiting for.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving && !self.is_over()
    }

    pub(crate) fn deadline(&self) -> Option<Tick> {
        let next = match self.phase {
            Phase::Waiting(at) => Some(at),
            Phase::Asking { .. } => None,
            Phase::Over => return None,
        };
        next.into_iter().chain(self.bound_until).min()
    }

    /// Looks at the time; a REGISTER is to be sent if there is an answer.
    pub(crate) fn on_deadline(&mut self, now: Tick) -> Option<Ask> {
        if self.bound_until.is_some_and(|until| until <= now) {
            self.bound_until = None;
            if self.leaving {
                self.phase = Phase::Over;
            }
        }
        match self.phase {
            Phase::Waiting(at) if at <= now => self.ask(),
            Phase::Waiting(_) | Phase::Asking { .. } | Phase::Over => None,
        }
    }

    /// The next REGISTER: also for the same again with credentials.
    pub(crate) fn ask(&mut self) -> Option<Ask> {
        let target = *self.plan.targets.get(self.target)?;
        let leaves = match self.phase {
            Phase::Asking { leaves } => leaves,
            Phase::Waiting(_) | Phase::Over => self.leaving,
        };
        self.cseq = self.cseq.saturating_add(1);
        self.phase = Phase::Asking { leaves };
        Some(Ask {
            cseq: self.cseq,
            expires_seconds: if leaves { 0 } else { self.expires_seconds },
            target,
        })
    }

    /// A 2xx; `contact` is the URI that we named.
    pub(crate) fn on_success(
        &mut self,
        now: Tick,
        rng: &mut dyn RngCore,
        headers: &Headers,
        contact: &str,
    ) {
        if self.phase == (Phase::Asking { leaves: true }) {
            self.bound_until = None;
            self.phase = Phase::Over;
            return;
        }
        let granted = granted_seconds(headers, contact).unwrap_or(self.expires_seconds);
        if granted == 0 {
            self.bound_until = None;
            self.fail(now, rng, RegistrationFailure::NotBound, None);
            return;
        }
        let granted = granted.min(LONGEST_SECONDS);
        self.bound_until = Some(now + Duration::from_secs(u64::from(granted)));
        self.failure = None;
        self.failures = 0;
        self.failed_targets = 0;
        let whole = Duration::from_secs(u64::from(granted));
        // Nodes that were started together do not come back together.
        let share = if granted >= LONG_SECONDS {
            rng.random_range(80..=90)
        } else {
            50
        };
        self.phase = Phase::Waiting(if self.leaving {
            now
        } else {
            now + whole * share / 100
        });
    }

    /// A final answer other than 2xx; a 401 or 407 that can't be answered among them.
    pub(crate) fn on_refusal(
        &mut self,
        now: Tick,
        rng: &mut dyn RngCore,
        status: u16,
        headers: &Headers,
    ) {
        match status {
            423 => {
                let wanted = number_of(headers, &HeaderName::MinExpires).unwrap_or(0);
                if wanted > self.expires_seconds && wanted <= LONGEST_SECONDS {
                    self.expires_seconds = wanted;
                    self.phase = Phase::Waiting(now);
                    return;
                }
                self.fail(now, rng, RegistrationFailure::Refused(status), None);
            }
            401 | 407 => self.fail(now, rng, RegistrationFailure::Credentials(status), None),
            408 | 500..=599 => {
                let failure = RegistrationFailure::Refused(status);
                let after = number_of(headers, &HeaderName::RetryAfter);
                self.fail_over(now, rng, failure, after);
            }
            _ => {
                let after = number_of(headers, &HeaderName::RetryAfter);
                self.fail(now, rng, RegistrationFailure::Refused(status), after);
            }
        }
    }

    /// Nothing came back, or the way to the registrar is closed.
    pub(crate) fn on_unanswered(
        &mut self,
        now: Tick,
        rng: &mut dyn RngCore,
        failure: RegistrationFailure,
    ) {
        self.fail_over(now, rng, failure, None);
    }

    /// Removes the binding, if there is one.
    pub(crate) fn leave(&mut self, now: Tick) {
        self.leaving = true;
        match self.phase {
            Phase::Waiting(_) if self.bound_until.is_some() => self.phase = Phase::Waiting(now),
            Phase::Waiting(_) => self.phase = Phase::Over,
            // Its answer tells whether there is one.
            Phase::Asking { .. } | Phase::Over => {}
        }
    }

    fn fail_over(
        &mut self,
        now: Tick,
        rng: &mut dyn RngCore,
        failure: RegistrationFailure,
        after: Option<u32>,
    ) {
        let targets = self.plan.targets.len().max(1);
        self.target = (self.target + 1) % targets;
        self.failed_targets += 1;
        if self.failed_targets < targets && !self.leaving {
            self.failure = Some(failure);
            self.phase = Phase::Waiting(now);
            return;
        }
        self.fail(now, rng, failure, after);
    }

    fn fail(
        &mut self,
        now: Tick,
        rng: &mut dyn RngCore,
        failure: RegistrationFailure,
        after: Option<u32>,
    ) {
        self.failure = Some(failure);
        self.failed_targets = 0;
        if self.leaving {
            self.phase = Phase::Over;
            return;
        }
        let doubled = 1_u32 << self.failures.min(10);
        self.failures = self.failures.saturating_add(1);
        let longest = BACKOFF_FIRST.saturating_mul(doubled).min(BACKOFF_LONGEST);
        let wait = longest * rng.random_range(50..=100) / 100;
        let wanted = Duration::from_secs(u64::from(after.unwrap_or(0))).min(BACKOFF_LONGEST);
        self.phase = Phase::Waiting(now + wait.max(wanted));
    }
}

/// How long a registrar's 200 says that our binding lasts; `None`: it does not say. A registrar that
/// rewrites our host behind a NAT is known by the user part.
fn granted_seconds(headers: &Headers, contact: &str) -> Option<u32> {
    let seconds = |address: &Address| {
        let text = std::str::from_utf8(address.param("expires")?).ok()?;
        text.trim().parse::<u32>().ok()
    };
    let contacts: Vec<Address> = headers
        .get_all(&HeaderName::Contact)
        .filter_map(|header| Address::parse_list(&header.value(), "Contact").ok())
        .flatten()
        .take(32)
        .collect();
    let user = |uri: &str| {
        let rest = uri.split_once(':')?.1;
        Some(rest.split_once('@')?.0.to_owned())
    };
    let exact = contacts
        .iter()
        .find(|address| view::uri_text(&address.uri) == contact);
    let ours = exact.or_else(|| {
        contacts
            .iter()
            .find(|address| user(&view::uri_text(&address.uri)) == user(contact))
    });
    match (ours.and_then(seconds), ours, contacts.is_empty()) {
        (Some(seconds), _, _) => Some(seconds),
        // The list is of every binding: ours is not among them.
        (None, None, false) => Some(0),
        (None, _, _) => number_of(headers, &HeaderName::Expires),
    }
}

/// The number that a header begins with.
fn number_of(headers: &Headers, name: &HeaderName) -> Option<u32> {
    let text = view::text(headers, name)?;
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha12Rng;
    use sipx_sip::Header;

    use super::*;

    const CONTACT: &str = "sip:acme@192.0.2.1:5060";

    struct Bench {
        registration: Registration,
        rng: ChaCha12Rng,
        now: Tick,
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn headers(lines: &[(HeaderName, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in lines {
            headers.push(Header::build(name.clone(), (*value).to_owned()).unwrap());
        }
        headers
    }

    impl Bench {
        fn new(targets: usize) -> Self {
            let targets = (1..=targets).map(|at| {
                let at = u8::try_from(at).unwrap();
                SocketAddr::from(([192, 0, 2, at], 5060))
            });
            Self {
                registration: Registration::new(TrunkRegistration {
                    registrar: "sip:carrier.example".to_owned(),
                    address_of_record: "sip:acme@carrier.example".to_owned(),
                    contact_user: "acme".to_owned(),
                    targets: targets.collect(),
                    expires_seconds: 600,
                }),
                rng: ChaCha12Rng::seed_from_u64(5),
                now: Tick::from_start(seconds(1)),
            }
        }

        /// Goes to the next deadline and asks there.
        fn next(&mut self) -> Option<(Duration, Ask)> {
            let before = self.now;
            loop {
                self.now = self.registration.deadline()?.max(self.now);
                if let Some(ask) = self.registration.on_deadline(self.now) {
                    return Some((self.now.since(before), ask));
                }
            }
        }

        fn ok(&mut self, lines: &[(HeaderName, &str)]) {
            let headers = headers(lines);
            self.registration
                .on_success(self.now, &mut self.rng, &headers, CONTACT);
        }

        fn refuse(&mut self, status: u16, lines: &[(HeaderName, &str)]) {
            let headers = headers(lines);
            self.registration
                .on_refusal(self.now, &mut self.rng, status, &headers);
        }

        fn unanswered(&mut self) {
            let failure = RegistrationFailure::Unanswered;
            self.registration
                .on_unanswered(self.now, &mut self.rng, failure);
        }
    }

    #[test]
    fn a_registration_is_refreshed_before_it_runs_out() {
        use HeaderName::{Contact, Expires};
        let ours = format!("<{CONTACT}>;expires=60");
        let nated = "<sip:acme@198.51.100.9:1024>;expires=40";
        let other = "<sip:other@192.0.2.9>;expires=5";
        for (lines, earliest, latest) in [
            (vec![], 480, 540),
            (vec![(Expires, "3600")], 2880, 3240),
            (vec![(Contact, ours.as_str()), (Expires, "3600")], 30, 30),
            (vec![(Contact, other), (Contact, &ours)], 30, 30),
            (vec![(Contact, nated)], 20, 20),
        ] {
            let mut bench = Bench::new(1);
            let (_, first) = bench.next().unwrap();
            assert_eq!((first.cseq, first.expires_seconds), (1, 600));
            bench.ok(&lines);
            assert!(bench.registration.state().registered);
            let (after, second) = bench.next().unwrap();
            assert_eq!(second.cseq, 2);
            assert!(
                (seconds(earliest)..=seconds(latest)).contains(&after),
                "{lines:?}: {after:?}"
            );
        }
    }

    #[test]
    fn a_200_without_our_binding_is_a_failure() {
        for contact in ["<sip:other@192.0.2.9>;expires=5", "<sip:acme@h>;expires=0"] {
            let mut bench = Bench::new(1);
            bench.next().unwrap();
            bench.ok(&[(HeaderName::Contact, contact)]);
            let state = bench.registration.state();
            assert!(!state.registered);
            assert_eq!(state.failure, Some(RegistrationFailure::NotBound));
        }
    }

    #[test]
    fn too_short_a_registration_is_asked_for_again_at_once_and_once() {
        let mut bench = Bench::new(1);
        bench.next().unwrap();
        bench.refuse(423, &[(HeaderName::MinExpires, "1800")]);
        let (after, ask) = bench.next().unwrap();
        assert_eq!((after, ask.expires_seconds), (Duration::ZERO, 1800));
        for useless in ["1800", "10", "90000", "x"] {
            bench.refuse(423, &[(HeaderName::MinExpires, useless)]);
            assert!(bench.next().unwrap().0 >= seconds(15), "{useless}");
        }
    }

    #[test]
    fn the_next_registrar_is_asked_at_once_and_the_round_again_after_a_while_that_doubles() {
        let mut bench = Bench::new(2);
        let mut longest = 30;
        let (_, ask) = bench.next().unwrap();
        assert_eq!(ask.target.ip().to_string(), "192.0.2.1");
        for round in 0..10 {
            bench.unanswered();
            let (after, ask) = bench.next().unwrap();
            assert_eq!(after, Duration::ZERO);
            assert_eq!(ask.target.ip().to_string(), "192.0.2.2");
            bench.refuse(503, &[]);
            let (after, ask) = bench.next().unwrap();
            assert_eq!(ask.target.ip().to_string(), "192.0.2.1");
            let range = seconds(longest) / 2..=seconds(longest);
            assert!(range.contains(&after), "round {round}: {after:?}");
            longest = (longest * 2).min(1_800);
        }
        bench.ok(&[]);
        bench.next().unwrap();
        bench.refuse(403, &[]);
        assert!(bench.next().unwrap().0 <= seconds(30), "a success forgets");
    }

    #[test]
    fn a_registrar_that_names_a_time_is_left_alone_until_then() {
        let mut bench = Bench::new(1);
        bench.next().unwrap();
        bench.refuse(503, &[(HeaderName::RetryAfter, "120 (maintenance)")]);
        assert_eq!(bench.next().unwrap().0, seconds(120));
    }

    #[test]
    fn a_refresh_that_fails_leaves_the_binding_until_it_runs_out() {
        let mut bench = Bench::new(1);
        bench.next().unwrap();
        bench.ok(&[(HeaderName::Expires, "60")]);
        let bound = bench.now + seconds(60);
        while bench.now < bound {
            assert!(bench.registration.state().registered);
            let Some(at) = bench.registration.deadline() else {
                panic!("there is always a next step");
            };
            bench.now = at;
            if bench.registration.on_deadline(at).is_some() {
                bench.unanswered();
            }
        }
        let state = bench.registration.state();
        assert!(!state.registered);
        assert_eq!(state.failure, Some(RegistrationFailure::Unanswered));
    }

    #[test]
    fn leaving_removes_the_binding_if_there_is_one_and_is_tried_once() {
        let mut bench = Bench::new(2);
        bench.registration.leave(bench.now);
        assert!(bench.registration.is_over());

        for answer in [200, 503, 0] {
            let mut bench = Bench::new(2);
            bench.next().unwrap();
            bench.ok(&[]);
            bench.registration.leave(bench.now);
            assert!(bench.registration.is_leaving());
            let (after, ask) = bench.next().unwrap();
            assert_eq!((after, ask.expires_seconds), (Duration::ZERO, 0));
            // The same again with credentials.
            assert_eq!(bench.registration.ask().unwrap().expires_seconds, 0);
            match answer {
                200 => bench.ok(&[]),
                503 => bench.refuse(503, &[]),
                _ => bench.unanswered(),
            }
            assert!(bench.registration.is_over());
            assert_eq!(bench.registration.deadline(), None);
        }

        // A REGISTER that is out when we leave is waited for, and undone.
        let mut bench = Bench::new(1);
        bench.next().unwrap();
        bench.registration.leave(bench.now);
        bench.ok(&[]);
        let (after, ask) = bench.next().unwrap();
        assert_eq!((after, ask.expires_seconds), (Duration::ZERO, 0));
    }
}
