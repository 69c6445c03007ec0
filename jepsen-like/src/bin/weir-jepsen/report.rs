//! What a run says of itself.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use weir_jepsen::checkers::{AnomalyKind, Counts, Verdict};

use crate::plan::Plan;
use crate::probe::Outage;

/// Sends that must have been acknowledged for a run to prove anything.
const ACKNOWLEDGED_MIN: u64 = 200;

/// Something that must not be.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    /// `lost-write`, `broker`, …
    pub(crate) name: String,
    /// What happened.
    pub(crate) text: String,
}

impl Finding {
    pub(crate) fn new(name: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding { name: name.into(), text: text.into() }
    }
}

/// The outcome of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) nodes: u32,
    /// Length of the load, in seconds.
    pub(crate) seconds: f64,
    pub(crate) counts: Counts,
    /// Records that were acknowledged or shown, and are gone.
    pub(crate) lost: u64,
    /// The kinds of anomaly that were looked for.
    pub(crate) judged: Vec<AnomalyKind>,
    /// Empty after a clean run.
    pub(crate) findings: Vec<Finding>,
    /// By kind of fault.
    pub(crate) outages: BTreeMap<&'static str, Outage>,
    /// What the brokers' logs complain about, if the run was not clean.
    pub(crate) said: Vec<String>,
    /// Where everything lies.
    pub(crate) folder: String,
}

impl Report {
    pub(crate) fn new(plan: &Plan, verdict: &Verdict) -> Report {
        let total = |kind| verdict.totals.get(&kind).copied().unwrap_or(0);
        let mut findings: Vec<_> = verdict
            .anomalies
            .iter()
            .map(|anomaly| Finding::new(anomaly.kind.to_string(), anomaly.to_string()))
            .collect();
        let acknowledged = verdict.counts.acknowledged_sends;
        if acknowledged < ACKNOWLEDGED_MIN {
            let text = format!("only {acknowledged} sends were acknowledged: the run proves nothing");
            findings.push(Finding::new("idle", text));
        }
        Report {
            seed: plan.seed,
            nodes: plan.nodes,
            seconds: plan.load.duration_ms as f64 / 1e3,
            counts: verdict.counts,
            lost: total(AnomalyKind::LostWrite) + total(AnomalyKind::Unseen),
            judged: verdict.judged.clone(),
            findings,
            outages: BTreeMap::new(),
            said: Vec::new(),
            folder: String::new(),
        }
    }

    /// Whether nothing must not be.
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let Counts { operations, acknowledged_sends, records_read, unknown, failed, .. } = self.counts;
        let mut counts = table();
        counts.set_header(["operations", "acknowledged", "lost", "unknown", "failed", "records read"]);
        counts.add_row(
            [operations, acknowledged_sends, self.lost, unknown, failed, records_read].map(|n| n.to_string()),
        );
        let mut faults = table();
        faults.set_header(["fault", "struck", "measured", "median ms", "max ms", "elsewhere", "errors"]);
        let ms = |ms: Option<f64>| ms.map_or("–".to_owned(), |ms| format!("{ms:.0}"));
        for (kind, outage) in &self.outages {
            faults.add_row([
                (*kind).to_owned(),
                outage.struck.to_string(),
                outage.measured.to_string(),
                ms(outage.median_ms),
                ms(outage.max_ms),
                ms(outage.elsewhere_max_ms),
                outage.errors.to_string(),
            ]);
        }
        right(&mut counts, 0);
        right(&mut faults, 1);
        let findings: Vec<_> =
            self.findings.iter().map(|finding| format!("{}: {}\n", finding.name, finding.text)).collect();
        let said: Vec<_> = self.said.iter().map(|line| format!("    {line}\n")).collect();
        format!(
            "{} nodes, {:.0} s, seed {}\n{counts}\n\nFrom a fault until every partition took writes again (elsewhere: those without a replica on that node, max ms):\n{faults}\n\n{}{}{}",
            self.nodes,
            self.seconds,
            self.seed,
            findings.concat(),
            said.concat(),
            if self.is_clean() {
                "clean".to_owned()
            } else {
                format!("FAILED; logs, plan and history are in {}", self.folder)
            }
        )
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
