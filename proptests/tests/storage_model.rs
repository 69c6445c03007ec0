//! Any history of appends, cuts, deletions, stops and kills on a real folder: nothing acknowledged is lost, what was cut or deleted stays
//! so, and what is read is what was written. Power loss and a disk's faults are in `storage_simulated.rs`.

mod storage_driver;

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use storage_driver::{Driver, Model, Step, World};
use weir_proptests::cases;
use weir_runtime::task::{self, RuntimeOptions};
use weir_storage::StoreConfig;

/// The reference: which steps there are. What they must lead to is the driver's [`Model`].
#[derive(Debug, Clone)]
struct History {
    logs: usize,
    segment_bytes: u32,
}

impl ReferenceStateMachine for History {
    type State = History;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<History> {
        (1usize..6, 500u32..8000).prop_map(|(logs, segment_bytes)| History { logs, segment_bytes }).boxed()
    }

    fn transitions(_: &History) -> BoxedStrategy<Step> {
        prop_oneof![
            12 => (any::<u8>(), 1u8..6, 1u8..10, 8u16..400)
                .prop_map(|(log, batches, records, bytes)| Step::Append { log, batches, records, bytes }),
            1 => (any::<u8>(), 1u8..3, 1u8..3, 3000u16..20_000)
                .prop_map(|(log, batches, records, bytes)| Step::Append { log, batches, records, bytes }),
            4 => (any::<u8>(), 0u16..80).prop_map(|(log, back)| Step::Truncate { log, back }),
            2 => (any::<u8>(), 0u16..60, prop::bool::weighted(0.2))
                .prop_map(|(log, forward, beyond)| Step::SetStart { log, forward, beyond }),
            1 => any::<u8>().prop_map(|log| Step::BeginEpoch { log }),
            1 => any::<u8>().prop_map(|log| Step::Delete { log }),
            1 => any::<u8>().prop_map(|log| Step::Reopen { log }),
            4 => Just(Step::Wait),
            3 => Just(Step::Listen),
            4 => (any::<u8>(), any::<u16>()).prop_map(|(log, from)| Step::Read { log, from }),
            2 => (any::<u8>(), any::<u16>()).prop_map(|(log, at)| Step::Find { log, at }),
            1 => Just(Step::CloseAndOpen),
            3 => Just(Step::Kill),
        ]
        .boxed()
    }

    fn apply(state: History, _: &Step) -> History {
        state
    }
}

/// A store in a folder of its own, on a runtime of its own.
struct Tested {
    runtime: Runtime,
    driver: Option<Driver<Arc<Mutex<Model>>>>,
}

/// Runs futures one after the other. The runtime lives as long as the test case: the store's tasks go on in between.
struct Runtime {
    work: std::sync::mpsc::Sender<Work>,
    _dir: tempfile::TempDir,
}

type Work = Box<dyn FnOnce() -> std::pin::Pin<Box<dyn Future<Output = ()>>> + Send>;

impl Runtime {
    fn new() -> Runtime {
        let (work, jobs) = std::sync::mpsc::channel::<Work>();
        #[allow(clippy::disallowed_methods, reason = "the thread on which a real runtime lives")]
        std::thread::spawn(move || {
            task::block_on(RuntimeOptions::default(), async {
                while let Ok(job) = jobs.recv() {
                    job().await;
                }
            })
        });
        Runtime { work, _dir: tempfile::tempdir().expect("a folder") }
    }

    fn run<T: Send + 'static, F: Future<Output = T> + 'static>(
        &self,
        f: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        let (reply, result) = std::sync::mpsc::channel();
        let job: Work = Box::new(move || {
            Box::pin(async move {
                let _ = reply.send(f().await);
            })
        });
        self.work.send(job).expect("the runtime lives");
        result.recv().expect("the step does not panic")
    }
}

impl StateMachineTest for Tested {
    type SystemUnderTest = Tested;
    type Reference = History;

    fn init_test(history: &History) -> Tested {
        let runtime = Runtime::new();
        let path = runtime._dir.path().to_owned();
        let History { logs, segment_bytes } = *history;
        let driver = runtime.run(move || async move {
            let model = Arc::new(Mutex::new(Model::new(logs, World::default())));
            let config = StoreConfig { journal_bytes: 400_000, journal_files: 3, ..StoreConfig::default() };
            Driver::open(model, &path, config, segment_bytes).await.expect("the store opens")
        });
        Tested { runtime, driver: Some(driver) }
    }

    fn apply(mut state: Tested, _: &History, step: Step) -> Tested {
        let mut driver = state.driver.take().expect("there is a driver");
        let driver = state.runtime.run(move || async move {
            let restarted = match step {
                Step::Kill => driver.restart(false).await,
                Step::CloseAndOpen => driver.restart(true).await,
                step => driver.step(step).await.map(|()| driver),
            };
            restarted.expect("nothing fails on this disk")
        });
        state.driver = Some(driver);
        state
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: cases(48), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost(sequential 1..60 => Tested);
}
