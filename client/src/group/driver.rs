//! The task of a member: it sends what the state machine asks for, and hands it the answers and the time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use weir_runtime::time::{self, Alarm, Instant};
use weir_wire::kafka::messages::{
    HeartbeatResponse, JoinGroupResponse, LeaveGroupRequest, SyncGroupResponse,
};

use super::assignor::Counts;
use super::coordinator;
use super::membership::{Effect, Identity, MemberConfig, Membership, Notice};
use crate::cluster::{Client, Lane};
use crate::error::{Error, KafkaError};
use crate::in_flight::InFlight;

/// How much longer than the rebalance may take the answer to a join is waited for.
const JOIN_GRACE: Duration = Duration::from_secs(5);

/// How much more patience is had with a coordinator that waits for other members.
const REBALANCE_PATIENCE: u32 = 4;

/// What the member's task and the application's side share.
pub(super) struct Shared {
    state: Mutex<SharedState>,
    /// Wakes the task.
    pub(super) wake: Notify,
}

pub(super) struct SharedState {
    pub(super) identity: Identity,
    /// The application is inside of a poll.
    pub(super) polling: bool,
    /// When it last was.
    pub(super) polled_at: Instant,
    /// The last notice that it has acted upon.
    pub(super) noted: u64,
    /// The member waits for a poll to come back.
    pub(super) idle: bool,
    /// Topics to read from now on.
    pub(super) topics: Option<BTreeSet<Arc<str>>>,
    /// Commits that were refused: generation, by whom, why.
    pub(super) refused: Vec<(i32, Arc<str>, KafkaError)>,
    /// A coordinator that says that it is none.
    pub(super) not_coordinator: Option<i32>,
    pub(super) ending: Option<Ending>,
    /// The task is gone.
    ended: bool,
}

/// How a member ends.
pub(super) enum Ending {
    /// It leaves, then tells.
    Leave(Option<oneshot::Sender<()>>),
    /// It vanishes.
    Vanish,
}

impl Shared {
    pub(super) fn new(identity: Identity) -> Self {
        let state = SharedState {
            identity,
            polling: false,
            polled_at: time::now(),
            noted: 0,
            idle: false,
            topics: None,
            refused: Vec::new(),
            not_coordinator: None,
            ending: None,
            ended: false,
        };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }

