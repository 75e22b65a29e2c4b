//! Scenarios written down in the test: what A or B sends and waits for, one step each.

use std::fmt::Write as _;

/// The steps of one phone.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    text: String,
}

/// What a phone says of its audio.
#[derive(Clone, Copy, Debug)]
pub struct Says {
    /// The version of its description.
    pub version: u32,
    /// The payload types of its `m=` line: 0, 8, 13 and 101 are known.
    pub formats: &'static str,
    /// `sendrecv`, …
    pub direction: &'static str,
    /// Its address; SIPp's own by default.
    pub address: &'static str,
    /// Whether RTP and RTCP share a port.
    pub shares: bool,
    /// The value of its `a=crypto`; without one its media are plain.
    pub crypto: &'static str,
}

impl Says {
    /// PCMA and key presses, both ways.
    pub const FIRST: Self = Self {
        version: 1,
        formats: "8 101",
        direction: "sendrecv",
        address: "[local_ip]",
        shares: false,
        crypto: "",
    };

    /// The same with another direction, as another version.
    pub const fn as_version(version: u32, direction: &'static str) -> Self {
        Self {
            version,
            direction,
            ..Self::FIRST
        }
    }

    fn text(self) -> String {
        let Self {
            version,
            formats,
            direction,
            address,
            shares,
            crypto,
        } = self;
        let proto = if crypto.is_empty() {
            "RTP/AVP"
        } else {
            "RTP/SAVP"
        };
        let family = if address.contains("::") { "IP6" } else { "IP4" };
        let mut text = format!(
            "v=0\no=- 1 {version} IN {family} {address}\ns=-\nc=IN {family} {address}\nt=0 0\n\
             m=audio [media] {proto} {formats}\n"
        );
        for format in formats.split(' ') {
            let lines = match format {
                "0" => "a=rtpmap:0 PCMU/8000\n",
                "8" => "a=rtpmap:8 PCMA/8000\n",
                "13" => "a=rtpmap:13 CN/8000\n",
                "101" => "a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\n",
                other => panic!("payload type {other}"),
            };
            text.push_str(lines);
        }
        if shares {
            text.push_str("a=rtcp-mux\n");
        }
        if !crypto.is_empty() {
            let _ = writeln!(text, "a=crypto:{crypto}");
        }
        let _ = writeln!(text, "a={direction}");
        text
    }
}

const CONTACT: &str = "[local_ip]:[local_port];transport=[transport]>\n";

impl Steps {
    /// Sends a message; a request over UDP again until it is answered.
    #[must_use]
    fn sends(mut self, again: bool, head: &str, says: Option<Says>) -> Self {
        let again = if again { " retrans=\"@RETRANS@\"" } else { "" };
        let body = match says {
            Some(says) => format!(
                "Content-Type: application/sdp\nContent-Length: [len]\n\n{}",
                says.text()
            ),
            None => "Content-Length: 0\n".to_owned(),
        };
        let _ = write!(
            self.text,
            "  <send{again}><![CDATA[\n\n{head}{body}\n]]></send>\n"
        );
        self
    }

    /// Waits for a response; provisional ones may come before it.
    #[must_use]
    pub fn hears(mut self, status: u16) -> Self {
        if status >= 200 {
            for provisional in [100, 180] {
                let _ = writeln!(
                    self.text,
                    "  <recv response=\"{provisional}\" optional=\"true\"/>"
                );
            }
        }
        let _ = writeln!(self.text, "  <recv response=\"{status}\"/>");
        self
    }

    /// Waits for a request.
    #[must_use]
    pub fn gets(mut self, method: &str) -> Self {
        let _ = writeln!(self.text, "  <recv request=\"{method}\"/>");
        self
    }

    /// Waits for the scenario's own time.
    #[must_use]
    pub fn waits(mut self) -> Self {
        self.text.push_str("  <pause/>\n");
        self
    }

    /// For the placeholder of the scenario's file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    // A's steps.

    /// A calls, and is answered; `extra` are more header lines.
    #[must_use]
    pub fn calls(self, says: Option<Says>, extra: &str) -> Self {
        let mut called = self.dials(says, extra);
        called
            .text
            .push_str("  <recv response=\"100\" optional=\"true\"/>\n");
        called.gets_answer()
    }

