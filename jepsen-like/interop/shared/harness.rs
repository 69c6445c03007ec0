//! The cases of the Rust clients. Each client is a [`Client`]; [`run`] runs the cases against it.
#![allow(clippy::disallowed_methods)] // real clients against a real broker: never simulated

mod cases;
mod groups;

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

/// How long a case may take.
const CASE_LIMIT: Duration = Duration::from_secs(120);
/// How long one wait inside of a case may take.
pub const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// The codecs that there are.
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// One header: its name, and its value or null.
pub type Header = (String, Option<Vec<u8>>);
/// A key and a value, each may be null.
pub type Pair = (Option<Vec<u8>>, Option<Vec<u8>>);

/// One record, as it is sent or as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Null is `None`.
    pub key: Option<Vec<u8>>,
    /// Null is `None`.
    pub value: Option<Vec<u8>>,
    /// In their order.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970; `None` leaves it to the client.
    pub timestamp: Option<i64>,
    /// Where it goes to, or comes from.
    pub partition: i32,
    /// Where it was read.
    pub offset: i64,
}

impl Record {
    /// A record of partition 0 with this text as value.
    pub fn of(text: impl ToString) -> Record {
        Record { value: Some(bytes(text)), ..Record::default() }
    }

    /// The value as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// What [`Client::create`] fails with when there is such a topic.
#[derive(Debug)]
pub struct TopicExists;

impl std::fmt::Display for TopicExists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("there is such a topic")
    }
}

impl std::error::Error for TopicExists {}

/// What a case fails with that the client has no means for.
#[derive(Debug)]
struct Skip(&'static str);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Skip {}

/// What a client is able to do.
pub struct Abilities {
    /// Begins the names of its topics.
    pub name: &'static str,
    /// Has it idempotent producers?
    pub idempotence: bool,
    /// Has it consumer groups?
    pub groups: bool,
    /// Can it create a topic with settings, and does it tell who gave a record its timestamp?
    pub append_time: bool,
    /// By case: what of it this client leaves out, or does in its own way; or why it has no means for it.
    pub notes: &'static [(&'static str, &'static str)],
    /// Headers that it can send and read.
    pub headers: Vec<Header>,
}

/// The headers of a client that can send and read all kinds: repeated names, empty values, nulls.
pub fn all_headers() -> Vec<Header> {
    let header = |name: &str, value: Option<&str>| (name.to_owned(), value.map(bytes));
    let (null, empty) = (header("null", None), header("empty", Some("")));
    vec![header("a", Some("1")), header("b", Some("2")), header("a", Some("3")), empty, null]
}

/// What the cases need of a client. All of it runs on one thread.
#[allow(async_fn_in_trait)] // no other thread needs these futures
pub trait Client: 'static {
    /// Sends records with acks=all.
    type Sender: Sender;
    /// Reads partition 0 without a group.
    type Reader: Reader;

    /// What the client is able to do.
    fn abilities(&self) -> Abilities;
    /// Fails with [`TopicExists`] when there is such a topic.
    async fn create(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()>;
    /// Deletes a topic.
    async fn delete(&self, topic: &str) -> Result<()>;
    /// The number of partitions, 0 of a topic that does not exist. Creates none.
    async fn partitions(&self, topic: &str) -> Result<usize>;
    /// A producer.
    async fn sender(&self, codec: &str, idempotent: bool) -> Result<Self::Sender>;
    /// A consumer that begins at this offset.
    async fn reader(&self, topic: &str, start: i64) -> Result<Self::Reader>;
    /// The first offset of partition 0, and its end.
    async fn bounds(&self, topic: &str) -> Result<(i64, i64)>;
    /// The offset of the first record of partition 0 that is not older.
    async fn offset_for_time(&self, topic: &str, timestamp: i64) -> Result<Option<i64>>;
    /// Asks all that the client's administration knows about a topic of 100 records in one partition, and a group without members
    /// that has committed 40 of them; changes a setting and the number of partitions, deletes records and, in the end, the group.
    async fn administer(&self, topic: &str, group: &str) -> Result<()>;
    /// A member of a group until `stopping` holds; it then leaves. It hands each record to `handle`, and commits up to the
    /// last one for which that says so.
    async fn consume(
        &self,
        topic: &str,
        group: &str,
        handle: impl FnMut(&Record) -> bool,
        stopping: Rc<Cell<bool>>,
    ) -> Result<()>;
}

/// A producer.
#[allow(async_fn_in_trait)] // no other thread needs these futures
pub trait Sender: 'static {
    /// Returns when all are acknowledged.
    async fn send(&mut self, topic: &str, records: Vec<Record>) -> Result<()>;
}

/// A consumer of partition 0.
#[allow(async_fn_in_trait)] // no other thread needs these futures
pub trait Reader: 'static {
    /// The next records.
    async fn read(&mut self, count: usize) -> Result<Vec<Record>>;
    /// Goes on from this offset.
    async fn seek(&mut self, offset: i64) -> Result<()>;
}

/// The addresses that the program was given, with commas between them.
pub fn broker() -> String {
    std::env::args().nth(1).unwrap_or_default()
}

/// A text as a value, a key, or a header's value.
pub fn bytes(text: impl ToString) -> Vec<u8> {
    text.to_string().into_bytes()
}

/// What the cases share.
struct Suite<C> {
    client: Rc<C>,
    abilities: Abilities,
    run: String,
    records: usize,
}

/// Runs the cases, prints a line for each, and ends the process with 1 if one failed.
pub fn run<C: Client>(client: impl AsyncFnOnce() -> Result<C>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("not ok all: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = tokio::task::LocalSet::new().block_on(&runtime, async {
        match client().await {
            Ok(client) => run_cases(Rc::new(client)).await,
            Err(error) => {
                println!("not ok all: {error:#}");
                1
            }
        }
    });
    std::process::exit(code) // without waiting for the threads of a client that hangs
}

async fn run_cases<C: Client>(client: Rc<C>) -> i32 {
    let abilities = client.abilities();
    let records =
        if std::env::var_os("SHORT").is_some_and(|short| !short.is_empty()) { 2_000 } else { 50_000 };
    let suite = Suite { client, abilities, run: format!("{:08x}", fastrand::u32(..)), records };
    let mut code = 0;
    for name in cases::NAMES {
        let outcome = tokio::time::timeout(CASE_LIMIT, suite.case(name)).await;
        let note = suite.abilities.notes.iter().find(|(case, _)| *case == name).map(|(_, note)| *note);
        match outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("not done within {CASE_LIMIT:?}"))) {
            Ok(()) => println!("ok {name}{}", note.map(|note| format!("  # {note}")).unwrap_or_default()),
            Err(error) if error.is::<Skip>() => {
                println!("skip {name}: {}", note.map_or(error.to_string(), str::to_owned));
            }
            Err(error) => {
                println!("not ok {name}: {}", format!("{error:#}").replace('\n', " "));
                code = 1;
            }
        }
    }
    code
}

/// Looks until the condition holds.
async fn wait_for(what: impl Fn() -> String, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WAIT_LIMIT;
    while !condition().await? {
        if Instant::now() > deadline {
            bail!("waited {WAIT_LIMIT:?} for {}", what());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Milliseconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
