//! Denials that are in force in memory and that the disk lacks.
//!
//! A list of revoked certificates has a file of its own, which may be larger than the room on the
//! disk. Rows need next to none: what can be kept without a list is kept without it.

use std::time::Duration;

use tokio::time::Instant;

use crate::control::Inner;
use crate::control::change::{Turn, Waits};
use crate::store::{Change, StoreError};

/// What is committed together.
pub(crate) struct Batch {
    pub(crate) all: Vec<Change>,
    /// Lists that are owed and whose time has not come.
    pub(crate) later: Vec<Change>,
}

/// Which of the lists that are owed are committed as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those whose time has come.
    Due,
    All,
}

/// What became of a batch.
pub(crate) struct Kept {
    pub(crate) seq: u64,
    /// Lists that are not on disk.
    left: Vec<Change>,
    /// Why.
    why: Option<StoreError>,
}

/// When lists that the disk did not take are tried again: to write a large one takes long, nobody
/// else can change anything meanwhile, and until it fails it takes the room of others.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    pause: Duration,
    at: Option<Instant>,
}

impl Retry {
    pub(crate) fn failed(&mut self) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
        self.at = Some(Instant::now() + self.pause);
    }

    fn is_due(&self) -> bool {
        self.at.is_none_or(|at| at <= Instant::now())
    }
}

impl Which {
    /// Whoever changes lists, or asks whether all is on disk, has them tried.
    pub(crate) fn for_changes(changes: &[Change]) -> Self {
        match changes.is_empty() || changes.iter().any(Change::is_of_a_list) {
            true => Self::All,
            false => Self::Due,
        }
    }
}

impl Turn {
    /// These changes, behind what is owed.
    pub(crate) fn batch(&self, changes: &[Change], which: Which) -> Batch {
        let now = which == Which::All || self.lists.is_due();
        let needed = self.owed.iter().filter(|it| !is_undone(it, changes));
        let (mut all, later): (Vec<_>, Vec<_>) =
            needed.cloned().partition(|it| now || !is_list(it));
        all.extend(changes.iter().cloned());
        Batch { all, later }
    }

    /// These are owed from now on; of a list, its last issue alone.
    pub(crate) fn owe(&mut self, changes: Vec<Change>) {
        self.owed.retain(|it| !is_undone(it, &changes));
        self.owed.extend(changes);
    }

    /// Take note of what became of a batch. Gives the changes whose lists are not in force alone
    /// yet, if something was owed before.
    pub(crate) fn came_to(
        &mut self,
        changes: &[Change],
        kept: &Kept,
        later: Vec<Change>,
    ) -> Option<Vec<Change>> {
        match (&kept.why, later.is_empty()) {
            (Some(_), _) => self.lists.failed(),
            (None, true) => self.lists = Retry::default(),
            (None, false) => {}
        }
        let left = kept.left.iter().cloned().chain(later).collect();
        let before = std::mem::replace(&mut self.owed, left);
        if before.is_empty() {
            return None;
        }
        // Whoever changes a list says what counts after it.
        let undone = before.into_iter().filter(|it| is_undone(it, changes));
        Some(self.owed.iter().cloned().chain(undone).collect())
    }
}

impl Kept {
    /// Whether these changes are on disk; if there are none, whether all is.
    pub(crate) fn result_for(self, changes: &[Change]) -> Result<(), StoreError> {
        let is_one_of_them = |left: &Change| changes.iter().any(|it| of_one_list(left, it));
        match self.why {
            Some(error) if changes.is_empty() || self.left.iter().any(is_one_of_them) => Err(error),
            Some(_) | None => Ok(()),
        }
    }
}

impl Inner {
    /// Commit this; if that fails and there are lists in it, first what is none, and then each of
    /// them alone.
    ///
    /// # Errors
    /// If nothing of it was kept.
    pub(crate) async fn keep(
        &self,
        expected: u64,
        all: Vec<Change>,
        waits: Waits,
    ) -> Result<Kept, StoreError> {
        let (lists, rest): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_list);
        let alone = all.len() == 1;
        let error = match self.commit_in_time(expected, all, waits).await {
            Ok(seq) => {
                let (left, why) = (Vec::new(), None);
                return Ok(Kept { seq, left, why });
            }
            Err(error) => error,
        };
        // What has no answer may be made: it is not to be tried again in parts.
        let whole = matches!(error, StoreError::Conflict { .. }) || error.is_silence();
        if whole || alone || lists.is_empty() {
            return Err(error);
        }
        let mut kept = Kept {
            seq: expected,
            left: Vec::new(),
            why: None,
        };
        if !rest.is_empty() {
            kept.seq = self.commit_in_time(expected, rest, waits).await?;
        }
        // The newest first: those before it did not fit when they came.
        for list in lists.into_iter().rev() {
            if kept.why.as_ref().is_some_and(StoreError::is_silence) {
                kept.left.insert(0, list);
                continue;
            }
            match self
                .commit_in_time(kept.seq, vec![list.clone()], waits)
                .await
            {
                Ok(seq) => kept.seq = seq,
                Err(error) => {
                    tracing::error!(%error, "a CRL cannot be kept on disk; what it revokes is refused, but a restart may forget it");
                    kept.left.insert(0, list);
                    kept.why = Some(error);
                }
            }
        }
        Ok(kept)
    }
}

pub(crate) fn is_list(change: &Change) -> bool {
    matches!(change, Change::PutCrl { .. })
}

/// Whether a list need not be kept any more when these changes are.
fn is_undone(owed: &Change, changes: &[Change]) -> bool {
    is_list(owed) && changes.iter().any(|change| of_one_list(owed, change))
}

fn of_one_list(one: &Change, other: &Change) -> bool {
    let list = |change: &Change| match change {
        Change::PutCrl { record, .. } => Some((record.instance.clone(), record.id)),
        Change::DeleteCrl { instance, id } => Some((instance.clone(), *id)),
        _ => None,
    };
    list(one).is_some_and(|it| list(other) == Some(it))
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);

const LAST_PAUSE: Duration = Duration::from_secs(30);
