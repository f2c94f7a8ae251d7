//! Handshakes beside an operator, in every order of their steps.
//!
//! The handshake, the verifier, the registry and the index of peers are the real ones; only TLS is
//! left out: the certificate is there in one step, and the handshake is over in a later one, as
//! when the client keeps its last message back.

use std::io;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use super::*;
use crate::ca::id::CaId;
use crate::testing::ca_params;
use crate::testing::schedule::{Actor, explore, point};
use crate::tls::live::LivePeer;

/// What is seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// An inactivation is answered.
    Denied,
    /// An activation is asked for.
    Allowing,
    /// A handshake is complete.
    Completed,
    /// Something that a client sent is processed.
    Processed,
}

/// Whose verdict is published first: it goes by their ids, which follow from their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Root,
    Issuing,
}

const BOTH_ORDERS: [First; 2] = [First::Root, First::Issuing];

/// Where the actors meet, the same for all orders but for what happens there.
struct Stage {
    gate: Arc<Gate>,
    verifier: Arc<CaVerifier>,
    ca: CaId,
    chain: Arc<[CertificateDer<'static>]>,
    seen: Arc<Mutex<Vec<Seen>>>,
    alive: Arc<Mutex<Vec<LivePeer>>>,
}

impl Stage {
    /// The device is below the CA that is switched off and on, and below another one that it sends.
    fn new(first: First) -> Self {
        let gate = Gate::new();
        let (root, issuing) = loop {
            let root = TestCa::root("root", 1);
            let issuing = root.issue_ca(ca_params("issuing", 2));
            let root_first = root.certificate().key_id() < issuing.certificate().key_id();
            if root_first == (first == First::Root) {
                break (root, issuing);
            }
        };
        root.register(&gate.registry);
        issuing.register(&gate.registry);
        let device = issuing.issue("device", 3);
        let verifier = CaVerifier::new(
            instance(),
            Arc::clone(&gate.registry),
            provider().signature_verification_algorithms,
        );
        Self {
            gate: Arc::new(gate),
            verifier: Arc::new(verifier),
            ca: root.certificate().id(),
            chain: [device.der.clone(), issuing.der.clone()].into(),
            seen: Arc::default(),
            alive: Arc::default(),
        }
    }

    /// Everybody may begin.
    fn set(&self) {
        self.seen.lock().unwrap().clear();
        self.alive.lock().unwrap().clear();
        self.gate.registry.set_status(self.ca, Status::Active);
        assert!(self.gate.peers.is_empty());
    }

    /// A client connects, and sends something as long as it is heard.
    fn client(&self) -> Actor {
        let (gate, verifier) = (Arc::clone(&self.gate), Arc::clone(&self.verifier));
        let (seen, alive) = (Arc::clone(&self.seen), Arc::clone(&self.alive));
        let chain = Arc::clone(&self.chain);
        Box::new(move || {
            let see = |what| seen.lock().unwrap().push(what);
            let mut step = 0;
            let accepting = std::future::poll_fn(move |_| {
                step += 1;
                if step == 1 {
                    let (device, above) = chain.split_first().unwrap();
                    let verified = verifier.verify_client_cert(device, above, UnixTime::now());
                    return match verified {
                        Ok(_) => Poll::Pending,
                        Err(error) => Poll::Ready(Err(io::Error::other(error))),
                    };
                }
                Poll::Ready(Ok(()))
            });
            let mut handshake = pin!(gate.acceptor.handshake(Box::pin(accepting)));
            let mut context = Context::from_waker(Waker::noop());
            let result = loop {
                if let Poll::Ready(result) = handshake.as_mut().poll(&mut context) {
                    break result;
                }
                point();
            };
            let Ok(((), live)) = result else { return };
            see(Seen::Completed);
            point();
            if live.cut().is_none() {
                see(Seen::Processed);
            }
            alive.lock().unwrap().push(live);
        })
    }

