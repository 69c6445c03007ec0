//! Requests and their answers: one file per Kafka API.
//!
//! A request is taken in in two steps. [`Api::begin`] runs while the connection is not read any further, so requests of
//! one connection begin in their order; it decodes, and for Produce it hands the batches to their shards. What is left
//! to do becomes a future in the slot of the answer.

mod alter_configs;
mod api_versions;
pub(crate) mod brokers;
mod configs;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod elect_leaders;
pub(crate) mod errors;
mod fetch;
mod find_coordinator;
mod groups;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod raft_voters;
mod sync_group;
mod unregister_broker;
mod update_features;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::Mutex;
use weir_defect::defect;
use weir_protocol::metadata::Image;
use weir_protocol::types::{BrokerId, LeaderEpoch};
use weir_runtime::disk::Disk;
use weir_runtime::time;
use weir_runtime::watch;
use weir_storage::Store;
use weir_wire::frame::{self, RequestHeader};
use weir_wire::kafka::{self, Request, StrBytes};
use weir_wire::versions::{self, Features, Refusal};

use crate::config::Config;
use crate::group::Groups;
use crate::metadata::{ImageReader, Metadata, Resolver};
use crate::metrics::Metrics;
use crate::node::FailureFlag;
use crate::producer_ids::ProducerIds;
use crate::server::Stage;
use crate::server::budget::{Budget, Charge};
use crate::shard::Shards;

use self::brokers::Brokers;
pub(crate) use self::fetch::FetchSessions;
pub use self::fetch::{AnsweredByHand, FetchSessionsByHand};

/// What the handlers of requests work with.
pub(crate) struct Api {
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) budget: Budget,
    pub(crate) me: BrokerId,
    pub(crate) image: ImageReader,
    pub(crate) metadata: Metadata,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) resolver: Resolver,
    pub(crate) shards: Shards,
    pub(crate) groups: Groups,
    pub(crate) disk: Disk,
    pub(crate) store: Store,
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) failure: FailureFlag,
    /// Held by whoever changes settings according to what is set.
    pub(crate) alterations: Mutex<()>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) peer: SocketAddr,
    /// The address of ours that the client has reached.
    pub(crate) local: SocketAddr,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    origin: Origin,
    /// As the client calls itself.
    client_id: StrBytes,
}

/// An answer, ready to be written.
#[derive(Debug)]
pub(crate) struct Response {
    /// A whole frame; nothing closes the connection.
    pub(crate) chunks: Vec<Bytes>,
    /// The shares of the budget that it holds until it is on the socket.
    pub(crate) charge: Vec<Charge>,
}

type LaterResponse = Pin<Box<dyn Future<Output = Response> + Send>>;

/// What came of a request's beginning.
pub(crate) enum Begun {
    /// It is answered.
    Ready(Response),
    /// This becomes the answer.
    Later(LaterResponse),
    /// There is no answer to it.
    Silent,
    /// The connection cannot go on.
    Close(String),
}

/// What identifies a request while it is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    version: i16,
    correlation_id: i32,
}

impl Api {
    /// Takes a request in. `frame` is without its length prefix.
    pub(crate) async fn begin(api: &Arc<Api>, origin: Origin, mut frame: Bytes, charge: Charge) -> Begun {
        if let Some(refusal) = refuse_api_versions(&frame) {
            return refusal;
        }
        let header = match frame::take_request_header(&mut frame) {
            Ok(header) => header,
            Err(error) => return Begun::Close(error.to_string()),
        };
        api.metrics.requests(header.api_key).increment();
        let call = Call { version: header.version, correlation_id: header.correlation_id };
        if let Some(refusal) = refuse_version(&header, call, &frame) {
            return refusal;
        }
        let request = match kafka::decode_request(header.api_key, header.version, frame) {
            Ok(request) => request,
            Err(error) => return Begun::Close(error.to_string()),
        };
        let later = match request {
            Request::Produce(request) => return produce::begin(api, origin, call, request, charge).await,
            Request::ApiVersions(request) => {
                let view = api.image.current();
                let known = api.config.feature_levels;
                return ready(call, api_versions::handle(&view.image, known, &request, call.version));
            }
            Request::DescribeCluster(request) => {
                return ready(call, describe_cluster::handle(api, origin, &request));
            }
            request => {
                let client_id = header.client_id.unwrap_or_default();
                answer(Arc::clone(api), Asker { origin, client_id }, call, request, charge)
            }
        };
        Begun::Later(Box::pin(later))
    }

    /// Whether the broker serves: an error says why not.
    pub(crate) fn health(&self) -> Result<(), String> {
        if let Some(failure) = self.failure.get() {
            return Err(failure.to_string());
        }
        if self.is_stopping() {
            return Err("the broker is stopping".to_owned());
        }
        Ok(())
    }

