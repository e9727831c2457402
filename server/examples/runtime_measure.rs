//! Measures what a shard stands on, on this machine: wake-ups, deadlines, the idle price, the log device and the socket.
//!
//! `cargo run --release -p tickwheel-server --example runtime_measure [DIRECTORY]`; the log is written in DIRECTORY (default:
//! the current one), 64 MiB, and removed. Takes about 15 seconds.

use std::{
    fs,
    net::SocketAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tickwheel_server::runtime::{
    counters::ShardCounters,
    device::{DeviceOptions, UringDevice},
    executor::{self, CorePlan},
    idle::{Idle, IdleStrategy, Rest, ShardWaker},
    queues::{Port, mesh},
    socket::{Outgoing, Sent, ShardSocket, SocketOptions},
};
use tickwheel_storage::{
    AlignedBuffer,
    device::{Completion, Device, Durability, FileId, Task},
};
use tickwheel_wire::ShardId;

const SEGMENT_BYTES: u64 = 64 << 20;
const RUN: Duration = Duration::from_secs(1);
const NO_SPIN: IdleStrategy = IdleStrategy { spin: Duration::ZERO, timer_lead: Duration::ZERO };

fn main() -> anyhow::Result<()> {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".into()));
    let plan = CorePlan::for_this_machine(2)?;
    println!("cores: {plan:?}");
    measure_on_shards(&plan)?;
    let one = CorePlan::for_this_machine(1)?;
    let helper_cores = one.helper_cores.clone();
    let shards = executor::start(&one, vec![move || async move { measure_device(&directory, &helper_cores) }])?;
    shards.join().into_iter().collect()
}

/// Nanoseconds that the calling thread has spent on a core.
fn cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

fn print(name: &str, mut samples: Vec<Duration>, note: &str) {
    samples.sort_unstable();
    let at = |quantile: usize| samples[(samples.len() - 1) * quantile / 1000].as_nanos() / 100;
    let [p50, p99, max] = [500, 990, 1000].map(at).map(|tenths| format!("{}.{}", tenths / 10, tenths % 10));
    println!("{name:44} n {:6}  p50 {p50:>7}  p99 {p99:>7}  max {max:>8} us  {note}", samples.len());
}

/// Two shards: the first sleeps, the second sends and wakes it.
fn measure_on_shards(plan: &CorePlan) -> anyhow::Result<()> {
    let wakers = [ShardWaker::new()?, ShardWaker::new()?];
    let mut ports = mesh::<Option<Instant>>(&wakers, 64);
    let sender = ports.pop().context("two ports")?;
    let receiver = ports.pop().context("two ports")?;
    let (address_sender, address) = mpsc::channel::<SocketAddr>();
    let waker = wakers[0].clone();
    type Body = Box<dyn FnOnce() -> std::future::Ready<anyhow::Result<()>> + Send>;
    let bodies: Vec<Body> = vec![
        Box::new(move || std::future::ready(sleep_and_receive(receiver, waker, &address_sender))),
        Box::new(move || std::future::ready(wake_and_send(sender, &address))),
    ];
    executor::start(plan, bodies)?.join().into_iter().collect()
}

fn sleep_and_receive(
    mut port: Port<Option<Instant>>,
    waker: ShardWaker,
    address: &mpsc::Sender<SocketAddr>,
) -> anyhow::Result<()> {
    let counters = Arc::new(ShardCounters::default());
    let mut idle = Idle::new(waker, NO_SPIN, Arc::clone(&counters))?;
    let mut latencies = Vec::new();
    'messages: loop {
        while let Some((_, message)) = port.try_receive() {
            let Some(sent_at) = message else { break 'messages };
            latencies.push(sent_at.elapsed());
        }
        idle.rest(Instant::now(), None, &[], || port.has_messages());
    }
    print("wake-up of a sleeping sibling", latencies, "");
    measure_deadlines(&mut idle);

    let before = (cpu_ns(), Instant::now());
    idle.rest(Instant::now(), Some(Instant::now() + 2 * RUN), &[], || false);
    let share = (cpu_ns() - before.0) as f64 / before.1.elapsed().as_nanos() as f64;
    println!("idle for {:?}: {:.4} % of a core", 2 * RUN, share * 100.0);
    receive_datagrams(&mut idle, &counters, address)
}

fn measure_deadlines(idle: &mut Idle) {
    let mut late = Vec::new();
    for index in 0..1000_u64 {
        let deadline = Instant::now() + Duration::from_nanos(300_000 + index * 37_000 % 700_000);
        while idle.rest(Instant::now(), Some(deadline), &[], || false) == Rest::Interrupted {}
        late.push(deadline.elapsed());
    }
    print("lateness of a deadline", late, "");
}

fn receive_datagrams(
    idle: &mut Idle,
    idle_counters: &ShardCounters,
    address: &mpsc::Sender<SocketAddr>,
) -> anyhow::Result<()> {
    let counters = Arc::new(ShardCounters::default());
    let mut socket = ShardSocket::bind("127.0.0.1:0".parse()?, SocketOptions::default(), Arc::clone(&counters))?;
    address.send(socket.local_address())?;
    let (mut bytes, begin, sleeps) = (0, Instant::now(), idle_counters.sleeps.count());
    while begin.elapsed() < RUN {
        socket.receive(|datagram| bytes += datagram.bytes.len())?;
        idle.rest(Instant::now(), Some(begin + RUN), &[socket.as_fd()], || false);
    }
    let (datagrams, calls) = (counters.datagrams_received.count(), counters.system_calls.count());
    let calls = calls + idle_counters.sleeps.count() - sleeps;
    println!(
        "received: {datagrams} datagrams/s, {} MB/s, {:.4} calls each",
        bytes >> 20,
        calls as f64 / datagrams as f64
    );
    Ok(())
}

fn wake_and_send(mut port: Port<Option<Instant>>, address: &mpsc::Receiver<SocketAddr>) -> anyhow::Result<()> {
    for _ in 0..1000 {
        thread::sleep(Duration::from_micros(700));
        if port.try_send(ShardId(0), Some(Instant::now())).is_ok() {
            port.flush();
        }
    }
    while port.try_send(ShardId(0), None).is_err() {
        thread::yield_now();
    }
    port.flush();
    let destination = address.recv()?;
    let counters = Arc::new(ShardCounters::default());
    let socket = ShardSocket::bind("127.0.0.1:0".parse()?, SocketOptions::default(), Arc::clone(&counters))?;
    let contents = vec![1; socket.segments_max(1200) * 1200];
    let outgoing = Outgoing { destination, source_ip: None, ecn: None, contents: &contents, segment_bytes: Some(1200) };
    let begin = Instant::now();
    while begin.elapsed() < RUN {
        if socket.try_send(&outgoing) != Sent::Taken {
            thread::yield_now();
        }
    }
    println!(
        "sent: {} datagrams/s, {} in a call",
        counters.sends.count() * contents.len() as u64 / 1200,
        contents.len() / 1200
    );
    Ok(())
}

fn measure_device(directory: &Path, helper_cores: &[usize]) -> anyhow::Result<()> {
    for offload in [false, true] {
        let options = DeviceOptions { offload, helper_cores: helper_cores.to_vec(), ..DeviceOptions::new(directory) };
        let counters = Arc::new(ShardCounters::default());
        let mut device = UringDevice::new(options, Arc::clone(&counters))?;
        let begin = Instant::now();
        let path = PathBuf::from("runtime_measure.segment");
        device.submit_task(Task::Prepare { path: path.clone(), bytes: SEGMENT_BYTES, head: Vec::new() });
        let mut completions = Vec::new();
        while completions.is_empty() {
            thread::yield_now();
            device.poll(&mut completions);
        }
        let file = completions.remove(0).result?.context("a prepared file is open")?;
        println!("segment of 64 MiB prepared in {:?}", begin.elapsed());
        for (bytes, depth) in [(4 << 10, 1), (4 << 10, 4), (256 << 10, 1), (256 << 10, 4)] {
            measure_writes(&mut device, &counters, file, bytes, depth, offload)?;
        }
        device.remove(&path)?;
    }
    Ok(())
}

fn measure_writes(
    device: &mut UringDevice,
    counters: &ShardCounters,
    file: FileId,
    bytes: usize,
    depth: usize,
    offload: bool,
) -> anyhow::Result<()> {
    let mut buffers: Vec<AlignedBuffer> = (0..depth).map(|_| AlignedBuffer::with_capacity(bytes)).collect();
    buffers.iter_mut().for_each(|buffer| buffer.set_len(bytes));
    let mut begun = Vec::new();
    let (mut offset, mut latencies, mut completions) = (0, Vec::new(), Vec::<Completion>::new());
    let (begin, calls, mut submitting) = (Instant::now(), counters.system_calls.count(), Duration::ZERO);
    while begin.elapsed() < RUN || !begun.is_empty() {
        if begin.elapsed() < RUN {
            for buffer in buffers.drain(..) {
                let op = device.submit_write(file, offset, buffer, Durability::Synced);
                offset = (offset + bytes as u64) % SEGMENT_BYTES;
                begun.push((op, Instant::now()));
            }
        }
        let (before, polled_at) = (counters.system_calls.count(), Instant::now());
        device.poll(&mut completions);
        if counters.system_calls.count() > before {
            submitting += polled_at.elapsed();
        }
        for completion in completions.drain(..) {
            completion.result?;
            buffers.extend(completion.buffer);
            let index = begun.iter().position(|(op, _)| *op == completion.op).context("an operation of ours")?;
            latencies.push(begun.swap_remove(index).1.elapsed());
        }
    }
    let count = u32::try_from(latencies.len())?;
    let calls = (counters.system_calls.count() - calls) as f64 / f64::from(count);
    let note = format!("in calls {:?} and {calls:.2} calls per write", submitting / count);
    print(&format!("durable write of {bytes} B, depth {depth}, offload {offload}"), latencies, &note);
    Ok(())
}
