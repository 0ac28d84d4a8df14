//! One connection of a hostile member that speaks the wire by itself.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use swarmseal::wire::handshake::{self, Handshake};
use swarmseal::wire::identity::purpose;
use swarmseal::wire::message::{BLOCK, Block, Decoder, Message, bitfield_len};
use swarmseal::wire::seal::{ExtendedHandshake, Hello, OUR_ID, SealMessage};
use swarmseal_core::Ticket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::member::{Face, Member};
use super::{Kind, Sent};
use crate::random::Random;

struct Session {
    member: Arc<Member>,
    face: Face,
    kind: Kind,
    random: Random,
    sent: Sent,
    /// What the other gave `ss_seal`, and who it is.
    them: Option<(u8, Hello)>,
    /// Pieces made up, and bytes sent of each.
    pieces: HashMap<u32, (Bytes, usize)>,
    got: u64,
    enough: u64,
    out: BytesMut,
}

/// Both handshakes of BEP 3, ours under that name; the other's.
async fn shake_hands(member: &Member, peer_id: [u8; 20], stream: &mut TcpStream) -> Result<Handshake> {
    stream.write_all(&Handshake::new(member.info_hash, peer_id).to_bytes()).await?;
    let mut theirs = [0; handshake::LEN];
    stream.read_exact(&mut theirs).await?;
    Ok(Handshake::from_bytes(&theirs)?)
}

/// Asks somebody who it is.
pub(super) async fn face_of(member: &Member, mut stream: TcpStream) -> Result<Face> {
    let peer_id = shake_hands(member, member.face.peer_id, &mut stream).await?.peer_id;
    let (decoder, mut received) = (Decoder::new(member.layout), BytesMut::new());
    loop {
        while let Some(message) = decoder.decode(&mut received)? {
            if let Message::Extended { id: 0, payload } = message {
                let hello = ExtendedHandshake::from_bytes(&payload)?.hello.context("no ss_seal")?;
                return Ok(Face { peer_id, hello });
            }
        }
        ensure!(stream.read_buf(&mut received).await? > 0, "it says nothing");
    }
}

