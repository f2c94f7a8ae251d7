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
    describe_counter "portcullis_handshakes_total" "TLS handshakes by outcome: accepted, timeout, tls, no_server_name or unknown_server_name if no instance is for the client, or the reason for which a certificate was refused.";
    describe_histogram "portcullis_handshake_seconds" "Time from the start of a TLS handshake to its outcome.";
    describe_counter "portcullis_devices_unrecorded_total" "Device certificates that were let in but not recorded at once, because too many new ones came at a time; they are recorded at a later connection.";
    describe_counter "portcullis_clock_jumps_total" "Times that the wall clock was set while the broker ran, by direction: forward or back.";
    describe_counter "portcullis_crl_imports_total" "Attempts to import a CRL, by outcome: imported, unchanged, refused, or failed if something here did not work.";
    describe_gauge "portcullis_crls" "CRLs that are in force, parts of CRLs counted each.";
    describe_gauge "portcullis_crl_entries" "Entries of all CRLs that are in force.";
    describe_gauge "portcullis_crls_expired" "CRLs that are in force and have expired.";
    describe_gauge "portcullis_crl_files_failing" "Files of CRLs that cannot be taken as they are; the last list of each stays in force.";
    describe_gauge "portcullis_audit_unrecorded" "Records of changes that were made and that could not be written to the audit log yet.";
    describe_counter "portcullis_audit_forwarded_total" "Audit records that were sent to the collector, repeated ones counted each time.";
    describe_counter "portcullis_audit_forward_skipped_total" "Audit records that were not and will not be sent to the collector, by reason: missing in the log's files, or too_long for a datagram.";
    describe_gauge "portcullis_audit_forward_waiting" "Audit records that are on disk and have yet to be sent to the collector.";
    describe_counter "portcullis_admin_calls_total" "Calls of the admin API by door, operation and result code.";
    describe_histogram "portcullis_admin_call_seconds" "Time from the request to the answer of admin calls.";
    describe_counter "portcullis_admin_connections_total" "Connections to the admin address by what became of them.";
    describe_counter "portcullis_admin_unproved_total" "Signed requests that could not be proved to be no repeated ones, by reason: their nonce could not be written to disk, or what was used in their time is not known any more.";
    describe_gauge "portcullis_mqtt_connections" "MQTT connections now.";
    describe_counter "portcullis_mqtt_connections_ended_total" "MQTT connections that ended, by reason.";
    describe_counter "portcullis_mqtt_connections_over_limit_total" "Connections that were closed at once because there are too many.";
    describe_counter "portcullis_mqtt_connections_unserved_total" "Connections that were closed before their handshake, by reason: too many or too often from their address, from no trusted proxy, or without its header.";
    describe_counter "portcullis_websocket_requests_total" "Requests for a WebSocket, by outcome: accepted, or why there is none.";
    describe_counter "portcullis_websocket_failures_total" "WebSockets that ended because the client broke a rule of the protocol, by rule.";
    describe_gauge "portcullis_mqtt_sessions" "MQTT sessions, with and without connection.";
    describe_counter "portcullis_mqtt_messages_received_total" "Messages that clients published and the bus took.";
    describe_counter "portcullis_mqtt_messages_sent_total" "Messages that were sent to clients.";
    describe_counter "portcullis_mqtt_messages_dropped_total" "Messages that did not reach a client, by reason: queue_full (of its session), all_queues_full (of all sessions together), expired, too_old, too_large for the client, retained_full, not_authorized any more; after a restart over_limit, unreadable.";
    describe_counter "portcullis_mqtt_events_left_out_total" "Events that administrators who are subscribed were not told one by one, by reason.";
    describe_counter "portcullis_mqtt_denied_total" "Publishes and subscriptions that were not permitted, by action.";
    describe_counter "portcullis_mqtt_commands_total" "Commands of administrators on the control topic, by outcome.";
    describe_counter "portcullis_persistence_restored_total" "Sessions that were kept across a restart, by what became of them: restored, expired, over_limit, owner_changed, unreadable.";
    describe_histogram "portcullis_persistence_round_seconds" "Time it takes to write what has changed in the sessions and retained messages of an instance.";
    describe_gauge "portcullis_persistence_failing" "Instances whose sessions and retained messages cannot be written to disk now, or not in time.";
    describe_counter "portcullis_bus_published_total" "Frames that the bus took.";
    describe_counter "portcullis_bus_unmatched_total" "Frames that no shard had a filter for.";
    describe_counter "portcullis_bus_direct_total" "Frames that publishers gave to shards themselves, without the router.";
    describe_counter "portcullis_bus_delivered_total" "Frames that shards took from the router.";
    describe_counter "portcullis_bus_duplicates_total" "Frames that came again after a router was replaced, and were dropped.";
    describe_counter "portcullis_bus_resent_total" "Frames that were sent again after a router was replaced.";
    describe_counter "portcullis_bus_waits_total" "Publishes that waited for a shard to take what was on the way.";
    describe_counter "portcullis_bus_overloads_total" "Publishes that were given up because a shard did not take what was on the way.";
    describe_counter "portcullis_bus_router_failures_total" "Routers that were replaced, by cause.";
    describe_counter "portcullis_bus_router_open_failures_total" "Attempts to start a new router that failed.";
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

    /// Every name that the source uses stands in the table, and the other way round.
    #[test]
    fn table_and_source_agree() {
        fn walk(directory: &std::path::Path, found: &mut std::collections::BTreeSet<String>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.extension().is_some_and(|e| e == "rs")
                    && !path.ends_with("telemetry/metrics.rs")
                {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for quoted in text.split('"') {
                        let plain = |c: char| c.is_ascii_lowercase() || "_.".contains(c);
                        if quoted.starts_with("portcullis_") && quoted.chars().all(plain) {
                            found.insert(quoted.to_owned());
                        }
                    }
                }
            }
        }
        let mut used = std::collections::BTreeSet::new();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        walk(std::path::Path::new(source), &mut used);
        let table: std::collections::BTreeSet<String> =
            FAMILIES.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(used, table);
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
