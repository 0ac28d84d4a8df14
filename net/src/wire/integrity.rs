//! When a subscriber checks the pieces that came (paper, section 2.3): the publisher's choice, `info.swarmseal.integrity`.

/// A mode of checking. Whatever it is, the player checks each piece before it releases a byte of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Integrity {
    /// As they come, by cipher hashes, while the torrent's bytes times its subscribers stay within the tracker's bound; otherwise as
    /// [`Integrity::AfterDownload`]. A .torrent that names no mode has this one.
    #[default]
    Auto,
    /// When all are there, by the license: the paper's default. A bad piece may have been handed on by then. Whoever has found one
    /// checks what comes from then on as it comes.
    AfterDownload,
    /// As they come, by a license that is fetched first: a received piece is opened, hashed and wiped. Who has no license yet checks
    /// after the download.
    EarlyLicense,
    /// As they come, by cipher hashes, for however many subscribers: a trusted seed encrypts and hashes the content for each.
    CipherHashes,
}

impl Integrity {
    /// All of them.
    pub const ALL: [Integrity; 4] =
        [Integrity::Auto, Integrity::AfterDownload, Integrity::EarlyLicense, Integrity::CipherHashes];

    /// Its name in a .torrent and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Integrity::Auto => "auto",
            Integrity::AfterDownload => "after-download",
            Integrity::EarlyLicense => "early-license",
            Integrity::CipherHashes => "cipher-hashes",
        }
    }

    /// The mode of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Integrity::ALL.into_iter().find(|mode| mode.name() == name)
    }
}
