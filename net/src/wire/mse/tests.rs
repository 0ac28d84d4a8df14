use super::*;
use crate::wire::handshake::Handshake;
use proptest::prelude::*;
use serde::Deserialize;

const INFO_HASH: [u8; 20] = [7; 20];
const OTHERS: [[u8; 20]; 3] = [[6; 20], INFO_HASH, [8; 20]];

/// What `reference.py` wrote.
#[derive(Deserialize)]
struct Vector {
    entropy: [String; 2],
    provide: u32,
    select: u32,
    info_hash: String,
    payload: String,
    messages: [String; 4],
    stream: String,
    enciphered: [String; 2],
}

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn entropy(byte: u8, clear: usize, enciphered: usize) -> [u8; ENTROPY] {
    let mut entropy = [byte; ENTROPY];
    entropy[20..22].copy_from_slice(&(clear as u16).to_be_bytes());
    entropy[22..24].copy_from_slice(&(enciphered as u16).to_be_bytes());
    entropy
}

fn initiator(pads: (usize, usize), provide: u32) -> Initiator {
    let payload = Handshake::new(INFO_HASH, [1; 20]).to_bytes();
    Initiator::new(&entropy(1, pads.0, pads.1), INFO_HASH, provide, payload)
}

/// A responder and the torrents that it serves.
struct Host(Responder, Vec<[u8; 20]>);

impl Host {
    fn advance(&mut self, input: &mut BytesMut, output: &mut Vec<u8>) -> Result<Option<Agreed>, Error> {
        loop {
            match self.0.advance(input, output)? {
                Progress::More => return Ok(None),
                Progress::Agreed(agreed) => return Ok(Some(*agreed)),
                Progress::Sought(name) => {
                    let found = self.1.iter().find(|info_hash| hidden_name(info_hash) == name);
                    self.0.serve(*found.ok_or(Error::UnknownTorrent)?)?;
                }
            }
        }
    }
}

fn responder(pads: (usize, usize), accept: u32) -> Host {
    Host(Responder::new(&entropy(2, pads.0, pads.1), accept), OTHERS.to_vec())
}

/// One side and the bytes that have reached it.
struct Side<F> {
    advance: F,
    input: BytesMut,
    agreed: Option<Agreed>,
}

impl<F: FnMut(&mut BytesMut, &mut Vec<u8>) -> Result<Option<Agreed>, Error>> Side<F> {
    fn new(advance: F) -> Self {
        Side { advance, input: BytesMut::new(), agreed: None }
    }

    /// Gives it bytes in portions; what it answers.
    fn take(&mut self, bytes: &[u8], portion: usize) -> Result<Vec<u8>, Error> {
        let mut output = Vec::new();
        for portion in bytes.chunks(portion) {
            self.input.extend_from_slice(portion);
            if self.agreed.is_none() {
                self.agreed = (self.advance)(&mut self.input, &mut output)?;
            } else if let Some(Agreed { ciphers: Some(ciphers), .. }) = &mut self.agreed {
                let start = self.input.len() - portion.len();
                ciphers.incoming.apply(&mut self.input[start..]);
            }
        }
        Ok(output)
    }
}

/// A whole handshake, each followed by words of both streams.
fn converse(mut a: Initiator, mut b: Host, portion: usize, method: u32) -> Result<(), Error> {
    let mut first = Vec::new();
    assert!(a.advance(&mut BytesMut::new(), &mut first)?.is_none());
    let mut a = Side::new(move |input: &mut _, output: &mut _| a.advance(input, output));
    let mut b = Side::new(move |input: &mut _, output: &mut _| b.advance(input, output));
    let second = b.take(&first, portion)?;
    let third = a.take(&second, portion)?;
    let mut fourth = b.take(&third, portion)?;
    let speak = |agreed: &mut Option<Agreed>, words: &[u8], out: &mut Vec<u8>| {
        let agreed = agreed.as_mut().expect("it is agreed");
        assert_eq!(agreed.info_hash, INFO_HASH);
        assert_eq!(agreed.ciphers.is_some(), method == RC4);
        out.extend(words);
        if let Some(ciphers) = &mut agreed.ciphers {
            let start = out.len() - words.len();
            ciphers.outgoing.apply(&mut out[start..]);
        }
    };
    speak(&mut b.agreed, b"hello from B", &mut fourth);
    assert!(a.take(&fourth, portion)?.is_empty());
    assert_eq!(a.input, b"hello from B"[..]);
    let mut fifth = Vec::new();
    speak(&mut a.agreed, b"hello from A", &mut fifth);
    assert!(b.take(&fifth, portion)?.is_empty());
    assert_eq!(b.input[..handshake::LEN], Handshake::new(INFO_HASH, [1; 20]).to_bytes());
    assert_eq!(b.input[handshake::LEN..], b"hello from A"[..]);
    Ok(())
}

