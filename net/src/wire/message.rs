//! The messages between peers (BEP 3, BEP 10) and their decoder, which bounds every size before it waits for the bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::layout::Layout;

/// Bytes of a requested block; the last of a piece may be shorter.
pub const BLOCK: u32 = 16 * 1024;

/// Bytes of the largest extension message that is read.
pub const MAX_EXTENDED: usize = 16 * 1024;

/// Bytes of the largest message of an unknown kind that is skipped.
const MAX_UNKNOWN: usize = 16 * 1024;

/// A part of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// Index of the piece.
    pub piece: u32,
    /// Offset of the first byte.
    pub begin: u32,
    /// Bytes, at most [`BLOCK`].
    pub len: u32,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Nothing, so that the connection stays open.
    KeepAlive,
    /// The sender answers no requests.
    Choke,
    /// The sender answers requests.
    Unchoke,
    /// The receiver has pieces that the sender wants.
    Interested,
    /// The receiver has no pieces that the sender wants.
    NotInterested,
    /// The sender has this piece now.
    Have(u32),
    /// All the pieces that the sender has: the first piece is the top bit of the first byte.
    Bitfield(Bytes),
    /// Asks for a block.
    Request(Block),
    /// A block.
    Piece {
        /// Index of the piece.
        piece: u32,
        /// Offset of the first byte.
        begin: u32,
        /// The bytes.
        data: Bytes,
    },
    /// Takes a request back.
    Cancel(Block),
    /// A message of the extension protocol: 0 is its handshake, others are as the receiver numbered them.
    Extended {
        /// Which extension.
        id: u8,
        /// Its payload.
        payload: Bytes,
    },
}

/// Why a connection's bytes were refused. All are reasons to close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Its length is not what a message of its kind can have in this torrent.
    #[error("message {id} of {found} bytes")]
    BadLength {
        /// Kind of message.
        id: u8,
        /// Length as announced, the kind included.
        found: usize,
    },
    /// A piece index or block lies outside of the torrent.
    #[error("message {id} names piece {piece}, offset {begin}, {len} bytes: outside of the torrent")]
    OutOfRange {
        /// Kind of message.
        id: u8,
        /// Index of the piece.
        piece: u32,
        /// Offset.
        begin: u32,
        /// Bytes.
        len: u32,
    },
    /// A bitfield has bits beyond the last piece.
    #[error("a bitfield has bits beyond the last piece")]
    SpareBits,
}

mod id {
    pub(super) const CHOKE: u8 = 0;
    pub(super) const UNCHOKE: u8 = 1;
    pub(super) const INTERESTED: u8 = 2;
    pub(super) const NOT_INTERESTED: u8 = 3;
    pub(super) const HAVE: u8 = 4;
    pub(super) const BITFIELD: u8 = 5;
    pub(super) const REQUEST: u8 = 6;
    pub(super) const PIECE: u8 = 7;
    pub(super) const CANCEL: u8 = 8;
    pub(super) const EXTENDED: u8 = 20;
}

impl Message {
    /// Appends the encoding, its length first.
    pub fn encode(&self, out: &mut BytesMut) {
        if let Some(block) = self.encode_head(out) {
            out.put_slice(block);
        }
    }

    /// Appends the encoding but for the bytes of a block, which follow it: a writer need not copy them.
    pub fn encode_head(&self, out: &mut BytesMut) -> Option<&Bytes> {
        let mut head = |id: u8, payload: usize| {
            out.put_u32((payload + 1) as u32);
            out.put_u8(id);
        };
        match self {
            Message::KeepAlive => out.put_u32(0),
            Message::Choke => head(id::CHOKE, 0),
            Message::Unchoke => head(id::UNCHOKE, 0),
            Message::Interested => head(id::INTERESTED, 0),
            Message::NotInterested => head(id::NOT_INTERESTED, 0),
            Message::Have(piece) => {
                head(id::HAVE, 4);
                out.put_u32(*piece);
            }
            Message::Bitfield(bits) => {
                head(id::BITFIELD, bits.len());
                out.put_slice(bits);
            }
            Message::Request(block) | Message::Cancel(block) => {
                let request = matches!(self, Message::Request(_));
                head(if request { id::REQUEST } else { id::CANCEL }, 12);
                out.put_u32(block.piece);
                out.put_u32(block.begin);
                out.put_u32(block.len);
            }
            Message::Piece { piece, begin, data } => {
                head(id::PIECE, 8 + data.len());
                out.put_u32(*piece);
                out.put_u32(*begin);
                return Some(data);
            }
            Message::Extended { id, payload } => {
                head(id::EXTENDED, 1 + payload.len());
                out.put_u8(*id);
                out.put_slice(payload);
            }
        }
        None
    }

