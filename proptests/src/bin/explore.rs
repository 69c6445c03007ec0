//! Explores every run of a core within bounds: `explore --suite small`, `explore --core partition --suite large`, or
//! `explore --terms 3 --crashes 1 --minutes 30`.
//! Prints the number of states; exits with 1 when a law is broken, and then prints a run that breaks it. A suite also
//! hunts the defects that an exploration must find, in a build that has them.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use weir_defect::Defect;
use weir_proptests::explore::raft::Bounds;
use weir_proptests::explore::{
    Bounded, Explored, Hunt, Order, Part, World, explore, has_switches, partition, raft,
};

#[derive(Clone, Copy, ValueEnum)]
enum Core {
    Raft,
    Partition,
}

#[derive(Clone, Copy, ValueEnum)]
enum Suite {
    Small,
    Large,
}

#[derive(Parser)]
#[command(about = "Explore every run of a core within bounds")]
struct Arguments {
    /// Which core's suite, raft when left out; bounds of one's own are the quorum's
    #[arg(long, value_enum, requires = "suite")]
    core: Option<Core>,
    /// Only the parts of the suite, and the defects, whose names contain this
    #[arg(long, requires = "suite")]
    only: Option<String>,
    /// Explore what is listed under this name, and hunt; the other bounds are ignored
    #[arg(long)]
    suite: Option<Suite>,
    /// Nodes
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How many of the nodes vote in the beginning; all when left out
    #[arg(long)]
    voters: Option<usize>,
    /// Terms
    #[arg(long, default_value_t = 2)]
    terms: i32,
    /// Commands that are proposed
    #[arg(long, default_value_t = 2)]
    commands: u8,
    /// Power failures
    #[arg(long, default_value_t = 1)]
    crashes: u8,
    /// Losses of durable entries or of a vote
    #[arg(long, default_value_t = 0)]
    damages: u8,
    /// Nobody notices them
    #[arg(long)]
    damage_untold: bool,
    /// Changes of voters
    #[arg(long, default_value_t = 0)]
    changes: u8,
    /// Snapshots
    #[arg(long, default_value_t = 0)]
    snapshots: u8,
    /// Linearizable reads
    #[arg(long, default_value_t = 0)]
    reads: u8,
    /// Times that a leader sends again
    #[arg(long, default_value_t = 0)]
    repeats: u8,
    /// Times that a leader hands its leadership over
    #[arg(long, default_value_t = 0)]
    hand_overs: u8,
    /// Messages on the way from one node to another
    #[arg(long, default_value_t = 1)]
    per_link: usize,
    /// Entries are durable at once
    #[arg(long)]
    synced_logs: bool,
    /// Votes become durable late
    #[arg(long)]
    late_votes: bool,
    /// Pre-votes travel as messages
    #[arg(long)]
    pre_votes: bool,
    /// Who campaigns for each term: 0,2,0,2
    #[arg(long, value_delimiter = ',')]
    campaigners: Vec<usize>,
    /// No two candidates in one term
    #[arg(long)]
    no_duels: bool,
    /// Switch a defect of the zoo on (needs a simulation build)
    #[arg(long)]
    defect: Option<String>,
    /// Breadth first: more memory, and a shortest run
    #[arg(long)]
    shortest: bool,
    /// Threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Give up after so many minutes
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

impl Arguments {
    fn bounds(&self) -> Bounds {
        Bounds {
            nodes: self.nodes,
            voters: self.voters.unwrap_or(self.nodes),
            terms: self.terms,
            commands: self.commands,
            crashes: self.crashes,
            damages: self.damages,
            damage_untold: self.damage_untold,
            changes: self.changes,
            snapshots: self.snapshots,
            reads: self.reads,
            repeats: self.repeats,
            hand_overs: self.hand_overs,
            per_link: self.per_link,
            late_logs: !self.synced_logs,
            late_votes: self.late_votes,
            pre_votes: self.pre_votes,
            campaigners: self.campaigners.clone(),
            duels: !self.no_duels,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let time_max = Duration::from_secs(60 * arguments.minutes);
    if let Some(suite) = arguments.suite {
        return run_suite(suite, &arguments, time_max);
    }
    let defect = arguments.defect.as_deref().map(Defect::by_name);
    let Ok(defects) = defect.into_iter().map(|defect| defect.ok_or(())).collect::<Result<Vec<_>, ()>>()
    else {
        eprintln!("there is no such defect");
        return ExitCode::from(2);
    };
    if !has_switches(&defects) {
        eprintln!("this build has no defects to switch on: build it with --cfg madsim");
        return ExitCode::from(2);
    }
    let order = if arguments.shortest { Order::BreadthFirst } else { Order::DepthFirst };
    let model = Bounded::<raft::World> { bounds: arguments.bounds(), defects };
    report(&explore(model, order, arguments.threads, time_max))
}

fn run_suite(suite: Suite, arguments: &Arguments, time_max: Duration) -> ExitCode {
    let is_small = matches!(suite, Suite::Small);
    let good = match arguments.core.unwrap_or(Core::Raft) {
        Core::Raft => {
            let parts = if is_small { raft::suite::small() } else { raft::suite::large() };
            run_parts::<raft::World>(parts, raft::suite::hunts(), arguments, time_max)
        }
        Core::Partition => {
            let parts = if is_small { partition::suite::small() } else { partition::suite::large() };
            run_parts::<partition::World>(parts, partition::suite::hunts(), arguments, time_max)
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn run_parts<W: World>(
    parts: Vec<Part<W::Bounds>>,
    hunts: Vec<Hunt<W::Bounds>>,
    arguments: &Arguments,
    time_max: Duration,
) -> bool {
    let wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let threads = arguments.threads;
    let mut good = true;
    for Part { name, bounds } in parts.into_iter().filter(|part| wanted(part.name)) {
        println!("{name}: {bounds:?}");
        let model = Bounded::<W> { bounds, defects: vec![] };
        good &= is_lawful(&explore(model, Order::DepthFirst, threads, time_max));
    }
    for Hunt { defect, bounds } in hunts.into_iter().filter(|hunt| wanted(hunt.defect.name())) {
        let model = Bounded::<W> { bounds, defects: vec![defect] };
        good &= is_found(defect, || explore(model, Order::BreadthFirst, threads, time_max));
    }
    good
}

fn is_lawful(explored: &Explored) -> bool {
    report(explored) == ExitCode::SUCCESS && explored.complete
}

fn is_found(defect: Defect, hunt: impl FnOnce() -> Explored) -> bool {
    if !has_switches(&[defect]) {
        println!("{} {}: not in this build", defect.id(), defect.name());
        return true;
    }
    let explored = hunt();
    let (states, took) = (explored.states, explored.took.as_secs_f64());
    let found = explored.broken.as_ref().map_or("NOT FOUND", |broken| broken.law);
    println!("{} {}: {found} after {states} states, {took:.1} s", defect.id(), defect.name());
    explored.broken.is_some()
}

fn report(explored: &Explored) -> ExitCode {
    let Explored { states, steps, depth, complete, took, broken } = explored;
    let all = if *complete { "all of them" } else { "not all" };
    println!("{states} states ({all}), {steps} steps, depth {depth}, {:.1} s", took.as_secs_f64());
    match broken {
        Some(broken) => {
            println!("{} is broken:", broken.law);
            broken.run.iter().for_each(|action| println!("    {action}"));
            ExitCode::from(1)
        }
        None => ExitCode::SUCCESS,
    }
}
