//! What is produced is read back, once and in order.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use weir_client::{
    Acks, Client, Compression, Consumer, ConsumerConfig, IsolationLevel, Producer, ProducerConfig,
    ProducerRecord, Start, TopicPartition,
};

use crate::{topic, with_broker};

const RECORDS: usize = 20_000;

async fn produce(client: &Client, topic: &str, config: ProducerConfig) {
    let producer = Producer::new(client, config);
    let mut deliveries = Vec::with_capacity(RECORDS);
    for n in 0..RECORDS {
        let record = ProducerRecord {
            topic: topic.to_owned(),
            partition: Some(i32::try_from(n % 3).unwrap()),
            key: Some(Bytes::from(format!("k{n}"))),
            value: Some(Bytes::from(format!("{n:0100}"))),
            ..ProducerRecord::default()
        };
        deliveries.push(producer.send(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    for (n, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(delivery.await.unwrap().offset, Some(i64::try_from(n / 3).unwrap()));
    }
}

async fn read_back(client: &Client, topic: &str, isolation: IsolationLevel) {
    let mut consumer = Consumer::new(client, ConsumerConfig { isolation, ..ConsumerConfig::default() });
    consumer.assign((0..3).map(|partition| (TopicPartition::new(topic, partition), Start::Beginning)));
    let mut read: BTreeMap<i32, usize> = BTreeMap::new();
    while read.values().sum::<usize>() < RECORDS {
        let polled = consumer.poll(Duration::from_secs(1)).await;
        assert!(polled.failures.is_empty(), "{:?}", polled.failures);
        for (partition, record) in polled.records() {
            let count = read.entry(partition.partition).or_default();
            let n = *count * 3 + usize::try_from(partition.partition).unwrap();
            assert_eq!(record.value.as_deref(), Some(format!("{n:0100}").as_bytes()));
            *count += 1;
        }
    }
}

#[test]
fn what_is_produced_with_numbers_and_every_codec_is_read_back_once_and_in_order() {
    with_broker("idempotence", |client| async move {
        for compression in Compression::ALL {
            let topic = topic(&client, "produced", 3).await;
            let config = ProducerConfig { compression, batch_bytes: 4 << 10, ..ProducerConfig::default() };
            produce(&client, &topic, config).await;
            read_back(&client, &topic, IsolationLevel::ReadCommitted).await;
        }
    });
}

#[test]
fn what_is_produced_without_numbers_is_read_back_too() {
    with_broker("no idempotence", |client| async move {
        let topic = topic(&client, "produced", 3).await;
        produce(&client, &topic, ProducerConfig { acks: Acks::Leader, ..ProducerConfig::default() }).await;
        read_back(&client, &topic, IsolationLevel::ReadUncommitted).await;
    });
}
