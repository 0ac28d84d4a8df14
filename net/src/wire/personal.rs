//! Personal torrents: an ordinary .torrent (BEP 3) of one subscriber's ciphertext, which any client can download and check.
//! What it brings is the subscriber's `pieces.bin`; only the subscriber's license opens it.

use sha1::{Digest, Sha1};

use super::bencode;
use super::plain::PlainTorrent;

/// SHA-1 of a subscriber's ciphertext of one piece.
pub type CipherHash = [u8; 20];

/// What a subscriber's own .torrent is made from.
#[derive(Clone, Copy, Debug)]
pub struct PersonalTorrent<'a> {
    /// The sealed torrent's label.
    pub label: &'a str,
    /// Its bytes of a piece.
    pub piece_length: u32,
    /// One for each piece.
    pub hashes: &'a [CipherHash],
}

impl PersonalTorrent<'_> {
    /// The file's bytes. `announce`: with the subscriber's passkey in it.
    pub fn to_bytes(&self, announce: &str) -> Vec<u8> {
        self.write(Some(announce))
    }

    /// SHA-1 of the raw info. The announce URL has no part in it: the tracker knows the info-hash as well.
    pub fn info_hash(&self) -> [u8; 20] {
        let torrent = self.write(None);
        let raw_info = bencode::dict_entry(&torrent, b"info").ok().flatten().unwrap_or_default();
        Sha1::digest(raw_info).into()
    }

    fn write(&self, announce: Option<&str>) -> Vec<u8> {
        let torrent = PlainTorrent {
            name: &format!("{}.sealed", self.label),
            files: None,
            length: self.hashes.len() as u64 * u64::from(self.piece_length),
            piece_len: self.piece_length,
            pieces: self.hashes,
            announce,
            private: true,
        };
        torrent.to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::plain::PlainMetainfo;

    #[test]
    fn it_is_an_ordinary_torrent_of_one_file() {
        let hashes = [[1; 20], [2; 20], [3; 20]];
        let personal = PersonalTorrent { label: "film", piece_length: 49152, hashes: &hashes };
        let read = PlainMetainfo::from_bytes(&personal.to_bytes("http://127.0.0.1:7/ab/announce")).unwrap();
        assert_eq!(read.info_hash, personal.info_hash());
        assert_eq!((read.layout.piece_count(), read.layout.length()), (3, 3 * 49152));
        assert_eq!((&*read.pieces, read.files.len()), (&hashes[..], 1));
        assert_eq!(read.files[0].path, ["film.sealed"]);
        let other = PersonalTorrent { hashes: &[[1; 20], [2; 20], [4; 20]], ..personal };
        assert_ne!(other.info_hash(), personal.info_hash());
    }
}
