//! `tickwheel job export`: the server's jobs as a jobs file.
//!
//! What is exported can be applied: on the same server it changes nothing, on another one it makes the same jobs. The tenant
//! `default` is left out, as every client speaks for it unless it says otherwise. Deliberately absent: what a job has done so
//! far, which no definition holds.

use super::{
    args::{ExportArguments, ExportFormat},
    connection::{present, with_client},
    error::CliError,
    output, views,
};
use crate::{
    config::TENANT_DEFAULT,
    jobs_file::{FileJob, write::Keys},
};
use tickwheel_client::{Job, Schedule};

/// Stands above a job that its file cannot say everything about.
const FIRED: &str = "# It has fired. Where there is no such job, applying this fires it at once.\n";

pub(super) fn run(arguments: &ExportArguments) -> Result<(), CliError> {
    let filter = arguments.filter.resolve(arguments.connection.tenant.as_deref());
    let (mut jobs, mut complete) = with_client(&arguments.connection, async |client| {
        let (mut pager, mut jobs, mut complete) = (client.list(filter)?, Vec::new(), true);
        while let Some(row) = pager.next().await {
            match present(row)? {
                Some(job) => jobs.push(job),
                None => complete = false,
            }
        }
        Ok((jobs, complete))
    })?;
    jobs.sort_by(|a, b| (&a.definition.tenant, &a.definition.name).cmp(&(&b.definition.tenant, &b.definition.name)));
    let mut exported = Vec::with_capacity(jobs.len());
    for job in jobs {
        match Keys::of(&file_job(&job)) {
            Ok(keys) => exported.push((has_fired(&job), keys)),
            Err(error) => {
                let (name, tenant) = (&job.definition.name, &job.definition.tenant);
                eprintln!("error: job {name:?} of tenant {tenant:?} is left out: {error}");
                complete = false;
            }
        }
    }
    match arguments.output {
        ExportFormat::Toml => output::write(&text(&exported))?,
        ExportFormat::Json => output::json(&exported.iter().map(|(_, keys)| views::keys(keys)).collect::<Vec<_>>())?,
    }
    if complete { Ok(()) } else { Err(CliError::Told) }
}

/// The job as a file states it.
fn file_job(job: &Job) -> FileJob {
    let mut definition = job.definition.clone();
    if definition.tenant == TENANT_DEFAULT {
        definition.tenant.clear();
    }
    FileJob { definition, paused: job.paused.then_some(true) }
}

fn has_fired(job: &Job) -> bool {
    job.definition.schedules().all(|schedule| matches!(schedule, Schedule::Once { .. })) && job.next_fire.is_none()
}

fn text(exported: &[(bool, Keys)]) -> String {
    let jobs = exported.iter().map(|(fired, keys)| format!("{}{}", if *fired { FIRED } else { "" }, keys.text()));
    jobs.collect::<Vec<_>>().join("\n")
}
