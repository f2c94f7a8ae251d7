//! A child process whose output is read line by line and whose life is bounded by its handle.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use super::{DEADLINE, wait_until};

/// A running child process; killed when dropped.
pub struct Process {
    child: Child,
    readers: Vec<JoinHandle<()>>,
    output: Arc<Output>,
    what: String,
}

#[derive(Default)]
struct Output {
    text: Mutex<Text>,
    changed: Condvar,
}

#[derive(Default, Clone)]
struct Text {
    stdout: Vec<String>,
    stderr: Vec<String>,
    open: usize,
}

/// What a finished process left.
#[derive(Debug)]
pub struct Finished {
    /// Exit code, or -1 after a signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Start the command with its output captured.
    pub fn spawn(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{what} cannot be started ({e}); run tests/run once"));
        let output = Arc::new(Output::default());
        output.text.lock().unwrap().open = 2;
        let readers = vec![
            read(child.stdout.take().unwrap(), &output, |text| {
                &mut text.stdout
            }),
            read(child.stderr.take().unwrap(), &output, |text| {
                &mut text.stderr
            }),
        ];
        Self {
            child,
            readers,
            output,
            what,
        }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The octets of memory it has now, as the kernel counts them.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        kibibytes.unwrap().parse::<usize>().unwrap() << 10
    }

    /// The first line of standard output for which `pick` gives something, as soon as there is one.
    pub fn wait_stdout<T>(&self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        self.wait_output(what, |text| text.stdout.iter().find_map(|line| pick(line)))
    }

    /// Wait until standard output has `count` lines that `wanted` names; gives them.
    pub fn wait_stdout_lines(
        &self,
        what: &str,
        count: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        self.wait_output(what, |text| {
            let lines: Vec<_> = text.stdout.iter().filter(|l| wanted(l)).cloned().collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// The first line of standard error for which `pick` gives something.
    pub fn wait_stderr<T>(&self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        self.wait_output(what, |text| text.stderr.iter().find_map(|line| pick(line)))
    }

    fn wait_output<T>(&self, what: &str, pick: impl Fn(&Text) -> Option<T>) -> T {
        let start = Instant::now();
        let mut text = self.output.text.lock().unwrap();
        loop {
            if let Some(value) = pick(&text) {
                return value;
            }
            let left = DEADLINE.saturating_sub(start.elapsed());
            if left.is_zero() || text.open == 0 {
                let why = if text.open == 0 { "ended" } else { "is silent" };
                let (stdout, stderr) = (text.stdout.join("\n"), text.stderr.join("\n"));
                drop(text);
                panic!(
                    "waited in vain for {what}: {} {why}\n--- stdout\n{stdout}\n--- stderr\n{stderr}",
                    self.what
                );
            }
            text = self.output.changed.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.output.text.lock().unwrap().stdout.clone()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        self.output.text.lock().unwrap().stderr.clone()
    }

    /// Wait for its end.
    pub fn finish(mut self) -> Finished {
        let status = self.wait_exit();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Finished {
            code: status.code().unwrap_or(-1),
            stdout: self.stdout().join("\n"),
            stderr: self.stderr().join("\n"),
        }
    }

    /// Wait for its end without giving up its output.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.what);
        wait_until(&what, || self.child.try_wait().unwrap())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ask it to end (SIGTERM).
    pub fn terminate(&self) {
        signal(self.id(), "TERM");
    }

    /// End it without notice (SIGKILL) and collect it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Send a signal by name; the shell's own `kill` is everywhere.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -{name} {pid}"))
        .status()
        .unwrap();
    assert!(status.success(), "cannot send SIG{name} to {pid}");
}

fn read(
    from: impl Read + Send + 'static,
    output: &Arc<Output>,
    stream: fn(&mut Text) -> &mut Vec<String>,
) -> JoinHandle<()> {
    let output = output.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            stream(&mut output.text.lock().unwrap()).push(line);
            output.changed.notify_all();
        }
        output.text.lock().unwrap().open -= 1;
        output.changed.notify_all();
    })
}
