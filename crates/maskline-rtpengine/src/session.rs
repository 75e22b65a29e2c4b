//! One session's task: it opens the call at a daemon, describes the parties to it, looks now and then
//! whether they are heard, and closes it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maskline_media::{
    CalleeMedia, CallerMedia, CarriedBy, FarReport, MediaEvent, MediaKey, MediaReport, OpenFailure,
    Quality, RemoteMedia, Side, SideReport,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::description::{Parties, place_in};
use crate::engine::{Shared, Told};
use crate::instance::{Fault, Instance};
use crate::naming::Naming;
use crate::protocol::{CALLEE, CALLER, Named, Request, Response};

/// How often parties are looked at, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A key that also comes by RTP is only told of at its end: so long it is waited for.
const RTP_IS_LATER: Duration = Duration::from_millis(400);
/// How long a key that came by signalling is played.
const PRESS_MS: u32 = 160;
/// How often the hold file is played: longer than any call.
const FOR_EVER: u32 = 1_000_000;
/// So many daemons are tried for an opening, which the switch waits five seconds for.
const MOST_TRIED: usize = 3;
/// For so long daemons that do not answer may turn out to have a call of an earlier run.
const FOUND_WITHIN: Duration = Duration::from_secs(10);
/// A daemon that does not answer for so many times the time that a party may be silent hears nobody.
const TIMES_SILENT: u32 = 5;
/// How soon a daemon is told again that a call is over.
const FORGET_AGAIN: Duration = Duration::from_secs(5);
/// Without a list of sources and extensions (RFC 3550 §5.1).
const RTP_HEADER_BYTES: u64 = 12;
/// How soon a daemon that could not be told something is told it again.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// How a session begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Opening {
    Anew,
    /// A daemon has it from an earlier run.
    Again {
        caller_port: u16,
        callee_port: u16,
        address: Option<IpAddr>,
    },
}

/// A call at a daemon. Dropping it no longer counts it there.
struct Call {
    instance: Arc<Instance>,
    id: String,
    caller_port: u16,
    callee_port: u16,
    address: Option<IpAddr>,
}

/// Who hears the hold file.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    caller: bool,
    callee: bool,
}

/// What was last heard of one party.
#[derive(Clone, Copy, Debug)]
struct Hearing {
    packets: u64,
    at: Instant,
    told: bool,
}

pub(crate) async fn run(
    shared: Arc<Shared>,
    key: MediaKey,
    opening: Opening,
    wake: Arc<Notify>,
    stop: CancellationToken,
) {
    let call = tokio::select! {
        opened = Call::open(&shared, key, opening) => opened,
        () = stop.cancelled() => return,
    };
    let call = match call {
        Ok(call) => call,
        Err(reason) => return shared.ended(MediaEvent::Refused { key, reason }).await,
    };
    shared
        .tell(MediaEvent::Opened {
            key,
            caller_port: call.caller_port,
            callee_port: call.callee_port,
            address: call.address,
        })
        .await;
    let carried = tokio::select! {
        () = call.carry(&shared, key, &wake) => call.figures(key),
        () = stop.cancelled() => return,
    };
    let closed = carried.await;
    let (instance, id) = (Arc::clone(&call.instance), call.id.clone());
    drop(call);
    shared.ended(closed).await;
    forget(&instance, &id).await;
}

