//! The addresses that are listened on, and the instances behind each.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::{StartError, bind, local_address};
use crate::ca::id::InstanceId;
use crate::config::{Config, Instance};
use crate::mqtt::listener::Entrance;
use crate::tls::gates::Gates;

/// A bound socket, and the ways from it into instances.
pub(super) struct Listening {
    pub(super) listener: TcpListener,
    /// Where it really listens.
    pub(super) address: SocketAddr,
    pub(super) gates: Gates<Entrance>,
    members: Vec<InstanceId>,
}

/// Bind every address once.
pub(super) async fn bind_all(config: &Config) -> Result<Vec<Listening>, StartError> {
    let mut all = Vec::new();
    for group in config.listeners() {
        let Some(first) = group.first() else { continue };
        let listener = bind("MQTT", first.mqtt_listen).await?;
        all.push(Listening {
            address: local_address("MQTT", &listener, first.mqtt_listen)?,
            listener,
            gates: Gates::new(),
            members: group.iter().map(|instance| instance.id.clone()).collect(),
        });
    }
    Ok(all)
}

/// Let the clients of an instance in where it listens. Gives the address, and which clients those
/// are if not all.
pub(super) fn open(
    all: &mut [Listening],
    instance: &Instance,
    entrance: Entrance,
) -> Result<(SocketAddr, Option<String>), StartError> {
    let mut found = all.iter_mut();
    let found = found.find(|listening| listening.members.contains(&instance.id));
    let conflict = || StartError::Unreachable {
        instance: instance.id.clone(),
        address: instance.mqtt_listen,
    };
    let listening = found.ok_or_else(conflict)?;
    if !listening
        .gates
        .add(&instance.server_names, entrance)
        .is_empty()
    {
        return Err(conflict());
    }
    let names = &instance.server_names;
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let clients = match (names.is_empty(), listening.members.len()) {
        (false, _) => Some(names.join(", ")),
        (true, 2..) => Some("all others".to_owned()),
        (true, _) => None,
    };
    Ok((listening.address, clients))
}
