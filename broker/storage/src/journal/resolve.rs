//! Which of the rounds that stand in the files count, and what is wrong with them. Pure: it looks at [`FileMap`]s only.
//!
//! # How
//! Incarnations follow each other and sequences do not fall, so whatever has the greatest of both is the newest thing that was
//! written. From there the walk goes down, from each round to the one that it names as its predecessor, to the first round that the checkpoint does not
//! cover.
//!
//! - One round is in flight at a time. So anything of a round, even a single block, proves that all rounds before it were
//!   complete, and acknowledged: one of those that does not read is **damage**.
//! - The last round may have been torn while it was written, or damaged after it was acknowledged. If it does not read, or if
//!   the place where it would have to stand is neither blank nor an old block, the tail is **uncertain**.
//! - A new incarnation starts in another file, with a greater sequence than any it saw, and says in each of its rounds after
//!   which round it began. What an earlier incarnation left between the two is neither replayed nor reported again, even if
//!   it should turn up later; but that its tail was uncertain is said in [`Verdict::earlier`] until a checkpoint passes it.
//! - Rounds of a file's earlier uses have lower sequences than anything that counts and are reached by no walk.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use weir_defect::defect;

use super::block::{Link, Origin, RoundHeader};
use super::scan::{FileMap, FoundRound, Stray};

/// A round and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundRef {
    /// The file's number.
    pub file: u32,
    /// The round.
    pub round: FoundRound,
}

impl RoundRef {
    fn header(&self) -> &RoundHeader {
        &self.round.header
    }

    fn sequence(&self) -> u64 {
        self.round.header.sequence
    }

    /// Orders rounds by when they were written.
    fn age(&self) -> (u64, u64) {
        (self.round.header.incarnation, self.round.header.sequence)
    }

    fn link(&self) -> Link {
        Link { sequence: self.sequence(), checksum: self.round.checksum }
    }
}

/// Acknowledged rounds that do not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRound {
    /// The first and the last of them.
    pub sequences: RangeInclusive<u64>,
    /// Where the first of them should stand, as far as that is known: file and offset.
    pub place: Option<(u32, u64)>,
    /// The logs that it touched, where the round after it says so. `None`: any log may be concerned.
    pub touched: Option<Vec<super::Touched>>,
}

/// How the journal ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// Every acknowledged round is there or reported as damaged.
    Clean,
    /// There are traces of a round that does not read. It was torn while it was written and never acknowledged, or it was
    /// acknowledged and damaged later: nobody can tell.
    Uncertain {
        /// Which round, if it was one.
        sequence: u64,
        /// Where the traces are: file and offset. `None`: what is missing is a file.
        place: Option<(u32, u64)>,
    },
}

/// An uncertain tail that an earlier recovery found, reported until a checkpoint that was made after that recovery is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlierTail {
    /// The last round that counted.
    pub after: u64,
    /// The incarnation whose recovery found it, or repeated it: the uncertainty is about rounds of those before.
    pub found_by: u64,
}

/// What recovery has found out about the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Damage, in ascending order.
    pub damaged: Vec<DamagedRound>,
    /// How the journal ends.
    pub tail: Tail,
    /// Uncertain tails of earlier incarnations.
    pub earlier: Vec<EarlierTail>,
    /// The first sequence that is replayed if all is well: the one asked for, or what the journal itself knows.
    pub first_sequence: u64,
    /// The last round that counts and reads; 0 if there is none.
    pub last_sequence: u64,
}

/// The answer of [`resolve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The rounds to replay, in order.
    pub replay: Vec<RoundRef>,
    /// What is wrong.
    pub verdict: Verdict,
    /// The last round that counts and reads.
    pub head: Option<RoundRef>,
    /// What the next incarnation names as the round that it begins after: the last one that was acknowledged, even if it does
    /// not read.
    pub after: Link,
    /// The next incarnation's first sequence.
    pub next_sequence: u64,
    /// The greatest incarnation found.
    pub incarnation_max: u64,
}

