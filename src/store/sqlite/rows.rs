//! Records to rows and back.
//!
//! Reading trusts nothing: the file may have been edited by hand, or damaged. A row that is no
//! record is an error that names it, because a row passed over could be the one that says
//! `inactive`.

mod crl;
mod device;
mod schedule;

use std::collections::HashSet;
use std::str::FromStr;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

pub(super) use self::crl::digests;
#[cfg(test)]
pub(super) use self::device::at_most as devices_at_most;
pub(super) use self::device::certificates as device_certificates;
pub(super) use self::device::read_all as devices;

use super::der;
use crate::ca::id::{CaId, CertSerial, IdError};
use crate::ca::lifecycle::Status;
use crate::secret::Secret;
use crate::store::{
    AccessKeyRecord, CaRecord, Change, KeptSecret, RegisterCodeRecord, Snapshot, StoreError,
};

/// The number of the last commit, as the database has it.
pub(super) fn head(connection: &Connection) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT only_row, seq FROM head")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else {
        return Err(StoreError::Corrupt {
            table: "head",
            row: "rowid 1".to_owned(),
            what: "is missing".to_owned(),
        });
    };
    let fields = Fields { row, table: "head" };
    fields
        .integer(1)
        .and_then(|seq| u64::try_from(seq).map_err(|_| fields.corrupt(1, "is negative".to_owned())))
}

/// Set the number of the last commit.
pub(super) fn set_head(connection: &Connection, seq: u64) -> Result<(), StoreError> {
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    connection
        .prepare_cached("UPDATE head SET seq = $1 WHERE only_row = 1")?
        .execute([seq])?;
    Ok(())
}

/// Everything but the devices, for which [`devices`] is there, and the CAs that they may stand under.
/// The caller holds one read transaction for both, so that it is one moment.
pub(super) fn all_but_devices(
    connection: &Connection,
) -> Result<(Snapshot, HashSet<CaId>), StoreError> {
    let seq = head(connection)?;
    let cas = read_all(connection, "ca", SELECT_CAS, read_ca)?;
    let known: HashSet<CaId> = cas.iter().map(|ca| ca.id).collect();
    let snapshot = Snapshot {
        seq,
        devices: Vec::new(),
        register_codes: read_all(connection, "register_code", SELECT_CODES, read_code)?,
        access_keys: read_all(connection, "access_key", SELECT_KEYS, read_key)?,
        crls: read_all(connection, "crl", crl::SELECT, crl::read)?,
        crl_policies: read_all(
            connection,
            "crl_policy",
            crl::SELECT_POLICIES,
            crl::read_policy,
        )?,
        schedules: read_all(connection, "schedule", schedule::SELECT, |fields| {
            schedule::read(fields, &known)
        })?,
        cas,
    };
    Ok((snapshot, known))
}

/// Make one change, inside the caller's transaction.
pub(super) fn apply(connection: &Connection, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::PutCa(ca) => put_ca(connection, ca),
        Change::DeleteCa(id) => {
            connection
                .prepare_cached("DELETE FROM ca WHERE id = $1")?
                .execute([id.to_string()])?;
            Ok(())
        }
        Change::PutDevice { record, der } => device::put(connection, record, der),
        Change::SwitchDevice(record) => device::switch(connection, record),
        Change::MoveDevice { device, to } => device::move_to(connection, device, *to),
        Change::DeleteDevice(device) => device::delete(connection, device),
        Change::PutRegisterCode(code) => put_code(connection, code),
        Change::DeleteRegisterCode(code) => {
            connection
                .prepare_cached("DELETE FROM register_code WHERE code = $1")?
                .execute([code])?;
            Ok(())
        }
        Change::PutAccessKey(key) => put_key(connection, key),
        Change::DeleteAccessKey(id) => {
            connection
                .prepare_cached("DELETE FROM access_key WHERE id = $1")?
                .execute([id.as_str()])?;
            Ok(())
        }
        Change::PutCrl { record, der } => crl::put(connection, record, der),
        Change::DeleteCrl { instance, id } => crl::delete(connection, instance, id),
        Change::PutCrlPolicy(policy) => crl::put_policy(connection, policy),
        Change::PutSchedule(record) => schedule::put(connection, record),
        Change::DeleteSchedule(id) => {
            connection
                .prepare_cached("DELETE FROM schedule WHERE id = $1")?
                .execute([id.to_string()])?;
            Ok(())
        }
    }
}

