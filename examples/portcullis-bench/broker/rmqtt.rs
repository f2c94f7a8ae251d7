//! rmqttd, without its plugins, and without its refusal to serve when the processor is busy.

use std::process::Command;

use super::{Place, free_port};
use crate::Result;
use crate::load::INFLIGHT;

pub(super) const INSTALL: (&str, &[&str]) = ("rmqttd@0.24.0", &["--locked"]);

pub(super) fn command(at: &Place<'_>) -> Result<Command> {
    let text = format!(
        "[node]\n\
         busy.check_enable = false\n\
         [rpc]\n\
         server_addr = \"127.0.0.1:{}\"\n\
         [listener.tls.bench]\n\
         addr = \"127.0.0.1:{}\"\n\
         nodelay = true\n\
         allow_anonymous = true\n\
         max_handshaking_limit = 20000\n\
         max_inflight = {INFLIGHT}\n\
         max_mqueue_len = 100000\n\
         cross_certificate = true\n\
         cert = \"{}\"\n\
         key = \"{}\"\n\
         client_ca_certs = \"{}\"\n",
        free_port()?,
        at.port,
        at.cert("server.pem"),
        at.cert("server.key"),
        at.cert("ca.pem"),
    );
    let path = at.configure("rmqtt.toml", &text)?;
    let mut command = Command::new(at.program);
    command.arg("-f").arg(path);
    Ok(command)
}