    /// Bytes of block data that it carries.
    pub fn block_bytes(&self) -> usize {
        match self {
            Message::Piece { data, .. } => data.len(),
            _ => 0,
        }
    }
}

/// Bytes of a torrent's bitfield.
pub fn bitfield_len(piece_count: u32) -> usize {
    piece_count.div_ceil(8) as usize
}

/// Turns a connection's bytes into messages, in whatever portions they come.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    layout: Layout,
    piece_count: u32,
}

impl Decoder {
    /// For one torrent.
    pub fn new(layout: Layout) -> Self {
        Decoder { layout, piece_count: layout.piece_count() }
    }

    /// Takes the first whole message off `bytes`; `None` where more bytes are needed. Messages of unknown kinds are
    /// skipped. A message's length is checked as soon as its first five bytes are there.
    pub fn decode(&self, bytes: &mut BytesMut) -> Result<Option<Message>, MessageError> {
        loop {
            let Some(&[a, b, c, d]) = bytes.first_chunk() else { return Ok(None) };
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            if len == 0 {
                bytes.advance(4);
                return Ok(Some(Message::KeepAlive));
            }
            let Some(&kind) = bytes.get(4) else { return Ok(None) };
            self.check_len(kind, len)?;
            if bytes.len() < 4 + len {
                return Ok(None);
            }
            bytes.advance(5);
            let payload = bytes.split_to(len - 1).freeze();
            if let Some(message) = self.message(kind, payload)? {
                return Ok(Some(message));
            }
        }
    }

    fn check_len(&self, kind: u8, found: usize) -> Result<(), MessageError> {
        let payload = found - 1;
        let fits = match kind {
            id::CHOKE | id::UNCHOKE | id::INTERESTED | id::NOT_INTERESTED => payload == 0,
            id::HAVE => payload == 4,
            id::BITFIELD => payload == bitfield_len(self.piece_count),
            id::REQUEST | id::CANCEL => payload == 12,
            id::PIECE => (9..=8 + BLOCK as usize).contains(&payload),
            id::EXTENDED => (1..=1 + MAX_EXTENDED).contains(&payload),
            _ => payload <= MAX_UNKNOWN,
        };
        if fits { Ok(()) } else { Err(MessageError::BadLength { id: kind, found }) }
    }

    /// `payload` has the length that its kind asks for.
    fn message(&self, kind: u8, mut payload: Bytes) -> Result<Option<Message>, MessageError> {
        Ok(Some(match kind {
            id::CHOKE => Message::Choke,
            id::UNCHOKE => Message::Unchoke,
            id::INTERESTED => Message::Interested,
            id::NOT_INTERESTED => Message::NotInterested,
            id::HAVE => {
                let piece = payload.get_u32();
                self.check_block(kind, Block { piece, begin: 0, len: 1 })?;
                Message::Have(piece)
            }
            id::BITFIELD => {
                let spare = payload.len() as u32 * 8 - self.piece_count;
                if payload.last().is_some_and(|last| last.trailing_zeros() < spare) {
                    return Err(MessageError::SpareBits);
                }
                Message::Bitfield(payload)
            }
            id::REQUEST | id::CANCEL => {
                let block =
                    Block { piece: payload.get_u32(), begin: payload.get_u32(), len: payload.get_u32() };
                self.check_block(kind, block)?;
                if kind == id::REQUEST { Message::Request(block) } else { Message::Cancel(block) }
            }
            id::PIECE => {
                let (piece, begin) = (payload.get_u32(), payload.get_u32());
                self.check_block(kind, Block { piece, begin, len: payload.len() as u32 })?;
                Message::Piece { piece, begin, data: payload }
            }
            id::EXTENDED => Message::Extended { id: payload.get_u8(), payload },
            _ => return Ok(None),
        }))
    }

