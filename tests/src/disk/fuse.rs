//! A file system of one file, which is its root: just enough of the kernel's FUSE protocol (linux/fuse.h, version 7.31) for a loop device.
//!
//! One thread answers one request after the other, so their order is exact. It ends with the mount.

use super::{Shared, lock};
use anyhow::{Context as _, ensure};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
};

const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const DESTROY: u32 = 38;
/// FORGET, INTERRUPT, BATCH_FORGET: nobody waits for an answer.
const UNANSWERED: [u32; 3] = [2, 36, 42];

const IN_HEADER_BYTES: usize = 40;
const WRITE_IN_BYTES: usize = 40;
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// FUSE_BIG_WRITES and FUSE_MAX_PAGES.
const FLAGS: u32 = 1 << 5 | 1 << 22;
/// FOPEN_DIRECT_IO: no page cache between the loop device and this file.
const DIRECT_IO: u32 = 1;
const REGULAR_FILE: u32 = 0o100_600;

type Answer = Result<Vec<u8>, i32>;

/// Mounts the platter as a file over the file `path`, until that is unmounted.
pub(super) fn serve(path: &Path, platter: Shared) -> anyhow::Result<()> {
    let connection = OpenOptions::new().read(true).write(true).open("/dev/fuse").context("/dev/fuse")?;
    // `mount` has the connection as its standard input.
    let options = format!("fd=0,rootmode={REGULAR_FILE:o},user_id=0,group_id=0");
    let output = Command::new("mount")
        .args(["-i", "-t", "fuse", "-o", &options, "platter"])
        .arg(path)
        .stdin(Stdio::from(connection.try_clone()?))
        .output()
        .context("there is no `mount`")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    thread::Builder::new().name("platter".into()).spawn(move || answer_all(&connection, &platter))?;
    Ok(())
}

fn answer_all(connection: &File, platter: &Shared) {
    let mut buffer = vec![0; WRITE_BYTES_MAX as usize + (64 << 10)];
    loop {
        let length = match (&*connection).read(&mut buffer) {
            Ok(length) => length,
            // The request was taken back, or a signal came.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR | libc::EAGAIN)) => continue,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "it is unmounted: {error}");
                return;
            }
        };
        let request = &buffer[..length];
        let (opcode, unique) = (u32_at(request, 4), u64_at(request, 8));
        if UNANSWERED.contains(&opcode) {
            continue;
        }
        let answer = answer(opcode, &request[IN_HEADER_BYTES..], platter);
        if let Err(error) = send(connection, unique, &answer) {
            // Who asked may be gone.
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "the kernel takes no answer: {error}");
        }
    }
}

fn send(mut connection: &File, unique: u64, answer: &Answer) -> io::Result<()> {
    let (error, body) = match answer {
        Ok(body) => (0, &body[..]),
        Err(error) => (-error, &[][..]),
    };
    let length = 16 + body.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&u32::try_from(length).expect("bounded by the longest read").to_ne_bytes());
    bytes.extend_from_slice(&error.to_ne_bytes());
    bytes.extend_from_slice(&unique.to_ne_bytes());
    bytes.extend_from_slice(body);
    connection.write_all(&bytes)
}

fn answer(opcode: u32, body: &[u8], platter: &Shared) -> Answer {
    match opcode {
        INIT => {
            Ok(words(&[7, 31, u32_at(body, 8), FLAGS, 64 | 48 << 16, WRITE_BYTES_MAX, 1, 256, 0, 0, 0, 0, 0, 0, 0, 0]))
        }
        GETATTR | SETATTR => Ok(attributes(lock(platter).contents.len())),
        OPEN => Ok(words(&[0, 0, DIRECT_IO, 0])),
        READ => Ok(read(body, platter)),
        WRITE => write(body, platter),
        FSYNC => {
            if lock(platter).flush() {
                Ok(Vec::new())
            } else {
                Err(libc::EIO)
            }
        }
        STATFS => Ok(vec![0; 80]),
        RELEASE | FLUSH | DESTROY => Ok(Vec::new()),
        _ => Err(libc::ENOSYS),
    }
}

fn read(body: &[u8], platter: &Shared) -> Vec<u8> {
    let (offset, length) = (size(u64_at(body, 8)), u32_at(body, 16) as usize);
    let contents = &lock(platter).contents;
    let start = offset.min(contents.len());
    contents[start..(offset + length).clamp(start, contents.len())].to_vec()
}

fn write(body: &[u8], platter: &Shared) -> Answer {
    let (offset, length) = (size(u64_at(body, 8)), u32_at(body, 16));
    let bytes = &body[WRITE_IN_BYTES..WRITE_IN_BYTES + length as usize];
    if lock(platter).write(offset, bytes) { Ok(words(&[length, 0])) } else { Err(libc::EIO) }
}

/// `fuse_attr_out`: valid for no time at all, of a regular file of `bytes` bytes.
fn attributes(bytes: usize) -> Vec<u8> {
    let mut out = vec![0; 16];
    for word in [1, bytes as u64, bytes as u64 / 512, 0, 0, 0] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out.extend(words(&[0, 0, 0, REGULAR_FILE, 1, 0, 0, 0, 4096, 0]));
    out
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn size(value: u64) -> usize {
    usize::try_from(value).expect("the platter fits in memory")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
