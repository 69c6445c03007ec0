//! Each invariant sees what breaks it, and only that.

use std::collections::BTreeMap;

use uuid::Uuid;
use weir_protocol::fact::BatchName;
use weir_protocol::metadata::{ClusterCommand, LastStop};
use weir_protocol::metadata::{Command, Endpoint, FeatureRange, NewPartition, Record, Registration};
use weir_protocol::types::{FolderId, Incarnation, TopicId};
use weir_wire::internal;

use super::*;

const FIRST: Process = (1, 1);
const RESTARTED: Process = (1, 2);
const OTHER: Process = (2, 1);

fn log() -> LogId {
    LogId::new(TopicId(Uuid::from_u128(7)), 0)
}

fn watermark(high_watermark: Offset, durable_end: Offset) -> Fact {
    Fact::HighWatermark { log: log(), epoch: 1, high_watermark, durable_end }
}

fn opened(end: Offset) -> Fact {
    Fact::Opened { log: log(), start: 0, end, last_epoch: None }
}

fn leads(epoch: LeaderEpoch) -> Fact {
    Fact::Leads { log: log(), epoch }
}

fn committed(index: Index, term: Term, payload: &'static str) -> Fact {
    Fact::Committed { index, term, payload: Bytes::from_static(payload.as_bytes()) }
}

fn registered(epoch: i64) -> Fact {
    Fact::Registered { broker: BrokerId(1), epoch }
}

/// The names of what these facts break.
fn broken(forgetful: bool, facts: &[(Process, Fact)]) -> Vec<String> {
    let forgetful = if forgetful { BTreeSet::from([1]) } else { BTreeSet::new() };
    let mut invariants = Invariants::new(Premises { is_lone: true, forgetful, ..Premises::default() });
    for (process, fact) in facts {
        invariants.check(*process, 0.0, fact);
    }
    invariants.findings().into_iter().map(|finding| finding.name).collect()
}

#[test]
fn an_ordinary_life_breaks_nothing() {
    let facts = [
        (FIRST, Fact::LeadsQuorum { term: 1 }),
        (FIRST, committed(0, 1, "a")),
        (FIRST, registered(4)),
        (FIRST, opened(0)),
        (FIRST, leads(1)),
        (FIRST, watermark(3, 3)),
        (FIRST, watermark(5, 9)),
        (RESTARTED, Fact::LeadsQuorum { term: 2 }),
        (RESTARTED, committed(0, 1, "a")),
        (RESTARTED, registered(9)),
        (RESTARTED, opened(5)),
        (RESTARTED, leads(2)),
        (RESTARTED, watermark(5, 5)),
    ];
    assert_eq!(broken(false, &facts), Vec::<String>::new());
}

#[test]
fn records_that_are_not_durable_must_not_be_shown() {
    assert_eq!(broken(false, &[(FIRST, watermark(4, 3))]), ["ghost-watermark"]);
    assert_eq!(broken(true, &[(FIRST, watermark(4, 3))]), ["ghost-watermark"], "damage is no excuse");
}

#[test]
fn a_leader_takes_back_nothing_that_it_has_shown() {
    assert_eq!(broken(false, &[(FIRST, watermark(4, 4)), (FIRST, watermark(3, 4))]), ["watermark-went-back"]);
}

#[test]
fn what_was_shown_is_there_after_a_restart() {
    let facts = [(FIRST, watermark(4, 4)), (RESTARTED, opened(3))];
    assert_eq!(broken(false, &facts), ["lost-watermark"]);
    assert_eq!(broken(true, &facts), Vec::<String>::new());
}

#[test]
fn an_epoch_has_one_leader() {
    assert_eq!(broken(false, &[(FIRST, leads(1)), (OTHER, leads(1))]), ["two-leaders"]);
    assert_eq!(broken(false, &[(FIRST, leads(1)), (RESTARTED, leads(1))]), ["two-leaders"]);
    assert_eq!(broken(false, &[(FIRST, leads(2)), (RESTARTED, leads(1))]), ["epoch-went-back"]);
}

#[test]
fn a_term_has_one_leader() {
    let term = |term| Fact::LeadsQuorum { term };
    assert_eq!(broken(true, &[(FIRST, term(1)), (OTHER, term(1))]), ["two-quorum-leaders"]);
}

#[test]
fn what_is_committed_never_changes() {
    assert_eq!(
        broken(false, &[(FIRST, committed(0, 1, "a")), (OTHER, committed(0, 1, "b"))]),
        ["two-entries"]
    );
    assert_eq!(
        broken(false, &[(FIRST, committed(0, 1, "a")), (OTHER, committed(0, 2, "a"))]),
        ["two-entries"]
    );
}

