//! DeleteTopics (key 20; KIP-4, by id KIP-516).

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use kafka_protocol::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;
use weir_protocol::metadata::Command;
use weir_protocol::types::TopicId;
use weir_runtime::time;

use super::{Api, errors, millis};

pub(super) async fn handle(
    api: &Arc<Api>,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let wanted: Vec<(Option<TopicName>, Uuid)> = if version >= 6 {
        request.topics.into_iter().map(|topic| (topic.name, topic.topic_id)).collect()
    } else {
        request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil())).collect()
    };
    let limit = millis(request.timeout_ms);
    api.metadata.catch_up().await;
    let mut results = Vec::with_capacity(wanted.len());
    for (name, id) in wanted {
        let outcome = delete(api, name.as_ref(), id, version, limit).await;
        let mut result = DeletableTopicResult::default().with_name(name).with_topic_id(id);
        match outcome {
            Ok((name, id)) => {
                result.name = Some(TopicName(StrBytes::from_string(name)));
                result.topic_id = id.0;
            }
            Err((error, text)) => {
                result.error_code = error.code();
                result.error_message = Some(StrBytes::from_string(text));
            }
        }
        results.push(result);
    }
    DeleteTopicsResponse::default().with_responses(results)
}

async fn delete(
    api: &Arc<Api>,
    name: Option<&TopicName>,
    id: Uuid,
    version: i16,
    limit: std::time::Duration,
) -> Result<(String, TopicId), (ResponseError, String)> {
    if !api.config.delete_topics {
        // Before version 3 clients do not know this code (KIP-322).
        let error =
            if version >= 3 { ResponseError::TopicDeletionDisabled } else { ResponseError::InvalidRequest };
        return Err((error, "Topic deletion is disabled.".to_owned()));
    }
    let view = api.image.current();
    let image = &view.image;
    let topic = match name {
        Some(_) if !id.is_nil() => {
            let text = "A topic is named by its name or by its id, not by both.".to_owned();
            return Err((ResponseError::InvalidRequest, text));
        }
        Some(name) => image.topic_named(name).ok_or_else(|| {
            (ResponseError::UnknownTopicOrPartition, "This server does not host this topic.".to_owned())
        }),
        None => image.topic(TopicId(id)).ok_or_else(|| {
            (ResponseError::UnknownTopicId, "This server does not host this topic id.".to_owned())
        }),
    }?;
    match time::timeout(limit, api.metadata.propose(Command::DeleteTopic { id: topic.id })).await {
        Ok(Ok(_)) => Ok((topic.name.clone(), topic.id)),
        Ok(Err(error)) => Err((errors::of_proposal(&error), error.to_string())),
        Err(_) => Err((ResponseError::RequestTimedOut, "The topic may be deleted later.".to_owned())),
    }
}