#[test]
fn the_reference_agrees() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("vectors.json")).unwrap();
    assert_eq!(vectors.len(), 4);
    for vector in vectors {
        let [one, two, three, four] = vector.messages.map(|message| hex::decode(message).unwrap());
        let [entropy_a, entropy_b] = vector.entropy.map(|entropy| unhex::<ENTROPY>(&entropy));
        let info_hash = unhex(&vector.info_hash);
        let payload = unhex(&vector.payload);
        let mut a = Initiator::new(&entropy_a, info_hash, vector.provide, payload);
        let mut b = Host(Responder::new(&entropy_b, vector.select), vec![info_hash]);
        let out = &mut Vec::new();
        assert!(a.advance(&mut BytesMut::new(), out).unwrap().is_none());
        assert_eq!(std::mem::take(out), one);
        assert!(b.advance(&mut BytesMut::from(&one[..]), out).unwrap().is_none());
        assert_eq!(std::mem::take(out), two);
        assert!(a.advance(&mut BytesMut::from(&two[..]), out).unwrap().is_none());
        assert_eq!(std::mem::take(out), three);

        let stream = hex::decode(&vector.stream).unwrap();
        let [from_a, from_b] = vector.enciphered.map(|bytes| hex::decode(bytes).unwrap());
        let mut input = BytesMut::from(&[three, from_a].concat()[..]);
        let agreed = b.advance(&mut input, out).unwrap().unwrap();
        assert_eq!(agreed.ciphers.is_some(), vector.select == RC4);
        assert_eq!(std::mem::take(out), four);
        assert_eq!(input, [&payload[..], &stream].concat()[..]);

        let mut input = BytesMut::from(&[four, from_b].concat()[..]);
        a.advance(&mut input, out).unwrap().unwrap();
        assert!(out.is_empty());
        assert_eq!(input, stream[..]);
    }
}

#[test]
fn every_length_of_padding() {
    for len in 0..=MAX_PAD {
        let (a, b) = ((len, MAX_PAD - len), (len.reverse_bits() % (MAX_PAD + 1), len));
        converse(initiator(a, RC4), responder(b, RC4 | PLAINTEXT), usize::MAX, RC4).unwrap();
    }
}

#[test]
fn however_it_arrives() {
    for portion in [1, 2, 3, 7, 20, 96, 97, 500] {
        for pads in [(0, 0), (9, 1), (512, 512)] {
            converse(initiator(pads, RC4), responder(pads, RC4), portion, RC4).unwrap();
            converse(initiator(pads, PLAINTEXT | RC4), responder(pads, PLAINTEXT), portion, PLAINTEXT)
                .unwrap();
        }
    }
}

#[test]
fn methods_in_common() {
    let cases = [
        (PLAINTEXT | RC4, PLAINTEXT | RC4, Some(PLAINTEXT)),
        (PLAINTEXT | RC4, RC4, Some(RC4)),
        (RC4, PLAINTEXT | RC4, Some(RC4)),
        (0x8000_0000 | RC4, RC4, Some(RC4)),
        (PLAINTEXT, RC4, None),
        (RC4, PLAINTEXT, None),
        (0, PLAINTEXT | RC4, None),
        (4, PLAINTEXT | RC4, None),
    ];
    for (provide, accept, method) in cases {
        let said = converse(initiator((1, 1), provide), responder((1, 1), accept), 50, method.unwrap_or(0));
        let expected = method.map(|_| ()).ok_or(Error::NoMethod { theirs: provide, ours: accept });
        assert_eq!(said, expected, "{provide} {accept}");
    }
}

#[test]
fn another_torrent_is_unknown() {
    for here in [vec![[6; 20], [8; 20]], Vec::new()] {
        let mut b = responder((0, 0), RC4);
        b.1 = here;
        assert_eq!(converse(initiator((5, 5), RC4), b, 100, RC4), Err(Error::UnknownTorrent));
    }
    let mut b = responder((0, 0), RC4).0;
    assert_eq!(b.serve(INFO_HASH), Err(Error::UnknownTorrent), "nothing is sought yet");
}

#[test]
fn keys_that_give_the_secret_away_are_refused() {
    let last = P.modulus().get().wrapping_sub(&U768::ONE);
    let valid = [U768::from_u8(2), last.wrapping_sub(&U768::ONE)];
    let bad = [U768::ZERO, U768::ONE, last, P.modulus().get(), U768::MAX];
    let keys = valid.map(|key| (key, None)).into_iter().chain(bad.map(|key| (key, Some(Error::BadKey))));
    for (key, error) in keys {
        let bytes: &[u8] = &key.to_be_bytes();
        let mut a = initiator((0, 0), RC4);
        a.advance(&mut BytesMut::new(), &mut Vec::new()).unwrap();
        assert_eq!(a.advance(&mut BytesMut::from(bytes), &mut Vec::new()).err(), error);
        let mut b = responder((0, 0), RC4);
        assert_eq!(b.advance(&mut BytesMut::from(bytes), &mut Vec::new()).err(), error);
        if error.is_some() {
            assert_eq!(b.advance(&mut BytesMut::from(bytes), &mut Vec::new()).err(), Some(Error::Over));
        }
    }
}

