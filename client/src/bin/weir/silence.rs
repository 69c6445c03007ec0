//! A consumer that gets nothing: is there nothing, or nobody?

use std::time::Duration;

use weir_runtime::time::{self, Instant};

use crate::Context;
use crate::failure::{Failure, explained};
use crate::output::note;

/// How long nothing may come before the cluster is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(5);

/// Looks after the cluster while nothing comes from it.
pub(crate) struct Silence<'a> {
    context: &'a Context,
    /// Whether the command is to end with an error where nobody answers; otherwise it says so and waits.
    fails: bool,
    since: Instant,
    told: bool,
}

impl<'a> Silence<'a> {
    pub(crate) fn new(context: &'a Context, fails: bool) -> Self {
        Self { context, fails, since: time::now(), told: false }
    }

    /// Something has come.
    pub(crate) fn broken(&mut self) {
        self.since = time::now();
    }

    /// Asks the cluster whether it is there, when it is time for that.
    pub(crate) async fn look(&mut self) -> Result<(), Failure> {
        if time::now() < self.since + SILENCE {
            return Ok(());
        }
        let answered = self.context.admin.describe_cluster().await;
        self.since = time::now();
        match answered {
            Ok(_) if self.told => {
                self.told = false;
                note("the cluster answers again");
            }
            Err(error) if self.fails => return Err(error.into()),
            Err(error) if !self.told => {
                self.told = true;
                note(&format!("{}; waiting for it to come back", explained(&error)));
            }
            _ => {}
        }
        Ok(())
    }
}
