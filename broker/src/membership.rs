//! This broker as a member of its cluster (KIP-631): it registers, shows the controller that it is there, and leaves in
//! order.
//!
//! It begins to serve when its own image shows it registered and not fenced. A broker that was fenced, because it was not
//! heard, keeps its epoch and is unfenced when it is heard again. One whose epoch another process has taken must not go on.

mod session;
pub(crate) mod tails;

#[cfg(test)]
#[path = "membership/membership_tests.rs"]
mod tests;

use std::time::Duration;

use weir_protocol::controller::{Refused, Timing, Wants};
use weir_protocol::metadata::{Command, LastStop, Registration, Rejected};
use weir_protocol::types::BrokerId;
use weir_runtime::task::{self, JoinHandle};
use weir_runtime::time::{self, Instant};
use weir_runtime::watch;
use weir_storage::{RecoveryReport, Store};

use crate::controller::{AskError, ControllerClient};
use crate::metadata::ImageReader;
use crate::metadata::error::UnknownLevel;
use crate::node::{Failure, FailureFlag};
use crate::peer::message::{ControllerQuestion, ControllerReply};

pub(crate) use session::Session;

/// The name of the endpoint that the cluster's other nodes connect to.
pub(crate) const INTERNAL: &str = "INTERNAL";

/// How long to wait before a registration that was not taken is sent again.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is said for what a start waits.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// How long the broker of this number that is said to be alive has to end: it may have been killed a moment ago.
pub(crate) const DUPLICATE_PATIENCE: Duration = Duration::from_secs(5);
/// How long one heartbeat waits for its answer.
const HEARTBEAT_MAX: Duration = Duration::from_secs(1);
/// Between two heartbeats of a broker that wants to go.
const LEAVE_INTERVAL: Duration = Duration::from_millis(30);

/// Why this broker is no member of the cluster. Final: it helps nobody to try again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MembershipError {
    /// Two brokers have one number.
    #[error("broker {0} is alive with another data folder: two nodes have the same node.id")]
    Duplicate(BrokerId),
    /// It is of another version.
    #[error(transparent)]
    FeatureLevel(#[from] UnknownLevel),
    /// The cluster does not take the registration.
    #[error("the cluster refuses this broker: {0}")]
    Rejected(Rejected),
    /// Another process has this broker's number now.
    #[error("another process has registered as broker {0}: this one must not go on")]
    Superseded(BrokerId),
}

/// What a membership is made from.
pub(crate) struct MembershipSetup {
    /// What the broker says of itself.
    pub(crate) registration: Registration,
    pub(crate) client: ControllerClient,
    pub(crate) image: ImageReader,
    pub(crate) store: Store,
    pub(crate) failure: FailureFlag,
    /// `broker.heartbeat.interval.ms`.
    pub(crate) heartbeat: Duration,
    /// What this broker knows of its session.
    pub(crate) session: Session,
    /// How long an answered heartbeat counts: see [`lease`].
    pub(crate) lease: Duration,
    /// Whether this node is a cluster of its own: it may raise the feature level by itself.
    pub(crate) alone: bool,
}

/// How far the membership is.
#[derive(Debug, Clone)]
enum State {
    Joining,
    /// Registered; the controller was told this last.
    Member {
        told: Wants,
        /// The broker may stop: its leaders have moved.
        may_go: bool,
    },
    Refused(MembershipError),
}

/// The membership, from outside.
pub(crate) struct Membership {
    image: ImageReader,
    wants: watch::Sender<Wants>,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

impl Membership {
    /// Begins to register.
    pub(crate) fn start(setup: MembershipSetup) -> Membership {
        let (wants, wanted) = watch::channel(Wants::Serve);
        let (to, state) = watch::channel(State::Joining);
        let image = setup.image.clone();
        let member = Member { setup, wanted, state: to };
        Membership { image, wants, state, task: task::spawn("membership", member.run()) }
    }

    /// Waits until this broker's own image shows it registered and able to lead.
    ///
    /// # Errors
    /// The cluster refuses it for good.
    pub(crate) async fn joined(&self) -> Result<(), MembershipError> {
        let process = self.image.process();
        let serves = self.image.wait_for(|image| {
            process.epoch(image).is_some()
                && image.broker(process.broker).is_some_and(|broker| !broker.fenced)
        });
        let mut state = self.state.clone();
        let refused = async {
            match state.wait_for(|state| matches!(state, State::Refused(_))).await.as_deref() {
                Ok(State::Refused(error)) => error.clone(),
                // The task has ended with the node.
                Ok(_) | Err(watch::Closed) => std::future::pending().await,
            }
        };
        weir_runtime::select! {
            _ = serves => Ok(()),
            error = refused => Err(error),
        }
    }

