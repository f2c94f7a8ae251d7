//! The operations on sessions and instances. What a session is, the broker of the instance knows:
//! it stands behind [`Sessions`].

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use crate::audit::Phase;
use crate::ca::id::{AccountId, CertSerial, InstanceId};
use crate::control::ca::shown;
use crate::control::{
    Answer, Caller, Control, ControlError, Inner, Instance, Need, Outcome, Page, PageRequest,
    Record,
};

/// What an answer of [`Sessions`] comes as.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The sessions of one instance. `mqtt` implements it.
pub trait Sessions: Send + Sync + 'static {
    /// The longest client id that a client may have, in octets.
    fn longest_client_id(&self) -> usize;

    /// End the connection of this client. When the answer is there, the connection processes
    /// nothing more, whether or not the client is still at the other end.
    fn close<'a>(&'a self, client_id: &'a str) -> Later<'a, Closed>;

    /// Whether the client is connected.
    fn is_online(&self, client_id: &str) -> bool;

    /// The session of this client.
    fn get(&self, client_id: &str) -> Option<SessionView>;

    /// A page of the sessions that are wanted, in the order of the client ids.
    fn list(&self, wanted: Wanted, page: PageRequest) -> Later<'_, Page<SessionView>>;

    /// How many sessions there are, with and without connection.
    fn count(&self) -> usize;
}

/// What became of a connection that was to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The client was not connected, or there is no such client.
    NotConnected,
    /// It was told to end and has not done so in time; it will.
    Told,
    /// It has let its session go and processes nothing more.
    Ended,
}

/// Whether a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is not; its session waits for it.
    Away,
    /// It is.
    Online,
}

/// Which sessions are listed; all if nothing is said.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Those of clients that this CA let in.
    pub ca_sn: Option<CertSerial>,
    /// Those that are so.
    pub presence: Option<Presence>,
}

/// A session as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// The client id.
    pub client_id: String,
    /// Whether the client is connected.
    pub presence: Presence,
    /// Serial number of the registered CA that let the client in.
    pub ca_sn: CertSerial,
    /// Serial number of its certificate.
    pub device_sn: CertSerial,
    /// Common name of its certificate, or empty.
    pub common_name: String,
    /// Where it connects from; of a client that is away, where it last did.
    pub address: SocketAddr,
    /// When the present connection began, Unix milliseconds.
    pub connected_since_ms: Option<i64>,
    /// Number of its subscriptions.
    pub subscriptions: usize,
    /// Messages that wait to be sent or acknowledged.
    pub queued: usize,
}

/// An instance as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Its name.
    pub id: InstanceId,
    /// The account that owns it.
    pub account: AccountId,
    /// The region it says it is in.
    pub region: String,
    /// Peers that are connected, administrators and those that are still connecting included.
    pub connections: usize,
    /// Sessions, with and without connection.
    pub sessions: usize,
}

impl Control {
    /// Say who knows the sessions of an instance. The first word counts.
    pub fn serve_sessions(&self, instance: &InstanceId, sessions: Arc<dyn Sessions>) {
        if let Some(at) = self.0.instances.get(instance) {
            let _ = at.sessions.set(sessions);
        }
    }

    /// End the connection of a client. It may come back.
    ///
    /// # Errors
    /// If the caller may not, or what it names can be no client id; then nothing was done.
    pub async fn close_connection(
        &self,
        caller: &Caller,
        instance: &str,
        client_id: &str,
    ) -> Answer<Closed> {
        let (inner, caller) = (Arc::clone(&self.0), caller.clone());
        let (instance, client_id) = (instance.to_owned(), client_id.to_owned());
        self.detached(async move {
            let record = Record {
                caller: &caller,
                action: "CloseConnection",
                instance: Some(&instance),
                subject: format!("client:{}", shown(&client_id)),
                before: None,
                after: None,
                note: None,
            };
            let plan = inner
                .authorize(&caller, &instance, Need::CloseConnection)
                .and_then(|at| at.sessions_for(&[&client_id]));
            let sessions = inner.or_refused(&record, plan).await?;
            // Not a change of trust: what cannot be recorded is not done.
            inner
                .record(&record, Phase::Intent, Outcome::default())
                .await?;
            // The key may have been revoked while that was written.
            if let Err(error) = inner.authorize(&caller, &instance, Need::CloseConnection) {
                let outcome = Outcome::error(&error);
                if let Err(error) = inner.record(&record, Phase::Failed, outcome).await {
                    tracing::error!(%error, "a close that was refused could not be audited");
                }
                return Err(error);
            }
            let closed = sessions.close(&client_id).await;
            let detail = match closed {
                Closed::NotConnected => "the client was not connected",
                Closed::Told => "the connection was told to end",
                Closed::Ended => "the connection ended",
            };
            if let Err(error) = inner
                .record(&record, Phase::Done, Outcome::detail(detail))
                .await
            {
                tracing::error!(%error, "the end of a connection could not be audited");
            }
            Ok(closed)
        })
        .await
    }

