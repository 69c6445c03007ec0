//! A client's script: what it prints, how it ends, and what counts as failed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The exit code by which a client's script says that the client cannot be installed here.
const CANNOT_INSTALL: i32 = 77;
/// What a failure shows of the client's own words, in lines.
const WORDS_LINES_MAX: usize = 40;

/// What a case ended with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// It holds; perhaps with a remark: what of the case this client leaves out, and why.
    Ok(Option<String>),
    /// Why.
    Failed(String),
    /// Why the client cannot be asked.
    Skipped(String),
}

/// A line of a client's script. Other lines are remarks for whoever reads along.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    /// `version 1.2.3`: the client's.
    Version(&'a str),
    /// `ok NAME`, `ok NAME  # remark`, `not ok NAME: why` or `skip NAME: why`.
    Case(&'a str, Outcome),
}

impl Line<'_> {
    fn parse(line: &str) -> Option<Line<'_>> {
        let split = |rest: &'static str| {
            let (name, why) = line.strip_prefix(rest)?.split_once(": ")?;
            Some((name, why.to_owned()))
        };
        if let Some(version) = line.strip_prefix("version ") {
            return Some(Line::Version(version));
        }
        if let Some((name, why)) = split("not ok ") {
            return Some(Line::Case(name, Outcome::Failed(why)));
        }
        if let Some((name, why)) = split("skip ") {
            return Some(Line::Case(name, Outcome::Skipped(why)));
        }
        let case = line.strip_prefix("ok ")?;
        let (name, remark) =
            case.split_once("  # ").map_or((case, None), |(name, remark)| (name, Some(remark)));
        Some(Line::Case(name, Outcome::Ok(remark.map(str::to_owned))))
    }
}

/// What a client's script said, and how it ended.
pub(super) struct Finished {
    pub(super) client: String,
    /// As the client's package calls it; empty when the script did not say.
    pub(super) version: String,
    pub(super) cases: Vec<(String, Outcome)>,
    /// How long it took, with what it had to install and to build.
    pub(super) took: Duration,
    status: ExitStatus,
    /// What it wrote to its standard error.
    log: PathBuf,
}

/// Runs a script and hands each of its lines to `show`; its standard error goes to a file in `logs`.
pub(super) fn run_script(
    client: &str,
    command: &mut Command,
    logs: &Path,
    mut show: impl FnMut(&str),
) -> Result<Finished> {
    let start = Instant::now();
    std::fs::create_dir_all(logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let log = logs.join(format!("{client}.log"));
    let mut script = command
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log)?)
        .spawn()
        .with_context(|| format!("cannot run the script of {client}"))?;
    let (mut version, mut cases) = (String::new(), Vec::new());
    for line in BufReader::new(script.stdout.take().context("the script has no output")?).lines() {
        let line = line?;
        match Line::parse(&line) {
            Some(Line::Version(found)) => found.clone_into(&mut version),
            Some(Line::Case(case, outcome)) => cases.push((case.to_owned(), outcome)),
            None => {}
        }
        show(&line);
    }
    let status = script.wait()?;
    Ok(Finished { client: client.to_owned(), version, cases, took: start.elapsed(), status, log })
}

impl Finished {
    /// Why the client could not be installed, if it could not.
    pub(super) fn cannot_install(&self) -> Option<&str> {
        let why = self.cases.iter().find_map(|(_, outcome)| match outcome {
            Outcome::Skipped(why) => Some(why.as_str()),
            Outcome::Ok(_) | Outcome::Failed(_) => None,
        });
        (self.status.code() == Some(CANNOT_INSTALL)).then(|| why.unwrap_or("no reason given"))
    }