#[test]
fn a_new_process_gets_a_greater_broker_epoch() {
    assert_eq!(
        broken(false, &[(FIRST, registered(4)), (RESTARTED, registered(4))]),
        ["broker-epoch-went-back"]
    );
}

/// A cluster of three brokers whose only partition has its first two replicas in sync, under leader epoch 0 of broker 1.
fn three_brokers() -> Vec<(Process, Fact)> {
    let form = Command::FormCluster { cluster_id: Uuid::from_u128(9), feature_level: 2 };
    let register = |number: i32| {
        ClusterCommand::RegisterBroker(Registration {
            broker: BrokerId(number),
            folder: FolderId(Uuid::from_u128(number as u128)),
            incarnation: Incarnation(1),
            endpoints: vec![Endpoint { listener: "PLAINTEXT".into(), host: "b".into(), port: 9092 }],
            rack: None,
            features: FeatureRange { min: 1, max: 2 },
            last_stop: LastStop::Clean,
            flush_os: false,
        })
    };
    let unfence =
        |number: i32| ClusterCommand::Unfence { broker: BrokerId(number), broker_epoch: number as i64 };
    let replicas = vec![BrokerId(1), BrokerId(2), BrokerId(3)];
    let topic = Command::CreateTopic {
        name: "t".into(),
        id: log().topic,
        partitions: vec![NewPartition { replicas }],
        configs: BTreeMap::new(),
    };
    let mut records: Vec<Record> = vec![form.into()];
    records.extend([1, 2, 3].map(register).map(Record::from));
    records.extend([1, 2, 3].map(unfence).map(Record::from));
    records.push(topic.into());
    let entry = |(index, record): (usize, Record)| {
        let payload = internal::encode(&record).expect("a record fits");
        (FIRST, Fact::Committed { index: index as Index, term: 1, payload })
    };
    records.into_iter().enumerate().map(entry).collect()
}

fn batch(base: Offset, epoch: LeaderEpoch, checksum: u32) -> BatchName {
    BatchName { base, next: base + 2, epoch, checksum }
}

/// A replica has this batch, and keeps it.
fn keeps(process: Process, batch: BatchName) -> [(Process, Fact); 2] {
    let durable = Fact::Kept { log: log(), end: batch.next };
    [(process, Fact::Appended { log: log(), batches: vec![batch] }), (process, durable)]
}

fn broken_in_a_cluster(facts: impl IntoIterator<Item = (Process, Fact)>) -> Vec<String> {
    broken_under(Premises::default(), facts)
}

fn broken_under(premises: Premises, facts: impl IntoIterator<Item = (Process, Fact)>) -> Vec<String> {
    let mut invariants = Invariants::new(premises);
    for (process, fact) in three_brokers().into_iter().chain(facts) {
        invariants.check(process, 0.0, &fact);
    }
    invariants.findings().into_iter().map(|finding| finding.name).collect()
}

const SECOND: Process = (2, 1);
const THIRD: Process = (3, 1);

#[test]
fn replicas_that_agree_break_nothing() {
    let one = batch(0, 0, 7);
    let facts = [
        vec![(FIRST, leads(0))],
        keeps(FIRST, one).into(),
        keeps(SECOND, one).into(),
        keeps(THIRD, one).into(),
    ];
    let facts = facts.concat().into_iter().chain([(FIRST, watermark(2, 2))]);
    assert_eq!(broken_in_a_cluster(facts), Vec::<String>::new());
}

#[test]
fn what_is_shown_is_on_the_disk_of_every_member() {
    let one = batch(0, 0, 7);
    let alone = keeps(FIRST, one).into_iter().chain([(FIRST, watermark(2, 2))]);
    assert_eq!(broken_in_a_cluster(alone), ["too-few-copies"]);
    let two = [keeps(FIRST, one), keeps(SECOND, one)].concat().into_iter().chain([(FIRST, watermark(2, 2))]);
    assert_eq!(broken_in_a_cluster(two), ["member-without-committed"]);
}

#[test]
fn a_member_cuts_nothing_that_was_shown() {
    let one = batch(0, 0, 7);
    let all = [keeps(FIRST, one), keeps(SECOND, one), keeps(THIRD, one)].concat();
    let cut = [(SECOND, Fact::Cut { log: log(), end: 0 })];
    assert_eq!(broken_in_a_cluster(all.clone().into_iter().chain(cut.clone())), Vec::<String>::new());
    let shown = all.into_iter().chain([(FIRST, watermark(2, 2))]).chain(cut);
    assert_eq!(broken_in_a_cluster(shown.clone()), ["committed-cut"]);
    let forgetful = Premises { forgetful: BTreeSet::from([2]), ..Premises::default() };
    assert_eq!(broken_under(forgetful, shown), Vec::<String>::new(), "its disk lies");
}

