//! What is fuzzed: a function for each thing that reads bytes from outside, which must not panic on any, and whose
//! answers must hold together. No fuzzer is needed to call them: `net/tests/fuzz_replay.rs` does so on stable Rust.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Component, PathBuf};
use std::sync::{Arc, LazyLock};

use bytes::BytesMut;
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U4096};
use swarmseal::peer::simulation::among_strangers;
use swarmseal::peer::{Shape, Store, StoreReader, StoredPiece};
use swarmseal::player::{plays_in_record, records_in_journal};
use swarmseal::publish::media::clear_ranges_of;
use swarmseal::wire::announce::{self, Announce, AnnounceReply, Scrape, ScrapeReply};
use swarmseal::wire::api::{self, Identified, Identify, SessionToken};
use swarmseal::wire::authority::{MAX_ORIGINS, SignedAuthority};
use swarmseal::wire::bencode as bencoding;
use swarmseal::wire::channel::{self, Endpoint, MAX_LINE, Notice, Request};
use swarmseal::wire::content::{FileList, Manifest, PREFIX};
use swarmseal::wire::handshake::Handshake;
use swarmseal::wire::identity::{Device, Identity, SigningKey, purpose};
use swarmseal::wire::keyfile::words::Words;
use swarmseal::wire::keyfile::{
    KeyFile, PublisherKey, SealedMaster, SealedPublisher, SealedVoucherKey, SealedWitness, SeedFile,
};
use swarmseal::wire::layout::Layout;
use swarmseal::wire::license::License;
use swarmseal::wire::lsd::Search;
use swarmseal::wire::message::{Decoder, Message, MessageError};
use swarmseal::wire::metainfo::Metainfo;
use swarmseal::wire::mse::{self, Agreed, Initiator, Progress, Responder};
use swarmseal::wire::origin::Origin;
use swarmseal::wire::plain::PlainMetainfo;
use swarmseal::wire::seal::{ExtendedHandshake, SealMessage};
use swarmseal::wire::selection::{Kind, Selection};
use swarmseal::wire::subscription::SubscriptionFile;
use swarmseal::wire::udp_tracker::{self, Response};
use swarmseal::wire::voucher::{self, VoucherCode, VoucherKey};
use swarmseal_core::kernels::{ByteOrder, Comb, Exponent, Power, TwoPower};
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Exponents, Group, Kernels, LIMBS, MasterKey, Modulus, Params, Profile,
    Proof, PublicKey, ReKey, SecretKey, SubscriberId, Ticket, TorrentId, TsKeys, WitnessExponents,
    WitnessFactor, WitnessKey, WitnessSecret, Word, check_piece, check_witness, check_witness_in_place,
    decrypt_piece, encrypt_piece, re_encrypt_piece, witness_hash,
};

/// The torrent of every target.
pub const TORRENT: TorrentId = TorrentId([7; 32]);
/// The publisher whose voucher codes are read.
pub const PUBLISHER: [u8; 32] = [8; 32];
/// Pieces, and bytes of each, of the torrent whose messages are decoded.
pub const SWARM: (u32, u32) = (20, 1 << 16);
/// The shape of the store whose index is read.
pub const SHAPE: Shape = Shape { torrent_id: TORRENT, piece_len: 64, piece_count: 3 };

/// What our side of an obfuscated handshake chooses.
pub const ENTROPY: [u8; mse::ENTROPY] = [5; mse::ENTROPY];

static SEALED: LazyLock<Arc<Params>> = LazyLock::new(|| Arc::new(sealed(swarmseal_accel::detect())));
static PAPER: LazyLock<Arc<Params>> = LazyLock::new(|| Arc::new(paper(swarmseal_accel::detect())));
static CASTS: LazyLock<Vec<Cast>> = LazyLock::new(|| {
    swarmseal_accel::each().flat_map(|kernels| [sealed(kernels), paper(kernels)]).map(Cast::new).collect()
});

/// What the voucher codes are made of.
pub fn voucher_key() -> VoucherKey {
    VoucherKey::from_bytes(&[7; 32])
}

/// Profile `sealed` at 2,048 bits.
pub fn sealed(kernels: &'static Kernels) -> Params {
    Params::new(Profile::Sealed, Group::ffdhe2048(kernels), Exponents::Short).expect("an RFC 7919 group")
}

/// Profile `paper` at 512 bits.
pub fn paper(kernels: &'static Kernels) -> Params {
    Params::new(Profile::Paper, Group::prime512(kernels), Exponents::Full).expect("any group")
}

/// The device whose words and key file are read.
pub fn device() -> Device {
    Device::from_bytes(&[7; 32])
}

/// Who licenses are opened by.
pub fn identity() -> Identity {
    Identity::from_secrets(&[1; 32], &[2; 32])
}

/// The key that licenses are signed with.
pub fn license_key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

/// A secret key: `byte` over and over, as wide as the profile and group take.
pub fn secret(params: &Params, byte: u8) -> SecretKey {
    let width = params.group().bytes();
    // A short exponent has its top bit set, and one in full is below q.
    let of_width = |short: usize| {
        let mut bytes = vec![0; width];
        bytes[width - short..].fill(byte | 0x80);
        SecretKey::from_bytes(params, &bytes).ok()
    };
    (1..width).rev().find_map(of_width).expect("a width that the profile takes")
}

/// One uploader, one downloader and the keys between them for piece 0.
struct Cast {
    params: Params,
    encryption: EncryptionKey,
    rekey: ReKey,
    downloader: SecretKey,
    decryption: DecryptionKey,
    factor: WitnessFactor,
    /// Of the downloader's ciphertext.
    witness: WitnessKey,
}

