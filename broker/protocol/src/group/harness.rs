//! A coordinator fed by hand, and what it does as text.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;

use super::*;

/// Seconds, for short.
pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn name(text: &str) -> Name {
    Name::from(text)
}

/// A subscription to topic `t`.
pub(super) fn subscription() -> Bytes {
    Bytes::from_static(b"\x00\x01\x00\x00\x00\x01\x00\x01t\xff\xff\xff\xff")
}

/// A coordinator whose laws are checked after each step. Its appends wait until they are committed by hand, unless
/// `commits` is set.
pub(super) struct Bench {
    pub(super) coordinator: Coordinator,
    pub(super) now: Now,
    pub(super) commits: bool,
    pub(super) appended: VecDeque<(AppendSeq, Vec<Record>)>,
    /// Every record that was committed.
    pub(super) log: Vec<Record>,
    pub(super) replies: BTreeMap<CallId, Reply>,
    callers: BTreeMap<CallId, String>,
    calls: u64,
    fresh: u128,
    text: String,
    limits: Limits,
}

/// A member as its client knows it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) label: String,
    pub(super) id: Name,
    pub(super) instance: Option<Name>,
    pub(super) generation: i32,
}

impl Client {
    pub(super) fn new(label: &str) -> Client {
        Client { label: label.to_owned(), id: name(""), instance: None, generation: -1 }
    }

    pub(super) fn fixed(label: &str, instance: &str) -> Client {
        Client { instance: Some(name(instance)), ..Client::new(label) }
    }

    pub(super) fn member(&self) -> MemberRef {
        MemberRef {
            member_id: self.id.clone(),
            instance_id: self.instance.clone(),
            generation: self.generation,
        }
    }
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::with(Limits { initial_rebalance_delay: Duration::ZERO, ..Limits::default() })
    }

    pub(super) fn with(limits: Limits) -> Bench {
        Bench {
            coordinator: Coordinator::new(limits),
            now: Now { at: seconds(100), wall_ms: 5_000 },
            commits: true,
            appended: VecDeque::new(),
            log: Vec::new(),
            replies: BTreeMap::new(),
            callers: BTreeMap::new(),
            calls: 0,
            fresh: 0,
            text: String::new(),
            limits,
        }
    }

    pub(super) fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.coordinator.step(self.now, input, &mut effects);
        assert_eq!(self.coordinator.invariants(), Ok(()));
        for effect in effects {
            match effect {
                Effect::Append { seq, records } => {
                    records.iter().for_each(|record| self.tell("append", &show_record(record)));
                    self.appended.push_back((seq, records));
                }
                Effect::Reply { call, reply } => {
                    let caller = self.callers.remove(&call).expect("each call is answered once");
                    self.tell(&caller, &show_reply(&reply));
                    self.replies.insert(call, reply);
                }
            }
        }
        if self.commits {
            self.commit_all();
        }
    }

    pub(super) fn commit_all(&mut self) {
        while let Some((seq, records)) = self.appended.pop_front() {
            self.log.extend(records);
            self.step(Input::Committed { seq });
        }
    }

    /// The oldest append, and with it all, is not kept.
    pub(super) fn fail_all(&mut self) {
        let Some((seq, _)) = self.appended.pop_front() else { return };
        self.appended.clear();
        self.step(Input::AppendFailed { seq });
    }

    /// Lets time pass; what is due happens at its time.
    pub(super) fn pass(&mut self, duration: Duration) {
        let until = self.now.at + duration;
        while let Some(at) = self.coordinator.next_deadline().filter(|at| *at <= until) {
            self.now.at = self.now.at.max(at);
            self.step(Input::Tick);
        }
        self.now.at = until;
    }

    pub(super) fn note(&mut self, what: &str) {
        let _ = writeln!(self.text, "# {what}");
    }

    fn tell(&mut self, who: &str, what: &str) {
        let text = format!("{who}: {what}").replace("-00000000-0000-0000-0000-00000000000", "-");
        let _ = writeln!(self.text, "{text}");
    }

    pub(super) fn text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    pub(super) fn call(&mut self, label: &str, request: Request) -> CallId {
        let call = CallId(self.calls);
        self.calls += 1;
        self.callers.insert(call, label.to_owned());
        self.step(Input::Request { call, group: name("g"), request });
        call
    }

    fn join_request(&mut self, client: &Client, requires_known_member_id: bool) -> JoinRequest {
        self.fresh += 1;
        JoinRequest {
            member_id: client.id.clone(),
            instance_id: client.instance.clone(),
            client_id: name(&client.label),
            client_host: name("/10.0.0.1"),
            session_timeout: seconds(10),
            rebalance_timeout: seconds(60),
            protocol_type: name("consumer"),
            protocols: vec![(name("range"), subscription())],
            requires_known_member_id,
            skips_assignment: true,
            fresh: self.fresh,
        }
    }

    /// Joins in one step, as old clients do.
    pub(super) fn join(&mut self, client: &Client) -> CallId {
        let request = self.join_request(client, false);
        self.call(&format!("{} join", client.label), Request::Join(Box::new(request)))
    }

    /// Joins as clients of today do: with an id that it has been given (KIP-394).
    pub(super) fn join_in_two_steps(&mut self, client: &Client) -> CallId {
        let request = self.join_request(client, true);
        self.call(&format!("{} join", client.label), Request::Join(Box::new(request)))
    }

    pub(super) fn join_with(&mut self, client: &Client, change: impl Fn(&mut JoinRequest)) -> CallId {
        let mut request = self.join_request(client, false);
        change(&mut request);
        self.call(&format!("{} join", client.label), Request::Join(Box::new(request)))
    }

    pub(super) fn sync(&mut self, client: &Client, assignments: &[(&Client, &'static str)]) -> CallId {
        let assignments = assignments
            .iter()
            .map(|(client, assignment)| (client.id.clone(), Bytes::from_static(assignment.as_bytes())))
            .collect();
        let request =
            SyncRequest { member: client.member(), protocol_type: None, protocol: None, assignments };
        self.call(&format!("{} sync", client.label), Request::Sync(Box::new(request)))
    }

    pub(super) fn heartbeat(&mut self, client: &Client) {
        self.call(&format!("{} heartbeat", client.label), Request::Heartbeat(client.member()));
    }

    pub(super) fn leave(&mut self, client: &Client) {
        self.call(&format!("{} leave", client.label), Request::Leave(vec![client.member()]));
    }

    pub(super) fn commit(&mut self, client: &Client, offset: i64) {
        let part =
            CommitPart { topic: name("t"), partition: 0, offset, leader_epoch: 4, metadata: name("m") };
        let request = Request::Commit { member: client.member(), parts: vec![part] };
        self.call(&format!("{} commit", client.label), request);
    }

    /// What a join has told its member.
    pub(super) fn take_over(&mut self, client: &mut Client, call: CallId) {
        match self.replies.get(&call) {
            Some(Reply::Join(Ok(joined))) => {
                (client.id, client.generation) = (joined.member_id.clone(), joined.generation);
            }
            Some(Reply::Join(Err(refused))) => client.id = refused.member_id.clone(),
            other => panic!("{} has not joined: {other:?}", client.label),
        }
    }

    /// Two members in a stable group, and nothing in the transcript.
    pub(super) fn pair() -> (Bench, Client, Client) {
        let mut bench = Bench::new();
        let (mut a, mut b) = (Client::new("a"), Client::new("b"));
        let first = bench.join(&a);
        bench.take_over(&mut a, first);
        let second = bench.join(&b);
        let first = bench.join(&a);
        bench.take_over(&mut a, first);
        bench.take_over(&mut b, second);
        bench.sync(&b, &[]);
        bench.sync(&a, &[(&a, "0-2"), (&b, "3-5")]);
        bench.text();
        (bench, a, b)
    }

    /// A coordinator that knows what was committed, and nothing else.
    pub(super) fn restart(&mut self) {
        self.appended.clear();
        self.step(Input::Resign);
        self.coordinator = Coordinator::new(self.limits);
        for record in self.log.clone() {
            self.coordinator.load(record, self.now);
        }
        self.coordinator.loaded(self.now);
        assert_eq!(self.coordinator.invariants(), Ok(()));
    }

    pub(super) fn state(&self) -> &'static str {
        self.coordinator.describe("g").map_or("Dead", |described| described.state)
    }
}

