//! Which instances share an address, and whether the names there tell them apart.

use std::net::SocketAddr;

use super::fault::Faults;
use super::{Config, Instance, file};
use crate::tls::gates::{Conflict, GateName, Gates};

/// How clients are to reach an instance, as far as it could be read.
#[derive(Debug)]
pub(super) struct Reach {
    listen: Option<SocketAddr>,
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
    /// Read the names of an instance that listens there.
    pub(super) fn read(
        faults: &mut Faults,
        key: &str,
        written: &file::Instance,
        listen: Option<SocketAddr>,
    ) -> Self {
        let names = written.server_names.iter().enumerate();
        let names = names.filter_map(|(index, text)| {
            let name = faults.parse(&format!("{key}.server_names[{index}]"), text)?;
            Some((index, name))
        });
        Self {
            listen,
            takes: Takes::of(&written.server_names),
            names: names.collect(),
        }
    }

    /// The names that could be read.
    pub(super) fn names(&self) -> Vec<GateName> {
        self.names.iter().map(|(_, name)| name.clone()).collect()
    }
}

/// At one address no name may be given twice, and only one instance may be without names.
pub(super) fn check(faults: &mut Faults, reaches: &[Reach]) {
    let places = reaches.iter().map(|reach| match reach.takes {
        // None of its names could be read, but it does not take the rest for that.
        Takes::Named if reach.names.is_empty() => None,
        takes => Some((reach.listen?, takes)),
    });
    for group in groups(places) {
        let mut gates = Gates::new();
        for &index in &group {
            if let Some(reach) = reaches.get(index) {
                for conflict in gates.add(&reach.names(), ()) {
                    tell(faults, &group, index, reach, conflict);
                }
            }
        }
    }
}

fn tell(faults: &mut Faults, group: &[usize], index: usize, reach: &Reach, conflict: Conflict) {
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
            if let (Some(by), Some(listen)) = (group.get(by), reach.listen) {
                let what = format!(
                    "instance[{by}] listens on {listen}, too, and has none either; \
                     at one address only one instance may be without"
                );
                faults.missing(&key, &what);
            }
        }
    }
}

impl Config {
    /// The instances in groups that share a listener: those with the same address. Port 0 is one
    /// port for the instances that have server names, and one for each that has none.
    pub fn listeners(&self) -> Vec<Vec<&Instance>> {
        let places = self.instances.iter();
        let places = places.map(|it| Some((it.mqtt_listen, Takes::of(&it.server_names))));
        let members = |group: Vec<usize>| {
            let members = group.into_iter();
            members
                .filter_map(|index| self.instances.get(index))
                .collect()
        };
        groups(places).into_iter().map(members).collect()
    }
}

/// The places in groups of one listener each. A place that is not known is in none.
fn groups(places: impl Iterator<Item = Option<(SocketAddr, Takes)>>) -> Vec<Vec<usize>> {
    let mut groups: Vec<(Option<SocketAddr>, Vec<usize>)> = Vec::new();
    for (index, place) in places.enumerate() {
        let Some((listen, takes)) = place else {
            continue;
        };
        let shared = match (listen.port(), takes) {
            (0, Takes::Rest) => None,
            _ => Some(listen),
        };
        let known = groups
            .iter_mut()
            .find(|(address, _)| shared.is_some() && *address == shared);
        match known {
            Some((_, group)) => group.push(index),
            None => groups.push((shared, vec![index])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