impl Cast {
    fn new(params: Params) -> Self {
        let master = MasterKey::from_bytes([4; 32]);
        let (s_j, s_k) = (secret(&params, 5), secret(&params, 6));
        let (y_j, y_k) = (s_j.public_key(&params), s_k.public_key(&params));
        let [r_j, r_k] = [5, 6].map(|id| TsKeys::derive(&params, &master, &SubscriberId([id; 32]), 1).key(0));
        let w = WitnessExponents::derive(&params, &WitnessSecret::from_bytes([7; 32]), &TORRENT).exponent(0);
        Cast {
            factor: WitnessFactor::derive(&params, &w),
            witness: WitnessKey::derive(&params, &w, (&y_k, &r_k)),
            encryption: EncryptionKey::derive(&params, &y_j, &r_j),
            rekey: ReKey::derive(&params, (&y_j, &r_j), (&y_k, &r_k)),
            decryption: DecryptionKey::derive(&params, &r_k),
            downloader: s_k,
            params,
        }
    }
}

/// Any bencode: the strict reader and the one that only looks for a key agree.
pub fn bencode(data: &[u8]) {
    for key in [&b""[..], b"info", b"v", b"swarmseal"] {
        let _ = bencoding::dict_entry(data, key);
        let _ = bencoding::dict_number(data, key);
    }
    if let Ok(map) = bencoding::from_bytes::<BTreeMap<String, u64>>(data, data.len()) {
        for (key, &value) in &map {
            assert_eq!(bencoding::dict_number(data, key.as_bytes()), Ok(Some(value)));
        }
        assert_eq!(bencoding::to_bytes(&map), data, "there is one encoding of a value");
    }
    let _ = bencoding::from_bytes::<Vec<Vec<String>>>(data, data.len());
}

/// A packet of the UDP tracker protocol, as either side reads it.
pub fn udp_tracker(data: &[u8]) {
    if let Ok(request) = udp_tracker::Request::from_bytes(data) {
        assert_eq!(udp_tracker::Request::from_bytes(&request.to_bytes()).as_ref(), Ok(&request));
    }
    for ipv6 in [false, true] {
        if let Ok(response) = Response::from_bytes(data, ipv6) {
            let again = Response::from_bytes(&response.to_bytes(ipv6), ipv6).expect("it was valid");
            assert_eq!(again.transaction(), response.transaction());
            if let (Response::Announced { reply, .. }, Response::Announced { reply: again, .. }) =
                (&response, &again)
            {
                // An IPv4 address inside an IPv6 one has no place in an answer by IPv6.
                let mut peers = reply.peers.clone();
                peers.retain(|peer| peer.address.is_ipv6() == ipv6);
                assert_eq!(again.peers, peers);
            }
        }
    }
}

/// A packet of local service discovery.
pub fn lsd_packet(data: &[u8]) {
    if let Some(search) = Search::from_bytes(data) {
        let group = SocketAddr::from(([239, 192, 152, 143], 6771));
        assert_eq!(Search::from_bytes(&search.to_bytes(group)).as_ref(), Some(&search));
    }
}

/// What a player says to who fetches, what it is told, and the file that says where.
pub fn player_channel(data: &[u8]) {
    if let Ok(request) = Request::from_line(data) {
        let line = request.to_line();
        assert!(line.len() <= MAX_LINE && line.ends_with('\n') && line.lines().count() == 1);
        assert_eq!(Request::from_line(line.as_bytes()).as_ref(), Ok(&request));
    }
    if let Ok(notice) = Notice::from_line(data) {
        assert_eq!(Notice::from_line(notice.to_line().as_bytes()).as_ref(), Ok(&notice));
    }
    if let Ok(endpoint) =
        str::from_utf8(data).map_or(Err(channel::Error::Malformed("text")), Endpoint::from_text)
    {
        assert!(endpoint.address.ip().is_loopback());
        assert_eq!(Endpoint::from_text(&endpoint.to_text()).as_ref(), Ok(&endpoint));
    }
}

/// A .torrent file.
pub fn metainfo(data: &[u8]) {
    if let Ok(read) = Metainfo::from_bytes(data, swarmseal_accel::detect()) {
        let again = Metainfo::from_bytes(&read.to_bytes(), swarmseal_accel::detect()).expect("it was valid");
        assert_eq!(again.info_hash, read.info_hash);
        assert_eq!(again.authority, read.authority);
        assert!(read.info.payload_length() < read.info.piece_length as usize);
        assert_eq!(read.info.pieces.len(), read.info.piece_count as usize);
    }
}

/// The key that authorities are signed with.
pub fn publisher_key() -> SigningKey {
    SigningKey::from_bytes(&[8; 32])
}

/// Who serves a publisher's torrents: a file, and a statement as it is and under an honest signature.
pub fn authority(data: &[u8]) {
    static KEY: LazyLock<SigningKey> = LazyLock::new(publisher_key);
    let key = &*KEY;
    if let Ok(read) = SignedAuthority::from_file(data) {
        assert_eq!(SignedAuthority::from_file(&read.to_file()), Ok(read));
    }
    let _ = SignedAuthority::from_bytes(data, &key.public());
    let signed = [data, &key.sign(purpose::AUTHORITY, data)].concat();
    if let Ok(read) = SignedAuthority::from_bytes(&signed, &key.public()) {
        assert!((1..=MAX_ORIGINS).contains(&read.origins.len()));
        let again = SignedAuthority::sign((*read).clone(), key).expect("it was valid");
        assert_eq!(*again, *read);
        assert_eq!(read.supersedes(None, read.serial), Ok(true));
    }
}

