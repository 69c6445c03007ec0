//! What the handlers of group requests share.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use weir_protocol::group::{GroupError, MemberRef, Name, Reply, Request};

use super::Api;
use crate::server::Stage;

/// Asks a group's coordinator. Whoever waits for others when the broker stops is sent to look for another coordinator.
pub(super) async fn ask(api: &Arc<Api>, group: &str, request: Request) -> Result<Reply, GroupError> {
    let waits = matches!(request, Request::Join(_) | Request::Sync(_));
    let reply = api.groups.request(group, request);
    if !waits {
        return reply.await.map_err(GroupError::from);
    }
    let mut stage = api.stage.clone();
    weir_runtime::select! {
        reply = reply => reply.map_err(GroupError::from),
        _ = stage.wait_for(|stage| *stage != Stage::Running) => Err(GroupError::NotCoordinator),
    }
}

pub(super) fn name(text: &StrBytes) -> Name {
    Name::from(text.as_str())
}

pub(super) fn optional(text: Option<&StrBytes>) -> Option<Name> {
    text.map(name)
}

pub(super) fn text(name: &str) -> StrBytes {
    StrBytes::from_string(name.to_owned())
}

/// A member's time limit, in ms; a negative one is none at all.
pub(super) fn timeout(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

pub(super) fn member(id: &StrBytes, instance: Option<&StrBytes>, generation: i32) -> MemberRef {
    MemberRef { member_id: name(id), instance_id: optional(instance), generation }
}
