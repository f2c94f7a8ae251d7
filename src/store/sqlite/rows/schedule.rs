//! Changes that are to be made at a time.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::{Fields, status_text};
use crate::ca::id::{CaId, IdError};
use crate::store::{ScheduleRecord, StoreError};

pub(super) fn put(connection: &Connection, schedule: &ScheduleRecord) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO schedule (id, ca, status, at_ms, force, principal, created_at_ms, ends)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8
             WHERE EXISTS (SELECT 1 FROM ca WHERE id = $2)
             ON CONFLICT (id) DO UPDATE SET
                 ca = excluded.ca, status = excluded.status, at_ms = excluded.at_ms,
                 force = excluded.force, principal = excluded.principal,
                 created_at_ms = excluded.created_at_ms, ends = excluded.ends",
        )?
        .execute(params![
            schedule.id.to_string(),
            schedule.ca.to_string(),
            status_text(schedule.status),
            schedule.at_ms,
            i64::from(schedule.force),
            schedule.principal,
            schedule.created_at_ms,
            schedule.ends.map(|ends| ends.to_string()),
        ])?;
    Ok(())
}

pub(super) const SELECT: &str = "SELECT rowid, id, ca, status, at_ms, force, principal,
        created_at_ms, ends FROM schedule ORDER BY rowid";

pub(super) fn read(
    fields: &Fields<'_, '_>,
    known: &HashSet<CaId>,
) -> Result<ScheduleRecord, StoreError> {
    let ca: CaId = fields.digest(2)?;
    if !known.contains(&ca) {
        return Err(fields.corrupt(2, "names a CA that is not in table ca".to_owned()));
    }
    let ends = fields.optional_text(8)?;
    let ends = ends.map(|ends| {
        ends.parse()
            .map_err(|error: IdError| fields.corrupt(8, error.to_string()))
    });
    Ok(ScheduleRecord {
        id: fields.digest(1)?,
        ca,
        status: fields.status(3)?,
        at_ms: fields.integer(4)?,
        force: fields.flag(5)?,
        principal: fields.text(6)?.to_owned(),
        created_at_ms: fields.integer(7)?,
        ends: ends.transpose()?,
    })
}
