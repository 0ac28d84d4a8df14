//! Message Stream Encryption (MSE, also PE), the handshake that hides BitTorrent from who filters it. Source: the page "Message
//! Stream Encryption" of the Vuze wiki.
//!
//! This is obfuscation and no security, as its own specification says: keys are exchanged with nobody authenticated, in a group of
//! 768 bits, for RC4 without any check of integrity. Who knows the info-hash can stand in the middle.
//!
//! ```text
//! 1  A → B   Ya, PadA
//! 2  B → A   Yb, PadB
//! 3  A → B   HASH("req1", S), HASH("req2", SKEY) ^ HASH("req3", S), ENCRYPT(VC, crypto_provide, len(PadC), PadC, len(IA), IA)
//! 4  B → A   ENCRYPT(VC, crypto_select, len(PadD), PadD)
//! ```
//!
//! SKEY is the info-hash, S the Diffie–Hellman secret, VC eight zeros, HASH is SHA-1, IA the first words of A's stream. A sends on
//! RC4 with the key HASH("keyA", S, SKEY), B with HASH("keyB", S, SKEY), both after dropping 1,024 bytes. What follows goes on with
//! RC4, or in plain.
//!
//! Neither side reads or writes a socket here: `advance` takes what has arrived and gives what is to be sent.

use std::fmt;

use bytes::{Buf, BytesMut};
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U192, U768};
use rc4::{KeyInit, Rc4, StreamCipher};
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::handshake;

/// The bit of `crypto_provide` and `crypto_select` for a stream in plain after the handshake.
pub const PLAINTEXT: u32 = 1;
/// The bit of `crypto_provide` and `crypto_select` for RC4.
pub const RC4: u32 = 2;
/// Random bytes that one side takes.
pub const ENTROPY: usize = EXPONENT + 4 + MAX_PAD;

/// Bytes of a public key and of the secret.
const KEY: usize = 96;
/// Bytes of an exponent: 160 bits, as the specification recommends.
const EXPONENT: usize = 20;
/// Bytes of the longest padding.
const MAX_PAD: usize = 512;
/// The verification constant.
const VC: [u8; 8] = [0; 8];

/// The group's safe prime; its generator is 2.
const P: FixedMontyParams<{ U768::LIMBS }> = FixedMontyParams::new_vartime(Odd::<U768>::from_be_hex(
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74\
     020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f1437\
     4fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563",
));

/// Why a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The public key would give the secret away.
    #[error("MSE: expected a public key from 2 to p − 2")]
    BadKey,
    /// The other side holds another secret, or speaks another protocol.
    #[error("MSE: expected a mark after at most {MAX_PAD} bytes of padding")]
    NoMark,
    /// No torrent here has that hash.
    #[error("MSE: unknown info-hash")]
    UnknownTorrent,
    /// What was deciphered makes no sense.
    #[error("MSE: expected a verification constant of zeros")]
    BadConstant,
    /// The two sides have no method in common, or one was selected that was not provided.
    #[error("MSE: methods {theirs:#x}, expected of {ours:#x}")]
    NoMethod {
        /// Theirs.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// A padding is too long.
    #[error("MSE: {0} bytes of padding, expected at most {MAX_PAD}")]
    LongPad(usize),
    /// It had ended before.
    #[error("MSE: the handshake is over")]
    Over,
}

/// One direction of a connection.
pub struct Cipher(Rc4);

impl Cipher {
    fn new(label: &[u8; 4], secret: &[u8; KEY], info_hash: &[u8; 20]) -> Self {
        let key = Zeroizing::new(hash(&[label, secret, info_hash]));
        let mut cipher = Cipher(Rc4::new_from_slice(&*key).expect("20 bytes are a key"));
        cipher.apply(&mut [0; 1024]);
        cipher
    }

    /// Enciphers or deciphers the next bytes in place.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// Both directions of a connection.
#[derive(Debug)]
pub struct Ciphers {
    /// What they send.
    pub incoming: Cipher,
    /// What we send.
    pub outgoing: Cipher,
}

impl Ciphers {
    fn of_initiator(secret: &[u8; KEY], info_hash: &[u8; 20]) -> Self {
        let [a, b] = [b"keyA", b"keyB"].map(|label| Cipher::new(label, secret, info_hash));
        Ciphers { incoming: b, outgoing: a }
    }

