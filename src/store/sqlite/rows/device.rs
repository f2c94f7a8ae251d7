//! Devices. There may be a million of them, so one thread takes the rows out of the database, some
//! hundred at a time, while another one reads them; their certificates stay there, and are read for
//! whoever asks for one.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use bytes::Bytes;
use rusqlite::{Connection, params};

use super::{Fields, NOT_WHOLE, digest_of, lower_hex, serial_of, status_of, status_text};
use crate::ca::id::{CaId, CaKeyId, IdError, InstanceId};
use crate::ca::lifecycle::Status;
use crate::store::sqlite::der;
use crate::store::{DeviceId, DeviceRecord, StoreError};

pub(super) fn put(
    connection: &Connection,
    device: &DeviceRecord,
    der: &[u8],
) -> Result<(), StoreError> {
    if !der::is_whole(der) {
        return Err(StoreError::Corrupt {
            table: TABLE,
            row: format!("serial {}", device.serial),
            what: NOT_WHOLE.to_owned(),
        });
    }
    write(connection, PUT, device, der).map(drop)
}

/// Its status alone.
pub(super) fn switch(connection: &Connection, device: &DeviceRecord) -> Result<(), StoreError> {
    let switched = write(connection, SWITCH, device, UNKNOWN)?;
    if switched == 0 && device.status == Status::Active {
        return Err(StoreError::Corrupt {
            table: TABLE,
            row: format!("serial {}", device.serial),
            what: "is not there, or not found: try REINDEX".to_owned(),
        });
    }
    Ok(())
}

/// The CA that it is listed under alone.
pub(super) fn move_to(
    connection: &Connection,
    device: &DeviceId,
    to: CaId,
) -> Result<(), StoreError> {
    let (instance, issuer, serial) = id_values(device);
    connection
        .prepare_cached(MOVE)?
        .execute((to.to_string(), instance, issuer, serial))?;
    Ok(())
}

pub(super) fn delete(connection: &Connection, device: &DeviceId) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM device WHERE instance = $1 AND issuer = $2 AND serial = $3")?
        .execute(id_values(device))?;
    Ok(())
}

/// Gives how many rows were written.
fn write(
    connection: &Connection,
    statement: &str,
    device: &DeviceRecord,
    der: &[u8],
) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached(statement)?.execute(params![
        device.instance.as_str(),
        device.issuer.to_string(),
        device.serial.to_string(),
        device.ca.to_string(),
        device.name,
        status_text(device.status),
        device.first_seen_ms,
        der,
    ])?)
}

fn id_values(device: &DeviceId) -> (&str, String, String) {
    (
        device.instance.as_str(),
        device.issuer.to_string(),
        device.serial.to_string(),
    )
}

/// See [`Store::device_certificates`](crate::store::Store::device_certificates).
pub(in crate::store::sqlite) fn certificates(
    connection: &Connection,
    devices: &[DeviceId],
) -> Result<Vec<Option<Bytes>>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT der FROM device WHERE instance = $1 AND issuer = $2 AND serial = $3",
    )?;
    let certificate = |device: &DeviceId| {
        let mut rows = statement.query(id_values(device))?;
        let row = rows.next()?;
        let der = row.map(|row| row.get_ref(0)).transpose()?;
        let der = der.and_then(|der| der.as_blob().ok());
        Ok(der
            .filter(|der| der::is_whole(der))
            .map(Bytes::copy_from_slice))
    };
    devices.iter().map(certificate).collect()
}

/// Every device; the CAs that they may stand under are known. Of several rows that are no records,
/// the error names the first.
pub(in crate::store::sqlite) fn read_all(
    connection: &Connection,
    known: &HashSet<CaId>,
) -> Result<Vec<DeviceRecord>, StoreError> {
    std::thread::scope(|scope| {
        let (full, filled) = sync_channel(MOST_WAITING);
        let (spent, used) = channel();
        let room = at_most(connection)?;
        let reading = std::thread::Builder::new()
            .name("store-devices".to_owned())
            .spawn_scoped(scope, move || read_batches(&filled, &spent, room, known))
            .map_err(|error| StoreError::Unusable {
                what: format!("the thread store-devices cannot be started: {error}"),
            })?;
        let stepped = step(connection, full, &used);
        let read = reading.join().map_err(|_| StoreError::Unusable {
            what: "the thread store-devices had panicked".to_owned(),
        })?;
        // What was handed over stands before what could not be.
        let records = read?;
        stepped.map(|()| records)
    })
}

