//! Random histories of a group whose coordinator keeps the law are clean, however late requests and answers come; a
//! coordinator or a member that breaks it is caught.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::history::{Acks, Done, Event, Failure, Log, Member, Op, OpId, ProcessId, Record, SeekTo, Step};

const PARTITIONS: usize = 3;
const RECORDS: i64 = 200;
const LIVE_MEMBERS_MAX: usize = 4;

/// What one random step does: which act, who acts, and two numbers more.
type Act = (u8, u8, u8, u8);

/// How a run breaks the law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    /// The coordinator takes commits of any generation and any member.
    SkipGenerationCheck,
    /// The coordinator acknowledges a commit and forgets it.
    LoseCommit,
    /// The coordinator refuses a commit and keeps it.
    KeepRefused,
    /// A partition goes to two members.
    AssignTwice,
    /// A static member's new process gets the old one's member id.
    KeepMemberId,
    /// Offsets expire under a live group.
    ExpireWhileLive,
    /// A member starts before the group's offset.
    StartEarly,
    /// A member starts behind the group's offset.
    StartLate,
}

/// What happens without any defect.
#[derive(Clone, Copy, Debug)]
struct Habits {
    /// An empty group may be removed.
    expires: bool,
    /// A commit may arrive twice.
    retries: bool,
    defect: Option<Defect>,
}

impl Habits {
    fn promise(self) -> Promise {
        Promise { groups_expire: self.expires, commit_retries: self.retries, ..Promise::default() }
    }
}

struct Client {
    process: u32,
    instance: Option<String>,
    alive: bool,
    /// Who it takes itself for.
    member: Option<Member>,
    /// Where it stands in what it takes for its own; `None` while it asks.
    owned: BTreeMap<usize, Option<i64>>,
    /// By which fetch it last asked where to start.
    asks: BTreeMap<usize, OpId>,
    join: Option<OpId>,
    wants_in: bool,
}

/// On its way to the coordinator.
#[derive(Clone)]
struct Request {
    op: OpId,
    client: usize,
    partition: usize,
    /// A commit; otherwise a fetch.
    commit: Option<(i64, Member)>,
}

/// On its way back.
enum Answer {
    Assignment { client: usize, member: Member, assigned: Vec<usize> },
    Commit { op: OpId, client: usize, taken: bool },
    Offset { op: OpId, client: usize, partition: usize, offset: Option<i64> },
}

impl Answer {
    fn client(&self) -> usize {
        match self {
            Answer::Assignment { client, .. }
            | Answer::Commit { client, .. }
            | Answer::Offset { client, .. } => *client,
        }
    }
}

struct Model {
    habits: Habits,
    events: Vec<Event>,
    processes: BTreeMap<OpId, u32>,
    ended: std::collections::BTreeSet<OpId>,
    clients: Vec<Client>,
    requests: Vec<Request>,
    answers: Vec<Answer>,
    // The coordinator.
    generation: i32,
    /// The members, with the client that each belongs to, and what each was given.
    members: BTreeMap<String, (usize, Vec<usize>)>,
    offsets: [Option<i64>; PARTITIONS],
    ids: u32,
}

fn log(partition: usize) -> Log {
    Log::new("t", i32::try_from(partition).unwrap())
}

fn value(partition: usize, offset: i64) -> u64 {
    u64::try_from(offset).unwrap() + 1_000 * u64::try_from(partition).unwrap()
}

fn records(partition: usize, from: i64, until: i64) -> Vec<Record> {
    (from..until).map(|offset| Record::new(offset, value(partition, offset))).collect()
}

impl Model {
    fn run(acts: &[Act], habits: Habits) -> Self {
        let mut model = Self {
            habits,
            events: Vec::new(),
            processes: BTreeMap::new(),
            ended: Default::default(),
            clients: Vec::new(),
            requests: Vec::new(),
            answers: Vec::new(),
            generation: 0,
            members: BTreeMap::new(),
            offsets: [None; PARTITIONS],
            ids: 0,
        };
        for partition in 0..PARTITIONS {
            for offset in 0..RECORDS {
                let op = Op::Send {
                    log: log(partition),
                    value: value(partition, offset),
                    acks: Acks::All,
                    keyed: None,
                };
                model.whole(1_000, op, Done::Sent { offset: Some(offset) });
            }
        }
        for &act in acts {
            model.act(act);
        }
        for partition in 0..PARTITIONS {
            let records = records(partition, 0, RECORDS);
            let done = Done::Read { start: 0, end: RECORDS, records, corrupt: Vec::new() };
            model.whole(1_001, Op::FinalRead { log: log(partition) }, done);
        }
        model
    }