    fn of_responder(secret: &[u8; KEY], info_hash: &[u8; 20]) -> Self {
        let Ciphers { incoming, outgoing } = Self::of_initiator(secret, info_hash);
        Ciphers { incoming: outgoing, outgoing: incoming }
    }
}

/// What a handshake came to.
#[derive(Debug)]
pub struct Agreed {
    /// The torrent.
    pub info_hash: [u8; 20],
    /// How the stream goes on; `None`: in plain.
    pub ciphers: Option<Ciphers>,
}

impl Agreed {
    /// Deciphers what of the stream has arrived.
    fn new(info_hash: [u8; 20], mut ciphers: Ciphers, method: u32, stream: &mut [u8]) -> Self {
        if method == PLAINTEXT {
            return Agreed { info_hash, ciphers: None };
        }
        ciphers.incoming.apply(stream);
        Agreed { info_hash, ciphers: Some(ciphers) }
    }
}

/// One side's random choices.
struct Choices {
    exponent: Zeroizing<[u8; EXPONENT]>,
    /// The padding sent in clear.
    clear: Vec<u8>,
    /// Zeros to be enciphered.
    enciphered: Vec<u8>,
}

impl Choices {
    fn new(entropy: &[u8; ENTROPY]) -> Self {
        let (exponent, rest) = entropy.split_first_chunk().expect("it is longer");
        let (lengths, padding) = rest.split_first_chunk::<4>().expect("it is longer");
        let length = |high, low| usize::from(u16::from_be_bytes([high, low])) % (MAX_PAD + 1);
        let &[a, b, c, d] = lengths;
        Choices {
            exponent: Zeroizing::new(*exponent),
            clear: padding[..length(a, b)].to_vec(),
            enciphered: vec![0; length(c, d)],
        }
    }

    fn power(&self, base: &U768) -> [u8; KEY] {
        let mut exponent = Zeroizing::new([0; U192::BYTES]);
        exponent[U192::BYTES - EXPONENT..].copy_from_slice(&*self.exponent);
        let exponent = U192::from_be_slice(&*exponent);
        let power = FixedMontyForm::new(base, &P).pow_bounded_exp(&exponent, 8 * EXPONENT as u32).retrieve();
        power.to_be_bytes().as_ref().try_into().expect("768 bits")
    }

    /// Our public key and padding.
    fn hello(&self) -> Vec<u8> {
        [&self.power(&U768::from_u8(2))[..], &self.clear].concat()
    }

    /// The secret shared with the owner of a public key.
    fn secret(&self, theirs: &[u8]) -> Result<Zeroizing<[u8; KEY]>, Error> {
        let theirs = U768::from_be_slice(theirs);
        let last = P.modulus().get().wrapping_sub(&U768::ONE);
        let valid = theirs > U768::ONE && theirs < last;
        valid.then(|| Zeroizing::new(self.power(&theirs))).ok_or(Error::BadKey)
    }
}

/// The side that calls.
pub struct Initiator {
    choices: Choices,
    info_hash: [u8; 20],
    provide: u32,
    payload: [u8; handshake::LEN],
    step: Calling,
}

#[derive(Default)]
enum Calling {
    Start,
    Key,
    Mark(Ciphers, [u8; 8]),
    Select(Ciphers),
    Pad(Ciphers, u32, usize),
    #[default]
    Over,
}

impl Initiator {
    /// `entropy`: random bytes. `provide`: methods that will do. `payload`: IA.
    pub fn new(
        entropy: &[u8; ENTROPY],
        info_hash: [u8; 20],
        provide: u32,
        payload: [u8; handshake::LEN],
    ) -> Self {
        Initiator { choices: Choices::new(entropy), info_hash, provide, payload, step: Calling::Start }
    }

