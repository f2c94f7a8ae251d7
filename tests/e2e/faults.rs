//! The disk fails, or the process dies, at each step of a change in turn: at the first system call
//! that writes to the registry, the nonces or the audit log, at the second, and so on until there
//! are no more. `strace` does it, to the program as it is shipped.
//!
//! What must hold each time: denied stays denied, and what was answered holds after a restart.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::harness::Broker;
use crate::harness::api::Answer;
use crate::harness::broker::INSTANCE;
use crate::harness::process::Process;

/// What happens at a step.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The process dies when the step is done.
    DiesAfter,
    /// The process dies, and the step is not done.
    DiesBefore,
    /// The step fails, and what comes after it does not.
    FailsOnce,
    /// The disk is full from there on.
    FullFromThere,
}

impl Fault {
    const ALL: [Self; 4] = [
        Self::DiesAfter,
        Self::DiesBefore,
        Self::FailsOnce,
        Self::FullFromThere,
    ];

    fn kills(self) -> bool {
        match self {
            Self::DiesAfter | Self::DiesBefore => true,
            Self::FailsOnce | Self::FullFromThere => false,
        }
    }

    /// In the words of `strace --inject`.
    fn at(self, step: usize) -> String {
        match self {
            Self::DiesAfter => format!("signal=SIGKILL:when={step}"),
            Self::DiesBefore => format!("error=EIO:signal=SIGKILL:when={step}"),
            Self::FailsOnce => format!("error=EIO:when={step}"),
            Self::FullFromThere => format!("error=ENOSPC:when={step}+"),
        }
    }
}

/// System calls that change what is on disk.
const STEPS: &str = "write,pwrite64,writev,pwritev,fdatasync,fsync,ftruncate,rename,unlink";

/// Files that a change writes to.
const FILES: [&str; 5] = [
    "registry.db",
    "registry.db-wal",
    "replay.db",
    "replay.db-wal",
    "audit.log",
];

/// Run the broker with the fault, from when it was ready.
fn inject(broker: &mut Broker, fault: &str, trace: &Path) -> Process {
    let data = broker.data();
    let mut command = Command::new("strace");
    command
        .arg("-f")
        .arg("-p")
        .arg(broker.process().id().to_string());
    for file in FILES {
        command.arg("-P").arg(data.join(file));
    }
    command.arg("-e").arg(format!("trace={STEPS}"));
    command.arg("-e").arg(format!("inject={STEPS}:{fault}"));
    command.arg("-o").arg(trace);
    let process = Process::spawn(&mut command);
    process.wait_stderr("strace is there", |line| {
        line.contains("attached").then_some(())
    });
    process
}

/// What an answer promises.
#[derive(Debug, PartialEq)]
enum Promise {
    /// It is so now and after a restart.
    Kept,
    /// It is so now.
    Now,
    /// None.
    Nothing,
}

impl Promise {
    fn of(answer: &Answer) -> Self {
        let text = answer.json()["Message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        match answer.status {
            200 => Self::Kept,
            _ if text.contains("also after a restart") => Self::Kept,
            _ if text.contains("It is denied now") => Self::Now,
            _ => Self::Nothing,
        }
    }
}

/// A directory in which `ca-a` has this state, and the state's opposite is asked for at every step
/// with this fault. Gives the number of steps.
fn at_every_step(template: &TempDir, fault: Fault, sn: &str, action: &str) -> usize {
    for step in 1.. {
        let home = Arc::new(tempfile::tempdir().unwrap());
        let mut copy = Command::new("cp");
        copy.arg("-a")
            .arg(template.path().join("."))
            .arg(home.path());
        assert!(copy.status().unwrap().success());
        let trace = home.path().join("trace");
        let mut broker = Broker::restart(home);
        let device = broker.identity("device-a1");
        let strace = inject(&mut broker, &fault.at(step), &trace);
        let api = broker.api();
        let answer = api
            .try_send(&api.request(action, &[("MqttInstanceId", INSTANCE), ("Sn", sn)]))
            .ok();
        let promise = answer.as_ref().map(Promise::of);
        let context = format!("{fault:?} at step {step} of {action}: {promise:?}");
        match (action, &promise) {
            // What dies may do so while the device is let in, too.
            _ if fault.kills() => {}
            (_, None) => panic!("{context}: no answer"),
            // Toward denial there is no failing.
            ("InactivateCaCertificate", Some(_)) => {
                assert_ne!(promise, Some(Promise::Nothing), "{context}");
                assert!(!broker.admits(&device), "{context}");
            }
            (_, Some(promise)) => {
                let allowed = *promise == Promise::Kept;
                assert_eq!(broker.admits(&device), allowed, "{context}");
            }
        }
        let home = broker.kill9();
        strace.finish();
        let trace = fs::read_to_string(&trace).unwrap();
        let hit = match fault.kills() {
            true => promise.is_none(),
            false => trace.contains("(INJECTED)"),
        };

        let broker = Broker::restart(home);
        let status = broker.api().status(sn);
        assert_eq!(broker.admits(&device), status == "1", "{context}");
        match (action, promise) {
            ("InactivateCaCertificate", Some(Promise::Kept)) => {
                assert_eq!(status, "0", "{context}")
            }
            (_, Some(Promise::Kept)) => assert_eq!(status, "1", "{context}"),
            (_, Some(Promise::Now | Promise::Nothing) | None) => {}
        }
        let verified = broker.verify_audit();
        assert_eq!(verified.code, 0, "{context}: {}", verified.stderr);
        // What began has an end in the log, or what holds now is told there.
        let records = broker.audit_records();
        let ids = |phase: fn(&str) -> bool| {
            let of = records.iter().filter(|it| it["action"] == action);
            let of = of.filter(|it| phase(it["phase"].as_str().unwrap()));
            of.map(|it| it["origin"]["request_id"].to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            ids(|it| it == "intent"),
            ids(|it| it != "intent"),
            "{context}"
        );
        broker.stop();
        if !hit {
            assert!(trace.contains("fdatasync"), "{context}: {trace}");
            return step - 1;
        }
    }
    unreachable!()
}

fn with_every_fault(action: &str, prepare: impl FnOnce(&Broker, &str)) {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    prepare(&broker, &sn);
    let template = broker.stop();
    std::thread::scope(|scope| {
        let (template, sn) = (&template, &sn);
        let each =
            Fault::ALL.map(|fault| scope.spawn(move || at_every_step(template, fault, sn, action)));
        let steps = each.map(|it| it.join().unwrap());
        assert!(steps.iter().all(|steps| *steps >= 5), "{steps:?}");
    });
}

#[test]
fn denied_stays_denied_whatever_fails_while_it_is_denied() {
    with_every_fault("InactivateCaCertificate", |_, _| {});
}

#[test]
fn denied_stays_denied_whatever_fails_while_it_is_allowed_again() {
    with_every_fault("ActiveCaCertificate", |broker, sn| {
        broker.api().inactivate(sn);
    });
}
