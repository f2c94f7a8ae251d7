//! The records of devices. There may be a million of them, so what several say alike is kept once,
//! and the whole record is put together for whoever asks for it.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Ca, Ledger};
use crate::ca::id::{CaId, CaKeyId, CertSerial, InstanceId};
use crate::ca::lifecycle::Status;
use crate::ca::registry::DeviceKey;
use crate::parallel;
use crate::store::{DeviceId, DeviceRecord};

/// Place of a device in the listings: by CA, then by serial number; the issuer tells apart two
/// devices of one serial number under different intermediates of the same registered CA.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    ca: CaId,
    serial: CertSerial,
    issuer: CaKeyId,
}

/// As the places of an instance are.
fn in_order(device: &DeviceRecord) -> (&CaId, &CertSerial, &CaKeyId) {
    (&device.ca, &device.serial, &device.issuer)
}

/// What is recorded of a device beside its place.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    status: Status,
    first_seen_ms: i64,
    name: Box<str>,
}

/// The devices of all instances.
#[derive(Debug, Default)]
pub(crate) struct Devices(BTreeMap<InstanceId, BTreeMap<Place, Kept>>);

/// A device on record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device<'a> {
    instance: &'a InstanceId,
    place: &'a Place,
    kept: &'a Kept,
}

impl Device<'_> {
    pub(crate) fn instance(&self) -> &InstanceId {
        self.instance
    }

    pub(crate) fn ca(&self) -> CaId {
        self.place.ca
    }

    pub(crate) fn status(&self) -> Status {
        self.kept.status
    }

    /// Its key in the gate.
    pub(crate) fn key(&self) -> DeviceKey {
        DeviceKey {
            issuer: self.place.issuer,
            serial: self.place.serial.clone(),
        }
    }

    /// Which it is.
    pub(crate) fn id(&self) -> DeviceId {
        DeviceId {
            instance: self.instance.clone(),
            issuer: self.place.issuer,
            serial: self.place.serial.clone(),
        }
    }

    /// All that is recorded.
    pub(crate) fn record(&self) -> DeviceRecord {
        let DeviceId {
            instance,
            issuer,
            serial,
        } = self.id();
        DeviceRecord {
            instance,
            issuer,
            serial,
            ca: self.place.ca,
            name: self.kept.name.as_ref().to_owned(),
            status: self.kept.status,
            first_seen_ms: self.kept.first_seen_ms,
        }
    }
}

impl Place {
    fn of(device: &DeviceRecord) -> Self {
        Self {
            ca: device.ca,
            serial: device.serial.clone(),
            issuer: device.issuer,
        }
    }

    fn first_under(ca: CaId) -> Self {
        Self {
            ca,
            serial: CertSerial::lower_bound(),
            issuer: LOWEST,
        }
    }

    fn last_under(ca: CaId) -> Self {
        Self {
            ca,
            serial: CertSerial::upper_bound(),
            issuer: HIGHEST,
        }
    }
}

impl From<DeviceRecord> for Kept {
    fn from(device: DeviceRecord) -> Self {
        Self {
            status: device.status,
            first_seen_ms: device.first_seen_ms,
            name: device.name.into(),
        }
    }
}

impl Devices {
    /// These, put in order at once, and where they are: what is touched for the first time costs most.
    pub(crate) fn new(mut devices: Vec<DeviceRecord>) -> Self {
        let first = devices.first().map(|device| device.instance.clone());
        let is_of_first = |device: &DeviceRecord| first.as_ref() == Some(&device.instance);
        // Most often there is one instance.
        let is_one = devices.iter().all(is_of_first);
        parallel::sort(&mut devices, |one, other| {
            let places = || in_order(one).cmp(&in_order(other));
            match is_one {
                true => places(),
                false => one.instance.cmp(&other.instance).then_with(places),
            }
        });
        let mut by_instance = BTreeMap::new();
        // The last instance first, so that the others stay where they are.
        while let Some(last) = devices.last() {
            let instance = last.instance.clone();
            let of_it = match devices.partition_point(|device| device.instance < instance) {
                0 => std::mem::take(&mut devices),
                first => devices.split_off(first),
            };
            let placed = |device| (Place::of(&device), device.into());
            by_instance.insert(instance, of_it.into_iter().map(placed).collect());
        }
        Self(by_instance)
    }
}

