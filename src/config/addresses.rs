//! Which instances share an address, and whether the names there tell them apart.

use std::net::SocketAddr;

use super::fault::{Fault, Faults};
use super::{Config, Instance, file};
use crate::mqtt::listener::Proxies;
use crate::tls::gates::{Conflict, GateName, Gates};

/// What is spoken at an address, over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// MQTT.
    Mqtt,
    /// MQTT over WebSocket.
    WebSocket,
}

impl Wire {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Mqtt, Self::WebSocket];

    /// The name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "MQTT",
            Self::WebSocket => "WebSocket",
        }
    }
}

/// An address that is listened on, and the instances behind it.
#[derive(Debug)]
pub struct Listener<'a> {
    /// What is spoken there.
    pub wire: Wire,
    /// Where it is.
    pub address: SocketAddr,
    /// The proxies before it.
    pub proxies: &'a Proxies,
    /// The instances; at least one.
    pub instances: Vec<&'a Instance>,
}

/// How clients are to reach an instance, as far as it could be read.
#[derive(Debug)]
pub(super) struct Reach {
    mqtt: Option<SocketAddr>,
    websocket: Option<SocketAddr>,
    proxies: Option<Proxies>,
    takes: Takes,
    /// With the place of each among the names that are written.
    names: Vec<(usize, GateName)>,
}

/// Which clients of its address an instance takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Named,
    Rest,
}

impl Takes {
    fn of<T>(names: &[T]) -> Self {
        match names.is_empty() {
            false => Self::Named,
            true => Self::Rest,
        }
    }
}

impl Reach {
    /// Read the names of an instance that listens there, for MQTT and for WebSocket.
    pub(super) fn read(
        faults: &mut Faults,
        key: &str,
        written: &file::Instance,
        [mqtt, websocket]: [Option<SocketAddr>; 2],
        proxies: Option<Proxies>,
    ) -> Self {
        let names = written.server_names.iter().enumerate();
        let names = names.filter_map(|(index, text)| {
            let name = faults.parse(&format!("{key}.server_names[{index}]"), text)?;
            Some((index, name))
        });
        Self {
            mqtt,
            websocket,
            proxies,
            takes: Takes::of(&written.server_names),
            names: names.collect(),
        }
    }

    /// The names that could be read.
    pub(super) fn names(&self) -> Vec<GateName> {
        self.names.iter().map(|(_, name)| name.clone()).collect()
    }

    fn listen(&self, wire: Wire) -> Option<SocketAddr> {
        match wire {
            Wire::Mqtt => self.mqtt,
            Wire::WebSocket => self.websocket,
        }
    }
}

/// At one address one thing is spoken, no name may be given twice, only one instance may be
/// without names, and all have the same proxies.
pub(super) fn check(faults: &mut Faults, reaches: &[Reach]) {
    let mut found = Faults::default();
    for wire in Wire::ALL {
        let places = reaches.iter().map(|reach| match reach.takes {
            // None of its names could be read, but it does not take the rest for that.
            Takes::Named if reach.names.is_empty() => None,
            takes => Some((reach.listen(wire)?, takes)),
        });
        for (listen, group) in groups(places) {
            check_group(&mut found, reaches, listen, &group);
        }
    }
    check_wires(&mut found, reaches);
    // What is wrong at both addresses of an instance is told once.
    let mut told: Vec<Fault> = Vec::new();
    for fault in found.0 {
        if !told.contains(&fault) {
            told.push(fault);
        }
    }
    faults.0.append(&mut told);
}

fn check_group(faults: &mut Faults, reaches: &[Reach], listen: SocketAddr, group: &[usize]) {
    let mut gates = Gates::new();
    for &index in group {
        if let Some(reach) = reaches.get(index) {
            for conflict in gates.add(&reach.names(), ()) {
                tell(faults, group, index, reach, listen, conflict);
            }
        }
    }
    let proxies = |index: &usize| reaches.get(*index)?.proxies.as_ref();
    let mut all = group
        .iter()
        .filter_map(|index| Some((index, proxies(index)?)));
    let Some((first, common)) = all.next() else {
        return;
    };
    for (index, _) in all.filter(|(_, proxies)| *proxies != common) {
        let what = format!(
            "instance[{first}] listens on {listen}, too, with other proxies; their header comes \
             before the server name, so all instances of an address must have the same"
        );
        faults.missing(&format!("instance[{index}].proxy_protocol"), &what);
    }
}

