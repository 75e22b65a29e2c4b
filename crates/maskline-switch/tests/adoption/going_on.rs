//! What a call that goes on after a restart does with the requests of its parties, and with streams
//! that the restart took.

use super::*;

const CALLER: &str = "127.0.0.2:5060";
const CALLEE: &str = "127.0.0.3:5060";
const SDP: &str = "v=0\no=- 1 2 IN IP4 127.0.0.2\ns=-\nc=IN IP4 127.0.0.2\nt=0 0\n\
                   m=audio 7000 RTP/AVP 8 101\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\na=sendonly\n";

/// A call that goes on.
struct Call {
    shard: Shard,
    now: Now,
    /// What left since the last look, with its address.
    sent: Vec<(Peer, String)>,
    /// What was counted.
    counts: Vec<&'static str>,
}

impl Call {
    /// Taken up so long after its answer.
    fn revived(snapshot: &Value, ms: i64) -> Self {
        let mut call = Self {
            shard: Shard::new(config(), [7; 32]),
            now: after(ms),
            sent: Vec::new(),
            counts: Vec::new(),
        };
        let found = Input::SessionFound {
            snapshot: serde_json::to_vec(snapshot).unwrap(),
            away: Some(Duration::from_secs(1)),
        };
        call.handle(found);
        call
    }

    fn handle(&mut self, input: Input) {
        self.shard.handle(self.now, input);
        while let Some(action) = self.shard.poll() {
            match action {
                Action::Send { peer, bytes } => {
                    let text = String::from_utf8(bytes.to_vec()).unwrap();
                    self.sent.push((peer, text));
                }
                Action::Count(reason) => self.counts.push(reason),
                _ => {}
            }
        }
    }

    /// Time passes.
    fn wait(&mut self, by: Duration) {
        let end = self.now.tick + by;
        while let Some(at) = self.shard.deadline().filter(|at| *at <= end) {
            self.now.tick = at;
            self.handle(Input::DeadlineReached);
        }
        self.now.tick = end;
    }

    fn arrives(&mut self, from: &str, transport: Transport, text: &str) {
        let peer = peer(from, transport);
        let raw = text.replace('\n', "\r\n").into_bytes();
        let message: Message = wire::read_datagram(&raw, peer).unwrap();
        self.handle(Input::MessageArrived(Box::new(Arrival {
            peer,
            trunk: TrunkId(1),
            message,
            raw: raw.into(),
        })));
    }

    /// The first message to this address that begins so.
    fn sent_to(&self, to: &str, start: &str) -> Option<&str> {
        let to: SocketAddr = to.parse().unwrap();
        let mut sent = self.sent.iter();
        sent.find(|(peer, text)| peer.addr == to && text.starts_with(start))
            .map(|(_, text)| text.as_str())
    }

    /// Answers a request of ours.
    fn answers(&mut self, from: &str, transport: Transport, method: &str, sdp: &str) {
        let request = self.sent_to(from, method).unwrap();
        let copied = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let lines: String = request
            .lines()
            .filter(|line| copied.iter().any(|name| line.starts_with(name)))
            .map(|line| format!("{line}\n"))
            .collect();
        let body = sdp.replace('\n', "\r\n").len();
        let text = format!(
            "SIP/2.0 200 OK\n{lines}Contact: <sip:them@{from}>\nContent-Type: application/sdp\n\
             Content-Length: {body}\n\n{sdp}"
        );
        let request = request.to_owned();
        self.sent.retain(|(_, sent)| *sent != request);
        self.arrives(from, transport, &text);
    }

    /// A re-INVITE with a hold.
    fn changes(&mut self, from: &str, transport: Transport) {
        self.asks(from, transport, "INVITE", SDP);
    }

    fn asks(&mut self, from: &str, transport: Transport, method: &str, sdp: &str) {
        let cseq = if method == "ACK" { 1 } else { 7 };
        let (us, them) = match from {
            CALLEE => (
                "m1.b.78ab61cac43d62ee.1accdcc437fa5571",
                "b-4261-140\nCall-ID: 1652d143bef02a638a1882882c0df77d",
            ),
            _ => (
                "m1.a.78ab61cac43d62ee.d01e33686a7ad245",
                "a-4322-141\nCall-ID: 141-4322@127.0.0.2",
            ),
        };
        let body = sdp.replace('\n', "\r\n").len();
        let way = match transport {
            Transport::Udp => "UDP",
            _ => "TCP",
        };
        let text = format!(
            "{method} sip:127.0.0.1:5060 SIP/2.0\nVia: SIP/2.0/{way} {from};branch=z9hG4bK-{method}-{cseq}\n\
             To: <sip:us@127.0.0.1>;tag={us}\nFrom: <sip:them@{from}>;tag={them}\n\
             CSeq: {cseq} {method}\nMax-Forwards: 70\nContact: <sip:them@{from}>\n\
             Content-Type: application/sdp\nContent-Length: {body}\n\n{sdp}"
        );
        self.arrives(from, transport, &text);
    }

