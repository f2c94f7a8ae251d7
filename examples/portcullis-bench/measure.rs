//! What can be measured, and what all measures share.

mod after;
mod cas;
mod connect;
mod gate;
mod inactivate;
mod memory;
mod publish;
mod restart;
mod sparse;
mod storm;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::ValueEnum;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::broker::{Broker, Kind, Programs, Seed};
use crate::client::Client;
use crate::pki::{Device, Pki};
use crate::report::Section;
use crate::{Args, Result, machine};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Connections: handshake, CONNECT, CONNACK, DISCONNECT.
    Connect,
    /// The gate's share of a handshake: our verifier beside that of rustls.
    Gate,
    /// Connections with few and with many registered CAs.
    Cas,
    /// Memory of idle sessions.
    Memory,
    /// The end of all sessions of a CA that is inactivated.
    Inactivate,
    /// Handshakes after an inactivation was answered.
    After,
    /// A fleet that comes back all at once.
    Storm,
    /// Messages as fast as they are taken.
    Publish,
    /// A thousand messages a second.
    Sparse,
    /// A start with many CAs and devices.
    Restart,
}

impl Measure {
    pub const ALL: &[Self] = &[
        Self::Connect,
        Self::Gate,
        Self::Cas,
        Self::Memory,
        Self::Inactivate,
        Self::After,
        Self::Storm,
        Self::Publish,
        Self::Sparse,
        Self::Restart,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Gate => "gate",
            Self::Cas => "cas",
            Self::Memory => "memory",
            Self::Inactivate => "inactivate",
            Self::After => "after",
            Self::Storm => "storm",
            Self::Publish => "publish",
            Self::Sparse => "sparse",
            Self::Restart => "restart",
        }
    }

    pub async fn run(self, bench: &Bench) -> Result<Section> {
        match self {
            Self::Connect => connect::run(bench).await,
            Self::Gate => gate::run(bench),
            Self::Cas => cas::run(bench).await,
            Self::Memory => memory::run(bench).await,
            Self::Inactivate => inactivate::run(bench).await,
            Self::After => after::run(bench).await,
            Self::Storm => storm::run(bench).await,
            Self::Publish => publish::run(bench).await,
            Self::Sparse => sparse::run(bench).await,
            Self::Restart => restart::run(bench).await,
        }
    }
}

/// What all measures of a run share.
pub struct Bench {
    pub pki: Pki,
    pub rounds: u32,
    programs: Programs,
    certs: TempDir,
    /// Of the CA that all contenders admit.
    pub devices: Vec<Device>,
    quick: bool,
    /// Of the measures that have many cases, only those with this in their name.
    case: Option<String>,
}

impl Bench {
    pub fn new(portcullis: PathBuf, kinds: &[Kind], args: &Args) -> Result<Self> {
        let pki = Pki::new()?;
        let certs = tempfile::Builder::new()
            .prefix("portcullis-bench-")
            .tempdir()?;
        pki.write(certs.path())?;
        Ok(Self {
            programs: Programs::find(portcullis, kinds)?,
            devices: pki.fleet(&pki.devices, DEVICES)?,
            pki,
            rounds: args.rounds,
            certs,
            quick: args.quick,
            case: args.case.clone(),
        })
    }

    /// Whether this case is to be measured.
    fn wants(&self, case: &str) -> bool {
        self.case
            .as_ref()
            .is_none_or(|wanted| case.contains(wanted))
    }

    /// Machine and versions.
    pub fn about(&self) -> String {
        format!(
            "{}; {}; medians of {} rounds",
            machine::about(),
            self.programs.about(),
            self.rounds
        )
    }

    /// `full`, or less if it is only to be seen that all works.
    pub fn size(&self, full: usize) -> usize {
        if self.quick { (full / 10).max(1) } else { full }
    }

    pub fn kinds(&self) -> Vec<Kind> {
        self.programs.kinds()
    }

    /// Those that carry messages.
    pub fn routers(&self) -> Vec<Kind> {
        let kinds = self.kinds().into_iter();
        kinds.filter(|kind| kind.routes()).collect()
    }

    /// Those that are there of the ones named.
    pub fn some(&self, wanted: &[Kind]) -> Vec<Kind> {
        let kinds = self.kinds().into_iter();
        kinds.filter(|kind| wanted.contains(kind)).collect()
    }

    /// What is registered if nothing else is said.
    pub async fn seed(&self) -> Result<Seed> {
        Seed::new(&self.pki, 2, 0).await
    }

    pub fn start(&self, kind: Kind, seed: &Seed) -> Result<Broker> {
        self.programs.start(kind, self.certs.path(), Some(seed))
    }

    /// The turns of a case, if it is to be measured.
    pub fn turns_of<T: Copy>(&self, case: &str, all: &[T]) -> impl Iterator<Item = T> {
        let wanted = self.wants(case);
        self.turns(all).filter(move |_| wanted)
    }

    /// In each round each of them has its turn, in an order that turns round.
    pub fn turns<T: Copy>(&self, all: &[T]) -> impl Iterator<Item = T> {
        let mut turns = Vec::new();
        for round in 0..self.rounds {
            let mut order = all.to_vec();
            if round % 2 == 1 {
                order.reverse();
            }
            turns.extend(order);
        }
        turns.into_iter()
    }

    /// Connect and disconnect `count` times, `at_once` at a time; gives how often that failed. Some
    /// brokers close a connection whose client id they have not yet forgotten.
    pub async fn connects(&self, broker: &Broker, count: usize, at_once: usize) -> Result<usize> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..at_once {
            let device = Arc::clone(&self.devices[number % self.devices.len()]);
            let (next, address) = (Arc::clone(&next), broker.address);
            tasks.spawn(async move {
                let mut failed = Vec::new();
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let connected = match Client::connect(address, &device, number).await {
                        Ok(client) => client.disconnect().await,
                        Err(error) => Err(error),
                    };
                    failed.extend(connected.err());
                }
                failed
            });
        }
        let mut failed = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            failed.extend(ended?);
        }
        match failed.pop() {
            Some(error) if failed.len() > count / 10 => Err(error),
            Some(_) => Ok(failed.len() + 1),
            None => Ok(0),
        }
    }

    /// Connect that many, and keep them.
    pub async fn crowd(&self, broker: &Broker, count: usize) -> Result<Vec<Client>> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for worker in 0..CROWDING {
            let device = Arc::clone(&self.devices[worker % self.devices.len()]);
            let (next, address) = (Arc::clone(&next), broker.address);
            tasks.spawn(async move {
                let mut clients = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Result::Ok(clients);
                    }
                    // A device has many sessions here; the client ids are all different.
                    let number = FIRST_OF_CROWD + number;
                    clients.push(Client::connect(address, &device, number).await?);
                }
            });
        }
        let mut clients = Vec::with_capacity(count);
        while let Some(ended) = tasks.join_next().await {
            clients.extend(ended??);
        }
        Ok(clients)
    }
}

/// Devices with a key of their own.
const DEVICES: usize = 64;
/// How many of a crowd connect at the same time.
const CROWDING: usize = 64;
/// Client ids of a crowd begin here.
const FIRST_OF_CROWD: usize = 1_000_000;