fn show_record(record: &Record) -> String {
    match record {
        Record::Group { group, value: None } => format!("group {group} is gone"),
        Record::Group { group, value: Some(state) } => {
            let mut text = format!("group {group} generation {}", state.generation);
            for member in &state.members {
                let assignment = String::from_utf8_lossy(&member.assignment);
                let _ = write!(text, ", {} has [{assignment}]", member.member_id);
            }
            text
        }
        Record::Offset { topic, partition, value: None, .. } => format!("offset {topic}-{partition} is gone"),
        Record::Offset { topic, partition, value: Some(value), .. } => {
            format!("offset {topic}-{partition} is {}", value.offset)
        }
    }
}

fn show_reply(reply: &Reply) -> String {
    let result = |result: &Result<(), GroupError>| match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    };
    let results = |list: &Result<Vec<Result<(), GroupError>>, GroupError>| match list {
        Ok(list) => list.iter().map(result).collect::<Vec<_>>().join(" "),
        Err(error) => format!("{error:?}"),
    };
    match reply {
        Reply::Join(Ok(joined)) => {
            let mut text = format!("generation {} as {}", joined.generation, joined.member_id);
            let _ = write!(text, ", {} leads", joined.leader);
            for (id, instance, _) in &joined.members {
                let _ = write!(text, ", {id}");
                if let Some(instance) = instance {
                    let _ = write!(text, " ({instance})");
                }
            }
            if joined.skip_assignment {
                text.push_str(", nothing to assign");
            }
            text
        }
        Reply::Join(Err(refused)) => format!("{:?} {}", refused.error, refused.member_id),
        Reply::Sync(Ok(synced)) => format!("[{}]", String::from_utf8_lossy(&synced.assignment)),
        Reply::Sync(Err(error)) => format!("{error:?}"),
        Reply::Heartbeat(outcome) | Reply::Delete(outcome) => result(outcome),
        Reply::Leave(list) | Reply::Commit(list) | Reply::DeleteOffsets(list) => results(list),
    }
}
