mod faults;
mod large;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc as blocking;

use bytes::Bytes;
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::record::*;
use super::writer::Request;
use super::*;
use crate::ca::id::{CaKeyId, CertSerial};
use crate::ca::registry::Purpose;

/// A directory with a file that is closed and opened again.
struct Bench {
    directory: TempDir,
    store: Option<SqliteSessions>,
}

/// What is read, as a whole: sessions by their numbers, retained messages by their topics.
#[derive(Debug, Default, PartialEq)]
struct Kept {
    time: i64,
    sessions: BTreeMap<u64, WholeSession>,
    retained: BTreeMap<String, RetainedRecord>,
    /// Rows that belong to nothing.
    orphans: usize,
    unreadable: Vec<(Option<u64>, &'static str)>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            directory: tempfile::tempdir().unwrap(),
            store: None,
        };
        bench.store = Some(SqliteSessions::open(&bench.path()).unwrap());
        bench
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("sessions-x.db")
    }

    fn store(&self) -> &SqliteSessions {
        self.store.as_ref().unwrap()
    }

    async fn kept(&self) -> Kept {
        let (to, mut rows) = mpsc::channel::<Vec<Row>>(2);
        let mut kept = Kept::default();
        let take = async {
            while let Some(batch) = rows.recv().await {
                batch.into_iter().for_each(|row| kept.take(row));
            }
        };
        let (read, ()) = tokio::join!(self.store().load(to), take);
        read.unwrap();
        kept
    }

    async fn reopen(&mut self) -> Kept {
        self.store = None;
        self.store = Some(SqliteSessions::open(&self.path()).unwrap());
        self.kept().await
    }

    /// Run something on the writer's connection, and wait until it is done.
    fn with<T: Send + 'static>(&self, act: impl FnOnce(&Connection) -> T + Send + 'static) -> T {
        let (done, wait) = blocking::channel();
        let act = Box::new(move |connection: &Connection| done.send(act(connection)).unwrap());
        self.store().ask(Request::With(act)).unwrap();
        wait.recv().unwrap()
    }

    /// Hold the writer up until the returned sender is dropped.
    fn hold(&self) -> blocking::Sender<()> {
        let (release, held) = self.hold_later();
        held.recv().unwrap();
        release
    }

    /// Hold the writer up when it comes to that, which is told.
    fn hold_later(&self) -> (blocking::Sender<()>, blocking::Receiver<()>) {
        let (release, wait) = blocking::channel::<()>();
        let (holding, held) = blocking::channel();
        let act = Box::new(move |_: &Connection| {
            let _ = holding.send(());
            let _ = wait.recv();
        });
        self.store().ask(Request::With(act)).unwrap();
        (release, held)
    }

    /// Rows of all tables that belong to a session.
    fn rows(&self) -> i64 {
        self.with(|connection| {
            let sql = "SELECT (SELECT count(*) FROM session) + (SELECT count(*) FROM will)
                + (SELECT count(*) FROM subscription) + (SELECT count(*) FROM received)
                + (SELECT count(*) FROM in_flight) + (SELECT count(*) FROM queued)";
            connection.query_row(sql, [], |row| row.get(0)).unwrap()
        })
    }
}

impl Kept {
    fn take(&mut self, row: Row) {
        let of = row.session();
        let mut session = of.and_then(|key| self.sessions.get_mut(&key));
        match (row, &mut session) {
            (Row::Session(session), _) => {
                let whole = WholeSession {
                    session,
                    will: None,
                    subscriptions: Vec::new(),
                    received: Vec::new(),
                    in_flight: Vec::new(),
                    queue: Vec::new(),
                    first: 0,
                };
                self.sessions.insert(whole.session.key, whole);
            }
            (Row::Will(_, will), Some(session)) => session.will = Some(will),
            (Row::Subscription(_, one), Some(session)) => session.subscriptions.push(one),
            (Row::Received(_, id), Some(session)) => session.received.push(id),
            (Row::InFlight(_, entry), Some(session)) => session.in_flight.push(entry),
            (Row::Queued(_, number, message), Some(session)) => {
                if session.queue.is_empty() {
                    session.first = number;
                }
                assert_eq!(number, session.first + session.queue.len() as u64);
                session.queue.push(message);
            }
            (Row::Retained(message), _) => {
                self.retained.insert(message.topic.to_string(), message);
            }
            (Row::Time(time), _) => self.time = time,
            (Row::Unreadable { session, table, .. }, _) => self.unreadable.push((session, table)),
            (_, None) => self.orphans += 1,
        }
    }
}

