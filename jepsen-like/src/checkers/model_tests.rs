//! Random histories of a log that keeps its promise are clean; one random thing done wrong to them is caught.

use proptest::prelude::*;

use super::*;
use crate::history::{Acks, Done, Event, Failure, Log, Op, OpId, ProcessId, Record, SeekTo, Step};
use crate::workload::Idempotence;

/// What one step of a random run does.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A producer sends to a partition; the answer arrives, or does not.
    Send { producer: u8, partition: u8, fate: Fate },
    /// A consumer polls.
    Poll { consumer: u8, partition: u8, records_max: u8 },
    /// A consumer goes somewhere else.
    Seek { consumer: u8, partition: u8, to: u8 },
    /// A consumer starts afresh.
    Assign { consumer: u8 },
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Acknowledged,
    WrittenButUnknown,
    NotWrittenAndUnknown,
    Failed,
    /// Written, the answer lost, and repeated.
    Twice,
}

const PARTITIONS: u8 = 3;

fn act() -> impl Strategy<Value = Act> {
    let fate = prop_oneof![
        12 => Just(Fate::Acknowledged),
        1 => Just(Fate::WrittenButUnknown),
        1 => Just(Fate::NotWrittenAndUnknown),
        1 => Just(Fate::Failed),
        1 => Just(Fate::Twice),
    ];
    prop_oneof![
        6 => (0..3u8, 0..PARTITIONS, fate).prop_map(|(producer, partition, fate)| Act::Send { producer, partition, fate }),
        4 => (0..3u8, 0..PARTITIONS, 0..5u8)
            .prop_map(|(consumer, partition, records_max)| Act::Poll { consumer, partition, records_max }),
        1 => (0..3u8, 0..PARTITIONS, any::<u8>()).prop_map(|(consumer, partition, to)| Act::Seek { consumer, partition, to }),
        1 => (0..3u8).prop_map(|consumer| Act::Assign { consumer }),
    ]
}

/// A log that does as it promises, and what its clients record.
#[derive(Default)]
struct Model {
    logs: Vec<Vec<u64>>,
    positions: std::collections::BTreeMap<(u8, u8), usize>,
    events: Vec<Event>,
    ids: u64,
    values: u64,
}

fn log(partition: usize) -> Log {
    Log::new("t", i32::try_from(partition).unwrap())
}

fn record(offset: usize, value: u64) -> Record {
    Record::new(i64::try_from(offset).unwrap(), value)
}

impl Model {
    fn run(acts: &[Act], duplicates: bool) -> Self {
        let mut model = Self { logs: vec![Vec::new(); PARTITIONS.into()], ..Self::default() };
        for &act in acts {
            model.act(act, duplicates);
        }
        for partition in 0..usize::from(PARTITIONS) {
            let records: Vec<Record> = model.logs[partition]
                .iter()
                .enumerate()
                .map(|(offset, &value)| record(offset, value))
                .collect();
            let end = i64::try_from(records.len()).unwrap();
            let done = Done::Read { start: 0, end, records, corrupt: Vec::new() };
            model.op(99, Op::FinalRead { log: log(partition) }, Step::Ok(done));
        }
        model
    }

    fn op(&mut self, process: u32, op: Op, step: Step) {
        let (id, process) = (OpId(self.ids), ProcessId(process));
        let time_ns = self.ids * 1000;
        self.ids += 1;
        self.events.push(Event { id, process, time_ns, step: Step::Invoke(op) });
        self.events.push(Event { id, process, time_ns: time_ns + 500, step });
    }

    fn act(&mut self, act: Act, duplicates: bool) {
        match act {
            Act::Send { producer, partition, fate } => {
                let value = self.values;
                self.values += 1;
                let partition = usize::from(partition);
                let held = &mut self.logs[partition];
                let lost = || Failure::Error("timed out".to_owned());
                let step = match fate {
                    Fate::Failed => Step::Fail(Failure::Error("refused".to_owned())),
                    Fate::NotWrittenAndUnknown => Step::Unknown(lost()),
                    Fate::WrittenButUnknown => {
                        held.push(value);
                        Step::Unknown(lost())
                    }
                    Fate::Acknowledged | Fate::Twice => {
                        if duplicates && matches!(fate, Fate::Twice) {
                            held.push(value);
                        }
                        held.push(value);
                        Step::Ok(Done::Sent { offset: Some(i64::try_from(held.len() - 1).unwrap()) })
                    }
                };
                self.op(
                    u32::from(producer),
                    Op::Send { log: log(partition), value, acks: Acks::All, keyed: None },
                    step,
                );
            }
            Act::Poll { consumer, partition, records_max } => {
                let held = &self.logs[usize::from(partition)];
                let position = self.positions.entry((consumer, partition)).or_default();
                let from = *position;
                let until = held.len().min(from + usize::from(records_max)).max(from);
                *position = until;
                let records = (from..until).map(|offset| record(offset, held[offset])).collect();
                let op = Op::Poll { log: log(partition.into()), from: Some(i64::try_from(from).unwrap()) };
                self.op(10 + u32::from(consumer), op, Step::Ok(Done::Polled { records }));
            }
            Act::Seek { consumer, partition, to } => {
                let len = self.logs[usize::from(partition)].len();
                let offset = usize::from(to) % (len + 1);
                self.positions.insert((consumer, partition), offset);
                let to = SeekTo::Offset(i64::try_from(offset).unwrap());
                self.op(
                    10 + u32::from(consumer),
                    Op::Seek { log: log(partition.into()), to },
                    Step::Ok(Done::Done),
                );
            }
            Act::Assign { consumer } => {
                self.positions.retain(|(held_by, _), _| *held_by != consumer);
                let logs = (0..PARTITIONS).map(|p| log(p.into())).collect();
                self.op(10 + u32::from(consumer), Op::Assign { logs }, Step::Ok(Done::Done));
            }
        }
    }

