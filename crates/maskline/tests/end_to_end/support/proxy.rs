//! Kamailio as a proxy between phones on UDP and the switch on TLS, with certificates
//! both ways.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::eventually;
use super::ports::Ports;

/// Where it is.
pub const ADDRESS: &str = "127.0.0.5";

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    process: Child,
    folder: PathBuf,
}

impl Proxy {
    /// What comes by UDP goes to `switch` by TLS; what comes by TLS goes to `phone` by UDP. In the
    /// folder are `ca.pem`, `proxy.pem` and `proxy.key`.
    pub async fn start(folder: &Path, ports: &Ports, switch: &str, phone: &str) -> Self {
        let (udp, tls) = (ports.neighbour_udp(), ports.neighbour_tls());
        fs::write(
            folder.join("kamailio-tls.cfg"),
            "[server:default]\nmethod = TLSv1.2+\nverify_certificate = no\n\
             require_certificate = no\nprivate_key = proxy.key\ncertificate = proxy.pem\n\
             [client:default]\nmethod = TLSv1.2+\nverify_certificate = yes\n\
             require_certificate = yes\nprivate_key = proxy.key\ncertificate = proxy.pem\n\
             ca_list = ca.pem\n",
        )
        .unwrap();
        let configuration = format!(
            r#"#!KAMAILIO
debug=2
log_stderror=yes
children=1
tcp_children=1
enable_tls=yes
listen=udp:{ADDRESS}:{udp}
listen=tls:{ADDRESS}:{tls}
loadmodule "tls.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
modparam("tls", "config", "{}/kamailio-tls.cfg")
request_route {{
    if (is_method("CANCEL")) {{
        if (t_check_trans()) t_relay();
        exit;
    }}
    if (has_totag()) {{
        if (loose_route() || (is_method("ACK") && t_check_trans())) t_relay();
        exit;
    }}
    t_check_trans();
    record_route();
    if (proto == TLS) {{
        $du = "sip:{phone}";
    }} else {{
        $du = "sip:{switch};transport=tls";
    }}
    t_relay();
}}
"#,
            folder.display()
        );
        let file = folder.join("kamailio.cfg");
        fs::write(&file, configuration).unwrap();
        let log = File::create(folder.join("kamailio.log")).unwrap();
        let process = Command::new("/usr/sbin/kamailio")
            .args(["-DD", "-E", "-m", "32", "-M", "8", "-f"])
            .arg(&file)
            .arg("-Y")
            .arg(folder)
            .arg("-w")
            .arg(folder)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("Kamailio starts; scripts/setup installs it");
        let mut proxy = Self {
            process,
            folder: folder.to_owned(),
        };
        eventually("Kamailio listens", Duration::from_secs(20), || {
            if let Some(status) = proxy.process.try_wait().unwrap() {
                panic!("Kamailio ended with {status}: {}", proxy.log());
            }
            std::net::TcpStream::connect((ADDRESS, tls)).ok()
        })
        .await;
        proxy
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("kamailio.log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    /// It ends its own children.
    fn drop(&mut self) {
        let id = self.process.id().to_string();
        let _asked = Command::new("kill").args(["-TERM", &id]).status();
        let _reaped = self.process.wait();
    }
}
