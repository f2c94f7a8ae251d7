//! How records are written for whoever collects them.

use std::io;

use syslog_fmt::v5424::{self, Formatter, Msg};
use syslog_fmt::{Facility, Severity};

use super::follow::Written;
use crate::audit::Phase;

/// How a record is written for the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 5424: facility `authpriv`, the action as MSGID, and the record's line as the message.
    /// Over a connection each is preceded by its length (RFC 5425, section 4.3.1; RFC 6587,
    /// section 3.4.1), since that is what any collector tells apart.
    Syslog,
    /// The record's line as it stands in the log.
    JsonLines,
}

/// What is sent at once.
pub(super) struct Frame {
    pub(super) octets: Vec<u8>,
    /// How many records it carries.
    pub(super) records: u64,
}

/// Writes records.
pub(super) struct Frames {
    how: How,
    /// Whether they follow each other on a connection, or are datagrams.
    stream: bool,
}

enum How {
    Syslog(Formatter),
    JsonLines,
}

impl Frames {
    pub(super) fn new(format: Format, stream: bool) -> Self {
        let how = match format {
            Format::JsonLines => How::JsonLines,
            Format::Syslog => {
                let host = nix::unistd::gethostname().ok();
                let host = host.as_deref().and_then(|host| host.to_str());
                let process = std::process::id().to_string();
                How::Syslog(
                    v5424::Config {
                        facility: Facility::Authpriv,
                        hostname: host.filter(|host| is_field(host, 255)),
                        app_name: Some("portcullis"),
                        proc_id: Some(&process),
                    }
                    .into_formatter(),
                )
            }
        };
        Self { how, stream }
    }

    /// One frame for all on a connection, one for each as datagrams.
    pub(super) fn of(&self, records: &[Written]) -> io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        for record in records {
            let mut octets = Vec::with_capacity(record.line.len() + ROOM);
            match &self.how {
                How::JsonLines => octets.extend_from_slice(&record.line),
                How::Syslog(formatter) => syslog(formatter, record, &mut octets)?,
            }
            frames.push(Frame { octets, records: 1 });
        }
        if !self.stream {
            return Ok(frames);
        }
        let mut all = Vec::new();
        for Frame { octets, .. } in frames {
            match self.how {
                How::JsonLines => {
                    all.extend_from_slice(&octets);
                    all.push(b'\n');
                }
                How::Syslog(_) => {
                    all.extend_from_slice(format!("{} ", octets.len()).as_bytes());
                    all.extend_from_slice(&octets);
                }
            }
        }
        Ok(vec![Frame {
            octets: all,
            records: records.len() as u64,
        }])
    }
}

fn syslog(formatter: &Formatter, written: &Written, into: &mut Vec<u8>) -> io::Result<()> {
    let event = &written.record.event;
    let severity = match event.phase {
        Phase::Intent | Phase::Done => Severity::Notice,
        Phase::Refused | Phase::Closed => Severity::Warning,
        Phase::Failed => Severity::Err,
    };
    let action = event.action.as_str();
    formatter.write_without_data(
        into,
        severity,
        written.record.time.as_str(),
        // As octets, since a mark of the byte order before the JSON is what parsers of JSON refuse.
        Msg::NonUnicodeBytes(&written.line),
        is_field(action, 32).then_some(action),
    )
}

/// Whether it can stand in the header (RFC 5424, section 6).
fn is_field(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_graphic())
}

/// For what is before the line.
const ROOM: usize = 128;
