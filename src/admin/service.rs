//! One call of the API behind either door: rate, name, execution, answer, log.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admin::action::{self, Action};
use crate::admin::errors::{ApiError, Code, StatusProfile};
use crate::admin::metrics;
use crate::admin::operations::{Execute, Outcome};
use crate::admin::params::Params;
use crate::admin::rate_limit::RateLimit;
use crate::ca::id::{AccountId, RequestId};
use crate::control::{Caller, Door};

/// How calls are answered.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    /// Which list of HTTP statuses is used.
    pub statuses: StatusProfile,
    /// `HostId` in refusals: the name of this endpoint.
    pub host_id: String,
    /// Calls per second for each account. Default of the vendor: 500.
    pub calls_per_second: NonZeroU32,
    /// How long a caller waits for a call. The call itself goes on.
    pub call_timeout: Duration,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            statuses: StatusProfile::Documented,
            host_id: "portcullis".to_owned(),
            calls_per_second: NonZeroU32::MIN.saturating_add(499),
            call_timeout: Duration::from_secs(30),
        }
    }
}

/// Carries out calls; shared by the doors.
pub struct Service {
    operations: Arc<dyn Execute>,
    limit: RateLimit,
    settings: ServiceSettings,
}

/// Shows that a call was counted against the rate of its account.
#[derive(Debug)]
pub struct Counted(());

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Never empty; an object.
    pub body: Value,
    /// Set if the caller is to come again later.
    pub retry_after_ms: Option<u64>,
}

/// What is known of a call when it is answered.
#[derive(Debug)]
pub struct Call {
    /// Its id.
    pub request_id: RequestId,
    /// The door it came through.
    pub door: Door,
    /// The operation, once it is known.
    pub action: Option<Action>,
    /// When it began.
    pub began: Instant,
}

impl Call {
    /// A call that begins now.
    pub fn begin(request_id: RequestId, door: Door) -> Self {
        Self {
            request_id,
            door,
            action: None,
            began: Instant::now(),
        }
    }
}

impl Service {
    /// Carry out calls with `operations`.
    pub fn new(operations: Arc<dyn Execute>, settings: ServiceSettings) -> Self {
        Self {
            operations,
            limit: RateLimit::per_second(settings.calls_per_second),
            settings,
        }
    }

    /// Note what is called, and count the call before anything else is done for it.
    ///
    /// # Errors
    /// If the account calls too often.
    pub fn count(
        &self,
        call: &mut Call,
        account: &AccountId,
        action: &str,
        version: &str,
    ) -> Result<Counted, ApiError> {
        call.action = Action::find(action)
            .filter(|it| version == action::VERSION && it.is_open_to(call.door));
        if let Some(action) = call.action {
            tracing::Span::current().record("action", action.name());
        }
        match call.door {
            Door::Http | Door::Mqtt => self.limit.check(account)?,
            // Nobody else's calls keep an operator on the host from acting.
            Door::Host | Door::System => {}
        }
        Ok(Counted(()))
    }

    /// What refusals call this endpoint.
    pub(super) fn host_id(&self) -> &str {
        &self.settings.host_id
    }

    /// Carry out the call of an authenticated caller. It goes on if the caller goes away.
    ///
    /// # Errors
    /// If it is refused or fails; also if the code that carries it out panics.
    pub async fn run(
        &self,
        call: &Call,
        Counted(()): Counted,
        caller: Caller,
        action: &str,
        params: Params,
    ) -> Outcome {
        let Some(action) = call.action else {
            return Err(match action::is_unsupported(action) {
                true => ApiError {
                    detail: action::in_place_of(action).map(str::to_owned),
                    ..Code::ApiNotSupport.into()
                },
                false => ApiError::with_detail(
                    Code::ApiNotFound,
                    format!("The version of this API is {}.", action::VERSION),
                ),
            });
        };
        let task = tokio::spawn(tracing::Instrument::in_current_span(
            self.operations.execute(caller, action, params),
        ));
        match tokio::time::timeout(self.settings.call_timeout, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(failed)) if failed.is_panic() => Err(ApiError::internal("the call panicked")),
            Ok(Err(_)) => Err(Code::ServiceUnavailable.into()),
            Err(_) => Err(ApiError::with_detail(
                Code::ServiceUnavailable,
                "The call takes too long and goes on; look up its outcome before you repeat it.",
            )),
        }
    }

    /// Make the answer, and log and count the call.
    pub fn finish(&self, call: &Call, outcome: Outcome) -> Reply {
        let elapsed = call.began.elapsed();
        let (reply, code) = match outcome {
            Ok(mut body) => {
                if let Value::Object(fields) = &mut body {
                    fields.insert("RequestId".to_owned(), json!(call.request_id.to_string()));
                }
                let reply = Reply {
                    status: 200,
                    body,
                    retry_after_ms: None,
                };
                (reply, None)
            }
            Err(error) => {
                let reply = Reply {
                    status: error.code.status(self.settings.statuses, call.action),
                    body: error.body(call.request_id, &self.settings.host_id),
                    retry_after_ms: error.retry_after_ms,
                };
                (reply, Some(error))
            }
        };
        log(reply.status, code.as_ref(), elapsed);
        metrics::call(
            call.door,
            call.action,
            code.map(|error| error.code),
            elapsed,
        );
        reply
    }
}

/// One event a call, inside its span. Details of refusals may hold what the caller sent, so
/// that only the code is logged.
fn log(status: u16, error: Option<&ApiError>, elapsed: Duration) {
    let elapsed_ms = elapsed.as_secs_f64() * 1000.0;
    match error {
        None => tracing::info!(status, elapsed_ms, "admin call done"),
        Some(error) => {
            let code = error.code.as_str();
            match &error.cause {
                Some(cause) => {
                    tracing::error!(status, code, cause, elapsed_ms, "admin call failed")
                }
                None => tracing::info!(status, code, elapsed_ms, "admin call refused"),
            }
        }
    }
}

/// A request id that nobody can guess.
///
/// # Errors
/// If the system gives no random numbers.
pub fn request_id() -> Result<RequestId, ApiError> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| ApiError::internal("the system's random number generator failed"))?;
    Ok(RequestId::from_random(random))
}
