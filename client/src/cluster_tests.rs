use kafka_protocol::error::ResponseError;
use weir_wire::kafka::messages::ApiKey;

use std::time::Duration;

use super::*;
use crate::fake_broker::{FakeCluster, Fault, run};
use crate::{Admin, NewTopic, OffsetSpec};

#[test]
fn a_dead_bootstrap_address_is_passed_over() {
    run(async {
        let cluster = FakeCluster::start(2).await;
        let mut config = cluster.config();
        config.bootstrap = vec!["127.0.0.1:1".to_owned(), cluster.bootstrap(1)];
        let client = Client::connect(config).await.unwrap();
        assert_eq!(client.brokers().len(), 2);
        assert_eq!(client.cluster_id().as_deref(), Some("fake"));
    });
}

#[test]
fn no_broker_at_all_is_told_with_every_address() {
    run(async {
        let mut config = ClientConfig {
            bootstrap: vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()],
            ..ClientConfig::default()
        };
        config.operation_timeout = Duration::from_millis(300);
        let Err(error) = Client::connect(config).await else { panic!("nobody is there") };
        let text = error.to_string();
        assert!(
            matches!(error, Error::NoBroker { .. })
                && text.contains("127.0.0.1:1")
                && text.contains("127.0.0.1:2"),
            "{text}"
        );
    });
}

#[test]
fn a_topic_whose_leader_is_being_elected_is_waited_for() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        cluster.topic("t", 2);
        let client = cluster.client().await;
        for _ in 0..3 {
            cluster.fault(ApiKey::Metadata, Fault::Error(ResponseError::LeaderNotAvailable));
        }
        assert_eq!(client.partitions("t").await.unwrap().len(), 2);
        assert_eq!(cluster.requests(ApiKey::Metadata), 5);
        client.partitions("t").await.unwrap();
        assert_eq!(cluster.requests(ApiKey::Metadata), 5, "what is known is not asked again");
        client.mark_stale(&Arc::from("t"));
        client.partitions("t").await.unwrap();
        assert_eq!(cluster.requests(ApiKey::Metadata), 6);
    });
}

#[test]
fn a_leader_that_a_later_answer_leaves_out_is_asked_for_again() {
    run(async {
        let cluster = FakeCluster::start(2).await;
        cluster.topic("t", 1);
        let client = cluster.client().await;
        client.partitions("t").await.unwrap();
        let partition = TopicPartition { topic: Arc::from("t"), partition: 0 };
        let leader = client.known_leader(&partition).unwrap().broker;
        // As an answer about other topics does, while the leader's broker is down.
        client.metadata().brokers.remove(&leader);
        assert_eq!(client.known_leader(&partition), None);
        client.refresh(&BTreeSet::from([partition.topic.clone()])).await.unwrap();
        assert_eq!(client.known_leader(&partition).map(|known| known.broker), Some(leader));
    });
}

#[test]
fn a_topic_that_does_not_exist_is_an_error_once_time_is_up() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        let config = ClientConfig { operation_timeout: Duration::from_millis(100), ..cluster.config() };
        let client = Client::connect(config).await.unwrap();
        let error = client.partitions("nothing").await.unwrap_err();
        assert_eq!(
            error.kafka().map(|error| error.name()).as_deref(),
            Some("UNKNOWN_TOPIC_OR_PARTITION"),
            "{error}"
        );
    });
}

#[test]
fn many_who_need_the_same_ask_once() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        cluster.topic("t", 1);
        let client = cluster.client().await;
        let before = cluster.requests(ApiKey::Metadata);
        let mut asking = crate::in_flight::InFlight::new();
        for _ in 0..20 {
            let client = client.clone();
            asking.push(async move { client.partitions("t").await });
        }
        for _ in 0..20 {
            asking.next().await.unwrap();
        }
        assert_eq!(cluster.requests(ApiKey::Metadata), before + 1);
    });
}