    fn check_block(&self, id: u8, block: Block) -> Result<(), MessageError> {
        let Block { piece, begin, len } = block;
        let end = u64::from(begin) + u64::from(len);
        if piece < self.piece_count
            && (1..=BLOCK).contains(&len)
            && end <= u64::from(self.layout.len_of(piece))
        {
            Ok(())
        } else {
            Err(MessageError::OutOfRange { id, piece, begin, len })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PIECES: u32 = 13;
    const PIECE_LEN: u32 = 4 * BLOCK;

    fn decoder() -> Decoder {
        Decoder::new(Layout::of_whole(PIECES, PIECE_LEN).unwrap())
    }

    fn block() -> impl Strategy<Value = Block> {
        (0..PIECES, 0..PIECE_LEN - BLOCK, 1..=BLOCK).prop_map(|(piece, begin, len)| Block {
            piece,
            begin,
            len,
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            Just(Message::KeepAlive),
            Just(Message::Choke),
            Just(Message::Unchoke),
            Just(Message::Interested),
            Just(Message::NotInterested),
            (0..PIECES).prop_map(Message::Have),
            any::<[u8; 2]>().prop_map(|[a, b]| Message::Bitfield(Bytes::from(vec![a, b & 0xf8]))),
            block().prop_map(Message::Request),
            block().prop_map(Message::Cancel),
            (0..PIECES, 0..PIECE_LEN - 300, prop::collection::vec(any::<u8>(), 1..300))
                .prop_map(|(piece, begin, data)| Message::Piece { piece, begin, data: data.into() }),
            (any::<u8>(), prop::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(id, payload)| Message::Extended { id, payload: payload.into() }),
        ]
    }

    fn refused(bytes: &[u8]) -> MessageError {
        decoder().decode(&mut BytesMut::from(bytes)).unwrap_err()
    }

    #[test]
    fn oversize_is_refused_before_its_bytes_come() {
        assert_eq!(
            refused(&[0xff, 0xff, 0xff, 0xff, 7]),
            MessageError::BadLength { id: 7, found: 0xffff_ffff }
        );
        assert_eq!(refused(&[0, 0, 0x40, 10, 7]), MessageError::BadLength { id: 7, found: 0x400a });
        assert_eq!(refused(&[0, 0, 0, 2, 5]), MessageError::BadLength { id: 5, found: 2 });
        assert_eq!(refused(&[0, 1, 0, 0, 20]), MessageError::BadLength { id: 20, found: 0x10000 });
        assert_eq!(refused(&[0, 1, 0, 0, 99]), MessageError::BadLength { id: 99, found: 0x10000 });
    }

    #[test]
    fn what_lies_outside_the_torrent_is_refused() {
        assert!(matches!(refused(&[0, 0, 0, 5, 4, 0, 0, 0, 13]), MessageError::OutOfRange { piece: 13, .. }));
        assert_eq!(refused(&[0, 0, 0, 3, 5, 0xff, 0xff]), MessageError::SpareBits);
        for bad in [
            Block { piece: PIECES, begin: 0, len: BLOCK },
            Block { piece: 0, begin: PIECE_LEN - 1, len: 2 },
            Block { piece: 0, begin: u32::MAX, len: BLOCK },
            Block { piece: 0, begin: 0, len: BLOCK + 1 },
            Block { piece: 0, begin: 0, len: 0 },
        ] {
            let mut bytes = BytesMut::new();
            Message::Request(bad).encode(&mut bytes);
            assert!(decoder().decode(&mut bytes).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn unknown_kinds_are_skipped() {
        let mut bytes = BytesMut::from(&[0, 0, 0, 3, 77, 1, 2, 0, 0, 0, 1, 1][..]);
        assert_eq!(decoder().decode(&mut bytes), Ok(Some(Message::Unchoke)));
        assert!(bytes.is_empty());
    }

    proptest! {
        #[test]
        fn messages_survive_any_split(
            messages in prop::collection::vec(message(), 1..20),
            portions in prop::collection::vec(1usize..400, 1..50),
        ) {
            let mut all = BytesMut::new();
            messages.iter().for_each(|message| message.encode(&mut all));
            let (mut pending, mut out) = (BytesMut::new(), Vec::new());
            for portion in portions.iter().cycle() {
                pending.extend_from_slice(&all.split_to(all.len().min(*portion)));
                while let Some(message) = decoder().decode(&mut pending).unwrap() {
                    out.push(message);
                }
                if all.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(out, messages);
            prop_assert!(pending.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decoder().decode(&mut bytes) {}
        }

        #[test]
        fn message_like_bytes_are_read_or_refused(kind in 0u8..22, body in prop::collection::vec(any::<u8>(), 0..30)) {
            let mut bytes = BytesMut::new();
            bytes.put_u32(body.len() as u32 + 1);
            bytes.put_u8(kind);
            bytes.put_slice(&body);
            while let Ok(Some(_)) = decoder().decode(&mut bytes) {}
        }
    }
}
