//! Nothing leaves a node before it is durable: while the disk takes nothing, everybody waits.
//!
//! That a commit is not durable before its sync is shown where a sync can be left out: `storage/tests/crash.rs`
//! (`a_crash_at_any_step_loses_nothing_that_was_reported`, `a_disk_that_ignores_syncs_is_found_out`), and for the real files in
//! `server/src/runtime/device/ring.rs`.

use anyhow::ensure;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tickwheel_client::{JobBuilder, Lane, RefusalCode, Timestamp};
use tickwheel_tests::{
    TestNode,
    confine::{mount, with_own_mounts},
    data_directory,
    peer::Peer,
    run,
};
use tickwheel_wire::frame::{
    FrameType,
    request::{JobByName, JobView, ReadCounters, Submitted},
    session::Refused,
    work::{Completed, Dispatch, Outcome, Verdict},
};

const SETTINGS: &str = "[node]\nshards = 1\npartitions = 8\n[log]\nsegment_bytes = 4194304\n";
const DISK_BYTES: u64 = 192 << 20;
/// Questions that the node answers while the disk takes nothing, so that it has had time to answer others.
const ROUND_TRIPS: usize = 50;

/// A file system of its own that can be made to take no writes for a while. They wait and fail not.
struct SlowDisk<'a> {
    folder: &'a Path,
    is_frozen: bool,
}

impl<'a> SlowDisk<'a> {
    /// A disk in `folder`, which has to outlive the mount to be removable. `None` where there are no loop devices, or no tools
    /// for them.
    fn mount(folder: &'a Path) -> anyhow::Result<Option<Self>> {
        let disk = Self { folder, is_frozen: false };
        let image = disk.folder.join("image");
        File::create(&image)?.set_len(DISK_BYTES)?;
        fs::create_dir(disk.data())?;
        let (image, data) = (image.display().to_string(), disk.data().display().to_string());
        let is_made = succeeds("mkfs.ext4", &["-q", "-F", &image]) && mount(&["-o", "loop", &image, &data]).is_ok();
        if !is_made {
            eprintln!("skipped: a file system on a loop device cannot be made here");
            return Ok(None);
        }
        Ok(Some(disk))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn freeze(&mut self) -> anyhow::Result<()> {
        ensure!(succeeds("fsfreeze", &["--freeze", &self.data().display().to_string()]), "the disk does not freeze");
        self.is_frozen = true;
        Ok(())
    }

    fn thaw(&mut self) -> anyhow::Result<()> {
        ensure!(succeeds("fsfreeze", &["--unfreeze", &self.data().display().to_string()]), "the disk does not thaw");
        self.is_frozen = false;
        Ok(())
    }
}

impl Drop for SlowDisk<'_> {
    fn drop(&mut self) {
        if self.is_frozen {
            // The test has failed already. A frozen disk would hold up the node's end.
            let _ = self.thaw();
        }
    }
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn once(name: &str) -> JobBuilder {
    JobBuilder::new(name).tenant("default").handler("any").after(Duration::ZERO)
}

async fn admin(node: &TestNode, data: &Path) -> anyhow::Result<Peer> {
    Ok(Peer::open(node.connect_config(data, "admin", 0)?).await?)
}

/// Asks what needs no log and is refused at once; that answer is the next thing the worker hears, unless something leaves early.
async fn hears_nothing_else(worker: &mut Peer) -> anyhow::Result<()> {
    worker.say(Lane::Control, &ReadCounters { request_id: 99 }).await?;
    let message = worker.hear().await?;
    ensure!(message.frame_type == FrameType::Refused, "{:?} left before it was durable", message.frame_type);
    let refused: Refused<'_> = message.decode()?;
    ensure!((refused.request_id, refused.code) == (99, RefusalCode::WrongRole), "{refused:?}");
    Ok(())
}

#[test]
fn nobody_is_told_anything_while_the_disk_takes_nothing() -> anyhow::Result<()> {
    let folder = data_directory()?;
    with_own_mounts(|| {
        let Some(mut disk) = SlowDisk::mount(folder.path())? else { return Ok(()) };
        let data = disk.data();
        let node = TestNode::start(&data, SETTINGS)?;
        run(async {
            let (mut submitter, mut reader) = (admin(&node, &data).await?, admin(&node, &data).await?);
            let mut worker = Peer::open(node.connect_config(&data, "worker", 0)?).await?;
            worker.attach(1, "standard").await?;
            submitter.submit(1, &once("running")).await?;
            submitter.hear().await?.decode::<Submitted>()?;
            let running = worker.hear().await?.decode::<Dispatch<'_>>()?.head;

            disk.freeze()?;
            submitter.submit(2, &once("new")).await?;
            worker.complete(Lane::P1, &running, Outcome::Succeeded, b"").await?;
            // The core knows it all: the completion counts, and the new job has fired.
            while submitter.counter("succeeded").await? < 1 || submitter.counter("fired").await? < 2 {}
            let partition = reader.topology().partition_of("default", "new");
            let question = JobByName { request_id: 3, partition, tenant: "default", name: "new" };
            reader.say(Lane::Control, &question).await?;
            for _ in 0..ROUND_TRIPS {
                hears_nothing_else(&mut worker).await?;
                for peer in [&mut submitter, &mut reader] {
                    peer.counter("turns").await?;
                    ensure!(!peer.has_heard(), "left before it was durable: {:?}", peer.hear().await?);
                }
            }

            disk.thaw()?;
            assert_eq!(submitter.hear().await?.decode::<Submitted>()?.request_id, 2);
            let message = reader.hear().await?;
            assert!(message.decode::<JobView<'_>>()?.created_at > Timestamp::EPOCH);
            let mut types = Vec::new();
            for _ in 0..2 {
                let message = worker.hear().await?;
                if message.frame_type == FrameType::Completed {
                    assert_eq!(message.decode::<Completed>()?.verdict, Verdict::Accepted);
                }
                types.push(message.frame_type);
            }
            assert!(types.contains(&FrameType::Completed) && types.contains(&FrameType::Dispatch), "{types:?}");
            Ok(())
        })?;
        node.stop(Duration::ZERO)
    })
}
