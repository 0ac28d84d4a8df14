//! The crate against vectors that an independent reference in Python made (`vectors/reference.py` says what each field is).

use serde::Deserialize;
use sha1::{Digest, Sha1};
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, DeviceRoot, EncryptionKey, Error, Exponents, Group, Kernels, KeyCommitment, MasterKey,
    Params, Profile, Proof, PublicKey, ReKey, SecretKey, SubscriberId, Ticket, TorrentId, TsKeys,
    WitnessExponents, WitnessFactor, WitnessKey, WitnessSecret, check_witness, decrypt_piece, encrypt_piece,
    re_encrypt_piece, witness_hash,
};

/// Bytes in hexadecimal.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Hex(Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        hex::decode(text).map(Hex)
    }
}

impl Hex {
    fn array<const N: usize>(&self) -> [u8; N] {
        self.0.as_slice().try_into().unwrap()
    }
}

/// A piece, whole or by its SHA-1.
#[derive(Deserialize)]
enum Piece {
    #[serde(rename = "bytes")]
    Bytes(Hex),
    #[serde(rename = "sha1")]
    Sha1(Hex),
}

impl Piece {
    fn assert_is(&self, piece: &[u8]) {
        match self {
            Piece::Bytes(expected) => assert_eq!(piece, expected.0),
            Piece::Sha1(expected) => assert_eq!(Sha1::digest(piece)[..], expected.0),
        }
    }
}

#[derive(Deserialize)]
struct Peer {
    root: Hex,
    identity_secret: Hex,
    device_secret: Hex,
    seat_secret: Hex,
    s: Hex,
    y: Hex,
    identity: Hex,
    device: Hex,
    commitment: Hex,
    subscriber: Hex,
    encryption_key: Hex,
    decryption_key: Hex,
    witness_key: Hex,
    ciphertext: Piece,
}

#[derive(Deserialize)]
struct Witness {
    secret: Hex,
    factor: Hex,
    hash: Hex,
}

#[derive(Deserialize)]
struct Schnorr {
    nonce: Hex,
    statement: Vec<Hex>,
    encoded: Hex,
}

#[derive(Deserialize)]
struct Seed {
    ed25519: Hex,
    id: Hex,
}

#[derive(Deserialize)]
struct TicketVector {
    uploader: Hex,
    downloader: Hex,
    epoch: u64,
    expires: u64,
    signature: Hex,
    signed: Hex,
    encoded: Hex,
}

#[derive(Deserialize)]
struct Scheme {
    profile: String,
    group: String,
    exponents: String,
    publisher: Hex,
    random: Hex,
    torrent: Hex,
    master: Hex,
    epoch: u64,
    index: u32,
    package_secret: Hex,
    content: Option<Hex>,
    length: usize,
    packaged: Piece,
    j: Peer,
    k: Peer,
    rekey: Hex,
    witness: Witness,
    proof: Schnorr,
    seed: Seed,
    ticket: TicketVector,
}

fn encoded(params: &Params, write: impl FnOnce(&mut [u8]) -> Result<(), Error>) -> Vec<u8> {
    let mut bytes = vec![0; params.group().bytes()];
    write(&mut bytes).unwrap();
    bytes
}

#[test]
fn scheme() {
    let vectors: Vec<Scheme> = serde_json::from_str(include_str!("../vectors/scheme.json")).unwrap();
    vectors.iter().for_each(check_scheme);
    let there = |profile: Profile, group: &str, exponents: Exponents| {
        vectors
            .iter()
            .any(|v| (&*v.profile, &*v.group, &*v.exponents) == (profile.name(), group, exponents.name()))
    };
    for name in Group::names() {
        assert!(there(Profile::Paper, name, Exponents::Full), "paper, {name}");
        let group = Group::by_name(name, Kernels::portable()).unwrap();
        for exponents in [Exponents::Short, Exponents::Full] {
            if Params::new(Profile::Sealed, group.clone(), exponents).is_ok() {
                assert!(there(Profile::Sealed, name, exponents), "sealed, {name}, {exponents}");
            }
        }
    }
    assert!(there(Profile::Paper, "prime512", Exponents::Short), "`paper` ignores the kind of exponents");
}

