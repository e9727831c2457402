//! A shard's parts allocate nothing once they are warm: counted by the allocator, not by reading the code.

use std::{
    hint::black_box,
    net::SocketAddr,
    os::fd::AsFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tickwheel_server::runtime::{
    allocations::{CountingAllocator, on_this_thread},
    clock::Clock,
    counters::ShardCounters,
    device::{DeviceOptions, UringDevice},
    idle::{Idle, IdleStrategy, ShardWaker},
    queues::{Port, mesh},
    socket::{Outgoing, Sent, ShardSocket, SocketOptions},
};
use tickwheel_storage::{
    AlignedBuffer,
    device::{Completion, Device, Durability, FileId, Task},
};
use tickwheel_wire::{ShardId, Timestamp};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn each_allocation_is_counted_on_its_own_thread() {
    let before = on_this_thread();
    let mut vector = black_box(Vec::<u64>::with_capacity(4));
    assert_eq!(on_this_thread() - before, 1);
    vector.reserve_exact(1000);
    assert_eq!(on_this_thread() - before, 2, "growing is an allocation too");
    drop(black_box(vector));
    assert_eq!(on_this_thread() - before, 2);
    let before = on_this_thread();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let before = on_this_thread();
            (0..100).for_each(|number: u64| drop(black_box(Box::new(number))));
            on_this_thread() - before
        });
        assert_eq!(other.join().expect("no panic"), 100);
    });
    assert!(on_this_thread() - before < 100, "another thread's allocations are not ours");
}

/// Everything that a turn touches.
struct Shard {
    clock: Clock,
    idle: Idle,
    port: Port<u64>,
    sibling: Port<u64>,
    socket: ShardSocket,
    device: UringDevice,
    file: FileId,
    buffer: Option<AlignedBuffer>,
    completions: Vec<Completion>,
    counters: Arc<ShardCounters>,
}

impl Shard {
    fn new(root: PathBuf) -> Self {
        let counters = Arc::new(ShardCounters::default());
        let wakers = [(); 2].map(|()| ShardWaker::new().expect("a descriptor"));
        let mut ports = mesh(&wakers, 4);
        let strategy = IdleStrategy { spin: Duration::ZERO, timer_lead: Duration::ZERO };
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut device = UringDevice::new(DeviceOptions::new(root), Arc::clone(&counters)).expect("io_uring");
        device.submit_task(Task::Prepare { path: "segment".into(), bytes: 1 << 20, head: Vec::new() });
        let mut completions = Vec::new();
        while completions.is_empty() {
            device.poll(&mut completions);
        }
        let mut buffer = AlignedBuffer::with_capacity(8192);
        buffer.set_len(8192);
        Self {
            clock: Clock::new(Timestamp::EPOCH),
            idle: Idle::new(wakers[0].clone(), strategy, Arc::clone(&counters)).expect("precise timers"),
            sibling: ports.pop().expect("two ports"),
            port: ports.pop().expect("two ports"),
            socket: ShardSocket::bind(loopback, SocketOptions::default(), Arc::clone(&counters)).expect("a free port"),
            device,
            file: completions.remove(0).result.expect("room").expect("open"),
            buffer: Some(buffer),
            completions,
            counters,
        }
    }

    /// Sends itself a batch of datagrams and a message, writes a block, and sleeps until something is there.
    fn turn(&mut self) {
        self.counters.turn();
        let reading = self.clock.now();
        self.sibling.try_send(ShardId(0), 7).expect("an empty queue");
        self.sibling.flush();
        assert_eq!(self.port.try_receive(), Some((ShardId(1), 7)));
        let destination = self.socket.local_address();
        let contents = &[3; 12_000];
        let outgoing = Outgoing { destination, source_ip: None, ecn: None, contents, segment_bytes: Some(1200) };
        assert_eq!(self.socket.try_send(&outgoing), Sent::Taken);
        let buffer = self.buffer.take().expect("the last turn brought it back");
        self.device.submit_write(self.file, 0, buffer, Durability::Synced);
        let mut received_count = 0;
        while received_count < 10 || self.buffer.is_none() {
            self.socket.receive(|datagram| received_count += usize::from(datagram.bytes.len() == 1200)).expect("sound");
            self.device.poll(&mut self.completions);
            for completion in self.completions.drain(..) {
                completion.result.expect("the write succeeds");
                self.buffer = completion.buffer;
            }
            let has_work = self.device.has_work() || self.buffer.is_some();
            let deadline = reading.instant + Duration::from_secs(30);
            self.idle.rest(Instant::now(), Some(deadline), &[self.socket.as_fd(), self.device.as_fd()], || has_work);
        }
    }
}

#[test]
fn a_warm_shards_turn_allocates_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut shard = Shard::new(directory.path().to_owned());
    (0..10).for_each(|_| shard.turn());
    let before = on_this_thread();
    // Long enough to use up the block that datagrams are sliced from.
    (0..200).for_each(|_| shard.turn());
    assert_eq!(on_this_thread() - before, 0);
    assert!(shard.counters.allocations.count() > 0, "the counters publish what was allocated before");
    assert_eq!(shard.counters.turns.count(), 210);
}
