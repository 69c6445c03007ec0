//! How far long work is, on standard error, for whoever looks at it.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A line that counts records and bytes. It is drawn only where standard error is a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    verb: &'static str,
    records: u64,
    bytes: u64,
}

/// After how many records the line is made anew.
const RECORDS_PER_UPDATE: u64 = 256;
/// What takes no longer than that is not summed up.
const SHORT: Duration = Duration::from_secs(1);

impl Progress {
    /// `verb`: what is done with records, such as `written`.
    pub(crate) fn new(verb: &'static str, shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, verb, records: 0, bytes: 0 }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.records.is_multiple_of(RECORDS_PER_UPDATE) && !self.bar.is_hidden() {
            self.bar.set_message(self.text());
            self.bar.tick();
        }
    }

    fn text(&self) -> String {
        let elapsed = self.bar.elapsed();
        let per_s = self.bytes as f64 / elapsed.as_secs_f64().max(0.001);
        format!(
            "{} records {}, {}, {}/s, {}",
            HumanCount(self.records),
            self.verb,
            HumanBytes(self.bytes),
            HumanBytes(per_s as u64),
            HumanDuration(elapsed)
        )
    }

    /// Takes the line away; of long work a sum stays.
    pub(crate) fn finish(&self) {
        if self.bar.is_hidden() || self.bar.elapsed() < SHORT {
            self.bar.finish_and_clear();
        } else {
            self.bar.finish_with_message(self.text());
        }
    }
}

/// Whether what is printed goes into a file, so that a line on the terminal is in nobody's way.
pub(crate) fn output_is_a_file() -> bool {
    let file = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|file| file.metadata()).is_ok_and(|metadata| metadata.is_file())
}

/// Whether the input comes from elsewhere than a keyboard.
pub(crate) fn input_is_no_terminal() -> bool {
    !io::stdin().is_terminal()
}
