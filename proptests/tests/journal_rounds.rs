//! Any history of rounds, seals, checkpoints, crashes and damage: no acknowledged round is ever dropped silently. It is
//! replayed, or it is reported.

mod journal_folder;

use journal_folder::{Folder, Hit, Landing, Shape};
use proptest::prelude::*;
use weir_proptests::cases;

#[derive(Debug, Clone)]
enum Step {
    /// A round with entries of these sizes is written and acknowledged.
    Round(Vec<u16>),
    /// The journal is idle.
    Seal,
    /// A checkpoint of all but the last few rounds is durable.
    Checkpoint(u8),
    /// The process ends, perhaps with a round in flight; something may be damaged; a new one starts.
    Crash { in_flight: Option<(Vec<u16>, Landing)>, hits: Vec<Hit>, checkpoint_lost: bool },
    /// The same, but the round in flight lands only after the new process has looked.
    LateLanding(Vec<u16>),
}

fn sizes() -> impl Strategy<Value = Vec<u16>> {
    prop_oneof![
        4 => proptest::collection::vec(0u16..300, 0..4),
        2 => proptest::collection::vec(0u16..6000, 1..3),
        1 => proptest::collection::vec(9000u16..20000, 1..2),
    ]
}

fn landing() -> impl Strategy<Value = Landing> {
    prop_oneof![
        Just(Landing::Nothing),
        Just(Landing::All),
        any::<u16>().prop_map(Landing::Prefix),
        any::<u64>().prop_map(Landing::Sectors),
        (0u32..40).prop_map(Landing::AllBut),
    ]
}

fn hit() -> impl Strategy<Value = Hit> {
    prop_oneof![
        (any::<u32>(), 0u8..8).prop_map(|(at, bit)| Hit::Anywhere { at, bit }),
        (any::<u16>(), any::<u16>(), 0u8..8).prop_map(|(round, at, bit)| Hit::Round { round, at, bit }),
        (0u16..3, any::<u16>(), 0u8..8).prop_map(|(back, at, bit)| Hit::Last { back, at, bit }),
        (any::<u16>(), any::<u8>()).prop_map(|(round, sector)| Hit::Garbage { round, sector }),
    ]
}

fn step(hits_max: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => sizes().prop_map(Step::Round),
        2 => Just(Step::Seal),
        2 => (0u8..4).prop_map(Step::Checkpoint),
        3 => (
            proptest::option::of((sizes(), landing())),
            proptest::collection::vec(hit(), 0..=hits_max),
            proptest::bool::weighted(0.1),
        )
            .prop_map(|(in_flight, hits, checkpoint_lost)| Step::Crash { in_flight, hits, checkpoint_lost }),
        1 => sizes().prop_map(Step::LateLanding),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    (8u64..17, 2usize..5).prop_map(|(blocks, files_max)| Shape { file_bytes: blocks * 4096, files_max })
}

fn run(shape: Shape, steps: Vec<Step>) {
    let mut folder = Folder::new(shape);
    for step in steps {
        match step {
            Step::Round(sizes) => folder.round(&sizes),
            Step::Seal => folder.seal(),
            Step::Checkpoint(behind) => folder.checkpoint(behind.into()),
            Step::Crash { in_flight, hits, checkpoint_lost } => {
                if let Some((sizes, landing)) = in_flight {
                    folder.in_flight(&sizes, landing);
                }
                hits.iter().for_each(|hit| folder.damage(hit));
                folder.restart(checkpoint_lost);
            }
            Step::LateLanding(sizes) => folder.restart_before_landing(&sizes),
        }
    }
    folder.restart(false);
    folder.restart(false);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(1_000)))]

    #[test]
    fn without_damage_every_acknowledged_round_is_replayed(
        shape in shape(),
        steps in proptest::collection::vec(step(0), 0..60),
    ) {
        run(shape, steps);
    }

    #[test]
    fn damaged_rounds_are_replayed_or_reported(
        shape in shape(),
        steps in proptest::collection::vec(step(3), 0..40),
    ) {
        run(shape, steps);
    }
}
