//! What connected peers are told, and how they are looked at.

use super::*;
use crate::ca::error::OffReason;
use crate::ca::registry::DeviceKey;
use crate::testing::ca_params;
use crate::tls::live::LivePeer;
use crate::tls::peer::VerifiedPeer;

/// A peer whose certificate the registry admits, in the index.
fn live(gate: &Gate, device: &crate::testing::TestDevice, chain: &[&TestCa]) -> LivePeer {
    let chain: Vec<_> = chain.iter().map(|ca| ca.der.clone()).collect();
    let now = rustls::pki_types::UnixTime::now();
    let admitted = gate.registry.admit(&device.der, &chain, now).unwrap();
    let peer = VerifiedPeer::new("post-cn-test".parse().unwrap(), admitted);
    gate.peers.enter(peer, &gate.registry, now_secs()).unwrap()
}

fn cut(gate: &Gate, ca: &TestCa, live: &LivePeer) -> String {
    let id = ca.certificate().id();
    let effects = gate.registry.set_status(id, Status::Inactive);
    gate.peers
        .cut_over(&effects.denied, &gate.registry, now_secs());
    live.cut_words().unwrap()
}

#[tokio::test]
async fn peers_of_several_paths_in_one_cut_are_told_each_its_own() {
    let (gate, root) = (Gate::new(), TestCa::root("root", 1));
    let issuing: Vec<_> = [("one", 2), ("two", 3)]
        .map(|(name, serial)| root.issue_ca(ca_params(name, serial)))
        .into();
    let mut keys = vec![root.certificate().key_id()];
    root.register(&gate.registry);
    for ca in &issuing {
        ca.register(&gate.registry);
        keys.push(ca.certificate().key_id());
    }
    let stays = live(&gate, &root.issue("d", 4), &[]);
    let of_both = || issuing.iter().map(|ca| live(&gate, &ca.issue("d", 5), &[]));
    let peers: Vec<_> = of_both().chain(of_both()).collect();
    for ca in &issuing {
        let id = ca.certificate().id();
        gate.registry.set_status(id, Status::Inactive);
    }
    let cut = gate.peers.cut_over(&keys, &gate.registry, now_secs());
    assert_eq!(cut, 4);
    assert_eq!(stays.cut(), None);
    let words: Vec<_> = peers.iter().filter_map(LivePeer::cut_words).collect();
    let [one, two] = ["CA 02 is inactive", "CA 03 is inactive"];
    assert_eq!(words, [one, two, one, two]);
}

#[tokio::test]
async fn cut_peer_is_told_which_certificate_and_why() {
    let (root, other) = (TestCa::root("root", 1), TestCa::root("other", 2));
    let issuing = root.issue_ca(ca_params("issuing", 3));
    let new = |cas: &[&TestCa]| {
        let gate = Gate::new();
        for ca in cas {
            ca.register(&gate.registry);
        }
        gate
    };
    let device = issuing.issue("d", 4);

    let gate = new(&[&root, &issuing]);
    let peer = live(&gate, &device, &[]);
    assert_eq!(peer.cut_words(), None);
    assert_eq!(cut(&gate, &issuing, &peer), "CA 03 is inactive");
    let gate = new(&[&root, &issuing]);
    let words = cut(&gate, &root, &live(&gate, &device, &[]));
    assert_eq!(words, "CA 03 is off because CA 01 above it is inactive");
    // The same as a handshake would be refused with.
    let now = rustls::pki_types::UnixTime::now();
    let refused = gate.registry.admit(&device.der, &[], now).unwrap_err();
    assert_eq!(refused.refusal.to_string(), words);

    // Nothing registered says that the root stands above the CA that let it in.
    let gate = new(&[&root]);
    let middle = root.issue_ca(ca_params("middle", 5));
    let below = middle.issue_ca(ca_params("below", 6));
    below.register(&gate.registry);
    let peer = live(&gate, &below.issue("e", 7), &[]);
    let over_the_root = live(&gate, &issuing.issue("f", 8), &[&issuing]);
    assert_eq!(cut(&gate, &root, &over_the_root), "CA 01 is inactive");
    assert_eq!(peer.cut(), None);

    let gate = new(&[&other]);
    let peer = live(&gate, &other.issue("g", 9), &[]);
    let effects = gate.registry.remove(other.certificate().id());
    gate.peers
        .cut_over(&effects.denied, &gate.registry, now_secs());
    assert_eq!(
        peer.cut_words().unwrap(),
        "no registered CA stands above the device certificate any more; CA 02 did"
    );

    let gate = new(&[&other]);
    let peer = live(&gate, &other.issue("h", 10), &[]);
    let key = peer.peer().admitted().device().clone();
    gate.registry.set_device(key.clone(), Status::Inactive);
    gate.peers.cut_device(&key, &gate.registry, now_secs());
    assert_eq!(
        peer.cut_words().unwrap(),
        "the device certificate is inactive"
    );
}

