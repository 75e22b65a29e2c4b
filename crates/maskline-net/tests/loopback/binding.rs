//! Taking addresses.

use std::net::{Ipv4Addr, SocketAddr};

use maskline_net::{ListenSpec, bind};
use maskline_switch::sip::Transport;

fn spec(transport: Transport, port: u16) -> ListenSpec {
    ListenSpec {
        transport,
        addr: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
    }
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it_although_its_sockets_share_a_port() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let held = bind(&[spec(transport, 0)], 3).unwrap();
        let port = held.addresses()[0].port();
        let error = bind(&[spec(transport, 0), spec(transport, port)], 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{}:127.0.0.1:{port}: the address is in use by another socket",
                transport.as_str().to_lowercase()
            )
        );
        drop(held);
        bind(&[spec(transport, port)], 3).unwrap();
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_an_error_that_says_so() {
    let foreign = ListenSpec {
        transport: Transport::Udp,
        addr: "192.0.2.1:5060".parse().unwrap(),
    };
    assert_eq!(
        bind(&[foreign], 1).unwrap_err().to_string(),
        "udp:192.0.2.1:5060: this machine does not have the address"
    );
}
