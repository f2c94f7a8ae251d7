//! From an HTTP request to a call, and back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Router, extract::Request};
use base64::Engine as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::admin::action::{self, Action};
use crate::admin::command::Owner;
use crate::admin::errors::{ApiError, Code};
use crate::admin::health::{self, Metrics, Ready};
use crate::admin::local::HostUser;
use crate::admin::operations::Outcome;
use crate::admin::params::{Params, ParamsError};
use crate::admin::service::{self, Call, Reply, Service};
use crate::admin::signature::Incoming;
use crate::admin::signature::authenticator::Authenticator;
use crate::ca::id::InstanceId;
use crate::control::{Caller, Clock, Door, Grant, Principal};

/// What requests are bounded by.
#[derive(Debug, Clone)]
pub struct RequestLimits {
    /// Octets of the request target and the header fields. RegisterCaCertificate sends its PEMs
    /// in the target: at least 16 KiB are needed.
    pub head: usize,
    /// Header fields.
    pub headers: usize,
    /// Octets of the body.
    pub body: usize,
    /// How long the body may take.
    pub body_timeout: Duration,
    /// Octets of a body that is a CRL, over the local socket.
    pub crl: usize,
    /// Requests that are worked on at a time.
    pub concurrent: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            head: 32 * 1024,
            headers: 100,
            body: 256 * 1024,
            body_timeout: Duration::from_secs(10),
            crl: 192 << 20,
            concurrent: 256,
        }
    }
}

/// What answers requests.
pub struct Api {
    /// Carries out calls.
    pub service: Arc<Service>,
    /// Checks signatures.
    pub authenticator: Authenticator,
    /// Which account owns an instance.
    pub owner: Owner,
    /// The instance that a caller on the host means who names none.
    pub only_instance: Option<InstanceId>,
    /// Whether the broker can serve.
    pub ready: Ready,
    /// The metrics.
    pub metrics: Metrics,
    /// Tells the time.
    pub clock: Clock,
    /// What requests are bounded by.
    pub limits: RequestLimits,
}

struct Shared {
    api: Api,
    working: Semaphore,
    /// Held by the one who sends a large body.
    large: Semaphore,
}

/// All paths of the admin address. A connection must add its peer's address ([`Peer`]).
pub(super) fn router(api: Api) -> Router {
    let health = health::routes(Arc::clone(&api.ready), Arc::clone(&api.metrics));
    let shared = Arc::new(Shared {
        working: Semaphore::new(api.limits.concurrent),
        large: Semaphore::new(1),
        api,
    });
    Router::new()
        .route("/", any(operation))
        .merge(health)
        .method_not_allowed_fallback(not_allowed)
        .fallback(not_found)
        .with_state(shared)
}

/// Who is at the other end of a connection, as far as the connection tells.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// Anybody: requests prove who makes them.
    Network(SocketAddr),
    /// An administrator on the host, as the kernel told.
    Host(HostUser),
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Host(user) => write!(f, "host:{}", user.name()),
        }
    }
}

async fn operation(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    shared
        .answer(&peer, async |call| shared.call(call, &peer, request).await)
        .await
}

async fn not_allowed(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
) -> Response {
    let refused = Err(Code::UnsupportedHttpMethod.into());
    shared.answer(&peer, async |_| refused).await
}

async fn not_found(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
) -> Response {
    let refused = Err(Code::ApiNotFound.into());
    shared.answer(&peer, async |_| refused).await
}

impl Shared {
    /// Give the call an id and a span, and its outcome an answer.
    async fn answer(&self, peer: &Peer, work: impl AsyncFnOnce(&mut Call) -> Outcome) -> Response {
        let request_id = match service::request_id() {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(cause = error.cause, "admin call failed");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        };
        let span = tracing::info_span!(
            "api",
            request.id = %request_id,
            action = tracing::field::Empty,
            access_key.id = tracing::field::Empty,
            client.addr = %peer,
        );
        async {
            let door = match peer {
                Peer::Network(_) => Door::Http,
                Peer::Host(_) => Door::Host,
            };
            let mut call = Call::begin(request_id, door);
            let outcome = work(&mut call).await;
            let reply = self.api.service.finish(&call, outcome);
            response(&call, &reply)
        }
        .instrument(span)
        .await
    }

