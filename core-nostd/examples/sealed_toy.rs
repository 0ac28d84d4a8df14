//! Makes a sealed ciphertext piece over a group that is too small for a torrent: what `attacks/lattice.py` opens under `paper` at that
//! size, and cannot open here.
//!
//! ```sh
//! cargo run -p swarmseal-core --example sealed_toy -- prime512 piece.bin
//! ```

use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};
use swarmseal_core::kernels::ByteOrder;
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{Group, Kernels, TorrentId, Word};

const BLOCKS: usize = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, path] = arguments.as_slice() else { return Err("expected a group's name and a file".into()) };
    let kernels = Kernels::portable();
    let group = Group::by_name(name, kernels).ok_or("no group of that name")?;
    let mut random = UnwrapErr(SysRng);
    let mut piece = vec![0; BLOCKS * group.bytes()];
    random.fill_bytes(&mut piece);
    let mut secret = [0; 32];
    random.fill_bytes(&mut secret);
    package::seal(&group, &PackageSecret::from_bytes(secret), &TorrentId([7; 32]), 0, &mut piece)?;
    // Any number below p is K, in the form that kernels take.
    let mut factor: Vec<Word> = vec![0; group.modulus().len()];
    let top = factor.len() - 1;
    factor[..top].iter_mut().for_each(|word| *word = random.next_u64() as Word);
    (kernels.mul_blocks)(group.modulus(), &factor, ByteOrder::Little, &mut piece);
    std::fs::write(path, piece)?;
    Ok(())
}