impl Ledger {
    /// Replace all devices.
    pub(crate) fn set_devices(&mut self, devices: Devices) {
        self.devices = devices;
    }

    pub(crate) fn put_device(&mut self, device: DeviceRecord) {
        let place = Place::of(&device);
        self.devices
            .0
            .entry(device.instance.clone())
            .or_default()
            .insert(place, device.into());
    }

    pub(crate) fn remove_device(&mut self, device: &DeviceRecord) {
        if let Some(devices) = self.devices.0.get_mut(&device.instance) {
            devices.remove(&Place::of(device));
        }
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        let instances = self.devices.0.iter();
        instances.flat_map(|(instance, devices)| {
            devices.iter().map(move |(place, kept)| Device {
                instance,
                place,
                kept,
            })
        })
    }

    pub(crate) fn device_count(&self, instance: &InstanceId) -> usize {
        self.devices.0.get(instance).map_or(0, BTreeMap::len)
    }

    /// Devices of the instance in the order of the listing.
    pub(crate) fn devices_of(&self, instance: &InstanceId) -> impl Iterator<Item = Device<'_>> {
        self.range(instance, (Bound::Unbounded, Bound::Unbounded))
    }

    /// Devices recorded under one CA certificate, by serial number.
    pub(crate) fn devices_under(
        &self,
        instance: &InstanceId,
        ca: CaId,
    ) -> impl Iterator<Item = Device<'_>> {
        let first = Bound::Included(Place::first_under(ca));
        let last = Bound::Included(Place::last_under(ca));
        self.range(instance, (first, last))
    }

    /// The same, of all instances.
    pub(crate) fn devices_under_ca(&self, ca: CaId) -> impl Iterator<Item = Device<'_>> {
        let instances = self.devices.0.keys();
        instances.flat_map(move |instance| self.devices_under(instance, ca))
    }

    /// Devices recorded under one CA certificate from behind this place on.
    pub(crate) fn devices_after(
        &self,
        instance: &InstanceId,
        ca: CaId,
        after: Option<&DeviceKey>,
    ) -> impl Iterator<Item = Device<'_>> {
        let first = match after {
            Some(DeviceKey { issuer, serial }) => Bound::Excluded(Place {
                ca,
                serial: serial.clone(),
                issuer: *issuer,
            }),
            None => Bound::Included(Place::first_under(ca)),
        };
        let last = Bound::Included(Place::last_under(ca));
        self.range(instance, (first, last))
    }

    /// The records that a CA and a device serial number name. The CA may be any certificate of
    /// the authority that the device is listed under.
    pub(crate) fn devices_named(&self, ca: &Ca, serial: &CertSerial) -> Vec<DeviceRecord> {
        let place = |ca, issuer| {
            Bound::Included(Place {
                ca,
                serial: serial.clone(),
                issuer,
            })
        };
        std::iter::once(ca.record.id)
            .chain(self.siblings(ca))
            .flat_map(|id| {
                let range = (place(id, LOWEST), place(id, HIGHEST));
                self.range(&ca.record.instance, range)
            })
            .map(|device| device.record())
            .collect()
    }

    /// Whether exactly this is recorded.
    pub(crate) fn has_device(&self, device: &DeviceRecord) -> bool {
        let devices = self.devices.0.get(&device.instance);
        let kept = devices.and_then(|devices| devices.get(&Place::of(device)));
        kept.is_some_and(|kept| {
            let same = (kept.status, kept.first_seen_ms) == (device.status, device.first_seen_ms);
            same && *kept.name == *device.name
        })
    }

    fn range(
        &self,
        instance: &InstanceId,
        range: (Bound<Place>, Bound<Place>),
    ) -> impl Iterator<Item = Device<'_>> {
        let devices = self.devices.0.get_key_value(instance).into_iter();
        devices.flat_map(move |(instance, devices)| {
            devices
                .range(range.clone())
                .map(move |(place, kept)| Device {
                    instance,
                    place,
                    kept,
                })
        })
    }
}

const LOWEST: CaKeyId = CaKeyId::from_bytes([0; 32]);
const HIGHEST: CaKeyId = CaKeyId::from_bytes([0xff; 32]);