    /// What left, in short.
    fn lines(&self) -> Vec<String> {
        let line = |(peer, text): &(Peer, String)| {
            format!("{}: {}", peer.addr, text.lines().next().unwrap())
        };
        self.sent.iter().map(line).collect()
    }

    fn has_ended(&self) -> bool {
        self.sent_to(CALLER, "BYE").is_some() || self.sent_to(CALLEE, "BYE").is_some()
    }
}

fn peer(addr: &str, transport: Transport) -> Peer {
    Peer {
        listener: u16::from(transport == Transport::Udp),
        transport,
        addr: addr.parse().unwrap(),
    }
}

/// The snapshot, where this party's signalling is over a stream.
fn over_a_stream(side: &str, from: &str, listens_at: &str) -> Value {
    let mut snapshot = snapshot();
    for place in [format!("{side}_invite"), side.to_owned()] {
        snapshot[&place]["peer"]["transport"] = json!("tcp");
        snapshot[&place]["peer"]["addr"] = json!(from);
    }
    snapshot[side]["target"] = json!(format!("sip:them@{listens_at};transport=tcp"));
    snapshot
}

/// RFC 3261 §8.1.3.1: a transport that failed is a 503, which ends no dialog.
#[test]
fn a_change_that_finds_no_way_to_the_other_party_is_refused_and_the_call_goes_on() {
    let snapshot = over_a_stream("callee", CALLEE, CALLEE);
    let mut call = Call::revived(&snapshot, 40_000);
    call.answers(CALLER, Transport::Udp, "OPTIONS", "");
    call.changes(CALLER, Transport::Udp);
    assert!(
        call.sent_to(CALLEE, "INVITE").is_some(),
        "{:?}",
        call.lines()
    );
    call.handle(Input::TransportFailed(peer(CALLEE, Transport::Tcp)));
    assert!(call.sent_to(CALLER, "SIP/2.0 500").is_some());
    call.wait(Duration::from_secs(70));
    assert!(!call.has_ended(), "{:?}", call.lines());
}

/// A call of 20 s whose 200 A may not have: it is repeated, and A, which has had it for long, does
/// not acknowledge it again.
fn unacknowledged() -> Call {
    let mut call = Call::revived(&snapshot(), 20_000);
    call.answers(CALLER, Transport::Udp, "OPTIONS", "");
    call.answers(CALLEE, Transport::Udp, "OPTIONS", "");
    call
}

#[test]
fn a_change_waits_for_the_ack_to_the_repeated_200_and_no_longer_than_that_is_repeated() {
    let mut call = unacknowledged();
    call.changes(CALLEE, Transport::Udp);
    call.wait(Duration::from_secs(31));
    assert!(call.sent_to(CALLER, "INVITE").is_none());
    call.wait(Duration::from_secs(2));
    assert!(call.sent_to(CALLER, "INVITE").is_some());
    assert!(!call.has_ended(), "{:?}", call.lines());
}

#[test]
fn who_answered_after_a_restart_has_to_acknowledge_its_changes_all_the_same() {
    let mut call = Call::revived(&snapshot(), 40_000);
    call.answers(CALLER, Transport::Udp, "OPTIONS", "");
    call.answers(CALLEE, Transport::Udp, "OPTIONS", "");
    call.changes(CALLER, Transport::Udp);
    call.answers(CALLEE, Transport::Udp, "INVITE", SDP);
    assert!(call.sent_to(CALLER, "SIP/2.0 200").is_some());
    // B's own change waits for A's ACK, which never comes.
    call.changes(CALLEE, Transport::Udp);
    call.wait(Duration::from_secs(34));
    assert!(call.counts.contains(&"never_acknowledged"));
    assert!(call.has_ended(), "{:?}", call.lines());
}

