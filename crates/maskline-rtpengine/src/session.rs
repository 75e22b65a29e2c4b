//! One session's task: it opens the call at a daemon, describes the parties to it, looks now and then
//! whether they are heard, and closes it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maskline_media::{
    CalleeMedia, CallerMedia, MediaEvent, MediaKey, MediaReport, OpenFailure, Quality, RemoteMedia,
    Side, SideReport,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::description::{Parties, place_in};
use crate::engine::Shared;
use crate::instance::{Fault, Instance};
use crate::protocol::{CALLEE, CALLER, Named, Request, Response};

/// Before the calls of this process at a daemon that others use too.
const PREFIX: &str = "maskline-";
/// How often parties are looked at, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A key that also comes by RTP is only told of at its end: so long it is waited for.
const RTP_IS_LATER: Duration = Duration::from_millis(400);
/// How long a key that came by signalling is played.
const PRESS_MS: u32 = 160;
/// How often the hold file is played: longer than any call.
const FOR_EVER: u32 = 1_000_000;
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

/// The call's name at a daemon: any run of this process knows it by the session alone.
pub(crate) fn call_id(id: u64) -> String {
    format!("{PREFIX}{id:016x}")
}

pub(crate) fn id_in(call_id: &str) -> Option<u64> {
    let digits = call_id.strip_prefix(PREFIX)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
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
        () = call.carry(&shared, key, &wake) => call.close(key),
        () = stop.cancelled() => return,
    };
    let closed = carried.await;
    drop(call);
    shared.ended(closed).await;
}

