//! `tickwheel certs`: an authority, and certificates from it.
//!
//! Invariant: nothing that exists is overwritten; a certificate is renewed by removing its two files first.

use super::{
    args::{CertsCommand, FolderArguments},
    error::CliError,
    output,
};
use crate::certificates::{Authority, CertificateError, Files};
use std::path::Path;
use tickwheel_net::{Identity, Role};

/// Name of the authority's own files.
const AUTHORITY: &str = "ca";

pub(super) fn run(command: &CertsCommand) -> Result<(), CliError> {
    match command {
        CertsCommand::Ca(arguments) => {
            let folder = &arguments.folder.out;
            Authority::create(folder).map_err(CliError::failed)?;
            tell(&Files::of(folder, AUTHORITY))
        }
        CertsCommand::Server(arguments) => {
            let authority = open(&arguments.folder, &arguments.name)?;
            tell(&authority.issue_server(&arguments.name, &arguments.host, arguments.validity.days).map_err(refused)?)
        }
        CertsCommand::Client(arguments) => {
            let tenant = Some(arguments.tenant.clone());
            let identity = Identity { name: arguments.name.clone(), role: Role::Client, tenant, pools: Vec::new() };
            issue(&arguments.folder, &identity, arguments.validity.days)
        }
        CertsCommand::Admin(arguments) => {
            let tenant = arguments.tenant.clone();
            let identity = Identity { name: arguments.name.clone(), role: Role::Admin, tenant, pools: Vec::new() };
            issue(&arguments.folder, &identity, arguments.validity.days)
        }
        CertsCommand::Worker(arguments) => {
            let tenant = Some(arguments.tenant.clone());
            let pools = arguments.pool.clone();
            let identity = Identity { name: arguments.name.clone(), role: Role::Worker, tenant, pools };
            issue(&arguments.folder, &identity, arguments.validity.days)
        }
    }
}

fn issue(folder: &FolderArguments, identity: &Identity, days: u16) -> Result<(), CliError> {
    identity.validate().map_err(|error| CliError::Usage(error.to_string()))?;
    let authority = open(folder, &identity.name)?;
    tell(&authority.issue_identity(&identity.name, identity, days).map_err(refused)?)
}

/// Opens the authority, if the files of `name` may be written.
fn open(folder: &FolderArguments, name: &str) -> Result<Authority, CliError> {
    let folder = &folder.out;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~');
    if name == AUTHORITY || name.is_empty() || !name.chars().all(plain) {
        return Err(CliError::Usage(format!(
            "{name:?} cannot be the name of a certificate; use A-Z a-z 0-9 . _ - ~, but not `ca`"
        )));
    }
    let Files { certificate, key } = Files::of(folder, name);
    if let Some(taken) = [certificate, key].into_iter().find(|file| file.exists()) {
        let taken = taken.display();
        return Err(CliError::Failed(format!("{taken} exists; remove it to issue another, or choose another --name")));
    }
    if !Files::of(folder, AUTHORITY).certificate.exists() {
        return Err(no_authority(folder));
    }
    Authority::open(folder).map_err(CliError::failed)
}

fn no_authority(folder: &Path) -> CliError {
    let folder = folder.display();
    CliError::Failed(format!("no authority in {folder}; make one with `tickwheel certs ca --out {folder}`"))
}

fn refused(error: CertificateError) -> CliError {
    match error {
        CertificateError::Identity(error) => CliError::Usage(error.to_string()),
        other => CliError::failed(other),
    }
}

fn tell(files: &Files) -> Result<(), CliError> {
    output::write(&format!("{}\n{}\n", files.certificate.display(), files.key.display()))
}
