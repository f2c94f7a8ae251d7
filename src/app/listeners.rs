//! The addresses that are listened on, and the instances behind each.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::{StartError, bind, local_address};
use crate::ca::id::InstanceId;
use crate::config::{Config, Instance, Wire};
use crate::mqtt::broker::Broker;
use crate::mqtt::listener::{Entrance, Proxies, Speaks};
use crate::tls::acceptor::GateAcceptor;
use crate::tls::gates::Gates;

/// A bound socket, and the ways from it into instances.
pub(super) struct Listening {
    pub(super) listener: TcpListener,
    pub(super) wire: Wire,
    /// Where it really listens.
    pub(super) address: SocketAddr,
    pub(super) gates: Gates<Entrance>,
    pub(super) proxies: Proxies,
    members: Vec<InstanceId>,
}

/// Where an instance is reached for one of what it speaks.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) address: SocketAddr,
    /// By which server names, if not by all.
    pub(super) clients: Option<String>,
}

/// Bind every address once.
pub(super) fn bind_all(config: &Config) -> Result<Vec<Listening>, StartError> {
    let mut all = Vec::new();
    for place in config.listeners() {
        let listener = bind(place.wire.as_str(), place.address)?;
        let members = place.instances.iter().map(|instance| instance.id.clone());
        all.push(Listening {
            address: local_address(place.wire.as_str(), &listener, place.address)?,
            listener,
            wire: place.wire,
            gates: Gates::new(),
            proxies: place.proxies.clone(),
            members: members.collect(),
        });
    }
    Ok(all)
}

/// Let the clients of an instance in at each address where it listens: where it is reached for
/// MQTT, and for WebSocket.
pub(super) fn open(
    all: &mut [Listening],
    instance: &Instance,
    broker: &Broker,
    acceptor: &GateAcceptor,
) -> Result<(Reached, Option<Reached>), StartError> {
    let mut enter = |wire, speaks| {
        let entrance = broker.entrance(instance.id.clone(), acceptor.clone(), speaks);
        open_at(all, instance, wire, entrance)
    };
    let mqtt = enter(Wire::Mqtt, Speaks::Mqtt)?;
    let websocket = instance.websocket.as_ref();
    let websocket = websocket.map(|it| enter(Wire::WebSocket, Speaks::WebSocket(it.door.clone())));
    Ok((mqtt, websocket.transpose()?))
}

fn open_at(
    all: &mut [Listening],
    instance: &Instance,
    wire: Wire,
    entrance: Entrance,
) -> Result<Reached, StartError> {
    let mut found = all.iter_mut();
    let found = found.find(|it| it.wire == wire && it.members.contains(&instance.id));
    let conflict = || StartError::Unreachable {
        instance: instance.id.clone(),
        address: instance.listen(wire).unwrap_or(instance.mqtt_listen),
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
    Ok(Reached {
        address: listening.address,
        clients: match (names.is_empty(), listening.members.len()) {
            (false, _) => Some(names.join(", ")),
            (true, 2..) => Some("all others".to_owned()),
            (true, _) => None,
        },
    })
}
