//! What survives a stop, and how a start can fail.

use weir_broker::{Node, StartError};
use weir_runtime::disk::{Disk, DiskOptions, OpenError, OpenMode};
use weir_runtime::net::Listener;

use crate::support::{Broker, batch, config, open, run, values};

#[test]
fn topics_and_records_survive_a_clean_stop_and_each_incarnation_leads_in_a_new_epoch() {
    run(async {
        let mut broker = Broker::start().await;
        let (mut epochs, mut ids) = (Vec::new(), Vec::new());
        for round in 0..3i64 {
            let mut client = broker.client().await;
            if round == 0 {
                client.create("kept", 3, &[]).await;
            }
            let metadata = client.metadata(12, Some(&["kept"]), false).await;
            assert_eq!(metadata.topics[0].partitions.len(), 3);
            epochs.push(metadata.topics[0].partitions[0].leader_epoch);
            ids.push((metadata.cluster_id.clone(), metadata.topics[0].topic_id));
            let value = format!("round {round}");
            assert_eq!(client.produce("kept", 0, batch(&[value.as_bytes()])).await.base_offset, round);
            let fetched = values(client.fetch("kept", 0, 0).await.records);
            let expected: Vec<_> = (0..=round).map(|n| (n, format!("round {n}").into_bytes())).collect();
            assert_eq!(fetched, expected);
            broker = broker.restart().await;
        }
        assert!(epochs.is_sorted_by(|a, b| a < b), "contract 4: {epochs:?}");
        assert!(ids.iter().all(|id| *id == ids[0]), "topic and cluster keep their ids");
        broker.stop().await;
    });
}

#[test]
fn a_topic_that_was_deleted_stays_deleted() {
    run(async {
        let broker = Broker::start().await;
        let mut client = broker.client().await;
        client.create("gone", 1, &[]).await;
        client.create("stays", 1, &[]).await;
        client.produce("gone", 0, batch(&[b"value"])).await;
        let request = kafka_protocol::messages::DeleteTopicsRequest::default()
            .with_topic_names(vec![crate::support::topic("gone")])
            .with_timeout_ms(5_000);
        client.call(4, &request).await;
        let broker = broker.restart().await;
        let mut client = broker.client().await;
        let metadata = client.metadata(9, None, false).await;
        assert_eq!(metadata.topics.len(), 1);
        broker.stop().await;
    });
}

#[test]
fn a_stop_answers_what_was_asked_before_and_a_parked_fetch_does_not_hold_it_up() {
    run(async {
        let broker = Broker::start().await;
        let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
        producer.create("stopping", 1, &[]).await;
        let mut parked = crate::support::fetch_request("stopping", 0, 0);
        parked.max_wait_ms = 60_000;
        consumer.send(11, &parked).await;
        // Answered when the broker has read it: then it is under way.
        producer.produce("stopping", 0, batch(&[b"first"])).await;
        let started = weir_runtime::time::now();
        let Broker { node, folder } = broker;
        node.stop().await.expect("a clean stop");
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
        assert!(folder.path().join("clean").exists(), "the next start has nothing to recover");
    });
}

#[test]
fn a_port_in_use_and_a_locked_folder_are_told_apart() {
    run(async {
        let taken = Listener::bind(([127, 0, 0, 1], 0).into()).await.expect("a port");
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(folder.path(), DiskOptions::default()).await.expect("the folder");
        let locked = Disk::open(folder.path(), DiskOptions::default()).await;
        assert!(matches!(locked, Err(OpenError::Locked { .. })));
        let address = taken.local_addr().expect("an address").to_string();
        let config = weir_broker::Config { listen: address.clone(), ..config() };
        let Err(error) = Node::start(config, disk).await else { panic!("the port is in use") };
        assert!(matches!(error, StartError::PortInUse { .. }), "{error}");
        assert_eq!(error.exit_code(), 3);
        assert_eq!(error.to_string(), format!("cannot listen on {address}: the port is in use"));
    });
}

#[test]
fn a_damaged_vote_keeps_the_broker_from_starting() {
    run(async {
        let Broker { node, folder } = Broker::start().await;
        node.stop().await.expect("a clean stop");
        let disk = open(folder.path()).await;
        let (file, _) = disk.open_file("quorum-state", OpenMode::ReadWrite).await.expect("the file");
        disk.truncate(&file, 0).await.expect("truncated");
        drop((file, disk));
        let disk = open(folder.path()).await;
        let Err(error) = Node::start(config(), disk).await else { panic!("it has forgotten its vote") };
        assert_eq!(error.exit_code(), 5, "{error}");
        assert!(error.to_string().contains("quorum-state"), "{error}");
    });
}