/// Who a tracker is: the query, the answer, and what follows from them. Tokens and origins in any form.
pub fn identify(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(origin) = text.parse::<Origin>() {
        assert_eq!(origin.as_str().parse(), Ok(origin.clone()));
        let _ = (origin.is_loopback(), origin.join("identify"));
    }
    if let Some(token) = SessionToken::from_text(&text) {
        assert_eq!(token.to_text(), text);
    }
    let request = Identify::from_query(&text);
    if let Some(request) = &request {
        assert_eq!(Identify::from_query(&request.to_query()).as_ref(), Some(request));
        let answer = Identified::sign(request, &license_key(), [7; 32], 1);
        assert!(answer.check(request, &license_key().public()).is_ok());
    }
    if let Ok(answer) = api::from_bytes::<Identified>(data, api::MAX_ANSWER) {
        let request =
            Identify { nonce: [1; 32], origin: "http://t".parse().expect("one"), publisher_key: None };
        assert!(answer.check(&request, &license_key().public()).is_err());
    }
}

/// A license in its envelope.
pub fn license_envelope(data: &[u8]) {
    let _ = License::open(data, &identity(), &license_key().public());
}

/// The list of files at the head of the plaintext stream, and which of their bytes are sealed.
pub fn content_list(data: &[u8]) {
    if let Some((prefix, rest)) = data.split_first_chunk::<PREFIX>()
        && let Ok(length) = FileList::length_from_prefix(*prefix)
    {
        content_list_body(&rest[..length.min(rest.len())]);
    }
    content_list_body(data);
}

fn content_list_body(data: &[u8]) {
    let Ok(manifest) = Manifest::from_bytes(data) else { return };
    assert_eq!(Manifest::from_bytes(&manifest.to_bytes()).as_ref(), Ok(&manifest));
    let (list, header) = (manifest.files(), manifest.header().len() as u64);
    for entry in list.entries() {
        let path = entry.relative_path();
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        assert_eq!(path.components().count(), entry.path.len());
    }
    assert!(list.content_length().checked_add(header).is_some());
    let Some(map) = manifest.interleaving(header, 40, 64).expect("its lengths add up") else { return };
    assert_eq!(map.length(), header + list.content_length());
    for kind in [Kind::Sealed, Kind::Clear] {
        assert!(map.pieces_of(kind) > 0);
        let last = map.pieces_of(kind) - 1;
        for nth in [0, last / 2, last].map(u32::try_from).into_iter().flatten() {
            let parts: Vec<_> = map.parts(kind, nth).collect();
            let bytes: u64 = parts.iter().map(|part| part.end - part.start).sum();
            assert_eq!(bytes, map.size(kind).min(map.length_of(kind) - u64::from(nth) * map.size(kind)));
            for part in parts {
                assert_eq!(map.locate(part.start).map(|place| place.kind), Some(kind));
                assert!(map.before(kind, part.end) - map.before(kind, part.start) == part.end - part.start);
            }
        }
    }
    if list.content_length() < 1 << 16 {
        let selection = map.selection().expect("some of both");
        assert_eq!(u64::from(selection.clear_count()), map.pieces_of(Kind::Clear));
    }
}

/// Which pieces are sealed: their number, big-endian, and the bitfield.
pub fn selection(data: &[u8]) {
    let Some((count, bits)) = data.split_first_chunk::<4>() else { return };
    let count = u32::from_be_bytes(*count);
    let Ok(selection) = Selection::from_bytes(bits, count) else { return };
    assert_eq!((selection.as_bytes(), selection.count()), (bits, count));
    assert_eq!(selection.sealed_count() + selection.clear_count(), count);
    assert!(!selection.is_clear(0) && !selection.is_clear(count) && selection.clear_count() > 0);
    let mut seen = [0; 2];
    for piece in 0..count {
        let kind = selection.kind(piece);
        assert_eq!(selection.rank(kind, piece), seen[kind as usize]);
        assert_eq!(selection.find(kind, seen[kind as usize]), Some(piece));
        seen[kind as usize] += 1;
    }
    assert_eq!(selection.find(Kind::Sealed, seen[0]), None);
    assert_eq!(selection.sealed().count() as u32, seen[0]);
}

