//! Which of the rounds that stand in the files count, and what is wrong with them. Pure: it looks at [`FileMap`]s only.
//!
//! # How
//! Sequences never fall, so whatever has the greatest one is the newest thing that was written. From there the walk goes
//! down, from each round to the one that it names as its predecessor, to the first round that the checkpoint does not
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
use weir_runtime::disk::BLOCK_BYTES;

use super::block::{Link, RoundHeader};
use super::scan::{FileMap, FoundRound};

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

/// The uncertain tail of an earlier incarnation, reported until a checkpoint passes it. Whoever has already noted it durably
/// (say, in a checkpoint of `found_by` or a later incarnation) may ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlierTail {
    /// The last round that counted.
    pub after: u64,
    /// The incarnation whose recovery found the tail uncertain.
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
    let newest_header = found.by_order.values().next_back().and_then(|rounds| rounds.first());
    let from = from.or(newest_header.map(|newest| newest.header().live_start)).unwrap_or(1).max(1);
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
    Stray { sequence: u64, incarnation: u64, place: (u32, u64) },
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

    fn top(&self) -> Option<Top> {
        let round = self.by_order.values().next_back().and_then(|rounds| rounds.first()).copied();
        let stray = self
            .files
            .iter()
            .flat_map(|map| map.strays.iter().map(move |stray| (map.file, stray)))
            .max_by_key(|(_, stray)| (stray.sequence, stray.incarnation));
        let stray_is_newer = |stray: (u64, u64)| {
            round.is_none_or(|round| stray > (round.sequence(), round.header().incarnation))
        };
        match stray {
            Some((file, stray)) if stray_is_newer((stray.sequence, stray.incarnation)) => Some(Top::Stray {
                sequence: stray.sequence,
                incarnation: stray.incarnation,
                place: (file, stray.offset),
            }),
            _ => round.map(Top::Round),
        }
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

    /// The newest round below a sequence that this condition holds for.
    fn nearest_below(&self, sequence: u64, holds: impl Fn(&RoundHeader) -> bool) -> Option<RoundRef> {
        self.by_order
            .range(..(sequence, 0))
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
            Some(Top::Stray { sequence, incarnation, .. }) => walk.below_stray(sequence, incarnation),
        }
        walk.replay.reverse();
        walk.damaged.reverse();
        walk.earlier.reverse();
        walk
    }

    /// Of the newest round only blocks are left that do not name its predecessor.
    fn below_stray(&mut self, sequence: u64, incarnation: u64) {
        let below = self.found.nearest_below(sequence, |_| true);
        let expected = sequence - 1;
        let reached = below.map_or(0, |below| below.sequence());
        // The first round of an incarnation may leave out sequences of which only blocks were ever seen.
        let begins = below.is_none_or(|below| below.header().incarnation != incarnation);
        let skipped = |missing: u64| begins && self.is_torn_leftover(missing, incarnation);
        let lost = (reached + 1..=expected).rev().take(LEFT_OUT_MAX).find(|missing| !skipped(*missing));
        match (lost, below) {
            (Some(last), _) => {
                self.after = Link { sequence: last, checksum: 0 };
                self.damage(reached + 1, last);
            }
            (None, Some(below)) => self.after = below.link(),
            (None, None) => {}
        }
        if let Some(below) = below {
            self.descend(below, false);
        }
    }

    /// Whether only blocks of a round of an earlier incarnation are left: a tail that this incarnation began after.
    fn is_torn_leftover(&self, sequence: u64, incarnation: u64) -> bool {
        let strays = self.found.files.iter().flat_map(|map| &map.strays);
        strays.into_iter().any(|stray| stray.sequence == sequence && stray.incarnation < incarnation)
    }

    /// Notes that these rounds, as far as the checkpoint does not cover them, do not read.
    fn damage(&mut self, first: u64, last: u64) {
        let first = first.max(self.from);
        if first <= last {
            self.damaged.push(DamagedRound { sequences: first..=last, place: None, touched: None });
        }
    }

    fn descend(&mut self, top: RoundRef, top_is_newest: bool) {
        let mut next = Some((top, top_is_newest));
        while let Some((round, newest)) = next {
            if round.sequence() < self.from {
                return;
            }
            if round.round.complete {
                self.replay.push(round);
            } else if !newest {
                self.damage(round.sequence(), round.sequence());
                self.place_damage(round.file, round.round.offset);
            }
            let header = round.header();
            if header.sequence == header.origin.start && header.origin.after_uncertain {
                self.note_earlier(header);
            }
            next = self.before(header).map(|round| (round, false));
        }
    }

    /// The nearest readable round before this one. Notes those in between as damaged.
    fn before(&mut self, header: &RoundHeader) -> Option<RoundRef> {
        let mut link = header.previous;
        if link.sequence < self.from {
            return None;
        }
        if let Some(round) = self.found.named(link) {
            return Some(round);
        }
        let origin = header.origin;
        if link.sequence >= origin.start {
            // Lost within the incarnation: its sequences have no gaps.
            let same = |other: &RoundHeader| {
                other.incarnation == header.incarnation && other.sequence >= origin.start
            };
            let below = self.found.nearest_below(link.sequence, same);
            let reached = below.map_or(origin.start - 1, |below| below.sequence());
            self.damage_after(below, reached + 1, link.sequence);
            if below.is_some() {
                return below;
            }
            if origin.after_uncertain && origin.start >= self.from {
                self.note_earlier(header);
            }
            link = origin.after;
            if link.sequence < self.from {
                return None;
            }
            if let Some(round) = self.found.named(link) {
                return Some(round);
            }
        }
        let older = |other: &RoundHeader| other.incarnation < header.incarnation;
        let below = self.found.nearest_below(link.sequence, older);
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

    fn note_earlier(&mut self, header: &RoundHeader) {
        let tail = EarlierTail { after: header.origin.after.sequence, found_by: header.incarnation };
        self.earlier.push(tail);
    }

    fn judge(self, found: &Found<'_>, top: Option<Top>, files: &[FileMap]) -> Resolution {
        let newest_complete =
            || found.by_order.values().rev().filter_map(|all| all.first()).find(|at| at.round.complete);
        let head = self.replay.last().or_else(newest_complete).copied();
        let tail = self.tail(head, top, files);
        let strays = files.iter().flat_map(|map| &map.strays);
        let top_sequence = match top {
            None => 0,
            Some(Top::Round(round)) => round.sequence(),
            Some(Top::Stray { sequence, .. }) => sequence,
        };
        let incarnation_max = found
            .by_order
            .keys()
            .map(|(_, incarnation)| *incarnation)
            .chain(strays.map(|stray| stray.incarnation))
            .max();
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
            next_sequence: top_sequence.max(self.from - 1) + 1,
            incarnation_max: incarnation_max.unwrap_or(0),
        }
    }

    fn tail(&self, head: Option<RoundRef>, top: Option<Top>, files: &[FileMap]) -> Tail {
        match top {
            Some(Top::Round(round)) if !round.round.complete => {
                let place = Some((round.file, round.round.offset));
                return Tail::Uncertain { sequence: round.sequence(), place };
            }
            Some(Top::Stray { sequence, place, .. }) => {
                return Tail::Uncertain { sequence, place: Some(place) };
            }
            _ => {}
        }
        let reached = head.map_or(0, |head| head.sequence());
        let sequence = reached.max(self.from - 1) + 1;
        for map in files {
            // Where a next round would begin: after the last one, or at the start of a file that holds none that count.
            let live = self.replay.iter().any(|round| round.file == map.file);
            let after_head = head.filter(|head| head.file == map.file).map(|head| head.round.end());
            let start = (!live).then_some(0);
            for offset in [after_head, start].into_iter().flatten() {
                if map.is_damaged_at(offset) {
                    return Tail::Uncertain { sequence, place: Some((map.file, offset)) };
                }
            }
        }
        let files_missing = head.is_some_and(|head| head.header().files as usize > files.len());
        if files_missing || reached < self.from - 1 {
            return Tail::Uncertain { sequence, place: None };
        }
        Tail::Clean
    }
}

/// More leftovers of torn tails in a row than this are taken for damage.
const LEFT_OUT_MAX: usize = 64;

/// Bytes between the places where a round can begin.
pub const STEP_BYTES: u64 = BLOCK_BYTES as u64;
