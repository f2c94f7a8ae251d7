//! Chains of certificates that are made from the input: the gate accepts nothing that `openssl verify`
//! does not, and refuses what it accepts for known reasons only.
#![no_main]

#[path = "../../tests/e2e/second_opinion/scene.rs"]
mod scene;
#[path = "../../tests/e2e/second_opinion/verdict.rs"]
mod verdict;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));

fuzz_target!(|octets: &[u8]| {
    verdict::compare(&scene::Scene::of(octets), DIRECTORY.path());
});
