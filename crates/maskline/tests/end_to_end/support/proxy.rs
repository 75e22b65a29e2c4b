//! Kamailio as a proxy between phones on UDP and the switch on TLS, with certificates
//! both ways.

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
    let address = SocketAddr::new(ADDRESS.parse().unwrap(), ports.neighbour_udp());
    let fill = [
        ("ADDRESS", address.to_string()),
        (
            "TLS_ADDRESS",
            format!("{ADDRESS}:{}", ports.neighbour_tls()),
        ),
        ("FOLDER", folder.display().to_string()),
        ("PHONE", phone.to_owned()),
        ("SWITCH", switch.to_owned()),
    ];
    Kamailio::start_with(folder, "kamailio_tls.cfg", &fill, address).await
}
