use weir_wire::consumer_protocol::{Partitions, Subscription};
use weir_wire::kafka::messages::join_group_response::JoinGroupResponseMember;
use weir_wire::kafka::messages::{HeartbeatResponse, SyncGroupResponse};

use super::*;
use crate::error::KafkaError;

const MS: Duration = Duration::from_millis(1);

/// A member with its clock, and what it asked for.
struct Run {
    member: Membership,
    now: Instant,
    effects: Vec<Effect>,
}

fn config(assignor: Assignor) -> MemberConfig {
    MemberConfig {
        group: Arc::from("g"),
        instance: None,
        assignors: vec![assignor],
        session_timeout: Duration::from_secs(45),
        poll_interval_max: Duration::from_secs(300),
        heartbeat_interval: Duration::from_secs(3),
        topics_check_interval: Duration::from_secs(60),
        rack: None,
        backoff: Backoff { first: MS * 100, max: Duration::from_secs(1) },
    }
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn set(partitions: &[i32]) -> BTreeSet<TopicPartition> {
    partitions.iter().map(|&partition| tp(partition)).collect()
}

fn from_broker<T>(response: T) -> Result<(Arc<str>, T), Error> {
    Ok((Arc::from("broker"), response))
}

fn unreachable() -> Error {
    Error::Disconnected { address: Arc::from("broker"), reason: Arc::from("gone"), sent: true }
}

impl Run {
    fn new(config: MemberConfig) -> Self {
        let now = Instant::from_origin(Duration::from_secs(1));
        let member = Membership::new(config, BTreeSet::from([Arc::from("t")]), now);
        let mut run = Self { member, now, effects: Vec::new() };
        run.gather();
        run
    }

    fn gather(&mut self) {
        self.member.invariants();
        self.effects.extend(self.member.take_effects());
    }

    /// One line per effect since the last time.
    fn did(&mut self) -> Vec<String> {
        self.gather();
        self.effects.drain(..).map(|effect| line(&effect)).collect()
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self.member.on_time(self.now);
        self
    }

    fn found(&mut self) -> &mut Self {
        self.member.on_coordinator(Ok(7), self.now);
        self
    }

    fn joined(&mut self, error: i16, generation: i32, leader: &str, members: &[&str]) -> &mut Self {
        let name = self.member.config.assignors[0].name();
        let subscription = Subscription { topics: vec!["t".to_owned()], ..Default::default() };
        let one = |id: &&str| {
            let metadata = subscription.encode().unwrap();
            JoinGroupResponseMember::default().with_member_id(text(id)).with_metadata(metadata)
        };
        let response = JoinGroupResponse::default()
            .with_error_code(error)
            .with_generation_id(generation)
            .with_protocol_name(Some(StrBytes::from_static_str(name)))
            .with_leader(text(leader))
            .with_member_id(text("me"))
            .with_members(members.iter().map(one).collect());
        self.member.on_joined(self.member.ticket, from_broker(response), self.now);
        self
    }

    fn counted(&mut self, count: i32) -> &mut Self {
        let counts = Counts::from([(Arc::from("t"), count)]);
        self.member.on_counts(self.member.ticket, Ok(counts), self.now);
        self
    }

    fn synced(&mut self, error: i16, partitions: &[i32]) -> &mut Self {
        let partitions = Partitions::from([("t".to_owned(), partitions.to_vec())]);
        let assignment = Assignment { partitions, user_data: None }.encode().unwrap();
        let response = SyncGroupResponse::default().with_error_code(error).with_assignment(assignment);
        self.member.on_synced(self.member.ticket, from_broker(response), self.now);
        self
    }

    fn heard(&mut self, error: i16) -> &mut Self {
        let response = HeartbeatResponse::default().with_error_code(error);
        self.member.on_heartbeat(self.member.ticket, from_broker(response), self.now);
        self
    }

    /// The application polls, and has noted everything.
    fn polls(&mut self) -> &mut Self {
        let noted = self.member.told;
        self.member.on_poll(None, noted, self.now);
        self
    }

    /// A member that is stable with these partitions, in generation 1, led by somebody else.
    fn stable(assignor: Assignor, partitions: &[i32]) -> Self {
        let mut run = Run::new(config(assignor));
        run.found().joined(0, 1, "other", &[]).synced(0, partitions).polls();
        run.did();
        run
    }

    fn heartbeat(&mut self, error: i16) -> &mut Self {
        self.after(Duration::from_secs(3));
        assert_eq!(self.did(), ["heartbeat 1"]);
        self.heard(error)
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn line(effect: &Effect) -> String {
    match effect {
        Effect::FindCoordinator => "find".to_owned(),
        Effect::Join(_, request) => {
            let subscription = Subscription::decode(request.protocols[0].metadata.clone()).unwrap();
            let owned: Vec<i32> = subscription.owned.into_values().flatten().collect();
            let id = &*request.member_id;
            format!("join {id:?} claims {owned:?} of {:?}", subscription.generation)
        }
        Effect::Count(..) => "count".to_owned(),
        Effect::Sync(_, request) => {
            let given = request.assignments.iter().map(|one| {
                let assignment = Assignment::decode(one.assignment.clone()).unwrap();
                let partitions: Vec<i32> = assignment.partitions.into_values().flatten().collect();
                format!(" {}={partitions:?}", &*one.member_id)
            });
            format!("sync {}{}", request.generation_id, given.collect::<String>())
        }
        Effect::Heartbeat(_, request) => format!("heartbeat {}", request.generation_id),
        Effect::Leave(_) => "leave".to_owned(),
        Effect::Tell(Notice::Failed(error)) => format!("failed: {error}"),
        Effect::Tell(Notice::Rebalance { rebalance, .. }) => match rebalance {
            Rebalance::Assigned { partitions, .. } => format!("assigned {}", numbers(partitions)),
            Rebalance::Revoked { partitions, .. } => format!("revoked {}", numbers(partitions)),
            Rebalance::Lost { partitions } => format!("lost {}", numbers(partitions)),
        },
    }
}

fn numbers(partitions: &[TopicPartition]) -> String {
    let numbers: Vec<String> = partitions.iter().map(|one| one.partition.to_string()).collect();
    numbers.join(",")
}

#[test]
fn k14_a_join_has_two_steps_and_the_leader_divides() {
    let mut run = Run::new(config(Assignor::Range));
    assert_eq!(run.did(), ["find"]);
    assert_eq!(run.found().did(), ["join \"\" claims [] of None"]);
    assert_eq!(run.joined(79, -1, "", &[]).did(), ["join \"me\" claims [] of None"]);
    assert_eq!(run.joined(0, 1, "me", &["me", "you"]).did(), ["count"]);
    assert_eq!(run.counted(3).did(), ["sync 1 me=[0, 1] you=[2]"]);
    assert_eq!(run.synced(0, &[0, 1]).did(), ["assigned 0,1"]);
    assert_eq!(run.member.identity().generation, 1);
    assert_eq!(run.after(Duration::from_secs(3)).did(), ["heartbeat 1"]);
}

#[test]
fn an_eager_member_gives_everything_back_before_it_joins_and_stays_alive_meanwhile() {
    let mut run = Run::stable(Assignor::Range, &[0, 1]);
    assert_eq!(run.heartbeat(27).did(), ["revoked 0,1"]);
    assert_eq!(run.member.identity().generation, 1, "commits are still accepted");
    run.heartbeat(27);
    assert!(run.did().is_empty(), "it waits for the application, and does not tell it twice");
    assert_eq!(run.polls().did(), ["join \"me\" claims [] of Some(1)"]);
}

#[test]
fn a_cooperative_member_keeps_what_it_has_and_gives_back_what_is_taken() {
    let mut run = Run::stable(Assignor::CooperativeSticky, &[0, 1]);
    assert_eq!(run.heartbeat(27).did(), ["join \"me\" claims [0, 1] of Some(1)"]);
    run.joined(0, 2, "other", &[]);
    assert_eq!(run.did(), ["sync 2"]);
    assert_eq!(run.synced(0, &[0]).did(), ["revoked 1", "assigned "]);
    assert_eq!(*run.member.owned(), set(&[0]));
    assert_eq!(run.polls().did(), ["join \"me\" claims [0] of Some(2)"], "the other waits for partition 1");
    run.joined(0, 3, "other", &[]).synced(0, &[0]);
    run.did();
    assert!(run.polls().did().is_empty());
}

#[test]
fn a_member_that_was_given_up_loses_everything_and_claims_it_with_the_old_generation() {
    let mut run = Run::stable(Assignor::CooperativeSticky, &[0, 1]);
    assert_eq!(run.heartbeat(25).did(), ["lost 0,1", "join \"\" claims [0, 1] of Some(1)"]);
    run.joined(0, 5, "other", &[]).synced(0, &[1, 2]);
    // What comes back is told as new; and whoever gets partition 0 waits until nobody else claims it.
    assert_eq!(run.did(), ["sync 5", "assigned 1,2", "join \"me\" claims [1, 2] of Some(5)"]);
    assert_eq!(run.member.identity().losses, 1);
}

#[test]
fn an_old_generation_is_lost_but_not_the_members_id() {
    let mut run = Run::stable(Assignor::Range, &[0]);
    assert_eq!(run.heartbeat(22).did(), ["lost 0", "join \"me\" claims [] of Some(1)"]);
}

#[test]
fn a_fenced_instance_ends() {
    let mut run = Run::stable(Assignor::Range, &[0]);
    let did = run.heartbeat(82).did();
    assert_eq!(did[0], "lost 0");
    assert!(did[1].contains("FENCED_INSTANCE_ID"), "{did:?}");
    assert!(run.member.has_ended() && run.member.deadline().is_none());
}

#[test]
fn a_member_that_is_not_polled_leaves_and_comes_back_with_the_next_poll() {
    let mut run = Run::stable(Assignor::CooperativeSticky, &[0]);
    let deadline = run.now + Duration::from_secs(300);
    run.member.on_poll(Some(deadline), run.member.told, run.now);
    run.after(Duration::from_secs(300));
    assert_eq!(run.did(), ["leave", "lost 0"]);
    assert!(run.member.is_idle() && run.member.deadline().is_none());
    run.member.on_poll(Some(deadline), run.member.told, run.now);
    assert!(run.did().is_empty(), "the same poll as before");
    assert_eq!(run.polls().did(), ["join \"\" claims [0] of Some(1)"]);
}

#[test]
fn a_static_member_leaves_nothing() {
    let instance = Some(Arc::from("i"));
    let mut run = Run::new(MemberConfig { instance, ..config(Assignor::Range) });
    run.found().joined(0, 1, "other", &[]).synced(0, &[0]);
    run.did();
    run.member.on_leave();
    assert_eq!(run.did(), ["lost 0"]);
    assert!(run.member.has_ended());
}

#[test]
fn a_coordinator_that_moves_costs_nothing() {
    let mut run = Run::stable(Assignor::Range, &[0]);
    assert_eq!(run.heartbeat(16).did(), ["find"]);
    run.found().after(Duration::from_secs(3));
    assert_eq!(run.did(), ["heartbeat 1"]);
    run.member.on_heartbeat(run.member.ticket, Err(unreachable()), run.now);
    assert!(run.did().is_empty(), "after a wait");
    assert_eq!(run.after(MS * 100).did(), ["find"]);
    assert_eq!(*run.member.owned(), set(&[0]));
}

#[test]
fn while_the_coordinator_loads_the_member_waits() {
    let mut run = Run::new(config(Assignor::Range));
    run.found();
    run.did();
    assert!(run.joined(14, -1, "", &[]).did().is_empty());
    assert_eq!(run.after(MS * 100).did().len(), 1);
    run.joined(15, -1, "", &[]);
    assert!(run.did().is_empty());
    assert_eq!(run.after(MS * 200).did(), ["find"]);
}

#[test]
fn a_sync_that_comes_too_late_joins_the_next_generation_at_once_with_its_old_claim() {
    let mut run = Run::stable(Assignor::CooperativeSticky, &[0]);
    run.heartbeat(27).joined(0, 2, "other", &[]);
    run.did();
    assert_eq!(run.synced(27, &[]).did(), ["join \"me\" claims [0] of Some(1)"]);
    assert_eq!(*run.member.owned(), set(&[0]));
}

#[test]
fn the_leader_divides_again_when_a_topic_grows() {
    let mut run = Run::new(config(Assignor::CooperativeSticky));
    run.found().joined(0, 1, "me", &["me"]).counted(1).synced(0, &[0]).polls();
    run.did();
    run.heard(0).after(Duration::from_secs(60));
    assert!(run.did().contains(&"count".to_owned()));
    assert!(run.counted(1).did().is_empty());
    run.after(Duration::from_secs(60));
    run.did();
    assert_eq!(run.counted(2).did(), ["join \"me\" claims [0] of Some(1)"]);
}

#[test]
fn the_leader_looks_soon_again_for_a_topic_that_does_not_exist() {
    let mut run = Run::new(config(Assignor::Range));
    run.found().joined(0, 1, "me", &["me"]);
    run.member.on_counts(run.member.ticket, Ok(Counts::new()), run.now);
    run.synced(0, &[]).polls();
    run.did();
    assert_eq!(run.after(Duration::from_secs(1)).did(), ["count"]);
    assert_eq!(run.counted(2).did(), ["join \"me\" claims [] of Some(1)"]);
}

#[test]
fn other_topics_are_joined_for_and_none_at_all_leaves() {
    let mut run = Run::stable(Assignor::CooperativeSticky, &[0]);
    run.member.on_subscription(BTreeSet::from([Arc::from("t"), Arc::from("u")]), run.now);
    assert_eq!(run.did(), ["join \"me\" claims [0] of Some(1)"]);
    run.joined(0, 2, "other", &[]).synced(0, &[0]).polls();
    run.did();
    run.member.on_subscription(BTreeSet::new(), run.now);
    assert_eq!(run.did(), ["revoked 0"]);
    assert_eq!(run.polls().did(), ["leave"]);
    assert_eq!(run.member.deadline(), None);
}

#[test]
fn answers_to_what_is_over_are_void() {
    let mut run = Run::stable(Assignor::CooperativeSticky, &[0]);
    let old = run.member.ticket;
    run.heartbeat(27);
    run.did();
    let response = HeartbeatResponse::default().with_error_code(25);
    run.member.on_heartbeat(old, from_broker(response), run.now);
    run.member.on_joined(old, Err(unreachable()), run.now);
    assert!(run.did().is_empty());
    assert_eq!(*run.member.owned(), set(&[0]));
}

#[test]
fn an_assignor_that_was_not_offered_ends_the_member() {
    let mut run = Run::new(config(Assignor::Range));
    run.found();
    run.member.config.assignors = vec![Assignor::RoundRobin];
    let response = JoinGroupResponse::default().with_protocol_name(Some(StrBytes::from_static_str("range")));
    run.member.on_joined(run.member.ticket, from_broker(response), run.now);
    assert!(run.member.has_ended());
}

#[test]
fn whatever_is_answered_the_invariants_hold_and_the_deadline_is_not_in_the_past() {
    let mut state = 7u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let errors = [0, 0, 0, 0, 14, 15, 16, 22, 25, 27, 79];
    for seed in 0..400 {
        let assignor = if seed % 2 == 0 { Assignor::Range } else { Assignor::CooperativeSticky };
        let mut run = Run::new(config(assignor));
        for step in 0..60 {
            let error = errors[draw(errors.len() as u64) as usize];
            match draw(9) {
                0 => run.found(),
                1 => run.joined(error, step, if draw(2) == 0 { "me" } else { "other" }, &["me"]),
                2 => run.counted(1 + draw(3) as i32),
                3 => run.synced(error, &[draw(3) as i32, 3]),
                4 => run.heard(error),
                5 | 6 => run.polls(),
                7 => {
                    run.member.on_joined(run.member.ticket, Err(unreachable()), run.now);
                    run.member.on_poll(Some(run.now + Duration::from_secs(2)), 0, run.now);
                    &mut run
                }
                _ => run.after(Duration::from_millis(1 + draw(4000))),
            };
            run.gather();
            let told = KafkaError::from_code(error).filter(|_| draw(5) == 0);
            if let Some(told) = told.filter(|told| told.code() != 79) {
                run.member.on_commit_refused(run.member.generation, &Arc::from("b"), told, run.now);
                run.gather();
            }
            run.member.on_time(run.now);
            assert!(run.member.deadline().is_none_or(|at| at > run.now), "{:?}", run.member);
        }
    }
}
