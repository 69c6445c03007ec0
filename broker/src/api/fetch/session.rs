//! Incremental fetch sessions (KIP-227): the broker remembers what a client wants, and answers with what has changed (K7).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchRequest;
use uuid::Uuid;
use weir_runtime::time::Instant;
use weir_wire::kafka::FetchedPartition;

/// The session epoch that ends a session.
const FINAL_EPOCH: i32 = -1;
/// The session epoch that asks for a new session.
const INITIAL_EPOCH: i32 = 0;
/// The id of no session.
const NO_SESSION: i32 = 0;
/// A session that was used within this time makes no room for another one (`min.incremental.fetch.session.eviction.ms`).
const EVICTED_AFTER: Duration = Duration::from_secs(120);
/// Partitions of all sessions together.
const PARTITIONS_MAX: usize = 1 << 18;

/// A partition as fetch requests name it: by its topic's name before version 13, by its id from there on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) name: Arc<str>,
    pub(super) id: Uuid,
    pub(super) partition: i32,
}

/// What a client wants of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) key: Key,
    pub(super) offset: i64,
    pub(super) bytes_max: i32,
    pub(super) leader_epoch: i32,
    pub(super) last_fetched_epoch: i32,
}

/// What a client was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    high_watermark: i64,
    last_stable_offset: i64,
    log_start_offset: i64,
}

/// Nothing: whatever comes next is news.
const UNTOLD: Told = Told { high_watermark: -1, last_stable_offset: -1, log_start_offset: -1 };

#[derive(Debug)]
struct Remembered {
    wanted: Wanted,
    told: Told,
}

#[derive(Debug)]
struct Session {
    /// What the next request must say.
    epoch: i32,
    by_id: bool,
    used: Instant,
    /// In the order in which they are answered: whoever had records goes to the end, so that each has its turn.
    partitions: BTreeMap<u64, Remembered>,
    /// Invariant: the same partitions.
    turns: BTreeMap<Key, u64>,
    next_turn: u64,
}

/// All sessions.
pub(crate) struct FetchSessions {
    sessions_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    sessions: BTreeMap<i32, Session>,
    /// Invariant: of all sessions together.
    partitions: usize,
}

/// What a request is about.
pub(super) struct Begun {
    pub(super) wanted: Vec<Wanted>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Every partition is answered, and nothing is remembered.
    Sessionless,
    /// Every partition is answered, and remembered if there is room.
    New { by_id: bool },
    /// Partitions are answered that have news.
    Incremental { id: i32 },
}

impl FetchSessions {
    pub(crate) fn new(sessions_max: usize) -> FetchSessions {
        FetchSessions { sessions_max, table: Mutex::default() }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out what a request is about.
    pub(super) fn begin(
        &self,
        request: &FetchRequest,
        version: i16,
        now: Instant,
    ) -> Result<Begun, ResponseError> {
        let by_id = version >= 13;
        let (id, epoch) = (request.session_id, request.session_epoch);
        let mut table = self.table();
        match epoch {
            FINAL_EPOCH => {
                table.remove(id);
                Ok(Begun { wanted: wanted_by(request), kind: Kind::Sessionless })
            }
            INITIAL_EPOCH => {
                table.remove(id);
                Ok(Begun { wanted: wanted_by(request), kind: Kind::New { by_id } })
            }
            _ if id == NO_SESSION => Err(ResponseError::InvalidFetchSessionEpoch),
            _ => table.resume(id, epoch, by_id, request, now),
        }
    }

    /// Takes in the answers, one for each wanted partition in its order. Returns the session's id, and which answers the
    /// client is to see. `draw` makes random numbers for the id of a new session.
    pub(super) fn finish(
        &self,
        begun: &Begun,
        answers: &[FetchedPartition],
        now: Instant,
        draw: impl FnMut() -> u64,
    ) -> (i32, Vec<bool>) {
        let all = vec![true; answers.len()];
        match begun.kind {
            Kind::Sessionless => (NO_SESSION, all),
            Kind::New { by_id } => (self.create(begun, by_id, answers, now, draw), all),
            Kind::Incremental { id } => {
                let mut table = self.table();
                // A session that was dropped meanwhile is answered in full once more, and the next request is told.
                let Some(session) = table.sessions.get_mut(&id) else { return (id, all) };
                session.used = now;
                let pairs = begun.wanted.iter().zip(answers);
                (id, pairs.map(|(wanted, answer)| session.tell(&wanted.key, answer)).collect())
            }
        }
    }

    fn create(
        &self,
        begun: &Begun,
        by_id: bool,
        answers: &[FetchedPartition],
        now: Instant,
        mut draw: impl FnMut() -> u64,
    ) -> i32 {
        let mut table = self.table();
        if begun.wanted.is_empty() || !table.make_room(self.sessions_max, begun.wanted.len(), now) {
            return NO_SESSION;
        }
        let mut session = Session {
            epoch: 1,
            by_id,
            used: now,
            partitions: BTreeMap::new(),
            turns: BTreeMap::new(),
            next_turn: 0,
        };
        for (wanted, answer) in begun.wanted.iter().zip(answers) {
            session.want(wanted.clone());
            session.tell(&wanted.key, answer);
        }
        let id = loop {
            let id = 1 + (draw() % (i32::MAX as u64 - 1)) as i32;
            if !table.sessions.contains_key(&id) {
                break id;
            }
        };
        table.partitions += session.partitions.len();
        table.sessions.insert(id, session);
        id
    }
}

impl FetchSessions {
    /// The laws that stand on the fields; an error names what is broken.
    pub(crate) fn invariants(&self) -> Result<(), String> {
        let table = self.table();
        let law = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let partitions: usize = table.sessions.values().map(|session| session.partitions.len()).sum();
        law(partitions == table.partitions, "partitions are counted")?;
        law(partitions <= PARTITIONS_MAX, "partitions are bounded")?;
        law(table.sessions.len() <= self.sessions_max, "sessions are bounded")?;
        for (id, session) in &table.sessions {
            law(*id > NO_SESSION, "an id is positive")?;
            law(session.epoch > INITIAL_EPOCH, "an epoch that goes on is positive")?;
            law(!session.partitions.is_empty(), "a session has partitions")?;
            let turns: BTreeMap<&Key, u64> =
                session.partitions.iter().map(|(turn, remembered)| (&remembered.wanted.key, *turn)).collect();
            law(session.turns.iter().eq(turns.iter().map(|(key, turn)| (*key, turn))), "each has one turn")?;
            law(session.turns.len() == session.partitions.len(), "each has one turn")?;
        }
        Ok(())
    }
}

impl Table {
    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }

