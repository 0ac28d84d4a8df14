//! Links in virtual time: nodes with an uplink and a downlink, streams between them that behave as TCP does.
//!
//! ```text
//! stream ─window─▶ uplink (rate, queue) ──latency, loss──▶ downlink (rate, queue) ─in order─▶ messages
//!    ▲                                                                               │
//!    └──────────────────────────── latency, the receiver's uplink ◀──── acknowledged ┘
//! ```
//!
//! A segment stands for up to [`PACKETS`] packets that travel together. Each stream has a congestion window: it doubles in
//! each round trip at first, then grows and shrinks as RFC 9438 has it where rates are low (there CUBIC is Reno's equal).
//! A segment is lost by chance, or because the queue that it meets is full; it comes a round trip later, and all that
//! was sent after it waits for it. Headers and acknowledgements take their share of the links.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::peer::state::Random;

/// Payload of a full packet, and what Ethernet, IP and TCP put around it.
const MSS: u64 = 1448;
pub(super) const HEADERS: u64 = 66;
/// Packets of a segment at most.
const PACKETS: u64 = 4;
const SEGMENT: u64 = PACKETS * MSS;
/// A window at the start and after a pause (RFC 6928), and the largest.
const FIRST_WINDOW: f64 = (10 * MSS) as f64;
const LEAST_WINDOW: f64 = (2 * MSS) as f64;
const LARGEST_WINDOW: f64 = (1 << 20) as f64;
const PAUSE: Duration = Duration::from_secs(1);
/// RFC 9438: what is left of a window after a loss, and packets that it grows by in each round trip.
const SHRINK: f64 = 0.7;
const GROW: f64 = 3.0 * (1.0 - SHRINK) / (1.0 + SHRINK);
/// Most packets are small (`have`, requests). They are spared events that change nothing: where no queue waits at the
/// receiver, they are through at once, and their acknowledgement takes no time.
const SMALL: u64 = 512;
const SOON: Duration = Duration::from_millis(1);
/// A lost packet that no later one tells of.
const TIMEOUT: Duration = Duration::from_millis(200);

pub(super) type NodeId = usize;
pub(super) type StreamId = usize;

/// A node's place in the network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Bytes a second, headers included.
    pub(super) up: f64,
    pub(super) down: f64,
    /// One way, from the node to the middle of the network.
    pub(super) latency: Duration,
}

fn is_small(start: u64, end: u64) -> bool {
    end - start <= SMALL
}

/// What happens.
#[derive(Debug)]
pub(super) enum Happening<M, T> {
    /// A message arrived.
    Message(StreamId, M),
    /// Bytes of payload were taken by the socket.
    Taken(StreamId, usize),
    /// Something that was asked for.
    Timer(T),
}

/// A link in one direction: packets leave one after the other.
#[derive(Debug)]
struct Pipe {
    per_second: f64,
    free_at: Duration,
}

impl Pipe {
    fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        let takes = Duration::from_secs_f64(bytes as f64 / self.per_second);
        self.free_at = self.free_at.max(now) + takes;
        self.free_at
    }

    fn backlog(&self, now: Duration) -> f64 {
        self.free_at.saturating_sub(now).as_secs_f64() * self.per_second
    }
}

#[derive(Debug)]
struct Node {
    up: Pipe,
    down: Pipe,
    latency: Duration,
}

/// One direction of a connection. Offsets count bytes since its start.
#[derive(Debug)]
struct Stream<M> {
    from: NodeId,
    to: NodeId,
    latency: Duration,
    /// Messages that have not arrived: the offset of each one's end.
    messages: VecDeque<(u64, M)>,
    /// Those with payload that the socket has not taken.
    untaken: VecDeque<(u64, usize)>,
    written: u64,
    sent: u64,
    acknowledged: u64,
    /// Everything before this has arrived.
    arrived: u64,
    /// Parts beyond that: start and end.
    ahead: BTreeMap<u64, u64>,
    window: f64,
    /// Where the window stops doubling.
    threshold: f64,
    /// A loss before this offset belongs to the last one.
    recovered: u64,
    last_sent: Duration,
    dirty: bool,
}

