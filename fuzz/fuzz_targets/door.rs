//! Octets that arrive at the admin address: whatever they are, they are answered as the SDKs want
//! it or not at all, the same each time, and nothing is carried out that nobody signed.
#![no_main]

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use portcullis::admin::action::Action;
use portcullis::admin::fuzzing::Door;
use portcullis::admin::operations::{Execute, Outcome};
use portcullis::admin::params::Params;
use portcullis::admin::router::{Api, RequestLimits};
use portcullis::admin::service::{Service, ServiceSettings};
use portcullis::config::secret::Secret;
use portcullis::control::Caller;
use portcullis_fuzz::{NOW_MS, authenticator};
use serde_json::Value;

struct Never;

impl Execute for Never {
    fn execute(
        &self,
        _: Caller,
        action: Action,
        _: Params,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        panic!("{action:?} is carried out, and nobody knows the secret");
    }
}

static DOOR: LazyLock<Door> = LazyLock::new(|| {
    let mut secret = [0; 32];
    // Nobody, and no input, knows this one.
    std::io::Read::read_exact(
        &mut std::fs::File::open("/dev/urandom").unwrap(),
        &mut secret,
    )
    .unwrap();
    Door::new(Api {
        service: Arc::new(Service::new(Arc::new(Never), ServiceSettings::default())),
        authenticator: authenticator(Secret::new(hex::encode(secret))),
        owner: Arc::new(|_| None),
        only_instance: None,
        ready: Arc::new(|| Ok(())),
        metrics: Arc::new(|| "portcullis_up 1\n".to_owned()),
        clock: Arc::new(|| UNIX_EPOCH + Duration::from_millis(NOW_MS.unsigned_abs())),
        limits: RequestLimits::default(),
    })
});

/// Status and code of each answer on the connection, in order.
fn answers(octets: &[u8]) -> Vec<(u16, String)> {
    let sent = DOOR.answer(octets);
    let text = String::from_utf8(sent).expect("answers are UTF-8");
    let mut rest = text.as_str();
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (head, after) = rest.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap();
        assert!(first.starts_with("HTTP/1."), "{first}");
        let status: u16 = first.split(' ').nth(1).unwrap().parse().unwrap();
        let field = |wanted: &str| {
            head.split("\r\n")
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value)
        };
        assert!(field("location").is_none(), "{head}");
        if status == 100 {
            rest = after;
            continue;
        }
        let length: usize = field("content-length").map_or(0, |it| it.parse().unwrap());
        // An answer to HEAD has no body, and HTTP says so in words that only its sender knows.
        let whole = after.len() >= length;
        let (body, next) = after.split_at(if whole { length } else { 0 });
        rest = next;
        let code = match field("content-type") {
            Some(kind) if kind.starts_with("application/json") && !body.is_empty() => {
                let body: Value = serde_json::from_str(body).expect("JSON");
                assert!(body.is_object(), "{body}");
                let code = body["Code"].as_str().unwrap_or_default().to_owned();
                if code.is_empty() {
                    assert!(matches!(body["Status"].as_str(), Some("live" | "ready")));
                    assert_eq!(status, 200);
                } else {
                    assert_ne!(status, 200, "{body}");
                    for name in ["Message", "RequestId", "HostId"] {
                        assert!(
                            body[name].as_str().is_some_and(|it| !it.is_empty()),
                            "{body}"
                        );
                    }
                    assert_eq!(field("x-acs-request-id"), body["RequestId"].as_str());
                }
                code
            }
            _ => String::new(),
        };
        all.push((status, code));
    }
    all
}

fuzz_target!(|octets: &[u8]| {
    assert_eq!(answers(octets), answers(octets), "the decision is stable");
});
