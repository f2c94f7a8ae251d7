//! Threads for what administrators ask.
//!
//! A call that inactivates a CA passes from one task to another many times, and waits for the disk
//! in between. Among the tasks of thousands of connections it would wait for its turn each time,
//! longest of all when it is needed most. On threads of its own it waits for nothing but a processor. There are two, so that one
//! can be held up.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// The threads, with what is begun there; they end with this value.
pub(super) struct Desk {
    /// Taken at the end only.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Desk {
    /// Start the threads.
    ///
    /// # Errors
    /// If the system has no descriptors to give. Where it has no threads to give, the start ends in a
    /// panic, as it does for the threads of the connections.
    pub(super) fn open() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("admin")
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Where tasks are begun on it.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // What must end in order has been waited for; and this may be a task itself.
            runtime.shutdown_background();
        }
    }
}