    /// The records of the final read of the partition that holds most.
    fn longest_final_read(&mut self) -> &mut Vec<Record> {
        let reads = self.events.iter_mut().filter_map(|event| match &mut event.step {
            Step::Ok(Done::Read { records, .. }) => Some(records),
            _ => None,
        });
        reads.max_by_key(|records| records.len()).unwrap()
    }

    fn judge(&self, promise: &Promise) -> Verdict {
        judge(&History::from_events(self.events.clone()).unwrap(), promise)
    }
}

/// One thing done wrong, and what must be found. `None` where this history has no place for it.
fn corrupt(model: &mut Model, way: u8, place: usize) -> Option<&'static [AnomalyKind]> {
    use AnomalyKind as K;
    let acknowledged: Vec<u64> = model
        .events
        .windows(2)
        .filter_map(|pair| match (&pair[0].step, &pair[1].step) {
            (Step::Invoke(Op::Send { value, .. }), Step::Ok(_)) => Some(*value),
            _ => None,
        })
        .collect();
    let fresh = model.values;
    let records = model.longest_final_read();
    if records.is_empty() {
        return None;
    }
    let at = place % records.len();
    match way {
        0 => {
            let gone = records.remove(at);
            let owed = acknowledged.contains(&gone.value.unwrap());
            owed.then_some(&[K::LostWrite, K::Unseen])
        }
        1 => {
            records[at].value = None;
            Some(&[K::Phantom])
        }
        2 => {
            records[at].value = Some(fresh);
            Some(&[K::Phantom])
        }
        3 => {
            let twice = records[at];
            records.insert(at, twice);
            Some(&[K::NonmonotonicPoll])
        }
        4 if records.len() > 1 => {
            let other = (at + 1) % records.len();
            records.swap(at, other);
            Some(&[K::NonmonotonicPoll])
        }
        5 if records.len() > 1 => {
            let (first, second) = (records[at].value, records[(at + 1) % records.len()].value);
            if first == second || !acknowledged.contains(&first.unwrap()) {
                return None;
            }
            records[at].value = second;
            Some(&[K::InconsistentOffsets])
        }
        6 => {
            let offset = i64::try_from(records.len()).unwrap();
            let value = records[at].value;
            records.push(Record { offset, value });
            Some(&[K::Duplicate])
        }
        _ => None,
    }
}

/// The smallest part of what a poll gave taken out of its middle.
fn skip_inside_a_poll(model: &mut Model, place: usize) -> bool {
    let mut polls: Vec<&mut Vec<Record>> = model
        .events
        .iter_mut()
        .filter_map(|event| match &mut event.step {
            Step::Ok(Done::Polled { records }) if records.len() > 2 => Some(records),
            _ => None,
        })
        .collect();
    if polls.is_empty() {
        return false;
    }
    let at = place % polls.len();
    polls[at].remove(1);
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_log_that_keeps_its_promise_is_judged_clean(acts in prop::collection::vec(act(), 0..120), idempotent: bool) {
        let promised = if idempotent { Idempotence::All } else { Idempotence::None };
        let promise = Promise { idempotent: promised, ..Promise::default() };
        let verdict = Model::run(&acts, !idempotent).judge(&promise);
        prop_assert!(verdict.is_clean(), "{verdict}");
    }

    #[test]
    fn one_thing_done_wrong_is_caught(
        acts in prop::collection::vec(act(), 20..120),
        way in 0..7u8,
        place: usize,
    ) {
        let mut model = Model::run(&acts, false);
        let expected = corrupt(&mut model, way, place);
        let verdict = model.judge(&Promise { idempotent: Idempotence::All, ..Promise::default() });
        if let Some(expected) = expected {
            prop_assert!(verdict.kinds().iter().any(|kind| expected.contains(kind)), "way {way}: {verdict}");
        }
    }

    #[test]
    fn a_record_taken_out_of_a_poll_is_caught(acts in prop::collection::vec(act(), 20..120), place: usize) {
        let mut model = Model::run(&acts, true);
        if skip_inside_a_poll(&mut model, place) {
            let verdict = model.judge(&Promise::default());
            prop_assert!(verdict.kinds().contains(&AnomalyKind::PollSkip), "{verdict}");
        }
    }
}

/// A million operations are judged in seconds, in an optimised build. Here the bound is that of a debug build.
#[test]
fn a_long_history_is_judged_in_time_that_grows_like_its_length() {
    let acts = |count: u32| -> Vec<Act> {
        (0..count)
            .map(|n| {
                let (partition, who) = ((n % 3) as u8, (n / 3 % 3) as u8);
                if n % 5 == 4 {
                    Act::Poll { consumer: who, partition, records_max: 5 }
                } else {
                    Act::Send { producer: who, partition, fate: Fate::Acknowledged }
                }
            })
            .collect()
    };
    let operations = if cfg!(debug_assertions) { 60_000 } else { 1_000_000 };
    let model = Model::run(&acts(operations), false);
    let verdict = model.judge(&Promise { idempotent: Idempotence::All, ..Promise::default() });
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.counts.operations >= u64::from(operations));
}
