//! Prints the table that led to the journal, measured on the machine and in the folder it runs on:
//! `cargo bench -p weir-runtime --bench disk -- FOLDER` (default: a new folder in the current one). Takes under a minute.
//!
//! The question behind it: what does it cost to make a small record of each of 1,000 partitions durable?
#![allow(clippy::disallowed_methods, reason = "it measures what is below the runtime, too")]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::OFlags;
use weir_runtime::disk::{AlignedBuf, Disk, DiskOptions, Done, Lane, Op, OpenMode};
use weir_runtime::task::{RuntimeOptions, block_on};

const BLOCK: usize = 4096;
const LARGE: usize = 1 << 20;
const FILE_LEN: usize = 64 << 20;
const FILES: usize = 1000;
/// One row of the table is measured for this long.
const ROW_TIME: Duration = Duration::from_millis(2500);
const ROUNDS_MIN: usize = 5;
const ROUNDS_MAX: usize = 5000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("measures under `cargo bench` only");
        return Ok(());
    }
    let argument = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let parent = argument.map(PathBuf::from).unwrap_or_else(|| PathBuf::from("."));
    let folder = parent.join(format!("weir-bench-disk-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = measure(&folder);
    std::fs::remove_dir_all(&folder)?;
    result
}

fn measure(folder: &Path) -> Result<()> {
    println!("Disk of {}, {} cores\n", folder.display(), std::thread::available_parallelism()?);
    println!("One write, durable when it is done, to a zero-filled file:");
    heading();
    for len in [BLOCK, LARGE] {
        let mut file = ZeroFilled::create(&folder.join("buffered"), OFlags::empty())?;
        row(&format!("{}, write + fdatasync", size(len)), len, || {
            file.write_next(len)?;
            Ok(file.file.sync_data()?)
        })?;
    }
    match ZeroFilled::create(&folder.join("direct"), OFlags::DIRECT | OFlags::DSYNC) {
        Ok(mut file) => {
            for len in [BLOCK, LARGE] {
                row(&format!("{}, O_DIRECT | O_DSYNC", size(len)), len, || Ok(file.write_next(len)?))?;
            }
        }
        Err(error) => println!("  O_DIRECT is not to be had here: {error}"),
    }
    let options = RuntimeOptions { worker_threads: Some(2), ..RuntimeOptions::default() };
    block_on(options.clone(), through_the_disk(folder))??;

    println!("\n4 KiB to each of {FILES} files, all of it durable:");
    heading();
    many_files(folder)?;
    block_on(options, one_journal(folder))??;
    Ok(())
}

/// A file that is written round and round, never beyond its end.
struct ZeroFilled {
    file: File,
    data: AlignedBuf,
    position: u64,
}

impl ZeroFilled {
    fn create(path: &Path, flags: OFlags) -> io::Result<ZeroFilled> {
        let plain = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let mut data = AlignedBuf::zeroed(LARGE);
        for step in 0..FILE_LEN / LARGE {
            plain.write_all_at(data.as_slice(), (step * LARGE) as u64)?;
        }
        plain.sync_all()?;
        data.as_mut_slice().fill(0x5a);
        let file = OpenOptions::new().write(true).custom_flags(flags.bits() as i32).open(path)?;
        Ok(ZeroFilled { file, data, position: 0 })
    }

    fn write_next(&mut self, len: usize) -> io::Result<()> {
        self.file.write_all_at(&self.data.as_slice()[..len], self.position)?;
        self.position = (self.position + len as u64) % FILE_LEN as u64;
        Ok(())
    }
}

/// The same through [`Disk::submit`], as the journal does it: with a hand-off and a completion.
async fn through_the_disk(folder: &Path) -> Result<()> {
    let disk = Disk::open(&folder.join("disk"), DiskOptions::default()).await?;
    let file = journal(&disk).await?;
    for len in [BLOCK, LARGE] {
        let mut buffer = AlignedBuf::zeroed(len);
        let mut measured = Measured::start(len);
        while measured.goes_on() {
            buffer = write_journal(&disk, &file, measured.rounds(), buffer).await?;
            measured.lap();
        }
        measured.print(&format!("{}, Disk::submit to a direct file", size(len)));
    }
    Ok(())
}

async fn journal(disk: &Disk) -> Result<weir_runtime::disk::File> {
    let (file, _) = disk.open_file("journal", OpenMode::Direct).await?;
    disk.submit(Lane::Journal, vec![Op::Allocate { file: file.clone(), len: FILE_LEN as u64 }]).await?;
    Ok(file)
}

async fn write_journal(
    disk: &Disk,
    file: &weir_runtime::disk::File,
    round: usize,
    data: AlignedBuf,
) -> Result<AlignedBuf> {
    let slots = FILE_LEN / data.len();
    let offset = (round % slots * data.len()) as u64;
    let write = Op::WriteAligned { file: file.clone(), offset, data };
    match disk.submit(Lane::Journal, vec![write]).await?.pop() {
        Some(Done::WrittenAligned(buffer)) => Ok(buffer),
        other => Err(format!("unexpected {other:?}").into()),
    }
}

fn many_files(folder: &Path) -> Result<()> {
    let files: Vec<File> = (0..FILES)
        .map(|n| OpenOptions::new().write(true).create_new(true).open(folder.join(format!("f{n:04}"))))
        .collect::<io::Result<_>>()?;
    let block = [0x5a; BLOCK];
    let mut offset = 0;
    let mut next = || {
        offset += BLOCK as u64;
        offset - BLOCK as u64
    };
    let all = FILES * BLOCK;
    row("fdatasync of each, one by one", all, || {
        let offset = next();
        for file in &files {
            file.write_all_at(&block, offset)?;
            file.sync_data()?;
        }
        Ok(())
    })?;
    row("fdatasync of each, 16 threads", all, || {
        let offset = next();
        let write = |file: &File| file.write_all_at(&block, offset).and_then(|()| file.sync_data());
        std::thread::scope(|scope| {
            let threads: Vec<_> = files
                .chunks(FILES.div_ceil(16))
                .map(|part| scope.spawn(move || part.iter().try_for_each(write)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panic"))))
        })?;
        Ok(())
    })?;
    row("syncfs", all, || {
        let offset = next();
        files.iter().try_for_each(|file| file.write_all_at(&block, offset))?;
        Ok(rustix::fs::syncfs(&files[0])?)
    })?;
    Ok(())
}

/// One direct write of everything to a journal, while the files are written buffered: what Weir does.
async fn one_journal(folder: &Path) -> Result<()> {
    let disk = Disk::open(&folder.join("disk"), DiskOptions::default()).await?;
    let file = journal(&disk).await?;
    let mut segments = Vec::with_capacity(FILES);
    for n in 0..FILES {
        segments.push(disk.open_file(format!("s{n:04}"), OpenMode::Create).await?.0);
    }
    let block = Bytes::from_static(&[0x5a; BLOCK]);
    let mut buffer = AlignedBuf::zeroed(FILES * BLOCK);
    let mut measured = Measured::start(FILES * BLOCK);
    while measured.goes_on() {
        let offset = (measured.rounds() * BLOCK) as u64;
        let writes =
            segments.iter().map(|file| Op::Write { file: file.clone(), offset, data: vec![block.clone()] });
        let written = disk.submit(Lane::Pool, writes.collect());
        buffer = write_journal(&disk, &file, measured.rounds(), buffer).await?;
        written.await?;
        measured.lap();
    }
    measured.print("one journal write, files buffered");
    Ok(())
}

fn row(name: &str, len: usize, mut round: impl FnMut() -> Result<()>) -> Result<()> {
    let mut measured = Measured::start(len);
    while measured.goes_on() {
        round()?;
        measured.lap();
    }
    measured.print(name);
    Ok(())
}

struct Measured {
    round_bytes: usize,
    start: Instant,
    last: Instant,
    laps: Vec<Duration>,
}

impl Measured {
    fn start(round_bytes: usize) -> Measured {
        let start = Instant::now();
        Measured { round_bytes, start, last: start, laps: Vec::new() }
    }

    fn rounds(&self) -> usize {
        self.laps.len()
    }

    fn goes_on(&self) -> bool {
        let rounds = self.rounds();
        rounds < ROUNDS_MIN || (rounds < ROUNDS_MAX && self.start.elapsed() < ROW_TIME)
    }

    fn lap(&mut self) {
        let now = Instant::now();
        self.laps.push(now - self.last);
        self.last = now;
    }

    fn print(mut self, name: &str) {
        let total: f64 = self.laps.iter().map(Duration::as_secs_f64).sum();
        self.laps.sort_unstable();
        let at = |share: f64| self.laps[((self.laps.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let mb_s = (self.round_bytes * self.rounds()) as f64 / total / 1e6;
        println!("  {name:<40} {:>10.3} {:>10.3} {mb_s:>10.1} {:>8}", at(0.5), at(0.99), self.rounds());
        // A row is worth seeing when it is done; a closed pipe is nobody's problem.
        let _ = io::stdout().flush();
    }
}

fn heading() {
    println!("  {:<40} {:>10} {:>10} {:>10} {:>8}", "", "median ms", "p99 ms", "MB/s", "rounds");
}

fn size(len: usize) -> &'static str {
    if len == BLOCK { "4 KiB" } else { "1 MiB" }
}
