//! Where an original seed's plaintext comes from.

use std::io;

/// The plaintext stream, cut into the payloads of pieces. No ciphertext is kept by a seed: it is made on the way out.
pub trait PlainSource: Send + Sync + 'static {
    /// Fills `payload` with the bytes of piece `index`: the piece's whole payload, zeros beyond the stream's end. In a
    /// plain torrent, and of a clear piece, the payload is the piece.
    fn read_payload(&self, index: u32, payload: &mut [u8]) -> io::Result<()>;

    /// Fills `piece` with the packaged piece, or with a clear one, where that is at hand; false, with anything in `piece`, where it has to be made of
    /// the payload.
    fn read_packaged(&self, index: u32, piece: &mut [u8]) -> io::Result<bool> {
        let _ = (index, piece);
        Ok(false)
    }
}
