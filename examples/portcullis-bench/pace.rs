//! Ticks of the system's clock, which say when they were due. Those of tokio are whole milliseconds that
//! come too late by up to one, so that every now and then there are two at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::Result;

/// A tick after each such time. None is lost: who is late is told all of them, and when they were due.
pub struct Ticks {
    clock: Arc<Clock>,
    began: Instant,
    each: Duration,
    taken: u32,
}

#[derive(Default)]
struct Clock {
    ticks: AtomicU32,
    changed: Notify,
}

impl Ticks {
    pub fn each(each: Duration) -> Result<Self> {
        let (clock, began) = (Arc::new(Clock::default()), Instant::now());
        let weak = Arc::downgrade(&clock);
        thread::Builder::new().spawn(move || tick(&weak, began, each))?;
        Ok(Self {
            clock,
            began,
            each,
            taken: 0,
        })
    }

    /// Wait until one is due at least; gives when each was that has not been told.
    pub async fn due(&mut self) -> impl Iterator<Item = Instant> {
        let first = self.taken + 1;
        while self.clock.ticks.load(Ordering::Acquire) < first {
            self.clock.changed.notified().await;
        }
        self.taken = self.clock.ticks.load(Ordering::Acquire);
        let (began, each) = (self.began, self.each);
        (first..=self.taken).map(move |number| began + each * number)
    }
}

/// Until there is nobody any more who could wait for it.
fn tick(clock: &Weak<Clock>, began: Instant, each: Duration) {
    for number in 1.. {
        thread::sleep((began + each * number).saturating_duration_since(Instant::now()));
        let Some(clock) = clock.upgrade() else {
            return;
        };
        clock.ticks.store(number, Ordering::Release);
        clock.changed.notify_one();
    }
}
