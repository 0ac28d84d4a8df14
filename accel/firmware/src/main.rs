//! The witness's check, T and PDec of a file of pieces on a Cortex-M4, as a set-top box does them, and what they cost.
//!
//! It is run in an emulator with semihosting; its arguments are `BACKEND LENGTH RECEIVED WITNESS-KEYS WITNESS-HASHES PIECES REKEYS EXPECTED
//! SECRET LICENSE-KEYS HASHES CONTENT`. BACKEND is one of `swarmseal_accel`, LENGTH the bytes of a piece, and the others are files of the
//! host: RECEIVED are pieces as they arrive at an uploader, in its ciphertext, WITNESS-KEYS have a key of 256 bytes for each, WITNESS-HASHES
//! its hash as the .torrent has it. The check overwrites a piece, so that PIECES are read again, as from storage. REKEYS have a key of 256
//! bytes for each piece, EXPECTED what T must make of them, SECRET is the downloader's secret key, LICENSE-KEYS have a key of 256 bytes for
//! each piece, HASHES its SHA-1 as the .torrent has it, and CONTENT is the payload. It ends with exit code 0 if every byte is right, and with
//! another if one is not.
#![no_std]
#![no_main]

mod cost;
mod count;
mod files;
mod stack;

use core::fmt;

use cortex_m_rt::{ExceptionFrame, entry, exception};
use semihosting::experimental::env;
use semihosting::{eprintln, println, process};
use sha1::{Digest, Sha1};
use swarmseal_core::{
    DecryptionKey, Exponents, Group, Params, Profile, ReKey, SecretKey, WitnessKey, check_witness_in_place,
    decrypt_piece_with, package, re_encrypt_piece,
};

use cost::Cost;
use count::Counter;
use files::{ARGUMENTS, File, argument};

/// Bytes of the longest piece that there is room for.
const LONGEST: usize = 16 << 10;

/// Bytes of a key at 2,048 bits.
const WIDTH: usize = 256;

#[entry]
fn main() -> ! {
    // `entry` makes this a reference that only `main` has.
    static mut PIECE: [u8; LONGEST] = [0; LONGEST];
    match run(PIECE) {
        Ok(()) => process::exit(0),
        Err(failure) => {
            eprintln!("firmware: {failure}");
            process::exit(1)
        }
    }
}

/// Everything that should not happen ends the run, here what the CPU refuses: an emulator would go on for ever.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    eprintln!("firmware: a fault at {:#010x}", frame.pc());
    process::exit(1)
}

#[exception]
unsafe fn DefaultHandler(number: i16) -> ! {
    eprintln!("firmware: exception {number}, which nobody asked for");
    process::exit(1)
}

/// Why a run is no success.
enum Failure {
    File(files::Error),
    Core(swarmseal_core::Error),
    /// No backend of that name for this CPU.
    Backend,
    /// The length is no number, or there is no room for it.
    Length,
    /// The clock does not count instructions.
    Clock,
    /// There is more than one core peripheral's owner.
    Peripherals,
    /// There was no piece at all.
    Nothing,
    /// This received piece is not what was published.
    Witness(u32),
    /// T made of this piece what it should not.
    Transformed(u32),
    /// This opened piece has another SHA-1.
    Hash(u32),
    /// This piece has another payload.
    Content(u32),
    /// The stack reached its end.
    Stack,
}

impl From<files::Error> for Failure {
    fn from(error: files::Error) -> Self {
        Failure::File(error)
    }
}

impl From<swarmseal_core::Error> for Failure {
    fn from(error: swarmseal_core::Error) -> Self {
        Failure::Core(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::File(error) => error.fmt(f),
            Failure::Core(error) => error.fmt(f),
            Failure::Backend => {
                f.write_str("no backend of that name: expected one of")?;
                swarmseal_accel::each().try_for_each(|kernels| write!(f, " {}", kernels.name))
            }
            Failure::Length => write!(f, "LENGTH: expected a multiple of {WIDTH} up to {LONGEST}"),
            Failure::Clock => {
                f.write_str("the clock does not count instructions: start QEMU with -icount shift=3")
            }
            Failure::Peripherals => f.write_str("the peripherals are taken"),
            Failure::Nothing => f.write_str("RECEIVED: expected at least one piece"),
            Failure::Witness(index) => write!(f, "piece {index}: it is not what was published"),
            Failure::Transformed(index) => write!(f, "piece {index}: T does not make what is expected"),
            Failure::Hash(index) => write!(f, "piece {index}: the opened piece has another SHA-1"),
            Failure::Content(index) => write!(f, "piece {index}: the payload is another"),
            Failure::Stack => f.write_str("the stack reached its end"),
        }
    }
}

