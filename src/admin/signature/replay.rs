//! A request is carried out once: also across a restart, a crash, a clock that is set back.
//!
//! A nonce is remembered in memory, then on disk, then its request is carried out. Where it cannot
//! be proved that a request is new, because the disk fails, or because what was remembered of its
//! time is gone, it must not allow anything; but nobody is kept from reading and denying.

use std::pin::Pin;
use std::sync::Arc;

use time::OffsetDateTime;

use super::nonce::{NonceCache, Seen, UsedNonce, minute};
use super::{MAX_SKEW_MS, format_date};
use crate::admin::action::{Action, WhenUnproved};
use crate::admin::errors::{ApiError, Code};
use crate::admin::metrics::{self, Unproved};
use crate::ca::id::AccessKeyId;

/// Makes used nonces outlive the process.
pub trait KeepNonces: Send + Sync + 'static {
    /// Keep the nonce until its minute has passed; durable when it answers [`Kept::Yes`]. What
    /// had to be kept until a minute before `forgotten` may be dropped, and that is kept as well.
    ///
    /// It answers in a bounded time, whatever becomes of the disk, and goes on trying to write
    /// what it answered [`Kept::No`] to, as long as it has room for it.
    fn keep(
        &self,
        nonce: UsedNonce,
        forgotten: i64,
    ) -> Pin<Box<dyn Future<Output = Kept> + Send + '_>>;
}

/// Whether a nonce is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In memory only.
    No,
    /// It is.
    Yes,
}

/// Lets each signed request through once.
pub struct ReplayGuard {
    cache: NonceCache,
    keeper: Arc<dyn KeepNonces>,
}

/// 30 minutes at the default of 500 calls a second.
const MOST_NONCES: usize = 1_000_000;

impl ReplayGuard {
    /// A guard that remembers what was kept before: see [`NonceCache::restore`].
    pub fn new(
        keeper: Arc<dyn KeepNonces>,
        forgotten: i64,
        nonces: impl IntoIterator<Item = UsedNonce>,
    ) -> Self {
        let cache = NonceCache::new(MOST_NONCES);
        cache.restore(forgotten, nonces);
        Self { cache, keeper }
    }

    /// Refuse a request that is known to have been carried out. Costs nothing, and uses nothing up.
    ///
    /// # Errors
    /// `SignatureNonceUsed`.
    pub(super) fn refuse_known(&self, key: &AccessKeyId, nonce: &str) -> Result<(), ApiError> {
        match self.cache.is_used(key, nonce) {
            true => Err(Code::SignatureNonceUsed.into()),
            false => Ok(()),
        }
    }

    /// Use the nonce up. When it returns `Ok`, the request may be carried out, once.
    ///
    /// # Errors
    /// If it was carried out before, or may have been and would allow something.
    pub(super) async fn use_up(&self, request: Request<'_>) -> Result<(), ApiError> {
        let Request {
            key,
            nonce,
            now_ms,
            signed_at_ms,
            action,
        } = request;
        let expires_ms = signed_at_ms.saturating_add(MAX_SKEW_MS);
        let (used, unproved) = match self.cache.mark(key, nonce, now_ms, expires_ms) {
            Seen::First(used) => (used, None),
            Seen::Unknown(used) => (used, Some(Unproved::Forgotten)),
            Seen::Again => return Err(Code::SignatureNonceUsed.into()),
            Seen::TooLate => return Err(Code::TimeStampExpired.into()),
            Seen::Full => return Err(ApiError::from(Code::ThrottlingUser).retry_after(60_000)),
        };
        let kept = self.keeper.keep(used, self.cache.forgotten()).await;
        let unproved = match kept {
            Kept::No => unproved.or(Some(Unproved::NotKept)),
            Kept::Yes => unproved,
        };
        match unproved {
            None => Ok(()),
            Some(why) => self.unproved(why, action),
        }
    }

    fn unproved(&self, why: Unproved, action: &str) -> Result<(), ApiError> {
        metrics::unproved(why);
        // What is no operation is refused later, with its own words.
        let when = Action::find(action).map_or(WhenUnproved::CarryOut, Action::when_unproved);
        match when {
            WhenUnproved::CarryOut => {
                tracing::warn!(
                    reason = why.as_str(),
                    "a request is carried out although it could be a repeated one: it denies, or reads"
                );
                Ok(())
            }
            WhenUnproved::Refuse => Err(ApiError::with_detail(
                Code::ServiceUnavailable,
                match why {
                    Unproved::NotKept => NOT_KEPT.to_owned(),
                    Unproved::Forgotten => self.forgotten_text(),
                },
            )),
        }
    }

    fn forgotten_text(&self) -> String {
        // From then on, every request in time must be remembered for longer than was forgotten.
        let from_ms = self
            .cache
            .forgotten()
            .saturating_mul(60_000)
            .saturating_sub(MAX_SKEW_MS);
        let from = OffsetDateTime::from_unix_timestamp(from_ms.div_euclid(1000));
        let from = from.map_or_else(|_| "later".to_owned(), format_date);
        format!(
            "It is not known any more which requests of this time were carried out (the record was lost, or the clock was set back), so only those that deny or read are, until {from}."
        )
    }
}

