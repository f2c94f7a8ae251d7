//! Reading behind the writer, and what arrives.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Receiver, channel};

use super::position::Position;
use super::*;
use crate::audit::tests::{Bench, block_on, event, pairs};
use crate::audit::{AuditLog, Event, Phase, Rotation};

/// Several files, with a few records each.
const SMALL: Rotation = Rotation {
    max_octets: Some(2_000),
    keep: None,
};

fn open(bench: &Bench, rotation: Rotation) -> AuditLog {
    AuditLog::open(&bench.path, rotation, 0).unwrap().0
}

fn record(log: &AuditLog, events: &[Event]) {
    block_on(async {
        for event in events {
            log.record(0, event.clone()).await.unwrap();
        }
    });
}

/// The numbers of all that can be taken, and how many were missing.
fn take_all(follower: &mut Follower, flushed: u64) -> (Vec<u64>, u64) {
    let (mut numbers, mut missing) = (Vec::new(), 0);
    loop {
        let taken = follower.take(flushed).unwrap();
        if taken.records.is_empty() {
            return (numbers, missing);
        }
        missing += taken.missing;
        numbers.extend(taken.records.iter().map(|it| it.record.seq));
        follower.advance();
    }
}

fn last(bench: &Bench) -> u64 {
    let mut last = 0;
    crate::audit::read(&bench.path, |entry| last = entry.seq).unwrap();
    last
}

#[test]
fn every_record_is_taken_once_and_in_order_across_files() {
    let bench = Bench::new();
    record(&open(&bench, SMALL), &pairs(20));
    let all = last(&bench);
    let expected: Vec<u64> = (1..=all).collect();
    let mut follower = Follower::new(&bench.path);
    assert_eq!(take_all(&mut follower, all), (expected, 0));
    assert_eq!(take_all(&mut follower, all), (Vec::new(), 0));
    record(&open(&bench, SMALL), &pairs(20));
    let more = last(&bench);
    assert_eq!(
        take_all(&mut follower, more),
        ((all + 1..=more).collect(), 0)
    );
}

#[test]
fn what_is_not_flushed_is_not_taken() {
    let bench = Bench::with(&pairs(3));
    let mut follower = Follower::new(&bench.path);
    assert_eq!(take_all(&mut follower, 4), (vec![1, 2, 3, 4], 0));
    // What stood there may be taken back, and something else be written in its place.
    let mut lines = bench.lines();
    lines.truncate(4);
    bench.set_lines(&lines);
    record(
        &open(&bench, Rotation::default()),
        &[event(Phase::Refused, 9)],
    );
    let taken = follower.take(5).unwrap();
    assert_eq!(taken.records.len(), 1);
    assert_eq!(taken.records[0].record.event.origin.request_id, "R9");
}

#[test]
fn what_was_not_done_with_is_taken_again() {
    let bench = Bench::with(&pairs(3));
    let mut follower = Follower::new(&bench.path);
    assert_eq!(follower.take(4).unwrap().records.len(), 4);
    follower.rewind();
    assert_eq!(follower.sent(), 0);
    assert_eq!(take_all(&mut follower, 6), ((1..=6).collect(), 0));
}

#[test]
fn another_run_goes_on_where_this_one_ended() {
    let bench = Bench::new();
    record(&open(&bench, SMALL), &pairs(20));
    let all = last(&bench);
    for end in 1..=all {
        let mut follower = Follower::new(&bench.path);
        assert_eq!(take_all(&mut follower, end).0.len() as u64, end);
        position::write(&bench.path, follower.position()).unwrap();
        let mut next = Follower::new(&bench.path);
        next.resume(position::read(&bench.path).unwrap().unwrap());
        assert_eq!(take_all(&mut next, all), ((end + 1..=all).collect(), 0));
    }
}

#[test]
fn records_of_another_log_are_all_taken() {
    let bench = Bench::with(&pairs(3));
    for position in [
        Position {
            seq: 4,
            hash: "0".repeat(64),
        },
        Position {
            seq: 7,
            hash: "0".repeat(64),
        },
    ] {
        let mut follower = Follower::new(&bench.path);
        follower.resume(position);
        assert_eq!(take_all(&mut follower, 6), ((1..=6).collect(), 0));
    }
}

