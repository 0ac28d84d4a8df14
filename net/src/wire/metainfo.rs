//! The .torrent file: ordinary metainfo (BEP 3) of `name`, `length`, `piece length`, `pieces`, `private`, and a
//! dictionary `swarmseal` in `info` that says how pieces are sealed and what they are checked by. No file names or sizes are in clear.

use std::sync::Arc;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use sha1::{Digest, Sha1};
use swarmseal_core::{Exponents, Group, Kernels, MAX_BYTES, Params, Profile, TorrentId};

use super::authority::{self, SignedAuthority};
use super::layout::Layout;
use super::selection::{self, Kind, Selection};
use super::{bencode, identity};

/// The newest version of `info.swarmseal` that is understood.
pub const VERSION: u64 = 1;
/// Bytes of the largest .torrent file that is read.
pub const MAX_FILE: usize = 64 << 20;
/// Bytes of the longest piece.
pub const MAX_PIECE_LENGTH: u32 = 32 << 20;
/// Peers ask for pieces in requests of this many bytes.
pub const REQUEST_LENGTH: u32 = 16 << 10;

/// Why a .torrent file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no metainfo.
    #[error("no .torrent file: {0}")]
    Bencode(#[from] bencode::Error),
    /// It has no `info`.
    #[error("no .torrent file: there is no info dictionary")]
    NoInfo,
    /// It is a torrent of another kind.
    #[error("not a Swarmseal torrent: there is no info.swarmseal")]
    NotSealed,
    /// It is newer than this program.
    #[error("the torrent has version {found}; this program understands up to {VERSION}")]
    NewerVersion {
        /// The version found.
        found: u64,
    },
    /// One entry has a value that cannot be.
    #[error("bad .torrent file: {what}: expected {expected}")]
    Bad {
        /// The entry.
        what: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// `profile`, `group` or `exponents` is a name that this program does not know.
    #[error("the torrent's {what} {name:?} is not known to this program")]
    Unknown {
        /// The entry.
        what: &'static str,
        /// The name found.
        name: String,
    },
    /// Profile, group and exponents do not fit together, or a group in full is none.
    #[error("the torrent's group cannot be used: {0}")]
    Group(#[from] swarmseal_core::Error),
    /// Which pieces are sealed cannot be.
    #[error("bad .torrent file: {0}")]
    Selection(#[from] selection::Error),
    /// Another key than the publisher's signed its authority.
    #[error("forged .torrent file: {0}: get it from the publisher")]
    Authority(#[from] authority::Error),
}

/// A .torrent file.
#[derive(Clone, Debug)]
pub struct Metainfo {
    /// Which tracker serves it, if the file says so. The info-hash does not cover it.
    pub authority: Option<SignedAuthority>,
    /// What the info-hash covers.
    pub info: Info,
    /// SHA-1 of the raw bytes of `info`.
    pub info_hash: [u8; 20],
    raw_info: Vec<u8>,
}

/// The `info` dictionary.
#[derive(Clone, Debug)]
pub struct Info {
    /// The publisher's public label.
    pub name: String,
    /// P, bytes of a piece: a multiple of W and of 16 KiB.
    pub piece_length: u32,
    /// N; the torrent's length is N·P.
    pub piece_count: u32,
    /// SHA-1 of each packaged piece, or of the piece itself where it is clear, N of them.
    pub pieces: Vec<[u8; 20]>,
    /// Always true: peers come from the tracker alone.
    pub private: bool,
    /// How pieces are sealed.
    pub seal: Seal,
}

/// The dictionary `info.swarmseal`.
#[derive(Clone, Debug)]
pub struct Seal {
    /// The Ed25519 key of the publisher.
    pub publisher_key: [u8; 32],
    /// Drawn for this publication.
    pub random: [u8; 32],
    /// What names the torrent in every derivation: [`TorrentId::of`] both. It is not in the file.
    pub torrent_id: TorrentId,
    /// Profile, group and exponents.
    pub params: Arc<Params>,
    /// Which pieces are sealed; `None`: all are.
    pub selection: Option<Arc<Selection>>,
    /// BLAKE3 of the witness's ciphertext of each sealed piece, in order.
    pub witness: Arc<[[u8; 32]]>,
}

impl Seal {
    /// A seal in which everything that a publisher need not choose is as it is by default, and no witness hashes yet. `random`: fresh for
    /// each publication.
    pub fn new(publisher_key: [u8; 32], random: [u8; 32], params: Arc<Params>) -> Self {
        let torrent_id = TorrentId::of(&publisher_key, &random);
        let (selection, witness) = (None, Arc::new([]));
        Seal { publisher_key, random, torrent_id, params, selection, witness }
    }

    /// Whether a piece is clear: the same bytes at every peer, with no key.
    pub fn is_clear(&self, piece: u32) -> bool {
        self.selection.as_ref().is_some_and(|selection| selection.is_clear(piece))
    }

    /// BLAKE3 of the witness's ciphertext of a piece; `None` where the piece is clear, or there is no such piece.
    pub fn witness_hash(&self, piece: u32) -> Option<&[u8; 32]> {
        let place = match &self.selection {
            Some(selection) if selection.is_clear(piece) => return None,
            Some(selection) if piece < selection.count() => selection.rank(Kind::Sealed, piece),
            _ => piece,
        };
        self.witness.get(place as usize)
    }
}

impl Info {
    /// N·P, the torrent's length in bytes.
    pub fn length(&self) -> u64 {
        u64::from(self.piece_count) * u64::from(self.piece_length)
    }

    /// How the torrent's bytes are cut.
    pub fn layout(&self) -> Layout {
        Layout::of_whole(self.piece_count, self.piece_length).expect("neither is zero")
    }

    /// How many pieces are sealed: a license has as many keys.
    pub fn sealed_count(&self) -> u32 {
        self.seal.selection.as_ref().map_or(self.piece_count, |selection| selection.sealed_count())
    }

    /// Plaintext bytes that a sealed piece carries; a clear one carries P.
    pub fn payload_length(&self) -> usize {
        self.seal.params.payload_bytes(self.piece_length as usize)
    }
}

impl Metainfo {
    /// Puts a file together. Errors: whatever [`Metainfo::from_bytes`] would refuse, [`Error::Bad`] among them.
    pub fn new(authority: Option<SignedAuthority>, info: Info) -> Result<Self, Error> {
        if u32::try_from(info.pieces.len()) != Ok(info.piece_count) {
            return Err(Error::Bad { what: "pieces", expected: "20 bytes for each piece" });
        }
        let raw_info = bencode::to_bytes(&InfoOut::new(&info));
        Self::checked(authority, info, raw_info)
    }

    /// Reads a file. `kernels` do the group's arithmetic.
    ///
    /// A group in full (profile `paper`) is proved prime first, which takes seconds at 4,096 bits.
    pub fn from_bytes(bytes: &[u8], kernels: &'static Kernels) -> Result<Self, Error> {
        let outer: OuterIn<'_> = bencode::from_bytes(bytes, MAX_FILE)?;
        let raw_info = bencode::dict_entry(bytes, b"info")?.ok_or(Error::NoInfo)?;
        let raw_seal = bencode::dict_entry(raw_info, b"swarmseal")?.ok_or(Error::NotSealed)?;
        match bencode::dict_number(raw_seal, b"v")?.unwrap_or(0) {
            0 => return Err(Error::Bad { what: "swarmseal.v", expected: "1 or more" }),
            1..=VERSION => {}
            found => return Err(Error::NewerVersion { found }),
        }
        let info: InfoIn = bencode::from_bytes(raw_info, MAX_FILE)?;
        let (pieces, rest) = info.pieces.as_chunks::<20>();
        let piece_count = u32::try_from(pieces.len()).unwrap_or(0);
        if !rest.is_empty() || piece_count == 0 {
            return Err(Error::Bad { what: "pieces", expected: "20 bytes for each piece" });
        }
        if info.private != 1 {
            return Err(Error::Bad { what: "private", expected: "1" });
        }
        let seal = bencode::from_bytes::<SealIn>(raw_seal, MAX_FILE)?.into_seal(kernels, piece_count)?;
        let parsed = Info {
            name: info.name,
            piece_length: info.piece_length,
            piece_count,
            pieces: pieces.to_vec(),
            private: true,
            seal,
        };
        if info.length != parsed.length() {
            return Err(Error::Bad { what: "length", expected: "piece length times the number of pieces" });
        }
        let publisher = &parsed.seal.publisher_key;
        let authority =
            outer.authority.map(|bytes| SignedAuthority::from_bytes(bytes, publisher)).transpose()?;
        Self::checked(authority, parsed, raw_info.to_vec())
    }

    /// The same torrent with another authority. Errors: [`Error::Authority`] where its publisher did not sign it.
    pub fn with_authority(self, authority: SignedAuthority) -> Result<Self, Error> {
        Self::checked(Some(authority), self.info, self.raw_info)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = b"d".to_vec();
        if let Some(authority) = &self.authority {
            // For other programs to show. What this one does is in the authority.
            let announce = authority.origins[0].join("announce");
            out.extend_from_slice(format!("8:announce{}:{announce}", announce.as_str().len()).as_bytes());
        }
        out.extend_from_slice(b"4:info");
        out.extend_from_slice(&self.raw_info);
        if let Some(authority) = &self.authority {
            let bytes = authority.as_bytes();
            out.extend_from_slice(format!("{}:{AUTHORITY}{}:", AUTHORITY.len(), bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
        }
        out.push(b'e');
        out
    }

    fn checked(authority: Option<SignedAuthority>, info: Info, raw_info: Vec<u8>) -> Result<Self, Error> {
        let signer =
            authority.as_ref().map_or(info.seal.publisher_key, |authority| *authority.publisher_key());
        if signer != info.seal.publisher_key {
            return Err(authority::Error::BadSignature.into());
        }
        check_name(&info.name)?;
        check_seal(&info)?;
        let block = info.seal.params.group().bytes() as u32;
        let length = info.piece_length;
        if length == 0 || length > MAX_PIECE_LENGTH {
            return Err(Error::Bad { what: "piece length", expected: "16 KiB to 32 MiB" });
        }
        if !length.is_multiple_of(block) || !length.is_multiple_of(REQUEST_LENGTH) {
            return Err(Error::Bad {
                what: "piece length",
                expected: "a multiple of 16 KiB and of the group's element size",
            });
        }
        if info.piece_count == 0 || raw_info.len() > MAX_FILE - 4096 {
            return Err(Error::Bad { what: "pieces", expected: "1 to about 1.2 million pieces" });
        }
        if !info.private {
            return Err(Error::Bad { what: "private", expected: "1" });
        }
        let info_hash = Sha1::digest(&raw_info).into();
        Ok(Metainfo { authority, info, info_hash, raw_info })
    }
}

fn check_seal(info: &Info) -> Result<(), Error> {
    let seal = &info.seal;
    if !identity::is_public_key(&seal.publisher_key) {
        return Err(Error::Bad { what: "swarmseal.publisher key", expected: "an Ed25519 public key" });
    }
    if seal.torrent_id != TorrentId::of(&seal.publisher_key, &seal.random) {
        return Err(Error::Bad { what: "torrent id", expected: "that of publisher key and random" });
    }
    if seal.selection.as_ref().is_some_and(|selection| selection.count() != info.piece_count) {
        return Err(Error::Bad { what: "swarmseal.selection", expected: "one bit for each piece" });
    }
    if u32::try_from(seal.witness.len()) != Ok(info.sealed_count()) {
        return Err(Error::Bad { what: "swarmseal.witness", expected: "32 bytes for each sealed piece" });
    }
    Ok(())
}

/// The label is shown and may name a directory: nothing in it may lead elsewhere or steer a terminal.
fn check_name(name: &str) -> Result<(), Error> {
    let separator = name.contains(|c: char| c.is_control() || c == '/' || c == '\\');
    if name.is_empty() || name.len() > 255 || separator || name == "." || name == ".." {
        return Err(Error::Bad {
            what: "name",
            expected: "1 to 255 bytes without separators or control characters",
        });
    }
    Ok(())
}

/// The key of the authority, outside of `info`.
const AUTHORITY: &str = "swarmseal authority";

#[derive(Deserialize)]
struct OuterIn<'a> {
    #[serde(rename = "swarmseal authority", borrow, default, with = "bencode::optional_bytes")]
    authority: Option<&'a [u8]>,
}

#[derive(Deserialize)]
struct InfoIn<'a> {
    length: u64,
    name: String,
    #[serde(rename = "piece length")]
    piece_length: u32,
    #[serde(with = "serde_bytes")]
    pieces: &'a [u8],
    private: u64,
}

#[derive(Deserialize)]
struct SealIn<'a> {
    exponents: String,
    group: GroupIn,
    profile: String,
    #[serde(rename = "publisher key", with = "serde_bytes")]
    publisher_key: [u8; 32],
    #[serde(with = "serde_bytes")]
    random: [u8; 32],
    #[serde(borrow, default, with = "bencode::optional_bytes")]
    selection: Option<&'a [u8]>,
    #[serde(with = "serde_bytes")]
    witness: &'a [u8],
}

impl SealIn<'_> {
    fn into_seal(self, kernels: &'static Kernels, piece_count: u32) -> Result<Seal, Error> {
        let unknown = |what, name: &str| Error::Unknown { what, name: name.chars().take(64).collect() };
        let profile = Profile::by_name(&self.profile).ok_or_else(|| unknown("profile", &self.profile))?;
        let exponents =
            Exponents::by_name(&self.exponents).ok_or_else(|| unknown("exponents", &self.exponents))?;
        let group = match self.group {
            GroupIn::Name(name) => Group::by_name(&name, kernels).ok_or_else(|| unknown("group", &name))?,
            GroupIn::Parts { .. } if profile == Profile::Sealed => {
                return Err(swarmseal_core::Error::GroupNotSealed.into());
            }
            GroupIn::Parts { p, g } => Group::from_parts(kernels, &p, &g)?,
        };
        let selection = self.selection.map(|bits| Selection::from_bytes(bits, piece_count)).transpose()?;
        let (witness, []) = self.witness.as_chunks::<32>() else {
            return Err(Error::Bad { what: "swarmseal.witness", expected: "32 bytes for each sealed piece" });
        };
        let params = Arc::new(Params::new(profile, group, exponents)?);
        Ok(Seal {
            selection: selection.map(Arc::new),
            witness: witness.into(),
            ..Seal::new(self.publisher_key, self.random, params)
        })
    }
}

/// A byte string that names the group, or a dictionary of its big-endian p and g.
enum GroupIn {
    Name(String),
    Parts { p: Vec<u8>, g: Vec<u8> },
}

impl<'de> Deserialize<'de> for GroupIn {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = GroupIn;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a group's name, or p and g")
            }

            fn visit_bytes<E: de::Error>(self, name: &[u8]) -> Result<GroupIn, E> {
                let name =
                    std::str::from_utf8(name).map_err(|_| E::custom("the group's name is not text"))?;
                Ok(GroupIn::Name(name.to_owned()))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<GroupIn, M::Error> {
                #[derive(Deserialize)]
                struct Parts {
                    #[serde(with = "serde_bytes")]
                    g: Vec<u8>,
                    #[serde(with = "serde_bytes")]
                    p: Vec<u8>,
                }
                let Parts { g, p } = Parts::deserialize(de::value::MapAccessDeserializer::new(map))?;
                if p.len() > MAX_BYTES || g.len() > MAX_BYTES {
                    return Err(de::Error::custom("the group has more than 4,096 bits"));
                }
                Ok(GroupIn::Parts { p, g })
            }
        }
        input.deserialize_any(Either)
    }
}

