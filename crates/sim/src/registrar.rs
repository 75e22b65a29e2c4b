//! A carrier's registrars, which share one table: they ask for credentials, want longer registrations,
//! fall silent, are overloaded. They also watch that REGISTERs come as RFC 3261 §10.2 has them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use maskline_media::Tick;
use maskline_switch::sip::digest::{Given, Ha1};
use maskline_switch::sip::{HeaderName, Message, Method, Peer, Request, compose, view, wire};

use crate::scenario::RegistrarPlan;
use crate::site;

/// The registrars' domain.
pub(crate) const DOMAIN: &str = "carrier.example";

/// What came of a run's registration.
#[derive(Clone, Debug, Default)]
pub struct RegistrarLog {
    /// REGISTERs that were taken, each with its time, the registrar, and the seconds granted: 0 for
    /// one that removes the binding.
    pub taken: Vec<(Duration, usize, u32)>,
    /// REGISTERs that were refused for their credentials.
    pub asked: usize,
    /// Whether a binding was left at the end of the run.
    pub bound: bool,
}

#[derive(Debug)]
pub(crate) struct Registrars {
    plan: Option<RegistrarPlan>,
    bound_until: Option<Tick>,
    nonces: u32,
    /// Used nonces and their highest count.
    used: BTreeMap<String, u32>,
    /// The last number of each Call-ID: one for each process of the switch.
    last: BTreeMap<String, u32>,
    /// Answers by branch, for retransmissions.
    answered: BTreeMap<String, Bytes>,
    log: RegistrarLog,
}

impl Registrars {
    pub(crate) const fn new(plan: Option<RegistrarPlan>) -> Self {
        Self {
            plan,
            bound_until: None,
            nonces: 0,
            used: BTreeMap::new(),
            last: BTreeMap::new(),
            answered: BTreeMap::new(),
            log: RegistrarLog {
                taken: Vec::new(),
                asked: 0,
                bound: false,
            },
        }
    }

    pub(crate) fn log(&self, now: Tick) -> RegistrarLog {
        RegistrarLog {
            bound: self.bound_until.is_some_and(|until| until > now),
            ..self.log.clone()
        }
    }

    /// Takes a message; the answer if there is one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn hear(
        &mut self,
        now: Tick,
        process: u32,
        at: usize,
        peer: Peer,
        bytes: &Bytes,
    ) -> Result<Option<Bytes>, String> {
        let Some(plan) = self.plan.clone() else {
            return Err("a registrar that nobody planned was asked".to_owned());
        };
        let Ok(Message::Request(request)) = wire::read_datagram(bytes, peer) else {
            return Err("the registrar can't read what it got".to_owned());
        };
        if request.method != Method::Register {
            return Err(format!("the registrar got a {:?}", request.method));
        }
        let fault = plan.faults.iter().find(|fault| {
            let time = now.since_start();
            fault.registrar == at && fault.from <= time && time < fault.to
        });
        if fault.is_some_and(|fault| fault.silent) {
            return Ok(None);
        }
        let branch = view::top_branch(&request.headers).unwrap_or_default();
        if let Some(answer) = self.answered.get(&branch) {
            return Ok(Some(answer.clone()));
        }
        self.check_order(process, &request)?;
        let (status, extra) = if fault.is_some() {
            (503, Vec::new())
        } else {
            self.judge(now, at, &plan, &request)?
        };
        let answer = compose::response(&request, status, Some("registrar"), &extra, None)
            .ok_or("no answer to a REGISTER can be built")?;
        let answer = Message::Response(answer).to_bytes();
        self.answered.insert(branch, answer.clone());
        Ok(Some(answer))
    }

    /// RFC 3261 §10.2: one Call-ID for all, and a number that grows.
    fn check_order(&mut self, process: u32, request: &Request) -> Result<(), String> {
        let headers = &request.headers;
        let (Some(call_id), Some((cseq, _))) = (view::call_id(headers), view::cseq(headers)) else {
            return Err("a REGISTER without Call-ID or CSeq".to_owned());
        };
        let last = self.last.insert(call_id, cseq).unwrap_or(0);
        if last >= cseq {
            return Err(format!("REGISTER {cseq} came after {last}"));
        }
        if self.last.len() > process as usize + 1 {
            return Err("a process registers by two Call-IDs".to_owned());
        }
        Ok(())
    }

    fn judge(
        &mut self,
        now: Tick,
        at: usize,
        plan: &RegistrarPlan,
        request: &Request,
    ) -> Result<(u16, Vec<(HeaderName, String)>), String> {
        if plan.asks && !self.proves(request) {
            self.log.asked += 1;
            self.nonces += 1;
            let challenge = format!(
                "Digest realm=\"{DOMAIN}\", nonce=\"n{}\", algorithm=SHA-256, qop=\"auth\"",
                self.nonces
            );
            return Ok((401, vec![(HeaderName::WwwAuthenticate, challenge)]));
        }
        let headers = &request.headers;
        let expires = view::text(headers, &HeaderName::Expires)
            .and_then(|text| text.parse::<u32>().ok())
            .ok_or("a REGISTER without Expires")?;
        let contact = view::contact(headers).ok_or("a REGISTER without Contact")?;
        if !contact.starts_with("sip:trunk-user@") {
            return Err(format!("the Contact is {contact}"));
        }
        if expires > 0 && expires < plan.least_seconds {
            let least = plan.least_seconds.to_string();
            return Ok((423, vec![(HeaderName::MinExpires, least)]));
        }
        self.log.taken.push((now.since_start(), at, expires));
        if expires == 0 {
            self.bound_until = None;
            return Ok((200, Vec::new()));
        }
        self.bound_until = Some(now + Duration::from_secs(u64::from(expires)));
        let contact = format!("<{contact}>;expires={expires}");
        Ok((200, vec![(HeaderName::Contact, contact)]))
    }

    fn proves(&mut self, request: &Request) -> bool {
        let (username, password) = site::CREDENTIALS;
        Given::read_all(&request.headers, false)
            .into_iter()
            .any(|given| {
                let ha1 = Ha1::new(given.algorithm, username, DOMAIN, password);
                let used = self.used.entry(given.nonce.clone()).or_default();
                let right = given.proves(&ha1, "REGISTER") && given.count > *used;
                *used = given.count.max(*used);
                right
            })
    }
}
