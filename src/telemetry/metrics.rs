//! All metric families, with the text that explains them to whoever reads `/metrics`.

use std::sync::{Mutex, OnceLock, PoisonError};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// The recorder of this process, installed by the first caller.
///
/// `None` if something else in the process records metrics already; `/metrics` is empty then.
pub fn install() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    static FIRST: Mutex<()> = Mutex::new(());
    let _first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new()
                .set_buckets(&SECONDS)
                .unwrap_or_else(|_| PrometheusBuilder::new());
            let handle = builder.install_recorder().ok()?;
            describe();
            Some(handle)
        })
        .clone()
}

/// Upper bounds of the histogram buckets, in seconds.
const SECONDS: [f64; 13] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0,
];

macro_rules! families {
    ($($kind:ident $name:literal $help:literal;)*) => {
        /// Names of all metric families.
        pub const FAMILIES: &[&str] = &[$($name),*];

        fn describe() {
            $(metrics::$kind!($name, $help);)*
        }
    };
}

families! {
    describe_counter "portcullis_handshakes_total" "TLS handshakes by outcome: accepted, or the reason of the refusal.";
    describe_histogram "portcullis_handshake_seconds" "Time from the start of a TLS handshake to its outcome.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_distinct() {
        let mut seen = std::collections::HashSet::new();
        for name in FAMILIES {
            assert!(name.starts_with("portcullis_"), "{name}");
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn recorder_is_installed_once_and_shared() {
        let first = install().unwrap();
        let second = install().unwrap();
        metrics::counter!("portcullis_handshakes_total", "outcome" => "accepted").increment(1);
        assert!(first.render().contains("portcullis_handshakes_total"));
        assert!(
            second
                .render()
                .contains("# HELP portcullis_handshakes_total")
        );
    }
}
