//! Changes of state while handshakes run on other threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::ca::crl::{CrlPolicy, Revocations};
use crate::ca::registry::Effects;
use crate::testing::crl::TestCrl;

/// Inactivations race with handshakes on several threads: what was accepted and is not told to go
/// must be over a CA that is active.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn inactivations_that_race_handshakes_leave_nobody_behind() {
    race(|registry, ca, status| registry.set_status(ca.certificate().id(), status)).await;
}

/// The same with a CRL that has the device, and one that has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn revocations_that_race_handshakes_leave_nobody_behind() {
    race(|registry, ca, status| {
        let revoked: &[u64] = match status {
            Status::Inactive => &[2],
            Status::Active => &[3],
        };
        let crl = Arc::new(TestCrl::revoking(1, revoked).verified(ca).unwrap());
        let lists = Revocations::new(CrlPolicy::Required, vec![crl]);
        registry.set_revocations(ca.certificate().key_id(), lists)
    })
    .await;
}

/// `change` denies the device with serial number 2, or lets it in again.
async fn race(change: impl Fn(&Registry, &TestCa, Status) -> Effects) {
    let (gate, ca) = (Arc::new(Gate::new()), TestCa::root("ca", 1));
    ca.register(&gate.registry);
    let device = Arc::new(ca.issue("d", 2));
    let stop = Arc::new(AtomicBool::new(false));
    let (accepted, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|n| {
            let (gate, device) = (Arc::clone(&gate), Arc::clone(&device));
            let (stop, accepted, refused) = (
                Arc::clone(&stop),
                Arc::clone(&accepted),
                Arc::clone(&refused),
            );
            tokio::spawn(async move {
                let config = gate.client(BOTH[n % 2], Some(&device));
                while !stop.load(Ordering::Relaxed) {
                    match gate.connect_by(WAYS[n / 2], Arc::clone(&config)).await.0 {
                        Ok(connection) => {
                            accepted.fetch_add(1, Ordering::Relaxed);
                            // It lives until it is told to go.
                            tokio::spawn(async move { connection.live.until_cut().await });
                        }
                        Err(_) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    for round in 0..60 {
        let goal = accepted.load(Ordering::Relaxed) + 2;
        while accepted.load(Ordering::Relaxed) < goal {
            tokio::task::yield_now().await;
        }
        let effects = change(&gate.registry, &ca, Status::Inactive);
        gate.registry.barrier();
        gate.peers
            .cut_over(&effects.denied, &gate.registry, now_secs());
        // The answer would go out here: from now on nobody is accepted, and all have been told.
        let before = accepted.load(Ordering::Relaxed);
        let goal = refused.load(Ordering::Relaxed) + 4;
        while refused.load(Ordering::Relaxed) < goal {
            tokio::task::yield_now().await;
        }
        // Those that had completed before may have been counted late, one for each client.
        assert!(
            accepted.load(Ordering::Relaxed) <= before + 4,
            "round {round}"
        );
        while !gate.peers.is_empty() {
            tokio::task::yield_now().await;
        }
        change(&gate.registry, &ca, Status::Active);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}
