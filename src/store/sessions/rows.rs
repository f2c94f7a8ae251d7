//! Between records and rows.

use std::net::SocketAddr;
use std::str::FromStr;

use bytes::Bytes;
use bytestring::ByteString;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row as SqlRow};

use super::record::{
    HolderRecord, InFlightRecord, MessageRecord, RetainedRecord, Row, SessionRecord,
    SubscriptionRecord, WholeSession, WillRecord, Write,
};
use crate::ca::registry::Purpose;

type Sql<T> = Result<T, rusqlite::Error>;

/// The tables that a session has rows in besides its own, and what tells those apart.
const PARTS: [(&str, &str); 5] = [
    ("will", "session"),
    ("subscription", "filter"),
    ("received", "packet_id"),
    ("in_flight", "place"),
    ("queued", "number"),
];

/// Carry out one write.
pub(super) fn apply(connection: &Connection, write: &Write) -> Sql<()> {
    match write {
        Write::Session(whole) => put_session(connection, whole),
        Write::Queue {
            session,
            before,
            first,
            messages,
        } => {
            let sql = "DELETE FROM queued WHERE session = $1 AND number < $2";
            let mut delete = connection.prepare_cached(sql)?;
            delete.execute((signed(*session), signed(*before)))?;
            put_queue(connection, *session, *first, messages)
        }
        Write::WillGone(session) => {
            let mut delete = connection.prepare_cached("DELETE FROM will WHERE session = $1")?;
            delete.execute([signed(*session)]).map(drop)
        }
        Write::Retained(message, mark) => put_retained(connection, message, *mark),
        Write::NotRetained(topic) => {
            let mut delete = connection.prepare_cached("DELETE FROM retained WHERE topic = $1")?;
            delete.execute([&**topic]).map(drop)
        }
        Write::RetainedOnly(mark) => {
            let sql = "DELETE FROM retained WHERE mark <> $1";
            connection.execute(sql, [mark]).map(drop)
        }
        Write::Time(at_ms) => {
            let mut update = connection.prepare_cached("UPDATE written SET at_ms = $1")?;
            update.execute([at_ms])?;
            let sql = "DELETE FROM retained WHERE expires_at_ms <= $1";
            connection.prepare_cached(sql)?.execute([at_ms]).map(drop)
        }
    }
}

/// Forget a session. Its other rows are of no use then, and [`purge`] removes them.
pub(super) fn forget(connection: &Connection, session: u64) -> Sql<()> {
    let mut delete = connection.prepare_cached("DELETE FROM session WHERE key = $1")?;
    delete.execute([signed(session)]).map(drop)
}

/// Whether a session is there.
pub(super) fn has(connection: &Connection, session: u64) -> Sql<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM session WHERE key = $1)";
    let mut select = connection.prepare_cached(sql)?;
    select.query_row([signed(session)], |row| row.get(0))
}

/// Remove rows of a session that was forgotten, at most so many of each table. Gives how many those
/// were of the table with the most; fewer than `most` are all.
pub(super) fn purge(connection: &Connection, session: u64, most: usize) -> Sql<usize> {
    let mut removed = 0;
    for (table, key) in PARTS {
        let mut delete = connection.prepare_cached(&format!(
            "DELETE FROM {table} WHERE session = $1 AND {key} IN
                 (SELECT {key} FROM {table} WHERE session = $1 LIMIT $2)
             AND NOT EXISTS (SELECT 1 FROM session WHERE key = $1)"
        ))?;
        removed = removed.max(delete.execute((signed(session), signed(most as u64)))?);
    }
    Ok(removed)
}