/// Judges the rounds in these files. `from`: the first sequence that the checkpoint does not cover, at least 1; `None` if
/// there is no checkpoint any more, then the rounds themselves say it.
pub fn resolve(files: &[FileMap], from: Option<u64>) -> Resolution {
    let found = Found::new(files);
    let top = found.top();
    let newest = found.newest(|_| true);
    let from = from.or(newest.map(|newest| newest.header().live_start)).unwrap_or(1).max(1);
    let walk = Walk::run(&found, top, from);
    let mut resolution = walk.judge(&found, top, files);
    if defect!(corrupt_as_torn) {
        take_damage_for_the_end(&mut resolution);
    }
    resolution
}

/// The defect of Z50: the first round that does not read is the end.
fn take_damage_for_the_end(resolution: &mut Resolution) {
    let verdict = &mut resolution.verdict;
    if let Some(first) = verdict.damaged.first().map(|damaged| *damaged.sequences.start()) {
        resolution.replay.retain(|round| round.sequence() < first);
        resolution.head = resolution.replay.last().copied();
        resolution.after = resolution.head.map(|head| head.link()).unwrap_or_default();
        verdict.last_sequence = resolution.after.sequence;
        verdict.damaged.clear();
    }
    verdict.tail = Tail::Clean;
    verdict.earlier.clear();
}

/// The newest thing in the files.
#[derive(Debug, Clone, Copy)]
enum Top {
    /// A round whose header reads.
    Round(RoundRef),
    /// Only blocks of a round.
    Stray { file: u32, stray: Stray },
}

/// All rounds whose headers read, by (sequence, incarnation).
struct Found<'a> {
    files: &'a [FileMap],
    /// Complete ones first.
    by_order: BTreeMap<(u64, u64), Vec<RoundRef>>,
}

impl<'a> Found<'a> {
    fn new(files: &'a [FileMap]) -> Found<'a> {
        let mut by_order: BTreeMap<(u64, u64), Vec<RoundRef>> = BTreeMap::new();
        for map in files {
            for round in &map.rounds {
                let at = RoundRef { file: map.file, round: *round };
                by_order.entry((round.header.sequence, round.header.incarnation)).or_default().push(at);
            }
        }
        for rounds in by_order.values_mut() {
            rounds.sort_by_key(|at| !at.round.complete);
        }
        Found { files, by_order }
    }

    fn strays(&self) -> impl Iterator<Item = (u32, &'a Stray)> {
        self.files.iter().flat_map(|map| map.strays.iter().map(move |stray| (map.file, stray)))
    }

    /// The newest round that this condition holds for.
    fn newest(&self, holds: impl Fn(&RoundRef) -> bool) -> Option<RoundRef> {
        self.by_order
            .values()
            .filter_map(|rounds| rounds.first())
            .filter(|at| holds(at))
            .max_by_key(|at| at.age())
            .copied()
    }

    fn top(&self) -> Option<Top> {
        let round = self.newest(|_| true);
        let stray = self.strays().max_by_key(|(_, stray)| (stray.incarnation, stray.sequence));
        match stray {
            Some((file, stray))
                if round.is_none_or(|round| (stray.incarnation, stray.sequence) > round.age()) =>
            {
                Some(Top::Stray { file, stray: *stray })
            }
            _ => round.map(Top::Round),
        }
    }

    /// The greatest sequence and the greatest incarnation of which anything is there.
    fn greatest(&self) -> (u64, u64) {
        let rounds = self.by_order.keys().copied();
        let strays = self.strays().map(|(_, stray)| (stray.sequence, stray.incarnation));
        rounds.chain(strays).fold((0, 0), |greatest, one| (greatest.0.max(one.0), greatest.1.max(one.1)))
    }

    /// The round that a link names; a complete one if there are several copies.
    fn named(&self, link: Link) -> Option<RoundRef> {
        self.by_order
            .range((link.sequence, 0)..=(link.sequence, u64::MAX))
            .flat_map(|(_, rounds)| rounds)
            .filter(|at| at.round.checksum == link.checksum)
            .min_by_key(|at| !at.round.complete)
            .copied()
    }

    /// The newest round up to a sequence that this condition holds for.
    fn nearest(&self, sequence: u64, holds: impl Fn(&RoundHeader) -> bool) -> Option<RoundRef> {
        self.by_order
            .range(..=(sequence, u64::MAX))
            .rev()
            .filter_map(|(_, rounds)| rounds.first())
            .find(|at| holds(at.header()))
            .copied()
    }
}

/// The walk from the newest round down. What it collects is in descending order.
struct Walk<'a> {
    found: &'a Found<'a>,
    from: u64,
    replay: Vec<RoundRef>,
    damaged: Vec<DamagedRound>,
    earlier: Vec<EarlierTail>,
    /// The newest round that was acknowledged or is complete.
    after: Link,
}