#[test]
fn records_that_are_gone_are_counted_and_the_others_taken() {
    let bench = Bench::new();
    record(&open(&bench, SMALL), &pairs(20));
    let all = last(&bench);
    let (full, _) = crate::audit::verify::files_of(&bench.path).unwrap();
    fs::remove_file(&full[0].path).unwrap();
    fs::remove_file(&full[2].path).unwrap();
    let gone = full[0].last + full[2].last - full[1].last;
    let mut follower = Follower::new(&bench.path);
    let (numbers, missing) = take_all(&mut follower, all);
    assert_eq!((numbers.len() as u64 + missing, missing), (all, gone));
    // And one that was made unreadable, in the middle and at the end.
    let bench = Bench::with(&pairs(3));
    let mut lines = bench.lines();
    lines[2] = lines[2].replace("active", "passive");
    lines[5] = lines[5].replace("active", "passive");
    bench.set_lines(&lines);
    let mut follower = Follower::new(&bench.path);
    let taken = follower.take(6).unwrap();
    assert_eq!((taken.records.len(), taken.missing), (4, 1));
    follower.advance();
    assert!(follower.take(6).is_err());
}

#[test]
fn position_that_makes_no_sense_is_told() {
    let bench = Bench::new();
    assert_eq!(position::read(&bench.path).unwrap(), None);
    let place = bench.path.with_extension("jsonl.forwarded");
    for text in ["", "4711", "x y", "\u{fffd}"] {
        position::write(
            &bench.path,
            &Position {
                seq: 1,
                hash: String::new(),
            },
        )
        .unwrap();
        fs::write(&place, text).unwrap();
        let error = position::read(&bench.path).unwrap_err().to_string();
        assert!(
            error.contains("audit.jsonl.forwarded: it holds no number"),
            "{error}"
        );
    }
}

#[test]
fn syslog_messages_are_what_another_parser_reads() {
    let bench = Bench::with(&[
        event(Phase::Intent, 1),
        event(Phase::Refused, 1),
        event(Phase::Failed, 2),
        Event {
            action: "with a space".to_owned(),
            detail: Some("\"]\\ \u{1f512} \n<34>1 - - - - - - forged".to_owned()),
            ..event(Phase::Done, 3)
        },
    ]);
    let taken = Follower::new(&bench.path).take(4).unwrap();
    let frames = Frames::new(Format::Syslog, false)
        .of(&taken.records)
        .unwrap();
    let severities = [5, 4, 3, 5];
    for ((frame, line), severity) in frames.iter().zip(bench.lines()).zip(severities) {
        let text = std::str::from_utf8(&frame.octets).unwrap();
        let message = syslog_loose::parse_message(text, syslog_loose::Variant::RFC5424);
        assert_eq!(message.protocol, syslog_loose::Protocol::RFC5424(1));
        assert_eq!(
            message.facility,
            Some(syslog_loose::SyslogFacility::LOG_AUTHPRIV)
        );
        assert_eq!(message.severity.map(|it| it as i32), Some(severity));
        assert_eq!(message.appname, Some("portcullis"));
        assert!(message.timestamp.is_some());
        let with_action =
            (severity != 5 || line.contains("\"intent\"")).then_some("InactivateCaCertificate");
        assert_eq!(message.msgid, with_action);
        assert_eq!(message.msg, line);
    }
    let [all] = &Frames::new(Format::Syslog, true)
        .of(&taken.records)
        .unwrap()[..]
    else {
        panic!("not one frame")
    };
    assert_eq!(
        counted(&all.octets),
        frames.into_iter().map(|it| it.octets).collect::<Vec<_>>()
    );
}

/// The messages of a stream in which each stands after its length.
fn counted(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !stream.is_empty() {
        let mut length = Vec::new();
        stream.read_until(b' ', &mut length).unwrap();
        let length: usize = std::str::from_utf8(&length)
            .unwrap()
            .trim_end()
            .parse()
            .unwrap();
        let mut message = vec![0; length];
        stream.read_exact(&mut message).unwrap();
        found.push(message);
    }
    found
}

fn forward(to: String, format: Format) -> Forward {
    Forward {
        to: Destination::parse(&to, None).unwrap(),
        format,
    }
}

