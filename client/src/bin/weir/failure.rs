//! Why a command has failed, in one line: what happened, to what, and what to do about it.

use std::io;

use weir_client::{Error, KafkaError, ProduceError};

/// Why the command has failed, in one line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Somebody else says no, or nothing.
    Failed(String),
    /// The command makes no sense.
    Usage(String),
}

impl Failure {
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Failure::Failed(reason.into())
    }

    pub(crate) fn usage(reason: impl Into<String>) -> Self {
        Failure::Usage(reason.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(explained(&error))
    }
}

impl From<ProduceError> for Failure {
    fn from(error: ProduceError) -> Self {
        let state = if error.may_have_been_written {
            "a record may have been written"
        } else {
            "a record was not written"
        };
        Failure::Failed(format!("{state}: {}", explained(&error.source)))
    }
}

/// What came of the first attempt to reach the cluster.
pub(crate) fn no_contact(error: &Error) -> Failure {
    let advice = "is it running? -b or WEIR_BOOTSTRAP names another";
    Failure::Failed(match error {
        Error::Connect { address, source } => format!("no broker at {address}: {}; {advice}", system(source)),
        Error::NoBroker { tried } => format!("no broker answers: {tried}; -b or WEIR_BOOTSTRAP names others"),
        Error::Timeout { address, .. } => {
            format!(
                "{address} does not answer: a Kafka broker without TLS would, unless it still waits for the other nodes of its \
                 cluster ({error})"
            )
        }
        Error::Disconnected { address, .. } | Error::Protocol { address, .. } => {
            format!("what listens at {address} does not answer as a Kafka broker does without TLS: {error}")
        }
        _ => explained(error),
    })
}

fn system(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => error.to_string(),
    }
}

/// An error in the words of this tool.
pub(crate) fn explained(error: &Error) -> String {
    match error {
        Error::Kafka { address, api, about, error, message } => {
            let says = format!("({error}, says {address})");
            let about = subject(api, about);
            match kafka(*error, &about, message.as_deref()) {
                Some((what, "")) => format!("{what} {says}"),
                Some((what, advice)) => format!("{what} {says}; {advice}"),
                None => message.as_ref().map_or_else(
                    || format!("{about}: {api} was refused {says}"),
                    |message| format!("{about}: {message} {says}"),
                ),
            }
        }
        Error::OffsetOutOfRange { .. } => format!("{error}; 'weir topic describe' shows what there is"),
        Error::NoLeader { partition, reason } => {
            format!("the leader of {partition} does not answer, or there is none: {reason}")
        }
        Error::Connect { address, source } => format!("no connection to {address}: {}", system(source)),
        _ => error.to_string(),
    }
}

/// What a request was about, with the word for what it is.
fn subject(api: &str, about: &str) -> String {
    match api {
        "Metadata" | "CreateTopics" | "DeleteTopics" | "CreatePartitions" => format!("topic {about}"),
        "DescribeGroups" | "ConsumerGroupDescribe" => format!("group {about}"),
        _ => about.to_owned(),
    }
}

/// What a broker's error means, and what to do about it, where there is something to say.
fn kafka(error: KafkaError, about: &str, message: Option<&str>) -> Option<(String, &'static str)> {
    let said = |other: &str| message.unwrap_or(other).to_owned();
    Some(match error.name().as_str() {
        "UNKNOWN_TOPIC_OR_PARTITION" => {
            (format!("{about} does not exist"), "'weir topic list' names those that do")
        }
        "TOPIC_ALREADY_EXISTS" => (format!("{about} exists already"), "--if-not-exists takes it as it is"),
        "INVALID_TOPIC_EXCEPTION" => {
            (format!("{about}: {}", said("a topic's name has only letters, digits, '.', '_' and '-'")), "")
        }
        "GROUP_ID_NOT_FOUND" => (format!("{about} does not exist"), "'weir group list' names those that do"),
        "NON_EMPTY_GROUP" => {
            (format!("{about} has members"), "stop them first; 'weir group describe' names them")
        }
        "COORDINATOR_NOT_AVAILABLE" | "COORDINATOR_LOAD_IN_PROGRESS" | "NOT_COORDINATOR" => {
            (format!("{about}: the coordinator is not ready"), "try again in a moment")
        }
        "NOT_ENOUGH_REPLICAS" | "NOT_ENOUGH_REPLICAS_AFTER_APPEND" => (
            format!("{about}: fewer replicas are in sync than min.insync.replicas asks for"),
            "'weir topic describe' shows which are",
        ),
        "MESSAGE_TOO_LARGE" | "RECORD_LIST_TOO_LARGE" => (
            format!("{about}: a batch is larger than the topic takes"),
            "max.message.bytes is its limit: 'weir config set topic ...' raises it",
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn said(api: &'static str, code: i16, about: &str, message: Option<&str>) -> String {
        explained(&Error::Kafka {
            address: Arc::from("h:1"),
            api,
            about: about.to_owned(),
            error: KafkaError::from_code(code).unwrap(),
            message: message.map(str::to_owned),
        })
    }

    #[test]
    fn an_error_says_what_happened_to_what_and_what_to_do() {
        let missing = "topic t does not exist (UNKNOWN_TOPIC_OR_PARTITION, says h:1); 'weir topic list' names those that do";
        assert_eq!(said("Metadata", 3, "t", Some("This server does not host this topic.")), missing);
        assert_eq!(
            said("DeleteGroups", 68, "group g", None),
            "group g has members (NON_EMPTY_GROUP, says h:1); stop them first; 'weir group describe' names them"
        );
    }

    #[test]
    fn an_error_without_words_of_ours_has_the_brokers() {
        assert_eq!(
            said("DescribeConfigs", 40, "topic t", Some("no")),
            "topic t: no (INVALID_CONFIG, says h:1)"
        );
        assert_eq!(
            said("CreateTopics", 29, "t", None),
            "topic t: CreateTopics was refused (TOPIC_AUTHORIZATION_FAILED, says h:1)"
        );
    }
}
