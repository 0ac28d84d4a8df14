//! Two ways to ask: at moments that are set beforehand, as a swarm does, and as fast as the answers come.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::connection::Connection;
use super::members::Random;

/// Who asks the same or something else, again and again.
pub trait Asker: Send {
    /// Writes the next request over what is there.
    fn next(&mut self, request: &mut Vec<u8>);

    /// Whether that is what was asked for.
    fn is_answer(&self, body: &[u8]) -> bool;
}

/// How long requests took, from the moment that was set for them: who is held up by an answer that is late asks late, and
/// that counts (the coordinated omission).
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// Nanoseconds, in order.
    sorted: Vec<u64>,
    /// Requests that were refused; they are among the latencies.
    pub refused: u64,
    /// Requests that could not be sent by the end. They count with the time that they had waited by then, which is too
    /// little.
    pub unsent: u64,
}

impl Latencies {
    fn of(parts: Vec<(Vec<u64>, u64, u64)>) -> Self {
        let mut all = Latencies::default();
        for (latencies, refused, unsent) in parts {
            all.sorted.extend(latencies);
            all.refused += refused;
            all.unsent += unsent;
        }
        all.sorted.sort_unstable();
        all
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// Milliseconds, on average.
    pub fn mean_ms(&self) -> f64 {
        self.sorted.iter().sum::<u64>() as f64 / 1e6 / self.sorted.len().max(1) as f64
    }

    /// Milliseconds within which this part of the requests was answered.
    pub fn quantile_ms(&self, part: f64) -> f64 {
        let rank = (part * self.sorted.len() as f64).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).map_or(0.0, |&nanoseconds| nanoseconds as f64 / 1e6)
    }
}

/// Asks at random moments (exponential gaps), `rate` times a second all together. Errors: the server cannot be reached,
/// or ends a connection.
pub fn at_rate<A: Asker>(
    address: SocketAddr,
    askers: Vec<A>,
    rate: f64,
    duration: Duration,
) -> Result<Latencies> {
    let mean_gap = askers.len() as f64 / rate;
    let ready = Barrier::new(askers.len());
    let parts: Vec<Result<(Vec<u64>, u64, u64)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = askers
            .into_iter()
            .enumerate()
            .map(|(own, mut asker)| {
                let ready = &ready;
                scope.spawn(move || {
                    let connection = Connection::open(address);
                    ready.wait();
                    let start = Instant::now();
                    let mut connection = connection?;
                    let mut random = Random::new(own as u64 + 1000);
                    let mut request = Vec::new();
                    let (mut latencies, mut refused, mut unsent) = (Vec::new(), 0, 0);
                    let mut due = Duration::ZERO;
                    loop {
                        due += Duration::from_secs_f64(-mean_gap * random.fraction().ln());
                        if due >= duration {
                            return Ok((latencies, refused, unsent));
                        }
                        let late = start.elapsed();
                        if late >= duration {
                            latencies.push((duration - due).as_nanos() as u64);
                            unsent += 1;
                            continue;
                        }
                        asker.next(&mut request);
                        std::thread::sleep(due.saturating_sub(start.elapsed()));
                        let answer = connection.ask(&request)?;
                        let good = answer.status == 200 && asker.is_answer(answer.body);
                        refused += u64::from(!good);
                        latencies.push((start.elapsed() - due).as_nanos() as u64);
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread failed"))).collect()
    });
    Ok(Latencies::of(parts.into_iter().collect::<Result<_>>()?))
}

/// How fast answers came.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// In so many seconds.
    pub seconds: f64,
}

impl Pace {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.seconds
    }
}

/// Each asker asks as soon as it has its answer, over one connection or, if not `keep_alive`, over another each time.
/// Errors: the server cannot be reached, or ends a connection early.
pub fn as_fast_as_possible<A: Asker>(
    address: SocketAddr,
    askers: &mut [A],
    duration: Duration,
    keep_alive: bool,
) -> Result<Pace> {
    let ready = Barrier::new(askers.len());
    let parts: Vec<Result<Pace>> = std::thread::scope(|scope| {
        let threads: Vec<_> = askers
            .iter_mut()
            .map(|asker| {
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    let start = Instant::now();
                    let mut kept = None;
                    let mut request = Vec::new();
                    let (mut answered, mut refused) = (0, 0);
                    while start.elapsed() < duration {
                        asker.next(&mut request);
                        let mut connection = match kept.take() {
                            Some(connection) => connection,
                            None => Connection::open(address).context("cannot connect")?,
                        };
                        let answer = connection.ask(&request)?;
                        if answer.status == 200 && asker.is_answer(answer.body) {
                            answered += 1;
                        } else {
                            refused += 1;
                        }
                        if keep_alive {
                            kept = Some(connection);
                        } else {
                            connection.closed()?;
                        }
                    }
                    Ok(Pace { answered, refused, seconds: start.elapsed().as_secs_f64() })
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread failed"))).collect()
    });
    let mut all = Pace { answered: 0, refused: 0, seconds: 0.0 };
    for part in parts {
        let part = part?;
        all.answered += part.answered;
        all.refused += part.refused;
        all.seconds = all.seconds.max(part.seconds);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    struct Four;

    impl Asker for Four {
        fn next(&mut self, request: &mut Vec<u8>) {
            request.clear();
            request.extend_from_slice(b"four");
        }

        fn is_answer(&self, body: &[u8]) -> bool {
            body == b"ok"
        }
    }

    /// Answers one connection; the first answer takes as long.
    fn slow_once(first: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4];
            let mut wait = first;
            while stream.read_exact(&mut request).is_ok() {
                std::thread::sleep(std::mem::take(&mut wait));
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            }
        });
        address
    }

    #[test]
    fn who_is_held_up_counts_as_late() {
        let address = slow_once(Duration::from_millis(500));
        let latencies = at_rate(address, vec![Four], 100.0, Duration::from_secs(1)).unwrap();
        assert!((50..200).contains(&latencies.count()), "{}", latencies.count());
        assert_eq!((latencies.refused, latencies.unsent), (0, 0));
        // About fifty requests were due while the first one was waited for.
        assert!(latencies.quantile_ms(0.7) > 50.0, "{}", latencies.quantile_ms(0.7));
        assert!(latencies.quantile_ms(1.0) >= 400.0);
    }

    #[test]
    fn what_is_not_sent_in_time_is_counted() {
        let address = slow_once(Duration::from_millis(300));
        let latencies = at_rate(address, vec![Four], 1000.0, Duration::from_millis(200)).unwrap();
        assert!(latencies.unsent > 50 && latencies.count() as u64 > latencies.unsent);
    }

    #[test]
    fn quantiles_are_of_the_sorted() {
        let latencies = Latencies::of(vec![(vec![3_000_000, 1_000_000], 1, 0), (vec![2_000_000], 0, 0)]);
        assert_eq!((latencies.quantile_ms(0.5), latencies.quantile_ms(1.0)), (2.0, 3.0));
        assert!((latencies.mean_ms() - 2.0).abs() < 1e-9);
        assert_eq!((latencies.count(), latencies.refused), (3, 1));
    }

    #[test]
    fn a_pace_counts_what_was_answered() {
        let address = slow_once(Duration::ZERO);
        let pace = as_fast_as_possible(address, &mut [Four], Duration::from_millis(100), true).unwrap();
        assert!(pace.answered > 10 && pace.refused == 0 && pace.rate() > 10.0);
    }
}