impl std::fmt::Debug for ReplayGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplayGuard").finish_non_exhaustive()
    }
}

/// What the guard must know of a request.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) key: &'a AccessKeyId,
    pub(super) nonce: &'a str,
    pub(super) now_ms: i64,
    pub(super) signed_at_ms: i64,
    pub(super) action: &'a str,
}

const NOT_KEPT: &str = "It cannot be written to disk that this request was carried out, so only requests that deny or read are. The log of the broker says why.";

/// The minute before which nothing can be proved, if what was remembered until `now_ms` is lost:
/// a request that was signed by a clock as far ahead as may be could be repeated until then.
pub fn lost_before(now_ms: i64) -> i64 {
    minute(now_ms.saturating_add(2 * MAX_SKEW_MS)).saturating_add(1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Keeps nonces in memory, or fails to.
    #[derive(Debug, Default)]
    pub(crate) struct TestKeeper {
        pub(crate) broken: AtomicBool,
        pub(crate) kept: Mutex<Vec<UsedNonce>>,
    }

    impl KeepNonces for TestKeeper {
        fn keep(
            &self,
            nonce: UsedNonce,
            _forgotten: i64,
        ) -> Pin<Box<dyn Future<Output = Kept> + Send + '_>> {
            Box::pin(async move {
                if self.broken.load(Ordering::Relaxed) {
                    return Kept::No;
                }
                self.kept.lock().unwrap().push(nonce);
                Kept::Yes
            })
        }
    }

    const NOW: i64 = 1_795_509_582_000;

    async fn call(guard: &ReplayGuard, action: &str, nonce: &str, now_ms: i64) -> Option<Code> {
        let request = Request {
            key: &"k".parse().unwrap(),
            nonce,
            now_ms,
            signed_at_ms: now_ms,
            action,
        };
        guard.use_up(request).await.err().map(|error| error.code)
    }

    #[tokio::test]
    async fn request_is_carried_out_once_also_by_the_next_process() {
        let keeper = Arc::new(TestKeeper::default());
        let guard = ReplayGuard::new(keeper.clone(), 0, []);
        assert_eq!(call(&guard, "ActiveCaCertificate", "n", NOW).await, None);
        let again = Some(Code::SignatureNonceUsed);
        assert_eq!(call(&guard, "ActiveCaCertificate", "n", NOW).await, again);
        let kept = keeper.kept.lock().unwrap().clone();
        assert_eq!(kept.len(), 1);
        let next = ReplayGuard::new(keeper, 0, kept);
        assert_eq!(call(&next, "ActiveCaCertificate", "n", NOW).await, again);
        assert!(next.refuse_known(&"k".parse().unwrap(), "n").is_err());
        assert_eq!(call(&next, "ActiveCaCertificate", "m", NOW).await, None);
    }

    #[tokio::test]
    async fn what_cannot_be_kept_may_deny_and_read_but_not_allow() {
        let keeper = Arc::new(TestKeeper::default());
        let guard = ReplayGuard::new(keeper.clone(), 0, []);
        keeper.broken.store(true, Ordering::Relaxed);
        for (number, action) in Action::ALL.iter().enumerate() {
            let refused = match action.when_unproved() {
                WhenUnproved::Refuse => Some(Code::ServiceUnavailable),
                WhenUnproved::CarryOut => None,
            };
            let nonce = number.to_string();
            assert_eq!(call(&guard, action.name(), &nonce, NOW).await, refused);
            // Either way it was good once.
            let again = Some(Code::SignatureNonceUsed);
            assert_eq!(call(&guard, action.name(), &nonce, NOW).await, again);
        }
        keeper.broken.store(false, Ordering::Relaxed);
        assert_eq!(call(&guard, "ActiveCaCertificate", "n", NOW).await, None);
    }

    #[tokio::test]
    async fn nothing_is_allowed_until_no_request_from_before_the_loss_is_in_time() {
        let guard = ReplayGuard::new(Arc::new(TestKeeper::default()), lost_before(NOW), []);
        let mut number = 0;
        let mut activate = async |signed_at_ms: i64, now_ms: i64| {
            number += 1;
            let request = Request {
                key: &"k".parse().unwrap(),
                nonce: &number.to_string(),
                now_ms,
                signed_at_ms,
                action: "ActiveCaCertificate",
            };
            guard.use_up(request).await
        };
        let refused = activate(NOW, NOW).await.unwrap_err();
        assert_eq!(refused.code, Code::ServiceUnavailable);
        let text = refused.message();
        // The time at which the same request, signed then, is carried out.
        assert!(text.contains("until 2026-11-24T08:55:00Z."), "{text}");
        let then = super::super::parse_date("2026-11-24T08:55:00Z").unwrap();
        assert!(activate(then - 1, then - 1).await.is_err());
        assert!(activate(then, then).await.is_ok());
        // Signed before the loss by a clock that was as far ahead as may be.
        assert!(
            activate(NOW + MAX_SKEW_MS, NOW + 2 * MAX_SKEW_MS)
                .await
                .is_err()
        );
        assert_eq!(
            call(&guard, "InactivateCaCertificate", "d", NOW).await,
            None
        );
        assert_eq!(call(&guard, "ListCaCertificate", "r", NOW).await, None);
    }
}
