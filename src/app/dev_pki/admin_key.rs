//! The access key of the development mode, in `admin-key.json`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::DevPkiError;
use crate::app::private_file;
use crate::ca::id::{AccessKeyId, InstanceId};
use crate::config::secret::Secret;

/// What a client of the admin API needs: where it is, which instance, and the key to sign with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminKey {
    /// Public half of the key.
    pub id: AccessKeyId,
    /// Secret half of the key.
    pub secret: Secret,
    /// URL of the admin API.
    pub endpoint: String,
    /// The instance that is administered.
    pub instance: InstanceId,
}

/// The file, with the names that the vendor's documentation uses.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    access_key_id: AccessKeyId,
    access_key_secret: String,
    endpoint: String,
    mqtt_instance_id: InstanceId,
}

impl AdminKey {
    /// Read the key from `path`; `None` if there is no such file.
    ///
    /// # Errors
    /// If the file cannot be read or is not what it should be.
    pub fn read(path: &Path) -> Result<Option<Self>, DevPkiError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => Secret::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DevPkiError::io("read", path, source)),
        };
        let file: File =
            serde_json::from_str(text.reveal()).map_err(|error| DevPkiError::AdminKey {
                path: PathBuf::from(path),
                what: error.to_string(),
            })?;
        Ok(Some(Self {
            id: file.access_key_id,
            secret: Secret::new(file.access_key_secret),
            endpoint: file.endpoint,
            instance: file.mqtt_instance_id,
        }))
    }

    /// Write the key to `path`, atomically and with mode 0600.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), DevPkiError> {
        let file = File {
            access_key_id: self.id.clone(),
            access_key_secret: self.secret.reveal().to_owned(),
            endpoint: self.endpoint.clone(),
            mqtt_instance_id: self.instance.clone(),
        };
        let mut text =
            serde_json::to_string_pretty(&file).map_err(|error| DevPkiError::AdminKey {
                path: PathBuf::from(path),
                what: error.to_string(),
            })?;
        text.push('\n');
        let text = Secret::new(text);
        private_file::write(path, text.reveal().as_bytes())
            .map_err(|source| DevPkiError::io("written", path, source))
    }

    /// A new key with 160 random bits in its secret.
    pub(super) fn generate(endpoint: &str, instance: &InstanceId) -> Result<Self, DevPkiError> {
        let mut id = [0; 8];
        let mut secret = [0; 20];
        let random = SystemRandom::new();
        random.fill(&mut id).map_err(|_| DevPkiError::Random)?;
        random.fill(&mut secret).map_err(|_| DevPkiError::Random)?;
        let id = format!("dev-{}", hex::encode(id));
        Ok(Self {
            id: id.parse().map_err(|_| DevPkiError::Random)?,
            secret: Secret::new(hex::encode(secret)),
            endpoint: endpoint.to_owned(),
            instance: instance.clone(),
        })
    }
}