    /// Asks the task to end; the answer is there at once where it has.
    pub(super) fn end(&self, ending: Ending) {
        let mut state = self.lock();
        if !state.ended {
            state.ending.get_or_insert(ending);
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SharedState> {
        // Each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a request.
enum Answer {
    Coordinator(Result<i32, Error>),
    Joined(u64, Result<(Arc<str>, JoinGroupResponse), Error>),
    Counted(u64, Result<Counts, Error>),
    Synced(u64, Result<(Arc<str>, SyncGroupResponse), Error>),
    Heartbeat(u64, Result<(Arc<str>, HeartbeatResponse), Error>),
    Left,
}

pub(super) struct Driver {
    client: Client,
    /// A join may wait on it for a whole rebalance.
    lane: Arc<Lane>,
    /// Everything else of the member.
    side_lane: Arc<Lane>,
    config: MemberConfig,
    member: Membership,
    shared: Arc<Shared>,
    notices: mpsc::UnboundedSender<Notice>,
    in_flight: InFlight<'static, Answer>,
    leaving: usize,
    alarm: Alarm,
}

impl Driver {
    pub(super) fn new(
        client: &Client,
        side_lane: Arc<Lane>,
        config: MemberConfig,
        member: Membership,
        shared: Arc<Shared>,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Self {
        Self {
            client: client.clone(),
            lane: client.lane(),
            side_lane,
            config,
            member,
            shared,
            notices,
            in_flight: InFlight::new(),
            leaving: 0,
            alarm: Alarm::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let reply = self.drive().await;
        let late = {
            let mut shared = self.shared.lock();
            shared.ended = true;
            shared.ending.take()
        };
        for ending in reply.into_iter().chain(late) {
            if let Ending::Leave(Some(told)) = ending {
                // Whoever closed may have given up.
                let _ = told.send(());
            }
        }
    }

    /// Until the member ends; gives back who waits for that.
    async fn drive(&mut self) -> Option<Ending> {
        let mut reply = None;
        loop {
            self.look();
            match self.shared.lock().ending.take() {
                Some(Ending::Vanish) => return None,
                Some(leave) => {
                    reply = Some(leave);
                    self.member.on_leave();
                }
                None => {}
            }
            self.carry_out();
            if self.member.has_ended() && self.leaving == 0 {
                return reply;
            }
            self.alarm.set(self.member.deadline());
            weir_runtime::select! {
                () = self.shared.wake.notified() => {}
                answer = self.in_flight.next() => self.on_answer(answer),
                () = self.alarm.wait() => {
                    // Whether the application has polled in the meantime decides what time it is for the member.
                    self.look();
                    self.member.on_time(time::now());
                }
            }
        }
    }

    /// Takes in what the application's side has left.
    fn look(&mut self) {
        let now = time::now();
        let (topics, refused, not_coordinator, deadline, noted) = {
            let mut shared = self.shared.lock();
            let deadline = (!shared.polling).then(|| shared.polled_at + self.config.poll_interval_max);
            let refused = std::mem::take(&mut shared.refused);
            (shared.topics.take(), refused, shared.not_coordinator.take(), deadline, shared.noted)
        };
        self.member.on_poll(deadline, noted, now);
        if let Some(topics) = topics {
            self.member.on_subscription(topics, now);
        }
        for (generation, address, error) in refused {
            self.member.on_commit_refused(generation, &address, error, now);
        }
        if let Some(broker) = not_coordinator {
            self.member.on_coordinator_refused(broker, now);
        }
    }

    fn on_answer(&mut self, answer: Answer) {
        let now = time::now();
        match answer {
            Answer::Coordinator(found) => self.member.on_coordinator(found, now),
            Answer::Joined(ticket, joined) => self.member.on_joined(ticket, joined, now),
            Answer::Counted(ticket, counts) => self.member.on_counts(ticket, counts, now),
            Answer::Synced(ticket, synced) => self.member.on_synced(ticket, synced, now),
            Answer::Heartbeat(ticket, answer) => self.member.on_heartbeat(ticket, answer, now),
            Answer::Left => self.leaving -= 1,
        }
    }

    fn carry_out(&mut self) {
        for effect in self.member.take_effects() {
            match effect {
                Effect::Tell(notice) => {
                    // Where nobody listens any more, the end is on its way.
                    let _ = self.notices.send(notice);
                }
                effect => self.send(effect),
            }
        }
        let mut shared = self.shared.lock();
        shared.identity = self.member.identity();
        shared.idle = self.member.is_idle();
    }

    fn send(&mut self, effect: Effect) {
        let (client, lane, side_lane) = (self.client.clone(), self.lane.clone(), self.side_lane.clone());
        let (limit, patience) = (self.client.config().request_timeout, self.client.config().patience);
        let coordinator = self.member.identity().coordinator;
        let group = self.config.group.clone();
        let nobody = || Error::NoBroker { tried: "the group has no coordinator".to_owned() };
        match effect {
            Effect::FindCoordinator => {
                self.in_flight
                    .push(async move { Answer::Coordinator(coordinator::find(&client, &group).await) });
            }
            Effect::Join(ticket, request) => {
                let limit = limit.max(self.config.poll_interval_max + JOIN_GRACE);
                self.in_flight.push(async move {
                    let Some(broker) = coordinator else { return Answer::Joined(ticket, Err(nobody())) };
                    let times = (limit, REBALANCE_PATIENCE * patience);
                    let joined = coordinator::ask(&lane, &client, &group, broker, &*request, times).await;
                    Answer::Joined(ticket, joined)
                });
            }
            Effect::Count(ticket, topics) => self
                .in_flight
                .push(async move { Answer::Counted(ticket, client.partition_counts(&topics).await) }),
            Effect::Sync(ticket, request) => {
                let limit = limit.max(self.config.poll_interval_max + JOIN_GRACE);
                self.in_flight.push(async move {
                    let Some(broker) = coordinator else { return Answer::Synced(ticket, Err(nobody())) };
                    let times = (limit, REBALANCE_PATIENCE * patience);
                    let synced = coordinator::ask(&lane, &client, &group, broker, &*request, times).await;
                    Answer::Synced(ticket, synced)
                });
            }
            Effect::Heartbeat(ticket, request) => {
                let limit = limit.min(self.config.session_timeout);
                self.in_flight.push(async move {
                    let Some(broker) = coordinator else { return Answer::Heartbeat(ticket, Err(nobody())) };
                    let times = (limit, patience);
                    let beat = coordinator::ask(&lane, &client, &group, broker, &*request, times).await;
                    Answer::Heartbeat(ticket, beat)
                });
            }
            Effect::Leave(request) => {
                self.leaving += 1;
                self.in_flight.push(leave(side_lane, coordinator, *request, limit));
            }
            Effect::Tell(_) => {}
        }
    }
}

/// On a connection of its own, because a join that waits for the others holds up whatever comes behind it.
async fn leave(
    lane: Arc<Lane>,
    coordinator: Option<i32>,
    request: LeaveGroupRequest,
    limit: Duration,
) -> Answer {
    let Some(broker) = coordinator else { return Answer::Left };
    if let Err(error) = lane.ask(broker, &request, limit).await {
        tracing::debug!(%error, "the coordinator was not told that a member leaves; its session will end");
    }
    Answer::Left
}