    /// All counters, the store's included, as Prometheus reads them.
    pub(crate) fn render_metrics(&self) -> String {
        let stats = self.store.stats();
        let mut text = self.metrics.render();
        for (name, kind, value) in [
            ("journal_rounds_total", "counter", stats.rounds),
            ("journal_appends_total", "counter", stats.appends),
            ("journal_bytes_total", "counter", stats.append_bytes),
            ("journal_full_total", "counter", stats.journal_full),
            ("journal_backlog_bytes", "gauge", stats.backlog_bytes),
            ("checkpoints_total", "counter", stats.checkpoints),
            ("appends_cut_total", "counter", stats.appends_failed),
            ("open_files", "gauge", stats.open_files),
        ] {
            text.push_str(&format!("# TYPE weir_{name} {kind}\nweir_{name} {value}\n"));
        }
        text
    }

    /// Whether the broker takes no new requests.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stage.borrow() != Stage::Running
    }

    /// The brokers of an image as a client is told of them.
    fn brokers<'a>(&self, image: &'a Image, origin: Origin) -> Brokers<'a> {
        Brokers::new(image, self.me, self.advertised(origin))
    }

    /// The host and port that a client is told for this broker: what is configured, or what the client itself has
    /// reached, which is never a wildcard (K5).
    fn advertised(&self, origin: Origin) -> (StrBytes, i32) {
        match &self.config.advertised {
            Some((host, port)) => (StrBytes::from_string(host.clone()), i32::from(*port)),
            None => {
                let host = origin.local.ip().to_canonical().to_string();
                (StrBytes::from_string(host), i32::from(origin.local.port()))
            }
        }
    }
}

/// What is built, and so advertised.
const FEATURES: Features = Features::IDEMPOTENCE
    .and(Features::LOG_QUERIES)
    .and(Features::ADMINISTRATION)
    .and(Features::CLASSIC_GROUPS)
    .and(Features::CLUSTER)
    .and(Features::QUORUM);

/// Refuses a version of ApiVersions that is too new, before the rest of its header is looked at: nobody knows what that
/// looks like (K1).
fn refuse_api_versions(frame: &Bytes) -> Option<Begun> {
    let mut start = frame.get(..8)?;
    let (api_key, version, correlation_id) = (start.get_i16(), start.get_i16(), start.get_i32());
    let refused = versions::check(api_key, version, FEATURES);
    matches!(refused, Err(Refusal::ApiVersions { .. }))
        .then(|| ready(Call { version: 0, correlation_id }, api_versions::unsupported()))
}

/// Refuses what is not served: old Produce by an error for each partition (K2); other clients have not read our ranges, and what they would understand is unknown.
fn refuse_version(header: &RequestHeader, call: Call, body: &Bytes) -> Option<Begun> {
    match versions::check(header.api_key, header.version, FEATURES) {
        Ok(_) => None,
        Err(refusal @ Refusal::OldProduce { .. }) => {
            let code = kafka_protocol::ResponseError::UnsupportedVersion.code();
            let refused = kafka::refuse_old_produce(call.version, call.correlation_id, body.clone(), code);
            Some(match refused {
                Ok(Some(chunks)) => Begun::Ready(Response { chunks, charge: Vec::new() }),
                Ok(None) => Begun::Close(refusal.to_string()),
                Err(error) => Begun::Close(error.to_string()),
            })
        }
        Err(refusal) => Some(Begun::Close(refusal.to_string())),
    }
}

/// Answers what takes time.
async fn answer(api: Arc<Api>, asker: Asker, call: Call, request: Request, charge: Charge) -> Response {
    let stopwatch = Stopwatch::start();
    let response = respond(&api, &asker, call, request, charge).await;
    api.metrics.request_time_us.add(stopwatch.elapsed().as_micros() as u64);
    response
}

/// Measures how long a request takes.
struct Stopwatch {
    started: time::Instant,
    started_wall_ms: i64,
}

impl Stopwatch {
    fn start() -> Stopwatch {
        Stopwatch { started: time::now(), started_wall_ms: time::wall_ms() }
    }

    /// Durations come from the monotonic clock (contract 12): the wall clock may be set back meanwhile.
    fn elapsed(&self) -> Duration {
        if defect!(assert_monotonic_wall_clock) {
            let elapsed_ms = time::wall_ms() - self.started_wall_ms;
            Duration::from_millis(elapsed_ms.try_into().expect("time goes forwards"))
        } else {
            time::now() - self.started
        }
    }
}

