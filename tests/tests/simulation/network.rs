//! A network of byte streams with delays, losses, partitions and peers that vanish.
//!
//! It is TCP as programs see it: bytes come in order or not at all. A lost segment is one that
//! comes late, with everything behind it; a partition holds bytes back; a connection ends with
//! its last bytes (close), without them (reset), or without a word (silence).
//!
//! Tokio wakes the receivers of one `watch` in an order that chance decides, and no seed. So each
//! link draws from a stream of its own, and what comes over it comes in milliseconds that only it
//! has: whoever is woken first, nothing else changes. And what is written within a millisecond
//! takes equally long, however many writes it is: hyper writes the date, which is the real one,
//! and tonic ends its connections in an order that chance decides, too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::server::Connected;

use crate::random::Random;

/// Whose a millisecond is: node 0, node 1, operators, the world.
const TURNS: u64 = 4;
/// The world's.
pub(crate) const WORLD: usize = 3;
/// The operators' link, which has no faults.
pub(crate) const OPERATOR: usize = 2;

/// Bytes that wait in one direction before the writer waits too.
const BUFFER: usize = 256 << 10;

/// Which end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// The node's.
    Client = 0,
    /// The controller's.
    Server = 1,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// How the far end learns that a connection is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// After everything that was sent.
    Close,
    /// At once; what is on its way is lost.
    Reset,
    /// Not at all.
    Silence,
}

/// How it goes on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Milliseconds on the way, at most.
    pub(crate) latency: u64,
    /// Segments that are lost and sent again, of a hundred.
    pub(crate) loss: u64,
}

/// The network. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    inner: Arc<Mutex<Inner>>,
    released: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    begin: Instant,
    /// Of each link.
    random: [Random; 3],
    weather: Weather,
    held: BTreeSet<usize>,
    ports: BTreeMap<&'static str, mpsc::UnboundedSender<io::Result<End>>>,
    wires: BTreeMap<u64, Wire>,
    made: u64,
}

/// One connection. What belongs to a side is in its place.
#[derive(Debug)]
struct Wire {
    link: usize,
    seeds: [u64; 2],
    inbox: [Inbox; 2],
    /// This side's program died.
    severed: [bool; 2],
    /// This side's end was dropped.
    gone: [bool; 2],
    /// Nothing passes any more, and nobody is told.
    silent: bool,
}

#[derive(Debug, Default)]
struct Inbox {
    segments: VecDeque<Segment>,
    bytes: usize,
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Segment {
    due: Instant,
    /// Empty: the end.
    bytes: Vec<u8>,
    read: usize,
}

impl Weather {
    /// Of what is sent `at` so many milliseconds; `seed`: over which wire.
    fn delay(self, seed: u64, at: u64) -> Duration {
        let random = Random::new(seed.wrapping_add(at));
        let lost = random.chance(self.loss);
        let retransmitted = if lost { 200 << random.below(4) } else { 0 };
        Duration::from_millis(random.below(self.latency + 1) + retransmitted)
    }
}

impl Inner {
    /// The next moment of a link, or the world, after a while.
    fn moment(&self, whose: usize, wait: Duration) -> Instant {
        let since = self.begin.elapsed() + wait;
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX) + 1;
        let whose = u64::try_from(whose).unwrap_or(0);
        let next = now + (whose + TURNS - now % TURNS) % TURNS;
        self.begin + Duration::from_millis(next)
    }

    fn delay(&self, link: usize) -> Instant {
        self.moment(link, self.weather.delay(self.random[link].next(), 0))
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Puts bytes on their way to a side.
    fn send(&mut self, id: u64, to: Side, bytes: &[u8]) {
        let Some(wire) = self.wires.get(&id) else { return };
        if wire.silent {
            return;
        }
        let delay = self.weather.delay(wire.seeds[to as usize], self.milliseconds());
        let due = self.moment(wire.link, delay);
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let inbox = &mut wire.inbox[to as usize];
        let due = inbox.segments.back().map_or(due, |last| last.due.max(due));
        inbox.bytes += bytes.len();
        inbox.segments.push_back(Segment { due, bytes: bytes.to_vec(), read: 0 });
        wake(&mut inbox.reader);
    }
}

impl Wire {
    fn new(link: usize, seeds: [u64; 2]) -> Self {
        let inbox = [Inbox::default(), Inbox::default()];
        let (severed, gone) = ([false; 2], [false; 2]);
        Self { link, seeds, inbox, severed, gone, silent: false }
    }

    fn wake_all(&mut self) {
        for inbox in &mut self.inbox {
            wake(&mut inbox.reader);
            wake(&mut inbox.writer);
        }
    }