/// What of an MP4 stays clear under `--protect media`.
pub fn media(data: &[u8]) {
    let Ok(clear) = clear_ranges_of(data, data.len() as u64) else { return };
    assert!(!clear.is_empty() && clear.iter().all(|range| range.start < range.end));
    assert!(clear.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(clear.last().is_some_and(|last| last.end <= data.len() as u64));
}

/// A key file of any kind.
pub fn keyfile(data: &[u8]) {
    let Ok(file) = KeyFile::parse(data) else { return };
    let text = file.to_text();
    assert_eq!(*KeyFile::parse(text.as_bytes()).expect("it was valid").to_text(), *text);
    let _ = Identity::from_key_file(&file);
    // Read, and not opened: that takes as long as it is meant to.
    if let Ok(sealed) = SealedMaster::from_key_file(&file) {
        assert_eq!(SealedMaster::from_key_file(&sealed.to_key_file()).expect("it was valid"), sealed);
    }
    if let Ok(sealed) = SealedWitness::from_key_file(&file) {
        assert_eq!(SealedWitness::from_key_file(&sealed.to_key_file()).expect("it was valid"), sealed);
    }
    if let Ok(sealed) = SealedVoucherKey::from_key_file(&file) {
        assert_eq!(SealedVoucherKey::from_key_file(&sealed.to_key_file()).expect("it was valid"), sealed);
    }
    if let Ok(seed) = SeedFile::from_key_file(&file) {
        let again = SeedFile::from_key_file(&seed.to_key_file()).expect("it was valid");
        assert_eq!(again.seed(), seed.seed());
        assert_eq!(
            (again.content, again.metainfo, again.passkey),
            (seed.content, seed.metainfo, seed.passkey)
        );
    }
    if let Ok(device) = Device::from_key_file(&file) {
        let again = Device::from_key_file(&device.to_key_file()).expect("it was valid");
        assert_eq!(again.as_bytes(), device.as_bytes());
    }
    let _ = PublisherKey::from_key_file(&file);
    if let Ok(sealed) = SealedPublisher::from_key_file(&file) {
        assert_eq!(SealedPublisher::from_key_file(&sealed.to_key_file()).expect("it was valid"), sealed);
    }
}

/// A voucher's code as people type it and as messages have it, and any text as the reference of an order.
pub fn voucher_code(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(code) = VoucherCode::parse(&text) {
        assert_eq!(VoucherCode::parse(&code.to_text()).as_ref(), Ok(&code));
        let message = bencoding::to_bytes(&code);
        assert_eq!(bencoding::from_bytes::<VoucherCode>(&message, message.len()).as_ref(), Ok(&code));
        match code.clone().checked(&PUBLISHER) {
            Ok(checked) => assert_eq!(*checked, code),
            Err(refused) => assert!(matches!(refused, voucher::Error::OtherSeller { .. })),
        }
    }
    if let Ok(code) = bencoding::from_bytes::<VoucherCode>(data, data.len()) {
        assert_eq!(bencoding::to_bytes(&code), data, "there is one form in messages");
    }
    let (key, (line, number)) = (voucher_key(), (data.len() as u32, 2));
    let code = key.code(&text, line, number, &PUBLISHER);
    let typed = VoucherCode::parse(&code.to_text()).expect("its own text");
    assert_eq!(key.mac(&typed), key.mac(&code));
    assert_eq!(typed.checked(&PUBLISHER), Ok(code));
}

/// A secret as words, as people type them.
pub fn words(data: &[u8]) {
    let (mut words, text) = (Words::default(), String::from_utf8_lossy(data));
    if words.add(&text).is_ok()
        && let Ok(secret) = words.secret()
    {
        assert!(Words::of(&secret).iter().eq(words.iter()));
    }
}

/// What a device keeps of a subscription.
pub fn subscription(data: &[u8]) {
    if let Ok(file) = SubscriptionFile::from_bytes(data) {
        assert_eq!(SubscriptionFile::from_bytes(&file.to_bytes()), Ok(file));
    }
}

/// The query of an announce or a scrape.
pub fn announce_query(data: &[u8]) {
    let query = String::from_utf8_lossy(data);
    if let Ok(read) = Announce::from_query(&query) {
        assert_eq!(Announce::from_query(&read.to_query()), Ok(read));
    }
    if let Ok(read) = Scrape::from_query(&query) {
        assert_eq!(Scrape::from_query(&read.to_query()), Ok(read));
    }
    let mut encoded = String::new();
    announce::percent_encode(data, &mut encoded);
    assert_eq!(announce::percent_decode(&encoded), data);
}

/// A tracker's reply to an announce or a scrape.
pub fn announce_reply(data: &[u8]) {
    if let Ok(read) = AnnounceReply::from_bytes(data) {
        let bytes = read.to_bytes(false);
        // What was compact is longer now.
        if bytes.len() <= announce::MAX_REPLY {
            assert_eq!(AnnounceReply::from_bytes(&bytes).expect("it was valid"), read);
        }
        let compact = AnnounceReply::from_bytes(&read.to_bytes(true)).expect("compact is shorter");
        let mut addresses: [Vec<SocketAddr>; 2] =
            [&read, &compact].map(|reply| reply.peers.iter().map(|peer| peer.address).collect());
        addresses.iter_mut().for_each(|list| list.sort());
        assert_eq!(addresses[0], addresses[1]);
    }
    if let Ok(read) = ScrapeReply::from_bytes(data) {
        assert_eq!(ScrapeReply::from_bytes(&read.to_bytes()).expect("it was valid"), read);
    }
}

/// Every body and answer of the tracker's key interface.
pub fn api_bodies(data: &[u8]) {
    macro_rules! round_trip {
        ($($body:ident)+) => {$(
            if let Ok(read) = api::from_bytes::<api::$body>(data, api::MAX_BODY) {
                let bytes = bencoding::to_bytes(&read);
                let again = api::from_bytes::<api::$body>(&bytes, bytes.len()).expect("it was valid");
                assert_eq!(bencoding::to_bytes(&again), bytes);
            }
        )+};
    }
    round_trip! {
        Identified Subscribe Subscribed OpenSession SessionOpened ReKeyRequest SeedKeysRequest Keys
        WitnessRequest WitnessKeys
        LicenseRequest LicenseReply Failure WorkRequest Work NewHashes HashesRequest Hashes PersonalRequest Personal
        PersonalKeysRequest ClientsRequest Clients
        LicenseWord LicenseOrder LicenseFilled DevicesRequest RevokeDevice Devices
        PasskeyRequest PasskeyReply
    }
}

/// The key that records of plays are read under here.
pub const PLAYS_KEY: [u8; 32] = [6; 32];

/// A record of plays or a journal of such records: as it is, and as what an honest seal is around.
pub fn play_record(data: &[u8]) {
    let mac = [b"3:mac32:", &blake3::keyed_hash(&PLAYS_KEY, data).as_bytes()[..]].concat();
    let string = [format!("{}:", data.len()).as_bytes(), data].concat();
    let record = [b"d", &mac[..], b"6:record", &string, b"1:vi2ee"].concat();
    let journal = [b"d8:counters", &string[..], &mac, b"1:vi1ee"].concat();
    for bytes in [data, &record, &journal] {
        let _ = plays_in_record(bytes, &PLAYS_KEY);
        let _ = records_in_journal(bytes, &PLAYS_KEY);
    }
}

/// An ordinary .torrent: its files fill it without a gap, and lie below one directory.
pub fn plain_metainfo(data: &[u8]) {
    if let Ok(read) = PlainMetainfo::from_bytes(data) {
        let mut end = 0;
        for file in &read.files {
            assert_eq!(file.range.start, end);
            end = file.range.end;
            let path: PathBuf = file.path.iter().collect();
            assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
            assert!(file.padding || path.components().count() == file.path.len());
        }
        assert_eq!(end, read.layout.length());
        assert_eq!(read.pieces.len(), read.layout.piece_count() as usize);
    }
}

/// The first 68 bytes of a connection.
pub fn handshake(data: &[u8]) {
    if let Some(bytes) = data.first_chunk()
        && let Ok(read) = Handshake::from_bytes(bytes)
    {
        let _ = read.extended();
        assert_eq!(read.to_bytes(), *bytes);
    }
}

/// An obfuscated handshake, from either side: it ends alike in whatever portions it comes. The first byte's low bit is the
/// side that we are, the others size the portions.
pub fn obfuscated_handshake(data: &[u8]) {
    let Some((&choice, stream)) = data.split_first() else { return };
    let whole = obfuscated(choice & 1 == 0, [stream].into_iter());
    let portions = obfuscated(choice & 1 == 0, stream.chunks(1 + usize::from(choice >> 1)));
    assert_eq!(portions, whole);
}

/// The torrent, whether its stream is enciphered, and its first bytes.
type Opened = ([u8; 20], bool, Vec<u8>);

/// How a handshake ends in which each side may use every method: what we sent, and what it came to.
fn obfuscated<'a>(
    called: bool,
    portions: impl Iterator<Item = &'a [u8]>,
) -> (Vec<u8>, Result<Option<Opened>, mse::Error>) {
    let methods = mse::RC4 | mse::PLAINTEXT;
    let (mut output, mut input) = (Vec::new(), BytesMut::new());
    let mut responder = Responder::new(&ENTROPY, methods);
    let ours = Handshake::new([1; 20], [2; 20]).to_bytes();
    let mut initiator = Initiator::new(&ENTROPY, [1; 20], methods, ours);
    let mut advance = |input: &mut BytesMut, output: &mut Vec<u8>| {
        if !called {
            return initiator.advance(input, output);
        }
        loop {
            match responder.advance(input, output)? {
                Progress::More => return Ok(None),
                Progress::Sought(_) => responder.serve([1; 20])?,
                Progress::Agreed(agreed) => return Ok(Some(*agreed)),
            }
        }
    };
    let mut agreed: Option<Agreed> = None;
    let taken = || {
        for portion in [&[][..]].into_iter().chain(portions) {
            let start = input.len();
            input.extend_from_slice(portion);
            match &mut agreed {
                None => agreed = advance(&mut input, &mut output)?,
                Some(Agreed { ciphers: Some(ciphers), .. }) => ciphers.incoming.apply(&mut input[start..]),
                Some(_) => {}
            }
        }
        Ok(())
    };
    let ended = taken().map(|()| agreed.map(|end| (end.info_hash, end.ciphers.is_some(), input.to_vec())));
    (output, ended)
}