    fn judge(&self) -> Verdict {
        judge(&History::from_events(self.events.clone()).unwrap(), &self.habits.promise())
    }

    fn begin(&mut self, process: u32, op: Op) -> OpId {
        let id = OpId(self.processes.len() as u64);
        self.processes.insert(id, process);
        self.put(id, Step::Invoke(op));
        id
    }

    fn put(&mut self, id: OpId, step: Step) {
        let (process, time_ns) = (ProcessId(self.processes[&id]), self.events.len() as u64);
        self.events.push(Event { id, process, time_ns, step });
    }

    /// Ends an operation, unless its client gave up.
    fn end(&mut self, id: OpId, step: Step) -> bool {
        let first = self.ended.insert(id);
        if first {
            self.put(id, step);
        }
        first
    }

    fn whole(&mut self, process: u32, op: Op, done: Done) {
        let id = self.begin(process, op);
        self.end(id, Step::Ok(done));
    }

    fn act(&mut self, (act, who, x, y): Act) {
        let living: Vec<usize> = (0..self.clients.len()).filter(|&at| self.clients[at].alive).collect();
        let client = (!living.is_empty()).then(|| living[usize::from(who) % living.len()]);
        match (act % 32, client) {
            (0 | 1, _) if living.len() < LIVE_MEMBERS_MAX => self.start(x),
            (2..=3, _) if y.is_multiple_of(8) || self.clients.iter().any(|client| client.wants_in) => {
                self.rebalance(who, x)
            }
            (4..=8, Some(client)) => self.poll(client, usize::from(x), y),
            (9..=13, Some(client)) => self.commit(client, usize::from(x)),
            (14 | 15, _) => self.fetch_of_others(usize::from(x) % PARTITIONS),
            (16..=20, _) => self.arrive(usize::from(x)),
            (21..=26, _) => self.deliver(usize::from(x), y),
            (27, Some(client)) if x.is_multiple_of(4) => self.crash(client),
            (28, Some(client)) if who % 4 == 0 => self.seek(client, usize::from(x) % PARTITIONS, y),
            (29, _) if y.is_multiple_of(4) => self.expel(usize::from(x)),
            (30, _) if y.is_multiple_of(8) => self.reset(usize::from(x) % PARTITIONS, y),
            (31, _) => self.expire(),
            _ => {}
        }
    }

    fn start(&mut self, x: u8) {
        let process = u32::try_from(self.clients.len()).unwrap();
        let instance = (x.is_multiple_of(3)).then(|| format!("static-{}", x % 2));
        let op = Op::Subscribe {
            group: "g".into(),
            instance: instance.as_deref().map(Into::into),
            topics: vec!["t".into()],
        };
        self.whole(process, op, Done::Done);
        let client = self.clients.len();
        self.clients.push(Client {
            process,
            instance,
            alive: true,
            member: None,
            owned: BTreeMap::new(),
            asks: BTreeMap::new(),
            join: None,
            wants_in: true,
        });
        self.take_over(client);
    }

    /// A static member's new process gets at once what the old one had (KIP-345).
    fn take_over(&mut self, client: usize) {
        let Some(instance) = self.clients[client].instance.clone() else { return };
        let clients = &self.clients;
        let held = self.members.iter().find(|(_, (at, _))| clients[*at].instance.as_ref() == Some(&instance));
        let Some((old, assigned)) = held.map(|(id, (_, assigned))| (id.clone(), assigned.clone())) else {
            return;
        };
        self.members.remove(&old);
        let keeps = self.habits.defect == Some(Defect::KeepMemberId);
        let id = if keeps { old } else { self.new_id() };
        self.members.insert(id.clone(), (client, assigned.clone()));
        self.clients[client].wants_in = false;
        let member = Member { id: id.into(), generation: self.generation };
        self.answers.push(Answer::Assignment { client, member, assigned });
    }