#[test]
fn datagrams_arrive_over_either_kind_of_socket() {
    let bench = Bench::new();
    let directory = bench.path.parent().unwrap();
    let local = UnixDatagram::bind(directory.join("log")).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    type Receive = Box<dyn Fn(&mut [u8]) -> usize>;
    let receive: [(String, Receive); 2] = [
        (
            format!("unix:{}", directory.join("log").display()),
            Box::new(move |it| local.recv(it).unwrap()),
        ),
        (
            format!("udp:{address}"),
            Box::new(move |it| udp.recv(it).unwrap()),
        ),
    ];
    for (to, receive) in receive {
        let bench = Bench::new();
        let mut log = open(&bench, Rotation::default());
        log.forward(forward(to, Format::JsonLines)).unwrap();
        record(&log, &pairs(2));
        for line in bench.lines() {
            let mut buffer = vec![0; 4096];
            let length = receive(&mut buffer);
            assert_eq!(&buffer[..length], line.as_bytes());
        }
    }
}

/// A collector that reads lines; it gives one connection at a time.
fn collector() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp:{}", listener.local_addr().unwrap());
    (listener, to)
}

/// The lines of the next connection, until it is closed.
fn lines_of(listener: TcpListener) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[test]
fn collector_that_comes_back_gets_what_it_missed_and_so_does_the_next_run() {
    let bench = Bench::new();
    let (listener, to) = collector();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut log = open(&bench, SMALL);
    log.forward(forward(to.clone(), Format::JsonLines)).unwrap();
    record(&log, &pairs(10));
    let received = lines_of(TcpListener::bind(address).unwrap());
    let mut expected = Vec::new();
    crate::audit::read(&bench.path, |entry| expected.push(entry.seq)).unwrap();
    let seq = |line: String| {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        line["seq"].as_u64().unwrap()
    };
    let found: Vec<u64> = received.iter().take(expected.len()).map(seq).collect();
    assert_eq!(found, expected);
    drop(log);

    // With nobody there, the end of the log does not wait long; the next run sends it.
    let log = open(&bench, SMALL);
    record(&log, &pairs(3));
    drop(log);
    let mut log = open(&bench, SMALL);
    let received = lines_of(TcpListener::bind(address).unwrap());
    log.forward(forward(to, Format::JsonLines)).unwrap();
    record(&log, &[event(Phase::Refused, 99)]);
    drop(log);
    let found: Vec<u64> = received.iter().map(seq).collect();
    let due: Vec<u64> = (expected.len() as u64 + 1..=last(&bench)).collect();
    assert_eq!(found, due);
}

#[test]
fn collector_that_hangs_up_is_noticed_before_something_is_sent() {
    let bench = Bench::new();
    let (listener, to) = collector();
    let mut log = open(&bench, Rotation::default());
    log.forward(forward(to, Format::JsonLines)).unwrap();
    record(&log, &[event(Phase::Refused, 1)]);
    let (stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), bench.lines()[0]);
    // The stream is closed now.
    record(&log, &[event(Phase::Refused, 2)]);
    let (stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), bench.lines()[1]);
}

#[test]
fn collector_that_does_not_read_holds_nobody_up() {
    let bench = Bench::new();
    let (listener, to) = collector();
    let mut log = open(&bench, Rotation::default());
    log.forward(forward(to, Format::Syslog)).unwrap();
    let long = Event {
        detail: Some("x".repeat(1024)),
        ..event(Phase::Refused, 1)
    };
    // More than any buffer of the kernel holds.
    let events = vec![long; 256];
    let accepted = std::thread::spawn(move || listener.accept().unwrap());
    block_on(async {
        for _ in 0..40 {
            let all = events.iter().map(|event| log.record(0, event.clone()));
            for done in futures_of(all).await {
                done.unwrap();
            }
        }
    });
    drop(accepted.join().unwrap());
    assert_eq!(crate::audit::verify(&bench.path).unwrap().records, 40 * 256);
}

/// All of them at once.
async fn futures_of<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = all.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        waiting.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => {
                done.push(output);
                false
            }
            std::task::Poll::Pending => true,
        });
        match waiting.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done
}