fn put_ca(connection: &Connection, ca: &CaRecord) -> Result<(), StoreError> {
    let refuse = |what: &str| StoreError::Corrupt {
        table: "ca",
        row: format!("id {}", ca.id),
        what: what.to_owned(),
    };
    if !der::is_whole(&ca.der) {
        return Err(refuse(NOT_WHOLE));
    }
    if CaId::of_der(&ca.der) != ca.id {
        return Err(refuse(NOT_ITS_DIGEST));
    }
    // Parameters are numbered in the order in which they appear: rusqlite binds them so.
    connection
        .prepare_cached(
            "INSERT INTO ca (id, sn, instance, name, status, registered_at_ms, register_code,
                             verification_pem, der)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (id) DO UPDATE SET
                 sn = excluded.sn, instance = excluded.instance, name = excluded.name,
                 status = excluded.status, registered_at_ms = excluded.registered_at_ms,
                 register_code = excluded.register_code,
                 verification_pem = excluded.verification_pem, der = excluded.der",
        )?
        .execute(params![
            ca.id.to_string(),
            der::serial(&ca.der).map(|serial| serial.to_string()),
            ca.instance.as_str(),
            ca.name,
            status_text(ca.status),
            ca.registered_at_ms,
            ca.register_code,
            ca.verification_pem,
            ca.der,
        ])?;
    Ok(())
}

fn put_code(connection: &Connection, code: &RegisterCodeRecord) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO register_code (code, instance, account, expires_at_ms, used)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (code) DO UPDATE SET
                 instance = excluded.instance, account = excluded.account,
                 expires_at_ms = excluded.expires_at_ms, used = excluded.used",
        )?
        .execute(params![
            code.code,
            code.instance.as_str(),
            code.account.as_str(),
            code.expires_at_ms,
            i64::from(code.used),
        ])?;
    Ok(())
}

fn put_key(connection: &Connection, key: &AccessKeyRecord) -> Result<(), StoreError> {
    let (plain, sealed) = match &key.secret {
        KeptSecret::Plain(secret) => (Some(secret.reveal()), None),
        KeptSecret::Sealed(octets) => (None, Some(octets)),
    };
    connection
        .prepare_cached(
            "INSERT INTO access_key (id, account, comment, status, created_at_ms, policy, secret,
                                     sealed_secret)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (id) DO UPDATE SET
                 account = excluded.account, comment = excluded.comment,
                 status = excluded.status, created_at_ms = excluded.created_at_ms,
                 policy = excluded.policy, secret = excluded.secret,
                 sealed_secret = excluded.sealed_secret",
        )?
        .execute(params![
            key.id.as_str(),
            key.account.as_str(),
            key.comment,
            status_text(key.status),
            key.created_at_ms,
            key.policy,
            plain,
            sealed,
        ])?;
    Ok(())
}

// The first column is the rowid, by which an operator finds the row an error names.
const SELECT_CAS: &str = "SELECT rowid, id, instance, name, status, registered_at_ms,
        register_code, verification_pem, der FROM ca ORDER BY rowid";
const SELECT_CODES: &str = "SELECT rowid, code, instance, account, expires_at_ms, used
        FROM register_code ORDER BY rowid";
const SELECT_KEYS: &str = "SELECT rowid, id, account, comment, status, created_at_ms, policy,
        secret, sealed_secret FROM access_key ORDER BY rowid";

fn read_all<T>(
    connection: &Connection,
    table: &'static str,
    select: &str,
    mut read: impl FnMut(&Fields<'_, '_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(select)?;
    let mut rows = statement.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(read(&Fields { row, table })?);
    }
    Ok(records)
}

