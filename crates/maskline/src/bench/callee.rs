//! The load's far end: rings, answers at once, and says goodbye when asked to.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::wire::{Head, sdp};

const T1: Duration = Duration::from_millis(500);

/// What the callee counts.
#[derive(Debug, Default)]
pub(super) struct CalleeCounts {
    /// INVITEs that were new.
    pub(super) calls: AtomicU64,
    /// BYEs that ended one of them.
    pub(super) ended: AtomicU64,
    /// Answers that were sent again, unasked.
    pub(super) repeated: AtomicU64,
}

struct Answer {
    bytes: Vec<u8>,
    to: SocketAddr,
    next: Instant,
    wait: Duration,
}

/// Answers calls until `stop` is set.
pub(super) fn run(socket: &UdpSocket, counts: &CalleeCounts, stop: &Arc<AtomicBool>) {
    let mut buffer = vec![0; 65_535];
    let mut unacknowledged: HashMap<String, Answer> = HashMap::new();
    let mut known: HashMap<String, ()> = HashMap::new();
    let mut look = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        // The socket's read timeout lets the loop look at the clock.
        if let Ok((length, from)) = socket.recv_from(&mut buffer)
            && let Some(head) = buffer.get(..length).and_then(Head::of)
        {
            let call = head.value("Call-ID");
            match head.method() {
                "INVITE" => match unacknowledged.get(call) {
                    Some(answer) => send(socket, &answer.bytes, answer.to),
                    None if known.contains_key(call) => {}
                    None => {
                        counts.calls.fetch_add(1, Ordering::Relaxed);
                        let contact = contact(socket);
                        send(socket, &response(&head, "180 Ringing", &contact, ""), from);
                        let body = sdp(40_000);
                        let answer = response(&head, "200 OK", &contact, &body);
                        send(socket, &answer, from);
                        known.insert(call.to_owned(), ());
                        unacknowledged.insert(
                            call.to_owned(),
                            Answer {
                                bytes: answer,
                                to: from,
                                next: Instant::now() + T1,
                                wait: T1,
                            },
                        );
                    }
                },
                "ACK" => {
                    unacknowledged.remove(call);
                }
                "BYE" => {
                    if known.remove(call).is_some() {
                        counts.ended.fetch_add(1, Ordering::Relaxed);
                    }
                    unacknowledged.remove(call);
                    send(socket, &response(&head, "200 OK", "", ""), from);
                }
                // OPTIONS and the like: the far end lives.
                _ if head.status().is_none() => {
                    send(socket, &response(&head, "200 OK", "", ""), from);
                }
                _ => {}
            }
        }
        let now = Instant::now();
        if now.duration_since(look) > Duration::from_millis(100) {
            look = now;
            for answer in unacknowledged.values_mut().filter(|a| a.next <= now) {
                counts.repeated.fetch_add(1, Ordering::Relaxed);
                answer.wait = (answer.wait * 2).min(T1 * 8);
                answer.next = now + answer.wait;
                send(socket, &answer.bytes, answer.to);
            }
        }
    }
}

fn contact(socket: &UdpSocket) -> String {
    socket
        .local_addr()
        .map_or_else(|_| String::new(), |address| format!("<sip:{address}>"))
}

fn response(head: &Head<'_>, status: &str, contact: &str, body: &str) -> Vec<u8> {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for name in ["Via", "Record-Route"] {
        for value in head.values(name) {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push_str("\r\n");
        }
    }
    let to = head.value("To");
    let tag = if to.contains(";tag=") {
        ""
    } else {
        ";tag=callee"
    };
    text.push_str(&format!(
        "From: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n",
        head.value("From"),
        head.value("Call-ID"),
        head.value("CSeq")
    ));
    if !contact.is_empty() {
        text.push_str(&format!("Contact: {contact}\r\n"));
    }
    if !body.is_empty() {
        text.push_str("Content-Type: application/sdp\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}

fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    // A datagram that the kernel drops is repeated like one that the network drops.
    let _ = socket.send_to(bytes, to);
}