fn message() -> impl Strategy<Value = MessageRecord> {
    (
        (0_u8..3, any::<bool>(), any::<Option<i64>>(), any::<i64>()),
        proptest::collection::vec(any::<u32>(), 0..3),
        "[a-z/ä]{1,8}",
        any::<Vec<u8>>(),
        any::<Vec<u8>>(),
    )
        .prop_map(
            |((qos, retain, expires_at_ms, queued_at_ms), ids, topic, properties, payload)| {
                MessageRecord {
                    qos,
                    retain,
                    expires_at_ms,
                    queued_at_ms,
                    subscription_ids: ids,
                    topic: topic.into(),
                    properties: properties.into(),
                    payload: payload.into(),
                }
            },
        )
}

prop_compose! {
    fn holder()(
        admin: bool, administrator: bool, issuer: [u8; 32], serial in "[1-9a-f][0-9a-f]{1,9}",
        common_name: Option<String>, port: u16, since_ms: i64, v6: bool,
    ) -> HolderRecord {
        HolderRecord {
            purpose: if admin { Purpose::Admin } else { Purpose::Device },
            administrator,
            issuer: CaKeyId::from_bytes(issuer),
            serial: serial.parse().unwrap(),
            common_name,
            ca_sn: CertSerial::from_be_bytes(&[7]).unwrap(),
            address: if v6 { ([0, 0, 0, 0, 0, 0, 0, 1], port).into() } else { ([127, 0, 0, 1], port).into() },
            since_ms,
        }
    }
}