impl Call {
    async fn open(shared: &Shared, key: MediaKey, opening: Opening) -> Result<Self, OpenFailure> {
        match opening {
            Opening::Anew => {
                let mut failure = OpenFailure::Unavailable;
                for instance in shared.in_turn() {
                    match Self::open_at(&instance, key).await {
                        Ok(call) => return Ok(call),
                        Err(fault) => {
                            tracing::warn!(instance = %instance.address, %fault, "rtpengine opens no call");
                            if matches!(fault, Fault::Refused(_)) {
                                failure = OpenFailure::PortsExhausted;
                            }
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
                // None is known to be down yet, or all are.
                for instance in &shared.instances {
                    if Self::is_at(instance, key, caller_port, callee_port).await {
                        let ports = (caller_port, callee_port);
                        return Ok(Self::at(instance, call_id(key.id), ports, address));
                    }
                }
                Err(OpenFailure::PortsLost)
            }
        }
    }

    async fn open_at(instance: &Arc<Instance>, key: MediaKey) -> Result<Self, Fault> {
        let id = call_id(key.id);
        let (caller, callee) = exchange(instance, &id, &Parties::default()).await?;
        let (address, caller_port) = caller;
        Ok(Self::at(
            instance,
            id,
            (caller_port, callee.1),
            Some(address),
        ))
    }

    async fn is_at(instance: &Instance, key: MediaKey, caller_port: u16, callee_port: u16) -> bool {
        let found = instance.ask(&query(&call_id(key.id))).await;
        let port = |tag| found.as_ref().ok()?.stream(tag)?.local_port;
        port(CALLER) == Some(caller_port) && port(CALLEE) == Some(callee_port)
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
        let mut look_at = Instant::now() + look_every;
        let mut tell_at = None;
        let mut presses = VecDeque::new();
        let mut held = Held::default();
        loop {
            let todo = shared.todo(key);
            if todo.close {
                return;
            }
            let play_at = Instant::now() + RTP_IS_LATER;
            presses.extend(todo.presses.into_iter().map(|press| (play_at, press)));
            while let Some((_, (side, digit))) =
                presses.pop_front_if(|(at, _)| *at <= Instant::now())
            {
                if !shared.was_heard(key, side, digit) {
                    self.play(side, digit).await;
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
                    self.hold(file, &parties, &mut held).await;
                }
                continue;
            }
            let play_at = presses.front().map(|(at, _)| *at);
            let others = tell_at.into_iter().chain(play_at);
            let next = others.fold(look_at, Instant::min);
            tokio::select! {
                () = wake.notified() => continue,
                () = tokio::time::sleep_until(next) => {}
            }
            if look_at <= Instant::now() {
                look_at = Instant::now() + look_every;
                self.look(shared, key, &parties, &mut hearing).await;
            }
        }
    }

    /// Lets who is on hold hear the file, and who is not no longer.
    async fn hold(&self, file: &str, parties: &Parties, held: &mut Held) {
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
                    tracing::warn!(instance = %self.instance.address, %fault, "rtpengine does not play the hold file");
                }
            }
        }
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
            tracing::warn!(instance = %self.instance.address, %fault, "rtpengine plays no key");
        }
    }

    /// When to tell it again, if it did not take it.
    async fn describe(&self, parties: &Parties) -> Option<Instant> {
        let instance = self.instance.address;
        match exchange(&self.instance, &self.id, parties).await {
            Ok((caller, callee)) => {
                if (caller.1, callee.1) != (self.caller_port, self.callee_port) {
                    // It was started anew. The parties can't know: the call ends as a silent one does.
                    tracing::warn!(%instance, "rtpengine has forgotten a call");
                }
                None
            }
            Err(fault) => {
                tracing::warn!(%instance, %fault, "rtpengine does not take a party's media");
                Some(Instant::now() + TELL_AGAIN)
            }
        }
    }

    /// Reports who is silent and should not be. A daemon that does not know is one that hears nobody.
    async fn look(
        &self,
        shared: &Shared,
        key: MediaKey,
        parties: &Parties,
        hearing: &mut [Hearing; 2],
    ) {
        let found = self.instance.ask(&query(&self.id)).await;
        let (caller, callee) = (&parties.caller, &parties.callee);
        let sides = [
            (Side::Caller, CALLER, caller, callee),
            (Side::Callee, CALLEE, callee, caller),
        ];
        let mut report = MediaReport::default();
        for ((side, tag, of, towards), heard) in sides.into_iter().zip(hearing) {
            if let Ok(found) = &found {
                heard.now(found.packets_of(tag));
                let of_side = match side {
                    Side::Caller => &mut report.caller,
                    Side::Callee => &mut report.callee,
                };
                *of_side = side_report(of.as_ref(), heard, quality(found, tag));
            }
            if expected(of.as_ref(), towards.as_ref()) && heard.is_too_long_ago(shared.silence) {
                shared.tell(MediaEvent::Silent { key, side }).await;
            }
        }
        if found.is_ok() && caller.is_some() && callee.is_some() {
            shared.seen(key, report);
        }
    }

    /// Asks for the figures and frees the ports.
    async fn close(&self, key: MediaKey) -> MediaEvent {
        let found = self.instance.ask(&query(&self.id)).await;
        let named = Named {
            call_id: self.id.clone(),
        };
        // It is forgotten there by itself if this gets lost.
        let _ = self
            .instance
            .ask(&Request::Delete { named, delay: 0 })
            .await;
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
fn side_report(of: Option<&RemoteMedia>, heard: &Hearing, quality: Option<Quality>) -> SideReport {
    SideReport {
        described: of.map(|of| of.rtp),
        rtcp_mux: of.is_some_and(|of| of.rtcp_mux),
        sends: of.is_some_and(|of| of.sends),
        receives: of.is_some_and(|of| of.receives),
        holds: of.is_some_and(|of| of.holds),
        mos: quality.map(|quality| quality.mos),
        silent_for: (heard.packets > 0).then(|| heard.at.elapsed()),
        ..SideReport::default()
    }
}

/// Whether one party sends and the other listens.
fn expected(of: Option<&RemoteMedia>, towards: Option<&RemoteMedia>) -> bool {
    of.is_some_and(|of| of.sends) && towards.is_some_and(|towards| towards.receives)
}

fn query(id: &str) -> Request {
    Request::Query(Named {
        call_id: id.to_owned(),
    })
}

/// Describes both parties; where it listens for the caller and for the callee.
async fn exchange(
    instance: &Instance,
    id: &str,
    parties: &Parties,
) -> Result<((IpAddr, u16), (IpAddr, u16)), Fault> {
    let [offer, answer] = parties.exchanges(id);
    // What it makes of one party's description is meant for the other.
    let callee = instance.ask(&Request::Offer(offer)).await?;
    let caller = instance.ask(&Request::Answer(answer)).await?;
    let place = |response: Response| {
        let place = response.sdp.as_deref().and_then(place_in);
        place.ok_or_else(|| Fault::Unreadable("it names no port".to_owned()))
    };
    Ok((place(caller)?, place(callee)?))
}

/// What a party reported of what it hears; `None` if nothing that could be scored. The daemon keeps its receiver
/// reports under its own SSRC.
fn quality(found: &Response, tag: &str) -> Option<Quality> {
    let stream = found.stream(tag)?;
    let average = found.reported.get(&stream.ssrc?.to_string())?.average?;
    (average.samples > 0).then(|| Quality {
        packets: stream.stats.unwrap_or_default().packets,
        loss: (average.loss / 100.0).clamp(0.0, 1.0),
        jitter_ms: average.jitter.max(0.0),
        mos: (average.mos / 10.0).clamp(1.0, 4.5),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_call_is_known_by_its_session() {
        assert_eq!(id_in(&call_id(0xfeed)), Some(0xfeed));
        for other in [
            "",
            "maskline-",
            "maskline-7",
            "other-000000000000feed",
            "maskline-00000000000000zz",
        ] {
            assert_eq!(id_in(other), None, "{other}");
        }
    }

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