#[derive(Serialize)]
struct InfoOut<'a> {
    length: u64,
    name: &'a str,
    #[serde(rename = "piece length")]
    piece_length: u32,
    #[serde(with = "serde_bytes")]
    pieces: &'a [u8],
    private: u64,
    swarmseal: SealOut<'a>,
}

#[derive(Serialize)]
struct SealOut<'a> {
    exponents: &'static str,
    group: GroupOut,
    profile: &'static str,
    #[serde(rename = "publisher key", with = "serde_bytes")]
    publisher_key: &'a [u8; 32],
    #[serde(with = "serde_bytes")]
    random: &'a [u8; 32],
    #[serde(with = "bencode::optional_bytes", skip_serializing_if = "Option::is_none")]
    selection: Option<&'a [u8]>,
    v: u64,
    #[serde(with = "serde_bytes")]
    witness: &'a [u8],
}

#[derive(Serialize)]
#[serde(untagged)]
enum GroupOut {
    Name(&'static str),
    Parts {
        #[serde(with = "serde_bytes")]
        g: Vec<u8>,
        #[serde(with = "serde_bytes")]
        p: Vec<u8>,
    },
}

impl GroupOut {
    fn new(group: &Group) -> Self {
        if let Some(name) = group.name() {
            return GroupOut::Name(name);
        }
        let (mut g, mut p) = (vec![0; group.bytes()], vec![0; group.bytes()]);
        group.generator_be(&mut g).expect("W bytes");
        group.modulus_be(&mut p).expect("W bytes");
        GroupOut::Parts { g, p }
    }
}

impl<'a> InfoOut<'a> {
    fn new(info: &'a Info) -> Self {
        let seal = &info.seal;
        InfoOut {
            length: info.length(),
            name: &info.name,
            piece_length: info.piece_length,
            pieces: info.pieces.as_flattened(),
            private: info.private.into(),
            swarmseal: SealOut {
                exponents: seal.params.exponents().name(),
                group: GroupOut::new(seal.params.group()),
                profile: seal.params.profile().name(),
                publisher_key: &seal.publisher_key,
                random: &seal.random,
                selection: seal.selection.as_ref().map(|selection| selection.as_bytes()),
                v: VERSION,
                witness: seal.witness.as_flattened(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
