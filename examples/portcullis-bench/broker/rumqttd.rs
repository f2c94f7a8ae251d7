//! Stock rumqttd. Its listener does not set `TCP_NODELAY`, and waits 44 ms for that again and again;
//! to compare what its router costs and not those waits, it is set from outside.

use std::fs;
use std::process::Command;

use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::Place;
use crate::Result;
use crate::load::INFLIGHT;

/// Not with its lock file: what that names does not compile with a newer Rust.
pub(super) const INSTALL: (&str, &[&str]) = (
    "rumqttd@0.20.0",
    &["--features", "use-rustls,verify-client-cert"],
);

pub(super) fn command(at: &Place<'_>) -> Result<Command> {
    let text = format!(
        "id = 0\n\
         [router]\n\
         id = 0\n\
         max_connections = 20010\n\
         max_outgoing_packet_count = 200\n\
         max_segment_size = 104857600\n\
         max_segment_count = 10\n\
         [v4.1]\n\
         name = \"v4-1\"\n\
         listen = \"127.0.0.1:{}\"\n\
         next_connection_delay_ms = 0\n\
         [v4.1.tls]\n\
         capath = \"{}\"\n\
         certpath = \"{}\"\n\
         keypath = \"{}\"\n\
         [v4.1.connections]\n\
         connection_timeout_ms = 60000\n\
         max_payload_size = 1048576\n\
         max_inflight_count = {INFLIGHT}\n\
         dynamic_filters = true\n",
        at.port,
        at.cert("ca.pem"),
        at.cert("server.pem"),
        at.cert("server.key"),
    );
    let path = at.configure("rumqttd.toml", &text)?;
    let mut command = Command::new(at.program);
    command.arg("-c").arg(path).arg("-q");
    Ok(command)
}

/// Set `TCP_NODELAY` on all listening sockets of the process; what they accept inherits it.
pub(super) fn set_nodelay(pid: u32) -> Result<()> {
    let raw = Pid::from_raw(i32::try_from(pid)?).ok_or("no such process")?;
    let process = pidfd_open(raw, PidfdFlags::empty())?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if !target.to_string_lossy().starts_with("socket:") {
            continue;
        }
        let number = entry.file_name().to_string_lossy().parse()?;
        let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
        if sockopt::socket_acceptconn(&socket).unwrap_or(false) {
            sockopt::set_tcp_nodelay(&socket, true)?;
        }
    }
    Ok(())
}
