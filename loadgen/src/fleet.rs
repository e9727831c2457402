//! The workers' threads: each has a runtime, a socket, a tally and its share of the connections, and shares nothing but the ledger.
//!
//! Connections are dealt out thread by thread, then shard by shard, so that with the default number every shard has a home worker on
//! every thread. A connection that is lost comes back; outside an announced outage that is an error of the run. Instances keep
//! their id across reconnects, as real workers do, but claim nothing: what was in flight is completed already or was never received.
//!
//! Deliberately absent: pinning. Shards are pinned by the server, and the system finds the cores that they leave.

use crate::{
    clock, cores,
    tally::{Live, LiveSum, Tally},
    worker::{Instant, Shared, WorkerError},
};
use anyhow::{Context as _, Result, bail};
use indicatif::ProgressBar;
use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tickwheel_client::{ConnectConfig, Dialer, FrameBatch, Lane};
use tickwheel_wire::{
    InstanceId,
    frame::{Frame as _, work::Attach},
    mix64,
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::LocalSet,
};

/// Pause before a lost connection is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// Handshakes that a thread has under way at a time.
const HANDSHAKES_MAX: usize = 32;
/// Connections that share a socket. More of them overrun its receive buffer when all of them get work at once, and what is lost there
/// is sent again after a time-out; one each would soon exhaust the files that a process may open.
const SOCKET_CONNECTIONS: usize = 16;
/// How long all connections may take to be attached, besides 10 ms for each.
const ATTACH_MAX: Duration = Duration::from_secs(30);
/// How long a thread waits in the end for its last packets to leave.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Who connects where.
#[derive(Clone, Debug)]
pub(crate) struct FleetPlan {
    /// Address of each shard.
    pub addresses: Vec<SocketAddr>,
    /// As whom; its address is not used.
    pub connect: ConnectConfig,
    pub threads: u16,
    /// Connections in all.
    pub connections: u32,
    /// Executions that each may hold.
    pub credit: u32,
    /// Tells this run's instances from others.
    pub run: u32,
    /// Cores that the threads are kept to; empty: any.
    pub cores: Vec<usize>,
}

/// The running threads.
#[derive(Debug)]
pub(crate) struct Fleet {
    threads: Vec<JoinHandle<Result<Tally>>>,
    order: watch::Sender<Order>,
    live: Arc<[Live]>,
    news: mpsc::Receiver<Result<(), String>>,
    connections: u32,
}

/// What is wanted of the connections. The number changes when their sessions are to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Serve(u32),
    Stop,
}

/// One connection's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seat {
    address: SocketAddr,
    instance: InstanceId,
}

impl Fleet {
    /// Starts the threads; see [`Fleet::attached`].
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(plan: &FleetPlan, shared: &Arc<Shared>) -> Result<Self> {
        let live: Arc<[Live]> = (0..plan.threads).map(|_| Live::default()).collect();
        let (order, orders) = watch::channel(Order::Serve(0));
        let (tell, news) = mpsc::channel(2 * plan.connections as usize);
        let mut threads = Vec::new();
        for number in 0..plan.threads {
            let crew = Crew {
                seats: seats(plan, number),
                connect: plan.connect.clone(),
                credit: plan.credit,
                shared: Arc::clone(shared),
                live: Arc::clone(&live),
                number: number.into(),
                tell: tell.clone(),
            };
            let (orders, cores) = (orders.clone(), plan.cores.clone());
            let thread = thread::Builder::new().name(format!("workers-{number}")).spawn(move || {
                cores::keep_to(&cores);
                crew.run(orders)
            });
            threads.push(thread.context("no thread for workers")?);
        }
        Ok(Self { threads, order, live, news, connections: plan.connections })
    }

    /// Waits until every connection is attached for the first time.
    ///
    /// # Errors
    /// When one fails, or it takes too long.
    pub async fn attached(&mut self, bar: &ProgressBar) -> Result<()> {
        let limit = ATTACH_MAX + Duration::from_millis(10) * self.connections;
        let all = async {
            for _ in 0..self.connections {
                match self.news.recv().await {
                    Some(Ok(())) => bar.inc(1),
                    Some(Err(error)) => bail!("a worker cannot attach: {error}"),
                    None => bail!("the workers' threads ended"),
                }
            }
            Ok(())
        };
        tokio::time::timeout(limit, all).await.with_context(|| format!("workers not attached within {limit:?}"))?
    }

    /// What all threads have counted so far.
    pub fn live(&self) -> LiveSum {
        Live::sum(&self.live)
    }

    /// Drops every session and opens it anew, for a server that is known to have lost them.
    pub fn reconnect(&self) {
        self.order.send_modify(|order| {
            if let Order::Serve(number) = order {
                *number += 1;
            }
        });
    }

    /// Ends all connections; what the threads counted together.
    ///
    /// # Errors
    /// When a thread could not work at all.
    pub fn finish(self) -> Result<Tally> {
        // Without threads there is nobody to listen.
        let _ = self.order.send(Order::Stop);
        let mut sum = Tally::new();
        for thread in self.threads {
            sum.merge(&thread.join().expect("workers do not panic")?);
        }
        Ok(sum)
    }
}

fn seats(plan: &FleetPlan, thread: u16) -> Vec<Seat> {
    let (threads, shards) = (u32::from(plan.threads), plan.addresses.len());
    (0..plan.connections)
        .filter(|connection| connection % threads == u32::from(thread))
        .map(|connection| {
            let salt = u64::from(plan.run) << 32 | u64::from(connection);
            let instance = u128::from(mix64(salt)) << 64 | u128::from(mix64(!salt));
            let shard = (connection / threads) as usize % shards;
            Seat { address: plan.addresses[shard], instance: InstanceId(instance) }
        })
        .collect()
}

