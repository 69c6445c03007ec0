//! A run as a page that shows itself: a lane for each node, each partition and each client, and the findings.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use weir_jepsen::history::{Done, Event, Step};
use weir_protocol::fact::Fact;
use weir_protocol::types::LogId;

use crate::report::Report;

/// The page, but for the run.
const PAGE: &str = include_str!("draw.html");
/// Where the run's data stand in it.
const PLACE: &str = "/*RUN*/";

/// Something that happened on a node.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Simulated milliseconds.
    pub at_ms: f64,
    /// The node; 0 is the world.
    pub node: u32,
    /// The kind of event.
    pub kind: &'static str,
    /// Of something that arrived: from which node, and when it was sent.
    pub sent: Option<(u32, f64)>,
    /// Its particulars.
    pub text: String,
}

/// Something that a node told, and when.
#[derive(Debug, Clone)]
pub struct Told {
    /// Simulated milliseconds.
    pub at_ms: f64,
    /// The node.
    pub node: u32,
    /// What.
    pub fact: Fact,
}

/// The page of a run that was traced.
pub fn page(title: &str, report: &Report) -> String {
    let end_ms = report.simulated.as_secs_f64() * 1e3;
    let mut logs = BTreeSet::new();
    let mut spans = lives(&report.moments, end_ms);
    spans.extend(reigns(&report.told, end_ms, &mut logs));
    let mut processes = BTreeSet::new();
    spans.extend(operations(&report.history, end_ms, &mut processes));
    let nodes: Vec<Value> =
        report.nodes.iter().map(|(number, name)| json!({ "number": number, "name": name })).collect();
    let run = json!({
        "title": title,
        "end": end_ms,
        "nodes": nodes,
        "logs": logs.iter().map(short).collect::<Vec<_>>(),
        "processes": processes,
        "spans": spans,
        "events": report.moments.iter().map(moment).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(|f| json!({ "name": f.name, "text": f.text })).collect::<Vec<_>>(),
    });
    // A script ends where its text says so, whatever stands around it.
    PAGE.replace(PLACE, &run.to_string().replace("</", "<\\/"))
}

fn moment(moment: &Moment) -> Value {
    let sent = moment.sent.map(|(node, at)| json!({ "node": node, "at": at }));
    json!({ "at": moment.at_ms, "node": moment.node, "kind": moment.kind, "text": moment.text, "sent": sent })
}

/// The first digits of a topic's id tell it from the others.
fn short(log: &LogId) -> String {
    let name = log.to_string();
    format!("{}-{}", &name[..8.min(name.len())], log.partition)
}

/// When nodes were down, or stood still.
fn lives(moments: &[Moment], end_ms: f64) -> Vec<Value> {
    let mut since: BTreeMap<(u32, &str), f64> = BTreeMap::new();
    let mut spans = Vec::new();
    let span = |node: u32, what: &str, from: f64, to: f64| {
        let colour = if what == "down" { "#777" } else { "#e0b000" };
        json!({ "lane": format!("n{node}"), "row": 0, "from": from, "to": to, "label": what, "colour": colour, "node": node })
    };
    for moment in moments {
        let node = moment.node;
        match moment.kind {
            "fault.process.kill" | "fault.process.power_loss" | "broker exits" => {
                since.entry((node, "down")).or_insert(moment.at_ms);
            }
            "fault.process.pause" => {
                since.entry((node, "paused")).or_insert(moment.at_ms);
            }
            "node.restarted" | "node.resumed" => {
                let what = if moment.kind == "node.restarted" { "down" } else { "paused" };
                let from = since.remove(&(node, what));
                spans.extend(from.map(|from| span(node, what, from, moment.at_ms)));
            }
            _ => {}
        }
    }
    spans.extend(since.into_iter().map(|((node, what), from)| span(node, what, from, end_ms)));
    spans
}

/// Who led the quorum and each partition, who was in sync, and how far the high watermark had come.
fn reigns(told: &[Told], end_ms: f64, logs: &mut BTreeSet<LogId>) -> Vec<Value> {
    let mut open: BTreeMap<(String, u32), Value> = BTreeMap::new();
    let mut spans = Vec::new();
    let mut turn = |lane: String, row: u32, node: u32, at: f64, label: String| {
        let next =
            json!({ "lane": lane, "row": row, "from": at, "to": end_ms, "label": label, "node": node });
        if let Some(mut last) = open.insert((lane, row), next) {
            last["to"] = json!(at);
            spans.push(last);
        }
    };
    for Told { at_ms, node, fact } in told {
        let mut of_log = |log: &LogId| {
            logs.insert(*log);
            format!("l{}", short(log))
        };
        match fact {
            Fact::LeadsQuorum { term } => {
                turn(format!("n{node}"), 1, *node, *at_ms, format!("leads the quorum, term {term}"));
            }
            Fact::Leads { log, epoch } => {
                turn(of_log(log), 0, *node, *at_ms, format!("node {node} leads, epoch {epoch}"));
            }
            Fact::InSync { log, isr, .. } => {
                turn(of_log(log), 1, *node, *at_ms, format!("in sync: {isr:?}"));
            }
            Fact::HighWatermark { log, high_watermark, .. } => {
                turn(of_log(log), 2, *node, *at_ms, format!("{high_watermark}"));
            }
            _ => {}
        }
    }
    spans.extend(open.into_values());
    spans
}

/// What the clients did.
fn operations(history: &[Event], end_ms: f64, processes: &mut BTreeSet<u32>) -> Vec<Value> {
    let mut open = BTreeMap::new();
    let mut spans = Vec::new();
    let mut close = |process: u32, from: f64, op: String, to: f64, outcome: String, colour: &str| {
        processes.insert(process);
        spans.push(json!({
            "lane": format!("p{process}"), "row": 0, "from": from, "to": to, "label": op, "node": process,
            "outcome": outcome, "colour": colour,
        }));
    };
    for event in history {
        let at_ms = event.time_ns as f64 / 1e6;
        match &event.step {
            Step::Invoke(op) => {
                open.insert(event.id, (event.process.0, at_ms, format!("{op:?}")));
            }
            step => {
                let Some((process, from, op)) = open.remove(&event.id) else { continue };
                if matches!(step, Step::Ok(Done::Polled { records }) if records.is_empty()) {
                    continue;
                }
                let colour = match step {
                    Step::Ok(_) => "#8fd19e",
                    Step::Fail(_) => "#f1a9a0",
                    _ => "#f6d55c",
                };
                close(process, from, op, at_ms, format!("{step:?}"), colour);
            }
        }
    }
    for (process, from, op) in open.into_values() {
        close(process, from, op, end_ms, "without an end".to_owned(), "#b00020");
    }
    spans
}
