//! Bad pieces followed back to their first sender, past honest peers; and accusations that are none.

use serde_json::Value;
use swarmseal::wire::api::{Accuse, Defend};
use swarmseal::wire::seal::{Entry, Parties, Statement};

use super::*;

const PIECE: u32 = 2;
/// A minute's grace is long in a test.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

fn now() -> u64 {
    soon() - 3600
}

fn config(directory: &Path) -> Config {
    Config { max_lost_cases: 1, announce_interval: 7, ..Config::new(directory) }
}

impl Device {
    /// What T makes of this device's ciphertext for another: the bytes, and this device's word on them.
    async fn send(
        &self,
        (tracker, published): (&Running, &Published),
        piece: u32,
        held: &[u8],
        (to, time): (&Device, u64),
    ) -> (Vec<u8>, Statement) {
        let params = published.params();
        let ticket = to.ticket(published, self.id, soon());
        let keys = self.client(tracker).rekey(published.id(), 1, &ticket, &[piece]).await.unwrap();
        let mut sent = held.to_vec();
        re_encrypt_piece(params, &ReKey::from_bytes(params, &keys.keys).unwrap(), &mut sent).unwrap();
        let statement = self.state(published, to, time, piece, &sent);
        (sent, statement)
    }

    fn state(&self, published: &Published, to: &Device, time: u64, piece: u32, sent: &[u8]) -> Statement {
        statement(self.identity.signing_key(), published, (self.id, to.id), time, piece, sent)
    }

    fn accuse(&self, published: &Published, piece: u32, sender: &Sent) -> Accuse {
        let Sent { uploader, statement, ciphertext } = sender;
        Accuse {
            torrent_id: published.id(),
            piece,
            uploader: *uploader,
            statement: statement.clone(),
            ciphertext: ciphertext.clone(),
        }
    }

    async fn defend(
        &self,
        tracker: &Running,
        published: &Published,
        case: [u8; 32],
        (uploader, statement): (SubscriberId, &Statement),
    ) -> Result<bool, Error> {
        let statement = statement.clone();
        let defend = Defend { torrent_id: published.id(), case, uploader, statement };
        self.client(tracker).defend(&defend).await
    }

    /// Cases in which it is asked.
    async fn asked(&self, tracker: &Running, published: &Published) -> Vec<[u8; 32]> {
        let (questions, interval) = self.client(tracker).questions(published.id()).await.unwrap();
        assert_eq!(interval, 7);
        questions.iter().map(|question| question.case).collect()
    }
}

/// What somebody got of a piece.
struct Sent {
    uploader: SubscriberId,
    statement: Statement,
    ciphertext: Vec<u8>,
}

fn statement(
    key: &SigningKey,
    published: &Published,
    (uploader, downloader): (SubscriberId, SubscriberId),
    time: u64,
    piece: u32,
    sent: &[u8],
) -> Statement {
    let parties = Parties { torrent_id: published.id(), uploader, downloader };
    let others = (0..3).map(|other| Entry { piece: 100 + other, hash: [9; 32] });
    let entries = others.chain([Entry { piece, hash: *blake3::hash(sent).as_bytes() }]).collect();
    Statement::sign(key, &parties, 1, time, entries)
}

impl Published {
    /// What the seed sends.
    async fn send(&self, tracker: &Running, piece: u32, to: &Device, time: u64) -> Sent {
        let ticket = to.ticket(self, self.seed_id(), soon());
        let keys = self.seed(tracker).seed_keys(self.id(), &ticket, &[piece]).await.unwrap();
        let key = EncryptionKey::from_bytes(self.params(), &keys.keys).unwrap();
        let mut ciphertext = packaged();
        encrypt_piece(self.params(), &key, &mut ciphertext).unwrap();
        let ids = (self.seed_id(), to.id);
        let statement = statement(&self.seed_key, self, ids, time, piece, &ciphertext);
        Sent { uploader: self.seed_id(), statement, ciphertext }
    }
}

async fn case_of(tracker: &Running, case: [u8; 32]) -> Value {
    let cases = tracker.admin().cases(None).await.unwrap();
    let case = hex::encode(case);
    let found = cases["cases"].as_array().unwrap().iter().find(|found| found["case"] == case.as_str());
    found.unwrap_or_else(|| panic!("no case {case} in {cases}")).clone()
}

