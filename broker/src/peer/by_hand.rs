//! The messages between nodes without their connections, for fuzzing.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use weir_protocol::metadata::FeatureRange;
use weir_protocol::raft::{Append, Entry, EntryKind, Envelope, Message};
use weir_protocol::types::{BrokerId, FolderId, VoterId};
use weir_wire::internal;

use super::handshake::{Opening, VERSIONS};
use super::link::{Call, CallAnswer};
use super::message::{
    Belongs, ControllerQuestion, ControllerReply, NotDone, Note, Question, QuorumQuestion, QuorumReply, Reply,
};

/// Longer inputs are not tried.
const BYTES_MAX: usize = 1 << 16;

pub(crate) fn reencode_message(kind: u8, message: &[u8]) -> Option<Bytes> {
    match kind {
        0 => again::<Opening>(message),
        1 => again::<Call>(message),
        2 => again::<CallAnswer>(message),
        _ => None,
    }
}

fn again<T: Serialize + DeserializeOwned>(message: &[u8]) -> Option<Bytes> {
    let read: T = internal::decode(message, BYTES_MAX).ok()?;
    internal::encode(&read).ok()
}

pub(crate) fn sample_message(kind: u8, number: u64) -> Bytes {
    let encoded = match kind {
        0 => internal::encode(&Opening::new(VERSIONS, Bytes::from(number.to_be_bytes().to_vec()))),
        1 => internal::encode(&sample_call(number)),
        _ => internal::encode(&sample_answer(number)),
    };
    encoded.unwrap_or_default()
}

fn voter(number: u64) -> VoterId {
    VoterId { broker: BrokerId((number % 7) as i32), folder: FolderId(Uuid::from_u128(u128::from(number))) }
}

fn sample_call(number: u64) -> Call {
    let term = (number % 1000) as i32;
    match number % 6 {
        0 => Call::Ping(number),
        1 => {
            let at = Some(("node".to_owned(), number as u16));
            Call::Ask(number, QuorumQuestion::Introduce { me: voter(number), may_vote: true, at }.into())
        }
        2 => Call::Ask(number, ControllerQuestion::Read.into()),
        4 => Call::Ask(number, QuorumQuestion::FeatureLevels.into()),
        3 => Call::Ask(number, Question::Controller(Box::new(ControllerQuestion::DescribeQuorum))),
        _ => {
            let payload = Bytes::from(vec![number as u8; (number % 50) as usize]);
            let entry = Entry { term, kind: EntryKind::Command, payload };
            let append = Append {
                term,
                base: number as i64,
                previous_term: term,
                entries: vec![entry; (number % 3) as usize],
                commit: 0,
                round: number,
                recovery: None,
            };
            let message = Message::Append(append);
            Call::Note(Note::Raft(Envelope { from: voter(number), to: voter(number + 1), message }))
        }
    }
}

fn sample_answer(number: u64) -> CallAnswer {
    let belongs =
        Belongs { cluster_id: None, first_voters: vec![voter(number), voter(1)], leader: Some(voter(1)) };
    match number % 6 {
        0 => CallAnswer::Pong(number),
        1 => CallAnswer::Reply(number, None),
        2 => {
            let reply = QuorumReply::Introduced { me: voter(number), belongs: Some(belongs) };
            CallAnswer::Reply(number, Some(Reply::Quorum(reply)))
        }
        3 => CallAnswer::Reply(number, Some(Reply::Controller(ControllerReply::Read(number as i64)))),
        4 => {
            let reply = QuorumReply::FeatureLevels(FeatureRange { min: 1, max: number as u16 });
            CallAnswer::Reply(number, Some(Reply::Quorum(reply)))
        }
        _ => {
            let reply = ControllerReply::NotDone(NotDone::NotController(Some(BrokerId(3))));
            CallAnswer::Reply(number, Some(Reply::Controller(reply)))
        }
    }
}
