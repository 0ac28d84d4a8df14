//! The tracker that a torrent's calls go to, by the newest authority of the publisher that this device has seen.

use std::path::{Path, PathBuf};

use crate::atomic_file::{self, Access, Existing};
use crate::cli::{DataDir, Exit, Failure};
use crate::date;
use crate::tracker_client::Service;
use crate::wire::authority::{self, MAX_FILE, SignedAuthority};
use crate::wire::metainfo::Metainfo;

/// Flags of everything that calls a publisher's tracker.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct TrustArgs {
    /// The publisher's newest authority: says which tracker serves its torrents
    #[arg(long, env = "SWARMSEAL_AUTHORITY", value_name = "FILE")]
    authority: Option<PathBuf>,
    /// Speak plain HTTP to a tracker on another machine: the network then sees keys and codes
    #[arg(long, env = "SWARMSEAL_INSECURE_HTTP")]
    insecure_http: bool,
}

impl TrustArgs {
    /// The torrent's tracker. Of the authorities at hand the newest counts, and is kept for all torrents of the publisher.
    pub(in crate::cli) fn service(&self, metainfo: &Metainfo, data: &DataDir) -> Result<Service, Failure> {
        let publisher = &metainfo.info.seal.publisher_key;
        let path = data.authority(publisher);
        let kept = kept_authority(data, publisher)?;
        let given = self.authority.as_deref().map(|path| read_authority(path, publisher)).transpose()?;
        let (now, before) = (date::now(), kept.clone());
        let mut newest = kept;
        let mut ahead = None;
        for authority in metainfo.authority.clone().into_iter().chain(given) {
            match authority.supersedes(newest.as_ref(), now) {
                Ok(true) => newest = Some(authority),
                Ok(false) => {}
                Err(error) => ahead = Some(error),
            }
        }
        let newest = newest.ok_or_else(|| match ahead {
            Some(error) => Failure::new(Exit::Failed, error.to_string()),
            None => Failure::new(
                Exit::Usage,
                "this .torrent does not say which tracker serves it; add --authority FILE",
            ),
        })?;
        if before.as_ref() != Some(&newest) {
            keep_authority(&path, &newest)?;
        }
        let service = Service::of_publisher(newest, move |newer| {
            if let Err(failure) = keep_authority(&path, newer) {
                tracing::warn!(%failure, "the newer authority serves until this program ends");
            }
        });
        Ok(service.allow_insecure_http(self.insecure_http))
    }
}

/// The authority in a file. Errors: also where it is another publisher's.
pub(in crate::cli) fn read_authority(path: &Path, publisher: &[u8; 32]) -> Result<SignedAuthority, Failure> {
    let authority = open_authority(path)?;
    if authority.publisher_key() != publisher {
        return Err(Failure::new(
            Exit::WrongKey,
            format!("{}: another publisher signed this authority than the .torrent's", path.display()),
        ));
    }
    Ok(authority)
}

/// The authority in a file, of any publisher.
pub(in crate::cli) fn open_authority(path: &Path) -> Result<SignedAuthority, Failure> {
    let failed = |error: std::io::Error| Failure::file(path, &error);
    let mut bytes = Vec::new();
    {
        use std::io::Read;
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    SignedAuthority::from_file(&bytes).map_err(|error| {
        let exit = match error {
            authority::Error::NewerVersion { .. } => Exit::NewerVersion,
            _ => Exit::Tampered,
        };
        Failure::new(exit, format!("{}: {error}", path.display()))
    })
}

/// The newest authority of a publisher that this device has seen. One that is damaged is as good as none: the next one replaces it.
pub(in crate::cli) fn kept_authority(
    data: &DataDir,
    publisher: &[u8; 32],
) -> Result<Option<SignedAuthority>, Failure> {
    let path = data.authority(publisher);
    if !path.exists() {
        return Ok(None);
    }
    match read_authority(&path, publisher) {
        Err(failure) if failure.exit == Exit::NewerVersion => Err(failure),
        Err(failure) => {
            tracing::warn!(%failure, "the authority that was kept cannot be read");
            Ok(None)
        }
        Ok(authority) => Ok(Some(authority)),
    }
}

/// Keeps the newest authority of a publisher.
pub(in crate::cli) fn keep_authority(path: &Path, authority: &SignedAuthority) -> Result<(), Failure> {
    if let Some(directory) = path.parent() {
        crate::platform::make_private_dir(directory).map_err(|error| Failure::file(directory, &error))?;
    }
    atomic_file::write(path, &authority.to_file(), Access::Private, Existing::Replace)
        .map_err(|error| Failure::file(path, &error))
}
