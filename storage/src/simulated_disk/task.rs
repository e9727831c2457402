//! The steps of tasks, and what is cleared away when one fails.

use super::device::{Due, SimulatedDevice};
use crate::{Device, DeviceError, FileId, OpId, Task, layout};
use std::{path::Path, time::Duration};

#[derive(Debug)]
pub struct PendingTask {
    pub op: OpId,
    pub task: Task,
    pub stage: u32,
    pub file: Option<FileId>,
    pub submitted_at: Duration,
    /// When the next step is over; only the first task's counts.
    pub due: Due,
}

/// The stage of [`Task::Prepare`] that makes the finished file's name durable.
const PREPARED_STAGE: u32 = 4;

impl SimulatedDevice {
    /// Takes one step of a task; `true` if it was the last.
    pub(super) fn run_stage(&mut self, pending: &mut PendingTask) -> Result<bool, DeviceError> {
        match (&pending.task, pending.stage) {
            (Task::Prepare { path, .. }, 0) => pending.file = Some(self.create(&layout::temporary(path))?),
            (Task::Prepare { bytes, head, .. }, 1) => {
                let mut contents = vec![0; usize::try_from(*bytes).expect("files are small")];
                contents[..head.len()].copy_from_slice(head);
                self.write("prepare", pending.file.expect("it was created"), contents)?;
            }
            (Task::Prepare { .. }, 2) => self.sync(pending.file.expect("it was created"))?,
            (Task::Prepare { path, .. }, 3) => {
                self.rename(&layout::temporary(path), path)?;
                self.set_path(pending.file.expect("it was created"), path);
            }
            (Task::Create { path }, 0) => pending.file = Some(self.create(path)?),
            (Task::Publish { file, .. }, 0) => self.sync(*file)?,
            (Task::Publish { file, from, to }, 1) => {
                self.close(*file);
                self.rename(from, to)?;
            }
            (Task::Remove { path }, 0) => self.remove(path)?,
            (Task::Prepare { path, .. } | Task::Publish { to: path, .. } | Task::Remove { path }, _) => {
                self.sync_directory(path.parent().unwrap_or(Path::new("")))?;
                return Ok(true);
            }
            (Task::Create { .. }, _) => return Ok(true),
        }
        Ok(false)
    }

    pub(super) fn clear_after_failure(&mut self, pending: &PendingTask) {
        match &pending.task {
            Task::Prepare { path, .. } => {
                if let Some(file) = pending.file {
                    self.close(file);
                }
                // The last step leaves no temporary file, and nothing is durable that it failed to make so.
                if pending.stage < PREPARED_STAGE {
                    let mut state = self.disk.lock();
                    state.remove(&layout::temporary(path));
                    state.sync_names(path.parent().unwrap_or(Path::new("")));
                }
            }
            Task::Publish { file, .. } => self.close(*file),
            Task::Create { .. } | Task::Remove { .. } => {}
        }
    }
}
