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
    /// When a packet came of it last. Any octets count of one that takes nothing any more, and the first ones
    /// after a time in which it was not read.
    heard: Instant,
    /// It is not read, and up to then it is known to have said nothing since it was heard.
    silent_until: Option<Instant>,
    /// The last look was late, and decided nothing.
    in_doubt: bool,
}

impl Patience {
    pub(super) fn new(keep_alive: Option<Duration>, write_timeout: Duration) -> Self {
        Self {
            keep_alive,
            write_timeout,
            heard: Instant::now(),
            silent_until: None,
            in_doubt: false,
        }
    }

    /// When to look again at the latest. What the client is waited for may begin at any time.
    pub(super) fn longest(&self) -> Duration {
        self.keep_alive
            .map_or(self.write_timeout, |limit| limit.min(self.write_timeout))
    }

    /// The client has said something.
    pub(super) fn hear(&mut self) {
        self.heard = Instant::now();
    }

    pub(super) fn is_unread(&self) -> bool {
        self.silent_until.is_some()
    }

    /// The client is read.
    pub(super) fn note_read(&mut self) {
        self.silent_until = None;
    }

    /// The client is not read from now on. `had_said_nothing`: the last look before found nothing of it.
    pub(super) fn note_unread(&mut self, had_said_nothing: bool) {
        if self.silent_until.is_none() {
            self.silent_until = Some(match had_said_nothing && !self.in_doubt {
                true => Instant::now(),
                false => self.heard,
            });
        }
    }

    /// Whether a look that is so late may decide. After a pause of the whole process the time is up for
    /// everybody, but what has come meanwhile is not seen all at once. The next look may in any case.
    fn may_decide(&mut self, late: Duration) -> bool {
        self.in_doubt = late > LATE && !self.in_doubt;
        if self.in_doubt && self.is_unread() {
            self.silent_until = Some(self.heard);
        }
        !self.in_doubt
    }
}

impl<S, P> Connection<'_, S, P> {
    /// When to look again, in a look that was due at that time; or the end, if the client's time is up.
    /// `is_idle`: all is processed that was read.
    pub(super) fn judge(&mut self, due: Instant, is_idle: bool) -> Result<Duration, End> {
        let patience = &mut self.patience;
        let (now, write_timeout) = (Instant::now(), patience.write_timeout);
        if let Some(since) = self.deaf_since {
            // As long as it has something to say, but not for ever.
            let is_over = is_idle && since.max(patience.heard) + FAREWELL_LIMIT <= now;
            return match is_over || since + write_timeout <= now {
                true => Err(End::lost()),
                false => Ok(FAREWELL_LIMIT),
            };
        }
        let late = now - due;
        if !patience.may_decide(late) {
            return Ok(late.min(patience.longest()));
        }
        let stalls_at = self.stalled.map(|since| since + write_timeout);
        if stalls_at.is_some_and(|at| at <= now) {
            return Err(End::silent(Ending::SlowConsumer, Departure::Lost));
        }
        let silent_at = patience.keep_alive.map(|limit| patience.heard + limit);
        let known_until = patience.silent_until.unwrap_or(now);
        if silent_at.is_some_and(|at| at <= known_until) {
            return Err(End::saying(
                Ending::KeepAliveTimeout,
                reason::KEEP_ALIVE_TIMEOUT,
                "nothing came within one and a half times the keep alive",
            ));
        }
        let nearest = match patience.is_unread() {
            true => UNREAD_MIN,
            false => TIMER_MIN,
        };
        let until_silent = silent_at.map(|at| (at - now).max(nearest));
        let until_stalled = stalls_at.map(|at| at - now);
        let next = [until_silent, until_stalled].into_iter().flatten();
        Ok(next.fold(patience.longest(), Duration::min).max(TIMER_MIN))
    }
}

/// The timer is not set nearer than this.
const TIMER_MIN: Duration = Duration::from_millis(10);
/// Nor this, while the client is not read: as soon as it is, it may be known to have been silent.
const UNREAD_MIN: Duration = Duration::from_secs(1);
/// If a look comes so much after its time, the whole process may have been held up.
const LATE: Duration = Duration::from_millis(10);