    async fn call(&self, call: &mut Call, peer: &Peer, request: Request) -> Outcome {
        let (head, body) = request.into_parts();
        self.check_head(&head)?;
        let query = Params::decode(head.uri.query().unwrap_or_default()).map_err(unreadable)?;
        if let (Peer::Host(user), true) = (peer, is_of_type(&head.headers, CRL)) {
            return self.crl_call(call, user, query, body).await;
        }
        let limits = &self.api.limits;
        let body = read(body, limits.body, limits.body_timeout).await?;
        let form = form(&head.headers, &body)?;
        match peer {
            Peer::Network(address) => {
                let incoming = Incoming {
                    method: head.method.as_str(),
                    path: head.uri.path(),
                    query: &query,
                    form: &form,
                    headers: &head.headers,
                    body: &body,
                };
                self.signed_call(call, *address, &incoming).await
            }
            Peer::Host(user) => {
                let params = query.merge(form).map_err(unreadable)?;
                self.host_call(call, user, params).await
            }
        }
    }

    async fn signed_call(
        &self,
        call: &mut Call,
        address: SocketAddr,
        incoming: &Incoming<'_>,
    ) -> Outcome {
        // Only now: whoever sends a body slowly, unproved as it is, takes nobody's turn. Bodies are
        // bounded by their size and by the number of connections.
        let _working = self
            .working
            .try_acquire()
            .map_err(|_| ApiError::from(Code::ServiceUnavailable).retry_after(1000))?;
        let proved = self.api.authenticator.check(incoming, self.now_ms()?)?;
        let signed = proved.signed();
        let span = tracing::Span::current();
        span.record("access_key.id", tracing::field::display(&signed.key.id));
        let account = &signed.key.account;
        let service = &self.api.service;
        let counted = service.count(call, account, &signed.action, &signed.version)?;
        let signed = self.api.authenticator.use_up(proved).await?;
        let caller = Caller {
            principal: Principal::AccessKey(signed.key.id.clone()),
            account: signed.key.account.clone(),
            grant: Grant::Key(Arc::clone(&signed.key.grant)),
            door: Door::Http,
            address: Some(address),
            request_id: call.request_id,
        };
        let params = incoming
            .query
            .clone()
            .merge(incoming.form.clone())
            .map_err(unreadable)?;
        check_format(&params)?;
        service
            .run(call, counted, caller, &signed.action, params)
            .await
    }

    /// A call over the local socket whose body is a CRL (RFC 2585, section 4.2), which may be
    /// large: the other parameters are in the query.
    async fn crl_call(
        &self,
        call: &mut Call,
        user: &HostUser,
        mut params: Params,
        body: Body,
    ) -> Outcome {
        let _alone = self.large.acquire().await;
        let content = read(body, self.api.limits.crl, LARGE_BODY_TIMEOUT).await?;
        let content = match std::str::from_utf8(&content) {
            Ok(text) => text.to_owned(),
            Err(_) => base64::engine::general_purpose::STANDARD.encode(&content),
        };
        params
            .insert("CrlContent".to_owned(), content)
            .map_err(unreadable)?;
        self.host_call(call, user, params).await
    }

