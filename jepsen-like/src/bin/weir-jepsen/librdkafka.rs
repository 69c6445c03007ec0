//! librdkafka's clients, in a process of their own, which writes a history with our clock.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use weir_jepsen::history::{Event, ProcessId};
use weir_jepsen::load::Shared;
use weir_jepsen::load::plan::Topic;
use weir_runtime::time;

use crate::Failure;

/// Its first process.
const FIRST_PROCESS: ProcessId = ProcessId(5_000);
/// How long it may take for its last answers.
const END_MAX: Duration = Duration::from_secs(90);
/// How often the process table is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The process.
pub(crate) struct Librdkafka {
    process: Child,
    history: PathBuf,
    log: PathBuf,
}

impl Librdkafka {
    /// Starts the script, whose clients work until [`Librdkafka::stop`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(
        script: &Path,
        folder: &Path,
        bootstrap: &[String],
        topics: &[Topic],
    ) -> Result<Librdkafka, Failure> {
        let (history, log) = (folder.join("librdkafka.jsonl"), folder.join("librdkafka.log"));
        // Its records have no keys.
        let plain = topics.iter().filter(|topic| !topic.is_compacted());
        let topics: Vec<_> = plain.map(|topic| format!("{}:{}", topic.name, topic.partitions)).collect();
        let process = Command::new(script)
            .args([bootstrap.join(","), topics.join(",")])
            .args([origin_ns().to_string(), FIRST_PROCESS.0.to_string()])
            .arg(&history)
            .stdin(Stdio::piped()) // its end is the end of the load
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .map_err(|source| Failure::Script { script: script.to_owned(), source })?;
        Ok(Librdkafka { process, history, log })
    }

    /// Ends the load.
    pub(crate) fn stop(&mut self) {
        drop(self.process.stdin.take());
    }

    /// Waits for the last answers and returns what was written down.
    ///
    /// # Errors
    /// When the process fails, takes too long, or writes no history.
    pub(crate) async fn finish(mut self) -> Result<Vec<Event>, Failure> {
        self.stop();
        let deadline = time::now() + END_MAX;
        let status = loop {
            match self.process.try_wait()? {
                Some(status) => break status.to_string(),
                None if time::now() >= deadline => break format!("no end after {END_MAX:?}"),
                None => time::sleep(LOOK_EVERY).await, // a look at the process table
            }
        };
        if !self.process.try_wait()?.is_some_and(|status| status.success()) {
            return Err(Failure::Librdkafka { status, log: self.log.clone() });
        }
        let events = BufReader::new(File::open(&self.history)?);
        Ok(weir_jepsen::history::read_events(events)?)
    }
}

impl Drop for Librdkafka {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The origin of the history's clock on the system's monotonic clock, which all processes share.
fn origin_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    now_ns.saturating_sub(Shared::now_ns())
}
