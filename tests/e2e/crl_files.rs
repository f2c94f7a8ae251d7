//! CRLs from files that the configuration names.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::AlertDescription::CertificateRevoked;

use crate::harness::api::get;
use crate::harness::fleet::{Fleet, Setup};
use crate::harness::pki::{Ca, crl_pem};
use crate::harness::tls::{Identity, Version};
use crate::harness::wait_until;

const INSTANCE: &str = "plant";

struct Plant {
    fleet: Fleet,
    ca: Ca,
    bad: Identity,
    good: Identity,
}

impl Plant {
    /// A broker that takes CRLs from here, with a CA of this name.
    fn new(sources: &str) -> Self {
        let setup = Setup::new().instance(INSTANCE, "owner", "127.0.0.1:0", &[]);
        let fleet = setup
            .with(&format!("[registry]\ncrl_poll_seconds = 1\n{sources}"))
            .start();
        let ca = Ca::root("plant 7");
        fleet.api(INSTANCE).register("plant 7", &ca);
        let (bad, good) = (ca.device("bad"), ca.device("good"));
        Self {
            fleet,
            ca,
            bad,
            good,
        }
    }

    fn admits(&self, identity: &Identity) -> bool {
        let client = self
            .fleet
            .client(INSTANCE, "localhost", identity, Version::V13);
        client.admitted()
    }

    fn wait_revoked(&self, identity: &Identity) {
        wait_until("the list is in force", || {
            (!self.admits(identity)).then_some(())
        });
        let client = self
            .fleet
            .client(INSTANCE, "localhost", identity, Version::V13);
        client.refused_with(CertificateRevoked);
    }

    fn metric(&self, name: &str) -> u64 {
        self.fleet.counter(name)
    }

    /// In place of the file, as one does that nobody shall see half of.
    fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.fleet.file(name);
        let unfinished = path.with_extension("unfinished");
        fs::write(&unfinished, content).unwrap();
        fs::rename(&unfinished, &path).unwrap();
        path
    }
}

fn source(path: &str) -> String {
    format!("[[instance.crl]]\npath = \"{path}\"\n")
}

#[test]
fn file_that_changes_is_imported_and_enforced() {
    let plant = Plant::new(&(source("plant.crl") + "ca = \"plant 7\"\n"));
    // It is not there yet: told, and no reason to stop.
    let told = |what: &'static str| {
        let broker = &plant.fleet.broker;
        broker.wait_log(what, move |line| line.contains(what))
    };
    told("No such file");
    let client = |identity| {
        plant
            .fleet
            .client(INSTANCE, "localhost", identity, Version::V13)
    };
    let live = client(&plant.bad).connect().unwrap();
    plant.put("plant.crl", &plant.ca.crl(1, &[&plant.bad]));
    live.wait_disconnect();
    plant.wait_revoked(&plant.bad);
    assert!(plant.admits(&plant.good));
    // In the other form, with another device.
    plant.put(
        "plant.crl",
        crl_pem(&plant.ca.crl(2, &[&plant.good])).as_bytes(),
    );
    plant.wait_revoked(&plant.good);
    // Whom the new list lets back in waits for the disk.
    wait_until("it is let back in", || {
        plant.admits(&plant.bad).then_some(())
    });
    let records = plant.fleet.broker.audit_records();
    let intent = records
        .iter()
        .find(|it| it["action"] == "ImportCrl" && it["phase"] == "intent")
        .unwrap();
    assert_eq!(intent["origin"]["door"], "system");
    assert!(
        intent["detail"].as_str().unwrap().contains("plant.crl"),
        "{intent}"
    );
}

#[test]
fn file_that_cannot_be_taken_leaves_the_last_list_in_force_and_is_told() {
    let plant = Plant::new(&source("plant.crl"));
    let good = plant.ca.crl(5, &[&plant.bad]);
    plant.put("plant.crl", &good);
    plant.wait_revoked(&plant.bad);
    wait_until("nothing is wrong", || {
        (plant.metric("portcullis_crl_files_failing") == 0).then_some(())
    });
    let stranger = Ca::root("a stranger").crl(9, &[]);
    let half = &plant.ca.crl(6, &[])[..100];
    for (content, says) in [
        (b"garbage".as_slice(), "neither DER nor"),
        (half, "cannot be read"),
        (&plant.ca.crl(4, &[]), "does not go up"),
        (&stranger, "no registered CA"),
    ] {
        plant.put("plant.crl", content);
        let line = plant.fleet.broker.wait_log(says, |line| {
            line.contains("cannot be taken") && line.contains(says)
        });
        assert!(
            line.contains("ERROR") && line.contains("plant.crl"),
            "{line}"
        );
        wait_until("the metric says so", || {
            (plant.metric("portcullis_crl_files_failing") == 1).then_some(())
        });
        assert!(!plant.admits(&plant.bad), "{says}");
        assert!(plant.admits(&plant.good), "{says}");
        let ready = get(plant.fleet.broker.admin, "/ready").unwrap();
        assert_eq!(ready.status, 200, "it serves by the last list");
    }
    fs::remove_file(plant.fleet.file("plant.crl")).unwrap();
    plant
        .fleet
        .broker
        .wait_log("it is gone", |line| line.contains("No such file"));
    assert!(!plant.admits(&plant.bad));
    plant.put("plant.crl", &plant.ca.crl(7, &[&plant.good]));
    plant.wait_revoked(&plant.good);
    wait_until("nothing is wrong any more", || {
        (plant.metric("portcullis_crl_files_failing") == 0).then_some(())
    });
}

