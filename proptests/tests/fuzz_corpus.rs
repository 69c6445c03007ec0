//! Every input of the committed corpus passes its target, and so do some generated and mutated ones.
#![expect(clippy::disallowed_methods, reason = "reads the corpus; nothing here is simulated")]

use std::fs;
use std::path::Path;

use weir_proptests::cases;
use weir_proptests::mutate::{Random, mutate};
use weir_proptests::targets::TARGETS;

#[test]
fn the_committed_corpus_passes() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("corpus of {}: {error}", target.name));
        let mut inputs = 0;
        for entry in entries {
            let path = entry.expect("the corpus can be listed").path();
            println!("{}", path.display());
            (target.run)(&fs::read(&path).expect("the corpus can be read"));
            inputs += 1;
        }
        assert!(inputs > 0, "the corpus of {} is empty", target.name);
    }
}

#[test]
fn generated_and_mutated_inputs_pass() {
    for target in TARGETS {
        let mut random = Random::new(7);
        for _ in 0..cases(1_000) {
            let mut input = (target.generate)(&mut random);
            (target.run)(&input);
            let other = (target.generate)(&mut random);
            mutate(&mut input, &other, 4_096, &mut random);
            (target.run)(&input);
            if let Some(repair) = target.repair {
                repair(&mut input);
                (target.run)(&input);
            }
        }
    }
}