    fn new_id(&mut self) -> String {
        self.ids += 1;
        format!("m{}", self.ids)
    }

    fn rebalance(&mut self, who: u8, x: u8) {
        let joining: Vec<usize> = (0..self.clients.len())
            .filter(|&at| self.clients[at].alive && self.clients[at].wants_in)
            .collect();
        for client in joining {
            let id = self.new_id();
            if let Some(instance) = self.clients[client].instance.clone() {
                let clients = &self.clients;
                self.members.retain(|_, (at, _)| clients[*at].instance.as_ref() != Some(&instance));
            }
            self.members.insert(id, (client, Vec::new()));
            self.clients[client].wants_in = false;
        }
        let ids: Vec<String> = self.members.keys().cloned().collect();
        if ids.is_empty() {
            return;
        }
        self.generation += 1;
        self.members.values_mut().for_each(|(_, assigned)| assigned.clear());
        for partition in 0..PARTITIONS {
            // Few partitions move.
            let at = usize::from(who) / 8 + partition * usize::from(x);
            let owner = &ids[at % ids.len()];
            self.members.get_mut(owner).unwrap().1.push(partition);
            if self.habits.defect == Some(Defect::AssignTwice) {
                let other = &ids[(at + 1) % ids.len()];
                self.members.get_mut(other).unwrap().1.push(partition);
            }
        }
        for (id, (client, assigned)) in self.members.clone() {
            let member = Member { id: id.into(), generation: self.generation };
            if self.clients[client].join.is_none() && x.is_multiple_of(2) {
                let process = self.clients[client].process;
                self.clients[client].join = Some(self.begin(process, Op::Join { group: "g".into() }));
            }
            self.answers.push(Answer::Assignment { client, member, assigned });
        }
    }

    /// One of the partitions that the client takes for its own, and where it stands in it.
    fn place(&self, client: usize, x: usize) -> Option<(usize, i64)> {
        let owned = &self.clients[client].owned;
        let known: Vec<_> = owned.iter().filter_map(|(partition, at)| Some((*partition, (*at)?))).collect();
        (!known.is_empty()).then(|| known[x % known.len()])
    }

    fn poll(&mut self, client: usize, x: usize, y: u8) {
        let Some((partition, from)) = self.place(client, x) else { return };
        let until = (from + i64::from(y % 8)).min(RECORDS);
        let process = self.clients[client].process;
        let op = Op::Poll { log: log(partition), from: Some(from) };
        self.whole(process, op, Done::Polled { records: records(partition, from, until) });
        self.clients[client].owned.insert(partition, Some(until));
    }

    fn commit(&mut self, client: usize, x: usize) {
        let Some((partition, offset)) = self.place(client, x) else { return };
        let Client { process, member, .. } = &self.clients[client];
        let Some(member) = member.clone() else { return };
        let process = *process;
        let op = Op::Commit { group: "g".into(), log: log(partition), offset, member: Some(member.clone()) };
        let op = self.begin(process, op);
        self.requests.push(Request { op, client, partition, commit: Some((offset, member)) });
    }

    fn fetch(&mut self, client: usize, partition: usize) {
        let op = Op::FetchOffset { group: "g".into(), log: log(partition) };
        let op = self.begin(self.clients[client].process, op);
        self.clients[client].asks.insert(partition, op);
        self.requests.push(Request { op, client, partition, commit: None });
    }

    /// A monitor asks, and is answered at once.
    fn fetch_of_others(&mut self, partition: usize) {
        let op = Op::FetchOffset { group: "g".into(), log: log(partition) };
        self.whole(2_000, op, Done::Offset { offset: self.offsets[partition] });
    }

    fn arrive(&mut self, x: usize) {
        if self.requests.is_empty() {
            return;
        }
        let at = x % self.requests.len();
        let request = self.requests.remove(at);
        let Request { op, client, partition, ref commit } = request;
        let Some((offset, member)) = commit else {
            let offset = self.offsets[partition];
            return self.answers.push(Answer::Offset { op, client, partition, offset });
        };
        let known = self.members.contains_key(&*member.id) && member.generation == self.generation;
        let taken = known || self.habits.defect == Some(Defect::SkipGenerationCheck);
        let forgets = self.habits.defect == Some(Defect::LoseCommit);
        let keeps = taken && !forgets || self.habits.defect == Some(Defect::KeepRefused);
        if keeps {
            self.offsets[partition] = Some(*offset);
        }
        self.answers.push(Answer::Commit { op, client, taken });
        if self.habits.retries && x.is_multiple_of(4) {
            self.requests.push(request);
        }
    }

