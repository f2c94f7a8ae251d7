//! A list with a million entries while the broker serves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rcgen::SerialNumber;
use rustls::AlertDescription::CertificateRevoked;
use time::OffsetDateTime;

use crate::crl::{file, host};
use crate::harness::pki::{Ca, serial};
use crate::harness::{Broker, Version};

const ENTRIES: u64 = 1_000_000;

#[test]
fn million_entries_are_imported_while_handshakes_and_changes_go_on() {
    let mut broker = Broker::start();
    let api = broker.api();
    let ca = Ca::load(&broker, "ca-a");
    let (bad, good) = (ca.device("bad"), ca.device("good"));
    let b1 = broker.identity("device-b1");
    let crl = ca.crl_of(1, serials(&bad), tomorrow(), None);
    let path = file(&broker, "large.crl", &crl);
    let before = resident_kib(&mut broker);
    let sn = api.register("other", &Ca::root("other"));
    let to_and_fro = || {
        let begin = Instant::now();
        api.inactivate(&sn);
        api.activate(&sn);
        begin.elapsed()
    };
    let alone = (0..3).map(|_| to_and_fro()).max().unwrap_or_default();

    let (done, waits, changes) = {
        let broker = &broker;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let handshakes = scope.spawn(|| {
                let mut waits = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    for identity in [&good, &b1] {
                        let begin = Instant::now();
                        assert!(broker.client(identity, Version::V13).admitted());
                        waits.push(begin.elapsed());
                    }
                }
                waits
            });
            let changes = scope.spawn(|| {
                let mut waits = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    waits.push(to_and_fro());
                }
                waits
            });
            let begin = Instant::now();
            let done = host(broker, &["crl", "import", "ca-a", &path]);
            let took = begin.elapsed();
            over.store(true, Ordering::Relaxed);
            assert_eq!(done.code, 0, "{}", done.stderr);
            assert!(done.stdout.contains("(1000001)"), "{}", done.stdout);
            (took, handshakes.join().unwrap(), changes.join().unwrap())
        })
    };
    let slowest = |waits: &[Duration]| waits.iter().max().copied().unwrap_or_default();
    println!(
        "{} octets imported in {done:?}; {} handshakes meanwhile, the slowest {:?}; {} changes, the slowest {:?}; {} MiB more",
        crl.len(),
        waits.len(),
        slowest(&waits),
        changes.len(),
        slowest(&changes),
        (resident_kib(&mut broker) - before) / 1024,
    );
    // Not one of them waited for most of it.
    let most = done * 3 / 4;
    assert!(waits.len() > 10 && slowest(&waits) < most, "{waits:?}");
    let longest = done.min(alone + most);
    assert!(
        changes.len() > 2 && slowest(&changes) < longest,
        "{changes:?}"
    );
    for identity in [&good, &b1] {
        assert!(broker.admits(identity));
    }
    let client = broker.client(&bad, Version::V13);
    client.refused_with(CertificateRevoked);

    let begin = Instant::now();
    let broker = Broker::restart(broker.kill9());
    println!("started again in {:?}", begin.elapsed());
    let client = broker.client(&bad, Version::V13);
    client.refused_with(CertificateRevoked);
    assert!(broker.admits(&good));
}

/// Spread over all of their range, in no order.
fn serials(bad: &crate::harness::tls::Identity) -> impl Iterator<Item = SerialNumber> {
    let spread = |n: u64| {
        let wide = u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        SerialNumber::from(((wide >> 1) | (1 << 120)).to_be_bytes().to_vec())
    };
    (0..ENTRIES).map(spread).chain([serial(&bad.chain[0])])
}

fn tomorrow() -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::days(1)
}

/// What the broker has in memory.
fn resident_kib(broker: &mut Broker) -> i64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", broker.process().id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}