#[test]
fn a_disk_that_is_lost_after_its_report_was_a_copy() {
    let (one, other) = (batch(0, 0, 7), batch(2, 0, 8));
    let forgetful = || Premises { forgetful: BTreeSet::from([2, 3]), ..Premises::default() };
    let lost = [keeps(FIRST, one), keeps(SECOND, one)].concat().into_iter().chain([((2, 2), opened(0))]);
    let counted = lost.clone().chain([(FIRST, watermark(2, 2))]);
    assert_eq!(broken_under(forgetful(), counted), Vec::<String>::new());
    let more = lost.chain(keeps(FIRST, other)).chain([(FIRST, watermark(4, 4))]);
    assert_eq!(broken_under(forgetful(), more), ["too-few-copies"]);
}

#[test]
fn one_name_is_given_to_one_record() {
    let facts = [keeps(FIRST, batch(0, 0, 7)), keeps(SECOND, batch(0, 0, 8))].concat();
    assert_eq!(broken_in_a_cluster(facts), ["two-records"]);
    let facts = [keeps(FIRST, batch(0, 0, 7)), keeps(SECOND, batch(1, 0, 7))].concat();
    assert_eq!(broken_in_a_cluster(facts), ["two-records"], "they overlap");
    let facts = [keeps(FIRST, batch(0, 0, 7)), keeps(SECOND, batch(0, 1, 8))].concat();
    assert_eq!(broken_in_a_cluster(facts), Vec::<String>::new(), "another epoch names another record");
}

#[test]
fn a_name_that_nobody_has_heard_is_free_again() {
    let unheard = (FIRST, Fact::Appended { log: log(), batches: vec![batch(0, 0, 7)] });
    let cut = (FIRST, Fact::Cut { log: log(), end: 0 });
    let again = keeps(FIRST, batch(0, 0, 8));
    assert_eq!(broken_in_a_cluster([vec![unheard, cut], again.into()].concat()), Vec::<String>::new());
}

#[test]
fn whoever_leads_was_chosen_and_has_everything() {
    assert_eq!(broken_in_a_cluster([(SECOND, leads(0))]), ["usurper"]);
    let one = batch(0, 0, 7);
    let all = [keeps(FIRST, one), keeps(SECOND, one), keeps(THIRD, one)].concat();
    let shown = all.into_iter().chain([(FIRST, watermark(2, 2)), (FIRST, Fact::Cut { log: log(), end: 0 })]);
    let broken = broken_in_a_cluster(shown.chain([(FIRST, leads(0))]));
    assert_eq!(broken, ["committed-cut", "leader-without-committed"]);
}

#[test]
fn a_cut_that_was_not_durable_may_be_undone_by_a_crash() {
    let (one, instead) = (batch(0, 0, 7), batch(0, 1, 8));
    let all = [keeps(FIRST, one), keeps(SECOND, one), keeps(THIRD, one)].concat();
    let shown = all.into_iter().chain([(FIRST, watermark(2, 2)), (FIRST, Fact::Cut { log: log(), end: 0 })]);
    let again = |last_epoch| {
        let opened = Fact::Opened { log: log(), start: 0, end: 2, last_epoch: Some(last_epoch) };
        [(RESTARTED, opened), (RESTARTED, leads(0))]
    };
    let unkept = (FIRST, Fact::Appended { log: log(), batches: vec![instead] });
    let back = shown.clone().chain([unkept.clone()]).chain(again(0));
    assert_eq!(broken_in_a_cluster(back), ["committed-cut"], "but whoever leads has everything");
    let not_back = shown.clone().chain([unkept]).chain(again(1));
    assert_eq!(broken_in_a_cluster(not_back), ["committed-cut", "leader-without-committed"]);
    let kept = shown.chain(keeps(FIRST, instead)).chain(again(0));
    let broken = broken_in_a_cluster(kept);
    assert_eq!(broken, ["committed-cut", "leader-without-committed"], "a cut that is durable stays");
}

#[test]
fn what_was_durable_is_there_after_a_restart() {
    let facts = keeps(SECOND, batch(0, 0, 7)).into_iter().chain([((2, 2), opened(0))]);
    assert_eq!(broken_in_a_cluster(facts), ["lost-durable"]);
}