fn read_ca(fields: &Fields<'_, '_>) -> Result<CaRecord, StoreError> {
    let id: CaId = fields.digest(1)?;
    let der = fields.der(8)?;
    if CaId::of_der(der) != id {
        return Err(fields.corrupt(1, NOT_ITS_DIGEST.to_owned()));
    }
    Ok(CaRecord {
        id,
        instance: fields.parse(2)?,
        name: fields.text(3)?.to_owned(),
        status: fields.status(4)?,
        registered_at_ms: fields.integer(5)?,
        register_code: fields.optional_text(6)?,
        verification_pem: fields.optional_text(7)?,
        der: der.to_owned(),
    })
}

fn read_code(fields: &Fields<'_, '_>) -> Result<RegisterCodeRecord, StoreError> {
    Ok(RegisterCodeRecord {
        code: fields.text(1)?.to_owned(),
        instance: fields.parse(2)?,
        account: fields.parse(3)?,
        expires_at_ms: fields.integer(4)?,
        used: fields.flag(5)?,
    })
}

fn read_key(fields: &Fields<'_, '_>) -> Result<AccessKeyRecord, StoreError> {
    let secret = match (fields.optional_text(7)?, fields.optional_blob(8)?) {
        (Some(plain), None) => KeptSecret::Plain(Secret::new(plain)),
        (None, Some(sealed)) => KeptSecret::Sealed(sealed),
        (Some(_), Some(_)) => {
            return Err(fields.corrupt(7, "is there besides sealed_secret".to_owned()));
        }
        (None, None) => return Err(fields.corrupt(7, "is missing".to_owned())),
    };
    Ok(AccessKeyRecord {
        id: fields.parse(1)?,
        account: fields.parse(2)?,
        comment: fields.text(3)?.to_owned(),
        status: fields.status(4)?,
        created_at_ms: fields.integer(5)?,
        policy: fields.optional_text(6)?,
        secret,
    })
}

/// The fields of one row, read with suspicion.
struct Fields<'r, 's> {
    row: &'r Row<'s>,
    table: &'static str,
}

impl<'r> Fields<'r, '_> {
    fn text(&self, column: usize) -> Result<&'r str, StoreError> {
        std::str::from_utf8(self.octets(column)?)
            .map_err(|_| self.corrupt(column, "is not UTF-8".to_owned()))
    }

    /// Text that whoever reads it has still to look at.
    fn octets(&self, column: usize) -> Result<&'r [u8], StoreError> {
        match self.row.get_ref(column)? {
            ValueRef::Text(octets) => Ok(octets),
            other => Err(self.wrong_type(column, "text", &other)),
        }
    }

    fn optional_text(&self, column: usize) -> Result<Option<String>, StoreError> {
        match self.row.get_ref(column)? {
            ValueRef::Null => Ok(None),
            _ => self.text(column).map(|text| Some(text.to_owned())),
        }
    }

    fn optional_blob(&self, column: usize) -> Result<Option<Vec<u8>>, StoreError> {
        match self.row.get_ref(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Blob(octets) => Ok(Some(octets.to_owned())),
            other => Err(self.wrong_type(column, "a blob", &other)),
        }
    }

    fn integer(&self, column: usize) -> Result<i64, StoreError> {
        match self.row.get_ref(column)? {
            ValueRef::Integer(value) => Ok(value),
            other => Err(self.wrong_type(column, "an integer", &other)),
        }
    }

    fn flag(&self, column: usize) -> Result<bool, StoreError> {
        match self.integer(column)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.corrupt(column, format!("is {other}, not 0 or 1"))),
        }
    }

    fn der(&self, column: usize) -> Result<&'r [u8], StoreError> {
        let octets = self.blob(column)?;
        match der::is_whole(octets) {
            true => Ok(octets),
            false => Err(self.corrupt(column, NOT_WHOLE.to_owned())),
        }
    }

    fn blob(&self, column: usize) -> Result<&'r [u8], StoreError> {
        match self.row.get_ref(column)? {
            ValueRef::Blob(octets) => Ok(octets),
            other => Err(self.wrong_type(column, "a blob", &other)),
        }
    }

    fn status(&self, column: usize) -> Result<Status, StoreError> {
        status_of(self.text(column)?).map_err(|what| self.corrupt(column, what))
    }

    fn parse<T: FromStr<Err = IdError>>(&self, column: usize) -> Result<T, StoreError> {
        self.text(column)?
            .parse()
            .map_err(|error: IdError| self.corrupt(column, format!("is wrong: {error}")))
    }

    fn digest<T: FromStr<Err = IdError>>(&self, column: usize) -> Result<T, StoreError> {
        digest_of(self.text(column)?).map_err(|what| self.corrupt(column, what))
    }

    fn wrong_type(&self, column: usize, expected: &str, found: &ValueRef<'_>) -> StoreError {
        self.corrupt(
            column,
            format!("is not {expected} but {}", found.data_type()),
        )
    }

    fn corrupt(&self, column: usize, what: String) -> StoreError {
        let name = self.row.as_ref().column_name(column).unwrap_or("?");
        StoreError::Corrupt {
            table: self.table,
            row: match self.row.get_ref(0) {
                Ok(ValueRef::Integer(rowid)) => format!("rowid {rowid}"),
                _ => "unknown rowid".to_owned(),
            },
            what: format!("{name} {what}"),
        }
    }
}