impl Call {
    async fn open(shared: &Shared, key: MediaKey, opening: Opening) -> Result<Self, OpenFailure> {
        match opening {
            Opening::Anew => {
                let mut failure = OpenFailure::Unavailable;
                let mut left = shared.in_turn();
                left.truncate(MOST_TRIED);
                left.reverse();
                while let Some(instance) = left.pop() {
                    let id = shared.naming.call_id(key.id);
                    match Self::open_at(&instance, id.clone(), left.is_empty()).await {
                        Ok(call) => return Ok(call),
                        Err(fault) => {
                            tracing::warn!(instance = %instance.address, call = id, %fault, "rtpengine opens no call");
                            if matches!(fault, Fault::Refused(_)) {
                                failure = OpenFailure::PortsExhausted;
                            }
                            // It may have taken ports all the same.
                            tokio::spawn(async move { forget(&instance, &id).await });
                        }
                    }
                }
                Err(failure)
            }
            Opening::Again {
                caller_port,
                callee_port,
                address,
            } => {
                let ports = (caller_port, callee_port);
                let until = Instant::now() + FOUND_WITHIN;
                let names = [
                    shared.naming.call_id(key.id),
                    Naming::earlier_call_id(key.id),
                ];
                let places: Vec<_> = names
                    .iter()
                    .flat_map(|id| shared.instances.iter().map(move |at| (at, id.clone())))
                    .collect();
                loop {
                    let mut unknown = false;
                    // None is known to be down yet, or all are.
                    for (instance, id) in &places {
                        match is_at(instance, id, ports).await {
                            Ok(true) => {
                                return Ok(Self::at(instance, id.clone(), ports, address));
                            }
                            Ok(false) | Err(Fault::Gone | Fault::Refused(_)) => {}
                            Err(Fault::Silent | Fault::Unreadable(_)) => unknown = true,
                        }
                    }
                    if !unknown || Instant::now() >= until {
                        return Err(OpenFailure::PortsLost);
                    }
                    tokio::time::sleep(TELL_AGAIN).await;
                }
            }
        }
    }

    async fn open_at(instance: &Arc<Instance>, id: String, is_last: bool) -> Result<Self, Fault> {
        let patience = if is_last {
            Patience::Full
        } else {
            Patience::Brief
        };
        let nobody = Parties::default();
        let (caller, callee) = exchange(instance, &id, &nobody, patience).await?;
        let (address, caller_port) = caller;
        Ok(Self::at(
            instance,
            id,
            (caller_port, callee.1),
            Some(address),
        ))
    }

    fn at(
        instance: &Arc<Instance>,
        id: String,
        (caller_port, callee_port): (u16, u16),
        address: Option<IpAddr>,
    ) -> Self {
        instance.sessions.fetch_add(1, Ordering::Relaxed);
        Self {
            instance: Arc::clone(instance),
            id,
            caller_port,
            callee_port,
            address,
        }
    }

    /// Until it is to be closed.
    async fn carry(&self, shared: &Shared, key: MediaKey, wake: &Notify) {
        let mut parties = Parties::default();
        let mut hearing = [Hearing::new(), Hearing::new()];
        let look_every = (shared.silence / 6).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
        // Not all at once after a start.
        let mut look_at = Instant::now() + look_every.mul_f64(rand::random());
        let mut answered_at = Instant::now();
        let mut tell_at = None;
        let mut presses = VecDeque::new();
        let mut held = Held::default();
        loop {
            let todo = shared.todo(key);
            if todo.close {
                return;
            }
            presses.extend(todo.presses);
            while let Some(told) = presses.pop_front_if(|told| is_due(told) <= Instant::now()) {
                if shared.was_heard(key, told) {
                    continue;
                }
                let Told { side, digit, .. } = told;
                if told.play {
                    self.play(side, digit).await;
                } else {
                    shared.tell(MediaEvent::NotInRtp { key, side, digit }).await;
                }
            }
            if todo.caller.is_some() || todo.callee.is_some() {
                if let Some(CallerMedia(media)) = todo.caller {
                    parties.caller = Some(media);
                }
                if let Some(CalleeMedia(media)) = todo.callee {
                    parties.callee = Some(media);
                }
                tell_at = Some(Instant::now());
                hearing = hearing.map(Hearing::anew);
            }
            if tell_at.is_some_and(|at| at <= Instant::now()) {
                tell_at = self.describe(&parties).await;
                if tell_at.is_none()
                    && let Some(file) = &shared.hold_file
                {
                    let done = self.hold(file, &parties, &mut held).await;
                    tell_at = (!done).then(|| Instant::now() + TELL_AGAIN);
                }
                continue;
            }
            let play_at = presses.front().map(is_due);
            let others = tell_at.into_iter().chain(play_at);
            let next = others.fold(look_at, Instant::min);
            tokio::select! {
                () = wake.notified() => continue,
                () = tokio::time::sleep_until(next) => {}
            }
            if look_at <= Instant::now() {
                look_at = Instant::now() + look_every;
                self.look(shared, key, &parties, &mut hearing, &mut answered_at)
                    .await;
            }
        }
    }

