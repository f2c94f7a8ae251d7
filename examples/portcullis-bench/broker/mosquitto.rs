//! Mosquitto, with what makes it fastest that its manual knows of.

use std::process::Command;

use super::Place;
use crate::Result;
use crate::load::INFLIGHT;

pub(super) fn command(at: &Place<'_>) -> Result<Command> {
    let text = format!(
        "per_listener_settings false\n\
         allow_anonymous true\n\
         set_tcp_nodelay true\n\
         max_inflight_messages {INFLIGHT}\n\
         max_queued_messages 0\n\
         persistence false\n\
         listener {} 127.0.0.1\n\
         cafile {}\n\
         certfile {}\n\
         keyfile {}\n\
         require_certificate true\n",
        at.port,
        at.cert("ca.pem"),
        at.cert("server.pem"),
        at.cert("server.key"),
    );
    let path = at.configure("mosquitto.conf", &text)?;
    let mut command = Command::new(at.program);
    command.arg("-c").arg(path);
    if nix::unistd::Uid::effective().is_root() {
        // It would give up root, and then could not read the key.
        std::fs::OpenOptions::new()
            .append(true)
            .open(at.directory.join("mosquitto.conf"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"user root\n"))?;
    }
    Ok(command)
}