#[test]
fn topics_are_created_listed_described_and_deleted() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        let client = cluster.client().await;
        let admin = Admin::new(&client);
        let id = admin.create_topic(&NewTopic::new("b", 3).config("flush.messages", "1")).await.unwrap();
        admin.create_topic(&NewTopic::new("a", 1)).await.unwrap();
        let listed: Vec<(String, usize)> = admin
            .list_topics()
            .await
            .unwrap()
            .into_iter()
            .map(|topic| (topic.name, topic.partitions))
            .collect();
        assert_eq!(listed, [("a".to_owned(), 1), ("b".to_owned(), 3)]);
        let described = admin.describe_topic("b").await.unwrap();
        assert_eq!((described.id, described.partitions.len()), (id, 3));
        let error = admin.create_topic(&NewTopic::new("a", 1)).await.unwrap_err();
        assert_eq!(error.kafka().unwrap().name(), "TOPIC_ALREADY_EXISTS");
        assert!(!error.may_have_happened());
        admin.delete_topic("a").await.unwrap();
        let error = admin.delete_topic("a").await.unwrap_err();
        assert_eq!(error.kafka().unwrap().name(), "UNKNOWN_TOPIC_OR_PARTITION");
        let error = admin.describe_topic("a").await.unwrap_err();
        assert_eq!(error.kafka().unwrap().name(), "UNKNOWN_TOPIC_OR_PARTITION");
        let described = admin.describe_cluster().await.unwrap();
        assert_eq!((described.id.as_str(), described.brokers.len()), ("fake", 1));
    });
}

#[test]
fn a_creation_or_deletion_whose_answer_was_lost_counts_when_the_repetition_finds_it_done() {
    run(async {
        let cluster = FakeCluster::start(1).await;
        let admin = Admin::new(&cluster.client().await);
        cluster.fault(ApiKey::CreateTopics, Fault::CloseAfter);
        admin.create_topic(&NewTopic::new("t", 1)).await.unwrap();
        cluster.fault(ApiKey::DeleteTopics, Fault::CloseAfter);
        admin.delete_topic("t").await.unwrap();
        cluster.fault(ApiKey::CreateTopics, Fault::CloseBefore);
        cluster.fault(ApiKey::CreateTopics, Fault::Error(ResponseError::InvalidReplicationFactor));
        let error = admin.create_topic(&NewTopic::new("u", 1)).await.unwrap_err();
        assert!(matches!(error, Error::Unsettled { .. }) && error.may_have_happened(), "{error}");
    });
}

#[test]
fn offsets_are_asked_of_each_leader_and_repeated_where_that_helps() {
    run(async {
        let cluster = FakeCluster::start(2).await;
        cluster.topic("t", 2);
        {
            let mut state = cluster.state();
            let log = &mut state.topics.get_mut("t").unwrap()[1];
            (log.leader, log.start, log.end) = (1, 5, 9);
        }
        let config = ClientConfig { operation_timeout: Duration::from_millis(300), ..cluster.config() };
        let admin = Admin::new(&Client::connect(config).await.unwrap());
        cluster.fault(ApiKey::ListOffsets, Fault::Error(ResponseError::NotLeaderOrFollower));
        let at = |partition| TopicPartition::new("t", partition);
        let asked = [(at(1), OffsetSpec::Earliest), (at(0), OffsetSpec::Latest), (at(1), OffsetSpec::Latest)];
        let answers = admin.list_offsets(&asked).await;
        let offsets: Vec<i64> = answers.into_iter().map(|answer| answer.unwrap().unwrap().offset).collect();
        assert_eq!(offsets, [5, 0, 9], "also where one partition is asked about twice");
        let none = admin.list_offsets(&[(at(7), OffsetSpec::Latest)]).await;
        assert!(matches!(none[0], Err(Error::NoLeader { .. })), "{none:?}");
    });
}

#[test]
fn records_are_deleted_up_to_an_offset_and_the_leader_is_found_where_it_moved() {
    run(async {
        let cluster = FakeCluster::start(2).await;
        cluster.topic("t", 1);
        let admin = Admin::new(&cluster.client().await);
        admin.list_offsets(&[(TopicPartition::new("t", 0), OffsetSpec::Latest)]).await;
        {
            let mut state = cluster.state();
            let log = &mut state.topics.get_mut("t").unwrap()[0];
            (log.leader, log.end) = (1, 9);
        }
        cluster.fault(ApiKey::DeleteRecords, Fault::CloseAfter);
        assert_eq!(admin.delete_records(&TopicPartition::new("t", 0), 4).await.unwrap(), 4);
        assert_eq!(admin.delete_records(&TopicPartition::new("t", 0), -1).await.unwrap(), 9);
        let error = admin.delete_records(&TopicPartition::new("t", 0), 10).await.unwrap_err();
        assert_eq!(error.kafka().unwrap().name(), "OFFSET_OUT_OF_RANGE");
        assert!(!error.may_have_happened(), "{error}");
        // Whoever says that it does not lead may have lost its place while it waited for its followers.
        cluster.fault(ApiKey::DeleteRecords, Fault::Error(ResponseError::NotLeaderOrFollower));
        let error = admin.delete_records(&TopicPartition::new("t", 0), 10).await.unwrap_err();
        assert!(error.may_have_happened(), "{error}");
    });
}