#[test]
fn a_mark_that_does_not_come_is_not_waited_for() {
    for (portion, mark) in [(1, 20), (4096, 20), (1, 8), (4096, 8)] {
        let (mut a, mut b) = (initiator((0, 0), RC4), responder((0, 0), RC4));
        a.advance(&mut BytesMut::new(), &mut Vec::new()).unwrap();
        type Advance<'a> = dyn FnMut(&mut BytesMut, &mut Vec<u8>) -> Result<Option<Agreed>, Error> + 'a;
        let said =
            |side: &mut Advance<'_>, len| Side::new(side).take(&vec![0x55; KEY + len], portion).map(|_| ());
        let mut run = |len| match mark {
            20 => said(&mut |input, output| b.advance(input, output), len),
            _ => said(&mut |input, output| a.advance(input, output), len),
        };
        assert_eq!(run(MAX_PAD + mark), Err(Error::NoMark));
    }
}

/// A caller that says `words` where VC, `crypto_provide` and the rest stand.
fn offer(words: &[u8]) -> Result<Option<Agreed>, Error> {
    let (choices, mut b) = (Choices::new(&entropy(1, 0, 0)), responder((0, 0), RC4));
    let secret = choices.secret(&Choices::new(&entropy(2, 0, 0)).hello()).unwrap();
    let mut words = words.to_vec();
    Ciphers::of_initiator(&secret, &INFO_HASH).outgoing.apply(&mut words);
    let marks = [hash(&[b"req1", &*secret]), torrent_mark(&secret, &INFO_HASH)].concat();
    let all = [&choices.hello()[..], &marks, &words].concat();
    b.advance(&mut BytesMut::from(&all[..]), &mut Vec::new())
}

#[test]
fn every_field_is_checked() {
    let sound = [&[0; 8][..], &[0, 0, 0, 2], &[0, 0], &[0, 3], b"abc"].concat();
    assert!(offer(&sound).unwrap().is_some());
    for len in 0..sound.len() {
        assert!(offer(&sound[..len]).unwrap().is_none(), "{len} bytes are not all");
    }
    let with = |at: usize, byte| {
        let mut words = sound.clone();
        words[at] = byte;
        offer(&words).map(|agreed| agreed.is_some())
    };
    for at in 0..8 {
        assert_eq!(with(at, 1), Err(Error::BadConstant));
    }
    assert_eq!(with(11, 1), Err(Error::NoMethod { theirs: 1, ours: RC4 }));
    assert_eq!(with(12, 3), Err(Error::LongPad(0x300)));
    // A longer payload is waited for: at most 65,535 bytes.
    assert_eq!(with(14, 0xff), Ok(false));
}

/// One who is called and says `words` after VC.
fn answer(words: &[u8]) -> Result<Option<Agreed>, Error> {
    let (choices, mut a) = (Choices::new(&entropy(2, 0, 0)), initiator((0, 0), RC4));
    a.advance(&mut BytesMut::new(), &mut Vec::new()).unwrap();
    let secret = choices.secret(&Choices::new(&entropy(1, 0, 0)).hello()).unwrap();
    let mut words = [&VC[..], words].concat();
    Ciphers::of_responder(&secret, &INFO_HASH).outgoing.apply(&mut words);
    a.advance(&mut BytesMut::from(&[choices.hello(), words].concat()[..]), &mut Vec::new())
}

#[test]
fn what_is_selected_is_checked() {
    assert!(answer(&[0, 0, 0, 2, 0, 0]).unwrap().is_some());
    assert!(answer(&[0, 0, 0, 2, 2, 0]).unwrap().is_none());
    assert_eq!(answer(&[0, 0, 0, 2, 2, 1]).err(), Some(Error::LongPad(513)));
    for theirs in [0, 1, 3, 4, 6] {
        assert_eq!(
            answer(&[0, 0, 0, theirs, 0, 0]).err(),
            Some(Error::NoMethod { theirs: theirs.into(), ours: RC4 })
        );
    }
}

#[test]
fn nothing_secret_is_printed() {
    let secret = [9; KEY];
    let ciphers = Ciphers::of_initiator(&secret, &INFO_HASH);
    assert_eq!(format!("{ciphers:?}"), "Ciphers { incoming: Cipher(..), outgoing: Cipher(..) }");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), KEY + MAX_PAD + 20..1500), portion in 1_usize..2000) {
        let (mut a, mut b) = (initiator((0, 0), RC4), responder((0, 0), RC4 | PLAINTEXT));
        a.advance(&mut BytesMut::new(), &mut Vec::new()).unwrap();
        let mut a = Side::new(|input: &mut _, output: &mut _| a.advance(input, output));
        let mut b = Side::new(|input: &mut _, output: &mut _| b.advance(input, output));
        prop_assert!(a.take(&bytes, portion).is_err());
        prop_assert!(b.take(&bytes, portion).is_err());
    }
}