#[tokio::test]
async fn a_bad_piece_is_followed_back_past_honest_peers() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start_with(Config { defence_seconds: 3, ..config(directory.path()) }).await;
    let published = Published::new(&tracker).await;
    let (mallory, m_subscribed) = Device::subscribed(&tracker, &published).await;
    let (first, f_subscribed) = Device::subscribed(&tracker, &published).await;
    let (second, _) = Device::subscribed(&tracker, &published).await;
    let (finder, _) = Device::subscribed(&tracker, &published).await;
    let (world, torrent, t) = ((&tracker, &published), published.id(), now() - 100);

    // What the seed sent was good. Mallory hands on something else; the others what they got.
    let good = published.send(&tracker, PIECE, &mallory, t).await;
    let mut held = good.ciphertext.clone();
    held[5000] ^= 1;
    let (at_first, by_mallory) = mallory.send(world, PIECE, &held, (&first, t + 10)).await;
    let (at_second, by_first) = first.send(world, PIECE, &at_first, (&second, t + 20)).await;
    let (at_finder, by_second) = second.send(world, PIECE, &at_second, (&finder, t + 30)).await;
    let sent = Sent { uploader: second.id, statement: by_second.clone(), ciphertext: at_finder };
    let accusation = finder.accuse(&published, PIECE, &sent);
    let case = finder.client(&tracker).accuse(&accusation).await.unwrap();
    assert_eq!(finder.client(&tracker).accuse(&accusation).await.unwrap(), case, "told again");

    assert_eq!(second.asked(&tracker, &published).await, [case]);
    assert!(first.asked(&tracker, &published).await.is_empty());
    assert_eq!(
        code(first.defend(&tracker, &published, case, (mallory.id, &by_mallory)).await),
        ApiError::UnknownCase
    );
    // Not about this ciphertext; not older; not to this subscriber; not by whom it says.
    let other = first.state(&published, &second, t + 19, PIECE, b"something else");
    assert!(!second.defend(&tracker, &published, case, (first.id, &other)).await.unwrap());
    let late = first.state(&published, &second, t + 30, PIECE, &at_second);
    for (uploader, word) in [(first.id, &late), (mallory.id, &by_mallory), (mallory.id, &by_first)] {
        assert_eq!(
            code(second.defend(&tracker, &published, case, (uploader, word)).await),
            ApiError::BadStatement
        );
    }
    assert!(second.defend(&tracker, &published, case, (first.id, &by_first)).await.unwrap());
    assert!(second.asked(&tracker, &published).await.is_empty());
    assert!(first.defend(&tracker, &published, case, (mallory.id, &by_mallory)).await.unwrap());

    // Mallory can show what the seed said of the good piece, and what nobody said.
    assert_eq!(mallory.asked(&tracker, &published).await, [case]);
    let seed = published.seed_id();
    assert!(!mallory.defend(&tracker, &published, case, (seed, &good.statement)).await.unwrap());
    let ids = (seed, mallory.id);
    let forged = statement(mallory.identity.signing_key(), &published, ids, t, PIECE, &held);
    assert_eq!(
        code(mallory.defend(&tracker, &published, case, (seed, &forged)).await),
        ApiError::BadStatement
    );
    let begun = std::time::Instant::now();
    let ended = loop {
        let found = case_of(&tracker, case).await;
        if found["outcome"] != "open" {
            break found;
        }
        assert!(begun.elapsed() < DEADLINE);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!(
        (ended["outcome"].as_str(), ended["suspect"].as_str()),
        (Some("blamed"), Some(&*mallory.id.to_string()))
    );
    let cleared = [second.id.to_string(), first.id.to_string()];
    assert_eq!(ended["cleared"], serde_json::json!(cleared));
    assert_eq!(
        code(mallory.defend(&tracker, &published, case, (seed, &good.statement)).await),
        ApiError::UnknownCase
    );

    // It sends no more, and nobody is told of it; the honest go on.
    let ticket = finder.ticket(&published, mallory.id, soon());
    assert_eq!(code(mallory.client(&tracker).rekey(torrent, 1, &ticket, &[0]).await), ApiError::Barred);
    tracker.client().announce(&m_subscribed.passkey, &announce(&published, 1, 0)).await.unwrap();
    let reply = tracker.client().announce(&f_subscribed.passkey, &announce(&published, 2, 9)).await.unwrap();
    assert!(reply.peers.is_empty(), "{:?}", reply.peers);
    let ticket = finder.ticket(&published, first.id, soon());
    first.client(&tracker).rekey(torrent, 1, &ticket, &[0]).await.unwrap();
    // That lasts over a restart, and until a pardon.
    tracker.stop().await;
    let tracker = Running::start_with(config(directory.path())).await;
    let ticket = finder.ticket(&published, mallory.id, soon());
    assert_eq!(code(mallory.client(&tracker).rekey(torrent, 1, &ticket, &[0]).await), ApiError::Barred);
    assert_eq!(tracker.admin().pardon(mallory.id).await.unwrap(), 1);
    mallory.client(&tracker).rekey(torrent, 1, &ticket, &[0]).await.unwrap();
    tracker.stop().await;
}