/// Runs until either side has had enough.
pub(super) async fn run(
    member: Arc<Member>,
    (kind, face): (Kind, Face),
    mut stream: TcpStream,
    mut random: Random,
    sent: Sent,
) -> Result<()> {
    let decoder = Decoder::new(member.layout);
    shake_hands(&member, face.peer_id, &mut stream).await?;
    let enough = random.between(1, 300);
    let (them, pieces, out) = (None, HashMap::new(), BytesMut::new());
    let mut session = Session { member, face, kind, random, sent, them, pieces, got: 0, enough, out };
    session.introduce();
    let mut received = BytesMut::new();
    loop {
        while let Some(message) = decoder.decode(&mut received)? {
            session.answer(message)?;
        }
        if matches!(kind, Kind::Malformed | Kind::Flood) {
            session.annoy();
        }
        stream.write_all(&session.out).await?;
        session.out.clear();
        // Whoever floods does not wait for an answer.
        if kind == Kind::Flood {
            match stream.try_read_buf(&mut received) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
                Err(error) => return Err(error.into()),
            }
        } else if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

impl Session {
    /// Who it says it is, and that it has everything.
    fn introduce(&mut self) {
        let handshake = ExtendedHandshake {
            seal_id: Some(OUR_ID),
            dont_have_id: None,
            client: "hostile".to_owned(),
            reqq: 512,
            port: Some(self.member.address.port()),
            hello: Some(self.face.hello),
        };
        Message::Extended { id: 0, payload: handshake.to_bytes().into() }.encode(&mut self.out);
        let count = self.member.layout.piece_count();
        let mut bits = vec![0xff; bitfield_len(count)];
        let spare = bits.len() as u32 * 8 - count;
        if let Some(last) = bits.last_mut() {
            *last <<= spare;
        }
        Message::Bitfield(bits.into()).encode(&mut self.out);
    }

    fn answer(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Extended { id: 0, payload } => {
                let theirs = ExtendedHandshake::from_bytes(&payload)?;
                let (Some(seal_id), Some(hello)) = (theirs.seal_id, theirs.hello) else {
                    bail!("no ss_seal");
                };
                self.them = Some((seal_id, hello));
                if matches!(self.kind, Kind::HitAndRun | Kind::Stranger | Kind::Forger) {
                    self.ticket(hello);
                    Message::Interested.encode(&mut self.out);
                }
            }
            Message::Interested => Message::Unchoke.encode(&mut self.out),
            Message::Unchoke => self.ask_for_everything(),
            Message::Piece { .. } => {
                self.got += 1;
                if self.got >= self.enough {
                    bail!("enough");
                }
            }
            Message::Request(block) => self.serve(block),
            _ => {}
        }
        Ok(())
    }

    fn seal(&mut self, message: &SealMessage) {
        if let Some((id, _)) = self.them {
            Message::Extended { id, payload: message.to_bytes().into() }.encode(&mut self.out);
        }
    }

    fn ticket(&mut self, them: Hello) {
        let mut ticket = Ticket {
            torrent_id: self.member.torrent_id,
            uploader: them.id(&self.member.torrent_id),
            downloader: self.member.id,
            epoch: self.member.epoch,
            expires: self.member.now() + 600,
            signature: [7; 64],
        };
        if self.kind != Kind::Forger {
            ticket.signature = self.member.key.sign(purpose::TICKET, &ticket.signing_input());
        }
        self.seal(&SealMessage::Ticket(Box::new(ticket)));
    }

    fn ask_for_everything(&mut self) {
        let layout = self.member.layout;
        let first = self.random.below(layout.piece_count().into()) as u32;
        let pieces: Vec<u32> =
            (0..64.min(layout.piece_count())).map(|next| (first + next) % layout.piece_count()).collect();
        self.seal(&SealMessage::Want(pieces.clone()));
        let blocks = layout.piece_len().div_ceil(BLOCK);
        for (piece, index) in pieces.iter().flat_map(|&piece| (0..blocks).map(move |i| (piece, i))).take(500)
        {
            let len = BLOCK.min(layout.piece_len() - index * BLOCK);
            Message::Request(Block { piece, begin: index * BLOCK, len }).encode(&mut self.out);
        }
    }

    fn serve(&mut self, block: Block) {
        let length = self.member.layout.len_of(block.piece) as usize;
        let (kind, random, width) = (self.kind, &mut self.random, self.member.params.group().bytes());
        let (data, done) = self.pieces.entry(block.piece).or_insert_with(|| {
            let mut data = vec![0xff; length];
            if kind != Kind::Garbage {
                random.fill(&mut data);
                // Little-endian numbers below p.
                data.chunks_mut(width).for_each(|element| element[width - 1] &= 0x7f);
            }
            (data.into(), 0)
        });
        let stalls = match kind {
            Kind::Stall => true,
            Kind::HalfStall => *done + BLOCK as usize >= length,
            _ => false,
        };
        if stalls {
            return;
        }
        let range = block.begin as usize..(block.begin + block.len) as usize;
        let data = data.clone();
        *done += block.len as usize;
        let whole = *done >= length;
        let message = Message::Piece { piece: block.piece, begin: block.begin, data: data.slice(range) };
        message.encode(&mut self.out);
        if whole {
            self.pieces.remove(&block.piece);
            self.sent.add(kind);
        }
    }

    fn annoy(&mut self) {
        let count = self.member.layout.piece_count();
        if self.kind == Kind::Malformed {
            let mut noise = vec![0; self.random.between(1, 200) as usize];
            self.random.fill(&mut noise);
            // Often something that looks like a message.
            if self.random.below(2) == 0 {
                self.out.put_u32(noise.len() as u32 + 1);
                self.out.put_u8(self.random.below(22) as u8);
            }
            self.out.put_slice(&noise);
            return;
        }
        for _ in 0..50 {
            let piece = self.random.below(count.into()) as u32;
            let block = Block { piece, begin: 0, len: BLOCK };
            match self.random.below(6) {
                0 => Message::Have(piece).encode(&mut self.out),
                1 => Message::KeepAlive.encode(&mut self.out),
                2 => Message::Interested.encode(&mut self.out),
                3 => Message::NotInterested.encode(&mut self.out),
                4 => Message::Cancel(block).encode(&mut self.out),
                _ => self.seal(&SealMessage::Want(vec![piece; 256])),
            }
        }
    }
}