    /// Lets who is on hold hear the file, and who is not no longer; whether nothing is left to be told.
    async fn hold(&self, file: &str, parties: &Parties, held: &mut Held) -> bool {
        let mut done = true;
        let (caller, callee) = (parties.caller.as_ref(), parties.callee.as_ref());
        let is_held = |party: Option<&RemoteMedia>, by: Option<&RemoteMedia>| {
            party.is_some_and(|party| party.receives) && by.is_some_and(|by| by.holds)
        };
        for (from_tag, now, before) in [
            (CALLER, is_held(caller, callee), &mut held.caller),
            (CALLEE, is_held(callee, caller), &mut held.callee),
        ] {
            if now == *before {
                continue;
            }
            let named = Named {
                call_id: self.id.clone(),
            };
            let request = if now {
                Request::PlayFile {
                    named,
                    from_tag,
                    file: file.to_owned(),
                    repeat_times: FOR_EVER,
                }
            } else {
                Request::StopFile { named, from_tag }
            };
            match self.instance.ask(&request).await {
                Ok(_) => *before = now,
                Err(fault) => {
                    tracing::warn!(instance = %self.instance.address, call = %self.id, %fault, "rtpengine does not do as told with the hold file");
                    // What it refuses, it would refuse again.
                    match fault {
                        Fault::Refused(_) => *before = now,
                        Fault::Silent | Fault::Gone | Fault::Unreadable(_) => done = false,
                    }
                }
            }
        }
        done
    }

    async fn play(&self, side: Side, digit: char) {
        let play = Request::Play {
            named: Named {
                call_id: self.id.clone(),
            },
            from_tag: match side {
                Side::Caller => CALLER,
                Side::Callee => CALLEE,
            },
            code: digit,
            duration: PRESS_MS,
        };
        if let Err(fault) = self.instance.ask(&play).await {
            tracing::warn!(instance = %self.instance.address, call = %self.id, %fault, "rtpengine plays no key");
        }
    }

    /// When to tell it again, if it did not take it.
    async fn describe(&self, parties: &Parties) -> Option<Instant> {
        let instance = self.instance.address;
        match exchange(&self.instance, &self.id, parties, Patience::Full).await {
            Ok((caller, callee)) => {
                if (caller.1, callee.1) != (self.caller_port, self.callee_port) {
                    // It was started anew. The parties can't know: the call ends as a silent one does.
                    tracing::warn!(%instance, call = %self.id, "rtpengine has forgotten a call");
                }
                None
            }
            Err(fault) => {
                tracing::warn!(%instance, call = %self.id, %fault, "rtpengine does not take a party's media");
                Some(Instant::now() + TELL_AGAIN)
            }
        }
    }