async fn respond(api: &Arc<Api>, asker: &Asker, call: Call, request: Request, charge: Charge) -> Response {
    let (version, origin) = (call.version, asker.origin);
    let response = match request {
        Request::Fetch(request) => {
            let (response, charges) = fetch::handle(api, origin, request, version).await;
            drop(charge);
            return encode(call, response.into(), charges);
        }
        Request::ListOffsets(request) => list_offsets::handle(api, request, version).await.into(),
        Request::Metadata(request) => metadata::handle(api, origin, request, version).await.into(),
        Request::CreateTopics(request) => create_topics::handle(api, request).await.into(),
        Request::DeleteRecords(request) => delete_records::handle(api, request).await.into(),
        Request::InitProducerId(request) => init_producer_id::handle(api, request).await.into(),
        Request::OffsetForLeaderEpoch(request) => offset_for_leader_epoch::handle(api, request).await.into(),
        Request::DeleteTopics(request) => delete_topics::handle(api, request, version).await.into(),
        Request::CreatePartitions(request) => create_partitions::handle(api, request).await.into(),
        Request::DescribeConfigs(request) => describe_configs::handle(api, request).await.into(),
        Request::AlterConfigs(request) => alter_configs::handle(api, request).await.into(),
        Request::IncrementalAlterConfigs(request) => {
            incremental_alter_configs::handle(api, request).await.into()
        }
        Request::DescribeLogDirs(request) => describe_log_dirs::handle(api, &request).await.into(),
        Request::DescribeTopicPartitions(request) => {
            describe_topic_partitions::handle(api, &request).await.into()
        }
        Request::ListConfigResources(request) => list_config_resources::handle(api, &request, version).into(),
        Request::DescribeProducers(request) => describe_producers::handle(api, request).await.into(),
        Request::ListPartitionReassignments(request) => {
            list_partition_reassignments::handle(&api.image.current().image, &request).into()
        }
        Request::ElectLeaders(request) => elect_leaders::handle(api, request).await.into(),
        Request::DescribeQuorum(request) => describe_quorum::handle(api, request, version).await.into(),
        Request::AddRaftVoter(request) => raft_voters::add(api, request).await.into(),
        Request::RemoveRaftVoter(request) => raft_voters::remove(api, request).await.into(),
        Request::UnregisterBroker(request) => unregister_broker::handle(api, request).await.into(),
        Request::UpdateFeatures(request) => update_features::handle(api, request, version).await.into(),
        request => return respond_to_group(api, asker, call, request, charge).await,
    };
    drop(charge);
    encode(call, response, Vec::new())
}

/// What is about groups.
async fn respond_to_group(
    api: &Arc<Api>,
    asker: &Asker,
    call: Call,
    request: Request,
    charge: Charge,
) -> Response {
    let version = call.version;
    // What waits for other members must not hold up other requests.
    drop(charge);
    let response = match request {
        Request::FindCoordinator(request) => {
            find_coordinator::handle(api, asker.origin, request, version).await.into()
        }
        Request::JoinGroup(request) => join_group::handle(api, asker, request, version).await.into(),
        Request::SyncGroup(request) => sync_group::handle(api, request, version).await.into(),
        Request::Heartbeat(request) => heartbeat::handle(api, request).await.into(),
        Request::LeaveGroup(request) => leave_group::handle(api, request, version).await.into(),
        Request::OffsetCommit(request) => offset_commit::handle(api, request).await.into(),
        Request::OffsetFetch(request) => offset_fetch::handle(api, request, version).await.into(),
        Request::OffsetDelete(request) => offset_delete::handle(api, request).await.into(),
        Request::DescribeGroups(request) => describe_groups::handle(api, request, version).await.into(),
        Request::ListGroups(request) => list_groups::handle(api, request, version).await.into(),
        Request::DeleteGroups(request) => delete_groups::handle(api, request).await.into(),
        // Only what is served gets here, and all of that is above.
        other => {
            tracing::error!(api = ?other.key(), "an API is in the table of versions and has no handler");
            return Response { chunks: Vec::new(), charge: Vec::new() };
        }
    };
    encode(call, response, Vec::new())
}

fn ready(call: Call, response: impl Into<kafka::Response>) -> Begun {
    Begun::Ready(encode(call, response.into(), Vec::new()))
}

/// A response as a frame. One that cannot be encoded is a mistake of ours; the connection closes in its place, so that the
/// client does not wait.
fn encode(call: Call, response: kafka::Response, charge: Vec<Charge>) -> Response {
    match kafka::encode_response(call.version, call.correlation_id, &response) {
        Ok(chunks) => Response { chunks, charge },
        Err(error) => {
            tracing::error!(%error, "a response cannot be encoded");
            Response { chunks: Vec::new(), charge: Vec::new() }
        }
    }
}

/// A time limit in a request, in ms; a negative one is none at all.
fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// The leader epoch that a client knows; -1 is none.
fn known_epoch(epoch: i32) -> Option<LeaderEpoch> {
    (epoch >= 0).then_some(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table of APIs in docs/compatibility.md: name, key, first and last version.
    fn documented() -> Vec<(String, i16, i16, i16)> {
        let text = include_str!("../../docs/compatibility.md");
        let table = text.split("## APIs").nth(1).and_then(|rest| rest.split("\n## ").next());
        let rows = table.expect("a table").lines().filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let &[_, key, name, versions, ..] = cells.as_slice() else { return None };
            let (first, last) = versions.split_once('–').unwrap_or((versions, versions));
            Some((name.to_owned(), key.parse().ok()?, first.parse().ok()?, last.parse().ok()?))
        });
        rows.collect()
    }

    #[test]
    fn what_is_advertised_is_documented_and_nothing_else_is() {
        let advertised = versions::advertised(FEATURES)
            .map(|api| (format!("{:?}", api.key), api.key as i16, api.advertised_min, api.max));
        assert_eq!(documented(), advertised.collect::<Vec<_>>());
    }
}