impl<'a> Walk<'a> {
    fn run(found: &'a Found<'a>, top: Option<Top>, from: u64) -> Walk<'a> {
        let mut walk = Walk {
            found,
            from,
            replay: Vec::new(),
            damaged: Vec::new(),
            earlier: Vec::new(),
            after: Link::default(),
        };
        match top {
            None => {}
            Some(Top::Round(round)) => {
                if round.round.complete {
                    walk.after = round.link();
                } else {
                    walk.after = round.header().previous;
                }
                walk.descend(round, true);
            }
            Some(Top::Stray { stray, .. }) => walk.below_stray(&stray),
        }
        walk.replay.reverse();
        walk.damaged.reverse();
        walk.earlier.reverse();
        walk
    }

    /// Of the newest round only blocks are left, which do not name its predecessor but in the incarnation's first round.
    fn below_stray(&mut self, stray: &Stray) {
        let Stray { sequence, incarnation, origin, .. } = *stray;
        let begins = sequence == origin.start;
        self.after = if begins { origin.after } else { Link { sequence: sequence - 1, checksum: 0 } };
        let below = self.before(self.after, incarnation, origin);
        if let Some(below) = below.filter(|below| below.sequence() == self.after.sequence) {
            self.after = below.link();
        }
        if begins {
            self.note_earlier(incarnation, origin);
        }
        if let Some(below) = below {
            self.descend(below, false);
        }
    }

    /// Notes that these rounds, as far as the checkpoint does not cover them, do not read.
    fn damage(&mut self, first: u64, last: u64) {
        let first = first.max(self.from);
        if first <= last {
            self.damaged.push(DamagedRound { sequences: first..=last, place: None, touched: None });
        }
    }

    fn descend(&mut self, top: RoundRef, top_is_tail: bool) {
        let mut next = Some((top, top_is_tail));
        while let Some((round, is_tail)) = next {
            if round.sequence() < self.from {
                return;
            }
            if round.round.complete {
                self.replay.push(round);
            } else if !is_tail {
                self.damage(round.sequence(), round.sequence());
                self.place_damage(round.file, round.round.offset);
            }
            let RoundHeader { sequence, incarnation, origin, previous, .. } = *round.header();
            if sequence == origin.start {
                self.note_earlier(incarnation, origin);
            }
            next = self.before(previous, incarnation, origin).map(|round| (round, false));
        }
    }

    /// The nearest readable round at or before the one that is named by a round of this incarnation. Notes those in between as
    /// damaged.
    fn before(&mut self, mut link: Link, incarnation: u64, origin: Origin) -> Option<RoundRef> {
        if link.sequence < self.from {
            return None;
        }
        if let Some(round) = self.found.named(link) {
            return Some(round);
        }
        if link.sequence >= origin.start {
            // Lost within the incarnation: its sequences have no gaps.
            let same =
                |other: &RoundHeader| other.incarnation == incarnation && other.sequence >= origin.start;
            let below = self.found.nearest(link.sequence, same);
            let reached = below.map_or(origin.start - 1, |below| below.sequence());
            self.damage_after(below, reached + 1, link.sequence);
            if below.is_some() {
                return below;
            }
            self.note_earlier(incarnation, origin);
            link = origin.after;
            if link.sequence < self.from {
                return None;
            }
            if let Some(round) = self.found.named(link) {
                return Some(round);
            }
        }
        let below = self.found.nearest(link.sequence, |other| other.incarnation < incarnation);
        let reached = below.map_or(0, |below| below.sequence());
        self.damage_after(below, reached + 1, link.sequence);
        below
    }

    fn damage_after(&mut self, below: Option<RoundRef>, first: u64, last: u64) {
        let before = self.damaged.len();
        self.damage(first, last);
        if let Some(below) = below
            && self.damaged.len() > before
        {
            self.place_damage(below.file, below.round.end());
        }
    }

    fn place_damage(&mut self, file: u32, offset: u64) {
        if let Some(last) = self.damaged.last_mut() {
            last.place = Some((file, offset));
        }
    }

    /// A checkpoint that covers all before the incarnation's first round was made by it, and knows.
    fn note_earlier(&mut self, found_by: u64, origin: Origin) {
        if origin.after_uncertain && origin.start > self.from {
            self.earlier.push(EarlierTail { after: origin.after.sequence, found_by });
        }
    }

    fn judge(self, found: &Found<'_>, top: Option<Top>, files: &[FileMap]) -> Resolution {
        let head = self.replay.last().copied().or_else(|| found.newest(|at| at.round.complete));
        let tail = self.tail(head, top, files);
        let (sequence_max, incarnation_max) = found.greatest();
        let next_sequence = match sequence_max.max(self.from - 1) {
            0 if tail == Tail::Clean => 1,
            // One is left out for the round that may have been in flight without a trace: should it turn up later, it has a
            // number of its own.
            used => used.saturating_add(2),
        };
        Resolution {
            verdict: Verdict {
                damaged: self.damaged,
                tail,
                earlier: self.earlier,
                first_sequence: self.from,
                last_sequence: head.map_or(0, |head| head.sequence()),
            },
            replay: self.replay,
            head,
            after: self.after,
            next_sequence,
            incarnation_max,
        }
    }

    fn tail(&self, head: Option<RoundRef>, top: Option<Top>, files: &[FileMap]) -> Tail {
        match top {
            Some(Top::Round(round)) if !round.round.complete => {
                let place = Some((round.file, round.round.offset));
                return Tail::Uncertain { sequence: round.sequence(), place };
            }
            Some(Top::Stray { file, stray }) => {
                let place = Some((file, stray.offset));
                return Tail::Uncertain { sequence: stray.sequence, place };
            }
            _ => {}
        }
        let reached = head.map_or(0, |head| head.sequence());
        let sequence = reached.max(self.from - 1) + 1;
        for map in files {
            // Where a next round would begin: after the last one, or at the start of a file. That may also be the start of a file
            // in use whose first round is reported as damaged: better one word too many.
            let after_head = head.filter(|head| head.file == map.file).map(|head| head.round.end());
            for offset in after_head.into_iter().chain([0]) {
                if map.is_damaged_at(offset) {
                    return Tail::Uncertain { sequence, place: Some((map.file, offset)) };
                }
            }
        }
        let files_missing = head.is_some_and(|head| head.header().files as usize > files.len());
        // Only who has written rounds makes checkpoints that cover some, and the last one is never overwritten.
        let all_gone = self.from > 1 && top.is_none();
        if files_missing || all_gone {
            return Tail::Uncertain { sequence, place: None };
        }
        Tail::Clean
    }
}
