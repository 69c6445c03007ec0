//! Topics, settings, groups and their offsets, from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use weir_client::{
    Admin, Client, CommittedOffset, ConfigChange, ConfigResource, ConfigSource, GroupConfig, GroupConsumer,
    OffsetSpec, Producer, ProducerConfig, ProducerRecord, TopicPartition,
};

use crate::{fresh, topic, with_broker};

#[test]
fn settings_of_a_topic_are_changed_and_described_with_where_they_come_from() {
    with_broker("configs", |client| async move {
        let (admin, topic) = (Admin::new(&client), topic(&client, "configured", 1).await);
        let resource = ConfigResource::Topic(topic);
        let told = async |name: &str| {
            let entries = admin.describe_configs(&resource).await.unwrap();
            entries.into_iter().find(|entry| entry.name == name).unwrap()
        };
        assert_eq!(told("retention.ms").await.source, ConfigSource::Default);
        let set = BTreeMap::from([("retention.ms".to_owned(), ConfigChange::Set("12345".to_owned()))]);
        admin.alter_configs(&resource, &set, true).await.unwrap();
        assert_ne!(told("retention.ms").await.value.as_deref(), Some("12345"), "it was only checked");
        admin.alter_configs(&resource, &set, false).await.unwrap();
        let entry = told("retention.ms").await;
        assert_eq!((entry.value.as_deref(), entry.source), (Some("12345"), ConfigSource::Topic));
        let delete = BTreeMap::from([("retention.ms".to_owned(), ConfigChange::Delete)]);
        admin.alter_configs(&resource, &delete, false).await.unwrap();
        assert_eq!(told("retention.ms").await.source, ConfigSource::Default);
        let wrong = BTreeMap::from([("retention.ms".to_owned(), ConfigChange::Set("soon".to_owned()))]);
        let error = admin.alter_configs(&resource, &wrong, false).await.unwrap_err();
        assert_eq!(error.kafka().unwrap().name(), "INVALID_CONFIG", "{error}");
        let broker = admin.describe_cluster().await.unwrap().brokers[0].info.id;
        let entries = admin.describe_configs(&ConfigResource::Broker(broker)).await.unwrap();
        assert!(entries.iter().any(|entry| entry.read_only), "{entries:?}");
    });
}

#[test]
fn a_topic_gets_more_partitions_and_never_fewer() {
    with_broker("create_partitions", |client| async move {
        let (admin, topic) = (Admin::new(&client), topic(&client, "grown", 1).await);
        admin.create_partitions(&topic, 4).await.unwrap();
        assert_eq!(admin.describe_topic(&topic).await.unwrap().partitions.len(), 4);
        let error = admin.create_partitions(&topic, 2).await.unwrap_err();
        assert_eq!(error.kafka().unwrap().name(), "INVALID_PARTITIONS", "{error}");
        admin.delete_topic(&topic).await.unwrap();
    });
}

async fn produce(client: &Client, topic: &str, count: i64) {
    let producer = Producer::new(client, ProducerConfig::default());
    for n in 0..count {
        let value = Some(Bytes::from(n.to_string()));
        let timestamp_ms = Some(1_000_000 + n);
        let record = ProducerRecord {
            topic: topic.to_owned(),
            partition: Some(0),
            value,
            timestamp_ms,
            ..Default::default()
        };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
}

#[test]
fn records_are_deleted_and_offsets_found_by_time() {
    with_broker("offsets", |client| async move {
        let (admin, topic) = (Admin::new(&client), topic(&client, "timed", 1).await);
        produce(&client, &topic, 10).await;
        let partition = TopicPartition::new(topic, 0);
        let specs = [
            OffsetSpec::Earliest,
            OffsetSpec::Latest,
            OffsetSpec::Time(1_000_004),
            OffsetSpec::Time(9_000_000),
        ];
        let questions: Vec<_> = specs.iter().map(|spec| (partition.clone(), *spec)).collect();
        let offsets = async || -> Vec<Option<i64>> {
            let told = admin.list_offsets(&questions).await;
            told.into_iter().map(|at| at.unwrap().map(|at| at.offset)).collect()
        };
        assert_eq!(offsets().await, [Some(0), Some(10), Some(4), None]);
        assert_eq!(admin.delete_records(&partition, 3).await.unwrap(), 3);
        assert_eq!(offsets().await, [Some(3), Some(10), Some(4), None]);
    });
}

#[test]
fn a_group_is_listed_described_moved_and_deleted() {
    with_broker("groups", |client| async move {
        let (admin, group) = (Admin::new(&client), fresh("admin"));
        let topic = topic(&client, "read", 2).await;
        let missing = admin.describe_group(&group).await.unwrap_err();
        assert!(missing.kafka().unwrap().is_group_not_found(), "{missing}");

        let config = GroupConfig { instance: None, ..GroupConfig::new(&group) };
        let mut member = GroupConsumer::new(&client, config, [topic.as_str()]).unwrap();
        while member.poll(Duration::from_millis(100)).await.unwrap().rebalances.is_empty() {}
        let described = admin.describe_group(&group).await.unwrap();
        assert_eq!((described.state.as_str(), described.assignor.as_str()), ("Stable", "cooperative-sticky"));
        assert_eq!(described.members[0].partitions.len(), 2);
        assert_eq!(described.members[0].id, member.generation().unwrap().1);
        let listed = admin.list_groups().await.unwrap();
        assert!(listed.iter().any(|one| one.id == group && one.state == "Stable"), "{listed:?}");

        let (first, second) = (TopicPartition::new(&*topic, 0), TopicPartition::new(&*topic, 1));
        let offset = CommittedOffset { offset: 7, leader_epoch: Some(0), metadata: "by hand".to_owned() };
        let offsets =
            BTreeMap::from([(first.clone(), offset.clone()), (second.clone(), CommittedOffset::at(8))]);
        let refused = admin.alter_group_offsets(&group, &offsets).await.unwrap();
        let name =
            |answer: &Result<(), weir_client::Error>| answer.as_ref().unwrap_err().kafka().unwrap().name();
        assert!(refused.values().all(|answer| name(answer) == "UNKNOWN_MEMBER_ID"), "{refused:?}");
        let error = admin.delete_group(&group).await.unwrap_err();
        assert_eq!(error.kafka().unwrap().name(), "NON_EMPTY_GROUP");
        member.close().await.unwrap();

        let altered = admin.alter_group_offsets(&group, &offsets).await.unwrap();
        assert!(altered.values().all(Result::is_ok), "{altered:?}");
        assert_eq!(
            admin.list_group_offsets(&group, None).await.unwrap(),
            offsets,
            "K19: metadata and epoch too"
        );
        let one = admin.list_group_offsets(&group, Some(std::slice::from_ref(&first))).await.unwrap();
        assert_eq!(one, BTreeMap::from([(first.clone(), offset)]));
        let deleted = admin.delete_group_offsets(&group, std::slice::from_ref(&first)).await.unwrap();
        assert!(deleted[&first].is_ok(), "{deleted:?}");
        assert_eq!(admin.list_group_offsets(&group, None).await.unwrap().len(), 1);
        admin.delete_group(&group).await.unwrap();
        assert!(admin.delete_group(&group).await.unwrap_err().kafka().unwrap().is_group_not_found());
    });
}