/// `acknowledged` is only in the next snapshot, so that the 200 is repeated to where nobody listens.
#[test]
fn who_can_not_be_reached_is_not_given_up_for_an_ack_that_it_can_not_send() {
    let mut snapshot = over_a_stream("caller", "127.0.0.2:40001", CALLER);
    snapshot["caller_invite"]["vias"] =
        json!(["SIP/2.0/TCP 127.0.0.2:5060;branch=z9hG4bK-invite;received=127.0.0.2;rport=40001"]);
    let mut call = Call::revived(&snapshot, 20_000);
    call.answers(CALLEE, Transport::Udp, "OPTIONS", "");
    assert!(call.sent_to(CALLER, "SIP/2.0 200").is_some());
    call.handle(Input::TransportFailed(peer(CALLER, Transport::Tcp)));
    call.wait(Duration::from_secs(40));
    assert!(!call.has_ended(), "{:?}", call.lines());
    // What it opens is the way to it, and it hears of a change.
    let opened = "127.0.0.2:40002";
    call.asks(opened, Transport::Tcp, "INFO", "");
    call.changes(CALLEE, Transport::Udp);
    assert!(
        call.sent_to(opened, "INVITE").is_some(),
        "{:?}",
        call.lines()
    );
}

/// A refusal leaves but once over a stream, and the one that brought the INVITE is gone.
#[test]
fn an_invite_of_an_earlier_run_is_refused_where_its_sender_listens() {
    let mut snapshot = over_a_stream("caller", "127.0.0.2:40001", CALLER);
    snapshot["caller_invite"]["vias"] =
        json!(["SIP/2.0/TCP 127.0.0.2:5070;branch=z9hG4bK-invite;received=127.0.0.2;rport=40001"]);
    snapshot["living"] = Value::Null;
    for leg in ["a", "b"] {
        snapshot[leg]["connected"] = Value::Null;
    }
    snapshot["caller_answered"] = json!(false);
    snapshot["callee"] = Value::Null;
    let call = Call::revived(&snapshot, 20_000);
    assert!(
        call.sent_to("127.0.0.2:5070", "SIP/2.0 500").is_some(),
        "{:?}",
        call.lines()
    );
}

/// RFC 3264 §8: the earlier run may have told A more since its 200, which is in no snapshot.
#[test]
fn what_a_caller_is_told_behind_its_repeated_200_has_a_version_that_it_has_not_seen() {
    let mut call = unacknowledged();
    let version = |sdp: &str| -> u64 {
        let origin = sdp.lines().find(|line| line.starts_with("o=")).unwrap();
        origin.split(' ').nth(2).unwrap().parse().unwrap()
    };
    let repeated = version(call.sent_to(CALLER, "SIP/2.0 200").unwrap());
    assert_eq!(snapshot()["living"]["caller"]["sdp_version"], repeated);
    call.asks(CALLER, Transport::Udp, "ACK", "");
    call.changes(CALLEE, Transport::Udp);
    let changed = version(call.sent_to(CALLER, "INVITE").unwrap());
    assert!(changed > repeated + 1, "{repeated} {changed}");
}

/// RFC 3262 §5: the reliable provisional was the answer, and its PRACK may come again.
#[test]
fn an_answer_that_a_reliable_provisional_gave_stands_in_the_repeated_200() {
    let mut snapshot = snapshot();
    let early = "v=0\r\no=- 1012248805 0 IN IP4 127.0.0.1\r\ns=-\r\n";
    snapshot["living"]["answered_early"] = json!(early);
    snapshot["living"]["caller"]["sdp_version"] = json!(1);
    snapshot["number"]["early_media"] = json!("passThrough");
    let mut call = Call::revived(&snapshot, 20_000);
    let repeated = call.sent_to(CALLER, "SIP/2.0 200").unwrap();
    assert!(
        repeated.ends_with(&format!("\r\n\r\n{early}")),
        "{repeated}"
    );
    call.asks(CALLER, Transport::Udp, "PRACK", "");
    let answered = |(_, text): &(Peer, String)| {
        text.starts_with("SIP/2.0 200") && text.contains("CSeq: 7 PRACK")
    };
    assert!(call.sent.iter().any(answered), "{:?}", call.lines());
    // What is in use comes by a re-INVITE.
    call.asks(CALLER, Transport::Udp, "ACK", "");
    assert!(
        call.sent_to(CALLER, "INVITE").is_some(),
        "{:?}",
        call.lines()
    );
}
