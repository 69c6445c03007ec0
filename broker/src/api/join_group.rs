//! JoinGroup (key 11; KIP-345, KIP-394, KIP-559, KIP-814).

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequest;
use kafka_protocol::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use kafka_protocol::protocol::StrBytes;
use weir_protocol::group::{JoinRefused, JoinRequest, Joined, Name, Reply, Request};
use weir_runtime::random;

use super::groups::{ask, name, optional, text, timeout};
use super::{Api, Asker, errors};

pub(super) async fn handle(
    api: &Arc<Api>,
    asker: &Asker,
    request: JoinGroupRequest,
    version: i16,
) -> JoinGroupResponse {
    let session_timeout = timeout(request.session_timeout_ms);
    let join = JoinRequest {
        member_id: name(&request.member_id),
        instance_id: optional(request.group_instance_id.as_ref()),
        client_id: name(&asker.client_id),
        client_host: Name::from(format!("/{}", asker.origin.peer.ip().to_canonical())),
        session_timeout,
        // Version 0 had one time for both (KIP-62).
        rebalance_timeout: if version >= 1 { timeout(request.rebalance_timeout_ms) } else { session_timeout },
        protocol_type: name(&request.protocol_type),
        protocols: request
            .protocols
            .iter()
            // A copy, so that a small part does not keep a whole request in memory.
            .map(|protocol| (name(&protocol.name), Bytes::copy_from_slice(&protocol.metadata)))
            .collect(),
        requires_known_member_id: version >= 4,
        skips_assignment: version >= 9,
        fresh: u128::from_be_bytes(random::uuid_bytes()),
    };
    match ask(api, &request.group_id, Request::Join(Box::new(join))).await {
        Ok(Reply::Join(Ok(joined))) => accepted(*joined, version),
        Ok(Reply::Join(Err(refused))) => refusal(&refused, version),
        Ok(_) => {
            refusal(&refused_by(&request, weir_protocol::group::GroupError::CoordinatorNotAvailable), version)
        }
        Err(error) => refusal(&refused_by(&request, error), version),
    }
}

fn refused_by(request: &JoinGroupRequest, error: weir_protocol::group::GroupError) -> JoinRefused {
    JoinRefused { error, member_id: name(&request.member_id) }
}

fn accepted(joined: Joined, version: i16) -> JoinGroupResponse {
    let members = joined
        .members
        .into_iter()
        .map(|(id, instance, metadata)| {
            JoinGroupResponseMember::default()
                .with_member_id(text(&id))
                // Nobody who reads an older version can be one.
                .with_group_instance_id(instance.filter(|_| version >= 5).map(|instance| text(&instance)))
                .with_metadata(metadata)
        })
        .collect();
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type((version >= 7).then(|| text(&joined.protocol_type)))
        .with_protocol_name(Some(text(&joined.protocol)))
        .with_leader(text(&joined.leader))
        .with_skip_assignment(joined.skip_assignment && version >= 9)
        .with_member_id(text(&joined.member_id))
        .with_members(members)
}

fn refusal(refused: &JoinRefused, version: i16) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(errors::of_group(refused.error).code())
        .with_generation_id(-1)
        .with_protocol_type(None)
        // Null only where it may be (KIP-559).
        .with_protocol_name((version < 7).then(|| StrBytes::from_static_str("")))
        .with_member_id(text(&refused.member_id))
}
