//! What this machine lets any scheduler do: 20,000 firings per second, each made durable before it is told to another core.
//!
//! One thread spins for what is due, writes one 4 KiB block for all of it (direct, `RWF_DSYNC`, into a file of zeroes) and sends one datagram over
//! loopback; a thread on another core reads it. No log, no QUIC, no scheduler. The lateness printed is the floor under that of
//! `tickwheel-loadgen --profile steady --rate 20k`: on a shared machine compare the two within the same minutes.
//!
//! `cargo run --release -p tickwheel-bench --example floor -- [FOLDER]`; the file lies in FOLDER, by default `target`.

use rustix::{
    fs::OFlags,
    io::{ReadWriteFlags, pwritev2},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use std::{
    env, fs, io,
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};
use tickwheel_storage::AlignedBuffer;

const PERIOD: Duration = Duration::from_micros(50);
const WATCHED: Duration = Duration::from_secs(10);
const FILE_BYTES: u64 = 64 << 20;
const BLOCK_BYTES: usize = 4 << 10;
/// Firings told in one datagram; more wait for the next.
const TOLD_MAX: usize = 128;

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let allowed = sched_getaffinity(None)?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    sender.connect(receiver.local_addr()?)?;
    let path = folder.join("floor.tmp");
    let begin = Instant::now();
    let last_core = cores[cores.len() - 1];
    let listening = thread::spawn(move || listen(&receiver, begin, last_core));
    run_on(cores[0]);
    let result = fire(&path, &sender, begin);
    fs::remove_file(&path)?;
    // An empty datagram says that nothing follows.
    sender.send(&[])?;
    let (mut late, commits) = (listening.join().expect("it does not panic")?, result?);
    late.sort_unstable();
    let at = |per_mille: usize| late[(late.len() - 1) * per_mille / 1_000];
    println!(
        "{} firings, {commits} commits: late p50 {} us, p99 {} us, p99.9 {} us",
        late.len(),
        at(500),
        at(990),
        at(999)
    );
    Ok(())
}

fn run_on(core: usize) {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).expect("the core is among the allowed ones");
}

/// Fires for a while; how many commits that took.
fn fire(path: &PathBuf, sender: &UdpSocket, begin: Instant) -> io::Result<u64> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).expect("a flag of open");
    let file = fs::OpenOptions::new().create(true).truncate(true).write(true).custom_flags(flags).open(path)?;
    let mut zeroes = AlignedBuffer::with_capacity(1 << 20);
    zeroes.set_len(zeroes.capacity());
    for offset in (0..FILE_BYTES).step_by(zeroes.capacity()) {
        file.write_all_at(zeroes.as_slice(), offset)?;
    }
    file.sync_all()?;
    let mut block = AlignedBuffer::with_capacity(BLOCK_BYTES);
    let (start, mut commits) = (Instant::now(), 0);
    let mut due = start;
    while due - start < WATCHED {
        let now = Instant::now();
        if now < due {
            continue;
        }
        block.clear();
        while due <= now && block.len() < TOLD_MAX * 8 {
            block.extend_from_slice(&micros(due - begin).to_le_bytes());
            due += PERIOD;
        }
        let told_bytes = block.len();
        block.pad();
        let offset = commits * BLOCK_BYTES as u64 % FILE_BYTES;
        pwritev2(&file, &[io::IoSlice::new(block.as_slice())], offset, ReadWriteFlags::DSYNC)?;
        commits += 1;
        sender.send(&block.as_slice()[..told_bytes])?;
    }
    Ok(commits)
}

/// How late each firing was told, in us.
fn listen(receiver: &UdpSocket, begin: Instant, core: usize) -> io::Result<Vec<u64>> {
    run_on(core);
    let (mut datagram, mut late) = ([0; TOLD_MAX * 8], Vec::with_capacity(1 << 18));
    loop {
        let bytes = receiver.recv(&mut datagram)?;
        if bytes == 0 {
            return Ok(late);
        }
        let now = micros(begin.elapsed());
        let (times, _) = datagram[..bytes].as_chunks::<8>();
        late.extend(times.iter().map(|time| now - u64::from_le_bytes(*time)));
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("a run of seconds")
}
