//! The peers that are connected, found by the authorities their certificates depend on.
//!
//! A peer enters the index first and has its states read after that, so there is no gap: either
//! the reading already sees a change, or the change finds the peer here. Connections whose
//! handshake is still running are in the index too, from the moment their certificate was accepted.

mod unwelcome;
mod walk;
mod waves;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;

use dashmap::DashMap;
use tokio::sync::Notify;

use self::waves::Waves;
use crate::ca::by_digest::ByDigest;
use crate::ca::error::Refusal;
use crate::ca::id::{CaId, CaKeyId};
use crate::ca::path::Admitted;
use crate::ca::registry::{DeviceKey, Registry};
#[cfg(test)]
use crate::testing::schedule;
use crate::tls::peer::VerifiedPeer;

/// Why a connected peer must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// A CA on its path was switched off.
    CaInactive,
    /// The CA that its path ended at was deleted.
    CaDeleted,
    /// Its own certificate was switched off.
    DeviceInactive,
    /// A certificate of its path was revoked.
    Revoked,
    /// A list of revoked certificates is demanded, and none vouches for its path any more.
    NoCrl,
    /// A certificate of its path has expired.
    Expired,
}

impl Cut {
    /// The reason as one word for logs and metric labels, from a closed set.
    pub fn reason(self) -> &'static str {
        match self {
            Cut::CaInactive => "ca_inactive",
            Cut::CaDeleted => "ca_deleted",
            Cut::DeviceInactive => "device_inactive",
            Cut::Revoked => "revoked",
            Cut::NoCrl => "no_crl",
            Cut::Expired => "expired",
        }
    }

    fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::CaInactive { .. } => Cut::CaInactive,
            Refusal::DeviceInactive => Cut::DeviceInactive,
            Refusal::Revoked { .. } => Cut::Revoked,
            Refusal::NoCrl { .. } => Cut::NoCrl,
            Refusal::OutsideValidity(_) => Cut::Expired,
            Refusal::UnknownCa
            | Refusal::ChainTooLarge
            | Refusal::Malformed(_)
            | Refusal::BadSignature
            | Refusal::Misused { .. }
            | Refusal::InvalidPath(_)
            | Refusal::TooMuchWork => Cut::CaDeleted,
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cut::CaInactive => "the CA is inactive",
            Cut::CaDeleted => "the CA is no longer registered",
            Cut::DeviceInactive => "the device certificate is inactive",
            Cut::Revoked => "a certificate of the path is revoked",
            Cut::NoCrl => "no CRL in date covers the path",
            Cut::Expired => "a certificate of the path has expired",
        })
    }
}

/// The connected peers of one instance.
#[derive(Debug, Default)]
pub struct LivePeers {
    /// In the order in which they came, so that a walk can stop and go on.
    by_key: DashMap<CaKeyId, BTreeMap<u64, Arc<Entry>>, ByDigest>,
    by_device: DashMap<DeviceKey, BTreeMap<u64, Arc<Entry>>>,
    /// By the last second at which the whole path is valid.
    by_end: Mutex<BTreeMap<(i64, u64), Arc<Entry>>>,
    next: AtomicU64,
    count: AtomicUsize,
    waves: Arc<Waves>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    peer: VerifiedPeer,
    way: Arc<Way>,
    cut: AtomicU8,
    told: Notify,
    /// Why its trust ended, in all detail.
    why: OnceLock<Arc<Refusal>>,
    called: OnceLock<Called>,
}

/// What of a peer an inactive CA has a part in: all that has the same is told the same. Peers that came
/// one after the other over the same path share it, so that of ten thousand hardly any has to be looked
/// at as a whole.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    ca: CaId,
    anchor_key: CaKeyId,
    path: Vec<CaKeyId>,
}

impl Way {
    fn of(admitted: &Admitted) -> Self {
        Self {
            ca: admitted.ca(),
            anchor_key: admitted.anchor_key(),
            path: admitted.path().to_vec(),
        }
    }

    fn is_of(&self, admitted: &Admitted) -> bool {
        self.ca == admitted.ca()
            && self.anchor_key == admitted.anchor_key()
            && self.path == admitted.path()
    }

    fn is_same(one: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(one, other) || one == other
    }
}

/// What a connected peer calls itself, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// Its name for itself; nothing follows from it.
    pub name: Box<str>,
    /// Where it connects from.
    pub address: SocketAddr,
}

impl Entry {
    /// Its place in the order of expiry.
    fn end(&self) -> (i64, u64) {
        (self.peer.admitted().path_not_after(), self.number)
    }

    fn is_welcome(&self) -> bool {
        self.cut.load(Ordering::Acquire) == 0
    }

