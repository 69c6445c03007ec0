use kafka_protocol::error::ResponseError;
use weir_wire::kafka::messages::ApiKey;
use weir_wire::records::BatchBuilder;

use super::*;
use crate::Compression;
use crate::consumer::ConsumerConfig;
use crate::fake_broker::{FakeCluster, Fault, run};

const SOON: Duration = Duration::from_millis(500);

fn config() -> GroupConfig {
    GroupConfig {
        heartbeat_interval: Duration::from_millis(20),
        start: Some(Start::Beginning),
        consumer: ConsumerConfig { fetch_wait_max: Duration::from_millis(20), ..Default::default() },
        ..GroupConfig::new("g")
    }
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

async fn start(config: GroupConfig) -> (FakeCluster, GroupConsumer) {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 2);
    let consumer = GroupConsumer::new(&cluster.client().await, config, ["t"]).unwrap();
    (cluster, consumer)
}

fn append(cluster: &FakeCluster, partition: usize, values: &[&str]) {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(0, None, Some(value.as_bytes()), &[]).unwrap();
    }
    let batch = builder.finish().unwrap();
    cluster.state().topics.get_mut("t").unwrap()[partition].append(batch);
}

/// The next change.
async fn change(consumer: &mut GroupConsumer) -> Rebalance {
    loop {
        let mut polled = consumer.poll(SOON).await.unwrap();
        assert!(polled.polled.is_empty(), "{polled:?}");
        if !polled.rebalances.is_empty() {
            assert_eq!(polled.rebalances.len(), 1, "{polled:?}");
            return polled.rebalances.remove(0);
        }
    }
}

async fn values(consumer: &mut GroupConsumer) -> Vec<String> {
    let polled = consumer.poll(SOON).await.unwrap();
    assert!(polled.rebalances.is_empty(), "{polled:?}");
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap()).into_owned();
    polled.polled.records().map(|(_, record)| text(record.value.as_deref())).collect()
}

fn committed(cluster: &FakeCluster, partition: i32) -> Option<i64> {
    cluster.state().group("g").committed.get(&("t".to_owned(), partition)).copied()
}

#[test]
fn a_member_reads_its_partitions_commits_and_goes_on_where_it_ended() {
    run(async {
        let (cluster, mut consumer) = start(config()).await;
        append(&cluster, 0, &["a", "b"]);
        let Rebalance::Assigned { partitions, .. } = change(&mut consumer).await else { panic!() };
        assert_eq!(partitions, [at(0), at(1)]);
        assert_eq!(values(&mut consumer).await, ["a", "b"]);
        consumer.commit().await.unwrap();
        assert_eq!(committed(&cluster, 0), Some(2));
        consumer.close().await.unwrap();
        assert_eq!(cluster.state().group("g").member, None, "it has left");

        append(&cluster, 0, &["c"]);
        let mut consumer = GroupConsumer::new(&cluster.client().await, config(), ["t"]).unwrap();
        change(&mut consumer).await;
        assert_eq!(values(&mut consumer).await, ["c"]);
        let told = consumer.committed(&[at(0), at(1)]).await.unwrap();
        assert_eq!(told.into_iter().collect::<Vec<_>>()[0], (at(0), CommittedOffset::at(2)));
    });
}

#[test]
fn an_automatic_commit_covers_what_earlier_polls_handed_out_and_the_end_covers_all() {
    run(async {
        let auto_commit = Some(Duration::ZERO);
        let consumer_config = ConsumerConfig { poll_records_max: 1, ..config().consumer };
        let (cluster, mut consumer) =
            start(GroupConfig { auto_commit, consumer: consumer_config, ..config() }).await;
        append(&cluster, 0, &["a", "b", "c"]);
        change(&mut consumer).await;
        for value in ["a", "b"] {
            while values(&mut consumer).await != [value] {}
        }
        assert!(committed(&cluster, 0).is_none_or(|offset| offset < 2), "b is not processed yet");
        consumer.close().await.unwrap();
        assert_eq!(committed(&cluster, 0), Some(2));
    });
}

#[test]
fn before_a_rebalance_an_eager_member_is_asked_to_give_back_and_may_commit() {
    run(async {
        let assignors = vec![Assignor::Range];
        let (cluster, mut consumer) = start(GroupConfig { assignors, ..config() }).await;
        append(&cluster, 0, &["a"]);
        change(&mut consumer).await;
        assert_eq!(values(&mut consumer).await, ["a"]);
        cluster.fault(ApiKey::Heartbeat, Fault::Error(ResponseError::RebalanceInProgress));
        let Rebalance::Revoked { partitions, .. } = change(&mut consumer).await else { panic!() };
        assert_eq!(partitions, [at(0), at(1)]);
        assert_eq!(cluster.state().group("g").generation, 1, "it joins when the application lets go");
        consumer.commit().await.unwrap();
        assert_eq!(committed(&cluster, 0), Some(1));
        let Rebalance::Assigned { generation: 2, .. } = change(&mut consumer).await else { panic!() };
        assert_eq!(consumer.poll(Duration::from_millis(60)).await.unwrap().polled.records().count(), 0);
    });
}

