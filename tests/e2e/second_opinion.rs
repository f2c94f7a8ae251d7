//! Random and hostile chains: what the gate decides, beside what `openssl verify` says of the same
//! certificates. The same generator feeds the fuzz target `chains`.

#[path = "second_opinion/scene.rs"]
mod scene;
#[path = "second_opinion/verdict.rs"]
mod verdict;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use self::scene::Scene;
use self::verdict::{Agreement, compare};

#[test]
fn gate_and_openssl_agree_on_random_chains_but_where_it_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    // The same chains each time, so that a difference is one of the code.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::with_cases(0), rng);
    let choices = proptest::collection::vec(any::<u8>(), 0..160);
    let (mut both_accept, mut both_refuse, mut stricter) = (0, 0, 0);
    for _ in 0..400 {
        let octets = choices.new_tree(&mut runner).unwrap().current();
        match compare(&Scene::of(&octets), directory.path()) {
            Agreement::BothAccept => both_accept += 1,
            Agreement::BothRefuse => both_refuse += 1,
            Agreement::GateIsStricter => stricter += 1,
        }
    }
    // It must have met all of them to mean anything.
    let met = [both_accept, both_refuse, stricter];
    assert!(
        both_accept >= 80 && both_refuse >= 80 && stricter >= 1,
        "{met:?}"
    );
}