/// What follows the handshake: it decodes to the same in whatever portions it comes. The first byte sizes the portions.
pub fn peer_messages(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else { return };
    let decoder = Decoder::new(Layout::of_whole(SWARM.0, SWARM.1).expect("not empty"));
    let whole = decode(decoder, [stream].into_iter());
    let portions = decode(decoder, stream.chunks(1 + usize::from(size)));
    assert_eq!(portions, whole);
    for message in whole.0 {
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        assert_eq!(decoder.decode(&mut bytes), Ok(Some(message)));
        assert!(bytes.is_empty());
    }
}

fn decode<'a>(
    decoder: Decoder,
    portions: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Message>, Result<(), MessageError>) {
    let mut messages = Vec::new();
    let mut buffer = BytesMut::new();
    for portion in portions {
        buffer.extend_from_slice(portion);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    (messages, Ok(()))
}

/// The payloads of extension messages.
pub fn seal_messages(data: &[u8]) {
    if let Ok(read) = ExtendedHandshake::from_bytes(data) {
        assert_eq!(ExtendedHandshake::from_bytes(&read.to_bytes()), Ok(read));
    }
    if let Ok(Some(read)) = SealMessage::from_bytes(data) {
        assert_eq!(SealMessage::from_bytes(&read.to_bytes()), Ok(Some(read)));
    }
}

/// A ticket.
pub fn ticket(data: &[u8]) {
    if let Ok(read) = Ticket::from_bytes(data) {
        assert_eq!(read.to_bytes(), data);
    }
}

/// Public, secret and piece keys, and proofs: of the bytes as they are and of as many as each takes.
pub fn group_elements(data: &[u8]) {
    for params in [&**SEALED, &**PAPER] {
        let width = params.group().bytes();
        let mut fitted = data.to_vec();
        fitted.resize(width, 0);
        for bytes in [data, &fitted] {
            macro_rules! round_trip {
                ($($key:ident)+) => {$(
                    if let Ok(read) = $key::from_bytes(params, bytes) {
                        let mut out = vec![0; width];
                        read.to_bytes(params, &mut out).expect("W bytes");
                        assert_eq!(out, bytes);
                    }
                )+};
            }
            round_trip!(PublicKey SecretKey EncryptionKey ReKey DecryptionKey);
        }
        let mut bytes = data.to_vec();
        bytes.resize(Proof::encoded_len(params), 0);
        let proof = Proof::from_bytes(params, &bytes).expect("that many bytes");
        let mut out = vec![0; bytes.len()];
        proof.to_bytes(params, &mut out).expect("that many bytes");
        assert_eq!(out, bytes);
    }
    // Powers are cheap enough at 512 bits only.
    let params = &**PAPER;
    if let Ok(secret) = SecretKey::from_bytes(params, data) {
        let y = secret.public_key(params);
        let mut bytes = vec![0; params.group().bytes()];
        y.to_bytes(params, &mut bytes).expect("W bytes");
        // The one power of the generator with a small exponent that is no valid key is g^0.
        let _ = PublicKey::from_bytes(params, &bytes);
    }
    if let Ok(proof) = Proof::from_bytes(params, data) {
        let _ = proof.verify(params, &CASTS[1].downloader.public_key(params), &[b"statement"]);
    }
}

/// The package: it undoes itself on any payload, and opening anything at all is no worse than garbage.
pub fn package(data: &[u8]) {
    let secret = PackageSecret::from_bytes([8; 32]);
    for params in [&**SEALED, &**PAPER] {
        let width = params.group().bytes();
        let whole =
            data.len().is_multiple_of(width) && (params.profile() == Profile::Paper || data.len() >= 32);
        assert_eq!(package::unpack(params, &mut data.to_vec()).is_ok(), whole);

        let mut piece = data.to_vec();
        piece.resize(data.len().next_multiple_of(width).max(width), 0);
        let payload = piece[..params.payload_bytes(piece.len())].to_vec();
        package::pack(params, &secret, &TORRENT, 9, &mut piece).expect("whole blocks");
        assert_eq!(check_piece(params, &piece), Ok(()));
        assert_eq!(package::unpack(params, &mut piece), Ok(payload.len()));
        assert_eq!(piece[..payload.len()], payload);
    }
}

/// The group operation, on every backend: none panics, all agree, and proper blocks come back. The witness passes what is honest and
/// nothing else. What is left behind whole blocks are changes to the piece, of three bytes each: where, and what is added bit by bit.
pub fn transform(data: &[u8]) {
    let mut results: [Option<Vec<u8>>; 2] = [None, None];
    for cast in CASTS.iter() {
        let params = &cast.params;
        let width = params.group().bytes();
        if !data.len().is_multiple_of(width) {
            assert!(encrypt_piece(params, &cast.encryption, &mut data.to_vec()).is_err());
        }
        let original = &data[..data.len() / width * width];
        let mut piece = original.to_vec();
        let whole = "whole blocks";
        encrypt_piece(params, &cast.encryption, &mut piece).expect(whole);
        re_encrypt_piece(params, &cast.rekey, &mut piece).expect(whole);
        let result = &mut results[usize::from(params.profile() == Profile::Paper)];
        assert_eq!(
            result.get_or_insert_with(|| piece.clone()),
            &piece,
            "{} differs",
            params.group().kernels().name
        );
        let published = witness_hash(params, &cast.factor, &mut original.to_vec()).expect(whole);
        let witnessed = |piece: &[u8]| {
            let checked = check_witness(params, &cast.witness, &published, piece, &mut vec![0; piece.len()]);
            let in_place = check_witness_in_place(params, &cast.witness, &published, &mut piece.to_vec());
            assert_eq!(checked, in_place);
            checked
        };
        assert_eq!(witnessed(&piece), check_piece(params, &piece));
        let mut mutated = piece.clone();
        if let Some(last) = mutated.len().checked_sub(1) {
            for change in data[original.len()..].chunks_exact(3) {
                mutated[usize::from(u16::from_le_bytes([change[0], change[1]])) % (last + 1)] ^= change[2];
            }
            if mutated == piece {
                mutated[last] ^= 1;
            }
            assert!(witnessed(&mutated).is_err(), "{} passes a change", params.group().kernels().name);
        }
        decrypt_piece(params, &cast.downloader, &cast.decryption, &mut piece).expect(whole);
        if check_piece(params, original).is_ok() {
            assert_eq!(piece, original);
        }
    }
}

/// The index of a store: whatever it holds, what is stored next is there at the next start.
pub fn piece_index(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("pieces.idx"), data).expect("a file in it");
    std::fs::write(dir.path().join("pieces.bin"), [0; 128]).expect("a file in it");
    let reader = StoreReader::open(dir.path(), &SHAPE);
    let store = Store::open(dir.path(), SHAPE);
    assert_eq!(reader.is_ok(), store.is_ok());
    let (Ok(reader), Ok(store)) = (reader, store) else { return };
    for piece in 0..=SHAPE.piece_count {
        let _ = reader.read(piece, &mut [0; SHAPE.piece_len as usize]);
        // The store drops what is damaged, the reader does not look.
        assert!(store.piece(piece).is_none() || store.piece(piece) == reader.piece(piece));
    }
    assert!(store.count() <= SHAPE.piece_count);
    let piece = [5; SHAPE.piece_len as usize];
    let stored = StoredPiece { epoch: 1, hash: *blake3::hash(&piece).as_bytes() };
    store.put(1, &piece, stored).expect("it is in range");
    let pieces = store.pieces();
    drop(store);
    let again = Store::open(dir.path(), SHAPE).expect("it could be opened before");
    assert_eq!(again.pieces(), pieces);
    assert_eq!(again.piece(1), Some(stored));
}

