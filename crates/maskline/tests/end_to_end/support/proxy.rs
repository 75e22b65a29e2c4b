//! Kamailio as a proxy between phones on UDP and the switch on TLS, with certificates
//! both ways, or on TCP.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::kamailio::Kamailio;
use super::ports::Ports;

/// Where it is.
pub const ADDRESS: &str = "127.0.0.5";

/// Starts it: what comes by UDP goes to `switch` by TLS; what comes by TLS goes to `phone` by UDP. In
/// the folder are `ca.pem`, `proxy.pem` and `proxy.key`.
pub async fn start(folder: &Path, ports: &Ports, switch: &str, phone: &str) -> Kamailio {
    fs::write(
        folder.join("kamailio-tls.cfg"),
        "[server:default]\nmethod = TLSv1.2+\nverify_certificate = no\n\
         require_certificate = no\nprivate_key = proxy.key\ncertificate = proxy.pem\n\
         [client:default]\nmethod = TLSv1.2+\nverify_certificate = yes\n\
         require_certificate = yes\nprivate_key = proxy.key\ncertificate = proxy.pem\n\
         ca_list = ca.pem\n",
    )
    .unwrap();
    let modules = format!(
        "enable_tls=yes\nloadmodule \"tls.so\"\nmodparam(\"tls\", \"config\", \"{}/kamailio-tls.cfg\")",
        folder.display()
    );
    run(folder, ports, ("tls", modules), switch, phone).await
}

/// The same with TCP in place of TLS.
pub async fn start_over_tcp(folder: &Path, ports: &Ports, switch: &str, phone: &str) -> Kamailio {
    run(folder, ports, ("tcp", String::new()), switch, phone).await
}

async fn run(
    folder: &Path,
    ports: &Ports,
    (stream, modules): (&str, String),
    switch: &str,
    phone: &str,
) -> Kamailio {
    let address = SocketAddr::new(ADDRESS.parse().unwrap(), ports.neighbour_udp());
    let stream_address = SocketAddr::new(address.ip(), ports.neighbour_tls());
    let fill = [
        ("ADDRESS", address.to_string()),
        ("STREAM_ADDRESS", stream_address.to_string()),
        ("STREAM", stream.to_owned()),
        ("TLS", modules),
        ("PHONE", phone.to_owned()),
        ("SWITCH", switch.to_owned()),
    ];
    Kamailio::start_with(folder, "kamailio_tls.cfg", &fill, address).await
}
