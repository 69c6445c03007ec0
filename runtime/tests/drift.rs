//! The simulated disk and the real one get the same random batches and must answer alike: the same results, the same errors
//! at the same places. The scenarios in `both_worlds` say what matters; this finds what nobody thought of.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use weir_runtime::disk::{AlignedBuf, BLOCK_BYTES, Disk, DiskOptions, Done, File, Lane, Op, OpenMode};
use weir_runtime::simulated::disk::{DiskProfile, FolderId, HandleId, Reply, Request, SimulatedDisk};
use weir_runtime::simulated::draw::Draw;
use weir_runtime::simulated::events::Events;
use weir_runtime::task::{RuntimeOptions, block_on};
use weir_runtime::time::Instant;

const SEEDS: u64 = 40;
const BATCHES: u64 = 80;

/// Few names, so that they meet.
const PATHS: [&str; 8] = ["a", "b", "d", "d/a", "d/e", "d/e/a", "a/x", "missing/x"];

/// A file as both worlds know it.
#[derive(Clone)]
struct Opened {
    real: File,
    simulated: HandleId,
}

#[derive(Default)]
struct Batch {
    real: Vec<Op>,
    simulated: Vec<Request>,
    log: Vec<String>,
}

impl Batch {
    fn push(&mut self, real: Op, simulated: Request) {
        self.log.push(real.to_string());
        self.real.push(real);
        self.simulated.push(simulated);
    }
}

struct Generator {
    draw: Draw,
    files: Vec<Opened>,
}

impl Generator {
    fn path(&mut self) -> PathBuf {
        self.draw.pick(&PATHS).unwrap().into()
    }

    fn folder(&mut self) -> PathBuf {
        if self.draw.chance(0.3) { PathBuf::new() } else { self.path() }
    }

    fn position(&mut self) -> u64 {
        let blocks = self.draw.below(4) * BLOCK_BYTES as u64;
        if self.draw.chance(0.5) { blocks } else { blocks + self.draw.below(600) }
    }

    fn bytes(&mut self) -> Bytes {
        let len = self.draw.below(700) as usize;
        Bytes::from(vec![self.draw.below(256) as u8; len])
    }

    fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..self.draw.between(1, 4) {
            let file = self.draw.pick(&self.files).cloned();
            match file {
                Some(file) if self.draw.chance(0.6) => self.file_op(&mut batch, &file),
                _ => self.path_op(&mut batch),
            }
        }
        batch
    }

    fn file_op(&mut self, batch: &mut Batch, opened: &Opened) {
        let (real, simulated) = (opened.real.clone(), opened.simulated);
        let offset = self.position();
        let direct = real.mode() == OpenMode::Direct;
        let writable = real.mode() != OpenMode::Read;
        match self.draw.below(10) {
            0..4 if writable && direct => {
                let mut data = AlignedBuf::new();
                data.resize(self.draw.below(3) as usize * BLOCK_BYTES);
                data.as_mut_slice().fill(self.draw.below(256) as u8);
                let offset = offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
                let copy = Bytes::copy_from_slice(data.as_slice());
                batch.push(
                    Op::WriteAligned { file: real, offset, data },
                    Request::WriteAligned { file: simulated, offset, data: copy },
                );
            }
            0..4 if writable => {
                let data: Vec<Bytes> = (0..self.draw.below(4)).map(|_| self.bytes()).collect();
                batch.push(
                    Op::Write { file: real, offset, data: data.clone() },
                    Request::Write { file: simulated, offset, data },
                );
            }
            4 => batch.push(Op::Sync { file: real }, Request::Sync { file: simulated }),
            5 if writable => batch.push(
                Op::Truncate { file: real, len: offset },
                Request::Truncate { file: simulated, len: offset },
            ),
            6 if writable => {
                let len = offset.next_multiple_of(BLOCK_BYTES as u64);
                batch.push(Op::Allocate { file: real, len }, Request::Allocate { file: simulated, len });
            }
            _ => {
                let len = self.position() as usize;
                batch.push(
                    Op::Read { file: real, offset, len },
                    Request::Read { file: simulated, offset, len },
                );
            }
        }
    }

    fn path_op(&mut self, batch: &mut Batch) {
        let path = self.path();
        let same = path.clone();
        match self.draw.below(16) {
            0..6 => {
                use OpenMode::{Create, CreateNew, Direct, Read, ReadWrite};
                let mode = *self.draw.pick(&[Create, Create, CreateNew, Direct, Read, ReadWrite]).unwrap();
                batch.push(Op::Open { path, mode }, Request::Open { path: same, mode });
            }
            6..9 => {
                let to = self.path();
                let rename = Request::Rename { from: same, to: to.clone() };
                batch.push(Op::Rename { from: path, to }, rename);
            }
            9 => batch.push(Op::Remove { path }, Request::Remove { path: same }),
            10..12 => batch.push(Op::CreateDir { path }, Request::CreateDir { path: same }),
            12 => batch.push(Op::RemoveDir { path }, Request::RemoveDir { path: same }),
            13 => {
                let path = self.folder();
                batch.push(Op::SyncDir { path: path.clone() }, Request::SyncDir { path });
            }
            _ => {
                let path = self.folder();
                batch.push(Op::List { path: path.clone() }, Request::List { path });
            }
        }
    }
}

