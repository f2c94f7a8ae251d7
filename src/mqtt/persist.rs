//! Sessions and retained messages across restarts.
//!
//! What is on disk of a session is there only while its client is away. Before a client gets its
//! session back, the session is forgotten on disk, and that is waited for. So a crash never brings
//! back what a client has seen more of: no QoS 2 message is delivered twice, no acknowledged
//! subscription is missing. What a crash can lose:
//!
//! - the sessions of the clients that are connected (CONNACK tells them: no session present),
//! - sessions of clients that left, messages that were queued, and retained messages that were set
//!   or cleared since the last round of writing (`store.checkpoint_seconds`).
//!
//! A clean shutdown ends all connections, and then writes all there is.

mod changed;
mod record;
mod restore;
mod round;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use self::changed::Changed;
use super::session::Session;
use super::session::kept::Calendar;
use super::topics::TopicName;
use crate::control::Clock;
use crate::store::Durable;
use crate::store::sessions::SessionStore;
use crate::store::sessions::record::Write;

pub use self::restore::Restored;
pub(super) use self::restore::restore;
pub use self::round::Missed;
#[cfg(test)]
pub(super) use self::round::round;
pub(super) use self::round::{finish, keep_writing};

/// What keeps the sessions of a broker, if anything does.
#[derive(Default)]
pub struct Keeper {
    keeping: Keeping,
}

#[derive(Default)]
enum Keeping {
    /// All ends with the process.
    #[default]
    Off,
    On(Box<On>),
}

struct On {
    store: Arc<dyn SessionStore>,
    clock: Clock,
    every: Duration,
    /// Whose retained messages are to be written.
    retained: Mutex<Changed>,
    /// The store's failures that have been made up for.
    made_up_for: AtomicU64,
    /// How far the calendar was ahead of the broker's clock when all that is on disk was written or
    /// read, in milliseconds.
    ahead: Mutex<Option<i64>>,
    /// What marked the retained messages when all of them were written.
    mark: AtomicI64,
    /// What was given to the store since it was last known to be on disk.
    unconfirmed: Mutex<Missed>,
    /// Whose turn it is to write.
    turn: tokio::sync::Mutex<()>,
}

/// A session is being forgotten on disk.
pub type Forgetting = Pin<Box<dyn Future<Output = Durable> + Send>>;

impl Keeper {
    /// Keep nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Keep everything in this store, and write what has changed so often.
    pub fn on(store: Arc<dyn SessionStore>, clock: Clock, every: Duration) -> Self {
        Self {
            keeping: Keeping::On(Box::new(On {
                store,
                clock,
                every,
                retained: Mutex::default(),
                made_up_for: AtomicU64::new(0),
                ahead: Mutex::default(),
                mark: AtomicI64::new(0),
                unconfirmed: Mutex::default(),
                turn: tokio::sync::Mutex::default(),
            })),
        }
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.get().is_some()
    }

    /// Have a session forgotten on disk, if it is there, because it is over or in use again. It is
    /// locked meanwhile, so that what a round writes of it comes before or not at all.
    pub fn forget(&self, session: &mut Session) -> Option<Forgetting> {
        let on = self.get()?;
        if !session.is_on_disk() {
            return None;
        }
        session.forget_on_disk();
        Some(on.store.forget(session.key().0))
    }

    /// The will of a session was published, which goes on being away.
    pub fn will_gone(&self, session: &Session) {
        if let Some(on) = self.get()
            && session.is_on_disk()
        {
            on.store.write(Write::WillGone(session.key().0));
        }
    }

    /// The retained message of a topic was set or cleared. Topics of the broker are not kept: what
    /// they say holds for this process.
    pub fn retained_changed(&self, topic: &TopicName) {
        if let Some(on) = self.get()
            && !topic.is_reserved()
        {
            on.retained().add(topic);
        }
    }

    fn get(&self) -> Option<&On> {
        match &self.keeping {
            Keeping::Off => None,
            Keeping::On(on) => Some(on),
        }
    }
}

impl On {
    fn unconfirmed(&self) -> MutexGuard<'_, Missed> {
        lock(&self.unconfirmed)
    }

    fn retained(&self) -> MutexGuard<'_, Changed> {
        lock(&self.retained)
    }

    /// What is on disk was read by this calendar.
    fn was_read(&self, calendar: Calendar) {
        *lock(&self.ahead) = Some(calendar.ahead());
        self.mark.fetch_max(calendar.unix_ms, Ordering::AcqRel);
    }

    /// Whether the calendar is another one than that by which all on disk was written. From now on
    /// this one is.
    fn clock_was_set(&self, calendar: Calendar) -> bool {
        let now = calendar.ahead();
        let mut ahead = lock(&self.ahead);
        match *ahead {
            Some(then) if then.abs_diff(now) <= TOLERANCE_MS => false,
            then => {
                *ahead = Some(now);
                then.is_some()
            }
        }
    }

    /// A mark that nothing on disk has, also if the clock stands still or goes back.
    fn next_mark(&self, calendar: Calendar) -> i64 {
        let last = self.mark.load(Ordering::Acquire);
        let next = last.saturating_add(1).max(calendar.unix_ms);
        self.mark.store(next, Ordering::Release);
        next
    }

    /// This moment, which is `now` on the broker's clock.
    fn calendar(&self, now: u64) -> Calendar {
        let since = (self.clock)()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Calendar {
            now,
            unix_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far the two clocks may drift apart before all is written anew: what is on disk has the times
/// of the wall clock, the broker goes by one that cannot be set.
const TOLERANCE_MS: u64 = 5_000;
