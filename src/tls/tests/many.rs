//! Many peers whose trust ends at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn many_peers_have_been_told_when_the_cut_returns_and_are_woken_after_it() {
    let (gate, ca) = (Gate::new(), TestCa::root("ca", 1));
    let peers = hundred(&gate, &ca).await;
    let waiting: Vec<_> = peers
        .iter()
        .cloned()
        .map(|live| tokio::spawn(async move { live.until_cut().await }))
        .collect();
    tokio::task::yield_now().await;
    let id = ca.certificate().id();
    let effects = gate.registry.set_status(id, Status::Inactive);
    let cut = gate
        .peers
        .cut_over(&effects.denied, &gate.registry, now_secs());
    // Nothing else has run meanwhile: there is one thread.
    assert_eq!(cut, 100);
    let told = peers.iter().map(LivePeer::cut);
    assert!(told.into_iter().all(|cut| cut == Some(Cut::CaInactive)));
    for waits in waiting {
        assert_eq!(waits.await.unwrap(), Cut::CaInactive);
    }
}

#[tokio::test]
async fn peer_that_was_told_knows_it_when_something_else_wakes_it_first() {
    let (gate, ca) = (Gate::new(), TestCa::root("ca", 1));
    let peers = hundred(&gate, &ca).await;
    let mut waiting: Vec<_> = peers
        .iter()
        .map(|live| Box::pin(live.until_cut()))
        .collect();
    for waits in &mut waiting {
        assert_eq!(poll_once(waits.as_mut()), None);
    }
    let id = ca.certificate().id();
    let effects = gate.registry.set_status(id, Status::Inactive);
    gate.peers
        .cut_over(&effects.denied, &gate.registry, now_secs());
    // There is one thread, so the waves have not begun.
    for waits in &mut waiting {
        assert_eq!(poll_once(waits.as_mut()), Some(Cut::CaInactive));
    }
}

#[test]
fn peers_are_woken_although_the_runtime_of_their_connections_has_ended() {
    let (gate, ca) = (Gate::new(), TestCa::root("ca", 1));
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let peers = runtime.block_on(hundred(&gate, &ca));
    drop(runtime);
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut waiting: Vec<_> = peers
        .iter()
        .map(|live| Box::pin(live.until_cut()))
        .collect();
    for waits in &mut waiting {
        let mut context = std::task::Context::from_waker(&waker);
        assert!(waits.as_mut().poll(&mut context).is_pending());
    }
    let id = ca.certificate().id();
    let effects = gate.registry.set_status(id, Status::Inactive);
    gate.peers
        .cut_over(&effects.denied, &gate.registry, now_secs());
    assert_eq!(woken.0.load(Ordering::Relaxed), 100);
}

/// How often it was called.
#[derive(Default)]
struct Woken(AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// So many connected peers of a CA that they are not woken at once.
async fn hundred(gate: &Gate, ca: &TestCa) -> Vec<LivePeer> {
    ca.register(&gate.registry);
    let client = gate.client(&version::TLS13, Some(&ca.issue("d", 2)));
    let mut peers = Vec::new();
    for _ in 0..100 {
        let (accepted, _) = gate.connect(Arc::clone(&client)).await;
        peers.push(accepted.unwrap().live);
    }
    peers
}

/// One poll.
fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}