/// Both worlds, and what both have done so far.
struct Worlds {
    real: Disk,
    simulated: SimulatedDisk,
    folder: FolderId,
    history: Vec<String>,
}

impl Worlds {
    async fn run(&mut self, batch: Batch, lane: Lane, files: &mut Vec<Opened>) {
        self.history.push(batch.log.join("; "));
        let now = Instant::FAR_FUTURE;
        let id = self.simulated.submit(self.folder, lane, batch.simulated, Instant::ORIGIN);
        let completion = self.simulated.take_due(now).pop().unwrap();
        assert_eq!(completion.batch, id);
        let real = self.real.submit(lane, batch.real).await;
        let (real_done, simulated_done) = match (real, completion.result) {
            (Ok(real), Ok(simulated)) => (real, simulated),
            (Err(real), Err(simulated)) => {
                let fails = (real.index, errno(&real.source));
                assert_eq!(fails, (simulated.index, errno(&simulated.error)), "{}", self.told());
                (real.done, simulated.done)
            }
            (real, simulated) => panic!("real: {real:?}\nsimulated: {simulated:?}\n{}", self.told()),
        };
        assert_eq!(real_done.len(), simulated_done.len(), "{}", self.told());
        for (real, simulated) in real_done.into_iter().zip(simulated_done) {
            self.compare(real, simulated, files);
        }
    }

    fn compare(&self, real: Done, simulated: Reply, files: &mut Vec<Opened>) {
        match (real, simulated) {
            (Done::Opened { file, len }, Reply::Opened { file: handle, len: simulated, .. }) => {
                assert_eq!(len, simulated, "{}", self.told());
                files.push(Opened { real: file, simulated: handle });
            }
            (Done::Read(real), Reply::Read(simulated)) => {
                assert_eq!(real.len(), simulated.len(), "{}", self.told());
                assert!(real == simulated, "different bytes\n{}", self.told());
            }
            (Done::Listed(real), Reply::Listed(simulated)) => assert_eq!(real, simulated, "{}", self.told()),
            (Done::Opened { .. } | Done::Read(_) | Done::Listed(_), other) => {
                panic!("{other:?}\n{}", self.told())
            }
            (_, Reply::Done) => {}
            (real, simulated) => panic!("real: {real:?}, simulated: {simulated:?}\n{}", self.told()),
        }
    }

    fn told(&self) -> String {
        format!("after:\n{}", self.history.join("\n"))
    }
}

fn errno(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => format!("{errno} {:?}", error.kind()),
        None => format!("{:?}", error.kind()),
    }
}

async fn both_answer_alike(seed: u64, root: &Path) {
    let mut draw = Draw::new(seed);
    let events = Events::new(false);
    let profile = DiskProfile { hiccups: 0.0, ..DiskProfile::default() };
    let mut simulated = SimulatedDisk::new(1, draw.fork(), events, profile);
    let folder = simulated.open_folder(Path::new("/data"), 4).unwrap().unwrap();
    let real = Disk::open(root, DiskOptions { pool_threads: 1 }).await.unwrap();
    let mut worlds = Worlds { real, simulated, folder, history: vec![format!("seed {seed}")] };
    let mut generator = Generator { draw, files: Vec::new() };
    for _ in 0..BATCHES {
        let batch = generator.batch();
        let lane = if generator.draw.chance(0.5) { Lane::Journal } else { Lane::Pool };
        worlds.run(batch, lane, &mut generator.files).await;
        while generator.files.len() > 6 {
            let oldest = generator.files.remove(0);
            worlds.simulated.close(oldest.simulated);
        }
    }
}

#[test]
fn the_simulated_disk_answers_as_the_real_one_does() {
    for seed in 0..SEEDS {
        let scratch = tempfile::tempdir().unwrap();
        let options = RuntimeOptions { worker_threads: Some(1), ..RuntimeOptions::default() };
        block_on(options, both_answer_alike(seed, &scratch.path().join("data"))).unwrap();
    }
}
