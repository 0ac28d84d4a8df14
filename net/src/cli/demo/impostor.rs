//! The impostor: it has an account of nobody, borrows the original seed's names, and sends pieces that are not what was published.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cli::subscription::read_metainfo;
use crate::cli::{Exit, Failure, Output};
use crate::wire::handshake::{self, Handshake};
use crate::wire::message::{Decoder, Message, bitfield_len};
use crate::wire::metainfo::Metainfo;
use crate::wire::seal::{ExtendedHandshake, Hello, OUR_ID};

/// Arguments of the hidden verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The .torrent
    torrent: PathBuf,
    /// The original seed's address
    #[arg(long, env = "SWARMSEAL_SEED")]
    seed: SocketAddr,
    /// A peer's address. Can be repeated
    #[arg(long = "peer", env = "SWARMSEAL_PEERS", value_delimiter = ',')]
    peers: Vec<SocketAddr>,
    /// The address that connections leave from
    #[arg(long, env = "SWARMSEAL_FROM")]
    from: IpAddr,
    /// How long to try
    #[arg(long, env = "SWARMSEAL_SECONDS", default_value_t = 5)]
    seconds: u64,
}

/// Lies for a while, and reports how many bytes of pieces it sent.
pub(crate) async fn run(args: Args, output: Output) -> Result<(), Failure> {
    let metainfo = Arc::new(read_metainfo(&args.torrent, true)?);
    let within = Duration::from_secs(args.seconds);
    let borrowed = timeout(within, borrow(&metainfo, args.from, args.seed)).await;
    let (name, hello) = borrowed
        .unwrap_or_else(|late| Err(late.into()))
        .map_err(|error| Failure::new(Exit::Failed, format!("the seed does not answer: {error}")))?;
    let sent = Arc::new(AtomicU64::new(0));
    let mut lies = JoinSet::new();
    for peer in args.peers {
        let (metainfo, sent, from) = (metainfo.clone(), sent.clone(), args.from);
        lies.spawn(timeout(within, async move { lie(&metainfo, (from, peer), (name, hello), &sent).await }));
    }
    while lies.join_next().await.is_some() {}
    let sent = sent.load(Ordering::Relaxed);
    output.result(format!("{sent} bytes of bad pieces"), json!({ "event": "impostor", "piece_bytes": sent }));
    Ok(())
}

async fn connect(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

fn invalid(error: impl ToString) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string())
}

/// Says who it is, and hears who the other is.
async fn introduce(
    stream: &mut TcpStream,
    metainfo: &Metainfo,
    name: [u8; 20],
    hello: Option<Hello>,
) -> std::io::Result<Handshake> {
    stream.write_all(&Handshake::new(metainfo.info_hash, name).to_bytes()).await?;
    let extended = ExtendedHandshake {
        seal_id: Some(OUR_ID),
        dont_have_id: None,
        client: "impostor".into(),
        reqq: 250,
        port: None,
        hello,
    };
    send(stream, &Message::Extended { id: 0, payload: extended.to_bytes().into() }).await?;
    let mut theirs = [0; handshake::LEN];
    stream.read_exact(&mut theirs).await?;
    Handshake::from_bytes(&theirs).map_err(invalid)
}

/// What the seed calls itself, which it tells everybody.
async fn borrow(metainfo: &Metainfo, from: IpAddr, seed: SocketAddr) -> std::io::Result<([u8; 20], Hello)> {
    let mut stream = connect(from, seed).await?;
    let theirs = introduce(&mut stream, metainfo, handshake::peer_id(*b"impostor-000"), None).await?;
    let (decoder, mut buffer) = (Decoder::new(metainfo.info.layout()), BytesMut::new());
    loop {
        while let Some(message) = decoder.decode(&mut buffer).map_err(invalid)? {
            if let Message::Extended { id: 0, payload } = message {
                let hello = ExtendedHandshake::from_bytes(&payload).map_err(invalid)?.hello;
                return Ok((theirs.peer_id, hello.ok_or_else(|| invalid("it does not say who it is"))?));
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Offers everything, and answers every request with group elements that are not the piece's.
async fn lie(
    metainfo: &Metainfo,
    (from, peer): (IpAddr, SocketAddr),
    (name, hello): ([u8; 20], Hello),
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let mut stream = connect(from, peer).await?;
    introduce(&mut stream, metainfo, name, Some(hello)).await?;
    let count = metainfo.info.piece_count;
    let mut bits = vec![0xff; bitfield_len(count)];
    let spare = bits.len() as u32 * 8 - count;
    if let Some(last) = bits.last_mut() {
        *last <<= spare;
    }
    send(&mut stream, &Message::Bitfield(bits.into())).await?;
    send(&mut stream, &Message::Unchoke).await?;
    let (decoder, mut buffer) = (Decoder::new(metainfo.info.layout()), BytesMut::new());
    loop {
        while let Some(message) = decoder.decode(&mut buffer).map_err(invalid)? {
            if let Message::Request(block) = message {
                // Every element is below any p, whose top bit is set.
                let data = vec![0x17; block.len as usize].into();
                send(&mut stream, &Message::Piece { piece: block.piece, begin: block.begin, data }).await?;
                sent.fetch_add(block.len.into(), Ordering::Relaxed);
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn send(stream: &mut TcpStream, message: &Message) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes);
    stream.write_all(&bytes).await
}
