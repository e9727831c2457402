//! Lists across all partitions: pages are asked for ahead, rows come out in the order of the partitions.

use super::{
    Client,
    request::{InFlight, Reply, Sink},
};
use crate::{
    error::RequestError,
    types::{Calendar, Execution, Job},
};
use std::{collections::VecDeque, fmt};
use tickwheel_wire::{PartitionId, frame::request::PageEnd, limits};
use tokio::sync::oneshot;

/// Most rows of a page.
pub(super) const PAGE_ENTRIES: u16 = limits::PAGE_ENTRIES_MAX;
/// Pages asked for ahead.
const PAGES_AHEAD: usize = 16;

/// A list of jobs; see [`Client::list`].
pub type JobPager = Pager<Job>;
/// A list of executions; see [`Client::executions`].
pub type ExecutionPager = Pager<Execution>;
/// A list of calendars; see [`Client::calendars`].
pub type CalendarPager = Pager<Calendar>;

/// Encodes the request for one page: request id, partition, cursor.
type Encode = Box<dyn Fn(u64, PartitionId, u64) -> Vec<u8> + Send + Sync>;

/// What makes a list one of jobs, of executions or of calendars.
pub(super) struct Kind<T> {
    pub encode: Encode,
    pub sink: fn(oneshot::Sender<Result<Reply, RequestError>>) -> Sink,
    pub rows: fn(Reply) -> Option<(Vec<T>, u64)>,
}

/// A list in progress. Rows come as [`Pager::next`] asks for them; up to sixteen pages are under way ahead of it.
///
/// The list is no snapshot: what changes while it is read may be seen or not, but what stays the same is seen once.
pub struct Pager<T> {
    client: Client,
    kind: Kind<T>,
    /// Partitions whose first page was not asked for yet.
    partitions: VecDeque<PartitionId>,
    pages: VecDeque<(PartitionId, InFlight)>,
    rows: VecDeque<T>,
}

impl<T> fmt::Debug for Pager<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pager").field("partitions", &self.partitions.len()).field("rows", &self.rows.len()).finish()
    }
}

impl<T> Pager<T> {
    pub(super) fn new(client: Client, kind: Kind<T>, partitions: impl IntoIterator<Item = PartitionId>) -> Self {
        let partitions = partitions.into_iter().collect();
        Self { client, kind, partitions, pages: VecDeque::new(), rows: VecDeque::new() }
    }

    /// The next row; none at the end. After an error the list goes on with the next partition.
    ///
    /// Not cancel safe: when the future is dropped while it waits, rows of one page may be missed.
    pub async fn next(&mut self) -> Option<Result<T, RequestError>> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Some(Ok(row));
            }
            while self.pages.len() < PAGES_AHEAD
                && let Some(partition) = self.partitions.pop_front()
            {
                let page = self.ask(partition, 0).await;
                self.pages.push_back((partition, page));
            }
            let (partition, page) = self.pages.pop_front()?;
            match page.answer().await.map(self.kind.rows) {
                Ok(Some((rows, cursor))) => {
                    self.rows.extend(rows);
                    if cursor != PageEnd::LAST {
                        let page = self.ask(partition, cursor).await;
                        self.pages.push_front((partition, page));
                    }
                }
                Ok(None) => return Some(Err(RequestError::UnexpectedAnswer("rows of another kind".to_owned()))),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Whether a row is at hand.
    pub(super) fn has_row(&self) -> bool {
        !self.rows.is_empty()
    }

    /// The rest of the list at once.
    ///
    /// # Errors
    /// The first error that is met.
    pub async fn collect(mut self) -> Result<Vec<T>, RequestError> {
        let mut all = Vec::new();
        while let Some(row) = self.next().await {
            all.push(row?);
        }
        Ok(all)
    }

    async fn ask(&self, partition: PartitionId, cursor: u64) -> InFlight {
        let encode = |id| (self.kind.encode)(id, partition, cursor);
        self.client.start(partition, true, encode, self.kind.sink).await
    }
}