    /// A clean stop: waits until others lead what this broker leads, but no longer than this. Whether they do.
    pub(crate) async fn leave(&self, wait_max: Duration) -> bool {
        self.wants.send_replace(Wants::Leave);
        let mut state = self.state.clone();
        let gone = state.wait_for(|state| matches!(state, State::Member { may_go: true, .. }));
        matches!(time::timeout(wait_max, gone).await, Ok(Ok(_)))
    }

    /// Waits until the controller knows that this broker's folder has failed, but no longer than this.
    pub(crate) async fn fenced(&self, wait_max: Duration) {
        let mut state = self.state.clone();
        let told = state.wait_for(|state| matches!(state, State::Member { told: Wants::Fenced, .. }));
        // The controller notices by itself that this process has ended.
        let _ = time::timeout(wait_max, told).await;
    }

    /// Says nothing more.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }
}

/// How long a heartbeat that was answered lets a broker take it that it is not fenced. A controller that is cut off answers
/// until it notices, for which it has two election timeouts, while another one is elected after one.
pub(crate) fn lease(timing: &Timing, election: Duration, heartbeat: Duration) -> Duration {
    timing.session.min(timing.first_session).saturating_sub(election).max(heartbeat)
}

/// What the last stop has left, for the cluster (contract 5).
pub(crate) fn last_stop(recovery: &RecoveryReport) -> LastStop {
    match (recovery.is_certain, recovery.was_clean) {
        (false, _) => LastStop::Uncertain,
        (true, true) => LastStop::Clean,
        (true, false) => LastStop::Certain,
    }
}

/// The task.
struct Member {
    setup: MembershipSetup,
    wanted: watch::Receiver<Wants>,
    state: watch::Sender<State>,
}

impl Member {
    async fn run(mut self) {
        loop {
            let ended = match self.register().await {
                Ok(()) => self.show().await,
                Err(ended) => Err(ended),
            };
            match ended {
                // Somebody has removed it from the cluster, where it may be again.
                Ok(()) => continue,
                Err(Ended::Stopping) => return,
                Err(Ended::Refused(error)) => {
                    let was_member = matches!(*self.state.borrow(), State::Member { .. });
                    self.state.send_replace(State::Refused(error.clone()));
                    if was_member {
                        self.setup.failure.report(Failure::Membership(error));
                    }
                    return;
                }
            }
        }
    }

    fn me(&self) -> BrokerId {
        self.setup.registration.broker
    }

    /// Registers this process and waits until its own image shows it.
    async fn register(&mut self) -> Result<(), Ended> {
        let mut said = time::now();
        // Since when the controllers have said without a break that this number is taken. A new one does not know yet who is
        // gone.
        let mut taken: Option<Instant> = None;
        loop {
            let question = ControllerQuestion::Register(self.setup.registration.clone());
            let waits_for = match self.setup.client.ask(question, time::now() + HEARTBEAT_MAX).await {
                Ok(ControllerReply::Registered(Ok(epoch))) => return self.registered(epoch).await,
                Ok(ControllerReply::Registered(Err(refused))) => {
                    let why = refused.to_string();
                    let is_taken = matches!(refused, Refused::DuplicateBroker(_));
                    taken = is_taken.then(|| taken.unwrap_or_else(time::now));
                    self.judge(refused, taken).await?;
                    why
                }
                Err(AskError::Stopping) => return Err(Ended::Stopping),
                Ok(_) | Err(AskError::NotDone(_) | AskError::Unknown) => {
                    taken = None;
                    "no controller answers".to_owned()
                }
            };
            if said.elapsed() >= SAY_EVERY {
                said = time::now();
                tracing::info!(waits_for, "this broker is not registered yet");
            }
            time::sleep(PAUSE).await;
        }
    }

    /// Whether a refusal is worth another try.
    async fn judge(&mut self, refused: Refused, taken: Option<Instant>) -> Result<(), Ended> {
        match refused {
            Refused::Busy | Refused::NotController | Refused::Rejected(Rejected::NotFormed) => Ok(()),
            Refused::DuplicateBroker(_) if taken.is_none_or(|since| since.elapsed() < DUPLICATE_PATIENCE) => {
                Ok(())
            }
            Refused::DuplicateBroker(id) => Err(MembershipError::Duplicate(id).into()),
            Refused::Rejected(Rejected::FeatureLevel { .. }) if self.setup.alone => {
                self.raise().await;
                Ok(())
            }
            Refused::Rejected(Rejected::UnsupportedFeature(level)) => {
                let known = self.setup.registration.features;
                Err(MembershipError::from(UnknownLevel { level, known }).into())
            }
            Refused::Rejected(rejected) => Err(MembershipError::Rejected(rejected).into()),
            // A registration is a request.
            Refused::NotForRequests => Ok(()),
        }
    }