/// What a thread starts with.
struct Crew {
    seats: Vec<Seat>,
    connect: ConnectConfig,
    credit: u32,
    shared: Arc<Shared>,
    live: Arc<[Live]>,
    number: usize,
    tell: mpsc::Sender<Result<(), String>>,
}

/// What the connections of a thread share.
struct Desk {
    crew: Crew,
    /// One for each [`SOCKET_CONNECTIONS`] seats.
    dialers: Vec<Dialer>,
    handshakes: Semaphore,
    tally: RefCell<Tally>,
}

impl Crew {
    fn run(mut self, orders: watch::Receiver<Order>) -> Result<Tally> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let seats = std::mem::take(&mut self.seats);
        LocalSet::new().block_on(&runtime, async move {
            let socket_count = seats.len().div_ceil(SOCKET_CONNECTIONS);
            let dialers = (0..socket_count).map(|_| Dialer::new(self.connect.clone())).collect::<Result<_, _>>()?;
            let (handshakes, tally) = (Semaphore::new(HANDSHAKES_MAX), RefCell::new(Tally::new()));
            let desk = Rc::new(Desk { crew: self, dialers, handshakes, tally });
            let connections: Vec<_> = seats
                .into_iter()
                .enumerate()
                .map(|(number, seat)| {
                    let socket = number / SOCKET_CONNECTIONS;
                    tokio::task::spawn_local(Rc::clone(&desk).keep(seat, socket, orders.clone()))
                })
                .collect();
            for connection in connections {
                connection.await.expect("connections do not panic");
            }
            // The farewell is a courtesy; the server finds out anyway.
            let _ = tokio::time::timeout(FAREWELL_MAX, desk.wait_idle()).await;
            Ok(desk.tally.replace(Tally::new()))
        })
    }
}

impl Desk {
    async fn wait_idle(&self) {
        for dialer in &self.dialers {
            dialer.wait_idle().await;
        }
    }

    /// Keeps a connection until it is told to stop.
    async fn keep(self: Rc<Self>, seat: Seat, socket: usize, mut orders: watch::Receiver<Order>) {
        let mut told = false;
        while *orders.borrow_and_update() != Order::Stop {
            let Err(error) = self.serve(seat, &self.dialers[socket], orders.clone(), &mut told).await else { continue };
            let window = &self.crew.shared.window;
            if !told {
                // The controller gives up at the first of these, so it does not matter if the channel is full.
                let _ = self.crew.tell.try_send(Err(error.to_string()));
            } else if !window.is_outage() && !window.is_closed() {
                self.tally.borrow_mut().error(format!("a worker's session ended: {error}"));
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Opens a session and serves it. Ends well when the order changes.
    async fn serve(
        &self,
        seat: Seat,
        dialer: &Dialer,
        mut orders: watch::Receiver<Order>,
        told: &mut bool,
    ) -> Result<(), WorkerError> {
        let opening = async {
            let _permit = self.handshakes.acquire().await.expect("the semaphore is never closed");
            dialer.open(seat.address).await
        };
        let session = tokio::select! {
            session = opening => session?,
            _ = orders.changed() => return Ok(()),
        };
        let (mut sender, mut receiver) = session.split();
        let mut out = Vec::new();
        Attach { request_id: 1, instance: seat.instance, capacity: self.crew.credit, pools: "" }.encode(&mut out);
        sender.send(Lane::Control, &out).await?;
        let mut worker = Instant::new(Arc::clone(&self.crew.shared));
        let mut batch = FrameBatch::new();
        loop {
            tokio::select! {
                biased;
                received = receiver.receive(&mut batch) => received?,
                _ = orders.changed() => break,
            }
            self.take(&mut worker, &batch)?;
            if worker.is_attached() && !*told {
                *told = true;
                let _ = self.crew.tell.try_send(Ok(()));
            }
            for lane in Lane::ALL {
                let out = worker.out(lane);
                if !out.is_empty() {
                    sender.send(lane, out).await?;
                    out.clear();
                }
            }
        }
        sender.close();
        Ok(())
    }

    fn take(&self, worker: &mut Instant, batch: &FrameBatch) -> Result<(), WorkerError> {
        let now = clock::now();
        let mut tally = self.tally.borrow_mut();
        let taken = worker.take(batch.frames(), now, &mut tally);
        self.crew.live[self.crew.number].publish(&tally);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use tickwheel_client::Credentials;

    /// Any certificate and key will do: nothing is connected.
    fn plan(threads: u16, connections: u32, shards: u16) -> FleetPlan {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let credentials =
            Credentials::from_pem(certificate.as_bytes(), certificate.as_bytes(), key.serialize_pem().as_bytes());
        FleetPlan {
            addresses: (0..shards).map(|shard| SocketAddr::from(([127, 0, 0, 1], 7_400 + shard))).collect(),
            connect: ConnectConfig::new("127.0.0.1:7400", credentials.unwrap()),
            threads,
            connections,
            credit: 1,
            run: 1,
            cores: Vec::new(),
        }
    }

    #[test]
    fn by_default_every_shard_has_a_worker_on_every_thread() {
        let plan = plan(2, 6, 3);
        for thread in 0..2 {
            let ports: Vec<_> = seats(&plan, thread).iter().map(|seat| seat.address.port()).collect();
            assert_eq!(ports, [7_400, 7_401, 7_402], "thread {thread}");
        }
    }

    #[test]
    fn no_two_connections_are_the_same_instance() {
        let plan = plan(3, 1_000, 2);
        let all: Vec<_> = (0..3).flat_map(|thread| seats(&plan, thread)).collect();
        let instances: BTreeSet<_> = all.iter().map(|seat| seat.instance).collect();
        assert_eq!((all.len(), instances.len()), (1_000, 1_000));
    }
}