/// Rows on their way between the threads, and their text, one after the other. What has been touched
/// once costs less, so they go back when they have been read.
struct Batch {
    rows: Vec<Raw>,
    text: Vec<u8>,
}

/// One row: where its columns end in the batch, each of which begins where the one before it ends.
struct Raw {
    rowid: i64,
    first_seen_ms: i64,
    ends: [usize; COLUMNS.len()],
}

impl Batch {
    fn new(used: &Receiver<Self>) -> Self {
        used.try_recv().unwrap_or_else(|_| Self {
            rows: Vec::with_capacity(BATCH_ROWS),
            text: Vec::with_capacity(BATCH_ROWS * 256),
        })
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS || self.text.len() >= BATCH_OCTETS
    }
}

/// Take the rows out, in their order. If nobody takes them any more, that is told over there.
fn step(
    connection: &Connection,
    full: SyncSender<Batch>,
    used: &Receiver<Batch>,
) -> Result<(), StoreError> {
    let mut batch = Batch::new(used);
    let stepped = fill(connection, &mut batch, &full, used);
    let _ = full.send(batch);
    stepped
}

fn fill(
    connection: &Connection,
    batch: &mut Batch,
    full: &SyncSender<Batch>,
    used: &Receiver<Batch>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(SELECT)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let fields = Fields { row, table: TABLE };
        if batch.is_full() {
            let filled = std::mem::replace(batch, Batch::new(used));
            if full.send(filled).is_err() {
                return Ok(());
            }
        }
        let mut ends = [0; COLUMNS.len()];
        for (end, column) in ends.iter_mut().zip(1..) {
            batch.text.extend_from_slice(fields.octets(column)?);
            *end = batch.text.len();
        }
        // It stays where it is, but a row without one is none.
        fields.der(8)?;
        batch.rows.push(Raw {
            rowid: fields.integer(0)?,
            first_seen_ms: fields.integer(7)?,
            ends,
        });
    }
    Ok(())
}

fn read_batches(
    filled: &Receiver<Batch>,
    spent: &Sender<Batch>,
    room: usize,
    known: &HashSet<CaId>,
) -> Result<Vec<DeviceRecord>, StoreError> {
    let mut records = Vec::new();
    // Without it, all are copied again and again. What is not used of it is hardly ever real memory.
    let _ = records.try_reserve(room);
    let mut before = Before::default();
    for mut batch in filled {
        let mut at = 0;
        for raw in batch.rows.drain(..) {
            let mut columns = [&[] as &[u8]; COLUMNS.len()];
            for (column, end) in columns.iter_mut().zip(raw.ends) {
                *column = batch.text.get(at..end).unwrap_or_default();
                at = end;
            }
            let record = read(&raw, columns, known, &mut before);
            records.push(
                record.map_err(|Fault { column, what }| StoreError::Corrupt {
                    table: TABLE,
                    row: format!("rowid {}", raw.rowid),
                    what: format!("{column} {what}"),
                })?,
            );
        }
        batch.text.clear();
        // After the last row nobody wants it.
        let _ = spent.send(batch);
    }
    Ok(records)
}

/// No more rows than this, or none if that is not known: what the highest rowid says, and the size of
/// the file, since the number may have been written by hand.
pub(in crate::store::sqlite) fn at_most(connection: &Connection) -> Result<usize, StoreError> {
    let one = |statement| connection.query_row(statement, [], |row| row.get::<_, Option<i64>>(0));
    let highest = one("SELECT max(rowid) FROM device")?;
    let pages = one("SELECT page_count FROM pragma_page_count")?;
    let octets = one("SELECT page_size FROM pragma_page_size")?;
    let fit = pages
        .zip(octets)
        .map(|(pages, octets)| pages.saturating_mul(octets) / ROW_OCTETS);
    let most = highest.zip(fit).map(|(highest, fit)| highest.min(fit));
    Ok(most
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(0))
}

/// What the row before had: a million devices of one instance have one copy of its name.
#[derive(Default)]
struct Before {
    instance: Option<InstanceId>,
    ca: Option<CaId>,
}

/// What is wrong with which column.
struct Fault {
    column: &'static str,
    what: String,
}