    /// An answer comes, or gets lost; or the client gives up before it is even asked.
    fn deliver(&mut self, x: usize, y: u8) {
        if y.is_multiple_of(8) && !self.requests.is_empty() {
            let Request { op, client, partition, ref commit } = self.requests[x % self.requests.len()];
            let asks_again = commit.is_none() && self.clients[client].asks.get(&partition) == Some(&op);
            if self.end(op, Step::Unknown(Failure::Error("timed out".to_owned()))) && asks_again {
                self.fetch(client, partition);
            }
            return;
        }
        let clients = &self.clients;
        self.answers.retain(|answer| clients[answer.client()].alive);
        if self.answers.is_empty() {
            return;
        }
        let answer = self.answers.remove(x % self.answers.len());
        match answer {
            Answer::Assignment { client, member, assigned } => self.on_assignment(client, member, &assigned),
            Answer::Commit { op, .. } if y % 8 == 1 => {
                self.end(op, Step::Unknown(Failure::Error("connection lost".to_owned())));
            }
            Answer::Commit { op, taken: true, .. } => {
                self.end(op, Step::Ok(Done::Done));
            }
            Answer::Commit { op, client, taken: false } => {
                // A repeated commit may have been taken the first time.
                let step = if self.habits.retries {
                    Step::Unknown(Failure::Error("ILLEGAL_GENERATION".to_owned()))
                } else {
                    Step::Fail(Failure::Error("ILLEGAL_GENERATION".to_owned()))
                };
                if self.end(op, step) && y.is_multiple_of(2) {
                    self.on_fenced(client);
                }
            }
            Answer::Offset { op, client, partition, offset } => {
                let asked = self.clients[client].asks.get(&partition) == Some(&op);
                if !self.end(op, Step::Ok(Done::Offset { offset })) || !asked {
                    return;
                }
                let moved = match self.habits.defect {
                    Some(Defect::StartEarly) => -5,
                    Some(Defect::StartLate) => 5,
                    _ => 0,
                };
                if let Some(position @ None) = self.clients[client].owned.get_mut(&partition) {
                    *position = Some((offset.unwrap_or(0) + moved).clamp(0, RECORDS));
                }
            }
        }
    }

    fn on_assignment(&mut self, client: usize, member: Member, assigned: &[usize]) {
        // The answers to older questions are lost.
        self.answers.retain(|answer| {
            !matches!(answer, Answer::Assignment { client: to, member: older, .. }
                if *to == client && older.generation < member.generation)
        });
        let Client { process, member: before, owned, join, alive, .. } = &mut self.clients[client];
        let older = before.as_ref().is_some_and(|before| before.generation >= member.generation);
        if !*alive || older && self.habits.defect != Some(Defect::KeepMemberId) {
            return;
        }
        let stays =
            before.as_ref().is_some_and(|b| b.id == member.id && b.generation + 1 == member.generation);
        let held = std::mem::take(owned);
        let kept: Vec<usize> = assigned
            .iter()
            .copied()
            .filter(|partition| stays && member.generation % 2 == 0 && held.contains_key(partition))
            .collect();
        *owned = assigned.iter().map(|partition| (*partition, None)).collect();
        owned.extend(kept.iter().map(|partition| (*partition, held[partition])));
        *before = Some(member.clone());
        let (process, join) = (*process, join.take());
        let waiting: Vec<usize> = owned.iter().filter(|(_, at)| at.is_none()).map(|(p, _)| *p).collect();
        let join = join.unwrap_or_else(|| self.begin(process, Op::Join { group: "g".into() }));
        let logs = |partitions: &[usize]| partitions.iter().copied().map(log).collect();
        let done = Done::Joined { member, assigned: logs(assigned), kept: logs(&kept) };
        self.end(join, Step::Ok(done));
        for partition in waiting {
            self.fetch(client, partition);
        }
    }

