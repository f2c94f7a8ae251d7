//! The walk through CAs, connections and devices.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    CaImpact, CaLine, ClientLine, DeviceTally, Few, Intended, MOST_CLIENTS, MOST_LISTED, Other,
    Seen, Way,
};
use crate::ca::id::{CaId, CaKeyId, CertSerial};
use crate::ca::lifecycle::Status;
use crate::ca::outlook::{Outlook, Proposal, Shift};
use crate::ca::registry::{DeviceKey, Purpose};
use crate::ca::topology::{Concerned, Verdict};
use crate::control::ledger::{Ca, Device};
use crate::control::{Inner, Instance, OnInactivate};
use crate::tls::live::Called;
use crate::tls::peer::VerifiedPeer;

/// Whom a change would cut.
struct Cut {
    /// Connections whose trust would end.
    connections: usize,
    /// Connections whose trust has ended, and which end over a time.
    ending: usize,
    clients: Option<Vec<ClientLine>>,
    /// The unregistered authorities that signed for them.
    issuers: BTreeSet<CaKeyId>,
}

impl Inner {
    /// What the change would do, but for who would be locked out. Takes its time.
    pub(super) fn survey(
        &self,
        at: &Instance,
        ca: &Ca,
        change: Intended,
        proposal: &Proposal,
        clients: Option<Vec<ClientLine>>,
    ) -> CaImpact {
        let outlook = at.registry.outlook(proposal);
        let cut = self.connections(at, &outlook, clients);
        let (counts, devices) = self.devices(at, &outlook);
        let key = ca.certificate.key_id();
        let lines = |wanted: &dyn Fn(&Concerned, CaId) -> bool| {
            self.lines(at, &outlook.concerned, &counts, wanted)
        };
        let own = lines(&|_, id| id == ca.record.id);
        CaImpact {
            change,
            ca: own.items.into_iter().next().unwrap_or_else(|| CaLine {
                // Deleted since it was looked up.
                sn: ca.certificate.serial().clone(),
                name: ca.record.name.clone(),
                purpose: Purpose::Device,
                status: ca.record.status,
                off: None,
                off_after: None,
                shift: Shift::None,
                devices: 0,
            }),
            on_inactivate: at.on_inactivate,
            connections: cut.connections,
            ending: cut.ending,
            clients: cut.clients,
            devices,
            same_key_policy: at.same_key,
            same_key: lines(&|it, id| it.key == key && id != ca.record.id),
            below: lines(&|it, _| it.key != key),
            above: self.lines(at, &outlook.above, &counts, &|_, _| true),
            still_admitted_by: self.others(at, ca, change, &outlook, &cut.issuers),
            let_in_again: lines(&|it, id| {
                it.shift() == Shift::On && (change == Intended::Inactivate || id != ca.record.id)
            }),
            locked_out: None,
        }
    }

    /// Connections that the change would end.
    fn connections(
        &self,
        at: &Instance,
        outlook: &Outlook,
        clients: Option<Vec<ClientLine>>,
    ) -> Cut {
        let now = self.now();
        let known: HashSet<_> = outlook.concerned.iter().map(|it| it.key).collect();
        let mut found = Cut {
            connections: 0,
            ending: 0,
            clients,
            issuers: BTreeSet::new(),
        };
        at.peers.visit(&outlook.off_after(), |peer, called| {
            let (registry, admitted) = (&at.registry, peer.admitted());
            if registry.objection_after(outlook, admitted, now).is_none() {
                return;
            }
            match (registry.objection(admitted, now), at.on_inactivate) {
                (None, _) => found.connections += 1,
                // Their trust has ended, and they have not been told: they are ending over a time.
                (Some(_), OnInactivate::Cut) => found.ending += 1,
                (Some(_), OnInactivate::Keep) => return,
            }
            note(&mut found.clients, peer, called);
            if found.issuers.len() < MOST_ISSUERS && !known.contains(&peer.issuer()) {
                found.issuers.insert(peer.issuer());
            }
        });
        found
    }

    /// How many devices are recorded under each CA certificate that the change concerns, and when
    /// those that would be refused were last connected.
    fn devices(&self, at: &Instance, outlook: &Outlook) -> (HashMap<CaId, usize>, DeviceTally) {
        let now_ms = self.now_ms();
        let (mut counts, mut tally) = (HashMap::new(), DeviceTally::default());
        for concerned in &outlook.concerned {
            let refused = concerned.shift() == Shift::Off;
            for (id, _) in &concerned.certificates {
                let mut count = 0;
                self.each_device(at, *id, |device| {
                    count += 1;
                    if refused {
                        tally.add(device.status(), at.seen(&device.key()), now_ms);
                    }
                });
                counts.insert(*id, count);
            }
        }
        (counts, tally)
    }