fn check_scheme(v: &Scheme) {
    let group = Group::by_name(&v.group, Kernels::portable()).unwrap();
    let profile = Profile::by_name(&v.profile).unwrap();
    let params = &Params::new(profile, group, Exponents::by_name(&v.exponents).unwrap()).unwrap();
    let torrent = TorrentId::of(&v.publisher.array(), &v.random.array());
    assert_eq!(torrent.0, v.torrent.array());

    let mut piece = vec![0; v.length];
    let payload = params.payload_bytes(v.length);
    match &v.content {
        Some(content) => piece[..payload].copy_from_slice(&content.0),
        None => piece[..payload].iter_mut().enumerate().for_each(|(i, b)| *b = ((7 * i + 3) % 251) as u8),
    }
    let content = piece.clone();
    let secret = PackageSecret::from_bytes(v.package_secret.array());
    package::pack(params, &secret, &torrent, v.index, &mut piece).unwrap();
    v.packaged.assert_is(&piece);
    let packaged = piece;

    let omega = WitnessSecret::from_bytes(v.witness.secret.array());
    let w = WitnessExponents::derive(params, &omega, &torrent).exponent(v.index);
    let factor = WitnessFactor::derive(params, &w);
    assert_eq!(encoded(params, |out| factor.to_bytes(params, out)), v.witness.factor.0);
    let published = v.witness.hash.array();
    assert_eq!(witness_hash(params, &factor, &mut packaged.clone()), Ok(published));

    let master = MasterKey::from_bytes(v.master.array());
    let [j, k] = [&v.j, &v.k].map(|peer| {
        let root = DeviceRoot::from_bytes(peer.root.array());
        assert_eq!(*root.identity_key(&torrent).as_bytes(), peer.identity_secret.array());
        assert_eq!(*root.device_key(&torrent).as_bytes(), peer.device_secret.array());
        assert_eq!(*root.seat_key(&v.publisher.array()).as_bytes(), peer.seat_secret.array());
        let s = root.secret_key(params, &torrent);
        assert_eq!(encoded(params, |out| s.to_bytes(params, out)), peer.s.0);
        let s = SecretKey::from_bytes(params, &peer.s.0).unwrap();
        let y = s.public_key(params);
        assert_eq!(encoded(params, |out| y.to_bytes(params, out)), peer.y.0);
        assert_eq!(PublicKey::from_bytes(params, &peer.y.0).unwrap(), y);
        let commitment = KeyCommitment::of(params, &peer.device.array(), &y);
        assert_eq!(commitment.0, peer.commitment.array());
        let id = SubscriberId::of(&torrent, &peer.identity.array(), &commitment);
        assert_eq!(id.0, peer.subscriber.array());
        let r = TsKeys::derive(params, &master, &id, v.epoch).key(v.index);
        let encryption = EncryptionKey::derive(params, &y, &r);
        assert_eq!(encoded(params, |out| encryption.to_bytes(params, out)), peer.encryption_key.0);
        let decryption = DecryptionKey::derive(params, &r);
        assert_eq!(encoded(params, |out| decryption.to_bytes(params, out)), peer.decryption_key.0);
        let mut piece = packaged.clone();
        encrypt_piece(params, &encryption, &mut piece).unwrap();
        peer.ciphertext.assert_is(&piece);
        let ciphertext = piece.clone();
        let witness_key = WitnessKey::derive(params, &w, (&y, &r));
        assert_eq!(encoded(params, |out| witness_key.to_bytes(params, out)), peer.witness_key.0);
        let mut scratch = vec![0; v.length];
        assert_eq!(check_witness(params, &witness_key, &published, &ciphertext, &mut scratch), Ok(()));
        decrypt_piece(params, &s, &decryption, &mut piece).unwrap();
        assert_eq!(piece, packaged);
        (s, y, r, ciphertext)
    });

    let rekey = ReKey::derive(params, (&j.1, &j.2), (&k.1, &k.2));
    assert_eq!(encoded(params, |out| rekey.to_bytes(params, out)), v.rekey.0);
    let mut moved = j.3.clone();
    re_encrypt_piece(params, &rekey, &mut moved).unwrap();
    assert_eq!(moved, k.3);
    let mut opened = packaged.clone();
    let len = package::unpack(params, &mut opened).unwrap();
    assert_eq!(opened[..len], content[..payload]);

    let statement: Vec<&[u8]> = v.proof.statement.iter().map(|field| field.0.as_slice()).collect();
    let proof = Proof::prove_with_nonce(params, &j.0, &j.1, &statement, &v.proof.nonce.0);
    let mut bytes = vec![0; Proof::encoded_len(params)];
    proof.to_bytes(params, &mut bytes).unwrap();
    assert_eq!(bytes, v.proof.encoded.0);
    Proof::from_bytes(params, &v.proof.encoded.0).unwrap().verify(params, &j.1, &statement).unwrap();

    assert_eq!(SubscriberId::of_seed(&torrent, &v.seed.ed25519.array()).0, v.seed.id.array());
    let ticket = Ticket {
        torrent_id: torrent,
        uploader: SubscriberId(v.ticket.uploader.array()),
        downloader: SubscriberId(v.ticket.downloader.array()),
        epoch: v.ticket.epoch,
        expires: v.ticket.expires,
        signature: v.ticket.signature.array(),
    };
    assert_eq!(ticket.signing_input()[..], v.ticket.signed.0);
    assert_eq!(ticket.to_bytes()[..], v.ticket.encoded.0);
    assert_eq!(Ticket::from_bytes(&v.ticket.encoded.0), Ok(ticket));
}