    /// From here on nothing that it sends is looked at. `true` if it was not told before; it is to be
    /// [woken](Self::wake) then.
    fn tell(&self, why: Arc<Refusal>) -> bool {
        let cut = Cut::of(&why);
        // First, so that it is there when the cut is seen. Of two at a time either is true.
        let _ = self.why.set(why);
        self.cut
            .compare_exchange(0, encode(cut), Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Have its connection look, if it waits for something.
    fn wake(&self) {
        self.told.notify_waiters();
        self.told.notify_one();
    }
}

impl LivePeers {
    /// An empty index.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Enter the peer, then read its states in `registry` (dates against `now`, Unix seconds).
    ///
    /// # Errors
    /// Why it must not go on, if a state changed since the certificate was accepted.
    pub fn enter(
        self: &Arc<Self>,
        peer: VerifiedPeer,
        registry: &Registry,
        now: i64,
    ) -> Result<LivePeer, Refusal> {
        self.waves.are_here();
        let entry = Arc::new(Entry {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            way: self.way_of(peer.admitted()),
            peer,
            cut: AtomicU8::new(0),
            told: Notify::new(),
            why: OnceLock::new(),
            called: OnceLock::new(),
        });
        for key in entry.peer.path() {
            self.by_key
                .entry(*key)
                .or_default()
                .insert(entry.number, Arc::clone(&entry));
        }
        self.by_device
            .entry(entry.peer.admitted().device().clone())
            .or_default()
            .insert(entry.number, Arc::clone(&entry));
        self.ends().insert(entry.end(), Arc::clone(&entry));
        self.count.fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        schedule::point();
        let live = LivePeer(Arc::new(Place {
            entry,
            index: Arc::clone(self),
        }));
        match registry.objection(live.peer().admitted(), now) {
            Some(refusal) => Err(refusal),
            None => Ok(live),
        }
    }

    /// The way of the peer that came before over the same issuer, if this one's is the same.
    fn way_of(&self, admitted: &Admitted) -> Arc<Way> {
        let before = admitted.path().first().and_then(|issuer| {
            let peers = self.by_key.get(issuer)?;
            let (_, last) = peers.last_key_value()?;
            last.way.is_of(admitted).then(|| Arc::clone(&last.way))
        });
        before.unwrap_or_else(|| Arc::new(Way::of(admitted)))
    }

    /// Number of connected peers.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many connected peers depend on any of these authorities.
    pub fn count_over(&self, keys: &[CaKeyId]) -> usize {
        self.over(keys).len()
    }

    /// Tell every peer that depends on one of these authorities, and whom `registry` now
    /// objects to, that its trust has ended. Gives how many were told.
    pub fn cut_over(&self, keys: &[CaKeyId], registry: &Registry, now: i64) -> usize {
        self.cut_over_by(keys, |admitted| registry.objection(admitted, now))
    }

    /// The same by what `objection` says of them.
    pub(crate) fn cut_over_by(
        &self,
        keys: &[CaKeyId],
        objection: impl Fn(&Admitted) -> Option<Refusal>,
    ) -> usize {
        let found = self.over(keys);
        #[cfg(test)]
        schedule::point();
        cut_all(found, objection, &self.waves)
    }

    /// The same for the connections of one device certificate.
    pub fn cut_device(&self, device: &DeviceKey, registry: &Registry, now: i64) -> usize {
        self.cut_device_by(device, |admitted| registry.objection(admitted, now))
    }

    /// The same by what `objection` says of them.
    pub(crate) fn cut_device_by(
        &self,
        device: &DeviceKey,
        objection: impl Fn(&Admitted) -> Option<Refusal>,
    ) -> usize {
        let entries: Vec<_> = self
            .by_device
            .get(device)
            .map(|entries| entries.values().cloned().collect())
            .unwrap_or_default();
        cut_all(entries, objection, &self.waves)
    }

    /// Tell every peer with a certificate on its path that has expired at `now` (Unix seconds).
    pub fn cut_expired(&self, now: i64) -> usize {
        let mut ends = self.ends();
        let valid = ends.split_off(&(now, 0));
        let expired = std::mem::replace(&mut *ends, valid);
        drop(ends);
        let objection =
            |admitted: &Admitted| Some(Refusal::OutsideValidity(admitted.ends_first().clone()));
        cut_all(expired.into_values(), objection, &self.waves)
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<(i64, u64), Arc<Entry>>> {
        self.by_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the order in which they came.
    fn over(&self, keys: &[CaKeyId]) -> Vec<Arc<Entry>> {
        let (mut found, mut places) = (Vec::new(), 0);
        for key in keys {
            if let Some(entries) = self.by_key.get(key) {
                found.extend(entries.values().cloned());
                places += 1;
            }
        }
        if places > 1 {
            found.sort_unstable_by_key(|entry| entry.number);
            found.dedup_by_key(|entry| entry.number);
        }
        found
    }
}

/// A connection's place in the index of connected peers: it is told when its peer's trust
/// ends, and leaves the index when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct LivePeer(Arc<Place>);

#[derive(Debug)]
struct Place {
    entry: Arc<Entry>,
    index: Arc<LivePeers>,
}

impl LivePeer {
    /// Who it is.
    pub fn peer(&self) -> &VerifiedPeer {
        &self.0.entry.peer
    }

    /// Whether the trust has ended, and why. One atomic read: cheap enough before every packet.
    pub fn cut(&self) -> Option<Cut> {
        decode(self.0.entry.cut.load(Ordering::Acquire))
    }

    /// Why the trust has ended, in the words that a refusal would have; `None` if it has not.
    pub fn cut_words(&self) -> Option<String> {
        let entry = &self.0.entry;
        let (cut, why) = (self.cut()?, entry.why.get()?);
        Some(match cut {
            Cut::CaDeleted => format!("{why} any more; CA {} did", entry.peer.ca_sn()),
            _ => why.to_string(),
        })
    }

    /// Note what the peer calls itself. The first word counts.
    pub fn is_called(&self, name: &str, address: SocketAddr) {
        let _ = self.0.entry.called.set(Called {
            name: name.into(),
            address,
        });
    }

    /// Resolves when the trust ends, at once if it already has. It looks each time that it is polled,
    /// whatever for: a peer may have been told and not yet been woken for it. Cancel safe.
    pub async fn until_cut(&self) -> Cut {
        let told = self.0.entry.told.notified();
        tokio::pin!(told);
        std::future::poll_fn(|context| {
            loop {
                if let Some(cut) = self.cut() {
                    return Poll::Ready(cut);
                }
                std::task::ready!(told.as_mut().poll(context));
                told.set(self.0.entry.told.notified());
            }
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let entry = &self.entry;
        for key in entry.peer.path() {
            leave(&self.index.by_key, key, entry.number);
        }
        let device = entry.peer.admitted().device();
        leave(&self.index.by_device, device, entry.number);
        self.index.ends().remove(&entry.end());
        self.index.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where the verifier leaves the peer that it accepted, for the connection it runs in.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerSlot(Arc<OnceLock<VerifiedPeer>>);

impl PeerSlot {
    /// A connection has one client certificate; rustls does not renegotiate.
    pub(crate) fn fill(&self, peer: VerifiedPeer) -> Result<(), VerifiedPeer> {
        self.0.set(peer)
    }

    pub(crate) fn peer(&self) -> Option<&VerifiedPeer> {
        self.0.get()
    }
}

fn leave<K, S>(map: &DashMap<K, BTreeMap<u64, Arc<Entry>>, S>, key: &K, number: u64)
where
    K: std::hash::Hash + Eq,
    S: std::hash::BuildHasher + Clone,
{
    if let Some(mut entries) = map.get_mut(key) {
        entries.remove(&number);
    }
    map.remove_if(key, |_, entries| entries.is_empty());
}

fn cut_all(
    entries: impl IntoIterator<Item = Arc<Entry>>,
    objection: impl Fn(&Admitted) -> Option<Refusal>,
    waves: &Waves,
) -> usize {
    let entries = entries.into_iter();
    // Mostly all of them have the same: in memory it is once, and not in ten thousand pieces that have
    // to be found, and freed one by one.
    let mut known: Option<(Arc<Entry>, Arc<Refusal>)> = None;
    let told = entries.filter(|entry| {
        if let Some((other, why)) = &known
            && matches!(**why, Refusal::CaInactive { .. })
            && Way::is_same(&other.way, &entry.way)
        {
            return entry.tell(Arc::clone(why));
        }
        let Some(refusal) = objection(entry.peer.admitted()) else {
            return false;
        };
        let why = match known.take() {
            Some((_, known)) if *known == refusal => known,
            Some(_) | None => Arc::new(refusal),
        };
        known = Some((Arc::clone(entry), Arc::clone(&why)));
        entry.tell(why)
    });
    let told: Vec<_> = told.collect();
    let count = told.len();
    waves.wake(told);
    count
}

fn encode(cut: Cut) -> u8 {
    match cut {
        Cut::CaInactive => 1,
        Cut::CaDeleted => 2,
        Cut::DeviceInactive => 3,
        Cut::Expired => 4,
        Cut::Revoked => 5,
        Cut::NoCrl => 6,
    }
}

fn decode(code: u8) -> Option<Cut> {
    match code {
        1 => Some(Cut::CaInactive),
        2 => Some(Cut::CaDeleted),
        3 => Some(Cut::DeviceInactive),
        4 => Some(Cut::Expired),
        5 => Some(Cut::Revoked),
        6 => Some(Cut::NoCrl),
        _ => None,
    }
}