/// A peer's state machine, to which strangers say the bytes' story.
pub fn strangers(data: &[u8]) {
    among_strangers(data);
}

/// Numbers out of bytes that a fuzzer changes: most words come from the edges.
struct Numbers<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl Numbers<'_> {
    /// 0 after the end.
    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or_default()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// `len` words. A byte says which word follows and how often; p's own words are among them, and any others.
    fn words(&mut self, len: usize, p: &[Word]) -> Vec<Word> {
        let mut words = Vec::new();
        while words.len() < len {
            let choice = self.byte();
            let place = words.len();
            let word = match choice & 7 {
                0 => 0,
                1 => Word::MAX,
                2 => 1,
                3 => Word::MAX - 1,
                4 => 1 << (Word::BITS - 1),
                5 => p.get(place).copied().unwrap_or_default(),
                6 => p.get(place).copied().unwrap_or_default().wrapping_sub(1),
                _ => {
                    Word::from_le_bytes(*self.bytes(size_of::<Word>()).first_chunk().expect("a word's bytes"))
                }
            };
            // Up to 31 times, or once.
            let run = usize::from(choice >> 3).max(1);
            if choice & 7 == 5 {
                words.extend((place..place + run).map(|at| p.get(at).copied().unwrap_or_default()));
            } else {
                words.extend(std::iter::repeat_n(word, run));
            }
        }
        words.truncate(len);
        words
    }

    /// Below p: else its top words are cleared.
    fn below(&mut self, p: &[Word]) -> Vec<Word> {
        let mut words = self.words(p.len(), p);
        for top in (0..p.len()).rev() {
            if words.iter().rev().lt(p.iter().rev()) {
                break;
            }
            words[top] = 0;
        }
        words
    }

    /// One of the groups' primes, or any odd number with or without its top bit.
    fn modulus(&mut self) -> Modulus {
        let (choice, size) = (self.byte(), self.byte());
        if choice < 128 {
            let name =
                Group::names().nth(usize::from(choice) % Group::names().count()).expect("fewer than that");
            let group = Group::by_name(name, Kernels::portable()).expect("it has that name");
            return group.modulus().clone();
        }
        let len = [512, 768, 1024, 1536, 2048, 3072, 4096, 64 * (1 + usize::from(size) % 64)]
            [usize::from(choice) & 7]
            / Word::BITS as usize;
        let mut words = self.words(len, &[]);
        words[0] |= 1;
        if choice & 8 == 0 {
            words[len - 1] |= 1 << (Word::BITS - 1);
        }
        // 1 is no modulus.
        words[0] |= if words[1..].iter().all(|&word| word == 0) { 2 } else { 0 };
        Modulus::from_words(&words).expect("odd and above 1")
    }
}

