//! Where the programs keep their state.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use swarmseal_core::TorrentId;

use super::{Exit, Failure};
use crate::platform::make_private_dir;
use crate::player::PlayFiles;

/// The data directory: `--data`, or `swarmseal` in the XDG data directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The directory given, or the XDG one; it is made (0700) if it is not there.
    pub fn open(given: Option<PathBuf>) -> Result<Self, Failure> {
        let path = match given {
            Some(path) => path,
            None => etcetera::base_strategy::Xdg::new()
                .map_err(|_| Failure::new(Exit::Storage, "no home directory: expected HOME or --data DIR"))?
                .data_dir()
                .join("swarmseal"),
        };
        make_private(&path)?;
        Ok(DataDir(path))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The root that all keys of this device come from.
    pub fn device(&self) -> PathBuf {
        self.0.join("device.key")
    }

    /// The newest authority of a publisher that this device has seen.
    pub fn authority(&self, publisher_key: &[u8; 32]) -> PathBuf {
        self.0.join("authorities").join(hex::encode(publisher_key))
    }

    /// The publisher's own directory, made if it is not there.
    pub fn publisher(&self) -> Result<PathBuf, Failure> {
        let path = self.0.join("publisher");
        make_private(&path)?;
        Ok(path)
    }

    /// The license server's own directory, made if it is not there.
    pub fn license_server(&self) -> Result<DataDir, Failure> {
        let path = self.0.join("license-server");
        make_private(&path)?;
        Ok(DataDir(path))
    }

    /// The tracker's own directory, made if it is not there.
    pub fn tracker(&self) -> Result<PathBuf, Failure> {
        let path = self.0.join("tracker");
        make_private(&path)?;
        Ok(path)
    }

    /// What the device keeps of one torrent.
    pub fn torrent(&self, id: &TorrentId) -> TorrentDir {
        TorrentDir(self.0.join("torrents").join(id.to_string()))
    }

    /// All torrents that this device subscribed to.
    pub fn subscribed(&self) -> Vec<TorrentDir> {
        let entries = std::fs::read_dir(self.0.join("torrents")).into_iter().flatten().flatten();
        entries.map(|entry| TorrentDir(entry.path())).filter(|dir| dir.subscription().exists()).collect()
    }

    /// The journal of plays.
    pub fn journal(&self) -> PathBuf {
        self.0.join("plays.journal")
    }
}

/// What a device keeps of one torrent.
#[derive(Clone, Debug)]
pub struct TorrentDir(PathBuf);

impl TorrentDir {
    /// Makes the directory if it is not there.
    pub fn create(&self) -> Result<(), Failure> {
        make_private(&self.0)
    }

    /// The directory itself; the piece store lives in it.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A copy of the .torrent.
    pub fn metainfo(&self) -> PathBuf {
        self.0.join("meta.torrent")
    }

    /// What the tracker answered to the subscription.
    pub fn subscription(&self) -> PathBuf {
        self.0.join("subscription")
    }

    /// The license, as the tracker sent it.
    pub fn license(&self) -> PathBuf {
        self.0.join("license")
    }

    /// Whose turn it is to tell the tracker what was played.
    pub fn turn(&self) -> PathBuf {
        self.0.join("turn.lock")
    }

    /// A license of another epoch than [`TorrentDir::license`]: it opens pieces that have not moved.
    pub fn license_of(&self, epoch: u64) -> PathBuf {
        self.0.join(format!("license-{epoch}"))
    }

    /// The epochs of those.
    pub fn other_licenses(&self) -> Vec<u64> {
        let names = std::fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let epoch = |name: std::ffi::OsString| name.to_str()?.strip_prefix("license-")?.parse().ok();
        names.filter_map(epoch).collect()
    }

    /// How often it was played, and the journal in the root of the data directory that knows of all such records.
    pub fn play_files(&self) -> PlayFiles {
        let root = self.0.ancestors().nth(2).unwrap_or(&self.0);
        PlayFiles { record: self.0.join("plays"), journal: root.join("plays.journal") }
    }

    /// Where a running `get` hears what a player reads next; see [`crate::wire::channel`].
    pub fn channel(&self) -> PathBuf {
        self.0.join("get.channel")
    }
}

fn make_private(path: &Path) -> Result<(), Failure> {
    make_private_dir(path).map_err(|error| Failure::file(path, &error))
}
