//! A phone's session timer (RFC 4028): either role, as caller and as callee.

use std::time::Duration;

use maskline_switch::sip::{HeaderName, Headers, Method, Request, Response, view};

use crate::dialog::Standing;
use crate::early::lists;
use crate::phone::{Alarm, Phone, Purpose};
use crate::plan::TimerPlan;

/// The timer that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    seconds: u64,
    ours: bool,
}

/// Interval and refresher of a `Session-Expires`.
fn terms(headers: &Headers) -> Option<(u64, Option<String>)> {
    let value = view::text(headers, &HeaderName::SessionExpires)?;
    let mut parts = value.split(';').map(str::trim);
    let seconds = parts.next()?.parse().ok()?;
    let refresher = parts.find_map(|part| part.strip_prefix("refresher="));
    Some((seconds, refresher.map(str::to_owned)))
}

fn value(seconds: u64, refresher: Option<&str>) -> (HeaderName, String) {
    let refresher = refresher.map_or(String::new(), |it| format!(";refresher={it}"));
    (HeaderName::SessionExpires, format!("{seconds}{refresher}"))
}

impl Phone {
    /// What a caller's INVITE says of the timer.
    pub(crate) fn timer_request(&self, plan: TimerPlan) -> [(HeaderName, String); 1] {
        [value(plan.seconds, plan.refresher)]
    }

    /// What our 2xx to an INVITE or UPDATE says of the timer, which runs from here.
    pub(crate) fn timer_answer(&mut self, request: &Request) -> Vec<(HeaderName, String)> {
        let Some(plan) = self.config.manners.timer else {
            return Vec::new();
        };
        let asked = terms(&request.headers);
        let Some((seconds, refresher)) = asked else {
            return Vec::new();
        };
        if self.timer.is_some() {
            self.report.refreshes_taken += 1;
        }
        let seconds = seconds.min(plan.seconds);
        let refresher = refresher.unwrap_or_else(|| plan.refresher.unwrap_or("uas").to_owned());
        self.run_timer(seconds, refresher == "uas");
        let mut headers = vec![value(seconds, Some(&refresher))];
        if lists(&request.headers, &HeaderName::Supported, "timer") {
            headers.push((HeaderName::Require, "timer".to_owned()));
        }
        headers
    }

    /// A 2xx to a request of ours.
    pub(crate) fn hear_timer(&mut self, response: &Response) {
        if self.config.manners.timer.is_none() {
            return;
        }
        match terms(&response.headers) {
            Some((seconds, refresher)) => {
                self.run_timer(seconds, refresher.as_deref() == Some("uac"));
            }
            None => self.stop_timer(),
        }
    }

    fn run_timer(&mut self, seconds: u64, ours: bool) {
        self.timer = Some(Running { seconds, ours });
        let early = (seconds / 3).min(32);
        self.clear_alarm(Alarm::Refresh);
        self.set_alarm(Alarm::Expire, Duration::from_secs(seconds - early));
        let refreshes = self.config.manners.timer.is_some_and(|it| it.refreshes);
        if ours && refreshes {
            self.set_alarm(Alarm::Refresh, Duration::from_secs(seconds / 2));
        } else if ours {
            // It has forgotten, and does not look at the time either.
            self.clear_alarm(Alarm::Expire);
        }
    }

    fn stop_timer(&mut self) {
        self.timer = None;
        self.clear_alarm(Alarm::Refresh);
        self.clear_alarm(Alarm::Expire);
    }

    pub(crate) fn refresh_session(&mut self) {
        let Some(running) = self.timer.filter(|it| it.ours) else {
            return;
        };
        let branch = self.new_branch();
        let extra = [
            value(running.seconds, Some("uac")),
            (HeaderName::Supported, "timer".to_owned()),
        ];
        let at = self
            .dialogs
            .iter()
            .position(|dialog| dialog.standing == Standing::Confirmed);
        let Some(dialog) = at.and_then(|at| self.dialogs.get_mut(at)) else {
            return;
        };
        let peer = dialog.next_hop();
        let update = dialog.request_with(Method::Update, &self.config.sent_by, &branch, &extra);
        if let Some(update) = update {
            self.transactions
                .send_request(self.now, peer, update, Purpose::Refresh);
            self.report.refreshes_sent += 1;
        }
    }

    /// Nobody refreshed.
    pub(crate) fn expire(&mut self) {
        self.report.expired = true;
        self.stop_timer();
        self.leave();
    }
}
