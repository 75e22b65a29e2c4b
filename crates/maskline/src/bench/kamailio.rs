//! The peer of the measurement: Kamailio as a proxy that hides topology, with the same load.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// Starts Kamailio between the load's two ends; `None`: it is not installed.
pub(super) fn start(
    folder: &Path,
    own: SocketAddr,
    callee: SocketAddr,
) -> anyhow::Result<Option<Child>> {
    let file = folder.join("kamailio.cfg");
    std::fs::write(&file, configuration(own, callee))?;
    let started = Command::new("kamailio")
        .args(["-DD", "-E", "-m", "512", "-M", "16", "-x", "fm", "-X", "fm"])
        .arg("-f")
        .arg(&file)
        .arg("-Y")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("kamailio.log"))?)
        .spawn();
    match started {
        Ok(child) => Ok(Some(child)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("kamailio"),
    }
}

fn configuration(own: SocketAddr, callee: SocketAddr) -> String {
    format!(
        r#"#!KAMAILIO
debug=0
log_stderror=yes
children=2
disable_tcp=yes
auto_aliases=no
listen=udp:{own}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "topoh.so"
modparam("topoh", "mask_key", "a key for a measurement")
modparam("topoh", "mask_ip", "127.0.0.8")
request_route {{
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
        sl_send_reply("404", "Not here");
        exit;
    }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
    t_check_trans();
    record_route();
    $du = "sip:{callee}";
    t_relay();
}}
"#
    )
}
