//! The parameters that a torrent names: profile, group, width of exponents.

use core::fmt;

use crate::kernels::ByteOrder;
use crate::{Error, Group};

/// How plaintext becomes blocks, and which groups and exponents go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The paper's own encoding. Broken by lattice reduction from one ciphertext piece: for Table 1 and the attacks only.
    Paper,
    /// The all-or-nothing package in an RFC 7919 group: everything that ships.
    Sealed,
}

/// How the tracker-site keys r are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exponents {
    /// Short, top bit set: security rests also on the short-exponent discrete logarithm (RFC 7919 §5.2).
    Short,
    /// Uniform in 1 … q−1.
    Full,
}

macro_rules! named {
    ($type:ident { $($variant:ident = $name:literal),+ }) => {
        impl $type {
            /// The name in a metainfo file and on a command line.
            pub const fn name(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }

            /// The value of that name.
            pub fn by_name(name: &str) -> Option<Self> {
                match name { $($name => Some($type::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
named!(Profile { Paper = "paper", Sealed = "sealed" });
named!(Exponents { Short = "short", Full = "full" });

/// Bytes that the package adds to a sealed piece.
pub(crate) const PACKAGE_OVERHEAD: usize = 32;

/// Profile, group and exponents of a torrent, known to fit together. Some 4 KiB: share it, do not copy it about.
#[derive(Clone, Debug)]
pub struct Params {
    profile: Profile,
    group: Group,
    exponents: Exponents,
}

impl Params {
    /// Puts them together. Errors: [`Error::GroupNotSealed`] unless a `sealed` torrent's group is one of RFC 7919's.
    ///
    /// `exponents` concerns `sealed`; `paper` always draws uniformly.
    pub fn new(profile: Profile, group: Group, exponents: Exponents) -> Result<Self, Error> {
        if profile == Profile::Sealed && group.short_exponent_bytes().is_none() {
            return Err(Error::GroupNotSealed);
        }
        Ok(Params { profile, group, exponents })
    }

    /// How plaintext becomes blocks.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// How tracker-site keys are drawn.
    pub fn exponents(&self) -> Exponents {
        self.exponents
    }

    /// Plaintext bytes that a piece of `piece_len` bytes carries: P − 32 sealed, B (W−1) under `paper`.
    pub fn payload_bytes(&self, piece_len: usize) -> usize {
        match self.profile {
            Profile::Sealed => piece_len.saturating_sub(PACKAGE_OVERHEAD),
            Profile::Paper => piece_len / self.group.bytes() * (self.group.bytes() - 1),
        }
    }

    pub(crate) fn byte_order(&self) -> ByteOrder {
        match self.profile {
            Profile::Sealed => ByteOrder::Little,
            Profile::Paper => ByteOrder::Big,
        }
    }

    /// Bytes of a subscriber's short secret exponent, or none where it is drawn uniformly.
    pub(crate) fn short_secret_bytes(&self) -> Option<usize> {
        match self.profile {
            Profile::Sealed => self.group.short_exponent_bytes(),
            Profile::Paper => None,
        }
    }

    /// Bytes of a short tracker-site exponent, or none where it is drawn uniformly.
    pub(crate) fn short_ts_bytes(&self) -> Option<usize> {
        match self.exponents {
            Exponents::Short => self.short_secret_bytes(),
            Exponents::Full => None,
        }
    }
}
