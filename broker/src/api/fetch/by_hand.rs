//! Fetch sessions without a broker around them, for fuzzing.

use kafka_protocol::messages::fetch_request::FetchRequest;
use uuid::Uuid;
use weir_runtime::time::Instant;
use weir_wire::kafka::FetchedPartition;

use super::session::FetchSessions;

/// Fetch sessions (KIP-227) whose answers are made up.
pub struct FetchSessionsByHand {
    sessions: FetchSessions,
    next_draw: u64,
}

/// One partition's answer.
#[derive(Debug)]
pub struct AnsweredByHand {
    /// The topic's name, the topic's id, and the partition.
    pub key: (String, Uuid, i32),
    /// What it is.
    pub answer: FetchedPartition,
    /// Whether the client is told.
    pub shown: bool,
}

impl FetchSessionsByHand {
    /// At most so many sessions.
    pub fn new(sessions_max: usize) -> FetchSessionsByHand {
        FetchSessionsByHand { sessions: FetchSessions::new(sessions_max), next_draw: 0 }
    }

    /// One request: the session's id, and the partitions with what `answer` makes of each. Where `answer` gives nothing the
    /// client has gone before it was answered.
    ///
    /// # Errors
    /// The code that the request is refused with.
    pub fn fetch(
        &mut self,
        request: &FetchRequest,
        version: i16,
        now: Instant,
        mut answer: impl FnMut() -> Option<FetchedPartition>,
    ) -> Result<(i32, Vec<AnsweredByHand>), i16> {
        let begun = self.sessions.begin(request, version, now).map_err(|error| error.code())?;
        let Some(answers) = begun.wanted.iter().map(|_| answer()).collect::<Option<Vec<_>>>() else {
            return Ok((0, Vec::new()));
        };
        let next_draw = &mut self.next_draw;
        let draw = || {
            *next_draw += 1;
            // Ids come again, so that one which is taken is met.
            *next_draw / 2
        };
        let (id, shown) = self.sessions.finish(&begun, &answers, now, draw);
        let keys = begun.wanted.iter().map(|wanted| {
            let key = &wanted.key;
            (key.name.to_string(), key.id, key.partition)
        });
        let answered = keys.zip(answers).zip(shown);
        Ok((id, answered.map(|((key, answer), shown)| AnsweredByHand { key, answer, shown }).collect()))
    }

    /// The laws of the sessions; an error names what is broken.
    ///
    /// # Errors
    /// See there.
    pub fn invariants(&self) -> Result<(), String> {
        self.sessions.invariants()
    }
}