    fn end(&mut self, to: Side, manner: Manner) {
        let inbox = &mut self.inbox[to as usize];
        match manner {
            Manner::Close => {}
            Manner::Reset => {
                inbox.segments.clear();
                inbox.reset = true;
            }
            Manner::Silence => {
                inbox.segments.clear();
                self.silent = true;
            }
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Network {
    pub(crate) fn new(random: &Random, weather: Weather) -> Self {
        let inner = Inner {
            begin: Instant::now(),
            random: [random.branch(), random.branch(), random.branch()],
            weather,
            held: BTreeSet::new(),
            ports: BTreeMap::new(),
            wires: BTreeMap::new(),
            made: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), released: watch::Sender::new(0) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next moment of a link, or the world, after a while.
    pub(crate) fn moment(&self, whose: usize, wait: Duration) -> Instant {
        self.inner().moment(whose, wait)
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.inner().weather = weather;
    }

    /// Takes a port, also from who had it before.
    pub(crate) fn listen(&self, port: &'static str) -> UnboundedReceiverStream<io::Result<End>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.inner().ports.insert(port, sender);
        UnboundedReceiverStream::new(receiver)
    }

    /// Nobody answers there any more.
    pub(crate) fn close(&self, port: &'static str) {
        self.inner().ports.remove(port);
    }

    /// Connects over a link to whoever listens.
    pub(crate) async fn connect(self, link: usize, port: &'static str) -> io::Result<End> {
        let there = self.inner().delay(link);
        sleep_until(there).await;
        let mut released = self.released.subscribe();
        while self.inner().held.contains(&link) {
            let _ = released.changed().await;
        }
        let (end, back) = {
            let mut inner = self.inner();
            let back = inner.delay(link);
            let Some(port) = inner.ports.get(port).cloned() else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            inner.made += 1;
            let id = inner.made;
            let seeds = [inner.random[link].next(), inner.random[link].next()];
            inner.wires.insert(id, Wire::new(link, seeds));
            drop(inner);
            if port.send(Ok(self.end(id, Side::Server))).is_err() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            (self.end(id, Side::Client), back)
        };
        sleep_until(back).await;
        Ok(end)
    }

    fn end(&self, id: u64, side: Side) -> End {
        End { network: self.clone(), id, side, timer: None }
    }

    /// From now on nothing passes over the link, and nothing is lost.
    pub(crate) fn hold(&self, link: usize) {
        self.inner().held.insert(link);
    }

    /// What was held passes.
    pub(crate) fn release(&self, link: usize) {
        {
            let mut inner = self.inner();
            inner.held.remove(&link);
            for wire in inner.wires.values_mut().filter(|wire| wire.link == link) {
                wire.wake_all();
            }
        }
        self.released.send_modify(|count| *count += 1);
    }

    /// Ends every connection over a link, for both sides.
    pub(crate) fn cut(&self, link: usize, manner: Manner) {
        let mut inner = self.inner();
        let held = inner.held.contains(&link);
        let manner = if held { Manner::Silence } else { manner };
        for wire in inner.wires.values_mut().filter(|wire| wire.link == link) {
            wire.end(Side::Client, manner);
            wire.end(Side::Server, manner);
            wire.wake_all();
        }
    }

    /// A program died: its ends are no more, and the far ends learn of it or not. `link`: of one
    /// node; `None`: of all.
    pub(crate) fn sever(&self, side: Side, link: Option<usize>, manner: Manner) {
        let mut inner = self.inner();
        let mut closed = Vec::new();
        let held = inner.held.clone();
        for (id, wire) in &mut inner.wires {
            if link.is_some_and(|link| link != wire.link) || wire.severed[side as usize] {
                continue;
            }
            wire.severed[side as usize] = true;
            let unheard = manner == Manner::Reset && held.contains(&wire.link);
            wire.end(side.other(), if unheard { Manner::Silence } else { manner });
            if manner == Manner::Close {
                closed.push(*id);
            }
            wire.wake_all();
        }
        for id in closed {
            inner.send(id, side.other(), &[]);
        }
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct End {
    network: Network,
    id: u64,
    side: Side,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Connected for End {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let due = {
                let mut inner = this.network.inner();
                let Inner { wires, held, .. } = &mut *inner;
                let gone = || io::Error::from(io::ErrorKind::ConnectionReset);
                let wire = wires.get_mut(&this.id).ok_or_else(gone)?;
                let side = this.side as usize;
                let inbox = &mut wire.inbox[side];
                if wire.severed[side] || inbox.reset {
                    return Poll::Ready(Err(gone()));
                }
                let front = inbox.segments.front_mut().filter(|_| !held.contains(&wire.link));
                let Some(segment) = front else {
                    inbox.reader = Some(context.waker().clone());
                    return Poll::Pending;
                };
                if segment.due <= Instant::now() {
                    let rest = &segment.bytes[segment.read..];
                    let taken = rest.len().min(buffer.remaining());
                    buffer.put_slice(&rest[..taken]);
                    segment.read += taken;
                    // The end stays.
                    if segment.read == segment.bytes.len() && taken > 0 {
                        inbox.segments.pop_front();
                    }
                    inbox.bytes -= taken;
                    wake(&mut inbox.writer);
                    return Poll::Ready(Ok(()));
                }
                inbox.reader = Some(context.waker().clone());
                segment.due
            };
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            std::task::ready!(timer.as_mut().poll(context));
            this.timer = None;
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let (side, other) = (this.side as usize, this.side.other());
        let mut inner = this.network.inner();
        let Inner { wires, held, .. } = &mut *inner;
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let wire = wires.get_mut(&this.id).ok_or_else(broken)?;
        let heard_of = !wire.silent && !held.contains(&wire.link);
        if wire.severed[side]
            || wire.inbox[side].reset
            || (heard_of && (wire.gone[other as usize] || wire.severed[other as usize]))
        {
            return Poll::Ready(Err(broken()));
        }
        let inbox = &mut wire.inbox[other as usize];
        if inbox.bytes > BUFFER {
            inbox.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        if !bytes.is_empty() {
            inner.send(this.id, other, bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let side = self.side as usize;
        let mut inner = self.network.inner();
        let Some(wire) = inner.wires.get_mut(&self.id) else { return };
        wire.gone[side] = true;
        wire.wake_all();
        if wire.gone == [true, true] {
            inner.wires.remove(&self.id);
        } else if !wire.severed[side] {
            inner.send(self.id, self.side.other(), &[]);
        }
    }
}