#[tokio::test]
async fn false_accusations_fail() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start_with(config(directory.path())).await;
    let (published, elsewhere) = (Published::new(&tracker).await, Published::new(&tracker).await);
    let (honest, _) = Device::subscribed(&tracker, &published).await;
    let (accuser, _) = Device::subscribed(&tracker, &published).await;
    let (stranger, _) = Device::subscribed(&tracker, &elsewhere).await;
    let (world, t) = ((&tracker, &published), now() - 100);
    let good = published.send(&tracker, PIECE, &honest, t).await;
    let (ciphertext, word) = honest.send(world, PIECE, &good.ciphertext, (&accuser, t + 1)).await;
    let sent = Sent { uploader: honest.id, statement: word.clone(), ciphertext: ciphertext.clone() };
    let accusation = accuser.accuse(&published, PIECE, &sent);
    let spoilt: Vec<u8> = ciphertext.iter().enumerate().map(|(i, byte)| byte ^ u8::from(i == 77)).collect();
    let by_accuser =
        statement(accuser.identity.signing_key(), &published, (honest.id, accuser.id), t, PIECE, &spoilt);
    let unsigned = Statement { signature: [0; 64], ..word.clone() };
    let by_stranger = stranger.state(&published, &accuser, t, PIECE, &spoilt);
    let to_another = honest.state(&published, &stranger, t, PIECE, &ciphertext);
    let to_come = honest.state(&published, &accuser, now() + 10_000, PIECE, &ciphertext);
    let of_another_piece = honest.state(&published, &accuser, t, PIECE + 1, &ciphertext);
    for (what, accusation, expected) in [
        (
            "spoilt on the way",
            Accuse { ciphertext: spoilt.clone(), ..accusation.clone() },
            ApiError::BadStatement,
        ),
        (
            "signed by the accuser",
            Accuse { ciphertext: spoilt.clone(), statement: by_accuser, ..accusation.clone() },
            ApiError::BadStatement,
        ),
        ("signed by nobody", Accuse { statement: unsigned, ..accusation.clone() }, ApiError::BadStatement),
        (
            "from a stranger",
            Accuse {
                uploader: stranger.id,
                statement: by_stranger,
                ciphertext: spoilt,
                ..accusation.clone()
            },
            ApiError::BadStatement,
        ),
        ("to another", Accuse { statement: to_another, ..accusation.clone() }, ApiError::BadStatement),
        ("from the future", Accuse { statement: to_come, ..accusation.clone() }, ApiError::BadStatement),
        (
            "of another piece",
            Accuse { statement: of_another_piece, ..accusation.clone() },
            ApiError::BadStatement,
        ),
        ("of no piece", Accuse { piece: PIECES, ..accusation.clone() }, ApiError::BadPiece),
        ("too short", Accuse { ciphertext: vec![1; 256], ..accusation.clone() }, ApiError::BadPiece),
        ("too long", Accuse { ciphertext: vec![1; 1 << 20], ..accusation.clone() }, ApiError::TooLarge),
    ] {
        assert_eq!(code(accuser.client(&tracker).accuse(&accusation).await), expected, "{what}");
    }
    let client = stranger.client(&tracker);
    assert_eq!(code(client.accuse(&accusation).await), ApiError::WrongTorrent);
    assert_eq!(tracker.admin().cases(None).await.unwrap()["cases"], serde_json::json!([]));
    // Everything fits, but the piece is good: that is held against the accuser.
    assert_eq!(code(accuser.client(&tracker).accuse(&accusation).await), ApiError::NotBad);
    assert!(honest.asked(&tracker, &published).await.is_empty());
    let (other, word) =
        honest.send(world, 1, &published.send(&tracker, 1, &honest, t).await.ciphertext, (&accuser, t)).await;
    let again =
        accuser.accuse(&published, 1, &Sent { uploader: honest.id, statement: word, ciphertext: other });
    assert_eq!(code(accuser.client(&tracker).accuse(&again).await), ApiError::Barred);
    let stats = tracker.admin().stats().await.unwrap();
    assert_eq!((stats["false_accusations"].as_u64(), stats["blamed"].as_u64()), (Some(1), Some(0)));
    tracker.stop().await;
}

