//! Every public function of the core, and whether a secret goes into it or comes out. `memcheck` runs all of [`SECRET`]; a test here
//! fails where the core has a function that neither table names.
//!
//! A function goes by its module, its type and its name. The C library (`accel/capi`) has no arithmetic of its own: it checks
//! lengths and calls these. What is derived on secrets (`Clone`, `Drop`, `Zeroize`) copies and overwrites, and no more.

/// Run by memcheck on every backend, with the secrets undefined.
pub const SECRET: &[&str] = &[
    "bytes::load",
    "bytes::store",
    "device::DerivedSecret::as_bytes",
    "device::DeviceRoot::as_bytes",
    "device::DeviceRoot::device_key",
    "device::DeviceRoot::from_bytes",
    "device::DeviceRoot::identity_key",
    "device::DeviceRoot::seat_key",
    "device::DeviceRoot::secret_key",
    "exponent::Exponent::bit",
    "exponent::Exponent::digit",
    "exponent::Exponent::from_be",
    "exponent::Exponent::limbs",
    "kernels::Kernels::comb_pow",
    "kernels::Kernels::modpow",
    "kernels::Kernels::modpow_batch",
    "kernels::Kernels::mont_mul",
    "kernels::Kernels::mont_sqr",
    "kernels::Kernels::mul_blocks",
    "kernels::scalar::Arithmetic::mont_mul",
    "kernels::scalar::Arithmetic::mont_sqr",
    "kernels::scalar::Arithmetic::mul_blocks",
    "kernels::scalar::CombShape::digit",
    "kernels::scalar::comb_pow",
    "kernels::scalar::modpow",
    "kernels::scalar::modpow_batch",
    "kernels::scalar::mul_blocks",
    "keys::SecretKey::from_bytes",
    "keys::SecretKey::generate",
    "keys::SecretKey::public_key",
    "keys::SecretKey::to_bytes",
    "observed::EncryptionKey::derive_each",
    "observed::EncryptionKey::observe",
    "observed::have_one_multiplier",
    "package::PackageSecret::as_bytes",
    "package::PackageSecret::from_bytes",
    "package::open",
    "package::pack",
    "package::seal",
    "package::unpack",
    "piece::decrypt_piece",
    "piece::decrypt_piece_with",
    "piece::encrypt_piece",
    "piece::re_encrypt_piece",
    "piece_keys::DecryptionKey::derive",
    "piece_keys::DecryptionKey::derive_batch",
    "piece_keys::DecryptionKey::derive_with",
    "piece_keys::DecryptionKey::from_bytes",
    "piece_keys::DecryptionKey::open",
    "piece_keys::DecryptionKey::open_batch",
    "piece_keys::DecryptionKey::to_bytes",
    "piece_keys::EncryptionKey::derive",
    "piece_keys::EncryptionKey::derive_batch",
    "piece_keys::EncryptionKey::derive_with",
    "piece_keys::EncryptionKey::from_bytes",
    "piece_keys::EncryptionKey::to_bytes",
    "piece_keys::OpenedKey::derive",
    "piece_keys::OpenedKey::from_bytes",
    "piece_keys::OpenedKey::to_bytes",
    "piece_keys::ReKey::derive",
    "piece_keys::ReKey::derive_batch",
    "piece_keys::ReKey::derive_with",
    "piece_keys::ReKey::from_bytes",
    "piece_keys::ReKey::to_bytes",
    "proof::Proof::prove",
    "proof::Proof::prove_with_nonce",
    "ts_keys::MasterKey::as_bytes",
    "ts_keys::MasterKey::from_bytes",
    "ts_keys::TsKeys::derive",
    "ts_keys::TsKeys::key",
    "witness::WitnessExponents::derive",
    "witness::WitnessExponents::exponent",
    "witness::WitnessFactor::derive",
    "witness::WitnessFactor::derive_batch",
    "witness::WitnessFactor::to_bytes",
    "witness::WitnessKey::before",
    "witness::WitnessKey::derive",
    "witness::WitnessKey::derive_batch",
    "witness::WitnessKey::derive_with",
    "witness::WitnessKey::from_bytes",
    "witness::WitnessKey::to_bytes",
    "witness::WitnessSecret::as_bytes",
    "witness::WitnessSecret::from_bytes",
    "witness::check_witness",
    "witness::check_witness_in_place",
    "witness::witness_hash",
];