#[test]
fn a_voter_votes_once_in_a_term() {
    let voter = |number| VoterId { broker: BrokerId(number), folder: FolderId(Uuid::from_u128(1)) };
    let vote = |candidate| Fact::Voted { voter: voter(1), term: 3, candidate: voter(candidate) };
    assert_eq!(broken_in_a_cluster([(FIRST, vote(2)), (RESTARTED, vote(2))]), Vec::<String>::new());
    assert_eq!(broken_in_a_cluster([(FIRST, vote(2)), (RESTARTED, vote(3))]), ["two-votes"]);
}

#[test]
fn a_read_sees_what_was_committed_before_it_began() {
    let (began, done) = (Fact::ReadBegan { read: 7 }, |commit| Fact::ReadDone { read: 7, commit });
    let told = |commit| {
        let later = (SECOND, committed(101, 1, "b"));
        broken_in_a_cluster([
            (SECOND, committed(100, 1, "a")),
            (FIRST, began.clone()),
            later,
            (FIRST, done(commit)),
        ])
    };
    assert_eq!(told(101), Vec::<String>::new(), "what came later need not be seen");
    assert_eq!(told(100), ["stale-read"]);
}

#[test]
fn a_compacted_log_may_have_gaps_and_other_checksums_below_what_was_compacted() {
    let both = |batches: [BatchName; 3]| {
        let of = |process| batches.into_iter().flat_map(move |batch| keeps(process, batch));
        of(SECOND).chain(of(THIRD)).collect::<Vec<_>>()
    };
    let [first, second, third] = [batch(0, 1, 1), batch(2, 1, 2), batch(4, 1, 3)];
    let written = both([first, second, third]);
    let shown = (FIRST, Fact::HighWatermark { log: log(), epoch: 1, high_watermark: 6, durable_end: 6 });
    let compacted = (FIRST, Fact::Compacted { log: log(), below: 4 });
    let of_first = [first, second, third].into_iter().flat_map(|batch| keeps(FIRST, batch));
    let life: Vec<_> = of_first.chain(written).chain([shown, compacted]).collect();
    // The third replica has lost its log, and gets the compacted one: the first batch is gone, the second is smaller.
    let again = |second, third| {
        let emptied = (THIRD, Fact::Cut { log: log(), end: 0 });
        let fetched = [second, third].into_iter().flat_map(|batch| keeps(THIRD, batch));
        life.iter().cloned().chain([emptied]).chain(fetched).collect::<Vec<_>>()
    };
    let broken =
        |facts| broken_under(Premises { forgetful: BTreeSet::from([3]), ..Premises::default() }, facts);
    let smaller = BatchName { checksum: 9, ..second };
    assert_eq!(broken(again(smaller, third)), Vec::<String>::new());
    let changed = BatchName { checksum: 9, ..third };
    assert_eq!(broken(again(smaller, changed)), ["two-records"], "nothing compacts it");
    let longer = BatchName { next: 5, ..smaller };
    assert_eq!(broken(again(longer, third)), ["two-records"], "its borders stay");
}

#[test]
fn what_is_not_committed_is_not_compacted() {
    let compacted = (FIRST, Fact::Compacted { log: log(), below: 5 });
    assert_eq!(broken(false, &[(FIRST, watermark(4, 4)), compacted.clone()]), ["compacted-uncommitted"]);
    assert_eq!(broken(false, &[(FIRST, watermark(5, 5)), compacted]), Vec::<String>::new());
}

#[test]
fn a_quorum_leader_that_was_replaced_notices_it() {
    let term = |term| Fact::LeadsQuorum { term };
    let works = |process| {
        (0..60).map(move |step| {
            (process, f64::from(step) * 50.0, Fact::Image { applied: step.into(), digest: 0 })
        })
    };
    let broken = |leads: [(Process, Term); 2], works_on: Process| {
        let mut invariants =
            Invariants::new(Premises { deposed_ms_max: Some(1_000.0), ..Premises::default() });
        let leads = leads.into_iter().map(|(process, number)| (process, 0.0, term(number)));
        for (process, at_ms, fact) in leads.chain(works(works_on)) {
            invariants.check(process, at_ms, &fact);
        }
        invariants.findings().into_iter().map(|finding| finding.name).collect::<Vec<_>>()
    };
    assert_eq!(broken([(FIRST, 4), (SECOND, 5)], FIRST), ["deposed-leader"]);
    assert_eq!(broken([(FIRST, 4), (SECOND, 5)], SECOND), Vec::<String>::new());
    let late = [(SECOND, 5), (FIRST, 4)];
    assert_eq!(broken(late, SECOND), Vec::<String>::new(), "an older term was won late");
    assert_eq!(broken(late, FIRST), ["deposed-leader"]);
}
