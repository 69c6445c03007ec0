use super::*;
use crate::schema::{shape_of, shapes};

fn served(features: Features, key: ApiKey) -> (i16, i16) {
    let api = advertised(features).find(|api| api.key == key).unwrap();
    (api.served_min, api.max)
}

#[test]
fn table_is_sorted_and_each_step_goes_further() {
    assert!(TABLE.is_sorted_by(|a, b| (a.key as i16) < (b.key as i16)));
    for row in TABLE {
        assert!(!row.steps.is_empty());
        assert!(row.steps.is_sorted_by(|a, b| a.0 < b.0), "{:?}", row.key);
        assert!(row.advertised_min <= row.served_min && row.served_min <= row.steps[0].0);
    }
}

#[test]
fn every_served_version_can_be_decoded_and_encoded() {
    for api in advertised(Features::ALL) {
        let shape = shape_of(api.key as i16).unwrap();
        for message in [&shape.request, &shape.response] {
            assert!(message.versions.0 <= api.served_min && api.max <= message.versions.1, "{api:?}");
        }
    }
    assert_eq!(advertised(Features::ALL).count(), shapes().len());
}

/// The table "Versions that today's clients force".
#[test]
fn versions_that_todays_clients_force_are_served() {
    use ApiKey::*;
    let forced = [
        (Produce, 3, 9),
        (Fetch, 4, 12),
        (ListOffsets, 1, 7),
        (Metadata, 0, 9),
        (FindCoordinator, 0, 4),
        (JoinGroup, 0, 6),
        (SyncGroup, 0, 4),
        (Heartbeat, 0, 4),
        (LeaveGroup, 0, 4),
        (OffsetCommit, 2, 9),
        (OffsetFetch, 1, 9),
        (ApiVersions, 0, 4),
        (CreateTopics, 2, 7),
        (InitProducerId, 0, 4),
        (AddPartitionsToTxn, 0, 3),
        (AddOffsetsToTxn, 0, 3),
        (EndTxn, 0, 3),
        (OffsetForLeaderEpoch, 2, 4),
        (ConsumerGroupHeartbeat, 0, 1),
    ];
    for (key, min, max) in forced {
        let (served_min, served_max) = served(Features::ALL, key);
        assert!(served_min <= min && max <= served_max, "{key:?}");
    }
    for key in [Produce, Fetch, ListOffsets, Metadata, ApiVersions, CreateTopics] {
        let (_, min, max) = forced.into_iter().find(|forced| forced.0 == key).unwrap();
        let (served_min, served_max) = served(Features::BASE, key);
        assert!(served_min <= min && max <= served_max, "{key:?} with the base alone");
    }
}

#[test]
fn k1_api_versions_in_a_version_too_new_is_refused_in_its_own_way() {
    assert_eq!(check(18, 4, Features::BASE), Ok(ApiKey::ApiVersions));
    assert_eq!(check(18, 99, Features::BASE), Err(Refusal::ApiVersions { version: 99 }));
    assert_eq!(check(18, -1, Features::BASE), Err(Refusal::ApiVersions { version: -1 }));
}

#[test]
fn k2_produce_is_advertised_from_0_and_refused_below_3() {
    let produce = advertised(Features::BASE).find(|api| api.key == ApiKey::Produce).unwrap();
    assert_eq!((produce.advertised_min, produce.served_min), (0, 3));
    for version in 0..3 {
        assert_eq!(check(0, version, Features::BASE), Err(Refusal::OldProduce { version }));
    }
    assert_eq!(check(0, 3, Features::BASE), Ok(ApiKey::Produce));
    let below = Refusal::UnsupportedVersion { key: ApiKey::Produce, version: -1, min: 3, max: 11 };
    assert_eq!(check(0, -1, Features::BASE), Err(below));
}

#[test]
fn k3_produce_12_needs_transactions() {
    assert_eq!(served(Features::BASE, ApiKey::Produce).1, 11);
    assert_eq!(served(Features::ALL, ApiKey::Produce).1, 13);
    assert!(check(0, 12, Features::BASE).is_err());
    assert!(check(0, 12, Features::TRANSACTIONS).is_ok());
}

#[test]
fn k4_fetch_has_topic_ids() {
    assert!(served(Features::BASE, ApiKey::Fetch).1 >= 13);
    assert!(served(Features::BASE, ApiKey::Metadata).1 >= 10);
}

#[test]
fn an_api_without_its_feature_is_absent() {
    assert_eq!(check(68, 1, Features::CLASSIC_GROUPS), Err(Refusal::UnknownApi { api_key: 68 }));
    assert_eq!(check(7, 0, Features::ALL), Err(Refusal::UnknownApi { api_key: 7 }));
    assert_eq!(check(i16::MIN, 0, Features::ALL), Err(Refusal::UnknownApi { api_key: i16::MIN }));
    let base: Vec<_> = advertised(Features::BASE).map(|api| api.key as i16).collect();
    assert_eq!(base, [0, 1, 2, 3, 18, 19, 20, 21]);
}

#[test]
fn a_step_without_the_one_before_it_is_not_reached() {
    let share_only = Features::CLASSIC_GROUPS.and(Features::SHARE_GROUPS);
    assert_eq!(served(share_only, ApiKey::FindCoordinator), (0, 4));
}