    /// Takes from `input` what it can, and appends to `output` what is to be sent. Once it is agreed, `input` is what their stream
    /// begins with, deciphered.
    pub fn advance(&mut self, input: &mut BytesMut, output: &mut Vec<u8>) -> Result<Option<Agreed>, Error> {
        loop {
            let needed = match self.step {
                Calling::Start | Calling::Mark(..) | Calling::Over => 0,
                Calling::Key => KEY,
                Calling::Select(_) => 6,
                Calling::Pad(_, _, len) => len,
            };
            if input.len() < needed {
                return Ok(None);
            }
            let mut taken = input.split_to(needed);
            self.step = match std::mem::take(&mut self.step) {
                Calling::Start => {
                    output.extend(self.choices.hello());
                    Calling::Key
                }
                Calling::Key => {
                    let secret = self.choices.secret(&taken)?;
                    let mut ciphers = Ciphers::of_initiator(&secret, &self.info_hash);
                    output.extend(hash(&[b"req1", &*secret]));
                    output.extend(torrent_mark(&secret, &self.info_hash));
                    let offer = output.len();
                    output.extend(VC);
                    output.extend(self.provide.to_be_bytes());
                    put_counted(output, &self.choices.enciphered);
                    put_counted(output, &self.payload);
                    ciphers.outgoing.apply(&mut output[offer..]);
                    let mut mark = VC;
                    ciphers.incoming.apply(&mut mark);
                    Calling::Mark(ciphers, mark)
                }
                Calling::Mark(ciphers, mark) => {
                    if !skip_past(input, &mark)? {
                        self.step = Calling::Mark(ciphers, mark);
                        return Ok(None);
                    }
                    Calling::Select(ciphers)
                }
                Calling::Select(mut ciphers) => {
                    ciphers.incoming.apply(&mut taken);
                    let (theirs, ours) = (taken.get_u32(), self.provide);
                    if ![PLAINTEXT, RC4].contains(&theirs) || theirs & ours == 0 {
                        return Err(Error::NoMethod { theirs, ours });
                    }
                    Calling::Pad(ciphers, theirs, pad_length(&mut taken)?)
                }
                Calling::Pad(mut ciphers, method, _) => {
                    ciphers.incoming.apply(&mut taken);
                    return Ok(Some(Agreed::new(self.info_hash, ciphers, method, input)));
                }
                Calling::Over => return Err(Error::Over),
            }
        }
    }
}

/// The side that is called.
pub struct Responder {
    choices: Choices,
    accept: u32,
    step: Called,
}

/// How far a [`Responder`] has come.
#[derive(Debug)]
pub enum Progress {
    /// More input is needed.
    More,
    /// The torrent with this [`hidden_name`] is sought: [`Responder::serve`] says which it is.
    Sought([u8; 20]),
    /// It is agreed.
    Agreed(Box<Agreed>),
}

#[derive(Default)]
enum Called {
    Key,
    Mark(Zeroizing<[u8; KEY]>),
    Name(Zeroizing<[u8; KEY]>),
    Sought(Zeroizing<[u8; KEY]>, [u8; 20]),
    Offer(Zeroizing<[u8; KEY]>, [u8; 20]),
    Pad(Chosen, usize),
    Payload(Chosen, usize),
    #[default]
    Over,
}

struct Chosen {
    info_hash: [u8; 20],
    ciphers: Ciphers,
    method: u32,
}

impl Responder {
    /// `entropy`: random bytes. `accept`: methods that will do; of those that are provided too, the cheapest is selected.
    pub fn new(entropy: &[u8; ENTROPY], accept: u32) -> Self {
        Responder { choices: Choices::new(entropy), accept, step: Called::Key }
    }

    /// Answers [`Progress::Sought`]; `advance` goes on then. Errors: [`Error::UnknownTorrent`] if this is not what is sought,
    /// or nothing is.
    pub fn serve(&mut self, info_hash: [u8; 20]) -> Result<(), Error> {
        match std::mem::take(&mut self.step) {
            Called::Sought(secret, name) if hidden_name(&info_hash) == name => {
                self.step = Called::Offer(secret, info_hash);
                Ok(())
            }
            _ => Err(Error::UnknownTorrent),
        }
    }