    /// Whether a client is connected. One that has no session is not.
    ///
    /// # Errors
    /// If the caller may not, or what it names can be no client id.
    pub fn is_online(&self, caller: &Caller, instance: &str, client_id: &str) -> Answer<bool> {
        let need = Need::QuerySessionByClientId;
        let sessions = self
            .0
            .authorize(caller, instance, need)?
            .sessions_for(&[client_id])?;
        Ok(sessions.is_online(client_id))
    }

    /// Whether each of these clients is connected, in their order.
    ///
    /// # Errors
    /// As [`is_online`](Self::is_online).
    pub fn are_online(
        &self,
        caller: &Caller,
        instance: &str,
        client_ids: &[&str],
    ) -> Answer<Vec<bool>> {
        let need = Need::BatchQuerySessionByClientIds;
        let sessions = self
            .0
            .authorize(caller, instance, need)?
            .sessions_for(client_ids)?;
        let online = client_ids.iter().map(|id| sessions.is_online(id));
        Ok(online.collect())
    }

    /// A page of the sessions, in the order of the client ids; `ca_sn` as the caller wrote it.
    ///
    /// # Errors
    /// If the caller may not, or there is no such CA.
    pub async fn list_sessions(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: Option<&str>,
        presence: Option<Presence>,
        page: PageRequest,
    ) -> Answer<Page<SessionView>> {
        let at = self.0.authorize(caller, instance, Need::ListSessions)?;
        let ca = ca_sn.map(|sn| self.0.find_ca(at, sn)).transpose()?;
        let wanted = Wanted {
            ca_sn: ca.map(|ca| ca.certificate.serial().clone()),
            presence,
        };
        let listed = at.sessions_for(&[])?.list(wanted, page).await;
        // It may have waited for its turn, and the key may have been revoked meanwhile.
        self.0.authorize(caller, instance, Need::ListSessions)?;
        Ok(listed)
    }

    /// The session of one client, if there is one.
    ///
    /// # Errors
    /// As [`is_online`](Self::is_online).
    pub fn get_session(
        &self,
        caller: &Caller,
        instance: &str,
        client_id: &str,
    ) -> Answer<Option<SessionView>> {
        let at = self.0.authorize(caller, instance, Need::ListSessions)?;
        Ok(at.sessions_for(&[client_id])?.get(client_id))
    }

    /// The instances that the caller's account owns and its grant reaches, by name; all of them
    /// for an operator on the host.
    pub fn list_instances(&self, caller: &Caller) -> Vec<InstanceView> {
        let mut all: Vec<_> = self
            .0
            .instances
            .values()
            .filter(|at| self.0.may_see(caller, at))
            .map(|at| InstanceView {
                id: at.id.clone(),
                account: at.account.clone(),
                region: at.region.clone(),
                connections: at.peers.len(),
                sessions: at.sessions.get().map_or(0, |sessions| sessions.count()),
            })
            .collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }
}

impl Inner {
    fn may_see(&self, caller: &Caller, at: &Instance) -> bool {
        self.authorize(caller, at.id.as_str(), Need::ListInstances)
            .is_ok()
    }
}

impl Instance {
    /// The sessions, if each of these can be a client id here.
    fn sessions_for(&self, client_ids: &[&str]) -> Answer<Arc<dyn Sessions>> {
        let sessions = self.sessions.get().ok_or_else(|| {
            ControlError::Internal(format!("instance {} does not serve yet", self.id))
        })?;
        let most = sessions.longest_client_id();
        for id in client_ids {
            if id.is_empty() || id.len() > most || id.chars().any(char::is_control) {
                return Err(ControlError::Parameter(format!(
                    "ClientId must have 1 to {most} octets and no control characters."
                )));
            }
        }
        Ok(Arc::clone(sessions))
    }
}