prop_compose! {
    fn whole(key: u64)(
        holder in holder(), expires_at_ms: Option<i64>, next_packet_id in 1_u16..,
        will in proptest::option::of((any::<i64>(), any::<Option<u32>>(), message())),
        filters in proptest::collection::btree_map("[a-z+#/]{1,8}", (any::<u8>(), any::<Option<u32>>()), 0..4),
        received in proptest::collection::btree_set(any::<u16>(), 0..4),
        in_flight in proptest::collection::vec((any::<u16>(), proptest::option::of(message())), 0..4),
        queue in proptest::collection::vec(message(), 0..5), first in 0_u64..100,
    ) -> WholeSession {
        let first = if queue.is_empty() { 0 } else { first };
        WholeSession {
            session: SessionRecord {
                key,
                client_id: format!("client-{key}").into(),
                holder,
                expires_at_ms,
                next_packet_id,
            },
            will: will.map(|(due_at_ms, expiry_seconds, message)| WillRecord {
                due_at_ms,
                expiry_seconds,
                qos: message.qos,
                retain: message.retain,
                topic: message.topic,
                properties: message.properties,
                payload: message.payload,
            }),
            subscriptions: filters.into_iter().map(|(filter, (options, identifier))| {
                SubscriptionRecord { filter, options, identifier }
            }).collect(),
            received: received.into_iter().collect(),
            in_flight: in_flight.into_iter().map(|(packet_id, message)| {
                InFlightRecord { packet_id, message }
            }).collect(),
            queue,
            first,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Session(Box<WholeSession>),
    /// Drop so many from the front, add these at the end.
    Queue(u64, u64, Vec<MessageRecord>),
    WillGone(u64),
    Forget(u64),
    Retained(MessageRecord, u64),
    NotRetained(String),
    /// These are all there is.
    RetainedAnew(BTreeMap<String, MessageRecord>),
    Time(i64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0_u64..4;
    prop_oneof![
        4 => key.clone().prop_flat_map(whole).prop_map(|whole| Step::Session(Box::new(whole))),
        4 => (key.clone(), 0_u64..4, proptest::collection::vec(message(), 0..3))
            .prop_map(|(key, gone, more)| Step::Queue(key, gone, more)),
        1 => key.clone().prop_map(Step::WillGone),
        2 => key.prop_map(Step::Forget),
        3 => (message(), any::<u64>()).prop_map(|(message, by)| Step::Retained(message, by)),
        1 => "[a-c]{1,1}".prop_map(Step::NotRetained),
        1 => proptest::collection::btree_map("[a-c]", message(), 0..3)
            .prop_map(Step::RetainedAnew),
        1 => any::<i64>().prop_map(Step::Time),
        2 => Just(Step::Reopen),
    ]
}

impl Kept {
    /// What the step makes of it.
    fn apply(&mut self, step: &Step, store: &SqliteSessions, mark: &mut i64) {
        match step {
            Step::Session(whole) => {
                self.sessions.insert(whole.session.key, (**whole).clone());
                store.write(Write::Session(whole.clone()));
            }
            Step::Queue(key, gone, more) => {
                // Only of a session that is there: nobody asks for anything else.
                let Some(session) = self.sessions.get_mut(key) else {
                    return;
                };
                let gone = (*gone).min(session.queue.len() as u64);
                let end = session.first + session.queue.len() as u64;
                session.queue.drain(..usize::try_from(gone).unwrap());
                session.first += gone;
                session.queue.extend(more.iter().cloned());
                store.write(Write::Queue {
                    session: *key,
                    before: session.first,
                    first: end,
                    messages: more.clone(),
                });
                if session.queue.is_empty() {
                    session.first = 0;
                }
            }
            Step::WillGone(key) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.will = None;
                }
                store.write(Write::WillGone(*key));
            }
            Step::Forget(key) => {
                self.sessions.remove(key);
                drop(store.forget(*key));
            }
            Step::Retained(message, publisher) => {
                let record = retained(&message.topic, message, *publisher);
                self.retained
                    .insert(record.topic.to_string(), record.clone());
                store.write(Write::Retained(Box::new(record), 0));
            }
            Step::NotRetained(topic) => {
                self.retained.remove(topic);
                store.write(Write::NotRetained(topic.as_str().into()));
            }
            Step::RetainedAnew(all) => {
                self.retained.clear();
                for (topic, message) in all {
                    let record = retained(topic, message, 1);
                    self.retained.insert(topic.clone(), record.clone());
                    store.write(Write::Retained(Box::new(record), *mark));
                }
                store.write(Write::RetainedOnly(*mark));
                *mark += 1;
            }
            Step::Time(time) => {
                self.time = *time;
                let lasts =
                    |message: &RetainedRecord| message.expires_at_ms.is_none_or(|at| at > *time);
                self.retained.retain(|_, message| lasts(message));
                store.write(Write::Time(*time));
            }
            Step::Reopen => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_written_is_read(steps in proptest::collection::vec(step(), 1..40)) {
        block_on(async {
            let mut bench = Bench::new();
            let mut model = Kept::default();
            let mut mark = 1;
            for step in &steps {
                model.apply(step, bench.store(), &mut mark);
                if matches!(step, Step::Reopen) {
                    let kept = bench.reopen().await;
                    assert_eq!(Kept { orphans: 0, ..kept }, model);
                }
            }
            let kept = bench.reopen().await;
            assert_eq!(Kept { orphans: 0, ..kept }, model);
        });
    }
}

fn retained(topic: &str, message: &MessageRecord, publisher: u64) -> RetainedRecord {
    RetainedRecord {
        topic: topic.into(),
        qos: message.qos,
        publisher,
        expires_at_ms: message.expires_at_ms,
        properties: message.properties.clone(),
        payload: message.payload.clone(),
    }
}

pub(super) fn example(key: u64, messages: usize) -> WholeSession {
    let message = |number: usize| MessageRecord {
        qos: 1,
        retain: false,
        expires_at_ms: None,
        queued_at_ms: 1_000,
        subscription_ids: vec![7],
        topic: "plant/7/line/3/state".into(),
        properties: Bytes::new(),
        payload: format!("{number:0100}").into(),
    };
    WholeSession {
        session: SessionRecord {
            key,
            client_id: format!("device-{key}").into(),
            holder: HolderRecord {
                purpose: Purpose::Device,
                administrator: false,
                issuer: CaKeyId::from_bytes([1; 32]),
                serial: CertSerial::from_be_bytes(&key.to_be_bytes()).unwrap(),
                common_name: Some(format!("device-{key}")),
                ca_sn: CertSerial::from_be_bytes(&[9]).unwrap(),
                address: ([127, 0, 0, 1], 1).into(),
                since_ms: 5,
            },
            expires_at_ms: Some(9_000),
            next_packet_id: 3,
        },
        will: None,
        subscriptions: vec![SubscriptionRecord {
            filter: format!("plant/{key}/#"),
            options: 1,
            identifier: None,
        }],
        received: vec![4],
        in_flight: vec![
            InFlightRecord {
                packet_id: 1,
                message: Some(message(0)),
            },
            InFlightRecord {
                packet_id: 2,
                message: None,
            },
        ],
        queue: (0..messages).map(message).collect(),
        first: 0,
    }
}

fn put(store: &SqliteSessions, whole: &WholeSession) {
    store.write(Write::Session(Box::new(whole.clone())));
}

#[tokio::test]
async fn forgotten_session_is_gone_when_it_is_answered_and_its_rows_a_while_later() {
    let mut bench = Bench::new();
    for key in 1..=3 {
        put(bench.store(), &example(key, 5_000));
    }
    bench.store().flush().await.unwrap();
    assert_eq!(bench.store().forget(2).await, Durable::Yes);
    // As a crash would find it.
    let gone = bench.with(|connection| {
        let sql = "SELECT count(*) FROM session WHERE key = 2";
        connection.query_row(sql, [], |row| row.get::<_, i64>(0))
    });
    assert_eq!(gone.unwrap(), 0);
    while bench.rows() > 2 * 5_005 {
        tokio::task::yield_now().await;
    }
    let kept = bench.reopen().await;
    assert_eq!(kept.sessions.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(kept.orphans, 0);
}

#[tokio::test]
async fn session_that_comes_again_right_after_it_was_forgotten_keeps_its_rows() {
    let mut bench = Bench::new();
    let release = bench.hold();
    let whole = example(1, 50);
    put(bench.store(), &whole);
    let forgotten = bench.store().forget(1);
    put(bench.store(), &whole);
    drop(release);
    assert_eq!(forgotten.await, Durable::Yes);
    // Another one gives what is left of it time to go.
    put(bench.store(), &example(2, 1));
    bench.store().flush().await.unwrap();
    assert_eq!(bench.reopen().await.sessions[&1], whole);
}

#[tokio::test]
async fn another_session_of_the_same_client_takes_the_place_of_the_first() {
    let mut bench = Bench::new();
    put(bench.store(), &example(1, 3));
    let mut second = example(2, 3);
    second.session.client_id = "device-1".into();
    put(bench.store(), &second);
    bench.store().flush().await.unwrap();
    let kept = bench.reopen().await;
    assert_eq!(kept.sessions.keys().copied().collect::<Vec<_>>(), [2]);
    // What the first one left is found at the start and removed.
    while bench.rows() > 8 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whoever_writes_much_is_made_to_wait() {
    let bench = Bench::new();
    let release = bench.hold();
    let mut written = 0;
    let waits = async {
        loop {
            bench.store().room().await;
            put(bench.store(), &example(written, 1_000));
            written += 1;
        }
    };
    let patience = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(patience, waits).await.is_err());
    assert!((2..200).contains(&written), "{written}");
    drop(release);
    bench.store().room().await;
    bench.store().flush().await.unwrap();
    assert_eq!(bench.kept().await.sessions.len() as u64, written);
}

#[tokio::test]
async fn closed_file_has_all_of_it_and_nothing_beside_it() {
    let mut bench = Bench::new();
    put(bench.store(), &example(1, 1));
    bench.store().close().await;
    let files = std::fs::read_dir(bench.directory.path()).unwrap().count();
    assert_eq!(files, 1);
    // Whoever asks for more waits for nothing.
    put(bench.store(), &example(2, 1));
    bench.store().room().await;
    assert_eq!(bench.store().forget(1).await, Durable::NotYet);
    assert!(bench.store().flush().await.is_err());
    assert_eq!(bench.reopen().await.sessions.len(), 1);
}

#[tokio::test]
async fn what_is_given_up_is_not_written() {
    let mut bench = Bench::new();
    put(bench.store(), &example(1, 1));
    bench.store().flush().await.unwrap();
    let release = bench.hold();
    put(bench.store(), &example(2, 1));
    bench.store().abandon();
    drop(release);
    assert!(bench.store().flush().await.is_err());
    assert_eq!(bench.reopen().await.sessions.len(), 1);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}