    /// A calls.
    #[must_use]
    pub fn dials(self, says: Option<Says>, extra: &str) -> Self {
        let head = format!(
            "INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-invite-[pid]-[call_number];rport\n\
             Max-Forwards: 70\nFrom: [from];tag=a-[pid]-[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>\nCall-ID: [call_id]\nCSeq: 1 INVITE\n\
             Contact: <sip:caller@{CONTACT}{extra}"
        );
        self.sends(true, &head, says)
    }

    /// A gets the answer to its call; it may ring before.
    #[must_use]
    pub fn gets_answer(mut self) -> Self {
        self.text.push_str(
            "  <recv response=\"180\" optional=\"true\"/>\n  <recv response=\"200\" rrs=\"true\"/>\n",
        );
        self
    }

    /// A is told of media before the answer.
    #[must_use]
    pub fn hears_early(mut self) -> Self {
        self.text.push_str(
            "  <recv response=\"100\" optional=\"true\"/>\n  <recv response=\"183\" rrs=\"true\"/>\n",
        );
        self
    }

    /// The same, reliably: A acknowledges it by PRACK.
    #[must_use]
    pub fn hears_early_reliably(mut self) -> Self {
        self.text.push_str(
            "  <recv response=\"100\" optional=\"true\"/>\n  <recv response=\"183\" rrs=\"true\"><action>\n    \
             <ereg regexp=\"100rel\" search_in=\"hdr\" header=\"Require:\" check_it=\"true\" assign_to=\"rel\"/>\n    \
             <ereg regexp=\"[0-9]+\" search_in=\"hdr\" header=\"RSeq:\" check_it=\"true\" assign_to=\"rseq\"/>\n  \
             </action></recv>\n  <Reference variables=\"rel\"/>\n",
        );
        let head = format!(
            "PRACK [next_url] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-2-a;rport\n\
             Max-Forwards: 70\nFrom: [from];tag=a-[pid]-[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: 2 PRACK\nRAck: [$rseq] 1 INVITE\nContact: <sip:caller@{CONTACT}"
        );
        self.sends(true, &head, None).hears(200)
    }

    /// A's ACK to the refusal of its call, in the INVITE's transaction.
    #[must_use]
    pub fn acks_refused_call(self) -> Self {
        let head = "ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-invite-[pid]-[call_number];rport\n\
             Max-Forwards: 70\nFrom: [from];tag=a-[pid]-[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: 1 ACK\n";
        self.sends(false, head, None)
    }

    /// A's request in the dialog.
    #[must_use]
    pub fn asks(self, method: &str, cseq: u32, says: Option<Says>) -> Self {
        let head = format!(
            "{method} [next_url] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-{cseq}-a;rport\n\
             [routes]\nMax-Forwards: 70\nFrom: [from];tag=a-[pid]-[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: {cseq} {method}\nContact: <sip:caller@{CONTACT}"
        );
        self.sends(!matches!(method, "ACK"), &head, says)
    }

    /// A presses a key by INFO.
    #[must_use]
    pub fn presses(mut self, key: char, cseq: u32) -> Self {
        let body = format!("Signal={key}\nDuration=160\n");
        let _ = write!(
            self.text,
            "  <send retrans=\"@RETRANS@\"><![CDATA[\n\nINFO [next_url] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-{cseq}-a;rport\n\
             [routes]\nMax-Forwards: 70\nFrom: [from];tag=a-[pid]-[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: {cseq} INFO\nContact: <sip:caller@{CONTACT}Content-Type: application/dtmf-relay\n\
             Content-Length: [len]\n\n{body}\n]]></send>\n"
        );
        self.hears(200)
    }

    /// A's ACK, which is a transaction of its own after a 2xx.
    #[must_use]
    pub fn acks(self, cseq: u32, says: Option<Says>) -> Self {
        let head = format!(
            "ACK [next_url] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-{cseq}-ack;rport\n\
             [routes]\nMax-Forwards: 70\nFrom: [from];tag=a-[pid]-[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: {cseq} ACK\n"
        );
        self.sends(false, &head, says)
    }

    /// A's ACK to a refusal, in the INVITE's transaction.
    #[must_use]
    pub fn acks_refusal(self, cseq: u32) -> Self {
        let head = format!(
            "ACK [next_url] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-{cseq}-a;rport\n\
             Max-Forwards: 70\nFrom: [from];tag=a-[pid]-[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: {cseq} ACK\n"
        );
        self.sends(false, &head, None)
    }