fn status_of(text: &str) -> Result<Status, String> {
    match text {
        "active" => Ok(Status::Active),
        "inactive" => Ok(Status::Inactive),
        _ => Err("is neither 'active' nor 'inactive'".to_owned()),
    }
}

/// The octets that so many lower-case hexadecimal digits stand for; quicker than [`digest_of`], which
/// can tell what is wrong.
fn lower_hex<const OCTETS: usize>(text: &[u8]) -> Option<[u8; OCTETS]> {
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != OCTETS || !rest.is_empty() {
        return None;
    }
    let mut octets = [0; OCTETS];
    let mut all = 0;
    for (octet, pair) in octets.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => 0xff,
        });
        all |= high | low;
        *octet = high << 4 | low;
    }
    (all <= 0x0f).then_some(octets)
}

/// In the one form in which it is written, so that no two rows mean one thing.
fn digest_of<T: FromStr<Err = IdError>>(text: &str) -> Result<T, String> {
    if text.bytes().any(|c| c.is_ascii_uppercase()) {
        return Err("has upper-case digits".to_owned());
    }
    text.parse()
        .map_err(|error: IdError| format!("is wrong: {error}"))
}

/// As [`digest_of`]: lower case, the fewest octets that are a positive DER integer.
fn serial_of(text: &str) -> Result<CertSerial, String> {
    let mut buffer = [0; 21];
    let canonical = (|| {
        if text.bytes().any(|c| c.is_ascii_uppercase()) {
            return None;
        }
        let octets = buffer.get_mut(..text.len().div_ceil(2))?;
        hex::decode_to_slice(text, octets).ok()?;
        let serial = CertSerial::from_be_bytes(octets).ok()?;
        let padded = usize::from(serial.as_bytes().first()? & 0x80 != 0);
        (octets.len() == serial.as_bytes().len() + padded).then_some(serial)
    })();
    canonical.ok_or_else(|| "is not a serial number as written".to_owned())
}

fn status_text(status: Status) -> &'static str {
    match status {
        Status::Inactive => "inactive",
        Status::Active => "active",
    }
}

const NOT_WHOLE: &str = "is not one whole DER sequence";
const NOT_ITS_DIGEST: &str = "is not the SHA-256 of der";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quick_digits_are_what_the_slow_ones_are(octets in any::<[u8; 32]>(), at in 0..64_usize, other in any::<u8>()) {
            let mut text = hex::encode(octets).into_bytes();
            prop_assert_eq!(lower_hex(&text), Some(octets));
            text[at] = other;
            let slow = std::str::from_utf8(&text).ok().and_then(|it| digest_of(it).ok());
            prop_assert_eq!(lower_hex(&text).map(CaId::from_bytes), slow);
            text.pop();
            prop_assert_eq!(lower_hex::<32>(&text), None);
        }
    }
}