/// No secret goes into them, each for the reason that stands before it.
pub const PUBLIC: &[(&str, &[&str])] = &[
    (
        "a group and its numbers are public",
        &[
            "group::Group::bits",
            "group::Group::by_name",
            "group::Group::bytes",
            "group::Group::ffdhe2048",
            "group::Group::ffdhe3072",
            "group::Group::ffdhe4096",
            "group::Group::from_parts",
            "group::Group::generator_be",
            "group::Group::kernels",
            "group::Group::modp1024",
            "group::Group::modp1536",
            "group::Group::modp768",
            "group::Group::modulus",
            "group::Group::modulus_be",
            "group::Group::name",
            "group::Group::names",
            "group::Group::order",
            "group::Group::prime512",
            "group::generate::Group::generate",
            "modulus::Modulus::from_words",
            "modulus::Modulus::len",
            "modulus::Modulus::limbs",
            "modulus::Modulus::neg_inv",
            "modulus::Modulus::neg_inv_words",
            "modulus::Modulus::one",
            "modulus::Modulus::r2",
        ],
    ),
    (
        "parameters, lengths and widths are public",
        &[
            "exponent::Exponent::bits",
            "fixed_base::FixedBase::words",
            "kernels::Kernels::comb_words",
            "kernels::scalar::CombShape::entries",
            "kernels::scalar::CombShape::new",
            "kernels::scalar::comb_words",
            "params::Exponents::by_name",
            "params::Exponents::name",
            "params::Params::exponents",
            "params::Params::group",
            "params::Params::new",
            "params::Params::payload_bytes",
            "params::Params::profile",
            "params::Profile::by_name",
            "params::Profile::name",
            "piece_keys::SubscriberTables::words",
            "proof::Proof::encoded_len",
        ],
    ),
    ("which backend it is is public", &["kernels::Kernels::portable", "kernels::Kernels::scalar"]),
    (
        "tests candidates for primes, which are public",
        &["kernels::Kernels::two_pow_batch_vartime", "kernels::scalar::two_pow_batch_vartime"],
    ),
    (
        "public keys, and powers of them and of the generator, are public",
        &[
            "ids::KeyCommitment::of",
            "ids::SubscriberId::of",
            "ids::SubscriberId::of_seed",
            "ids::TorrentId::of",
            "kernels::Kernels::comb_fill",
            "kernels::scalar::comb_fill",
            "keys::PublicKey::from_bytes",
            "keys::PublicKey::from_bytes_batch",
            "keys::PublicKey::from_checked_bytes_batch",
            "keys::PublicKey::to_bytes",
            "piece_keys::DecryptionKey::table",
            "piece_keys::SubscriberTables::from_words",
            "piece_keys::SubscriberTables::new",
            "witness::WitnessTable::from_words",
            "witness::WitnessTable::new",
        ],
    ),
    ("ciphertext is public", &["piece::check_piece"]),
    (
        "a proof is made to be sent",
        &["proof::Proof::from_bytes", "proof::Proof::to_bytes", "proof::Proof::verify"],
    ),
    (
        "a ticket is made to be sent",
        &["ticket::Ticket::from_bytes", "ticket::Ticket::signing_input", "ticket::Ticket::to_bytes"],
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_public_function_of_the_core_stands_in_one_table() {
        let mut found = BTreeSet::new();
        scan_folder(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../core-nostd/src")), "", &mut found);
        let all = || SECRET.iter().chain(PUBLIC.iter().flat_map(|(_, names)| *names));
        let named: BTreeSet<String> = all().map(|name| name.to_string()).collect();
        assert_eq!(named.len(), all().count(), "a function stands in the tables twice");
        let missing: Vec<_> = found.difference(&named).collect();
        assert!(missing.is_empty(), "in the core and in neither table: {missing:#?}");
        let gone: Vec<_> = named.difference(&found).collect();
        assert!(gone.is_empty(), "in a table and not in the core: {gone:#?}");
    }

    #[test]
    fn the_scan_finds_functions_wherever_they_stand() {
        let source = "
pub fn free() {}
pub(crate) fn inside() {}
impl<'t> Named<'t> {
    pub const fn method() {}
    fn private() {}
}
impl fmt::Debug for Named<'_> {
    fn fmt() {}
}
pub trait Seam {
    fn required();
}
pub struct Kernels {
    pub operation: fn(),
    pub name: &'static str,
}
macro_rules! of_each {
    ($(#[$doc:meta])* $name:ident) => {
        impl $name {
            pub fn made(&self) {}
        }
    };
}
of_each! {
    /// Capital letters in a comment.
    First
}
of_each!(Second { Third });
mod tests {
    pub fn helper() {}
}
";
        let mut found = BTreeSet::new();
        scan(source, "", &mut found);
        let expected =
            ["First::made", "Kernels::operation", "Named::method", "Seam::required", "Second::made", "free"];
        assert_eq!(found, expected.map(String::from).into());
    }

    fn scan_folder(folder: &Path, module: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let inner = format!("{module}{}::", path.file_stem().unwrap().to_str().unwrap());
            if path.is_dir() {
                scan_folder(&path, &inner, found);
            } else {
                let inner = if path.ends_with("lib.rs") { "" } else { &inner };
                scan(&fs::read_to_string(&path).unwrap(), inner, found);
            }
        }
    }

    /// Adds the public functions of a file that rustfmt has indented: those of types, of traits, in fields, and what a macro
    /// makes for each name that it is called with.
    fn scan(source: &str, module: &str, found: &mut BTreeSet<String>) {
        let source = source.split("\nmod tests {").next().unwrap();
        let (mut macro_name, mut of_macros) = (None, Vec::new());
        // Indentation, kind and name of what the line is in.
        let mut block: Option<(usize, &str, String)> = None;
        for line in source.lines() {
            let (indent, text) = (line.len() - line.trim_start().len(), line.trim_start());
            if text == "}" && block.as_ref().is_some_and(|&(at, ..)| at == indent) {
                block = None;
            }
            if indent == 0 {
                if let Some(rest) = text.strip_prefix("macro_rules! ") {
                    macro_name = Some(identifier(rest));
                } else if text == "}" {
                    macro_name = None;
                }
            }
            for (keyword, kind) in [("impl", "impl"), ("pub trait ", "trait"), ("pub struct ", "struct")] {
                if let Some(rest) = text.strip_prefix(keyword).filter(|_| text.ends_with('{')) {
                    let named =
                        rest.split_once(" for ").map_or_else(|| after_generics(rest), |(_, name)| name);
                    block = Some((indent, kind, identifier(named)));
                }
            }
            let kind = block.as_ref().map(|&(_, kind, _)| kind);
            let name = match kind {
                Some("trait") => text.strip_prefix("fn ").map(identifier),
                Some("struct") => text
                    .strip_prefix("pub ")
                    .and_then(|field| field.split_once(": fn("))
                    .map(|(name, _)| name.to_owned()),
                _ => text
                    .strip_prefix("pub const fn ")
                    .or_else(|| text.strip_prefix("pub fn "))
                    .map(identifier),
            };
            let Some(name) = name else { continue };
            match (&block, &macro_name) {
                (Some((.., owner)), Some(in_macro)) if owner.starts_with('$') => {
                    of_macros.push((in_macro.clone(), name));
                }
                (Some((.., owner)), _) => drop(found.insert(format!("{module}{owner}::{name}"))),
                (None, _) => drop(found.insert(format!("{module}{name}"))),
            }
        }
        for (in_macro, name) in of_macros {
            for call in source.split(&format!("\n{in_macro}!")).skip(1) {
                let uncommented = call.lines().filter(|line| !line.trim_start().starts_with("//"));
                let text = uncommented.collect::<String>();
                let owner = identifier(text.trim_start_matches([' ', '{', '(']));
                found.insert(format!("{module}{owner}::{name}"));
            }
        }
    }

    fn after_generics(text: &str) -> &str {
        let text =
            text.strip_prefix('<').and_then(|rest| rest.split_once('>')).map_or(text, |(_, rest)| rest);
        text.trim_start()
    }

    fn identifier(text: &str) -> String {
        text.chars().take_while(|&c| c.is_alphanumeric() || c == '_' || c == '$').collect()
    }
}