#[tokio::test]
async fn what_no_t_makes_is_its_senders_fault_and_a_seeds_is_the_publishers() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start_with(config(directory.path())).await;
    let published = Published::new(&tracker).await;
    let (mallory, _) = Device::subscribed(&tracker, &published).await;
    let (finder, _) = Device::subscribed(&tracker, &published).await;
    let t = now() - 100;
    // A zero block, and one of all ones, which is above p.
    for (piece, byte) in [(0, 0), (1, 0xFF)] {
        let mut ciphertext = published.send(&tracker, piece, &finder, t).await.ciphertext;
        ciphertext[512..768].fill(byte);
        let statement = mallory.state(&published, &finder, t, piece, &ciphertext);
        let sent = Sent { uploader: mallory.id, statement, ciphertext };
        let case = finder.client(&tracker).accuse(&finder.accuse(&published, piece, &sent)).await.unwrap();
        assert_eq!(case_of(&tracker, case).await["outcome"], "blamed");
    }
    let mut sent = published.send(&tracker, PIECE, &finder, t).await;
    sent.ciphertext[7] ^= 1;
    let ids = (published.seed_id(), finder.id);
    sent.statement = statement(&published.seed_key, &published, ids, t, PIECE, &sent.ciphertext);
    let case = finder.client(&tracker).accuse(&finder.accuse(&published, PIECE, &sent)).await.unwrap();
    let ended = case_of(&tracker, case).await;
    assert_eq!(
        (ended["outcome"].as_str(), ended["suspect"].as_str()),
        (Some("blamed"), Some(&*published.seed_id().to_string()))
    );
    published.send(&tracker, 0, &finder, t).await;
    tracker.stop().await;
}

#[tokio::test]
async fn a_case_whose_epoch_is_retired_lapses() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start_with(config(directory.path())).await;
    let published = Published::new(&tracker).await;
    let (j, _) = Device::subscribed(&tracker, &published).await;
    let (k, _) = Device::subscribed(&tracker, &published).await;
    let to_j = published.send(&tracker, PIECE, &j, now() - 20).await;
    // What j sends is of the next epoch, and bad.
    tracker.admin().begin_epoch(None).await.unwrap();
    let mut bad = packaged();
    bad[9] ^= 1;
    let parties = Parties { torrent_id: published.id(), uploader: j.id, downloader: k.id };
    let entries = vec![Entry { piece: PIECE, hash: *blake3::hash(&bad).as_bytes() }];
    let statement = Statement::sign(j.identity.signing_key(), &parties, 2, now() - 10, entries);
    let accuse = k.accuse(&published, PIECE, &Sent { uploader: j.id, statement, ciphertext: bad });
    let case = k.client(&tracker).accuse(&accuse).await.unwrap();
    tracker.admin().retire_epochs(None, 2).await.unwrap();
    // Whether j changed it cannot be computed any more.
    assert!(j.defend(&tracker, &published, case, (to_j.uploader, &to_j.statement)).await.unwrap());
    assert_eq!(case_of(&tracker, case).await["outcome"], "lapsed");
    assert!(j.asked(&tracker, &published).await.is_empty());
    // Nobody lost it.
    j.client(&tracker)
        .rekey(published.id(), 2, &k.signed(Ticket { epoch: 2, ..k.ticket(&published, j.id, soon()) }), &[0])
        .await
        .unwrap();
    tracker.stop().await;
}