    /// A client of a server that uses the verifier and the index without the acceptor.
    fn client_of_another_server(&self) -> Actor {
        let (gate, verifier) = (Arc::clone(&self.gate), Arc::clone(&self.verifier));
        let (seen, alive) = (Arc::clone(&self.seen), Arc::clone(&self.alive));
        let chain = Arc::clone(&self.chain);
        Box::new(move || {
            let (device, above) = chain.split_first().unwrap();
            let verified = verifier.peer(device, above, UnixTime::now());
            point();
            let Ok(peer) = verified else { return };
            let Ok(live) = gate.peers.enter(peer, &gate.registry, now_secs()) else {
                return;
            };
            point();
            if live.cut().is_none() {
                seen.lock().unwrap().push(Seen::Processed);
            }
            alive.lock().unwrap().push(live);
        })
    }

    /// An operator switches the CA off, and then perhaps on again; as `Control` does it.
    fn operator(&self, then: &'static [Status]) -> Actor {
        let (gate, ca, seen) = (Arc::clone(&self.gate), self.ca, Arc::clone(&self.seen));
        Box::new(move || {
            let see = |what| seen.lock().unwrap().push(what);
            for status in then {
                match status {
                    Status::Inactive => {
                        let effects = gate.registry.set_status(ca, *status);
                        gate.registry.barrier();
                        point();
                        let now = now_secs();
                        gate.peers.cut_over(&effects.denied, &gate.registry, now);
                        see(Seen::Denied);
                    }
                    Status::Active => {
                        see(Seen::Allowing);
                        gate.registry.set_status(ca, *status);
                    }
                }
                point();
            }
        })
    }

    /// Nothing happened between the answer that denies and the call that allows again, and nobody
    /// who is still connected is over a CA that is off.
    fn check(&self) {
        let seen = self.seen.lock().unwrap();
        let mut denied = false;
        for what in seen.iter() {
            match what {
                Seen::Denied => denied = true,
                Seen::Allowing => denied = false,
                Seen::Completed | Seen::Processed => assert!(!denied, "{seen:?}"),
            }
        }
        for live in self.alive.lock().unwrap().iter() {
            assert!(live.cut().is_some() || !denied, "{seen:?}: one is left");
        }
    }

    /// Run them in every order.
    fn explore(
        &self,
        most: usize,
        operator: &'static [Status],
        clients: &[fn(&Self) -> Actor],
    ) -> usize {
        let mut first = true;
        let orders = explore(most, || {
            if !std::mem::take(&mut first) {
                self.check();
            }
            self.set();
            let mut actors = vec![self.operator(operator)];
            actors.extend(clients.iter().map(|client| client(self)));
            actors
        });
        self.check();
        orders
    }
}

const OFF: &[Status] = &[Status::Inactive];
const OFF_ON_OFF: &[Status] = &[Status::Inactive, Status::Active, Status::Inactive];

#[test]
fn inactivation_in_any_order_with_a_handshake_leaves_nobody() {
    for first in BOTH_ORDERS {
        let orders = Stage::new(first).explore(usize::MAX, OFF, &[Stage::client]);
        assert!(orders > 100, "{orders}");
    }
}

#[test]
fn inactivation_and_activation_in_any_order_with_a_handshake_let_in_only_who_may() {
    for first in BOTH_ORDERS {
        let orders = Stage::new(first).explore(usize::MAX, OFF_ON_OFF, &[Stage::client]);
        assert!(orders > 100, "{orders}");
    }
}

#[test]
fn inactivation_with_two_handshakes_and_three_interruptions_leaves_nobody() {
    let clients: [fn(&Stage) -> Actor; 2] = [Stage::client, Stage::client];
    let orders = Stage::new(First::Root).explore(3, OFF, &clients);
    assert!(orders > 1_000, "{orders}");
}

#[test]
fn inactivation_in_any_order_finds_the_peers_of_a_server_without_the_acceptor() {
    for first in BOTH_ORDERS {
        let client = Stage::client_of_another_server;
        let orders = Stage::new(first).explore(usize::MAX, OFF_ON_OFF, &[client]);
        assert!(orders > 100, "{orders}");
    }
}