/// Read everything, in this order.
pub(super) fn read(connection: &Connection, each: &mut dyn FnMut(Row)) -> Sql<()> {
    let at_ms = connection.query_row("SELECT at_ms FROM written", [], |row| row.get(0));
    match at_ms {
        Ok(at_ms) => each(Row::Time(at_ms)),
        Err(rusqlite::Error::QueryReturnedNoRows) => {}
        Err(error) => return Err(error),
    }
    let mut scan = |table, columns: &str, order, read: fn(&SqlRow<'_>) -> Sql<Row>| {
        scan(connection, each, table, columns, order, read)
    };
    let columns = "key, client_id, purpose, administrator, issuer, serial, common_name, ca_sn, \
                   address, since_ms, expires_at_ms, next_packet_id";
    scan("session", columns, "key", session)?;
    let columns = "session, due_at_ms, expiry_seconds, qos, retain, topic, properties, payload";
    scan("will", columns, "session", |row| {
        let will = WillRecord {
            due_at_ms: row.get(1)?,
            expiry_seconds: row.get(2)?,
            qos: row.get(3)?,
            retain: row.get(4)?,
            topic: text(row, 5)?,
            properties: octets(row, 6)?,
            payload: octets(row, 7)?,
        };
        Ok(Row::Will(of(row)?, will))
    })?;
    let columns = "session, filter, options, identifier";
    scan("subscription", columns, "session", |row| {
        let subscription = SubscriptionRecord {
            filter: row.get(1)?,
            options: row.get(2)?,
            identifier: row.get(3)?,
        };
        Ok(Row::Subscription(of(row)?, subscription))
    })?;
    scan("received", "session, packet_id", "session", |row| {
        Ok(Row::Received(of(row)?, row.get(1)?))
    })?;
    let columns = format!("session, packet_id, {MESSAGE}");
    scan("in_flight", &columns, "session, place", |row| {
        let entry = InFlightRecord {
            packet_id: row.get(1)?,
            message: match row.get_ref(TOPIC)? {
                ValueRef::Null => None,
                _ => Some(message(row)?),
            },
        };
        Ok(Row::InFlight(of(row)?, entry))
    })?;
    let columns = format!("session, number, {MESSAGE}");
    scan("queued", &columns, "session, number", |row| {
        // Counting goes on from it, so it must be far from the last number there is.
        let number: i64 = row.get(1)?;
        let number = u64::try_from(number).map_err(|_| no_sense("number"))?;
        Ok(Row::Queued(of(row)?, number, message(row)?))
    })?;
    let columns = "NULL, topic, qos, publisher, expires_at_ms, properties, payload";
    scan("retained", columns, "topic", |row| {
        Ok(Row::Retained(RetainedRecord {
            topic: text(row, 1)?,
            qos: row.get(2)?,
            publisher: row.get::<_, i64>(3)?.cast_unsigned(),
            expires_at_ms: row.get(4)?,
            properties: octets(row, 5)?,
            payload: octets(row, 6)?,
        }))
    })
}

/// Read one table in the order of its key, which sorts nothing. The first column is the session
/// that a row belongs to. A row that makes no sense is given as such; a file that fails is an
/// error.
fn scan(
    connection: &Connection,
    each: &mut dyn FnMut(Row),
    table: &'static str,
    columns: &str,
    order: &str,
    read: fn(&SqlRow<'_>) -> Sql<Row>,
) -> Sql<()> {
    let sql = format!("SELECT {columns} FROM {table} ORDER BY {order}");
    let mut select = connection.prepare(&sql)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        each(match read(row) {
            Ok(record) => record,
            Err(error @ rusqlite::Error::SqliteFailure(..)) => return Err(error),
            Err(error) => Row::Unreadable {
                session: of(row).ok(),
                table,
                what: error.to_string(),
            },
        });
    }
    Ok(())
}

fn session(row: &SqlRow<'_>) -> Sql<Row> {
    let purpose: String = row.get(2)?;
    let address: String = row.get(8)?;
    let holder = HolderRecord {
        purpose: match purpose.as_str() {
            "device" => Purpose::Device,
            "admin" => Purpose::Admin,
            _ => return Err(no_sense("purpose")),
        },
        administrator: row.get(3)?,
        issuer: parsed(row, 4, "issuer")?,
        serial: parsed(row, 5, "serial")?,
        common_name: row.get(6)?,
        ca_sn: parsed(row, 7, "ca_sn")?,
        address: address
            .parse::<SocketAddr>()
            .map_err(|_| no_sense("address"))?,
        since_ms: row.get(9)?,
    };
    Ok(Row::Session(SessionRecord {
        key: of(row)?,
        client_id: text(row, 1)?,
        holder,
        expires_at_ms: row.get(10)?,
        next_packet_id: row.get(11)?,
    }))
}

/// The columns of a message, from the third one on.
const MESSAGE: &str =
    "qos, retain, expires_at_ms, queued_at_ms, subscription_ids, topic, properties, payload";
/// The place of its topic.
const TOPIC: usize = 7;

fn message(row: &SqlRow<'_>) -> Sql<MessageRecord> {
    Ok(MessageRecord {
        qos: row.get(2)?,
        retain: row.get(3)?,
        expires_at_ms: row.get(4)?,
        queued_at_ms: row.get(5)?,
        subscription_ids: row
            .get_ref(6)?
            .as_blob()?
            .chunks(4)
            .map(|four| Ok(u32::from_be_bytes(four.try_into()?)))
            .collect::<Result<_, std::array::TryFromSliceError>>()
            .map_err(|_| no_sense("subscription_ids"))?,
        topic: text(row, TOPIC)?,
        properties: octets(row, 8)?,
        payload: octets(row, 9)?,
    })
}