    /// Brings a folder of an older version to this one's feature level: this broker registers in the older form, and
    /// then knows as the only one what level everybody can work with.
    async fn raise(&self) {
        let Registration { broker, folder, incarnation, endpoints, rack, features, .. } =
            self.setup.registration.clone();
        let register = Command::RegisterBroker { broker, folder, incarnation, endpoints, rack, features };
        for command in [register, Command::SetFeatureLevel { level: features.max }] {
            let question = ControllerQuestion::Propose(command.into());
            match self.setup.client.ask(question, time::now() + HEARTBEAT_MAX).await {
                Ok(ControllerReply::Proposed { outcome: Ok(_), .. }) => {}
                outcome => tracing::warn!(?outcome, "the feature level is not raised yet"),
            }
        }
    }

    /// Waits until the image has the registration.
    async fn registered(&mut self, epoch: i64) -> Result<(), Ended> {
        let has_it = |applied: Option<i64>| applied.is_some_and(|applied| applied >= epoch);
        let image = self.setup.image.wait_for(|image| has_it(image.applied())).await;
        image.map_err(|watch::Closed| Ended::Stopping)?;
        let Some(epoch) = self.setup.image.own_epoch() else {
            return Err(MembershipError::Superseded(self.me()).into());
        };
        tracing::info!(epoch, "registered in the cluster");
        // The cluster knows now what recovery has found.
        self.setup.store.settle();
        Ok(())
    }

    /// Shows that this broker is there, until it must register anew.
    async fn show(&mut self) -> Result<(), Ended> {
        let mut client = self.setup.client.clone();
        let mut lanes = client.lanes();
        loop {
            let Some(broker_epoch) = self.setup.image.own_epoch() else { return self.gone() };
            let wants = self.wants();
            let applied = self.setup.image.current().image.applied().unwrap_or(-1);
            let question = ControllerQuestion::Heartbeat { broker: self.me(), broker_epoch, applied, wants };
            let asked_at = time::now();
            let next = asked_at + if wants == Wants::Leave { LEAVE_INTERVAL } else { self.setup.heartbeat };
            let answered = weir_runtime::select! {
                answered = client.ask(question, time::now() + HEARTBEAT_MAX) => answered,
                changed = self.changed() => match changed {
                    true => continue,
                    false => return Err(Ended::Stopping),
                },
            };
            match answered {
                Ok(ControllerReply::Heartbeat(Ok(standing))) => {
                    let applied = self.setup.image.current().image.applied().unwrap_or(-1);
                    self.setup.session.extend(asked_at + self.setup.lease, standing.applied, applied);
                    self.state.send_replace(State::Member { told: wants, may_go: standing.may_go });
                }
                Ok(ControllerReply::Heartbeat(Err(refused))) => {
                    tracing::warn!(%refused, "a heartbeat is refused");
                    self.refused(refused).await?;
                }
                Err(AskError::Stopping) => return Err(Ended::Stopping),
                // Asked again; a broker that is not heard is fenced meanwhile.
                Ok(_) | Err(AskError::NotDone(_) | AskError::Unknown) => {}
            }
            weir_runtime::select! {
                () = time::sleep(next - time::now()) => {}
                // A new controller waits for a sign of everybody.
                () = client.leader_changed() => {}
                // The controller may have noticed it too, and waits for a sign.
                () = lanes.lost() => self.setup.session.shorten(Timing::default().reconnect),
                changed = self.changed() => match changed {
                    true => {}
                    false => return Err(Ended::Stopping),
                },
            }
        }
    }

    /// Waits until the image shows why a heartbeat was refused.
    async fn refused(&self, refused: Refused) -> Result<(), Ended> {
        let (me, image) = (self.me(), &self.setup.image);
        let seen = match refused {
            Refused::Rejected(Rejected::StaleBrokerEpoch { current, .. }) => {
                image.wait_for(|image| image.applied() >= Some(current)).await
            }
            Refused::Rejected(Rejected::UnknownBroker(_)) => {
                image.wait_for(|image| image.broker(me).is_none()).await
            }
            _ => return Ok(()),
        };
        seen.map(drop).map_err(|watch::Closed| Ended::Stopping)
    }

    /// The image does not show this process any more.
    fn gone(&self) -> Result<(), Ended> {
        match self.setup.image.current().image.broker(self.me()) {
            None => Ok(()),
            Some(_) => Err(MembershipError::Superseded(self.me()).into()),
        }
    }

    fn wants(&self) -> Wants {
        match self.setup.failure.get() {
            Some(Failure::Folder(_)) => Wants::Fenced,
            _ => *self.wanted.borrow(),
        }
    }

    /// Waits until the broker may want something else. False: nobody is left who could want something.
    async fn changed(&mut self) -> bool {
        let failure = self.setup.failure.clone();
        let is_new = failure.get().is_none();
        weir_runtime::select! {
            changed = self.wanted.changed() => changed.is_ok(),
            _ = failure.wait(), if is_new => true,
        }
    }
}

/// Why a member's task ends.
enum Ended {
    Stopping,
    Refused(MembershipError),
}

impl From<MembershipError> for Ended {
    fn from(error: MembershipError) -> Ended {
        Ended::Refused(error)
    }
}
