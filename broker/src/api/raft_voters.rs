//! AddRaftVoter and RemoveRaftVoter (keys 80 and 81; KIP-853): who votes on the cluster's metadata. A voter is a node
//! together with its data folder (contract 6).

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;
use weir_protocol::metadata::Image;
use weir_protocol::raft::{ChangeRefusal, VoterChange};
use weir_protocol::types::{BrokerId, FolderId, VoterId};
use weir_runtime::time;

use super::configs::Refusal;
use super::metadata::kafka_text;
use super::{Api, errors, millis};
use crate::peer::message::{ControllerQuestion, ControllerReply};

/// RemoveRaftVoter has no time limit of its own.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn add(api: &Arc<Api>, request: AddRaftVoterRequest) -> AddRaftVoterResponse {
    let voter = voter(request.voter_id, request.voter_directory_id);
    let limit = millis(request.timeout_ms);
    let outcome = change(api, request.cluster_id.as_ref(), VoterChange::Add(voter), limit).await;
    let response = AddRaftVoterResponse::default().with_error_message(None);
    match outcome {
        Ok(()) => response,
        Err((error, text)) => {
            response.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(text)))
        }
    }
}

pub(super) async fn remove(api: &Arc<Api>, request: RemoveRaftVoterRequest) -> RemoveRaftVoterResponse {
    let voter = voter(request.voter_id, request.voter_directory_id);
    let outcome = change(api, request.cluster_id.as_ref(), VoterChange::Remove(voter), LIMIT).await;
    let response = RemoveRaftVoterResponse::default().with_error_message(None);
    match outcome {
        Ok(()) => response,
        Err((error, text)) => {
            response.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(text)))
        }
    }
}

fn voter(id: i32, folder: Uuid) -> VoterId {
    VoterId { broker: BrokerId(id), folder: FolderId(folder) }
}

async fn change(
    api: &Arc<Api>,
    cluster: Option<&StrBytes>,
    change: VoterChange,
    limit: Duration,
) -> Result<(), Refusal> {
    check_cluster(&api.image.current().image, cluster)?;
    match api.metadata.ask(ControllerQuestion::ChangeVoters(change), time::now() + limit).await {
        Ok(ControllerReply::Voters(Ok(_))) => Ok(()),
        Ok(ControllerReply::Voters(Err(refusal))) => Err((of_refusal(refusal), refusal.to_string())),
        Ok(_) => Err((ResponseError::RequestTimedOut, "The voters may change later.".to_owned())),
        Err(error) => Err((errors::of_ask(&error), error.to_string())),
    }
}

/// A request that names a cluster is meant for that one.
fn check_cluster(image: &Image, named: Option<&StrBytes>) -> Result<(), Refusal> {
    let own = image.cluster_id().map(kafka_text).unwrap_or_default();
    match named {
        Some(named) if named.as_str() != own => {
            let text = format!("This is cluster {own}, not {}.", named.as_str());
            Err((ResponseError::InconsistentClusterId, text))
        }
        _ => Ok(()),
    }
}

fn of_refusal(refusal: ChangeRefusal) -> ResponseError {
    match refusal {
        ChangeRefusal::VoterExists => ResponseError::DuplicateVoter,
        ChangeRefusal::NoSuchVoter => ResponseError::VoterNotFound,
        ChangeRefusal::BadNumberOfVoters => ResponseError::InvalidRequest,
        // It passes: clients try again.
        ChangeRefusal::TermNotCommitted | ChangeRefusal::ChangeUnderWay | ChangeRefusal::NotCaughtUp => {
            ResponseError::RequestTimedOut
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::brokers::tests::Three;
    use super::*;

    #[test]
    fn a_refused_change_of_voters_says_whether_it_is_worth_trying_again() {
        let of = of_refusal;
        assert_eq!(of(ChangeRefusal::VoterExists), ResponseError::DuplicateVoter);
        assert_eq!(of(ChangeRefusal::NoSuchVoter), ResponseError::VoterNotFound);
        assert_eq!(of(ChangeRefusal::BadNumberOfVoters), ResponseError::InvalidRequest);
        for passing in
            [ChangeRefusal::TermNotCommitted, ChangeRefusal::ChangeUnderWay, ChangeRefusal::NotCaughtUp]
        {
            assert!(of(passing).is_retriable());
        }
    }

    #[test]
    fn a_request_for_another_cluster_changes_nothing() {
        let image = Three::new().image;
        let own = StrBytes::from_static_str("AAAAAAAAAAAAAAAAAAAACQ");
        assert_eq!(check_cluster(&image, Some(&own)), Ok(()));
        assert_eq!(check_cluster(&image, None), Ok(()));
        let other = check_cluster(&image, Some(&StrBytes::from_static_str("other")));
        assert_eq!(other.map_err(|(error, _)| error), Err(ResponseError::InconsistentClusterId));
    }
}
