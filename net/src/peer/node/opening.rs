//! How a connection is opened, by them or by us: handshakes in plain or obfuscated.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::link::NewConnection;
use super::place::Held;
use super::torrent::Input;
use super::{HANDSHAKE, Joined, Shared, personal};
use crate::peer::tracker::Personal;
use crate::wire::handshake::{self, Handshake};
use crate::wire::mse::{self, Ciphers, Initiator, Progress, Responder, TorrentName};
use crate::wire::network::source_address;

/// Room for one read.
const READ: usize = 4096;

/// Whether connections are obfuscated, by Message Stream Encryption (see [`mse`]). This hides BitTorrent from simple filters and
/// lets us talk to clients that insist on it. It is no security.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Obfuscation {
    /// Connections are in plain. Obfuscated calls are refused.
    Off,
    /// Calls of either kind are taken. Ours are in plain; if a peer that has accepted the connection then does not answer, it is called
    /// again, obfuscated. Where both sides can do without, only the handshake is obfuscated.
    #[default]
    Allow,
    /// Every connection is obfuscated from the first byte to the last. Plain ones are refused, and none is made.
    Require,
}

impl Obfuscation {
    /// By the name that flags give it: `off`, `allow` or `require`.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Obfuscation::Off),
            "allow" => Some(Obfuscation::Allow),
            "require" => Some(Obfuscation::Require),
            _ => None,
        }
    }

    /// How to call, in turn.
    fn attempts(self) -> &'static [Opening] {
        match self {
            Obfuscation::Off => &[Opening::Plain],
            Obfuscation::Allow => &[Opening::Plain, Opening::Obfuscated],
            Obfuscation::Require => &[Opening::Obfuscated],
        }
    }

    /// How a stream may go on after an obfuscated handshake.
    fn methods(self) -> u32 {
        match self {
            Obfuscation::Require => mse::RC4,
            Obfuscation::Off | Obfuscation::Allow => mse::RC4 | mse::PLAINTEXT,
        }
    }
}

#[derive(Clone, Copy)]
enum Opening {
    Plain,
    Obfuscated,
}

/// A socket, what has been read from it too early, and the ciphers of both directions if there are any.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) tcp: TcpStream,
    /// In plain.
    pub(super) received: BytesMut,
    pub(super) ciphers: Option<Ciphers>,
}

impl Stream {
    fn new(tcp: TcpStream) -> Self {
        Stream { tcp, received: BytesMut::new(), ciphers: None }
    }

    /// Reads until there are `len` bytes.
    async fn receive(&mut self, len: usize) -> io::Result<()> {
        while self.received.len() < len {
            self.received.reserve(READ);
            let start = self.received.len();
            if self.tcp.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(ciphers) = &mut self.ciphers {
                ciphers.incoming.apply(&mut self.received[start..]);
            }
        }
        Ok(())
    }

    async fn read_handshake(&mut self) -> io::Result<Handshake> {
        self.receive(handshake::LEN).await?;
        let bytes = self.received.split_to(handshake::LEN);
        let bytes = bytes[..].try_into().expect("that many bytes");
        Handshake::from_bytes(bytes).map_err(io::Error::other)
    }

    async fn write_handshake(&mut self, handshake: Handshake) -> io::Result<()> {
        let mut bytes = handshake.to_bytes();
        if let Some(ciphers) = &mut self.ciphers {
            ciphers.outgoing.apply(&mut bytes);
        }
        self.tcp.write_all(&bytes).await
    }

    /// Carries the outgoing side of an obfuscated handshake to its end.
    async fn initiate(&mut self, mut initiator: Initiator) -> io::Result<()> {
        loop {
            let mut output = Vec::new();
            let agreed = initiator.advance(&mut self.received, &mut output).map_err(io::Error::other)?;
            self.tcp.write_all(&output).await?;
            if let Some(agreed) = agreed {
                self.ciphers = agreed.ciphers;
                return Ok(());
            }
            self.receive(self.received.len() + 1).await?;
        }
    }

    /// Carries the incoming side to its end.
    async fn respond(&mut self, responder: &mut Responder, shared: &Shared) -> io::Result<Served> {
        let mut served = Err(io::Error::other(mse::Error::UnknownTorrent));
        loop {
            let mut output = Vec::new();
            let progress = responder.advance(&mut self.received, &mut output).map_err(io::Error::other)?;
            self.tcp.write_all(&output).await?;
            match progress {
                Progress::More => self.receive(self.received.len() + 1).await?,
                Progress::Sought(name) => {
                    let found = find(shared, TorrentName::Hidden(name)).await?;
                    responder.serve(found.info_hash).map_err(io::Error::other)?;
                    served = Ok(found);
                }
                Progress::Agreed(agreed) => {
                    self.ciphers = agreed.ciphers;
                    return served;
                }
            }
        }
    }
}

