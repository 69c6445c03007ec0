use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;

use crate::{Client, Record, Sender, Suite, WAIT_LIMIT, now, wait_for};

const PARTITIONS: i32 = 6;

/// A task that runs [`Client::consume`].
struct Member {
    stopping: Rc<Cell<bool>>,
    task: JoinHandle<Result<()>>,
}

impl Member {
    async fn stop(self) -> Result<()> {
        self.stopping.set(true);
        tokio::time::timeout(WAIT_LIMIT, self.task).await.context("a member does not end")??
    }
}

/// What the members of a group did.
#[derive(Default)]
struct Crowd {
    consumed: RefCell<BTreeSet<String>>,
    /// Who read which partitions since the last change.
    owned: RefCell<BTreeMap<&'static str, BTreeSet<i32>>>,
}

impl Crowd {
    fn handler(self: &Rc<Self>, name: &'static str) -> impl FnMut(&Record) -> bool + 'static {
        let crowd = Rc::clone(self);
        move |record| {
            crowd.consumed.borrow_mut().insert(record.text());
            crowd.owned.borrow_mut().entry(name).or_default().insert(record.partition);
            true
        }
    }

    /// Waits until the records from now on are read by all of the members, and from all partitions.
    async fn settled(&self, members: &BTreeMap<&'static str, Member>) -> Result<()> {
        self.owned.borrow_mut().clear();
        let names: BTreeSet<_> = members.keys().copied().collect();
        let look = async || {
            ensure!(members.values().all(|member| !member.task.is_finished()), "a member ended by itself");
            let owned = self.owned.borrow();
            let partitions: BTreeSet<_> = owned.values().flatten().collect();
            Ok(names.iter().all(|name| owned.contains_key(name)) && partitions.len() == PARTITIONS as usize)
        };
        wait_for(|| format!("{names:?} to read all partitions; read: {:?}", self.owned.borrow()), look).await
    }
}

impl<C: Client> Suite<C> {
    fn join(&self, topic: &str, mut handle: impl FnMut(&Record) -> bool + 'static) -> Member {
        let stopping = Rc::new(Cell::new(false));
        let (client, topic, stop) = (Rc::clone(&self.client), topic.to_owned(), Rc::clone(&stopping));
        let task = tokio::task::spawn_local(async move {
            let group = format!("{topic}-group");
            let outcome = client.consume(&topic, &group, &mut handle, stop).await;
            if let Err(error) = &outcome {
                eprintln!("a member of {group} failed: {error:#}");
            }
            outcome
        });
        Member { stopping, task }
    }

    /// A group of three loses a member and gains one while records are produced; each record is consumed.
    pub(crate) async fn group(&self) -> Result<()> {
        let topic = self.topic("group");
        self.client.create(&topic, PARTITIONS, &[]).await?;
        let ending = Rc::new(Cell::new(false));
        let sender = self.client.sender("none", false).await?;
        let producer = tokio::task::spawn_local(produce_until(Rc::clone(&ending), sender, topic.clone()));
        let crowd = Rc::new(Crowd::default());
        let mut members: BTreeMap<_, _> =
            ["a", "b", "c"].into_iter().map(|name| (name, self.join(&topic, crowd.handler(name)))).collect();
        crowd.settled(&members).await?;
        members.remove("b").context("there is no b")?.stop().await?;
        crowd.settled(&members).await?;
        members.insert("d", self.join(&topic, crowd.handler("d")));
        crowd.settled(&members).await?;
        ending.set(true);
        let produced = producer.await?.context("producing failed")?;
        let missing =
            || (0..produced).filter(|number| !crowd.consumed.borrow().contains(&number.to_string())).count();
        wait_for(|| format!("{} of {produced} records", missing()), async || Ok(missing() == 0)).await?;
        for member in members.into_values() {
            member.stop().await?;
        }
        Ok(())
    }

    /// What the client's administration asks and changes.
    pub(crate) async fn admin(&self) -> Result<()> {
        let topic = self.numbered("admin", now() - 1_000_000).await?;
        let last = Rc::new(Cell::new(-1));
        let seen = Rc::clone(&last);
        let member = self.join(&topic, move |record| {
            seen.set(record.offset);
            record.offset < 40
        });
        wait_for(|| format!("all records; read up to {}", last.get()), async || Ok(last.get() == 99)).await?;
        member.stop().await?;
        self.client.administer(&topic, &format!("{topic}-group")).await
    }

    /// A member commits in the middle and leaves; the next one goes on from there.
    pub(crate) async fn commit_resume(&self) -> Result<()> {
        let topic = self.numbered("commit-resume", now() - 1_000_000).await?;
        let committed = 40;
        for (start, end) in [(0, committed), (committed, 100)] {
            let found = Rc::new(RefCell::new(Vec::new()));
            let list = Rc::clone(&found);
            let member = self.join(&topic, move |record| {
                list.borrow_mut().push(record.offset);
                record.offset < committed
            });
            let enough = async || Ok(found.borrow().len() as i64 >= end - start);
            wait_for(|| format!("records {start} to {end}; read {}", found.borrow().len()), enough).await?;
            member.stop().await?;
            let expected: Vec<_> = (start..end).collect();
            ensure!(
                found.borrow().starts_with(&expected),
                "began with {:?}, not with {start}",
                found.borrow().first()
            );
        }
        Ok(())
    }
}

/// Sends numbers to all partitions in turn, and returns how many.
async fn produce_until(ending: Rc<Cell<bool>>, mut sender: impl Sender, topic: String) -> Result<i32> {
    let mut count = 0;
    while !ending.get() {
        let record = |partition| Record { partition, ..Record::of(count + partition) };
        sender.send(&topic, (0..PARTITIONS).map(record).collect()).await?;
        count += PARTITIONS;
        tokio::time::sleep(Duration::from_millis(10)).await; // the pace
    }
    Ok(count)
}
