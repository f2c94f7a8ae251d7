//! How long a client is waited for: until it says something, takes something, or has said its last.

use std::time::Duration;

use tokio::time::Instant;

use super::end::End;
use super::{Connection, FAREWELL_LIMIT};
use crate::mqtt::metrics::Ending;
use crate::mqtt::session::Departure;
use crate::mqtt::wire::reason;

pub(super) struct Patience {
    /// How long the client may say nothing (MQTT 3.1.2.10).
    keep_alive: Option<Duration>,
    /// How long it may take nothing.
    write_timeout: Duration,
    /// When a packet came of it last, or was read again after it had to wait.
    pub(super) heard: Instant,
    /// The last look found its time to be up, and was itself late.
    in_doubt: bool,
}

impl Patience {
    pub(super) fn new(keep_alive: Option<Duration>, write_timeout: Duration) -> Self {
        Self {
            keep_alive,
            write_timeout,
            heard: Instant::now(),
            in_doubt: false,
        }
    }

    /// When to look again at the latest. What the client is waited for may begin at any time.
    pub(super) fn longest(&self) -> Duration {
        self.keep_alive
            .map_or(self.write_timeout, |limit| limit.min(self.write_timeout))
    }

    /// Whether the broker itself may have been kept from hearing the client. After a pause of the whole
    /// process what has come meanwhile is not seen all at once, but the time is up for everybody.
    fn may_be_unheard(&mut self, late: Duration) -> bool {
        let is_first = !std::mem::replace(&mut self.in_doubt, true);
        is_first && late > TIMER_MIN
    }
}

impl<S, P> Connection<'_, S, P> {
    /// When to look again, in a look that was due at that time; or the end, if the client's time is up.
    /// `may_read` is whether it is read, and `is_idle` whether nothing waits of what was read.
    pub(super) fn judge(
        &self,
        patience: &mut Patience,
        due: Instant,
        may_read: bool,
        is_idle: bool,
    ) -> Result<Duration, End> {
        let (now, write_timeout) = (Instant::now(), patience.write_timeout);
        if let Some(since) = self.deaf_since {
            // As long as it has something to say, but not for ever.
            let is_over = is_idle && since.max(patience.heard) + FAREWELL_LIMIT <= now;
            return match is_over || since + write_timeout <= now {
                true => Err(End::lost()),
                false => Ok(FAREWELL_LIMIT),
            };
        }
        let stalls_at = self.stalled.map(|since| since + write_timeout);
        let silent_at = patience
            .keep_alive
            .filter(|_| may_read)
            .map(|limit| patience.heard + limit);
        let ends_at = [stalls_at, silent_at].into_iter().flatten().min();
        let Some(ends_at) = ends_at.filter(|at| *at <= now) else {
            patience.in_doubt = false;
            let next = ends_at.map_or(patience.longest(), |at| at - now);
            return Ok(next.min(patience.longest()).max(TIMER_MIN));
        };
        let late = now - due;
        if patience.may_be_unheard(late) {
            return Ok(late.min(patience.longest()));
        }
        Err(match Some(ends_at) == stalls_at {
            true => End::silent(Ending::SlowConsumer, Departure::Lost),
            false => End::saying(
                Ending::KeepAliveTimeout,
                reason::KEEP_ALIVE_TIMEOUT,
                "nothing came within one and a half times the keep alive",
            ),
        })
    }
}

/// The timer is not set nearer than this.
const TIMER_MIN: Duration = Duration::from_millis(10);
