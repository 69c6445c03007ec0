//! The broker that clients are tried against: ours, or Apache Kafka's.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// A broker on a free port, with an empty folder; it is killed when it is dropped.
pub(crate) struct Broker {
    pub(crate) address: String,
    process: Option<Child>,
}

impl Broker {
    /// A broker of somebody else's, which is left alone.
    pub(super) fn at(address: &str) -> Broker {
        Broker { address: address.to_owned(), process: None }
    }

    /// Starts a broker of ours with settings of its own, each as `name=value`.
    pub(crate) fn start_with(root: &Path, work: &Path, settings: &[String]) -> Result<Broker> {
        let config = work.join("server.properties");
        std::fs::write(&config, settings.join("\n") + "\n")?;
        let data = work.join("data");
        if data.exists() {
            std::fs::remove_dir_all(&data).with_context(|| format!("cannot empty {}", data.display()))?;
        }
        let log = work.join("broker.log");
        let mut command = Command::new(build_broker(root)?);
        command
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .arg("--config")
            .arg(&config)
            .stderr(std::fs::File::create(&log)?);
        Broker::until_ready(&mut command, &log)
    }

    /// Starts Apache Kafka, which its script installs first.
    pub(super) fn start_apache_kafka(root: &Path, work: &Path) -> Result<Broker> {
        let mut command = Command::new(root.join("jepsen-like/interop/apache-kafka/start"));
        // Both listeners at once, so that the two ports differ.
        let free = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        for listener in &free {
            command.arg(listener.local_addr()?.port().to_string());
        }
        drop(free);
        Broker::until_ready(command.env("WORK", work), &work.join("apache-kafka/kafka.log"))
    }

    /// Starts a process and waits for the line by which it says that it is ready, and where.
    fn until_ready(command: &mut Command, log: &Path) -> Result<Broker> {
        let mut process =
            command.stdout(Stdio::piped()).spawn().context("the broker could not be started")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("the broker has no output")?).read_line(&mut line)?;
        match line.trim().strip_prefix("ready ") {
            Some(address) => Ok(Broker { address: address.to_owned(), process: Some(process) }),
            None => bail!("the broker did not become ready; see {}. {}", log.display(), line.trim()),
        }
    }

    /// The process, unless the broker is somebody else's.
    pub(crate) fn process(&self) -> Option<&Child> {
        self.process.as_ref()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill(); // it may have ended by itself, which the cases have shown
            let _ = process.wait();
        }
    }
}

/// Builds our broker and returns its path.
pub(crate) fn build_broker(root: &Path) -> Result<PathBuf> {
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--package", "weir-broker"])
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("the broker does not build");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/weir-broker"))
}