fn run(room: &mut [u8; LONGEST]) -> Result<(), Failure> {
    let peripherals = cortex_m::Peripherals::take().ok_or(Failure::Peripherals)?;
    let counter = Counter::start(peripherals.SYST).map_err(|_| Failure::Clock)?;
    println!("a tick is {} instructions", counter.scale);

    let args = env::args::<ARGUMENTS>().map_err(|error| files::Error::Host("arguments", error))?;
    argument("the program's name", &args)?;
    let kernels = swarmseal_accel::by_name(argument("BACKEND", &args)?).ok_or(Failure::Backend)?;
    let length: usize = argument("LENGTH", &args)?.parse().map_err(|_| Failure::Length)?;
    let piece = room.get_mut(..length).filter(|_| length > 0 && length.is_multiple_of(WIDTH));
    let piece = piece.ok_or(Failure::Length)?;
    let mut received = File::open("RECEIVED", &args)?;
    let mut witness_keys = File::open("WITNESS-KEYS", &args)?;
    let mut witness_hashes = File::open("WITNESS-HASHES", &args)?;
    let mut pieces = File::open("PIECES", &args)?;
    let mut rekeys = File::open("REKEYS", &args)?;
    let mut transformed = File::open("EXPECTED", &args)?;
    let mut secret = File::open("SECRET", &args)?;
    let mut license = File::open("LICENSE-KEYS", &args)?;
    let mut hashes = File::open("HASHES", &args)?;
    let mut content = File::open("CONTENT", &args)?;

    let [mut making, mut checking, mut transforming, mut opening, mut decrypting, mut hashing, mut unpacking] =
        [const { Cost::new() }; 7];
    let params =
        making.of(counter, || Params::new(Profile::Sealed, Group::ffdhe2048(kernels), Exponents::Short))?;
    let mut key = [0; WIDTH];
    secret.read(&mut key)?;
    secret.end()?;
    let secret = SecretKey::from_bytes(&params, &key)?;

    let mut index = 0;
    while received.read_or_end(piece)? {
        // What every peer does with what it receives.
        witness_keys.read(&mut key)?;
        let witness = WitnessKey::from_bytes(&params, &key)?;
        let mut published = [0; 32];
        witness_hashes.read(&mut published)?;
        let checked = checking.of(counter, || check_witness_in_place(&params, &witness, &published, piece));
        checked.map_err(|_| Failure::Witness(index))?;

        // What an uploader does.
        pieces.read(piece)?;
        rekeys.read(&mut key)?;
        let rekey = ReKey::from_bytes(&params, &key)?;
        transforming.of(counter, || re_encrypt_piece(&params, &rekey, piece))?;
        if !transformed.has(piece)? {
            return Err(Failure::Transformed(index));
        }

        // What a player does.
        license.read(&mut key)?;
        let decryption = DecryptionKey::from_bytes(&params, &key)?;
        let opened = opening.of(counter, || decryption.open(&params, &secret));
        decrypting.of(counter, || decrypt_piece_with(&params, &opened, piece))?;
        let hash = hashing.of(counter, || Sha1::digest(&*piece));
        if !hashes.has(&hash)? {
            return Err(Failure::Hash(index));
        }
        let payload = unpacking.of(counter, || package::unpack(&params, piece))?;
        if !content.has(&piece[..payload])? {
            return Err(Failure::Content(index));
        }
        index += 1;
    }
    for file in
        [received, witness_keys, witness_hashes, pieces, rekeys, transformed, license, hashes, content]
    {
        file.end()?;
    }
    if index == 0 {
        return Err(Failure::Nothing);
    }
    println!("{index} pieces of {length} bytes by {}", kernels.name);
    println!("parameters are {} bytes", size_of::<Params>());
    let blocks = Some((length / WIDTH) as u64);
    making.print("parameters", None);
    checking.print("the witness's check", blocks);
    transforming.print("T", blocks);
    opening.print("opening a key", None);
    decrypting.print("PDec", blocks);
    hashing.print("SHA-1", blocks);
    unpacking.print("unpackaging", blocks);
    println!("stack: {} bytes", stack::deepest().ok_or(Failure::Stack)?);
    Ok(())
}