fn put_session(connection: &Connection, whole: &WholeSession) -> Sql<()> {
    let WholeSession { session, queue, .. } = whole;
    let key = signed(session.key);
    for (table, _) in PARTS {
        let sql = format!("DELETE FROM {table} WHERE session = $1");
        connection.prepare_cached(&sql)?.execute([key])?;
    }
    let holder = &session.holder;
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO session VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )?;
    insert.execute((
        key,
        &*session.client_id,
        match holder.purpose {
            Purpose::Device => "device",
            Purpose::Admin => "admin",
        },
        holder.administrator,
        holder.issuer.to_string(),
        holder.serial.to_string(),
        &holder.common_name,
        holder.ca_sn.to_string(),
        holder.address.to_string(),
        holder.since_ms,
        session.expires_at_ms,
        session.next_packet_id,
    ))?;
    if let Some(will) = &whole.will {
        let sql = "INSERT INTO will VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        connection.prepare_cached(sql)?.execute((
            key,
            will.due_at_ms,
            will.expiry_seconds,
            will.qos,
            will.retain,
            &*will.topic,
            &will.properties[..],
            &will.payload[..],
        ))?;
    }
    let mut insert = connection.prepare_cached(
        // Two texts that are one filter cannot be; if they are, one is enough.
        "INSERT OR REPLACE INTO subscription VALUES ($1, $2, $3, $4)",
    )?;
    for one in &whole.subscriptions {
        insert.execute((key, &one.filter, one.options, one.identifier))?;
    }
    let mut insert = connection.prepare_cached("INSERT INTO received VALUES ($1, $2)")?;
    for packet_id in &whole.received {
        insert.execute((key, packet_id))?;
    }
    put_in_flight(connection, key, &whole.in_flight)?;
    put_queue(connection, session.key, whole.first, queue)
}

fn put_in_flight(connection: &Connection, key: i64, entries: &[InFlightRecord]) -> Sql<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO in_flight VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )?;
    for (entry, place) in entries.iter().zip(0_i64..) {
        let message = entry.message.as_ref();
        insert.execute((
            key,
            place,
            entry.packet_id,
            message.map(|m| m.qos),
            message.map(|m| m.retain),
            message.and_then(|m| m.expires_at_ms),
            message.map(|m| m.queued_at_ms),
            message.map(|m| ids(&m.subscription_ids)),
            message.map(|m| &*m.topic),
            message.map(|m| &m.properties[..]),
            message.map(|m| &m.payload[..]),
        ))?;
    }
    Ok(())
}

fn put_queue(
    connection: &Connection,
    session: u64,
    first: u64,
    messages: &[MessageRecord],
) -> Sql<()> {
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO queued VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )?;
    for (message, number) in messages.iter().zip(first..) {
        insert.execute((
            signed(session),
            signed(number),
            message.qos,
            message.retain,
            message.expires_at_ms,
            message.queued_at_ms,
            ids(&message.subscription_ids),
            &*message.topic,
            &message.properties[..],
            &message.payload[..],
        ))?;
    }
    Ok(())
}

fn put_retained(connection: &Connection, message: &RetainedRecord, mark: i64) -> Sql<()> {
    let sql = "INSERT OR REPLACE INTO retained VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let mut insert = connection.prepare_cached(sql)?;
    insert
        .execute((
            &*message.topic,
            message.qos,
            signed(message.publisher),
            message.expires_at_ms,
            &message.properties[..],
            &message.payload[..],
            mark,
        ))
        .map(drop)
}

/// SQLite's numbers have a sign.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

/// The session that the row belongs to.
fn of(row: &SqlRow<'_>) -> Sql<u64> {
    row.get::<_, i64>(0).map(i64::cast_unsigned)
}

fn text(row: &SqlRow<'_>, column: usize) -> Sql<ByteString> {
    row.get::<_, String>(column).map(ByteString::from)
}

fn octets(row: &SqlRow<'_>, column: usize) -> Sql<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_blob()?))
}

fn parsed<T: FromStr>(row: &SqlRow<'_>, column: usize, name: &'static str) -> Sql<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| no_sense(name))
}

fn ids(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_be_bytes()).collect()
}

fn no_sense(column: &'static str) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(format!("the value of {column} makes no sense").into())
}
