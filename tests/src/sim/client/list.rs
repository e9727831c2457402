//! A list over all partitions, page by page, and what it has to show.

use crate::sim::{
    auditor::Auditor,
    labels::Selector,
    model::Fact,
    violation::{Violation, demand},
};
use std::time::Duration;
use tickwheel_wire::{
    JobId, PartitionCount, PartitionId,
    frame::{
        Frame,
        request::{JobSelection, JobView, ListJobs, PageEnd},
    },
    job::{JobSpec, JobStates},
};

/// A job that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub job: JobId,
    pub revision: u64,
    pub tenant: String,
    pub name: String,
    labels: String,
}

/// A list that is being asked for.
#[derive(Clone, Debug)]
pub(super) struct List {
    selector: Selector,
    limit: u16,
    partition: PartitionId,
    cursor: u64,
    page: Vec<Row>,
    /// Those of the pages that are complete.
    rows: Vec<Row>,
}

impl List {
    pub const fn new(selector: Selector, limit: u16) -> Self {
        Self { selector, limit, partition: PartitionId(0), cursor: 0, page: Vec::new(), rows: Vec::new() }
    }

    /// The request for the page that comes next, once more if it has not come completely.
    pub fn ask(&mut self, request_id: u64) -> Vec<u8> {
        self.page.clear();
        let selection = JobSelection { labels: &self.selector.text(), states: JobStates::NONE };
        let Self { partition, cursor, limit, .. } = *self;
        let mut bytes = Vec::new();
        ListJobs { request_id, partition, tenant: "", prefix: "", cursor, limit, selection }.encode(&mut bytes);
        bytes
    }

    pub fn show(&mut self, view: &JobView<'_>) {
        let spec = JobSpec::decode(view.spec).expect("the node encodes it");
        let [tenant, name, labels] = [spec.tenant, spec.name, spec.labels].map(str::to_owned);
        self.page.push(Row { job: view.job, revision: view.revision, tenant, name, labels });
    }

    /// The page is complete. Whether it was the last.
    pub fn end_page(&mut self, cursor: u64, partition_count: PartitionCount) -> Result<bool, Violation> {
        demand!(self.page.len() <= self.limit.into(), Answers, "{} jobs in a page of {}", self.page.len(), self.limit);
        self.rows.append(&mut self.page);
        self.cursor = cursor;
        if cursor == PageEnd::LAST {
            (self.partition, self.cursor) = (PartitionId(self.partition.0 + 1), 0);
        }
        Ok(self.partition.0 == partition_count.count())
    }

    /// The jobs that were shown.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Every job that had such labels since `asked_at` was shown once, and none that never had.
    pub fn check(&self, asked_at: Duration, auditor: &mut Auditor) -> Result<(), Violation> {
        auditor.tally.listed += self.rows.len() as u64;
        if auditor.has_lied {
            return Ok(());
        }
        for row in &self.rows {
            demand!(self.selector.admits(&row.labels), Answers, "`{}` does not admit {row:?}", self.selector.text());
            auditor.partition_mut(row.job.partition()).tell(Fact::Revision(row.job, row.revision))?;
        }
        let partitions = auditor.partitions().iter();
        let listed: Vec<_> =
            partitions.flat_map(|partition| partition.labelled.listed(self.selector, asked_at)).collect();
        for row in &self.rows {
            let is_listed = listed.iter().any(|listed| listed.job == row.job);
            demand!(is_listed, Answers, "`{}` never admitted {row:?}", self.selector.text());
        }
        for listed in listed.iter().filter(|listed| listed.is_certain) {
            let count = self.rows.iter().filter(|row| row.job == listed.job).count();
            demand!(count == 1, Answers, "`{}` admits job {}, shown {count} times", self.selector.text(), listed.job);
        }
        Ok(())
    }
}