    /// A's CANCEL of its re-INVITE.
    #[must_use]
    pub fn cancels(self, cseq: u32) -> Self {
        let head = format!(
            "CANCEL [next_url] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-{cseq}-a;rport\n\
             Max-Forwards: 70\nFrom: [from];tag=a-[pid]-[call_number]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\nCall-ID: [call_id]\n\
             CSeq: {cseq} CANCEL\n"
        );
        self.sends(true, &head, None)
    }

    // B's steps.

    /// B gets the call, rings and answers it.
    #[must_use]
    pub fn answers_call(mut self, says: Says, extra: &str) -> Self {
        self.text.push_str(
            "  <recv request=\"INVITE\" rrs=\"true\"><action>\n    \
             <ereg regexp=\"[^ ].*\" search_in=\"hdr\" header=\"From:\" assign_to=\"peer\"/>\n    \
             <ereg regexp=\"[^ ].*\" search_in=\"hdr\" header=\"To:\" assign_to=\"self\"/>\n  \
             </action></recv>\n  <Reference variables=\"peer,self\"/>\n",
        );
        let tag = ";tag=b-[pid]-[call_number]";
        self.says("180 Ringing", tag, extra, None)
            .says("200 OK", tag, extra, Some(says))
            .gets("ACK")
    }

    /// B answers what came last, in the dialog.
    #[must_use]
    pub fn answers(self, status: &str, says: Option<Says>) -> Self {
        self.says(status, "", "", says)
    }

    /// B refuses what came last, with this header line.
    #[must_use]
    pub fn refuses(self, status: &str, line: &str) -> Self {
        self.says(status, "", &format!("{line}\n"), None)
    }

    fn says(self, status: &str, tag: &str, extra: &str, says: Option<Says>) -> Self {
        let head = format!(
            "SIP/2.0 {status}\n[last_Via:]\n[last_From:]\n[last_To:]{tag}\n[last_Call-ID:]\n\
             [last_CSeq:]\n{extra}Contact: <sip:callee@{CONTACT}"
        );
        self.sends(says.is_some(), &head, says)
    }

    /// B gets a re-INVITE that it answers later than something else.
    #[must_use]
    pub fn gets_and_keeps(mut self, method: &str) -> Self {
        let _ = write!(
            self.text,
            "  <recv request=\"{method}\"><action>\n    \
             <ereg regexp=\"[^ ].*\" search_in=\"hdr\" header=\"Via:\" assign_to=\"via\"/>\n    \
             <ereg regexp=\"[^ ].*\" search_in=\"hdr\" header=\"From:\" assign_to=\"keptfrom\"/>\n    \
             <ereg regexp=\"[^ ].*\" search_in=\"hdr\" header=\"To:\" assign_to=\"keptto\"/>\n    \
             <ereg regexp=\"[^ ].*\" search_in=\"hdr\" header=\"CSeq:\" assign_to=\"keptcseq\"/>\n  \
             </action></recv>\n"
        );
        self
    }

    /// B answers the call that it kept; a final answer again until it is acknowledged.
    #[must_use]
    pub fn answers_kept(self, status: &str, extra: &str, says: Option<Says>) -> Self {
        let head = format!(
            "SIP/2.0 {status}\nVia: [$via]\nFrom: [$keptfrom]\n\
             To: [$keptto];tag=b-[pid]-[call_number]\nCall-ID: [call_id]\nCSeq: [$keptcseq]\n\
             {extra}Contact: <sip:callee@{CONTACT}"
        );
        self.sends(!status.starts_with('1'), &head, says)
    }

    /// B refuses what it kept.
    #[must_use]
    pub fn refuses_kept(self, status: &str) -> Self {
        let head = format!(
            "SIP/2.0 {status}\nVia: [$via]\nFrom: [$keptfrom]\nTo: [$keptto]\nCall-ID: [call_id]\n\
             CSeq: [$keptcseq]\n"
        );
        self.sends(false, &head, None)
    }

    /// B's request in the dialog.
    #[must_use]
    pub fn asks_as_callee(self, method: &str, cseq: u32, says: Option<Says>) -> Self {
        let head = format!(
            "{method} [next_url] SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-{cseq}-{method}-b;rport\n\
             [routes]\nMax-Forwards: 70\nFrom: [$self];tag=b-[pid]-[call_number]\nTo: [$peer]\n\
             Call-ID: [call_id]\nCSeq: {cseq} {method}\nContact: <sip:callee@{CONTACT}"
        );
        self.sends(method != "ACK", &head, says)
    }
}
