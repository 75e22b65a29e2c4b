//! What becomes of requests whose way fails.

use super::*;
use crate::dialog::Dialog;
use crate::sip::Transport;
use crate::sip::compose::SentBy;

fn stream(port: u16) -> Peer {
    Peer {
        listener: 0,
        transport: Transport::Tcp,
        addr: ([192, 0, 2, 9], port).into(),
    }
}

#[test]
fn a_bye_takes_the_way_to_where_the_peer_listens_once_its_stream_is_gone() {
    let mut dialog = Dialog {
        call_id: "call".to_owned(),
        local_tag: "ours".to_owned(),
        remote_tag: "theirs".to_owned(),
        local: "<sip:us@example.org>;tag=ours".to_owned(),
        remote: "<sip:them@example.net>;tag=theirs".to_owned(),
        local_cseq: 0,
        remote_cseq: 1,
        routes: Vec::new(),
        target: "sip:them@192.0.2.9:5062;transport=tcp".to_owned(),
        peer: stream(40_000),
    };
    assert_eq!(dialog.next_hop(), stream(40_000));
    assert_eq!(dialog.second_way(), Some(stream(5_062)));
    dialog.target = "sip:them@sbc.example.net".to_owned();
    assert_eq!(dialog.second_way(), Some(stream(5_060)));

    let sent_by = SentBy {
        host_port: "192.0.2.1:5060".to_owned(),
        transport: Transport::Tcp,
    };
    let bye = dialog
        .request(Method::Bye, &sent_by, "z9hG4bKm0.1")
        .unwrap();
    let mut transactions = Transactions::new(SipTimers::default(), 10);
    let tx = transactions
        .send_request(Tick::ZERO, stream(40_000), bye, ())
        .unwrap();
    transactions.set_second_way(tx, stream(5_060));
    let first = transactions.poll_outgoing().unwrap();
    assert_eq!(first.0, stream(40_000));
    transactions.on_transport_failed(Tick::ZERO, stream(40_000));
    assert_eq!(
        transactions.poll_outgoing().unwrap(),
        (stream(5_060), first.1)
    );
    assert!(transactions.poll_upcall().is_none());

    transactions.on_transport_failed(Tick::ZERO, stream(5_060));
    assert!(matches!(
        transactions.poll_upcall(),
        Some(Upcall::Unanswered { .. })
    ));
    assert!(transactions.is_empty());
}

#[test]
fn a_stream_that_fails_takes_nothing_from_a_request_that_has_its_answer() {
    let sent_by = SentBy {
        host_port: "192.0.2.1:5060".to_owned(),
        transport: Transport::Tcp,
    };
    let invite = crate::sip::compose::request(&crate::sip::compose::RequestParts {
        method: Method::Invite,
        uri: "sip:them@192.0.2.9",
        routes: &[],
        sent_by: &sent_by,
        branch: "z9hG4bKm0.1",
        from: "<sip:us@example.org>;tag=ours",
        to: "<sip:them@example.net>;tag=theirs",
        call_id: "call",
        cseq: 1,
        sdp: None,
        extra: &[],
    })
    .unwrap();
    for second_way in [None, Some(stream(5_060))] {
        let mut transactions = Transactions::new(SipTimers::default(), 10);
        let tx = transactions
            .send_request(Tick::ZERO, stream(40_000), invite.clone(), ())
            .unwrap();
        if let Some(way) = second_way {
            transactions.set_second_way(tx, way);
        }
        let ok = crate::sip::compose::response(&invite, 200, None, &[], None).unwrap();
        transactions.receive(Tick::ZERO, stream(40_000), Message::Response(ok), false);
        assert!(matches!(
            transactions.poll_upcall(),
            Some(Upcall::Response { .. })
        ));
        while transactions.poll_outgoing().is_some() {}
        transactions.on_transport_failed(Tick::ZERO, stream(40_000));
        assert!(transactions.poll_upcall().is_none(), "{second_way:?}");
        assert!(transactions.poll_outgoing().is_none(), "{second_way:?}");
        transactions.on_deadline(Tick::from_start(Duration::from_secs(60)));
        assert!(transactions.is_empty());
    }
}

#[test]
fn a_request_too_large_for_a_datagram_goes_by_tcp_and_by_udp_if_nobody_listens_there() {
    let listener = |transport| crate::config::Listener {
        sent_by: SentBy {
            host_port: "192.0.2.1:5060".to_owned(),
            transport,
        },
        bound: ([192, 0, 2, 1], 5_060).into(),
    };
    let listeners = [Transport::Udp, Transport::Tcp].map(listener);
    let datagrams = Peer {
        transport: Transport::Udp,
        ..stream(5_060)
    };
    let streams = Peer {
        listener: 1,
        ..stream(5_060)
    };
    let request = |bytes: usize| {
        crate::sip::compose::request(&crate::sip::compose::RequestParts {
            method: Method::Info,
            uri: "sip:them@192.0.2.9",
            routes: &[],
            sent_by: &listeners[0].sent_by,
            branch: "z9hG4bKm0.1",
            from: "<sip:us@example.org>;tag=ours",
            to: "<sip:them@example.net>;tag=theirs",
            call_id: "call",
            cseq: 1,
            sdp: Some(&"x".repeat(bytes)),
            extra: &[],
        })
        .unwrap()
    };
    let mut transactions = Transactions::new(SipTimers::default(), 10);
    transactions.set_large(Large::new(&listeners));
    transactions.send_request(Tick::ZERO, datagrams, request(500), ());
    assert_eq!(transactions.poll_outgoing().unwrap().0, datagrams);

    let tx = transactions
        .send_request(Tick::ZERO, datagrams, request(1_300), ())
        .unwrap();
    let (peer, bytes) = transactions.poll_outgoing().unwrap();
    assert_eq!(peer, streams);
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(text(&bytes).contains("Via: SIP/2.0/TCP 192.0.2.1:5060;branch=z9hG4bKm0.1"));
    assert_eq!(transactions.peer(tx), Some(streams));
    transactions.on_transport_failed(Tick::ZERO, streams);
    let (peer, bytes) = transactions.poll_outgoing().unwrap();
    assert_eq!(peer, datagrams);
    assert!(text(&bytes).contains("Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKm0.1"));
    assert!(transactions.poll_upcall().is_none());
    // It is a transaction over UDP from now on: repeated, and given up at last.
    let due = transactions.deadline().unwrap();
    transactions.on_deadline(due);
    assert_eq!(transactions.poll_outgoing().unwrap().0, datagrams);
    transactions.on_deadline(Tick::from_start(Duration::from_secs(60)));
    while transactions.poll_outgoing().is_some() {}
    assert!(matches!(
        transactions.poll_upcall(),
        Some(Upcall::Unanswered { .. })
    ));
}
