//! What the folder knows of the quorum, and joining it with that.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use weir_protocol::metadata::Image;
use weir_protocol::raft::{Damage, HardState, Limits, Raft, StartState, Timing, Voters};
use weir_protocol::types::VoterId;
use weir_runtime::disk::Disk;
use weir_runtime::time::Alarm;
use weir_runtime::{random, simulation};
use weir_storage::{LogConfig, Store};

use super::tickets::Tickets;
use super::{LeaderView, Progress, Quorum, now};
use crate::metadata::error::MetadataError;
use crate::metadata::log::{Found, MetadataLog};
use crate::metadata::snapshot::{self, Held};
use crate::metadata::{first_voters, hard_state};
use crate::peer::Peers;

/// Reads and writes under way at most, for the channels of their results.
const RESULTS_MAX: usize = 16;

/// How a quorum is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuorumSetup {
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    /// How the log is kept.
    pub(crate) log: LogConfig,
    /// This node has no peers that could repair what it has lost.
    pub(crate) alone: bool,
}

/// What a folder knows of the quorum.
pub(in crate::metadata) struct Opened {
    me: VoterId,
    setup: QuorumSetup,
    log: MetadataLog,
    found: Found,
    hard_state: HardState,
    snapshot: Option<Held>,
    image: Image,
    damage: Option<Damage>,
    /// Who formed the cluster; `None`: this folder belongs to none, or has lost that.
    first_voters: Option<Voters>,
    is_empty: bool,
}

impl Opened {
    /// Reads log, hard state, snapshot and first voters.
    ///
    /// # Errors
    /// `Damaged` if something is lost and no peer could repair it; `NewerFormat`; what the disk says.
    pub(in crate::metadata) async fn read(
        store: &Store,
        disk: &Disk,
        me: VoterId,
        setup: QuorumSetup,
    ) -> Result<Opened, MetadataError> {
        let (log, found) = MetadataLog::open(store, disk, setup.log).await?;
        let mut lost = Lost { alone: setup.alone, log: false, vote: false };
        if let Some(reason) = &found.damage {
            lost.log("the metadata quorum's log", reason)?;
        }
        let (snapshot, image) = read_snapshot(disk, &log, &mut lost).await?;
        let is_blank = found.entries.is_empty() && log.start() == 0 && snapshot.is_none() && !lost.log;
        let first = match first_voters::load(disk).await {
            Err(MetadataError::Damaged { what, reason }) if !setup.alone => {
                tracing::warn!(what, reason, "the cluster's first voters are asked for again");
                First::Lost
            }
            first => first?.map_or(First::Unwritten, First::Written),
        };
        let hard_state = match hard_state::load(disk).await {
            Ok(Some(state)) => Some(state),
            // It is written before the first voters are.
            Ok(None) if is_blank && matches!(first, First::Unwritten) => None,
            Ok(None) => {
                lost.vote("quorum-state", "the file is missing")?;
                None
            }
            Err(MetadataError::Damaged { what, reason }) => {
                lost.vote(&what, &reason)?;
                None
            }
            Err(error) => return Err(error),
        };
        let is_empty = is_blank && hard_state.unwrap_or_default() == HardState::default() && !lost.vote;
        let alone = Voters::new([me]).map_err(|error| MetadataError::Refused(error.to_string()))?;
        let first_voters = match first {
            First::Written(voters) => Some(voters),
            First::Lost => None,
            // A node that was alone has no such file.
            First::Unwritten if setup.alone || !is_empty => Some(alone),
            First::Unwritten => None,
        };
        let hard_state = hard_state.unwrap_or_default();
        let damage = lost.damage();
        Ok(Opened { me, setup, log, found, hard_state, snapshot, image, damage, first_voters, is_empty })
    }

    /// Who formed the cluster, if the folder knows.
    pub(in crate::metadata) fn first_voters(&self) -> Option<&Voters> {
        self.first_voters.as_ref()
    }

    /// Whether there is nothing of a quorum in the folder.
    pub(in crate::metadata) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// The image of the newest snapshot, once.
    pub(in crate::metadata) fn take_image(&mut self) -> Image {
        std::mem::take(&mut self.image)
    }

