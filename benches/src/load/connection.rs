//! HTTP/1.1 as a load tester needs it: requests that are bytes already, answers of which the length is read.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Nothing answers as slowly unless it has stopped.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of the longest answer.
const MAX_ANSWER: usize = 1 << 20;

/// A connection that is kept alive.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'b> {
    /// Of HTTP.
    pub status: u16,
    /// As long as `Content-Length` says.
    pub body: &'b [u8],
}

impl Connection {
    /// Connects. Errors: nobody listens there.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection { stream, buffer: vec![0; 8192], filled: 0 })
    }

    /// Connects from another address of loopback. Errors: nobody listens there, or takes no more.
    pub fn open_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection { stream, buffer: vec![0; 8192], filled: 0 })
    }

    /// Sends bytes and waits for nothing. Errors: the connection has ended.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a whole request and waits for the whole answer. Errors: the connection ends before, or the answer is none.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.stream.write_all(request)?;
        self.filled = 0;
        let (status, start, end) = loop {
            self.read_more()?;
            if let Some(head) = head(&self.buffer[..self.filled])? {
                break head;
            }
        };
        if end > MAX_ANSWER {
            return Err(bad("an answer that is too long"));
        }
        while self.filled < end {
            self.read_more()?;
        }
        Ok(Answer { status, body: &self.buffer[start..end] })
    }

    /// Waits until the other side closes. Errors: it does not.
    pub fn closed(mut self) -> io::Result<()> {
        loop {
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(2 * self.filled, 0);
        }
        match self.stream.read(&mut self.buffer[self.filled..])? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.filled += count;
                Ok(())
            }
        }
    }
}

/// Status, and where the body begins and ends, once the head is there.
fn head(bytes: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > MAX_ANSWER { Err(bad("a head without end")) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..at]).map_err(|_| bad("a head that is no text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| bad("no status"))?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    let length = length.filter(|&length| length <= MAX_ANSWER).ok_or_else(|| bad("no fitting length"))?;
    Ok(Some((status, at + 4, at + 4 + length)))
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn heads_are_read() {
        assert_eq!(head(b"HTTP/1.1 200 OK\r\nContent-Length: 3").unwrap(), None);
        let whole = b"HTTP/1.1 503 Busy\r\nA: b\r\ncontent-length: 3     \r\n\r\nabc";
        assert_eq!(head(whole).unwrap(), Some((503, whole.len() - 3, whole.len())));
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").is_err());
        assert!(head(b"nonsense\r\n\r\n").is_err());
    }

    #[test]
    fn answers_come_in_parts_and_one_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = [0; 4];
            for part in [&b"HTTP/1.1 200 OK\r\nContent-"[..], b"Length: 2\r\n\r\nh", b"i"] {
                if part.starts_with(b"HTTP") {
                    stream.read_exact(&mut seen).unwrap();
                }
                stream.write_all(part).unwrap();
            }
            stream.read_exact(&mut seen).unwrap();
            let long = vec![b'x'; 20_000];
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", long.len()).unwrap();
            stream.write_all(&long).unwrap();
        });
        let mut connection = Connection::open(address).unwrap();
        assert_eq!(connection.ask(b"ask1").unwrap(), Answer { status: 200, body: b"hi" });
        assert_eq!(connection.ask(b"ask2").unwrap().body.len(), 20_000);
        server.join().unwrap();
        connection.closed().unwrap();
    }
}
