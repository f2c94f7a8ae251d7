//! What the gate looks up, and what a change costs in memory, with 1 to 100,000 registered CAs and as
//! many devices on record. Read the figures as ratios within one run.
//!
//! - `lookup`: whether an authority is there, the state of a device, what objects to a peer that was
//!   let in before, and the whole decision about a certificate. Each time it is another authority
//!   and another device, so that the caches of the processor do not tell of one entry only.
//! - `change`: a CA is registered or inactivated, alone or in a tree whose root all others stand
//!   below; a device is inactivated. The disk, the audit log and the peers come on top of that.
//! - `barrier`: what an inactivation waits for, with nobody at a handshake, and with a thread that
//!   decides about one certificate after the other and has just begun with one.
//!
//! `cargo bench --bench registry`

// The lint configuration allows these in tests; a benchmark is none.
#![allow(clippy::unwrap_used)]

#[path = "common/pki.rs"]
mod pki;

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use criterion::BatchSize::{self, PerIteration, SmallInput};
use criterion::{Bencher, BenchmarkId, Criterion, criterion_group, criterion_main};
use portcullis::ca::certificate::CaCertificate;
use portcullis::ca::id::{CaKeyId, CertSerial};
use portcullis::ca::lifecycle::Status;
use portcullis::ca::path::Admitted;
use portcullis::ca::registry::{DeviceKey, Effects, Purpose, Registry};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::{CertificateDer, UnixTime};

use pki::{Authorities, SIZES, parsed, registry};

const MOST: usize = 100_000;
/// Devices with a certificate, of as many CAs if there are as many: never one alone, which a
/// processor learns to predict.
const CERTIFICATES: usize = 256;

static AUTHORITIES: LazyLock<Authorities> = LazyLock::new(Authorities::new);
/// Numbers from 1.
static ROOTS: LazyLock<Vec<Arc<CaCertificate>>> = LazyLock::new(|| {
    let numbers = 1..=MOST;
    numbers
        .map(|number| parsed(&AUTHORITIES.root(number)))
        .collect()
});

/// So many CAs, and so many devices on record.
struct World {
    registry: Arc<Registry>,
    keys: Vec<CaKeyId>,
    devices: Vec<DeviceKey>,
    certificates: Vec<CertificateDer<'static>>,
    admitted: Vec<Admitted>,
}

impl World {
    fn new(size: usize) -> Self {
        let cas = ROOTS.get(..size).unwrap();
        let registry = registry(cas.iter().cloned());
        let key = KeyPair::generate().unwrap();
        let certificates: Vec<_> = (0..CERTIFICATES)
            .map(|device| 1 + device * size / CERTIFICATES)
            .map(|issuer| AUTHORITIES.leaf(issuer, ExtendedKeyUsagePurpose::ClientAuth, &key))
            .collect();
        let admitted: Vec<_> = certificates
            .iter()
            .map(|device| registry.admit(device, &[], UnixTime::now()).unwrap())
            .collect();
        let keys: Vec<_> = cas.iter().map(|ca| ca.key_id()).collect();
        let devices: Vec<_> = (1_u64..).zip(&keys).map(device).collect();
        let known = admitted.iter().map(Admitted::device);
        for device in devices.iter().chain(known) {
            registry.set_device(device.clone(), Status::Active);
        }
        Self {
            registry,
            keys,
            devices,
            certificates,
            admitted,
        }
    }
}

fn device((number, issuer): (u64, &CaKeyId)) -> DeviceKey {
    DeviceKey {
        issuer: *issuer,
        serial: CertSerial::from_be_bytes(&number.to_be_bytes()).unwrap(),
    }
}

/// What is looked up, of each of these in turn.
fn in_turn<T, A>(bencher: &mut Bencher<'_>, all: &[T], mut look_up: impl FnMut(&T) -> A) {
    let mut turn = all.iter().cycle();
    bencher.iter(|| look_up(black_box(turn.next().unwrap())));
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap();
    for size in SIZES {
        let world = LazyCell::new(|| World::new(size));
        group.bench_function(BenchmarkId::new("authority", size), |bencher| {
            let World { registry, keys, .. } = &*world;
            in_turn(bencher, keys, |key| registry.has_authority(*key));
        });
        group.bench_function(BenchmarkId::new("device", size), |bencher| {
            let (registry, devices) = (&world.registry, &world.devices);
            in_turn(bencher, devices, |device| registry.device_status(device));
        });
        group.bench_function(BenchmarkId::new("objection", size), |bencher| {
            let (registry, admitted) = (&world.registry, &world.admitted);
            in_turn(bencher, admitted, |one| registry.objection(one, now));
        });
        group.bench_function(BenchmarkId::new("certificate", size), |bencher| {
            let (registry, certificates) = (&world.registry, &world.certificates);
            in_turn(bencher, certificates, |device| {
                registry.admit(device, &[], UnixTime::now()).unwrap()
            });
        });
    }
    group.finish();
}

