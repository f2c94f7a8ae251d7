//! Many at once, at the start.

use std::collections::HashMap;
use std::sync::Arc;

use dashmap::DashMap;

use super::{Purpose, Registry, RegistryError};
use crate::ca::certificate::CaCertificate;
use crate::ca::id::CaId;
use crate::ca::lifecycle::Status;

impl Registry {
    /// Make room for so many devices that are known, so that to load them takes less time. More may
    /// come.
    #[must_use]
    pub fn expecting(self, devices: usize) -> Self {
        Self {
            devices: DashMap::with_capacity(devices),
            ..self
        }
    }

    /// Register many certificates at once: as [`insert`](Self::insert) for each of them, in less time.
    /// Nobody is admitted over any of them before it is known of all which are off.
    ///
    /// # Errors
    /// The first that `insert` would not take, and why. None is registered then.
    pub fn load(
        &self,
        certificates: &[(Arc<CaCertificate>, Status)],
        purpose: Purpose,
    ) -> Result<(), (CaId, RegistryError)> {
        let mut topology = self.lock();
        let mut subjects: HashMap<&[u8], usize> = HashMap::with_capacity(certificates.len());
        for (certificate, _) in certificates {
            let of_its_subject = subjects.entry(certificate.subject()).or_default();
            self.check(&topology, certificate, purpose, *of_its_subject)
                .map_err(|error| (certificate.id(), error))?;
            *of_its_subject += 1;
        }
        let recomputed = topology.load(certificates);
        for (certificate, status) in certificates {
            if *status == Status::Inactive {
                self.inactive.insert(certificate.id());
            }
        }
        self.publish(recomputed);
        for (certificate, status) in certificates {
            if *status == Status::Active {
                self.inactive.remove(&certificate.id());
            }
            self.enter(Arc::clone(certificate), purpose);
        }
        Ok(())
    }
}
