//! What the development mode does at its start besides serving.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use time::OffsetDateTime;

use super::StartError;
use super::dev_pki::{DevPki, DevPkiError, Note, REGISTERED_CAS};
use crate::ca::certificate::CaCertificate;
use crate::ca::id::RequestId;
use crate::config::{AccessKey, Config, Instance};
use crate::control::{Caller, Control, ControlError, Door, Grant, Principal};

/// Whether the registry was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Registry {
    /// The development CAs were never all registered in it: it is new, or the first start was
    /// cut short.
    New,
    /// It has a past, and is not touched.
    Kept,
}

impl Registry {
    /// By the number of its last commit. The first commits are the registrations, one each;
    /// nothing else is committed before the broker serves.
    pub(super) fn at(head: u64) -> Self {
        if head < REGISTERED_CAS.len() as u64 {
            Self::New
        } else {
            Self::Kept
        }
    }
}

/// Make the certificates complete, and take the access key into the configuration.
pub(super) async fn prepare(config: &mut Config) -> Result<Option<DevPki>, StartError> {
    let (Some(development), Some(instance)) = (&config.development, config.instances.first())
    else {
        return Ok(None);
    };
    let directory = development.certs_dir.clone();
    let endpoint = format!("http://{}", config.admin.listen);
    let id = instance.id.clone();
    let account = instance.account.clone();
    let pki = tokio::task::spawn_blocking(move || {
        DevPki::ensure(&directory, &endpoint, &id, OffsetDateTime::now_utc())
    })
    .await
    .map_err(|_| StartError::Interrupted)??;
    for note in pki.notes() {
        match note {
            Note::Created(_) => tracing::info!("{note}"),
            Note::Renewed { .. }
            | Note::RegisteredCaExpired(_)
            | Note::RegisteredCaOrphaned { .. }
            | Note::Tightened(_) => tracing::warn!("{note}"),
        }
    }
    let key = pki.admin_key();
    config.admin.access_keys.push(AccessKey {
        id: key.id.clone(),
        secret: key.secret.clone(),
        account,
        policy: None,
    });
    Ok(Some(pki))
}

/// Register the development CAs in a new registry. In one that was kept, only say which of them
/// it does not know.
pub(super) async fn register(
    control: &Control,
    instance: &Instance,
    pki: &DevPki,
    registry: Registry,
) -> Result<(), StartError> {
    for name in REGISTERED_CAS {
        let path = pki.certificate(name);
        let pem = std::fs::read_to_string(&path)
            .map_err(|source| DevPkiError::io("read", &path, source))?;
        let caller = caller(instance)?;
        let known = is_known(control, &caller, instance, &pem)
            .await
            .map_err(|source| StartError::Register { name, source })?;
        match registry {
            _ if known => {}
            Registry::New => {
                let sn = control
                    .register_ca_unproved(&caller, instance.id.as_str(), name, &pem)
                    .await
                    .map_err(|source| StartError::Register { name, source })?;
                tracing::info!(ca.sn = %sn, ca.name = name, "development CA registered");
            }
            Registry::Kept => {
                tracing::warn!(
                    ca.name = name,
                    "{} is not registered, so its devices are refused; register it with \
                     `portcullis ca register`, or stop the broker and remove the data \
                     directory to begin anew",
                    path.display()
                );
            }
        }
    }
    Ok(())
}

async fn is_known(
    control: &Control,
    caller: &Caller,
    instance: &Instance,
    pem: &str,
) -> Result<bool, ControlError> {
    // What cannot be read as a CA is refused when it is registered, with the reason.
    let Ok(certificate) = CaCertificate::from_pem(pem) else {
        return Ok(false);
    };
    let sn = certificate.serial().to_string();
    match control.get_ca(caller, instance.id.as_str(), &sn).await {
        Ok(found) => Ok(found.id == certificate.id()),
        Err(ControlError::CaNotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn caller(instance: &Instance) -> Result<Caller, StartError> {
    let mut random = [0; 16];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| DevPkiError::Random)?;
    Ok(Caller {
        principal: Principal::System,
        account: instance.account.clone(),
        grant: Grant::Everything,
        door: Door::System,
        address: None,
        request_id: RequestId::from_random(random),
    })
}