/// A registry, and a CA that is not in it.
type Scene = (Arc<Registry>, Arc<CaCertificate>);

/// A CA alone among so many.
fn among(size: usize) -> Scene {
    let registry = registry(ROOTS.iter().take(size).cloned());
    (registry, parsed(&AUTHORITIES.root(MOST + 1)))
}

/// A CA below the root of a tree of so many.
fn below(size: usize) -> Scene {
    let root = ROOTS.first().cloned();
    let others = (2..=size).map(|number| parsed(&AUTHORITIES.below(1, number)));
    let registry = registry(root.into_iter().chain(others));
    (registry, parsed(&AUTHORITIES.below(1, MOST + 1)))
}

fn register(registry: &Registry, certificate: Arc<CaCertificate>) -> Effects {
    registry
        .insert(certificate, Purpose::Device, Status::Active)
        .unwrap()
}

fn bench_register(bencher: &mut Bencher<'_>, (registry, ca): &Scene) {
    let without_it = || {
        registry.remove(ca.id());
        Arc::clone(ca)
    };
    bencher.iter_batched(without_it, |ca| register(registry, ca), PerIteration);
}

/// Inactivate each of these in turn, which was active.
fn bench_inactivate<T: Clone>(
    bencher: &mut Bencher<'_>,
    all: impl Iterator<Item = T> + Clone,
    set_status: impl Fn(T, Status) -> Effects,
    at_once: BatchSize,
) {
    let mut turn = all.cycle();
    let activate = || {
        let one = turn.next().unwrap();
        set_status(one.clone(), Status::Active);
        one
    };
    let inactivate = |one| set_status(one, Status::Inactive);
    bencher.iter_batched(activate, inactivate, at_once);
}

fn changes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    group.sample_size(20);
    for size in SIZES {
        let roots = || ROOTS.iter().take(size).map(|ca| ca.id());
        let alone = LazyCell::new(|| among(size));
        group.bench_function(BenchmarkId::new("register alone", size), |bencher| {
            bench_register(bencher, &alone);
        });
        group.bench_function(BenchmarkId::new("inactivate alone", size), |bencher| {
            let (registry, _) = &*alone;
            let set_status = |ca, status| registry.set_status(ca, status);
            bench_inactivate(bencher, roots(), set_status, SmallInput);
        });
        let tree = LazyCell::new(|| below(size));
        group.bench_function(BenchmarkId::new("register below", size), |bencher| {
            bench_register(bencher, &tree);
        });
        group.bench_function(BenchmarkId::new("inactivate root", size), |bencher| {
            let (registry, ca) = &*tree;
            registry.remove(ca.id());
            let set_status = |ca, status| registry.set_status(ca, status);
            bench_inactivate(bencher, roots().take(1), set_status, PerIteration);
        });
        let world = LazyCell::new(|| World::new(size));
        group.bench_function(BenchmarkId::new("inactivate device", size), |bencher| {
            let devices = world.devices.iter().cloned();
            let set_status = |device, status| {
                world.registry.set_device(device, status);
                Effects::default()
            };
            bench_inactivate(bencher, devices, set_status, SmallInput);
        });
    }
    group.finish();
}

fn barriers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("barrier");
    let World {
        registry,
        certificates,
        ..
    } = World::new(1);
    group.bench_function("nobody", |bencher| bencher.iter(|| registry.barrier()));
    let (begun, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = certificates.iter().cycle();
            while !done.load(Ordering::Relaxed) {
                let device = turn.next().unwrap();
                let decided = registry.handshake_step(|| {
                    begun.fetch_add(1, Ordering::Relaxed);
                    registry.admit(device, &[], UnixTime::now())
                });
                black_box(decided.unwrap());
            }
        });
        // Without it the barriers would follow each other so closely that no step begins.
        let next_step = || {
            let before = begun.load(Ordering::Relaxed);
            while begun.load(Ordering::Relaxed) == before {
                std::hint::spin_loop();
            }
        };
        group.bench_function("one thread", |bencher| {
            bencher.iter_batched(next_step, |()| registry.barrier(), PerIteration);
        });
        done.store(true, Ordering::Relaxed);
    });
    group.finish();
}

criterion_group!(benches, lookups, changes, barriers);
criterion_main!(benches);
