//! A thread for what administrators ask.
//!
//! A call that inactivates a CA passes from one task to another many times, and waits for the disk
//! in between. Among the tasks of thousands of connections it would wait for its turn each time,
//! longest of all when it is needed most. On a thread of its own it waits for nothing but a processor.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// The thread, with what is begun there; it ends with this value.
pub(super) struct Desk {
    /// Taken at the end only.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Desk {
    /// Start the thread.
    ///
    /// # Errors
    /// If the system has none to give.
    pub(super) fn open() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
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