    /// Reports who is silent and should not be. A daemon that is gone, or has forgotten the call, hears nobody.
    async fn look(
        &self,
        shared: &Shared,
        key: MediaKey,
        parties: &Parties,
        hearing: &mut [Hearing; 2],
        answered_at: &mut Instant,
    ) {
        let found = match self.instance.ask(&query(&self.id)).await {
            Ok(found) => Some(found),
            // It hears nobody.
            Err(Fault::Gone | Fault::Refused(_)) => None,
            // Nothing is known of the audio: it may well flow.
            Err(Fault::Silent | Fault::Unreadable(_)) => {
                shared.seen(key, None);
                if answered_at.elapsed() < shared.silence * TIMES_SILENT {
                    return;
                }
                None
            }
        };
        if found.is_some() {
            *answered_at = Instant::now();
        }
        let (caller, callee) = (&parties.caller, &parties.callee);
        let sides = [
            (Side::Caller, CALLER, caller, callee),
            (Side::Callee, CALLEE, callee, caller),
        ];
        let mut report = MediaReport {
            carried_by: Some(CarriedBy {
                instance: self.instance.address,
                call_id: self.id.clone(),
            }),
            ..MediaReport::default()
        };
        for ((side, tag, of, towards), heard) in sides.into_iter().zip(hearing) {
            if let Some(found) = &found {
                heard.now(found.packets_of(tag));
                let of_side = match side {
                    Side::Caller => &mut report.caller,
                    Side::Callee => &mut report.callee,
                };
                *of_side = side_report(of.as_ref(), heard, found, tag);
            }
            if expected(of.as_ref(), towards.as_ref()) && heard.is_too_long_ago(shared.silence) {
                shared.tell(MediaEvent::Silent { key, side }).await;
            }
        }
        let known = found.is_some() && caller.is_some() && callee.is_some();
        shared.seen(key, known.then_some(report));
    }