/// crypto-bigint's numbers modulo m.
struct Oracle(FixedMontyParams<{ U4096::LIMBS }>);

impl Oracle {
    fn new(m: &Modulus) -> Self {
        Oracle(FixedMontyParams::new_vartime(Odd::new(wide(m.limbs())).expect("odd")))
    }

    fn form(&self, a: &[Word]) -> FixedMontyForm<{ U4096::LIMBS }> {
        FixedMontyForm::new(&wide(a).rem(self.0.modulus().as_nz_ref()), &self.0)
    }

    /// R mod m.
    fn r(&self, m: &Modulus) -> FixedMontyForm<{ U4096::LIMBS }> {
        let bits = U4096::from_u64(m.len() as u64 * u64::from(Word::BITS));
        self.form(&[2]).pow_bounded_exp(&bits, 13)
    }

    /// a b ≡ product R, and the product is canonical.
    fn check_product(&self, m: &Modulus, (a, b): (&[Word], &[Word]), product: &[Word]) {
        assert!(wide(product) < wide(m.limbs()), "not canonical");
        assert_eq!(self.form(product) * self.r(m), self.form(a) * self.form(b), "{a:x?} {b:x?}");
    }
}

fn wide(words: &[Word]) -> U4096 {
    let mut number = [0; LIMBS];
    number[..words.len()].copy_from_slice(words);
    U4096::from_words(number)
}

