//! The rows of lists of revoked certificates.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::{Fields, StoreError, read_all};
use crate::ca::crl::{CrlPolicy, UnverifiedCrl};
use crate::ca::id::{CrlDigest, CrlId, InstanceId};
use crate::store::{CrlDer, CrlPolicyRecord, CrlRecord};

/// The lists that are kept, by their digests.
pub(crate) fn digests(connection: &Connection) -> Result<HashSet<CrlDigest>, StoreError> {
    let all = read_all(connection, "crl", SELECT, read)?;
    Ok(all.into_iter().map(|record| record.digest).collect())
}

pub(super) fn put(
    connection: &Connection,
    record: &CrlRecord,
    der: &CrlDer,
) -> Result<(), StoreError> {
    let number = UnverifiedCrl::read(&der.0).map(|crl| crl.number().to_string());
    connection
        .prepare_cached(
            "INSERT INTO crl (instance, id, issuer, sha256, number, imported_at_ms)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (instance, id) DO UPDATE SET
                 issuer = excluded.issuer, sha256 = excluded.sha256, number = excluded.number,
                 imported_at_ms = excluded.imported_at_ms",
        )?
        .execute(params![
            record.instance.as_str(),
            record.id.to_string(),
            record.issuer.to_string(),
            record.digest.to_string(),
            number.ok(),
            record.imported_at_ms,
        ])?;
    Ok(())
}

pub(super) fn delete(
    connection: &Connection,
    instance: &InstanceId,
    id: &CrlId,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM crl WHERE instance = $1 AND id = $2")?
        .execute(params![instance.as_str(), id.to_string()])?;
    Ok(())
}

pub(super) fn put_policy(
    connection: &Connection,
    record: &CrlPolicyRecord,
) -> Result<(), StoreError> {
    if record.policy == CrlPolicy::Optional {
        // What holds without a row.
        connection
            .prepare_cached("DELETE FROM crl_policy WHERE instance = $1 AND issuer = $2")?
            .execute(params![record.instance.as_str(), record.issuer.to_string()])?;
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO crl_policy (instance, issuer, policy)
             VALUES ($1, $2, $3)
             ON CONFLICT (instance, issuer) DO UPDATE SET policy = excluded.policy",
        )?
        .execute(params![
            record.instance.as_str(),
            record.issuer.to_string(),
            record.policy.word(),
        ])?;
    Ok(())
}

pub(super) const SELECT: &str =
    "SELECT rowid, instance, id, issuer, sha256, imported_at_ms FROM crl ORDER BY rowid";
pub(super) const SELECT_POLICIES: &str =
    "SELECT rowid, instance, issuer, policy FROM crl_policy ORDER BY rowid";

pub(super) fn read(fields: &Fields<'_, '_>) -> Result<CrlRecord, StoreError> {
    Ok(CrlRecord {
        instance: fields.parse(1)?,
        id: fields.digest(2)?,
        issuer: fields.digest(3)?,
        digest: fields.digest(4)?,
        imported_at_ms: fields.integer(5)?,
    })
}

pub(super) fn read_policy(fields: &Fields<'_, '_>) -> Result<CrlPolicyRecord, StoreError> {
    let policy = CrlPolicy::find(fields.text(3)?)
        .ok_or_else(|| fields.corrupt(3, "is no policy".to_owned()))?;
    Ok(CrlPolicyRecord {
        instance: fields.parse(1)?,
        issuer: fields.digest(2)?,
        policy,
    })
}
