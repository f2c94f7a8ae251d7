//! What changes trust from outside: another hand on the store, and the clock.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::ca::id::CaId;
use crate::ca::lifecycle::Status;
use crate::ca::registry::{Effects, Purpose};
use crate::control::Inner;
use crate::control::change::{Toward, Turn};
use crate::control::ledger::device_key;
use crate::control::start::read;
use crate::store::Snapshot;

impl Inner {
    /// Take over what an operator changed in the database file, so that a hand edit is no hole.
    pub(crate) async fn follow_the_store(self: Arc<Self>) {
        loop {
            let known = self.turn.lock().await.seq;
            let changed = tokio::select! {
                changed = self.store.changed(known) => changed,
                () = self.closing.cancelled() => return,
            };
            if changed.is_err() {
                // The store has said so in its own words; try again when it is back.
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => continue,
                    () = self.closing.cancelled() => return,
                }
            }
            let mut turn = self.turn.lock().await;
            if changed.is_ok_and(|head| head <= turn.seq) {
                continue;
            }
            if !turn.owed.is_empty() {
                // The snapshot does not know of what is denied in memory only: that goes first.
                let paid = self.commit(&mut turn, Vec::new(), Toward::Deny).await;
                drop(turn);
                if paid.is_err() {
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = self.closing.cancelled() => return,
                    }
                }
                continue;
            }
            match self.store.snapshot().await {
                Ok(snapshot) => {
                    self.take_over(&mut turn, snapshot);
                    self.followed.store(true, Ordering::Release);
                }
                Err(error) => {
                    self.followed.store(false, Ordering::Release);
                    tracing::error!(%error, "the store was changed and cannot be read; the last good state stays in force");
                    drop(turn);
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = self.closing.cancelled() => return,
                    }
                }
            }
        }
    }

    /// End the connections over a certificate that expires while they live. The wall clock is
    /// asked every second, since it may be set.
    pub(crate) async fn follow_the_clock(self: Arc<Self>) {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = self.closing.cancelled() => return,
            }
            let now = self.now();
            for at in self.instances.values() {
                let ended = at.peers.cut_expired(now);
                if ended > 0 {
                    tracing::info!(instance = %at.id, sessions = ended, "certificates expired, their connections end");
                }
            }
        }
    }

    pub(crate) fn take_over(&self, turn: &mut Turn, snapshot: Snapshot) {
        tracing::warn!(
            from = turn.seq,
            to = snapshot.seq,
            "taking over changes that were made to the store by another hand"
        );
        turn.seq = snapshot.seq;
        let kept: HashSet<CaId> = snapshot.cas.iter().map(|record| record.id).collect();
        let mut ledger = self.ledger_mut();

        let gone: Vec<_> = ledger
            .cas()
            .filter(|ca| !kept.contains(&ca.record.id))
            .map(|ca| (ca.record.id, ca.record.instance.clone()))
            .collect();
        for (id, instance) in gone {
            ledger.remove_ca(id);
            if let Some(at) = self.instances.get(&instance) {
                let effects = at.registry.remove(id);
                at.registry.barrier();
                self.end_denied(at, &effects);
            }
        }
        for record in snapshot.cas {
            let (id, status) = (record.id, record.status);
            let Some(at) = self.instances.get(&record.instance) else {
                tracing::error!(ca.id = %id, instance = %record.instance, "a CA of an unknown instance is left out");
                continue;
            };
            if ledger.ca(id).is_some_and(|ca| ca.record == record) {
                continue;
            }
            let ca = match read(record) {
                Ok(ca) => ca,
                Err(error) => {
                    tracing::error!(%error, "a CA that was put into the store by another hand is left out");
                    continue;
                }
            };
            let effects = at
                .registry
                .insert(Arc::clone(&ca.certificate), Purpose::Device, status)
                .unwrap_or_else(|error| {
                    tracing::error!(%error, "a CA that was put into the store by another hand is left out");
                    Effects::default()
                });
            ledger.put_ca(ca);
            if status == Status::Inactive {
                at.registry.barrier();
            }
            self.end_denied(at, &effects);
        }

        let devices: HashSet<_> = snapshot
            .devices
            .iter()
            .map(|device| (device.instance.clone(), device_key(device)))
            .collect();
        let gone: Vec<_> = ledger
            .devices()
            .filter(|device| !devices.contains(&(device.instance.clone(), device_key(device))))
            .cloned()
            .collect();
        for device in gone {
            ledger.remove_device(&device);
            if let Some(at) = self.instances.get(&device.instance) {
                at.registry.forget_device(&device_key(&device));
            }
        }
        for device in snapshot.devices {
            if let Some(at) = self.instances.get(&device.instance) {
                let key = device_key(&device);
                at.registry.set_device(key.clone(), device.status);
                at.peers.cut_device(&key, &at.registry, self.now());
                ledger.put_device(device);
            }
        }
        for code in snapshot.register_codes {
            ledger.put_code(code);
        }
    }
}

/// How long to wait after the store could not be read.
const RETRY: Duration = Duration::from_secs(1);