fn check_wires(faults: &mut Faults, reaches: &[Reach]) {
    for (index, reach) in reaches.iter().enumerate() {
        let Some(listen) = reach.websocket.filter(|listen| listen.port() != 0) else {
            continue;
        };
        if let Some(other) = reaches.iter().position(|it| it.mqtt == Some(listen)) {
            let what = format!("instance[{other}] has this address for MQTT without WebSocket");
            faults.add(&format!("instance[{index}].websocket_listen"), listen, what);
        }
    }
}

fn tell(
    faults: &mut Faults,
    group: &[usize],
    index: usize,
    reach: &Reach,
    listen: SocketAddr,
    conflict: Conflict,
) {
    let key = format!("instance[{index}].server_names");
    match conflict {
        Conflict::Name { name, by } => {
            if let (Some((place, name)), Some(by)) = (reach.names.get(name), group.get(by)) {
                let what = match *by == index {
                    true => "this name is given twice".to_owned(),
                    false => format!("instance[{by}] has this name at the same address"),
                };
                faults.add(&format!("{key}[{place}]"), name, what);
            }
        }
        Conflict::Rest { by } => {
            if let Some(by) = group.get(by) {
                let what = format!(
                    "instance[{by}] listens on {listen}, too, and has none either; \
                     at one address only one instance may be without"
                );
                faults.missing(&key, &what);
            }
        }
    }
}

impl Instance {
    /// Where it listens for this.
    pub fn listen(&self, wire: Wire) -> Option<SocketAddr> {
        match wire {
            Wire::Mqtt => Some(self.mqtt_listen),
            Wire::WebSocket => self.websocket.as_ref().map(|it| it.listen),
        }
    }
}

impl Config {
    /// The addresses that are listened on, each with the instances that share it. Port 0 is one
    /// port for the instances that have server names, and one for each that has none.
    pub fn listeners(&self) -> Vec<Listener<'_>> {
        let mut all = Vec::new();
        for wire in Wire::ALL {
            let places = self.instances.iter();
            let places = places.map(|it| Some((it.listen(wire)?, Takes::of(&it.server_names))));
            for (address, group) in groups(places) {
                let members = group.iter();
                let instances: Vec<_> = members
                    .filter_map(|index| self.instances.get(*index))
                    .collect();
                if let Some(first) = instances.first() {
                    all.push(Listener {
                        wire,
                        address,
                        proxies: &first.proxies,
                        instances,
                    });
                }
            }
        }
        all
    }
}

/// The places in groups of one listener each. A place that is not known is in none.
fn groups(
    places: impl Iterator<Item = Option<(SocketAddr, Takes)>>,
) -> Vec<(SocketAddr, Vec<usize>)> {
    let mut groups: Vec<(SocketAddr, Shared, Vec<usize>)> = Vec::new();
    for (index, place) in places.enumerate() {
        let Some((listen, takes)) = place else {
            continue;
        };
        let shared = match (listen.port(), takes) {
            (0, Takes::Rest) => Shared::WithNobody,
            _ => Shared::WithOthers,
        };
        let known = groups.iter_mut().find(|(address, known, _)| {
            (*address, *known, shared) == (listen, Shared::WithOthers, Shared::WithOthers)
        });
        match known {
            Some((_, _, group)) => group.push(index),
            None => groups.push((listen, shared, vec![index])),
        }
    }
    let groups = groups.into_iter();
    groups.map(|(listen, _, group)| (listen, group)).collect()
}

/// Whether a listener may be for several instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shared {
    WithNobody,
    WithOthers,
}