impl<M> Stream<M> {
    fn in_flight(&self) -> u64 {
        self.sent - self.acknowledged
    }
}

#[derive(Debug)]
enum Event<T> {
    /// A segment reaches the receiver's link.
    Arrives(StreamId, u64, u64),
    /// It is through.
    Through(StreamId, u64, u64),
    Acknowledged(StreamId, u64),
    Lost(StreamId, u64, u64),
    /// Bytes outside of a stream reach a node's link.
    Datagram(NodeId, u64, T),
    Timer(T),
}

struct Due<T> {
    at: Duration,
    order: u64,
    event: Event<T>,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The network.
pub(super) struct Network<M, T> {
    now: Duration,
    queue: BinaryHeap<Reverse<Due<T>>>,
    order: u64,
    nodes: Vec<Node>,
    streams: Vec<Option<Box<Stream<M>>>>,
    /// Streams that were written to since the last event.
    dirty: Vec<StreamId>,
    ready: VecDeque<Happening<M, T>>,
    /// Of a packet.
    loss: f64,
    /// Bytes that wait for a link before more are dropped.
    buffer: f64,
    random: Random,
}

impl<M, T> Network<M, T> {
    pub(super) fn new(loss: f64, buffer: u64, seed: u64) -> Self {
        Network {
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            order: 0,
            nodes: Vec::new(),
            streams: Vec::new(),
            dirty: Vec::new(),
            ready: VecDeque::new(),
            loss,
            buffer: buffer as f64,
            random: Random::new(seed),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    pub(super) fn node(&mut self, place: Place) -> NodeId {
        let pipe = |per_second| Pipe { per_second, free_at: Duration::ZERO };
        self.nodes.push(Node { up: pipe(place.up), down: pipe(place.down), latency: place.latency });
        self.nodes.len() - 1
    }

    /// From one node to another.
    pub(super) fn latency(&self, from: NodeId, to: NodeId) -> Duration {
        self.nodes[from].latency + self.nodes[to].latency
    }

    pub(super) fn open(&mut self, from: NodeId, to: NodeId) -> StreamId {
        let latency = self.latency(from, to);
        self.streams.push(Some(Box::new(Stream {
            from,
            to,
            latency,
            messages: VecDeque::new(),
            untaken: VecDeque::new(),
            written: 0,
            sent: 0,
            acknowledged: 0,
            arrived: 0,
            ahead: BTreeMap::new(),
            window: FIRST_WINDOW,
            threshold: LARGEST_WINDOW,
            recovered: 0,
            last_sent: self.now,
            dirty: false,
        })));
        self.streams.len() - 1
    }

    /// Nothing more of it arrives.
    pub(super) fn close(&mut self, stream: StreamId) {
        self.streams[stream] = None;
    }

    /// A message of `bytes`; `payload` of them are reported once the socket has them.
    pub(super) fn write(&mut self, id: StreamId, message: M, bytes: usize, payload: usize) {
        let Some(stream) = &mut self.streams[id] else { return };
        stream.written += bytes as u64;
        stream.messages.push_back((stream.written, message));
        if payload > 0 {
            stream.untaken.push_back((stream.written, payload));
        }
        if !std::mem::replace(&mut stream.dirty, true) {
            self.dirty.push(id);
        }
    }

    pub(super) fn after(&mut self, delay: Duration, timer: T) {
        self.schedule(self.now + delay, Event::Timer(timer));
    }

    /// Sends `bytes` outside of a stream: `timer` goes off when they are there. A lost packet costs a time-out.
    pub(super) fn datagram(&mut self, from: NodeId, to: NodeId, bytes: u64, timer: T) {
        let packets = bytes.div_ceil(MSS).max(1);
        let wire = bytes + packets * HEADERS;
        let left = self.nodes[from].up.take(self.now, wire);
        let late = if self.is_lost(packets) { TIMEOUT } else { Duration::ZERO };
        let there = left + self.latency(from, to) + late;
        self.schedule(there, Event::Datagram(to, wire, timer));
    }

    fn schedule(&mut self, at: Duration, event: Event<T>) {
        self.order += 1;
        self.queue.push(Reverse(Due { at, order: self.order, event }));
    }

    fn is_lost(&mut self, packets: u64) -> bool {
        let chance = 1.0 - (1.0 - self.loss).powi(packets as i32);
        chance > 0.0 && ((self.random.next() >> 11) as f64) < chance * (1_u64 << 53) as f64
    }

    /// What happens next; `None` when nothing will.
    pub(super) fn next(&mut self) -> Option<Happening<M, T>> {
        loop {
            while let Some(id) = self.dirty.pop() {
                self.pump(id);
            }
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            let Reverse(Due { at, event, .. }) = self.queue.pop()?;
            self.now = at;
            match event {
                Event::Timer(timer) => return Some(Happening::Timer(timer)),
                Event::Datagram(node, bytes, timer) => {
                    let through = self.nodes[node].down.take(self.now, bytes);
                    self.schedule(through, Event::Timer(timer));
                }
                Event::Arrives(id, start, end) => self.arrives(id, start, end),
                Event::Through(id, start, end) => self.through(id, start, end),
                Event::Acknowledged(id, bytes) => self.acknowledged(id, bytes),
                Event::Lost(id, start, end) => self.lost(id, start, end),
            }
        }
    }

    /// Sends as much as the window allows.
    fn pump(&mut self, id: StreamId) {
        let now = self.now;
        loop {
            let Some(stream) = &mut self.streams[id] else { return };
            stream.dirty = false;
            if stream.in_flight() == 0 && now.saturating_sub(stream.last_sent) > PAUSE {
                stream.window = stream.window.min(FIRST_WINDOW);
            }
            Self::take_in(stream, id, &mut self.ready);
            let stream = self.streams[id].as_mut().expect("it was there");
            let waiting = stream.written - stream.sent;
            let room = (stream.window - stream.in_flight() as f64).max(0.0) as u64;
            if waiting == 0 || room < waiting.min(MSS) {
                return;
            }
            // Whole packets, unless it is the last.
            let len = waiting.min(SEGMENT).min(if room < waiting { room / MSS * MSS } else { room });
            let (start, end) = (stream.sent, stream.sent + len);
            stream.sent = end;
            stream.last_sent = now;
            self.transmit(id, start, end);
        }
    }

    /// Tells of the payload that the socket has room for: about twice the window, as Linux sizes it.
    fn take_in(stream: &mut Stream<M>, id: StreamId, ready: &mut VecDeque<Happening<M, T>>) {
        let room = stream.acknowledged + 2 * stream.window as u64;
        let mut taken = 0;
        while stream.untaken.front().is_some_and(|(end, _)| *end <= room) {
            taken += stream.untaken.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        if taken > 0 {
            ready.push_back(Happening::Taken(id, taken));
        }
    }

    fn transmit(&mut self, id: StreamId, start: u64, end: u64) {
        let Some(stream) = &self.streams[id] else { return };
        let (from, latency) = (stream.from, stream.latency);
        let packets = (end - start).div_ceil(MSS);
        let up = &mut self.nodes[from].up;
        if up.backlog(self.now) > self.buffer {
            let told = Duration::from_secs_f64(up.backlog(self.now) / up.per_second);
            return self.schedule(self.now + told + 2 * latency, Event::Lost(id, start, end));
        }
        let left = up.take(self.now, end - start + packets * HEADERS);
        let event = match self.is_lost(packets) {
            // What follows it tells the sender.
            true => (left + 2 * latency, Event::Lost(id, start, end)),
            false => (left + latency, Event::Arrives(id, start, end)),
        };
        self.schedule(event.0, event.1);
    }

    fn arrives(&mut self, id: StreamId, start: u64, end: u64) {
        let Some(stream) = &self.streams[id] else { return };
        let (to, latency) = (stream.to, stream.latency);
        let down = &mut self.nodes[to].down;
        if down.backlog(self.now) > self.buffer {
            let told = Duration::from_secs_f64(down.backlog(self.now) / down.per_second);
            return self.schedule(self.now + told + latency, Event::Lost(id, start, end));
        }
        let bytes = end - start + (end - start).div_ceil(MSS) * HEADERS;
        let through = down.take(self.now, bytes);
        if is_small(start, end) && through.saturating_sub(self.now) < SOON {
            self.through(id, start, end);
        } else {
            self.schedule(through, Event::Through(id, start, end));
        }
    }

    fn through(&mut self, id: StreamId, start: u64, end: u64) {
        let Some(stream) = &mut self.streams[id] else { return };
        if start > stream.arrived {
            stream.ahead.insert(start, end);
        } else {
            stream.arrived = stream.arrived.max(end);
            while let Some(next) = stream.ahead.first_entry().filter(|next| *next.key() <= stream.arrived) {
                stream.arrived = stream.arrived.max(next.remove());
            }
            while stream.messages.front().is_some_and(|(end, _)| *end <= stream.arrived) {
                let message = stream.messages.pop_front().map(|(_, message)| Happening::Message(id, message));
                self.ready.extend(message);
            }
        }
        let (to, latency) = (stream.to, stream.latency);
        // Every other packet is acknowledged. That goes ahead of queues, or it would need events of its own.
        let packets = (end - start).div_ceil(MSS);
        self.nodes[to].up.take(self.now, packets.div_ceil(2) * HEADERS);
        if is_small(start, end) {
            self.acknowledged(id, end - start);
        } else {
            self.schedule(self.now + latency, Event::Acknowledged(id, end - start));
        }
    }

    fn acknowledged(&mut self, id: StreamId, bytes: u64) {
        let Some(stream) = &mut self.streams[id] else { return };
        // A window that is not used does not grow.
        let used = stream.in_flight() as f64 + SEGMENT as f64 >= stream.window;
        stream.acknowledged += bytes;
        if used {
            let growth = match stream.window < stream.threshold {
                true => bytes as f64,
                false => GROW * MSS as f64 * bytes as f64 / stream.window,
            };
            stream.window = (stream.window + growth).min(LARGEST_WINDOW);
        }
        self.pump(id);
    }

    /// The sender learns of a loss, and sends again.
    fn lost(&mut self, id: StreamId, start: u64, end: u64) {
        let Some(stream) = &mut self.streams[id] else { return };
        if start >= stream.recovered {
            stream.window = (stream.window * SHRINK).max(LEAST_WINDOW);
            stream.threshold = stream.window;
            stream.recovered = stream.sent;
        }
        self.transmit(id, start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1e6;

    fn place(up: f64, down: f64, milliseconds: u64) -> Place {
        Place { up, down, latency: Duration::from_millis(milliseconds) }
    }

    type Net = Network<u32, u32>;

    /// When the last message of each stream arrived.
    fn run(net: &mut Net, streams: &[StreamId]) -> Vec<Duration> {
        let mut last = vec![Duration::ZERO; streams.len()];
        while let Some(happening) = net.next() {
            if let Happening::Message(id, _) = happening {
                last[streams.iter().position(|&stream| stream == id).unwrap()] = net.now();
            }
        }
        last
    }

    fn fill(net: &mut Net, stream: StreamId, bytes: usize) {
        for number in 0..(bytes / 10_000) as u32 {
            net.write(stream, number, 10_000, 10_000);
        }
    }

    /// Payload's share of a full packet.
    const SHARE: f64 = MSS as f64 / (MSS + HEADERS) as f64;

    #[test]
    fn one_stream_gets_the_rate_of_its_link() {
        for (up, down) in [(0.2 * MB, 10.0 * MB), (10.0 * MB, 0.2 * MB)] {
            let mut net = Net::new(0.0, 100_000, 1);
            let (a, b) = (net.node(place(up, 10.0 * MB, 20)), net.node(place(10.0 * MB, down, 20)));
            let stream = net.open(a, b);
            fill(&mut net, stream, 4_000_000);
            let rate = 4.0 * MB / run(&mut net, &[stream])[0].as_secs_f64();
            let expected = 0.2 * MB * SHARE;
            assert!((0.95 * expected..=expected).contains(&rate), "{rate} of {expected}");
        }
    }

    #[test]
    fn two_streams_share_a_link() {
        let mut net = Net::new(0.0, 100_000, 1);
        let nodes: Vec<_> = (0..3).map(|_| net.node(place(0.4 * MB, 10.0 * MB, 20))).collect();
        let streams = [net.open(nodes[0], nodes[1]), net.open(nodes[0], nodes[2])];
        streams.iter().for_each(|&stream| fill(&mut net, stream, 4_000_000));
        for end in run(&mut net, &streams) {
            let rate = 4.0 * MB / end.as_secs_f64();
            assert!((0.9..=1.3).contains(&(rate / (0.2 * MB * SHARE))), "{rate}");
        }
    }

    #[test]
    fn a_small_message_takes_the_latency() {
        let mut net = Net::new(0.0, 100_000, 1);
        let (a, b) = (net.node(place(MB, MB, 30)), net.node(place(MB, MB, 12)));
        let stream = net.open(a, b);
        net.write(stream, 7, 9, 0);
        let end = run(&mut net, &[stream])[0];
        assert!((42.0..42.5).contains(&(end.as_secs_f64() * 1e3)), "{end:?}");
    }

    #[test]
    fn messages_keep_their_order_in_spite_of_losses() {
        let mut net = Net::new(0.05, 20_000, 1);
        let (a, b) = (net.node(place(MB, MB, 10)), net.node(place(MB, MB, 10)));
        let stream = net.open(a, b);
        fill(&mut net, stream, 2_000_000);
        let (mut seen, mut taken) = (0, 0);
        while let Some(happening) = net.next() {
            match happening {
                Happening::Message(_, number) => {
                    assert_eq!(number, seen);
                    seen += 1;
                }
                Happening::Taken(_, bytes) => taken += bytes,
                Happening::Timer(_) => {}
            }
        }
        assert_eq!((seen, taken), (200, 2_000_000));
    }

    /// Mathis, Semke, Mahdavi, Ott, "The macroscopic behavior of the TCP congestion avoidance algorithm" (1997): MSS / RTT ·
    /// √(3/2) / √p. Here p is a segment's, which is halved for once however many of its packets are lost.
    #[test]
    fn losses_bound_the_rate_as_is_known() {
        let (loss, round_trip) = (0.002_f64, 0.1);
        let mut net = Net::new(loss, 1_000_000, 1);
        let (a, b) = (net.node(place(20.0 * MB, 20.0 * MB, 25)), net.node(place(20.0 * MB, 20.0 * MB, 25)));
        let stream = net.open(a, b);
        fill(&mut net, stream, 40_000_000);
        let rate = 40.0 * MB / run(&mut net, &[stream])[0].as_secs_f64();
        let mathis = MSS as f64 / round_trip * (1.5 / loss).sqrt();
        assert!((0.6..1.5).contains(&(rate / mathis)), "{rate} beside {mathis}");
    }

    #[test]
    fn a_datagram_pays_for_both_links() {
        let mut net = Net::new(0.0, 100_000, 1);
        let (a, b) = (net.node(place(0.01 * MB, MB, 10)), net.node(place(MB, 0.02 * MB, 10)));
        net.datagram(a, b, 1000, 3);
        assert!(matches!(net.next(), Some(Happening::Timer(3))));
        let expected = 0.02 + 1066.0 / 10_000.0 + 1066.0 / 20_000.0;
        assert!((net.now().as_secs_f64() - expected).abs() < 1e-6, "{:?}", net.now());
        assert!(net.next().is_none());
    }
}
