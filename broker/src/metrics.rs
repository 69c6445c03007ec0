//! Counters of the broker, in the text format that Prometheus reads.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds one until the guard is dropped.
    pub fn enter(&self) -> GaugeGuard<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        GaugeGuard(self)
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Takes its one away again when it is dropped.
#[derive(Debug)]
pub struct GaugeGuard<'a>(&'a Gauge);

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The API keys that are counted each on its own; higher ones are counted together with the last.
const API_KEYS: usize = 96;

/// Everything that is counted. Reaching a limit is always counted (contract 13).
#[derive(Debug)]
pub struct Metrics {
    requests: [Counter; API_KEYS],
    /// Connections that were accepted.
    pub connections_accepted: Counter,
    /// Connections that were closed at once because there were too many.
    pub connections_refused: Counter,
    /// Connections that are open.
    pub connections_open: Gauge,
    /// Connections that were closed because their peer did nothing.
    pub connections_idle: Counter,
    /// Connections that were cut because their peer was too slow.
    pub connections_stalled: Counter,
    /// Frames and requests that could not be understood (K23).
    pub requests_malformed: Counter,
    /// Microseconds that requests took from their arrival to their answer, waits included, all together.
    pub request_time_us: Counter,
    /// Bytes of requests.
    pub bytes_received: Counter,
    /// Bytes of responses.
    pub bytes_sent: Counter,
    /// Times that a request waited because the byte budget was used up.
    pub request_budget_waits: Counter,
    /// Times that a fetch was cut down to one batch because the byte budget was used up.
    pub reply_budget_limits: Counter,
    /// Batches that were appended.
    pub batches_appended: Counter,
    /// Bytes of batches that were appended.
    pub bytes_appended: Counter,
    /// Partitions of produce requests that were refused.
    pub produce_errors: Counter,
    /// Idempotent producers that were forgotten because they were idle.
    pub producers_expired: Counter,
    /// Connections to other nodes that were made.
    pub peer_connections_made: Counter,
    /// Connections to other nodes that ended, or could not be made.
    pub peer_connections_failed: Counter,
    /// Connections of other nodes that were refused: too many, no proof, or nonsense.
    pub peer_connections_refused: Counter,
    /// Notes to other nodes that were lost because there was no connection, or no room.
    pub peer_notes_lost: Counter,
    /// Questions that nobody took because too many were under way.
    pub peer_questions_refused: Counter,
    /// Lanes of followers that were served.
    pub replica_lanes_served: Counter,
    /// Bytes of batches that followers were sent.
    pub replica_bytes_served: Counter,
    /// Bytes of batches that came from leaders.
    pub replica_bytes_fetched: Counter,
    /// Bytes of batches from leaders that were appended.
    pub replica_bytes_appended: Counter,
    /// Answers of leaders that were broken: their lanes were closed.
    pub replica_answers_bad: Counter,
    /// Times that a follower's log was cut because its leader does not have what lay above.
    pub truncations: Counter,
    /// Times that a damaged log was cut, to be fetched again.
    pub replicas_repaired: Counter,
    /// Logs that were compacted.
    pub compactions: Counter,
    /// Records that compaction has dropped.
    pub compacted_records_dropped: Counter,
    /// Of those, tombstones that have had their time.
    pub compacted_tombstones_dropped: Counter,
    /// Changes of in-sync replicas that were asked for.
    pub isr_proposals: Counter,
    /// Changes of in-sync replicas that were refused.
    pub isr_refusals: Counter,
    /// Bytes of batches that were fetched.
    pub bytes_fetched: Counter,
    /// Partitions of fetch requests that were refused.
    pub fetch_errors: Counter,
    /// Reads that met damaged data.
    pub reads_damaged: Counter,
    /// Rounds of the journal that became durable, as seen by the shards.
    pub durable_rounds: Counter,
    /// Requests that were refused because a shard had too many waiting.
    pub shard_overloads: Counter,
    /// Partitions that were opened.
    pub partitions_opened: Counter,
    /// Partitions that were closed because their topic was deleted.
    pub partitions_closed: Counter,
    /// Commands that the metadata quorum committed.
    pub metadata_commits: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            requests: std::array::from_fn(|_| Counter::default()),
            connections_accepted: Counter::default(),
            connections_refused: Counter::default(),
            connections_open: Gauge::default(),
            connections_idle: Counter::default(),
            connections_stalled: Counter::default(),
            requests_malformed: Counter::default(),
            request_time_us: Counter::default(),
            bytes_received: Counter::default(),
            bytes_sent: Counter::default(),
            request_budget_waits: Counter::default(),
            reply_budget_limits: Counter::default(),
            batches_appended: Counter::default(),
            bytes_appended: Counter::default(),
            produce_errors: Counter::default(),
            producers_expired: Counter::default(),
            peer_connections_made: Counter::default(),
            peer_connections_failed: Counter::default(),
            peer_connections_refused: Counter::default(),
            peer_notes_lost: Counter::default(),
            peer_questions_refused: Counter::default(),
            replica_lanes_served: Counter::default(),
            replica_bytes_served: Counter::default(),
            replica_bytes_fetched: Counter::default(),
            replica_bytes_appended: Counter::default(),
            replica_answers_bad: Counter::default(),
            truncations: Counter::default(),
            replicas_repaired: Counter::default(),
            compactions: Counter::default(),
            compacted_records_dropped: Counter::default(),
            compacted_tombstones_dropped: Counter::default(),
            isr_proposals: Counter::default(),
            isr_refusals: Counter::default(),
            bytes_fetched: Counter::default(),
            fetch_errors: Counter::default(),
            reads_damaged: Counter::default(),
            durable_rounds: Counter::default(),
            shard_overloads: Counter::default(),
            partitions_opened: Counter::default(),
            partitions_closed: Counter::default(),
            metadata_commits: Counter::default(),
        }
    }
}