    /// Joins the quorum: a node alone begins a new term at once.
    ///
    /// # Errors
    /// What the quorum cannot go on after.
    pub(in crate::metadata) fn join(
        self,
        store: &Store,
        disk: &Disk,
        peers: Peers,
        first_voters: Voters,
    ) -> Result<(Quorum, Progress), MetadataError> {
        let Opened { me, setup, log, found, hard_state, snapshot, damage, .. } = self;
        let snapshot = snapshot.map(|held| held.snapshot);
        let position = log.position(&found, snapshot.as_ref().map(|snapshot| &snapshot.at));
        let applied = snapshot.as_ref().map_or(0, |snapshot| snapshot.at.end);
        if damage.is_some() {
            simulation::situation("metadata voter damaged");
        }
        let start = StartState { me, voters: first_voters, hard_state, snapshot, log: position, damage };
        let mut effects = Vec::new();
        let raft = Raft::start(start, setup.timing, setup.limits, now(), random::u64(), &mut effects);
        let (state_to, state_written) = mpsc::channel(1);
        let (reads_to, reads) = mpsc::channel(RESULTS_MAX);
        let (stored_to, stored) = mpsc::channel(1);
        let mut pending: VecDeque<_> = found.entries.into();
        pending.retain(|(index, _)| *index >= applied);
        let mut quorum = Quorum {
            me,
            raft,
            log: Some(log),
            store: store.clone(),
            disk: disk.clone(),
            peers,
            setup,
            limits: setup.limits,
            pending,
            next_state: None,
            writing_state: false,
            votes_for_itself: None,
            state_to,
            state_written,
            held: VecDeque::new(),
            reads_under_way: 0,
            reads_to,
            reads,
            awaited: None,
            arriving: None,
            installing: None,
            storing: None,
            stored_to,
            stored,
            serving: None,
            alarm: Alarm::new(),
            tickets: Tickets::default(),
            observers: Vec::new(),
            leader: LeaderView::default(),
            effects,
            follow_ups: VecDeque::new(),
        };
        let mut progress = Vec::new();
        quorum.start(&mut progress)?;
        Ok((quorum, progress))
    }
}

/// What is known of those that formed the cluster.
enum First {
    Written(Voters),
    /// The file cannot be read.
    Lost,
    /// There is none.
    Unwritten,
}

/// What recovery finds to be lost.
struct Lost {
    alone: bool,
    log: bool,
    vote: bool,
}

impl Lost {
    fn log(&mut self, what: &str, reason: &str) -> Result<(), MetadataError> {
        self.log = true;
        self.note(what, reason)
    }

    fn vote(&mut self, what: &str, reason: &str) -> Result<(), MetadataError> {
        self.vote = true;
        self.note(what, reason)
    }

    /// A node alone has nobody to get it from.
    fn note(&self, what: &str, reason: &str) -> Result<(), MetadataError> {
        if self.alone {
            return Err(MetadataError::Damaged { what: what.to_owned(), reason: reason.to_owned() });
        }
        tracing::error!(what, reason, "damaged: this node gets it from the other voters (contract 6)");
        Ok(())
    }

    fn damage(&self) -> Option<Damage> {
        match (self.log, self.vote) {
            (false, false) => None,
            (true, false) => Some(Damage::Log),
            (false, true) => Some(Damage::Vote),
            (true, true) => Some(Damage::Both),
        }
    }
}

/// The newest snapshot and its image. What cannot be read of it may have been all that is left of what it held.
async fn read_snapshot(
    disk: &Disk,
    log: &MetadataLog,
    lost: &mut Lost,
) -> Result<(Option<Held>, Image), MetadataError> {
    let read = match snapshot::load(disk).await {
        Ok(None) => Ok(None),
        Ok(Some(held)) => held.image().map(|image| Some((held, image))),
        Err(error) => Err(error),
    };
    match read {
        Ok(Some((held, image))) => Ok((Some(held), image)),
        Ok(None) if log.start() == 0 => Ok((None, Image::empty())),
        Ok(None) => {
            lost.log("quorum-snapshot", "the file is missing")?;
            Ok((None, Image::empty()))
        }
        Err(MetadataError::Damaged { what, reason }) => {
            lost.log(&what, &reason)?;
            Ok((None, Image::empty()))
        }
        Err(error) => Err(error),
    }
}