    /// As [`Initiator::advance`].
    pub fn advance(&mut self, input: &mut BytesMut, output: &mut Vec<u8>) -> Result<Progress, Error> {
        loop {
            let needed = match self.step {
                Called::Mark(_) | Called::Sought(..) | Called::Over => 0,
                Called::Key => KEY,
                Called::Name(_) => 20,
                Called::Offer(..) => VC.len() + 6,
                Called::Pad(_, len) => len + 2,
                Called::Payload(_, len) => len,
            };
            if input.len() < needed {
                return Ok(Progress::More);
            }
            let mut taken = input.split_to(needed);
            self.step = match std::mem::take(&mut self.step) {
                Called::Key => {
                    let secret = self.choices.secret(&taken)?;
                    output.extend(self.choices.hello());
                    Called::Mark(secret)
                }
                Called::Mark(secret) => {
                    if !skip_past(input, &hash(&[b"req1", &*secret]))? {
                        self.step = Called::Mark(secret);
                        return Ok(Progress::More);
                    }
                    Called::Name(secret)
                }
                Called::Name(secret) => {
                    let mask = hash(&[b"req3", &*secret]);
                    let name = std::array::from_fn(|i| taken[i] ^ mask[i]);
                    Called::Sought(secret, name)
                }
                Called::Sought(secret, name) => {
                    self.step = Called::Sought(secret, name);
                    return Ok(Progress::Sought(name));
                }
                Called::Offer(secret, info_hash) => {
                    let mut ciphers = Ciphers::of_responder(&secret, &info_hash);
                    ciphers.incoming.apply(&mut taken);
                    if taken.split_to(VC.len()) != VC[..] {
                        return Err(Error::BadConstant);
                    }
                    let (theirs, ours) = (taken.get_u32(), self.accept);
                    let method = [PLAINTEXT, RC4].into_iter().find(|method| theirs & ours & method != 0);
                    let method = method.ok_or(Error::NoMethod { theirs, ours })?;
                    Called::Pad(Chosen { info_hash, ciphers, method }, pad_length(&mut taken)?)
                }
                Called::Pad(mut chosen, len) => {
                    chosen.ciphers.incoming.apply(&mut taken);
                    taken.advance(len);
                    Called::Payload(chosen, taken.get_u16().into())
                }
                Called::Payload(Chosen { info_hash, mut ciphers, method }, _) => {
                    let select = output.len();
                    output.extend(VC);
                    output.extend(method.to_be_bytes());
                    put_counted(output, &self.choices.enciphered);
                    ciphers.outgoing.apply(&mut output[select..]);
                    ciphers.incoming.apply(&mut taken);
                    let agreed = Agreed::new(info_hash, ciphers, method, input);
                    taken.unsplit(std::mem::take(input));
                    *input = taken;
                    return Ok(Progress::Agreed(Box::new(agreed)));
                }
                Called::Over => return Err(Error::Over),
            }
        }
    }
}

/// HASH.
fn hash(parts: &[&[u8]]) -> [u8; 20] {
    parts.iter().fold(Sha1::new(), |sha1, part| sha1.chain_update(part)).finalize().into()
}

/// What a peer calls a torrent when it opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TorrentName {
    /// Its info-hash.
    InfoHash([u8; 20]),
    /// Its [`hidden_name`].
    Hidden([u8; 20]),
}

impl TorrentName {
    /// The bytes, and whether they are hidden.
    pub fn parts(&self) -> (&[u8; 20], bool) {
        match self {
            TorrentName::InfoHash(name) => (name, false),
            TorrentName::Hidden(name) => (name, true),
        }
    }
}

/// HASH("req2", SKEY): it names a torrent to who knows of it.
pub fn hidden_name(info_hash: &[u8; 20]) -> [u8; 20] {
    hash(&[b"req2", info_hash])
}

/// HASH("req2", SKEY) ^ HASH("req3", S).
fn torrent_mark(secret: &[u8; KEY], info_hash: &[u8; 20]) -> [u8; 20] {
    let (name, mask) = (hidden_name(info_hash), hash(&[b"req3", secret]));
    std::array::from_fn(|i| name[i] ^ mask[i])
}

/// Whether `mark` has come; if so, it goes with the padding before it.
fn skip_past(input: &mut BytesMut, mark: &[u8]) -> Result<bool, Error> {
    let most = MAX_PAD + mark.len();
    let window = &input[..input.len().min(most)];
    match window.windows(mark.len()).position(|bytes| bytes == mark) {
        Some(at) => input.advance(at + mark.len()),
        None if window.len() == most => return Err(Error::NoMark),
        None => return Ok(false),
    }
    Ok(true)
}

fn pad_length(input: &mut BytesMut) -> Result<usize, Error> {
    let len = usize::from(input.get_u16());
    if len > MAX_PAD { Err(Error::LongPad(len)) } else { Ok(len) }
}

/// A length of two bytes, then as many.
fn put_counted(output: &mut Vec<u8>, bytes: &[u8]) {
    output.extend((bytes.len() as u16).to_be_bytes());
    output.extend(bytes);
}

#[cfg(test)]
mod tests;
