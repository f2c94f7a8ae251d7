//! Many peers whose trust ends at once.

use super::*;

#[tokio::test]
async fn many_peers_have_been_told_when_the_cut_returns_and_are_woken_after_it() {
    let (gate, ca) = (Gate::new(), TestCa::root("ca", 1));
    ca.register(&gate.registry);
    let client = gate.client(&version::TLS13, Some(&ca.issue("d", 2)));
    let mut peers = Vec::new();
    for _ in 0..100 {
        let (accepted, _) = gate.connect(Arc::clone(&client)).await;
        peers.push(accepted.unwrap().live);
    }
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