#[test]
fn a_member_that_was_given_up_commits_nothing_more() {
    run(async {
        let (cluster, mut consumer) = start(config()).await;
        append(&cluster, 0, &["a"]);
        change(&mut consumer).await;
        assert_eq!(values(&mut consumer).await, ["a"]);
        cluster.state().group("g").member = None;
        let error = consumer.commit().await.unwrap_err();
        assert!(
            matches!(error.kafka().map(|e| e.code()), Some(25)) || matches!(error, Error::NotOwned { .. }),
            "{error}"
        );
        let error = loop {
            let error = consumer.commit().await.unwrap_err();
            if matches!(error, Error::NotOwned { .. }) {
                break error;
            }
        };
        assert!(error.to_string().contains("t-0"), "{error}");
        assert_eq!(committed(&cluster, 0), None);
        let polled = consumer.poll(SOON).await.unwrap();
        assert_eq!(polled.rebalances[0], Rebalance::Lost { partitions: vec![at(0), at(1)] });
        let mut again: Vec<Rebalance> = polled.rebalances[1..].to_vec();
        if again.is_empty() {
            again.push(change(&mut consumer).await);
        }
        assert!(matches!(&again[0], Rebalance::Assigned { partitions, .. } if partitions.len() == 2));
        assert_eq!(values(&mut consumer).await, ["a"], "nothing was committed");
        consumer.commit().await.unwrap();
    });
}

#[test]
fn commits_outlast_a_coordinator_that_moves_or_loads_or_rebalances() {
    run(async {
        let (cluster, mut consumer) = start(config()).await;
        append(&cluster, 0, &["a"]);
        change(&mut consumer).await;
        assert_eq!(values(&mut consumer).await, ["a"]);
        for error in [ResponseError::CoordinatorLoadInProgress, ResponseError::RebalanceInProgress] {
            cluster.fault(ApiKey::OffsetCommit, Fault::Error(error));
        }
        cluster.fault(ApiKey::OffsetCommit, Fault::CloseBefore);
        consumer.commit().await.unwrap();
        assert_eq!(committed(&cluster, 0), Some(1));
        cluster.state().coordinator = 1;
        append(&cluster, 0, &["b"]);
        loop {
            let polled = consumer.poll(SOON).await.unwrap();
            if polled.polled.records().count() == 1 {
                break;
            }
        }
        consumer.commit().await.unwrap();
        assert_eq!(committed(&cluster, 0), Some(2));
        assert!(cluster.state().seen.iter().any(|(node, api, _)| (*node, *api) == (1, ApiKey::OffsetCommit)));
    });
}

#[test]
fn a_fenced_member_tells_it_with_every_poll() {
    run(async {
        let instance = Some("i".to_owned());
        let (cluster, mut consumer) = start(GroupConfig { instance, ..config() }).await;
        change(&mut consumer).await;
        cluster.fault(ApiKey::Heartbeat, Fault::Error(ResponseError::FencedInstanceId));
        let Rebalance::Lost { .. } = change(&mut consumer).await else { panic!() };
        for _ in 0..2 {
            let error = consumer.poll(SOON).await.unwrap_err();
            assert_eq!(error.kafka().unwrap().name(), "FENCED_INSTANCE_ID");
        }
        consumer.close().await.unwrap();
    });
}

#[test]
fn a_member_that_is_not_polled_leaves_until_the_next_poll() {
    run(async {
        let poll_interval_max = Duration::from_millis(100);
        let (cluster, mut consumer) = start(GroupConfig { poll_interval_max, ..config() }).await;
        change(&mut consumer).await;
        while cluster.state().group("g").member.is_some() {
            task::yield_now().await;
        }
        let polled = consumer.poll(SOON).await.unwrap();
        assert!(matches!(polled.rebalances[0], Rebalance::Lost { .. }), "{polled:?}");
        if polled.rebalances.len() == 1 {
            let Rebalance::Assigned { .. } = change(&mut consumer).await else { panic!() };
        }
    });
}

#[test]
fn only_what_a_member_has_can_be_committed() {
    run(async {
        let (_cluster, mut consumer) = start(config()).await;
        let offsets = BTreeMap::from([(at(0), CommittedOffset::at(1))]);
        let error = consumer.commit_offsets(offsets.clone()).await.unwrap_err();
        assert!(matches!(error, Error::NotOwned { .. }), "{error}");
        change(&mut consumer).await;
        consumer.commit_offsets(offsets).await.unwrap();
        let offsets = BTreeMap::from([(at(7), CommittedOffset::at(1))]);
        assert!(consumer.commit_offsets(offsets).await.is_err());
    });
}

#[test]
fn a_member_without_a_start_says_which_partition_has_no_commit() {
    run(async {
        let (_cluster, mut consumer) = start(GroupConfig { start: None, ..config() }).await;
        change(&mut consumer).await;
        let error = consumer.poll(SOON).await.unwrap_err();
        assert!(error.to_string().contains("t-0"), "{error}");
    });
}

#[test]
fn nothing_is_lost_when_a_poll_is_dropped() {
    run(async {
        let auto_commit = Some(Duration::from_millis(3));
        let (cluster, mut consumer) = start(GroupConfig { auto_commit, ..config() }).await;
        let mut all = Vec::new();
        for n in 0..60 {
            append(&cluster, 0, &[&n.to_string()]);
            if n % 20 == 10 {
                cluster.fault(ApiKey::Heartbeat, Fault::Error(ResponseError::RebalanceInProgress));
            }
            let poll = consumer.poll(SOON);
            if let Ok(polled) = time::timeout(Duration::from_millis(n % 6), poll).await {
                let polled = polled.unwrap().polled;
                all.extend(polled.records().map(|(_, record)| record.offset));
            }
        }
        while all.len() < 60 {
            let polled = consumer.poll(SOON).await.unwrap().polled;
            all.extend(polled.records().map(|(_, record)| record.offset));
        }
        assert_eq!(all, (0..60).collect::<Vec<i64>>());
    });
}