#[tokio::test]
async fn expired_peer_is_told_which_certificate_has_expired() {
    let gate = Gate::new();
    let mut short = ca_params("short", 1);
    short.not_after = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    let (short, long) = (TestCa::self_signed(short), TestCa::root("long", 2));
    for ca in [&short, &long] {
        ca.register(&gate.registry);
    }
    let (of_ca, of_device) = (
        live(&gate, &short.issue("a", 3), &[]),
        live(&gate, &long.issue("b", 4), &[]),
    );
    gate.peers.cut_expired(now_secs() + 24 * 3600);
    assert_eq!(
        of_ca.cut_words().unwrap(),
        "the CA certificate 01 has expired or is not valid yet"
    );
    assert_eq!(
        of_device.cut_words().unwrap(),
        "the device certificate has expired or is not valid yet"
    );
}

#[tokio::test]
async fn objection_names_the_certificate_that_is_off() {
    // A path over a registered CA, one that nobody registered, and a root that is registered: the
    // registered certificate of the first has expired, so the path goes on over the one sent.
    let gate = Gate::new();
    let root = TestCa::root("root", 1);
    let middle = root.issue_ca(ca_params("middle", 2));
    let mut old = ca_params("issuing", 3);
    old.not_after = old.not_before + time::Duration::minutes(1);
    let expired = middle.issue_ca(old);
    let issuing = middle.issue_ca_with(ca_params("issuing", 5), Arc::clone(&expired.key));
    for ca in [&root, &expired] {
        ca.register(&gate.registry);
    }
    let peer = live(&gate, &issuing.issue("d", 4), &[&issuing, &middle]);
    assert_eq!(peer.peer().ca_sn().to_string(), "03");
    gate.registry
        .set_status(root.certificate().id(), Status::Inactive);
    let objection = gate.registry.objection(peer.peer().admitted(), now_secs());
    let expected = Refusal::CaInactive {
        sn: root.certificate().serial().clone(),
        why: OffReason::Own,
    };
    assert_eq!(objection, Some(expected));
}

#[tokio::test]
async fn every_peer_is_visited_once_and_those_that_are_cut_are_not() {
    let gate = Gate::new();
    let (root, other) = (TestCa::root("root", 1), TestCa::root("other", 2));
    // Not registered, so that the path goes over two authorities.
    let issuing = root.issue_ca(ca_params("issuing", 3));
    for ca in [&root, &other] {
        ca.register(&gate.registry);
    }
    // More than are looked at in one go.
    let device = issuing.issue("d", 4);
    let peers: Vec<_> = (0..2_100)
        .map(|_| live(&gate, &device, &[&issuing]))
        .collect();
    let strange = live(&gate, &other.issue("e", 5), &[]);
    let address = "127.0.0.1:5".parse().unwrap();
    peers[0].is_called("first", address);
    peers[0].is_called("second", address);
    let keys = [root.certificate().key_id(), issuing.certificate().key_id()];
    let visit = || {
        let (mut count, mut named) = (0, Vec::new());
        gate.peers.visit(&keys, |peer, called| {
            assert_eq!(peer.serial().to_string(), "04");
            count += 1;
            named.extend(called.map(|it| it.name.to_string()));
        });
        (count, named)
    };
    assert_eq!(visit(), (2_100, vec!["first".to_owned()]));
    let key = DeviceKey {
        issuer: issuing.certificate().key_id(),
        serial: "4".parse().unwrap(),
    };
    let of_device = |key: &DeviceKey| {
        let mut count = 0;
        gate.peers.visit_device(key, |_, _| count += 1);
        count
    };
    assert_eq!(of_device(&key), 2_100);
    assert!(gate.peers.is_connected(&key));
    gate.registry
        .set_status(root.certificate().id(), Status::Inactive);
    gate.peers.cut_over(&keys, &gate.registry, now_secs());
    assert_eq!(visit().0, 0);
    assert_eq!(of_device(&key), 0);
    assert_eq!(strange.cut(), None);
    drop(peers);
    assert!(!gate.peers.is_connected(&key));
}
