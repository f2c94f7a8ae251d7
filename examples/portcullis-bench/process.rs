//! What the kernel knows of a process.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::Result;

/// A process that ends with this value.
pub struct Process {
    child: Child,
    pid: Pid,
}

impl Process {
    /// Start it; what it prints goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        Ok(Self { child, pid })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all its threads so far, also of those that have ended; user and system.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(clock_getcpuclockid(self.pid)?.now()?.into())
    }

    /// CPU time once it has nothing left to do.
    pub fn cpu_settled(&self) -> Result<Duration> {
        let began = Instant::now();
        let mut last = self.cpu()?;
        loop {
            std::thread::sleep(SETTLING);
            let now = self.cpu()?;
            if now - last < SETTLING / 50 || began.elapsed() > SETTLED_AT_LAST {
                return Ok(now);
            }
            last = now;
        }
    }

    /// Octets of memory that are resident, without files that are mapped.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let mut lines = status.lines();
        let anonymous = lines
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .ok_or("no RssAnon in /proc")?;
        let kib = anonymous.trim().trim_end_matches(" kB");
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// Wait until it is ready.
    pub fn wait_until(&mut self, is_ready: impl Fn() -> bool, log: &Path) -> Result<()> {
        let began = Instant::now();
        while !is_ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > START {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(format!("it does not begin to serve:\n{said}").into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, if that fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sockets are files: take all that the system allows, for this process and for those it starts.
pub fn raise_file_limit() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(())
}

/// How far apart two looks at an idle process are.
const SETTLING: Duration = Duration::from_millis(50);
/// After that it counts as idle anyhow.
const SETTLED_AT_LAST: Duration = Duration::from_secs(3);
/// How long a broker may take to listen.
const START: Duration = Duration::from_secs(120);