    /// The last answer. The call's ports are still to be freed.
    async fn figures(&self, key: MediaKey) -> MediaEvent {
        // The switch waits for two seconds, of which a look may have taken one.
        let found = self.instance.ask_briefly(&query(&self.id)).await;
        let figures = |tag| found.as_ref().ok().and_then(|found| quality(found, tag));
        MediaEvent::Closed {
            key,
            caller: figures(CALLER),
            callee: figures(CALLEE),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.instance.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hearing {
    fn new() -> Self {
        Self {
            packets: 0,
            at: Instant::now(),
            told: false,
        }
    }

    /// Silence counts from here.
    fn anew(self) -> Self {
        Self {
            packets: self.packets,
            ..Self::new()
        }
    }

    fn now(&mut self, packets: u64) {
        if packets != self.packets {
            *self = Self {
                packets,
                ..Self::new()
            };
        }
    }

    /// Once per silence.
    fn is_too_long_ago(&mut self, silence: Duration) -> bool {
        let tell = !self.told && self.at.elapsed() >= silence;
        self.told |= tell;
        tell
    }
}

/// What is known of one party while the call goes on.
fn side_report(
    of: Option<&RemoteMedia>,
    heard: &Hearing,
    found: &Response,
    tag: &str,
) -> SideReport {
    let other = if tag == CALLER { CALLEE } else { CALLER };
    // What comes of one party goes to the other.
    let sent = found.stream(other);
    let sent = sent.map_or((0, 0), |sent| (sent.packets, sent.bytes));
    let payload = sent
        .1
        .saturating_sub(sent.0.saturating_mul(RTP_HEADER_BYTES));
    let reported = found.stream(tag).and_then(|it| found.reported_by(it.ssrc?));
    SideReport {
        described: of.map(|of| of.rtp),
        rtcp_mux: of.is_some_and(|of| of.rtcp_mux),
        sends: of.is_some_and(|of| of.sends),
        receives: of.is_some_and(|of| of.receives),
        holds: of.is_some_and(|of| of.holds),
        sent_packets: u32::try_from(sent.0).unwrap_or(u32::MAX),
        sent_octets: u32::try_from(payload).unwrap_or(u32::MAX),
        far: reported.map(|it| FarReport {
            loss: it.loss_rate(),
            jitter_ms: it.jitter.max(0.0),
            mos: Some(it.score()),
        }),
        silent_for: (heard.packets > 0).then(|| heard.at.elapsed()),
        ..SideReport::default()
    }
}

/// Whether one party sends and the other listens.
/// When a key that came by signalling is played or passed on, unless RTP brings it.
fn is_due(told: &Told) -> Instant {
    Instant::from_std(told.came) + RTP_IS_LATER
}

fn expected(of: Option<&RemoteMedia>, towards: Option<&RemoteMedia>) -> bool {
    of.is_some_and(|of| of.sends) && towards.is_some_and(|towards| towards.receives)
}

fn query(id: &str) -> Request {
    Request::Query(Named {
        call_id: id.to_owned(),
    })
}

/// How long an answer is waited for.
#[derive(Clone, Copy)]
enum Patience {
    Brief,
    Full,
}

/// Describes both parties; where it listens for the caller and for the callee.
async fn exchange(
    instance: &Instance,
    id: &str,
    parties: &Parties,
    patience: Patience,
) -> Result<((IpAddr, u16), (IpAddr, u16)), Fault> {
    let ask = async |request: Request| match patience {
        Patience::Brief => instance.ask_briefly(&request).await,
        Patience::Full => instance.ask(&request).await,
    };
    let [offer, answer] = parties.exchanges(id);
    // What it makes of one party's description is meant for the other.
    let callee = ask(Request::Offer(offer)).await?;
    let caller = ask(Request::Answer(answer)).await?;
    let place = |response: Response| {
        let place = response.sdp.as_deref().and_then(place_in);
        place.ok_or_else(|| Fault::Unreadable("it names no port".to_owned()))
    };
    Ok((place(caller)?, place(callee)?))
}

/// Whether a daemon has the call, by these ports towards the caller and the callee.
async fn is_at(instance: &Instance, id: &str, ports: (u16, u16)) -> Result<bool, Fault> {
    let found = instance.ask(&query(id)).await?;
    let port = |tag| found.stream(tag)?.local_port;
    Ok((port(CALLER), port(CALLEE)) == (Some(ports.0.into()), Some(ports.1.into())))
}

/// Frees a call's ports. Told twice in vain, the daemon keeps them until its own time for silent calls is over.
async fn forget(instance: &Instance, id: &str) {
    for _ in 0..2 {
        let named = Named {
            call_id: id.to_owned(),
        };
        match instance.ask(&Request::Delete { named, delay: 0 }).await {
            Ok(_) | Err(Fault::Refused(_) | Fault::Gone) => return,
            Err(Fault::Silent | Fault::Unreadable(_)) => tokio::time::sleep(FORGET_AGAIN).await,
        }
    }
    tracing::warn!(instance = %instance.address, call = id, "rtpengine was not told that a call is over");
}

/// What a party reported of what it hears; `None` if nothing that could be scored. The daemon keeps its receiver
/// reports under its own SSRC.
fn quality(found: &Response, tag: &str) -> Option<Quality> {
    let stream = found.stream(tag)?;
    let reported = found.reported_by(stream.ssrc?)?;
    Some(Quality {
        packets: stream.packets,
        loss: reported.loss_rate(),
        jitter_ms: reported.jitter.max(0.0),
        mos: reported.score(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn figures_are_those_that_a_party_reported() {
        let found = |samples: u64| {
            let text = format!(
                r#"{{"result":"ok","tags":{{"caller":{{"medias":[{{"streams":[{{"SSRC":7,"stats":{{"packets":50}}}}]}}]}}}},
                "SSRC":{{"7":{{"average MOS":{{"MOS":41,"jitter":3,"packet loss":2,"samples":{samples}}}}}}}}}"#
            );
            Response::read(text.as_bytes()).unwrap()
        };
        let quality_of = quality(&found(4), CALLER).unwrap();
        assert_eq!(quality_of.packets, 50);
        assert!((quality_of.loss - 0.02).abs() < 1e-9);
        assert!((quality_of.mos - 4.1).abs() < 1e-9);
        assert_eq!(quality(&found(0), CALLER), None);
        assert_eq!(quality(&found(4), CALLEE), None);
    }
}
