//! The stranger: it has the .torrent and a peer's address, never subscribed, and asks for pieces all the same.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use serde_json::json;
use swarmseal_core::{KeyCommitment, SubscriberId, Ticket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::subscription::read_metainfo;
use crate::cli::{Failure, Output};
use crate::wire::handshake::{self, Handshake};
use crate::wire::identity::{Identity, purpose};
use crate::wire::message::{BLOCK, Block, Decoder, Message};
use crate::wire::metainfo::Metainfo;
use crate::wire::seal::{ExtendedHandshake, Hello, OUR_ID, SealMessage};

/// Arguments of the hidden verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The .torrent
    torrent: PathBuf,
    /// A peer's address
    #[arg(long, env = "SWARMSEAL_PEER")]
    peer: SocketAddr,
    /// How long to try
    #[arg(long, env = "SWARMSEAL_SECONDS", default_value_t = 5)]
    seconds: u64,
}

/// Tries for a while, and reports how many bytes of pieces came.
pub(crate) async fn run(args: Args, output: Output) -> Result<(), Failure> {
    let metainfo = read_metainfo(&args.torrent, true)?;
    let mut piece_bytes = 0;
    // A refusal, a closed connection and silence are all the answer that a stranger should get.
    let tried = timeout(Duration::from_secs(args.seconds), beg(&metainfo, args.peer, &mut piece_bytes)).await;
    let ended = match tried {
        Err(_) => "no answer".to_string(),
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(())) => "closed".to_string(),
    };
    output.result(
        format!("{piece_bytes} bytes of pieces: {ended}"),
        json!({ "event": "stranger", "piece_bytes": piece_bytes, "ended": ended }),
    );
    Ok(())
}

async fn beg(metainfo: &Metainfo, peer: SocketAddr, piece_bytes: &mut u64) -> std::io::Result<()> {
    let invalid = |error: String| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    let identity = Identity::generate(&mut UnwrapErr(SysRng));
    let mut id = [0; 32];
    getrandom::fill(&mut id).map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect(peer).await?;
    let ours = Handshake::new(metainfo.info_hash, handshake::peer_id(*b"stranger-000"));
    stream.write_all(&ours.to_bytes()).await?;
    let mut theirs = [0; handshake::LEN];
    stream.read_exact(&mut theirs).await?;
    Handshake::from_bytes(&theirs).map_err(|error| invalid(error.to_string()))?;

    let keys = KeyCommitment(id);
    let hello = Hello::Subscriber { identity: identity.public(), keys };
    let id = hello.id(&metainfo.info.seal.torrent_id);
    let extended = ExtendedHandshake {
        seal_id: Some(OUR_ID),
        dont_have_id: None,
        client: "stranger".into(),
        reqq: 250,
        port: None,
        hello: Some(hello),
    };
    send(&mut stream, &Message::Extended { id: 0, payload: Bytes::from(extended.to_bytes()) }).await?;
    send(&mut stream, &Message::Interested).await?;

    let decoder = Decoder::new(metainfo.info.layout());
    let mut buffer = BytesMut::new();
    loop {
        while let Some(message) = decoder.decode(&mut buffer).map_err(|error| invalid(error.to_string()))? {
            match message {
                Message::Extended { id: 0, payload } => {
                    let theirs = ExtendedHandshake::from_bytes(&payload)
                        .map_err(|error| invalid(error.to_string()))?;
                    if let (Some(their_id), Some(hello)) = (theirs.seal_id, theirs.hello) {
                        let forged =
                            forged_ticket(metainfo, &identity, hello.id(&metainfo.info.seal.torrent_id), id);
                        let ticket = SealMessage::Ticket(Box::new(forged)).to_bytes();
                        send(&mut stream, &Message::Extended { id: their_id, payload: ticket.into() })
                            .await?;
                        let want = SealMessage::Want((0..metainfo.info.piece_count.min(8)).collect());
                        send(
                            &mut stream,
                            &Message::Extended { id: their_id, payload: want.to_bytes().into() },
                        )
                        .await?;
                    }
                    ask(&mut stream, metainfo).await?;
                }
                Message::Unchoke | Message::Have(_) => ask(&mut stream, metainfo).await?,
                Message::Piece { data, .. } => *piece_bytes += data.len() as u64,
                _ => {}
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// A ticket in the name of a subscriber that there is not.
fn forged_ticket(
    metainfo: &Metainfo,
    identity: &Identity,
    uploader: SubscriberId,
    id: SubscriberId,
) -> Ticket {
    let mut ticket = Ticket {
        torrent_id: metainfo.info.seal.torrent_id,
        uploader,
        downloader: id,
        epoch: 1,
        expires: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() + 3600),
        signature: [0; 64],
    };
    ticket.signature = identity.sign(purpose::TICKET, &ticket.signing_input());
    ticket
}

async fn ask(stream: &mut TcpStream, metainfo: &Metainfo) -> std::io::Result<()> {
    for piece in 0..metainfo.info.piece_count.min(8) {
        send(stream, &Message::Request(Block { piece, begin: 0, len: BLOCK })).await?;
    }
    Ok(())
}

async fn send(stream: &mut TcpStream, message: &Message) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes);
    stream.write_all(&bytes).await
}