    fn resume(
        &mut self,
        id: i32,
        epoch: i32,
        by_id: bool,
        request: &FetchRequest,
        now: Instant,
    ) -> Result<Begun, ResponseError> {
        let session = self.sessions.get_mut(&id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.by_id != by_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        if session.epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.used = now;
        let before = session.partitions.len();
        for forgotten in &request.forgotten_topics_data {
            for partition in &forgotten.partitions {
                session.forget(&key(&forgotten.topic, forgotten.topic_id, *partition));
            }
        }
        for wanted in wanted_by(request) {
            session.want(wanted);
        }
        let after = session.partitions.len();
        let wanted = session.partitions.values().map(|remembered| remembered.wanted.clone()).collect();
        self.partitions = self.partitions + after - before;
        if after == 0 || self.partitions > PARTITIONS_MAX {
            self.remove(id);
            return Ok(Begun { wanted, kind: Kind::Sessionless });
        }
        Ok(Begun { wanted, kind: Kind::Incremental { id } })
    }

    /// Whether there is room for one more session, if need be in the place of those that were idle for longest.
    fn make_room(&mut self, sessions_max: usize, partitions: usize, now: Instant) -> bool {
        while self.sessions.len() >= sessions_max || self.partitions + partitions > PARTITIONS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used);
            match oldest {
                Some((id, session)) if now - session.used >= EVICTED_AFTER => {
                    let id = *id;
                    self.remove(id);
                }
                _ => return false,
            }
        }
        true
    }
}

impl Session {
    /// Adds a partition, or changes what is wanted of it.
    fn want(&mut self, wanted: Wanted) {
        let turn = self.turns.get(&wanted.key).and_then(|turn| self.partitions.get_mut(turn));
        if let Some(remembered) = turn {
            remembered.wanted = wanted;
            return;
        }
        let turn = self.turn();
        self.turns.insert(wanted.key.clone(), turn);
        self.partitions.insert(turn, Remembered { wanted, told: UNTOLD });
    }

    fn forget(&mut self, key: &Key) {
        if let Some(turn) = self.turns.remove(key) {
            self.partitions.remove(&turn);
        }
    }

    fn turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    /// Notes what the client is told of a partition. Returns whether it is news.
    fn tell(&mut self, key: &Key, answer: &FetchedPartition) -> bool {
        // The client has forgotten it meanwhile.
        let Some(turn) = self.turns.get(key).copied() else { return true };
        let Some(remembered) = self.partitions.get_mut(&turn) else { return true };
        let told = Told {
            high_watermark: answer.high_watermark,
            last_stable_offset: answer.last_stable_offset,
            log_start_offset: answer.log_start_offset,
        };
        let has_records = !answer.records.is_empty();
        let is_news = has_records
            || answer.error_code != 0
            || answer.diverging_epoch.is_some()
            // K8
            || answer.preferred_read_replica >= 0
            || remembered.told != told;
        // What follows on an error is news, whatever it is.
        remembered.told = if answer.error_code == 0 { told } else { UNTOLD };
        if has_records && let Some(remembered) = self.partitions.remove(&turn) {
            let turn = self.turn();
            self.turns.insert(key.clone(), turn);
            self.partitions.insert(turn, remembered);
        }
        is_news
    }
}

fn key(name: &str, id: Uuid, partition: i32) -> Key {
    Key { name: Arc::from(name), id, partition }
}

fn wanted_by(request: &FetchRequest) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let name: Arc<str> = Arc::from(topic.topic.as_str());
        for partition in &topic.partitions {
            wanted.push(Wanted {
                key: Key { name: Arc::clone(&name), id: topic.topic_id, partition: partition.partition },
                offset: partition.fetch_offset,
                bytes_max: partition.partition_max_bytes,
                leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            });
        }
    }
    wanted
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
