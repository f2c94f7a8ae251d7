//! NATS server with its MQTT gateway.

use std::process::Command;

use super::{Place, free_port};
use crate::Result;
use crate::load::INFLIGHT;

pub(super) fn command(at: &Place<'_>) -> Result<Command> {
    let text = format!(
        "server_name: bench\n\
         listen: 127.0.0.1:{}\n\
         jetstream {{ store_dir: \"{}\" }}\n\
         mqtt {{\n\
           listen: 127.0.0.1:{}\n\
           max_ack_pending: {INFLIGHT}\n\
           tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true, timeout: 10 }}\n\
         }}\n",
        free_port()?,
        at.directory.join("jetstream").display(),
        at.port,
        at.cert("server.pem"),
        at.cert("server.key"),
        at.cert("ca.pem"),
    );
    let path = at.configure("nats.conf", &text)?;
    let mut command = Command::new(at.program);
    command.arg("-c").arg(path);
    Ok(command)
}