    /// Every device recorded under a CA certificate. The records are held for some of them at a
    /// time.
    fn each_device(&self, at: &Instance, ca: CaId, mut look: impl FnMut(Device<'_>)) {
        let mut after: Option<DeviceKey> = None;
        loop {
            let mut last = None;
            let mut count = 0;
            {
                let ledger = self.ledger();
                let next = ledger.devices_after(&at.id, ca, after.as_ref());
                for device in next.take(AT_A_TIME) {
                    look(device);
                    count += 1;
                    last = Some(device.key());
                }
            }
            if count < AT_A_TIME {
                return;
            }
            after = last;
            std::thread::yield_now();
        }
    }

    fn lines(
        &self,
        at: &Instance,
        all: &[Concerned],
        counts: &HashMap<CaId, usize>,
        wanted: &dyn Fn(&Concerned, CaId) -> bool,
    ) -> Few<CaLine> {
        let certificates = all.iter().flat_map(|concerned| {
            let ids = concerned.certificates.iter();
            ids.map(move |(id, status)| (concerned, *id, *status))
        });
        let found = certificates.filter(|(concerned, id, _)| wanted(concerned, *id));
        let mut few = Few {
            items: Vec::new(),
            total: 0,
        };
        for (concerned, id, status) in found {
            few.total += 1;
            if few.items.len() < MOST_LISTED
                && let Some(entry) = at.registry.entry(id)
            {
                few.items.push(CaLine {
                    sn: entry.certificate.serial().clone(),
                    name: self.name_of(id),
                    purpose: entry.purpose,
                    status,
                    off: concerned.off_before(id),
                    off_after: concerned.off_after(id),
                    shift: concerned.shift(),
                    devices: counts.get(&id).copied().unwrap_or_default(),
                });
            }
        }
        few
    }

    /// Where devices of the CA would get in all the same.
    fn others(
        &self,
        at: &Instance,
        ca: &Ca,
        change: Intended,
        outlook: &Outlook,
        issuers: &BTreeSet<CaKeyId>,
    ) -> Few<Other> {
        let mut found: BTreeMap<CertSerial, (CaId, Way)> = BTreeMap::new();
        let key = ca.certificate.key_id();
        let admits = |it: &&Concerned| it.after == Some(Verdict::On);
        let same_key = outlook.concerned.iter().filter(|it| it.key == key);
        // To inactivate a CA denies its key below every other; to delete it does not.
        let above = match change {
            Intended::Inactivate => &[],
            Intended::Delete => outlook.above.as_slice(),
        };
        let with = |way| move |it| (it, way);
        let admitting = same_key.map(with(Way::SameKey));
        for (concerned, way) in admitting.chain(above.iter().map(with(Way::Above))) {
            if !admits(&concerned) {
                continue;
            }
            for (id, status) in &concerned.certificates {
                if *id == ca.record.id || *status == Status::Inactive {
                    continue;
                }
                // What ends at an administrators' CA makes administrators only, over CAs that are named.
                if let Some(entry) = at.registry.entry(*id)
                    && entry.certificate.is_current(self.now())
                    && entry.purpose == Purpose::Device
                {
                    found.insert(entry.certificate.serial().clone(), (*id, way));
                }
            }
        }
        let issuers: Vec<_> = issuers.iter().copied().collect();
        at.peers.visit(&issuers, |peer, _| {
            let stays = at
                .registry
                .objection_under(outlook, peer.admitted(), self.now());
            if stays.is_none() && found.len() <= MOST_LISTED {
                let seen = (peer.ca(), Way::Seen);
                found.entry(peer.ca_sn().clone()).or_insert(seen);
            }
        });
        Few {
            total: found.len(),
            items: found
                .into_iter()
                .take(MOST_LISTED)
                .map(|(sn, (id, way))| Other {
                    sn,
                    name: self.name_of(id),
                    way,
                })
                .collect(),
        }
    }

    fn name_of(&self, id: CaId) -> String {
        let ledger = self.ledger();
        ledger
            .ca(id)
            .map(|ca| ca.record.name.clone())
            .unwrap_or_default()
    }
}

impl DeviceTally {
    fn add(&mut self, status: Status, seen: Seen, now_ms: i64) {
        self.recorded += 1;
        if status == Status::Inactive {
            self.inactive += 1;
        }
        match seen {
            Seen::Now => self.connected += 1,
            Seen::No => self.not_seen += 1,
            Seen::At(at_ms) => {
                self.last_seen_ms = self.last_seen_ms.max(Some(at_ms));
                match now_ms.saturating_sub(at_ms) {
                    ago if ago <= DAY_MS => self.within_day += 1,
                    ago if ago <= 7 * DAY_MS => self.within_week += 1,
                    _ => self.earlier += 1,
                }
            }
        }
    }
}

/// Take the client into the list, if there is one and it is not full.
pub(super) fn note(
    clients: &mut Option<Vec<ClientLine>>,
    peer: &VerifiedPeer,
    called: Option<&Called>,
) {
    if let Some(clients) = clients.as_mut().filter(|it| it.len() < MOST_CLIENTS) {
        clients.push(ClientLine {
            called: called.map(|it| (it.name.to_string(), it.address)),
            ca_sn: peer.ca_sn().clone(),
            device_sn: peer.serial().clone(),
            name: peer.common_name().unwrap_or_default().to_owned(),
        });
    }
}

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Devices that are looked at before others get at the records.
const AT_A_TIME: usize = 1_024;

/// Unregistered issuers that are looked for elsewhere.
const MOST_ISSUERS: usize = 64;