    /// A call over the local socket: nothing is signed, the kernel has proved the caller.
    async fn host_call(&self, call: &mut Call, user: &HostUser, mut params: Params) -> Outcome {
        let action = params.remove("Action").ok_or(Code::MissingAction)?;
        let parameter = Action::find(&action)
            .and_then(Action::instance_parameter)
            .unwrap_or("MqttInstanceId");
        if let (None, Some(only)) = (params.get(parameter), &self.api.only_instance) {
            params
                .insert(parameter.to_owned(), only.to_string())
                .map_err(unreadable)?;
        }
        // What is bound to an account, such as a register code, belongs to the instance's owner.
        let owner = params
            .get(parameter)
            .and_then(|id| id.parse().ok())
            .and_then(|id| (self.api.owner)(&id));
        let account = match owner {
            Some(owner) => owner,
            None => HOST_ACCOUNT
                .parse()
                .map_err(|_| ApiError::internal("the account of the host has no name"))?,
        };
        let caller = Caller {
            principal: Principal::Host(user.name().to_owned()),
            account,
            grant: Grant::Everything,
            door: Door::Host,
            address: None,
            request_id: call.request_id,
        };
        let service = &self.api.service;
        let counted = service.count(call, &caller.account, &action, action::VERSION)?;
        service.run(call, counted, caller, &action, params).await
    }

    fn check_head(&self, head: &Parts) -> Result<(), ApiError> {
        if ![Method::GET, Method::POST].contains(&head.method) {
            return Err(Code::UnsupportedHttpMethod.into());
        }
        let target = head.uri.path_and_query().map_or(0, |it| it.as_str().len());
        let fields: usize = head
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        let limits = &self.api.limits;
        if target + fields > limits.head || head.headers.len() > limits.headers {
            return Err(Code::HeadTooLarge.into());
        }
        Ok(())
    }

    fn now_ms(&self) -> Result<i64, ApiError> {
        (self.api.clock)()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| i64::try_from(since.as_millis()).ok())
            .ok_or_else(|| ApiError::internal("the clock is before 1970"))
    }
}

async fn read(body: Body, most: usize, timeout: Duration) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(timeout, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Code::BodyTooLarge.into()),
        Ok(Err(_)) => Err(ApiError::with_detail(
            Code::ParameterCheckFailed,
            "The body cannot be read.",
        )),
        Err(_) => Err(Code::RequestTimeout.into()),
    }
}

fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    essence.is_some_and(|it| it.trim().eq_ignore_ascii_case(wanted))
}

/// The parameters in the body. The clients that send an empty body give it any type.
fn form(headers: &HeaderMap, body: &[u8]) -> Result<Params, ApiError> {
    if body.is_empty() {
        return Ok(Params::default());
    }
    if !is_of_type(headers, FORM) {
        return Err(ApiError::with_detail(
            Code::ParameterCheckFailed,
            format!("A body must be of the type {FORM}."),
        ));
    }
    let text = std::str::from_utf8(body).map_err(|_| unreadable(ParamsError::NotUtf8))?;
    Params::decode(text).map_err(unreadable)
}

/// Stands for the account of a caller on the host where no instance is named.
const HOST_ACCOUNT: &str = "host";
/// The older clients say which format they want; answers are JSON and nothing else.
fn check_format(params: &Params) -> Result<(), ApiError> {
    match params.get("Format") {
        None | Some("") => Ok(()),
        Some(format) if format.eq_ignore_ascii_case("JSON") => Ok(()),
        Some(_) => Err(ApiError::with_detail(
            Code::InvalidParameterFormat,
            "Format must be JSON.",
        )),
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

/// A body that is a CRL, in DER or PEM.
pub(crate) const CRL: &str = "application/pkix-crl";

/// How long a large body may take.
const LARGE_BODY_TIMEOUT: Duration = Duration::from_secs(60);

fn unreadable(error: ParamsError) -> ApiError {
    ApiError::with_detail(Code::ParameterCheckFailed, format!("{error}."))
}

fn response(call: &Call, reply: &Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_response(status, &reply.body);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&call.request_id.to_string()) {
        headers.insert("x-acs-request-id", id);
    }
    if let Some(milliseconds) = reply.retry_after_ms {
        headers.insert("x-acs-retry-after", HeaderValue::from(milliseconds));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}

/// A JSON answer that nobody may keep.
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body.to_string()).into_response()
}
