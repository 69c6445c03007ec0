//! `cleanup.policy=compact`, as clients see it.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::DeleteGroupsRequest;
use weir_broker::Config;
use weir_runtime::time;
use weir_wire::codec::Compression;
use weir_wire::records::{self, BatchBuilder};

use crate::group_support::{commit, committed, find, group, quick};
use crate::support::{Broker, Client, config, node_on, run};

/// A topic that is compacted as soon as there is anything to compact.
const EAGER: [(&str, &str); 5] = [
    ("cleanup.policy", "compact"),
    ("internal.segment.bytes", "2048"),
    ("min.cleanable.dirty.ratio", "0"),
    ("segment.ms", "100"),
    ("delete.retention.ms", "300"),
];

fn eager(mut config: Config) -> Config {
    config.log_cleaner_backoff = Duration::from_millis(20);
    config
}

async fn put(client: &mut Client, key: &str, value: Option<&str>) -> i64 {
    let mut builder = BatchBuilder::new(Compression::Lz4);
    builder.push(time::wall_ms(), Some(key.as_bytes()), value.map(str::as_bytes), &[]).expect("a record");
    let done = client.produce("keyed", 0, builder.finish().expect("a batch")).await;
    assert_eq!(done.error_code, 0);
    done.base_offset
}

/// All records of a log from its start, by their offsets, and where a reader gets to.
async fn read(client: &mut Client) -> (BTreeMap<i64, (String, Option<String>)>, i64) {
    let mut found = BTreeMap::new();
    let mut next = 0;
    loop {
        let fetched = client.fetch("keyed", 0, next).await;
        assert_eq!(fetched.error_code, 0);
        for batch in records::batches(fetched.records.unwrap_or_default()) {
            let batch = batch.expect("a whole batch");
            batch.verify_crc().expect("intact");
            for record in &batch.records(1 << 20).expect("decodable") {
                let record = record.expect("a record");
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                found.insert(record.offset, (text(record.key.unwrap_or_default()), record.value.map(text)));
            }
            next = batch.header.next_offset();
        }
        if next >= fetched.high_watermark {
            return (found, next);
        }
    }
}

#[test]
fn readers_find_the_last_record_of_each_key_and_deleted_keys_go() {
    run(async {
        let Broker { node, folder } = Broker::with(eager(config())).await;
        let mut client = Client::connect(node.address()).await;
        client.create("keyed", 1, &EAGER).await;
        put(&mut client, "gone", Some("value")).await;
        let mut last = 0;
        for round in 0..100 {
            for key in ["a", "b", "c"] {
                last = put(&mut client, key, Some(&format!("{key} {round}"))).await;
            }
        }
        put(&mut client, "gone", None).await;
        // The tombstone is there for a while, and then gone: one key less, and only the last values are left.
        let expected: Vec<_> = ["a", "b", "c"].map(|key| (key.to_owned(), Some(format!("{key} 99")))).into();
        let deadline = time::now() + crate::support::PATIENCE;
        loop {
            let (found, end) = read(&mut client).await;
            assert_eq!(end, last + 2, "readers get to the log's end, whatever is left at it");
            if found.values().cloned().collect::<Vec<_>>() == expected {
                break;
            }
            assert!(time::now() < deadline, "{found:?}");
            time::sleep(Duration::from_millis(20)).await;
        }
        drop(client);
        node.stop().await.expect("a clean stop");
        let node = node_on(folder.path(), config()).await;
        let mut client = Client::connect(node.address()).await;
        let (found, _) = read(&mut client).await;
        assert_eq!(found.into_values().collect::<Vec<_>>(), expected);
        assert_eq!(put(&mut client, "d", Some("next")).await, last + 2, "offsets go on");
        node.stop().await.expect("a clean stop");
    });
}

/// Z31: what was written last is compacted away, and still a coordinator gets to the end of its log.
#[test]
fn a_coordinator_loads_a_log_whose_end_was_compacted_away() {
    run(async {
        let mut config = eager(quick());
        config.offsets_topic_partitions = 1;
        for (key, value) in [("log.roll.ms", "50"), ("log.cleaner.min.cleanable.ratio", "0")] {
            config.topic_defaults.insert(key.to_owned(), value.to_owned());
        }
        config.topic_defaults.insert("log.cleaner.delete.retention.ms".to_owned(), "0".to_owned());
        let Broker { node, folder } = Broker::with(config.clone()).await;
        let mut client = Client::connect(node.address()).await;
        client.create("t", 1, &[]).await;
        assert_eq!(find(&mut client, "kept").await, 0);
        for offset in 1..50 {
            assert_eq!(commit(&mut client, "kept", offset, "").await, 0);
        }
        assert_eq!(commit(&mut client, "gone", 1, "").await, 0);
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group("gone")]);
        assert_eq!(client.call(2, &request).await.results[0].error_code, 0);
        // Its tombstones are the last records of the log, until they are gone, too.
        crate::support::until("tombstones are dropped", || {
            node.metrics().compacted_tombstones_dropped.get() > 0
        })
        .await;
        drop(client);
        node.stop().await.expect("a clean stop");
        let node = node_on(folder.path(), config).await;
        let mut client = Client::connect(node.address()).await;
        assert_eq!(find(&mut client, "kept").await, 0);
        let deadline = time::now() + crate::support::PATIENCE;
        while committed(&mut client, "kept").await.0 != 49 {
            assert!(time::now() < deadline, "the coordinator is never ready");
            time::sleep(Duration::from_millis(20)).await;
        }
        node.stop().await.expect("a clean stop");
    });
}