fn read(
    raw: &Raw,
    columns: [&[u8]; COLUMNS.len()],
    known: &HashSet<CaId>,
    before: &mut Before,
) -> Result<DeviceRecord, Fault> {
    let fault = |column| move |what| Fault { column, what };
    let text = |column: &'static str, octets| {
        std::str::from_utf8(octets).map_err(|_| fault(column)("is not UTF-8".to_owned()))
    };
    let [of_instance, of_issuer, of_serial, of_ca, of_name, of_status] = COLUMNS;
    let [instance, issuer, serial, ca, name, status] = columns;
    let ca = match lower_hex(ca) {
        Some(octets) => CaId::from_bytes(octets),
        None => digest_of(text(of_ca, ca)?).map_err(fault(of_ca))?,
    };
    let issuer = match lower_hex(issuer) {
        Some(octets) => CaKeyId::from_bytes(octets),
        None => digest_of(text(of_issuer, issuer)?).map_err(fault(of_issuer))?,
    };
    if before.ca != Some(ca) {
        if !known.contains(&ca) {
            return Err(fault(of_ca)(
                "names a CA that is not in table ca".to_owned(),
            ));
        }
        before.ca = Some(ca);
    }
    let instance = text(of_instance, instance)?;
    let instance = match &before.instance {
        Some(last) if last.as_str() == instance => last.clone(),
        _ => {
            let parsed = instance.parse::<InstanceId>();
            let parsed = parsed
                .map_err(|error: IdError| fault(of_instance)(format!("is wrong: {error}")))?;
            before.instance.insert(parsed).clone()
        }
    };
    Ok(DeviceRecord {
        instance,
        issuer,
        serial: serial_of(text(of_serial, serial)?).map_err(fault(of_serial))?,
        ca,
        name: text(of_name, name)?.to_owned(),
        status: status_of(text(of_status, status)?).map_err(fault(of_status))?,
        first_seen_ms: raw.first_seen_ms,
    })
}

const TABLE: &str = "device";

// With numbers, since rusqlite binds by position, and SQLite numbers names as they appear.
const PUT: &str = "INSERT INTO device
        (instance, issuer, serial, ca, name, status, first_seen_ms, der)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
    WHERE EXISTS (SELECT 1 FROM ca WHERE id = ?4 AND instance = ?1)
    ON CONFLICT (instance, issuer, serial) DO UPDATE SET
        ca = excluded.ca, name = excluded.name,
        status = CASE device.status WHEN 'inactive' THEN 'inactive' ELSE excluded.status END,
        first_seen_ms = excluded.first_seen_ms, der = excluded.der";

/// With all columns, since it may have to insert: a denial also where the CA is gone, if there is another
/// one. It holds for the device whatever CA it is listed under.
const SWITCH: &str = "INSERT INTO device
        (instance, issuer, serial, ca, name, status, first_seen_ms, der)
    SELECT ?1, ?2, ?3, place.ca, ?5, ?6, ?7, ?8
    FROM (SELECT coalesce(
            (SELECT id FROM ca WHERE id = ?4 AND instance = ?1),
            (SELECT id FROM ca WHERE instance = ?1 ORDER BY id LIMIT 1),
            (SELECT ca FROM device WHERE instance = ?1 AND issuer = ?2 AND serial = ?3)
        ) AS ca) AS place
    WHERE EXISTS (SELECT 1 FROM device WHERE instance = ?1 AND issuer = ?2 AND serial = ?3)
        OR (?6 = 'inactive' AND place.ca IS NOT NULL)
    ON CONFLICT (instance, issuer, serial) DO UPDATE SET status = excluded.status,
        ca = CASE WHEN EXISTS (SELECT 1 FROM ca WHERE id = device.ca AND instance = device.instance)
            THEN device.ca ELSE excluded.ca END";

const MOVE: &str = "UPDATE device SET ca = ?1
    WHERE EXISTS (SELECT 1 FROM ca WHERE id = ?1 AND instance = ?2)
        AND instance = ?2 AND issuer = ?3 AND serial = ?4";

/// The columns that are text, as they follow the rowid in [`SELECT`].
const COLUMNS: [&str; 6] = ["instance", "issuer", "serial", "ca", "name", "status"];

// The first column is the rowid, by which an operator finds the row an error names.
const SELECT: &str = "SELECT rowid, instance, issuer, serial, ca, name, status,
        first_seen_ms, der FROM device ORDER BY rowid";

/// Rows of a batch, and about the octets of their text: few enough to stay in the caches of a processor.
const BATCH_ROWS: usize = 256;
const BATCH_OCTETS: usize = 128 << 10;

/// A row is longer: it has a certificate and two digests in hexadecimal digits.
const ROW_OCTETS: i64 = 256;

/// Batches that wait to be read.
const MOST_WAITING: usize = 8;

/// Stands for a certificate that is not known: an empty SEQUENCE.
const UNKNOWN: &[u8] = &[0x30, 0x00];
