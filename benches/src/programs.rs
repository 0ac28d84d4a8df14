//! Swarmseal's programs, run as their users run them: directories, a tracker, a published torrent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::Process;

/// Which programs are run, and how: flags of every benchmark that runs them.
#[derive(clap::Args)]
pub struct Programs {
    /// Force a backend on all of ours; see `swarmseal cpu`.
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// The program [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    pub swarmseal: Option<PathBuf>,
}

impl Programs {
    /// A world of them in that directory. Errors: the program is not there.
    pub fn world(self, dir: &Path) -> Result<World> {
        let program = match self.swarmseal {
            Some(program) => program,
            None => std::env::current_exe()?.with_file_name("swarmseal"),
        };
        ensure!(program.exists(), "{}: expected the program there, or --swarmseal FILE", program.display());
        Ok(World { dir: dir.to_owned(), program, backend: self.backend })
    }
}

/// Reads a number of bytes, with K, M or G.
pub fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) => (digits, text.as_bytes()[text.len() - 1]),
        None => (text, b' '),
    };
    let shift = match unit {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => 0,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|bytes| bytes.checked_mul(1 << shift));
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| "expected a number of bytes, such as 640M".to_owned())
}

/// So many bytes, always the same, that nothing compresses.
pub fn noise(bytes: u64) -> Vec<u8> {
    let mut state = 0x2008_u64;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state ^ (state >> 29)).to_le_bytes()
    };
    let mut out: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| next()).collect();
    out.truncate(bytes as usize);
    out
}

/// The port in a JSON event. Errors: there is none.
pub fn port_of(line: &str) -> Result<u64> {
    let event: Value = serde_json::from_str(line)?;
    event["port"].as_u64().context("no port in the event")
}

/// Where a benchmark's programs keep what they have.
pub struct World {
    /// A directory that nobody else uses.
    pub dir: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// The backend that all are forced to use.
    pub backend: Option<String>,
}

impl World {
    /// The program with a verb; `data` is its directory, below the world's or anywhere.
    pub fn ours(&self, data: impl AsRef<Path>, args: &[&str]) -> Command {
        let mut command = self.program();
        command.arg("--json").arg("--data").arg(self.dir.join(data)).args(args);
        command
    }

    /// The program alone.
    pub fn program(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.envs(self.backend.iter().map(|backend| ("SWARMSEAL_BACKEND", backend)));
        command
    }

    /// Something below the directory.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Runs a verb to its end; the last object that it printed. Errors: it fails.
    pub fn run(&self, data: impl AsRef<Path>, args: &[&str]) -> Result<Value> {
        let output = self.ours(data, args).output()?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout)?;
        Ok(printed.lines().last().map(serde_json::from_str).transpose()?.unwrap_or_default())
    }

    /// A tracker, and its URL.
    pub fn tracker(&self, data: impl AsRef<Path>, flags: &[&str]) -> Result<(Process, String)> {
        let args = [&["tracker", "--listen", "127.0.0.1:0"], flags].concat();
        let tracker = Process::start(&mut self.ours(data, &args))?;
        let listening: Value = serde_json::from_str(&tracker.until("\"listening\"")?)?;
        let url = listening["url"].as_str().context("no URL in the event")?.to_owned();
        Ok((tracker, url))
    }

    /// A tracker and, in pieces of 256 KiB, a torrent of the file `content`; all of it below the directory `place`.
    pub fn publish(&self, place: &str, flags: &[&str]) -> Result<Published> {
        fs::create_dir_all(self.dir.join(place))?;
        let at = |file: &str| self.path(&format!("{place}/{file}"));
        let (tracker, url) = self.tracker(at("operator"), &[])?;
        let published = Published {
            torrent: at("sealed.torrent"),
            seed_file: at("sealed.seed"),
            token: at("operator/tracker/admin.token"),
            packages: at("packages"),
            place: place.to_owned(),
            tracker,
        };
        let Published { torrent, seed_file, token, .. } = &published;
        let content = self.path("content");
        let publish = ["publish", &content, "--tracker", &url, "--admin-token-file", token];
        let files = ["--output", torrent, "--seed-file", seed_file, "--piece-length", "256K"];
        self.run(at("publisher"), &[&publish[..], &files, flags].concat())?;
        Ok(published)
    }
}

/// A torrent, and its tracker, which runs as long as this.
pub struct Published {
    /// The .torrent.
    pub torrent: String,
    /// The seed file.
    pub seed_file: String,
    /// The file with the admin token.
    pub token: String,
    /// The tracker.
    pub tracker: Process,
    packages: String,
    place: String,
}

impl Published {
    /// Starts a seed and waits until it listens; a warm one has its packaged pieces on disk by then.
    pub fn seed(&self, world: &World, warm: bool, flags: &[&str]) -> Result<Process> {
        let args = ["seed", &self.seed_file, "--listen", "127.0.0.1:0"];
        let kept = ["--package-cache", &self.packages];
        let args = [&args[..], if warm { &kept } else { &[] }, flags].concat();
        let seed = Process::start(&mut world.ours(format!("{}/seed", self.place), &args))?;
        seed.until("\"listening\"")?;
        if warm {
            seed.until("\"packaged\"")?;
        }
        Ok(seed)
    }
}