#[derive(Deserialize)]
struct Toy {
    p: Hex,
    g: Hex,
    secret: Hex,
    torrent: Hex,
    index: u32,
    content: Hex,
    ctr: u64,
    packaged: Hex,
}

#[test]
fn toy_primes_force_retries() {
    let vectors: Vec<Toy> = serde_json::from_str(include_str!("../vectors/toys.json")).unwrap();
    assert_eq!(vectors.len(), 2);
    for v in vectors {
        let group = Group::from_parts(Kernels::portable(), &v.p.0, &v.g.0).unwrap();
        let mut piece = v.content.0.clone();
        piece.resize(v.packaged.0.len(), 0xee);
        let secret = PackageSecret::from_bytes(v.secret.array());
        let torrent = TorrentId(v.torrent.array());
        assert!(v.ctr > 1);
        assert_eq!(package::seal(&group, &secret, &torrent, v.index, &mut piece), Ok(v.ctr));
        assert_eq!(piece, v.packaged.0);
        package::open(&mut piece).unwrap();
        assert_eq!(piece[..v.content.0.len()], v.content.0);
    }
}

#[derive(Deserialize)]
struct BadKey {
    group: String,
    y: Hex,
    why: String,
}

#[test]
fn bad_public_keys_are_refused() {
    let vectors: Vec<BadKey> = serde_json::from_str(include_str!("../vectors/keys.json")).unwrap();
    assert_eq!(vectors.len(), 12);
    for v in vectors {
        let group = Group::by_name(&v.group, Kernels::portable()).unwrap();
        let params = Params::new(Profile::Paper, group, Exponents::Full).unwrap();
        assert_eq!(
            PublicKey::from_bytes(&params, &v.y.0),
            Err(Error::BadPublicKey),
            "{} in {}",
            v.why,
            v.group
        );
    }
}

#[derive(Deserialize)]
struct NamedPrime {
    name: String,
    bits: usize,
    p: String,
}

#[test]
fn the_named_primes_follow_from_their_definitions() {
    let vectors: Vec<NamedPrime> = serde_json::from_str(include_str!("../vectors/groups.json")).unwrap();
    assert_eq!(vectors.len(), Group::names().count());
    for v in vectors {
        let group = Group::by_name(&v.name, Kernels::portable()).unwrap();
        assert_eq!(group.bits(), v.bits);
        let mut p = vec![0; group.bytes()];
        group.modulus_be(&mut p).unwrap();
        assert_eq!(hex::encode(p), v.p, "{}", v.name);
    }
}