/// Every operation of every backend: it gives what the portable one gives, and that what crypto-bigint says.
pub fn kernels(data: &[u8]) {
    let mut numbers = Numbers { bytes: data.iter() };
    let operation = numbers.byte();
    let m = &numbers.modulus();
    let (p, len) = (m.limbs(), m.len());
    let oracle = Oracle::new(m);
    let portable = Kernels::portable();
    // What each backend makes of it, the portable one first.
    let compare = |what: &str, make: &dyn Fn(&Kernels) -> Vec<Word>| {
        let expected = make(portable);
        // The models are slow: they see what is short.
        let models = swarmseal_accel::models().filter(|_| m.len() * Word::BITS as usize <= 1024);
        for kernels in swarmseal_accel::each().chain(models) {
            assert!(make(kernels) == expected, "{} differs from portable: {what}", kernels.name);
        }
        expected
    };
    match operation % 6 {
        0 => {
            let (a, b) = (numbers.words(len, p), numbers.below(p));
            let product = compare("mont_mul", &|kernels| {
                let mut out = vec![0; len];
                (kernels.mont_mul)(m, &a, &b, &mut out);
                out
            });
            oracle.check_product(m, (&a, &b), &product);
        }
        1 => {
            let a = numbers.below(p);
            let square = compare("mont_sqr", &|kernels| {
                let mut out = vec![0; len];
                (kernels.mont_sqr)(m, &a, &mut out);
                out
            });
            oracle.check_product(m, (&a, &a), &square);
        }
        2 => {
            let order = if operation & 0x80 == 0 { ByteOrder::Little } else { ByteOrder::Big };
            let count = usize::from(numbers.byte()) % 18;
            let factor = numbers.below(p);
            let different = 1 + usize::from(numbers.byte()) % 4;
            let plain: Vec<Vec<Word>> = (0..different).map(|_| numbers.words(len, p)).collect();
            let mut blocks = Vec::new();
            for block in plain.iter().cycle().take(count) {
                let start = blocks.len();
                blocks.extend(block.iter().flat_map(|word| word.to_le_bytes()));
                if order == ByteOrder::Big {
                    blocks[start..].reverse();
                }
            }
            let products = compare("mul_blocks", &|kernels| {
                let mut out = blocks.clone();
                (kernels.mul_blocks)(m, &factor, order, &mut out);
                let block = |bytes: &[u8]| {
                    let mut bytes = bytes.to_vec();
                    if order == ByteOrder::Big {
                        bytes.reverse();
                    }
                    let (words, _) = bytes.as_chunks();
                    words.iter().map(|word| Word::from_le_bytes(*word)).collect::<Vec<Word>>()
                };
                out.chunks(len * size_of::<Word>()).flat_map(block).collect()
            });
            for (block, product) in plain.iter().zip(products.chunks(len)) {
                oracle.check_product(m, (block, &factor), product);
            }
        }
        3 | 4 => {
            let count = 1 + usize::from(numbers.byte()) % 10;
            let base = numbers.below(p);
            let exponents: Vec<Vec<u8>> = (0..count)
                .map(|_| {
                    let width = usize::from(numbers.byte()) % 9;
                    numbers.bytes(width)
                })
                .collect();
            let parsed: Vec<Exponent> = exponents.iter().map(|bytes| Exponent::from_be(bytes)).collect();
            let powers = compare("powers", &|kernels| {
                let mut out = vec![0; count * len];
                if operation % 6 == 3 {
                    let powers: Vec<Power<'_>> =
                        parsed.iter().map(|exponent| Power { modulus: m, base: &base, exponent }).collect();
                    (kernels.modpow_batch)(&powers, &mut out);
                    let mut single = vec![0; len];
                    (kernels.modpow)(m, &base, &parsed[0], &mut single);
                    assert!(single == out[..len], "{}: one power by itself differs", kernels.name);
                } else {
                    let bits = parsed.iter().map(Exponent::bits).max().unwrap_or_default().max(1);
                    let mut table = vec![0; (kernels.comb_words)(m, bits)];
                    (kernels.comb_fill)(m, &base, bits, &mut table);
                    let exponents: Vec<&Exponent> = parsed.iter().collect();
                    (kernels.comb_pow)(m, bits, &[Comb { table: &table, exponents: &exponents }], &mut out);
                }
                out
            });
            for (bytes, power) in exponents.iter().zip(powers.chunks(len)) {
                // mont: power R^−1 = (base R^−1)^exponent; so power R^(exponent − 1) = base^exponent.
                let exponent = bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
                let raise =
                    |a: FixedMontyForm<{ U4096::LIMBS }>| a.pow_bounded_exp(&U4096::from_u64(exponent), 64);
                let r = oracle.r(m);
                assert!(wide(power) < wide(p), "not canonical");
                assert_eq!(
                    oracle.form(power) * raise(r),
                    raise(oracle.form(&base)) * r,
                    "{base:x?}^{exponent:x}"
                );
            }
        }
        _ => {
            let count = 1 + usize::from(numbers.byte()) % 10;
            let exponents: Vec<u64> = (0..count)
                .map(|_| u64::from_le_bytes(*numbers.bytes(8).first_chunk().expect("eight bytes")))
                .collect();
            let parsed: Vec<Exponent> =
                exponents.iter().map(|exponent| Exponent::from_be(&exponent.to_be_bytes())).collect();
            // Two is below m.
            if p[0] == 1 && p[1..].iter().all(|&word| word == 0) {
                return;
            }
            let powers = compare("two_pow_batch_vartime", &|kernels| {
                let powers: Vec<TwoPower<'_>> =
                    parsed.iter().map(|exponent| TwoPower { modulus: m, exponent }).collect();
                let mut out = vec![0; count * len];
                (kernels.two_pow_batch_vartime)(&powers, &mut out);
                out
            });
            for (exponent, power) in exponents.iter().zip(powers.chunks(len)) {
                let expected =
                    oracle.form(&[2]).pow_bounded_exp(&U4096::from_u64(*exponent), 64) * oracle.r(m);
                assert_eq!(oracle.form(power), expected, "2^{exponent:x}");
            }
        }
    }
}
