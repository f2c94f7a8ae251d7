//! `/live`, `/ready` and `/metrics`: not signed, so that probes and scrapers need no key.
//!
//! They tell nothing of what is registered.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::router::json_response;

/// Says whether the broker can serve, and if not, why, in words for an operator.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Gives the metrics in Prometheus' text format.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// The three paths.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(
    ready: Ready,
    metrics: Metrics,
) -> Router<S> {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(move || answer_ready(ready)))
        .route("/metrics", get(move || answer_metrics(metrics)))
}

async fn live() -> Response {
    json_response(StatusCode::OK, &json!({ "Status": "live" }))
}

async fn answer_ready(ready: Ready) -> Response {
    match ready() {
        Ok(()) => json_response(StatusCode::OK, &json!({ "Status": "ready" })),
        Err(why) => json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "Status": "not ready", "Reason": why }),
        ),
    }
}

async fn answer_metrics(metrics: Metrics) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], metrics()).into_response()
}
