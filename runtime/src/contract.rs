//! Pins the signatures that both builds share: this compiles in either, or the two worlds have drifted apart.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::disk::{AlignedBuf, BatchError, Disk, DiskOptions, Done, File, Lane, Op, OpenError, Submission};
use crate::net::{Listener, Reader, Stream, Writer, resolve};
use crate::task::{JoinError, JoinHandle, RuntimeOptions};
use crate::time::{Alarm, Elapsed, Instant};
use crate::{random, task, time};

fn is_send<T: Send>(value: T) -> T {
    value
}

fn is_shared<T: Clone + Send + Sync + 'static>() {}

/// Never called.
#[allow(dead_code, clippy::large_futures, reason = "compiled, never run")]
async fn contract(address: SocketAddr) -> io::Result<()> {
    let now: Instant = time::now();
    let _: i64 = time::wall_ms();
    let _: () = is_send(time::sleep(Duration::ZERO)).await;
    let _: () = is_send(time::sleep_until(now)).await;
    let _: Result<(), Elapsed> = is_send(time::timeout(Duration::ZERO, async {})).await;
    let mut alarm: Alarm = is_send(Alarm::new());
    alarm.set(Some(now));
    let _: () = is_send(alarm.wait()).await;

    let handle: JoinHandle<u8> = is_send(task::spawn("contract", async { 1 }));
    handle.abort();
    let _: Result<u8, JoinError> = is_send(handle).await;
    let _: () = is_send(task::yield_now()).await;
    let _: () = is_send(task::interrupted()).await;
    let _: io::Result<u8> = task::block_on(RuntimeOptions::default(), async { 1 });

    let _: (u64, u64, [u8; 16]) = (random::u64(), random::below(3), random::uuid_bytes());

    let listener: Listener = is_send(Listener::bind(address)).await?;
    let _: SocketAddr = listener.local_addr()?;
    let _: (Stream, SocketAddr) = is_send(listener.accept()).await?;
    let stream: Stream = is_send(Stream::connect(address)).await?;
    let _: (SocketAddr, SocketAddr) = (stream.local_addr()?, stream.peer_addr()?);
    let (mut reader, mut writer): (Reader, Writer) = is_send(stream).into_split();
    let _: usize = is_send(reader.read(&mut BytesMut::new(), 1)).await?;
    let _: () = is_send(writer.write_all(&mut VecDeque::<Bytes>::new())).await?;
    let _: () = is_send(writer.shutdown()).await?;
    let _: () = writer.abort();
    let _: Vec<SocketAddr> = is_send(resolve("localhost:1")).await?;

    is_shared::<Disk>();
    is_shared::<File>();
    let _ = is_send(AlignedBuf::new());
    let opened: Result<Disk, OpenError> = is_send(Disk::open(Path::new(""), DiskOptions::default())).await;
    let disk = opened.map_err(io::Error::other)?;
    let submission: Submission = disk.submit(Lane::Journal, Vec::<Op>::new());
    let result: Result<Vec<Done>, BatchError> = is_send(submission).await;
    let _: Vec<Done> = result?;
    Ok(())
}
