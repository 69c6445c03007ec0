//! What is done before the power fails, and what may be there afterwards.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use weir_runtime::disk::{AlignedBuf, BatchError, Disk, Lane, Op, OpenMode};

pub(crate) type Step<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The state that is durable before anything happens: the content of `x`, if it exists.
    pub(crate) initially: Option<&'static str>,
    /// What happens before the power fails. An error means that it failed in the middle.
    pub(crate) before: fn(Disk) -> Step<Result<(), BatchError>>,
    /// What may be found, if `before` was finished.
    pub(crate) finished: &'static [&'static str],
    /// What may be found, if the power failed in the middle.
    pub(crate) interrupted: &'static [&'static str],
}

const MISSING: &str = "(missing)";

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a synced file in a synced folder survives",
        initially: None,
        before: |disk| {
            Box::pin(async move {
                let (file, _) = disk.open_file("x", OpenMode::CreateNew).await?;
                disk.write(&file, 0, text("new")).await?;
                disk.sync(&file).await?;
                disk.sync_dir("").await
            })
        },
        finished: &["new"],
        interrupted: &[MISSING, "", "new"],
    },
    Scenario {
        name: "a synced file in a folder that was not synced may be missing",
        initially: None,
        before: |disk| {
            Box::pin(async move {
                let (file, _) = disk.open_file("x", OpenMode::CreateNew).await?;
                disk.write(&file, 0, text("new")).await?;
                disk.sync(&file).await
            })
        },
        finished: &[MISSING, "new"],
        interrupted: &[MISSING, "", "new"],
    },
    Scenario {
        name: "a write that was not synced may be lost",
        initially: Some("old"),
        before: |disk| {
            Box::pin(async move {
                let (file, _) = disk.open_file("x", OpenMode::ReadWrite).await?;
                disk.write(&file, 0, text("new")).await
            })
        },
        finished: &["old", "new"],
        interrupted: &["old", "new"],
    },
    Scenario {
        name: "a synced write survives",
        initially: Some("old"),
        before: |disk| {
            Box::pin(async move {
                let (file, _) = disk.open_file("x", OpenMode::ReadWrite).await?;
                disk.write(&file, 0, text("new")).await?;
                disk.sync(&file).await
            })
        },
        finished: &["new"],
        interrupted: &["old", "new"],
    },
    Scenario {
        name: "a truncation that was not synced may come back",
        initially: Some("oldest"),
        before: |disk| {
            Box::pin(async move {
                let (file, _) = disk.open_file("x", OpenMode::ReadWrite).await?;
                disk.truncate(&file, 3).await
            })
        },
        finished: &["oldest", "old"],
        interrupted: &["oldest", "old"],
    },
    Scenario {
        name: "a synced truncation stays",
        initially: Some("oldest"),
        before: |disk| {
            Box::pin(async move {
                let (file, _) = disk.open_file("x", OpenMode::ReadWrite).await?;
                disk.truncate(&file, 3).await?;
                disk.sync(&file).await
            })
        },
        finished: &["old"],
        interrupted: &["oldest", "old"],
    },
    Scenario {
        name: "a removal in a folder that was not synced may be undone",
        initially: Some("old"),
        before: |disk| Box::pin(async move { disk.remove("x").await }),
        finished: &["old", MISSING],
        interrupted: &["old", MISSING],
    },
    Scenario {
        name: "a removal in a synced folder stays",
        initially: Some("old"),
        before: |disk| {
            Box::pin(async move {
                disk.remove("x").await?;
                disk.sync_dir("").await
            })
        },
        finished: &[MISSING],
        interrupted: &["old", MISSING],
    },
    Scenario {
        name: "a file that was not synced may be empty after its rename",
        initially: Some("old"),
        before: |disk| {
            Box::pin(async move {
                let (file, _) = disk.open_file("y", OpenMode::CreateNew).await?;
                disk.write(&file, 0, text("new")).await?;
                disk.rename("y", "x").await?;
                disk.sync_dir("").await
            })
        },
        finished: &["", "new"],
        interrupted: &["old", "", "new"],
    },
    Scenario {
        name: "a file is replaced atomically and for good",
        initially: Some("old"),
        before: |disk| Box::pin(async move { disk.replace_atomically("x", text("new")).await }),
        finished: &["new"],
        interrupted: &["old", "new"],
    },
    Scenario {
        name: "a direct write into an allocated file needs no sync",
        initially: None,
        before: |disk| {
            Box::pin(async move {
                let (file, _) = disk.open_file("x", OpenMode::Direct).await?;
                let allocate = Op::Allocate { file: file.clone(), len: 8192 };
                disk.submit(Lane::Journal, vec![allocate, Op::SyncDir { path: "".into() }]).await?;
                let mut data = AlignedBuf::new();
                data.extend_from_slice(b"new");
                data.pad_to_block();
                let write = Op::WriteAligned { file, offset: 4096, data };
                disk.submit(Lane::Journal, vec![write]).await.map(drop)
            })
        },
        finished: &["new"],
        interrupted: &[MISSING, "", "new"],
    },
];

/// Makes the scenario's initial state durable.
pub(crate) async fn prepare(disk: &Disk, initially: Option<&'static str>) -> Result<(), BatchError> {
    if let Some(content) = initially {
        let (file, _) = disk.open_file("x", OpenMode::CreateNew).await?;
        disk.write(&file, 0, text(content)).await?;
        disk.sync(&file).await?;
    }
    disk.sync_dir("").await
}

/// What is there when the power is back: the content of `x` without zeros.
pub(crate) async fn found(disk: &Disk) -> Result<String, BatchError> {
    let Some(content) = disk.read_file("x", 1 << 20).await? else { return Ok(MISSING.to_owned()) };
    let content: Vec<u8> = content.iter().copied().filter(|byte| *byte != 0).collect();
    Ok(String::from_utf8_lossy(&content).into_owned())
}

pub(crate) fn text(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}