fn entropy() -> io::Result<[u8; mse::ENTROPY]> {
    let mut bytes = [0; mse::ENTROPY];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The incoming side of a handshake; the info-hash says which torrent the connection is for.
pub(super) async fn welcome(tcp: TcpStream, addr: SocketAddr, shared: &Shared) -> io::Result<()> {
    let mut stream = Stream::new(tcp);
    let obfuscation = shared.config.obfuscation;
    stream.receive(handshake::PROTOCOL.len()).await?;
    let plain = stream.received.starts_with(handshake::PROTOCOL);
    let named = match (plain, obfuscation) {
        (true, Obfuscation::Require) => return Err(io::Error::other("it is not obfuscated")),
        (true, _) | (false, Obfuscation::Off) => None,
        (false, _) => {
            let mut responder = Responder::new(&entropy()?, obfuscation.methods());
            Some(stream.respond(&mut responder, shared).await?)
        }
    };
    let handshake = stream.read_handshake().await?;
    let served = match named {
        Some(served) if served.info_hash == handshake.info_hash => served,
        Some(_) => return Err(io::Error::other("it names two info-hashes")),
        None => find(shared, TorrentName::InfoHash(handshake.info_hash)).await?,
    };
    let Served { joined, personal, .. } = served;
    let place = shared.places.wait(addr.ip(), &joined.places, || shared.make_room()).await?;
    stream.write_handshake(Handshake::new(handshake.info_hash, shared.peer_id)).await?;
    let new = NewConnection { stream, addr, handshake, outgoing: false, personal, place };
    let sent = joined.inputs.send(Input::Connection(Box::new(new))).await;
    sent.map_err(|_| io::Error::other("the torrent has stopped"))
}

/// What a connection is for: one of our torrents, or a personal one that it serves.
struct Served {
    info_hash: [u8; 20],
    joined: Joined,
    personal: Option<Personal>,
}

async fn find(shared: &Shared, name: TorrentName) -> io::Result<Served> {
    let found = {
        let torrents = shared.torrents();
        let found = match name {
            TorrentName::InfoHash(info_hash) => torrents.get_key_value(&info_hash),
            TorrentName::Hidden(name) => torrents.iter().find(|(own, _)| mse::hidden_name(own) == name),
        };
        found.map(|(info_hash, joined)| (*info_hash, joined.clone()))
    };
    if let Some((info_hash, joined)) = found {
        return Ok(Served { info_hash, joined, personal: None });
    }
    let found = personal::find(shared, name).await;
    let (joined, personal) = found.ok_or_else(|| io::Error::other("unknown info-hash"))?;
    Ok(Served { info_hash: personal.info_hash, joined, personal: Some(personal) })
}

/// The outgoing side of a handshake. Each attempt has its time. `torrent`: by which its places are counted.
pub(super) async fn call(
    addr: SocketAddr,
    info_hash: [u8; 20],
    personal: Option<Personal>,
    torrent: &Held,
    shared: &Shared,
) -> io::Result<NewConnection> {
    let info_hash = personal.map_or(info_hash, |personal| personal.info_hash);
    let place = shared.places.take(addr.ip(), torrent)?;
    let mut failed = io::ErrorKind::ConnectionRefused.into();
    for &opening in shared.config.obfuscation.attempts() {
        let tcp = timeout(HANDSHAKE, connect(shared.config.listen.ip(), addr)).await??;
        let mut stream = Stream::new(tcp);
        match timeout(HANDSHAKE, introduce(&mut stream, opening, info_hash, shared)).await {
            Ok(Ok(handshake)) => {
                return Ok(NewConnection { stream, addr, handshake, outgoing: true, personal, place });
            }
            Ok(Err(error)) => failed = error,
            Err(late) => failed = late.into(),
        }
    }
    Err(failed)
}

/// Connects from the address that is listened on: the other side sees the same one, whichever side connects.
async fn connect(listen: IpAddr, addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(own) = source_address(listen, addr.ip()) {
        socket.bind((own, 0).into())?;
    }
    socket.connect(addr).await
}

/// Says who we are; who answers.
async fn introduce(
    stream: &mut Stream,
    opening: Opening,
    info_hash: [u8; 20],
    shared: &Shared,
) -> io::Result<Handshake> {
    let ours = Handshake::new(info_hash, shared.peer_id);
    match opening {
        Opening::Plain => stream.write_handshake(ours).await?,
        Opening::Obfuscated => {
            let methods = shared.config.obfuscation.methods();
            stream.initiate(Initiator::new(&entropy()?, info_hash, methods, ours.to_bytes())).await?;
        }
    }
    let theirs = stream.read_handshake().await?;
    if theirs.info_hash != info_hash {
        return Err(io::Error::other("it answered with another info-hash"));
    }
    Ok(theirs)
}