#[test]
fn files_of_a_directory_are_matched_with_the_cas_that_signed_them() {
    let plant = Plant::new(&source("crls"));
    fs::create_dir(plant.fleet.file("crls")).unwrap();
    let later = Ca::root("registered later");
    let (first, second) = (plant.ca.crl(1, &[&plant.bad]), later.device("d"));
    plant.put("crls/later.crl", &later.crl(1, &[&second]));
    plant.put("crls/.hidden", b"garbage");
    fs::create_dir(plant.fleet.file("crls/deeper")).unwrap();
    fs::write(plant.fleet.file("target"), &first).unwrap();
    std::os::unix::fs::symlink("../target", plant.fleet.file("crls/plant.crl")).unwrap();
    plant.wait_revoked(&plant.bad);
    assert_eq!(
        plant.metric("portcullis_crl_files_failing"),
        1,
        "its CA is not registered"
    );
    plant.fleet.api(INSTANCE).register("later", &later);
    plant.wait_revoked(&second);
    wait_until("nothing is wrong", || {
        (plant.metric("portcullis_crl_files_failing") == 0).then_some(())
    });
}

#[test]
fn file_that_cannot_be_taken_leaves_one_record_however_often_it_is_looked_at() {
    let plant = Plant::new(&source("crls"));
    fs::create_dir(plant.fleet.file("crls")).unwrap();
    let stranger = Ca::root("a stranger");
    let device = stranger.device("d");
    let list = stranger.crl(1, &[&device]);
    plant.put("crls/stranger.crl", &list);
    plant.put("crls/garbage.crl", b"garbage");
    let refused = |file: &str| {
        let records = plant.fleet.broker.audit_records();
        let refused = records.iter().filter(|it| {
            it["action"] == "ImportCrl"
                && it["phase"] == "refused"
                && it["detail"].as_str().unwrap().contains(file)
        });
        refused.count()
    };
    // Each of these is seen at another look.
    for number in 1..=3 {
        let devices = [&plant.bad, &plant.good];
        plant.put("crls/plant.crl", &plant.ca.crl(number, &devices[..1]));
        let wanted = number.to_string();
        wait_until("it is in force", || {
            let crls = plant.fleet.api(INSTANCE).crls();
            let there = crls.iter().any(|it| it["CrlNumber"] == wanted.as_str());
            there.then_some(())
        });
        // As a script does that fetches it again and again.
        plant.put("crls/garbage.crl", b"garbage");
    }
    assert_eq!((refused("stranger.crl"), refused("garbage.crl")), (1, 1));
    plant.put("crls/garbage.crl", b"other garbage");
    wait_until("that is told", || {
        (refused("garbage.crl") == 2).then_some(())
    });
    // A CA that comes has it tried at the next look.
    plant.fleet.api(INSTANCE).register("stranger", &stranger);
    plant.wait_revoked(&device);
    assert_eq!(refused("stranger.crl"), 1);
}

#[test]
fn what_a_file_revokes_is_out_before_anybody_is_served() {
    let plant = Plant::new(&source("plant.crl"));
    let Plant {
        fleet,
        ca,
        bad,
        good,
    } = plant;
    let path = fleet.file("plant.crl");
    let fleet = fleet.again(|broker| {
        let home = broker.kill9();
        fs::write(&path, ca.crl(1, &[&bad])).unwrap();
        home
    });
    let client = |identity: &Identity| fleet.client(INSTANCE, "localhost", identity, Version::V13);
    client(&bad).refused_with(CertificateRevoked);
    assert!(client(&good).admitted());
    // And without the file, from what was kept.
    fs::remove_file(Path::new(&path)).unwrap();
    let fleet = fleet.again(|broker| broker.kill9());
    let client = |identity: &Identity| fleet.client(INSTANCE, "localhost", identity, Version::V13);
    client(&bad).refused_with(CertificateRevoked);
    assert!(client(&good).admitted());
}
