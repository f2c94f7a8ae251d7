//! What changes trust from outside: another hand on the store, and the clock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::ca::id::{CaId, InstanceId};
use crate::ca::lifecycle::Status;
use crate::ca::registry::{Effects, Purpose};
use crate::control::Inner;
use crate::control::change::Turn;
use crate::control::jumps::Clocks;
use crate::control::keys::KeyFault;
use crate::control::ledger::{KeptCrl, Ledger, device_key};
use crate::control::start::read;
use crate::store::{AccessKeyRecord, CaRecord, Change, DeviceRecord, Snapshot};

/// The clock was set while the broker ran.
fn tell_of_jump(jump_ms: i64) {
    let direction = if jump_ms > 0 { "forward" } else { "back" };
    metrics::counter!("portcullis_clock_jumps_total", "direction" => direction).increment(1);
    tracing::warn!(
        jump_ms,
        "the clock was set {direction}: dates of certificates, CRLs and calls are measured by the new time"
    );
}

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
                let paid = self.pay(&mut turn).await;
                drop(turn);
                if !paid {
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = self.closing.cancelled() => return,
                    }
                }
                continue;
            }
            drop(turn);
            // Others need not wait while it is read.
            let read = tokio::select! {
                read = self.read_store() => read,
                () = self.closing.cancelled() => return,
            };
            match read {
                Ok((snapshot, crls)) => {
                    let mut turn = self.turn.lock().await;
                    let head = tokio::time::timeout(self.store_limit, self.store.head()).await;
                    // Otherwise something was changed or denied since, which it does not know of.
                    let is_last = matches!(head, Ok(Ok(head)) if head == snapshot.seq);
                    if is_last && snapshot.seq > turn.seq && turn.owed.is_empty() {
                        self.take_over(&mut turn, snapshot, crls);
                    }
                    self.followed.store(true, Ordering::Release);
                }
                Err(error) => {
                    self.followed.store(false, Ordering::Release);
                    tracing::error!(%error, "the store was changed and cannot be read; the last good state stays in force");
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = self.closing.cancelled() => return,
                    }
                }
            }
        }
    }

    /// End the connections over a certificate that expires while they live. The wall clock is
    /// asked every second, since it may be set; that is told, too.
    pub(crate) async fn follow_the_clock(self: Arc<Self>) {
        let mut seconds = self.seconds();
        let mut clocks = Clocks::new(self.now_ms(), Instant::now());
        while seconds.next().await {
            if let Some(jump_ms) = clocks.jump(self.now_ms(), Instant::now()) {
                tell_of_jump(jump_ms);
            }
            let now = self.now();
            self.follow_crls(now);
            for at in self.instances.values() {
                let ended = at.peers.cut_expired(now);
                if ended > 0 {
                    tracing::info!(instance = %at.id, sessions = ended, "certificates expired, their connections end");
                }
            }
        }
    }

    pub(crate) fn take_over(&self, turn: &mut Turn, snapshot: Snapshot, crls: Vec<KeptCrl>) {
        tracing::warn!(
            from = turn.seq,
            to = snapshot.seq,
            "taking over changes that were made to the store by another hand"
        );
        turn.seq = snapshot.seq;
        let mut ledger = self.ledger_mut();
        let ledger = &mut *ledger;
        // Deny first, allow last: a hand that swaps one for the other shall not have both.
        self.deny_by_crls(&crls, &snapshot.crl_policies);
        self.drop_cas(ledger, &snapshot.cas);
        let (off, on): (Vec<_>, Vec<_>) = snapshot
            .cas
            .into_iter()
            .partition(|record| record.status == Status::Inactive);
        let switched_off: Vec<_> = off
            .iter()
            .map(|record| record.id)
            .filter(|id| {
                ledger
                    .ca(*id)
                    .is_some_and(|ca| ca.record.status == Status::Active)
            })
            .collect();
        for record in off {
            self.take_over_ca(ledger, record);
        }
        let gone = drop_devices(ledger, &snapshot.devices);
        let (off, active): (Vec<_>, Vec<_>) = snapshot
            .devices
            .into_iter()
            .partition(|device| device.status == Status::Inactive);
        for device in off {
            self.take_over_device(ledger, device);
        }
        for record in on {
            self.take_over_ca(ledger, record);
        }
        for device in active {
            self.take_over_device(ledger, device);
        }
        for device in gone {
            if let Some(at) = self.instances.get(&device.instance) {
                at.registry.forget_device(&device_key(&device));
                self.tell_found_device(at, ledger, &device, Some(device.status), None);
            }
        }
        self.take_over_crls(ledger, crls, snapshot.crl_policies);
        // A hand on the store counts as one: what it switched off, no clock switches on.
        let undone = switched_off
            .iter()
            .flat_map(|ca| ledger.activations_of(*ca));
        let undone: Vec<_> = undone.collect();
        let (gone, planned): (Vec<_>, Vec<_>) = snapshot
            .schedules
            .into_iter()
            .partition(|schedule| undone.contains(&schedule.id));
        ledger.set_schedules(planned);
        for schedule in gone {
            tracing::warn!(schedule = %schedule.id, "a planned activation is cancelled: another hand switched the CA off");
            turn.owed.push(Change::DeleteSchedule(schedule.id));
            self.durable.store(false, Ordering::Release);
        }
        ledger.set_codes(snapshot.register_codes);
        self.take_over_keys(ledger, snapshot.access_keys);
    }

    /// A key that cannot be used is out of force, whatever it was before.
    fn take_over_keys(&self, ledger: &mut Ledger, kept: Vec<AccessKeyRecord>) {
        let changed = |ledger: &Ledger, key: &AccessKeyRecord| ledger.key(&key.id) != Some(key);
        let gone: Vec<_> = {
            let kept: HashSet<_> = kept.iter().map(|key| &key.id).collect();
            let gone = ledger.keys().filter(|key| !kept.contains(&key.id));
            gone.map(|key| key.id.clone()).collect()
        };
        for id in gone {
            let before = ledger.key(&id).map(|key| key.status);
            self.record_found(None, format!("access_key:{id}"), before, None);
            ledger.remove_key(&id);
            self.keys.remove(&id);
        }
        for key in kept {
            if !changed(ledger, &key) {
                continue;
            }
            match self.in_force(&key) {
                Ok(key) => self.keys.insert(key),
                Err(KeyFault::Twice) => {
                    tracing::error!(access_key.id = %key.id, error = %KeyFault::Twice, "an access key that was put into the store by another hand is left out");
                    continue;
                }
                Err(error) => {
                    self.keys.remove(&key.id);
                    tracing::error!(access_key.id = %key.id, %error, "an access key that was changed by another hand is out of force");
                }
            }
            let before = ledger.key(&key.id).map(|key| key.status);
            let subject = format!("access_key:{}", key.id);
            self.record_found(None, subject, before, Some(key.status));
            ledger.put_key(key);
        }
    }

    /// Take out of the gate the CAs that are not in the store, or in another instance there.
    fn drop_cas(&self, ledger: &mut Ledger, kept: &[CaRecord]) {
        let kept: HashMap<CaId, &InstanceId> = kept
            .iter()
            .map(|record| (record.id, &record.instance))
            .collect();
        let gone: Vec<_> = ledger
            .cas()
            .filter(|ca| kept.get(&ca.record.id) != Some(&&ca.record.instance))
            .cloned()
            .collect();
        for ca in gone {
            let id = ca.record.id;
            ledger.remove_ca(id);
            if let Some(at) = self.instances.get(&ca.record.instance) {
                let effects = at.registry.remove(id);
                at.registry.barrier();
                self.end_denied(at, &effects);
                self.tell_found_ca(at, &ca, Some(ca.record.status), None);
            }
        }
    }

    fn take_over_ca(&self, ledger: &mut Ledger, record: CaRecord) {
        let (id, status) = (record.id, record.status);
        let Some(at) = self.instances.get(&record.instance) else {
            tracing::error!(ca.id = %id, instance = %record.instance, "a CA of an unknown instance is left out");
            return;
        };
        if ledger.ca(id).is_some_and(|ca| ca.record == record) {
            return;
        }
        let ca = match read(record) {
            Ok(ca) => ca,
            Err(error) => {
                tracing::error!(%error, "a CA that was put into the store by another hand is left out");
                return;
            }
        };
        let certificate = Arc::clone(&ca.certificate);
        match at.registry.insert(certificate, Purpose::Device, status) {
            Ok(effects) => {
                let before = ledger.ca(id).map(|known| known.record.status);
                self.tell_found_ca(at, &ca, before, Some(status));
                ledger.put_ca(ca);
                if status == Status::Inactive {
                    at.registry.barrier();
                }
                self.end_denied(at, &effects);
            }
            Err(error) => {
                tracing::error!(ca.id = %id, %error, "a CA that was put into the store by another hand is left out");
            }
        }
    }

    fn take_over_device(&self, ledger: &mut Ledger, device: DeviceRecord) {
        let Some(at) = self.instances.get(&device.instance) else {
            return;
        };
        if ledger.has_device(&device) {
            return;
        }
        let key = device_key(&device);
        let before = at.registry.device_status(&key);
        at.registry.set_device(key.clone(), device.status);
        if device.status == Status::Inactive {
            at.registry.barrier();
            let effects = Effects {
                devices: vec![key],
                ..Effects::default()
            };
            self.end_denied(at, &effects);
        }
        self.tell_found_device(at, ledger, &device, before, Some(device.status));
        ledger.put_device(device);
    }
}

/// Take out of the listings the devices that stand elsewhere in the store, or nowhere; gives the
/// latter.
fn drop_devices(ledger: &mut Ledger, kept: &[DeviceRecord]) -> Vec<DeviceRecord> {
    let kept: HashMap<_, CaId> = kept
        .iter()
        .map(|device| ((device.instance.clone(), device_key(device)), device.ca))
        .collect();
    let place = |device: &DeviceRecord| kept.get(&(device.instance.clone(), device_key(device)));
    let moved: Vec<_> = ledger
        .devices()
        .filter(|device| {
            let key = (device.instance().clone(), device.key());
            kept.get(&key) != Some(&device.ca())
        })
        .map(|device| device.record())
        .collect();
    for device in &moved {
        ledger.remove_device(device);
    }
    moved
        .into_iter()
        .filter(|device| place(device).is_none())
        .collect()
}

/// How long to wait after the store could not be read.
const RETRY: Duration = Duration::from_secs(1);
