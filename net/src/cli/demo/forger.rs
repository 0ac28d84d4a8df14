//! The forger: it hands out a .torrent that leads to itself, once the publisher's domain, and passes everything on to the tracker in the
//! hope of a code or a session.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::AttackResult;
use super::children::call;
use crate::cli::subscription::{at, read_metainfo};
use crate::cli::{Exit, Failure};
use crate::wire::authority::{Authority, SignedAuthority};
use crate::wire::keyfile::{KeyFile, PublisherKey};
use crate::wire::origin::Origin;

/// Bytes that are kept of what victims send.
const MAX_HEARD: usize = 1 << 20;

type Heard = Arc<Mutex<Vec<u8>>>;

/// Has a device redeem a code with the forged .torrent. The attack succeeds if the forger receives more than requests to identify itself.
/// `publisher`: the publisher's data directory; `tracker`: its tracker's URL.
pub(super) async fn forge(
    work: &Path,
    torrent: &Path,
    publisher: &Path,
    (tracker, code): (&str, &str),
) -> Result<AttackResult, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::DemoFailed, format!("forger: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| failed(&error))?;
    let address = listener.local_addr().map_err(|error| failed(&error))?;
    let metainfo = read_metainfo(torrent, true)?;
    let genuine = metainfo.authority.clone().ok_or_else(|| failed(&"the .torrent has no authority"))?;
    let path = publisher.join("publisher").join("publisher.key");
    let key = KeyFile::read(&path, PublisherKey::KIND)
        .and_then(|file| PublisherKey::from_key_file(&file))
        .map_err(at(&path))?;
    // What the publisher said when the domain was still its own.
    let origin: Origin = format!("http://{address}").parse().map_err(|error| failed(&error))?;
    let old = Authority { origins: vec![origin], serial: genuine.serial - 1, ..(*genuine).clone() };
    let old = SignedAuthority::sign(old, key.signing_key()).map_err(|error| failed(&error))?;
    let profile = metainfo.info.seal.params.profile().name();
    let forged = metainfo.with_authority(old).map_err(|error| failed(&error))?;
    let to = work.join("forged.torrent");
    std::fs::write(&to, forged.to_bytes()).map_err(|error| Failure::file(&to, &error))?;

    let heard = Heard::default();
    let host = tracker.trim_start_matches("http://").to_owned();
    let relaying = tokio::spawn(relay(listener, host, heard.clone()));
    let args = ["license", &to.display().to_string(), "--voucher", code];
    // The device may find the tracker all the same, and then it is licensed there: that is no loss.
    let _ = call("victim of the forger", &work.join("victim"), &args, "licensed", super::STEP).await;
    relaying.abort();
    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    let heard = String::from_utf8_lossy(&heard);
    if !heard.contains("GET /identify?") {
        return Err(failed(&"nobody came"));
    }
    let requests = heard.split("\r\n\r\n").filter(|request| !request.is_empty());
    let opened = requests.into_iter().any(|request| !request.starts_with("GET /identify?"));
    Ok(AttackResult { name: "forged .torrent", profile, opened })
}

/// Passes connections on, and keeps what comes from the victim.
async fn relay(listener: TcpListener, host: String, heard: Heard) {
    while let Ok((victim, _)) = listener.accept().await {
        tokio::spawn(pass_on(victim, host.clone(), heard.clone()));
    }
}

async fn pass_on(victim: TcpStream, host: String, heard: Heard) -> std::io::Result<()> {
    let (mut from, mut back) = victim.into_split();
    let (mut answers, mut asks) = TcpStream::connect(&host).await?.into_split();
    let asking = async {
        let mut bytes = vec![0; 4096];
        loop {
            let length = from.read(&mut bytes).await?;
            if length == 0 {
                return asks.shutdown().await;
            }
            {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MAX_HEARD - heard.len();
                heard.extend_from_slice(&bytes[..length.min(room)]);
            }
            asks.write_all(&bytes[..length]).await?;
        }
    };
    let answering = async {
        tokio::io::copy(&mut answers, &mut back).await?;
        back.shutdown().await
    };
    tokio::try_join!(asking, answering).map(|_| ())
}