    fn on_fenced(&mut self, client: usize) {
        let Client { process, member, owned, wants_in, instance, .. } = &mut self.clients[client];
        let logs = std::mem::take(owned).into_keys().map(log).collect();
        *member = None;
        // A static member that was replaced stays away.
        *wants_in = instance.is_none();
        let process = *process;
        self.whole(process, Op::Release { group: "g".into(), logs, lost: true }, Done::Done);
    }

    fn crash(&mut self, client: usize) {
        self.clients[client].alive = false;
        self.whole(self.clients[client].process, Op::Crash, Done::Done);
    }

    fn seek(&mut self, client: usize, partition: usize, y: u8) {
        let Some(position @ Some(_)) = self.clients[client].owned.get_mut(&partition) else { return };
        *position = Some(i64::from(y) % RECORDS);
        let op = Op::Seek { log: log(partition), to: SeekTo::Offset(i64::from(y) % RECORDS) };
        self.whole(self.clients[client].process, op, Done::Done);
    }

    /// A member's session ends. Its process learns of it late, or never.
    fn expel(&mut self, x: usize) {
        let Some(id) = self.members.keys().nth(x % self.members.len().max(1)).cloned() else { return };
        self.members.remove(&id);
    }

    fn reset(&mut self, partition: usize, y: u8) {
        let to = i64::from(y) % RECORDS;
        self.offsets[partition] = Some(to);
        let op = Op::ResetOffset { group: "g".into(), log: log(partition), to };
        self.whole(3_000, op, Done::Done);
    }

    fn expire(&mut self) {
        let live = !self.members.is_empty();
        if self.habits.defect == Some(Defect::ExpireWhileLive) && live {
            self.offsets = [None; PARTITIONS];
        } else if self.habits.expires && !live {
            self.offsets = [None; PARTITIONS];
            self.generation = 0;
        }
    }
}

fn acts(seed: u64, count: usize) -> Vec<Act> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..count).map(|_| (next(), next(), next(), next())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_group_that_keeps_the_law_is_judged_clean(
        acts in prop::collection::vec(any::<Act>(), 0..250),
        expires: bool,
        retries: bool,
    ) {
        let verdict = Model::run(&acts, Habits { expires, retries, defect: None }).judge();
        prop_assert!(verdict.is_clean(), "{verdict}");
    }
}

#[test]
fn each_defect_of_a_group_is_caught() {
    use AnomalyKind as K;
    let table: &[(Defect, K, &[K])] = &[
        // Where groups expire, a commit that is taken proves that its member lived: a defect that breaks this shows in all.
        (
            Defect::SkipGenerationCheck,
            K::ZombieCommit,
            &[K::OffsetRegression, K::DoubleOwnership, K::PollSkip],
        ),
        (Defect::LoseCommit, K::OffsetRegression, &[K::PollSkip]),
        (Defect::KeepRefused, K::PhantomOffset, &[K::OffsetRegression, K::PollSkip]),
        (Defect::AssignTwice, K::DoubleOwnership, &[K::OffsetRegression, K::PollSkip]),
        (Defect::KeepMemberId, K::DoubleOwnership, &[K::OffsetRegression, K::PollSkip]),
        (Defect::ExpireWhileLive, K::OffsetRegression, &[]),
        (Defect::StartEarly, K::OffsetRegression, &[]),
        (Defect::StartLate, K::PollSkip, &[]),
    ];
    for &(defect, expected, besides) in table {
        for expires in [false, true] {
            let mut found = 0;
            for seed in 0..100 {
                let habits = Habits { expires, retries: false, defect: Some(defect) };
                let kinds = Model::run(&acts(seed, 400), habits).judge().kinds();
                let known = |kind: &K| *kind == expected || besides.contains(kind);
                assert!(kinds.iter().all(known), "{defect:?}, seed {seed}: {kinds:?}");
                found += u32::from(kinds.contains(&expected));
            }
            assert!(found > 0, "{defect:?} is never found, expires: {expires}");
        }
    }
}

/// A history of groups is judged in time that grows like its length.
#[test]
fn a_long_history_of_groups_is_judged_in_time() {
    let count = if cfg!(debug_assertions) { 60_000 } else { 600_000 };
    let habits = Habits { expires: true, retries: false, defect: None };
    let verdict = Model::run(&acts(7, count), habits).judge();
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.counts.operations > count as u64 / 8, "{verdict}");
}