impl Metrics {
    /// The counter of requests with this API key.
    pub fn requests(&self, api_key: i16) -> &Counter {
        let index = usize::try_from(api_key).unwrap_or(API_KEYS - 1).min(API_KEYS - 1);
        &self.requests[index]
    }

    /// All counters as Prometheus reads them.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(4096);
        let _ = writeln!(text, "# TYPE weir_requests_total counter");
        for (key, counter) in self.requests.iter().enumerate().filter(|(_, counter)| counter.get() > 0) {
            let _ = writeln!(text, "weir_requests_total{{api_key=\"{key}\"}} {}", counter.get());
        }
        let counters = [
            ("connections_accepted", &self.connections_accepted),
            ("connections_refused", &self.connections_refused),
            ("connections_idle", &self.connections_idle),
            ("connections_stalled", &self.connections_stalled),
            ("requests_malformed", &self.requests_malformed),
            ("request_time_us", &self.request_time_us),
            ("bytes_received", &self.bytes_received),
            ("bytes_sent", &self.bytes_sent),
            ("request_budget_waits", &self.request_budget_waits),
            ("reply_budget_limits", &self.reply_budget_limits),
            ("batches_appended", &self.batches_appended),
            ("bytes_appended", &self.bytes_appended),
            ("produce_errors", &self.produce_errors),
            ("producers_expired", &self.producers_expired),
            ("peer_connections_made", &self.peer_connections_made),
            ("peer_connections_failed", &self.peer_connections_failed),
            ("peer_connections_refused", &self.peer_connections_refused),
            ("peer_notes_lost", &self.peer_notes_lost),
            ("peer_questions_refused", &self.peer_questions_refused),
            ("replica_lanes_served", &self.replica_lanes_served),
            ("replica_bytes_served", &self.replica_bytes_served),
            ("replica_bytes_fetched", &self.replica_bytes_fetched),
            ("replica_bytes_appended", &self.replica_bytes_appended),
            ("replica_answers_bad", &self.replica_answers_bad),
            ("truncations", &self.truncations),
            ("replicas_repaired", &self.replicas_repaired),
            ("compactions", &self.compactions),
            ("compacted_records_dropped", &self.compacted_records_dropped),
            ("compacted_tombstones_dropped", &self.compacted_tombstones_dropped),
            ("isr_proposals", &self.isr_proposals),
            ("isr_refusals", &self.isr_refusals),
            ("bytes_fetched", &self.bytes_fetched),
            ("fetch_errors", &self.fetch_errors),
            ("reads_damaged", &self.reads_damaged),
            ("durable_rounds", &self.durable_rounds),
            ("shard_overloads", &self.shard_overloads),
            ("partitions_opened", &self.partitions_opened),
            ("partitions_closed", &self.partitions_closed),
            ("metadata_commits", &self.metadata_commits),
        ];
        for (name, counter) in counters {
            let _ = writeln!(text, "# TYPE weir_{name}_total counter\nweir_{name}_total {}", counter.get());
        }
        let open = self.connections_open.get();
        let _ = writeln!(text, "# TYPE weir_connections_open gauge\nweir_connections_open {open}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_rendered_with_their_types() {
        let metrics = Metrics::default();
        metrics.requests(18).increment();
        metrics.requests(-3).increment();
        metrics.bytes_sent.add(7);
        let guard = metrics.connections_open.enter();
        let text = metrics.render();
        assert!(text.contains("weir_requests_total{api_key=\"18\"} 1\n"));
        assert!(text.contains("weir_bytes_sent_total 7\n"));
        assert!(text.contains("weir_connections_open 1\n"));
        drop(guard);
        assert_eq!(metrics.connections_open.get(), 0);
    }
}