    /// What counts as failed, a line each. `expected` are the cases of which each client says what became of them.
    pub(super) fn failures(&self, expected: &[&str], strict: bool) -> Vec<String> {
        let client = &self.client;
        if let Some(why) = self.cannot_install() {
            return strict.then(|| format!("{client}: cannot be installed: {why}")).into_iter().collect();
        }
        let mut failures: Vec<_> = self
            .cases
            .iter()
            .filter_map(|(case, outcome)| match outcome {
                Outcome::Failed(why) => Some(format!("{client}: {case}: {why}")),
                Outcome::Ok(_) | Outcome::Skipped(_) => None,
            })
            .collect();
        if !self.status.success() && failures.is_empty() {
            failures.push(format!("{client}: ended with {}", self.status));
        }
        let is_silent = |case: &&str| !self.cases.iter().any(|(name, _)| name == case);
        let silent: Vec<_> = expected.iter().copied().filter(is_silent).collect();
        if !silent.is_empty() {
            failures.push(format!("{client}: the script says nothing about {}", silent.join(", ")));
        }
        if !self.cases.iter().any(|(_, outcome)| matches!(outcome, Outcome::Ok(_))) && failures.is_empty() {
            failures.push(format!("{client}: ran no case"));
        }
        failures
    }

    /// The end of what the client itself wrote, for whoever looks into a failure.
    pub(super) fn own_words(&self) -> Vec<String> {
        last_lines(&self.log, |_| true)
    }
}

/// The last lines of a file that are `wanted`. A file that cannot be read has none: it only explains a failure.
pub(super) fn last_lines(file: &Path, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|line| wanted(line)).map(str::to_owned).collect();
    lines[lines.len().saturating_sub(WORDS_LINES_MAX)..].to_vec()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn case(line: &str) -> Option<(&str, Outcome)> {
        match Line::parse(line)? {
            Line::Case(name, outcome) => Some((name, outcome)),
            Line::Version(_) => None,
        }
    }

    #[test]
    fn the_lines_of_a_script_are_read() {
        assert_eq!(case("ok create"), Some(("create", Outcome::Ok(None))));
        let remarked = Outcome::Ok(Some("no nulls".to_owned()));
        assert_eq!(case("ok headers  # no nulls"), Some(("headers", remarked)));
        assert_eq!(case("not ok fetch-zstd: a: b"), Some(("fetch-zstd", Outcome::Failed("a: b".to_owned()))));
        assert_eq!(
            case("skip idempotence: none"),
            Some(("idempotence", Outcome::Skipped("none".to_owned())))
        );
        assert_eq!(Line::parse("version 1.2"), Some(Line::Version("1.2")));
        assert_eq!(Line::parse("# a remark"), None);
    }

    fn finished(code: i32, lines: &[&str]) -> Finished {
        let cases =
            lines.iter().filter_map(|line| case(line)).map(|(name, outcome)| (name.to_owned(), outcome));
        Finished {
            client: "kcat".to_owned(),
            version: String::new(),
            cases: cases.collect(),
            took: Duration::ZERO,
            status: ExitStatus::from_raw(code << 8),
            log: PathBuf::new(),
        }
    }

    #[test]
    fn a_case_that_nothing_is_said_about_is_a_failure() {
        let failures =
            finished(0, &["ok create", "skip group: none"]).failures(&["create", "group", "nulls"], true);
        assert_eq!(failures, ["kcat: the script says nothing about nulls"]);
    }

    #[test]
    fn a_script_that_ends_early_is_a_failure() {
        let failures = finished(124, &["ok create"]).failures(&["create"], false);
        assert_eq!(failures, ["kcat: ended with exit status: 124"]);
        assert_eq!(finished(0, &[]).failures(&[], false), ["kcat: ran no case"]);
    }

    #[test]
    fn a_client_that_cannot_be_installed_is_a_failure_in_ci_only() {
        let missing = finished(77, &["skip all: no network"]);
        assert_eq!(missing.cannot_install(), Some("no network"));
        assert_eq!(missing.failures(&["create"], true), ["kcat: cannot be installed: no network"]);
        assert!(missing.failures(&["create"], false).is_empty());
    }
}
