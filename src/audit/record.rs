//! One line of the log: written, and checked, in exactly one form.

use aws_lc_rs::digest::{Context, Digest, SHA256};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

use super::{Event, Phase};

/// The longest line that can be written or is accepted, in octets: every field of the greatest
/// length, each character escaped.
pub(super) const MAX_LINE: usize = 128 * 1024;

/// What stands for the line before the first one, and for its hash.
pub(super) const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The longest text of an event, in octets.
const MAX_TEXT: usize = 1024;
const CUT: &str = " [cut]";

const TIME: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

// The last member of a line: `,"hash":"<64 digits>"}`.
const HASH_OPENS: &[u8] = b",\"hash\":\"";
const HASH_CLOSES: &[u8] = b"\"}";
const HASH_MEMBER: usize = HASH_OPENS.len() + 64 + HASH_CLOSES.len();

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) seq: u64,
    pub(super) time: String,
    pub(super) prev: String,
    pub(super) open: u64,
    #[serde(flatten)]
    pub(super) event: Event,
}

/// The end of the chain: what the next line must follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    /// `seq` of the last line; 0 before the first.
    pub(super) seq: u64,
    /// Digest of the whole last line.
    prev: String,
    /// The last line's own hash.
    pub(super) head: String,
    /// Nothing is known yet: the next line is taken as it is.
    anywhere: bool,
}

impl Chain {
    /// Before the first line of a log.
    pub(super) fn start() -> Self {
        Self {
            seq: 0,
            prev: NO_HASH.to_owned(),
            head: NO_HASH.to_owned(),
            anywhere: false,
        }
    }

    /// Before a line somewhere in a log.
    pub(super) fn anywhere() -> Self {
        Self {
            anywhere: true,
            ..Self::start()
        }
    }

    /// Check the next line (without its line feed) and move on to it.
    ///
    /// # Errors
    /// In words, what does not hold.
    pub(super) fn follow(&mut self, line: &[u8]) -> Result<Record, String> {
        let (record, hash) = parse(line)?;
        if self.anywhere {
            if record.seq == 1 && record.prev != NO_HASH {
                return Err("it is the first, and follows another".to_owned());
            }
        } else {
            let expected = self.seq.saturating_add(1);
            if record.seq != expected {
                return Err(format!(
                    "it has number {}, where {expected} is due: records were removed, repeated \
                     or reordered",
                    record.seq
                ));
            }
            if record.prev != self.prev {
                return Err("it does not follow the line before it".to_owned());
            }
        }
        *self = Self {
            seq: record.seq,
            prev: hex_digest(&[line]),
            head: hash,
            anywhere: false,
        };
        Ok(record)
    }

    /// The next line (without its line feed) for this event, and move on to it.
    ///
    /// # Errors
    /// If it cannot be written as JSON; no event is known for which this happens.
    pub(super) fn append(
        &mut self,
        now_ms: i64,
        open: u64,
        event: Event,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let record = Record {
            seq: self.seq + 1,
            time: time_text(now_ms),
            prev: self.prev.clone(),
            open,
            event,
        };
        let mut line = serde_json::to_vec(&record)?;
        let hash = hex_digest(&[&line]);
        line.pop();
        line.extend_from_slice(HASH_OPENS);
        line.extend_from_slice(hash.as_bytes());
        line.extend_from_slice(HASH_CLOSES);
        *self = Self {
            seq: record.seq,
            prev: hex_digest(&[&line]),
            head: hash,
            anywhere: false,
        };
        Ok(line)
    }
}

/// Intents without an outcome, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OpenIntents(Vec<(u64, Event)>);

impl OpenIntents {
    /// Take note of the record with this number.
    pub(super) fn note(&mut self, seq: u64, event: &Event) {
        match event.phase {
            Phase::Intent => self.0.push((seq, event.clone())),
            Phase::Done | Phase::Refused | Phase::Failed | Phase::Closed => {
                let matching = self.0.iter().position(|(_, intent)| {
                    intent.origin.request_id == event.origin.request_id
                        && intent.action == event.action
                        && intent.subject == event.subject
                });
                if let Some(index) = matching {
                    self.0.remove(index);
                }
            }
        }
    }

    /// Number of the oldest; 0 if there is none.
    pub(super) fn oldest(&self) -> u64 {
        self.0.first().map_or(0, |(seq, _)| *seq)
    }

    /// The intents.
    pub(super) fn events(&self) -> Vec<Event> {
        self.0.iter().map(|(_, event)| event.clone()).collect()
    }
}

/// The event with every text cut to what a line may hold.
pub(super) fn bounded(mut event: Event) -> Event {
    for text in [
        &mut event.origin.principal,
        &mut event.origin.door,
        &mut event.origin.request_id,
        &mut event.action,
        &mut event.subject,
    ] {
        cut(text);
    }
    for text in [
        &mut event.origin.address,
        &mut event.instance,
        &mut event.before,
        &mut event.after,
        &mut event.code,
        &mut event.detail,
    ]
    .into_iter()
    .flatten()
    {
        cut(text);
    }
    event
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT - CUT.len()));
        text.push_str(CUT);
    }
}

/// The record of a line that holds by itself, and its hash.
fn parse(line: &[u8]) -> Result<(Record, String), String> {
    if line.len() > MAX_LINE {
        return Err(format!("it is longer than {MAX_LINE} octets"));
    }
    let parts = line
        .len()
        .checked_sub(HASH_MEMBER)
        .and_then(|body| line.split_at_checked(body));
    let hash = parts.and_then(|(body, member)| {
        let hash = member.strip_prefix(HASH_OPENS)?.strip_suffix(HASH_CLOSES)?;
        Some((body, hash))
    });
    let Some((body, hash)) = hash else {
        return Err("it does not end with a hash".to_owned());
    };
    let due = hex_digest(&[body, b"}"]);
    if hash != due.as_bytes() {
        return Err("its content does not match its hash".to_owned());
    }
    let record = serde_json::from_slice(&[body, b"}"].concat())
        .map_err(|error| format!("it is no audit record: {error}"))?;
    Ok((record, due))
}

fn hex_digest(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let digest: Digest = context.finish();
    hex::encode(digest)
}

/// A time that no calendar has becomes the nearest that one has.
fn time_text(now_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(now_ms) * 1_000_000)
        .unwrap_or(if now_ms < 0 {
            OffsetDateTime::UNIX_EPOCH
        } else {
            time::macros::datetime!(9999-12-31 23:59:59.999 UTC)
        })
        .format(TIME)
        .unwrap_or_else(|_| now_ms.to_string())
}
