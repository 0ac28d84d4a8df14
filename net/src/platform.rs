//! What depends on the system, all of it: Linux is what is tested; another Unix should do; for Windows it is built.

pub(crate) use self::system::{
    Hangups, default_gateway, descriptors, group_address, interrupted, make_private_dir, place, private,
    raise_descriptors, read_at, reuse_address, sync_directory, takes_name, terminated, write_at,
};

/// Whether Windows takes a name for a file and nothing else: no device, no stream beside a file, no name that becomes another.
#[cfg(any(windows, test))]
fn is_windows_name(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |device: &str| {
        let number = stem.strip_prefix(device);
        number.is_some_and(|number| {
            ["1", "2", "3", "4", "5", "6", "7", "8", "9", "\u{b9}", "\u{b2}", "\u{b3}"].contains(&number)
        })
    };
    let device = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str());
    !(device
        || numbered("COM")
        || numbered("LPT")
        || name.ends_with(['.', ' '])
        || name.contains(['<', '>', ':', '"', '|', '?', '*']))
}

#[cfg(test)]
mod tests {
    #[test]
    fn devices_and_streams_are_no_files_on_windows() {
        for name in ["film.mp4", "console", "com10.txt", "a b", "..d", ".hidden", "COM"] {
            assert!(super::is_windows_name(name), "{name}");
        }
        for name in ["con", "NUL.txt", "aux.c", "Com1", "lpt\u{b2}.x", "a:b", "a.", "a ", "con .txt", "what?"]
        {
            assert!(!super::is_windows_name(name), "{name}");
        }
    }
}

#[cfg(unix)]
mod system {
    use std::fs::{DirBuilder, File, OpenOptions};
    use std::io;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
    use std::path::Path;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tokio::net::TcpSocket;
    use tokio::signal::unix::{SignalKind, signal};

    /// Writes at a place in a file; several threads may at once.
    pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Fills `out` from a place in a file; several threads may at once.
    pub(crate) fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(out, offset)
    }

    /// Makes directories that only their owner enters; those that are there stay as they are.
    pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// A file that is made so is read by its owner alone.
    pub(crate) fn private(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    /// What tells this machine and this directory from others, and stays as it is for both: the machine's id, where there is one, and
    /// the directory's number in its file system. The file system's own number changes from start to start, so it is left out.
    pub(crate) fn place(directory: &Path) -> Option<Vec<u8>> {
        let directory = std::fs::metadata(directory).ok()?.ino();
        let id =
            ["/etc/machine-id", "/var/lib/dbus/machine-id"].iter().find_map(|path| std::fs::read(path).ok());
        Some([&directory.to_le_bytes()[..], &id.unwrap_or_default()].concat())
    }

    /// Whether a file can have that name, which has no separator in it.
    pub(crate) fn takes_name(_: &str) -> bool {
        true
    }

    /// Makes the names in a directory survive a power cut.
    pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Lets a program that starts again listen where connections of before are still being closed.
    pub(crate) fn reuse_address(socket: &TcpSocket) -> io::Result<()> {
        socket.set_reuseaddr(true)
    }

    /// Lets this process have as many file descriptors as it may.
    pub(crate) fn raise_descriptors() {
        /// What macOS gives at most, whatever it says.
        const OPEN_MAX: u64 = 10_240;
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let is_less = current.is_some_and(|current| current < OPEN_MAX);
        if raised.is_err() && is_less && maximum.is_none_or(|maximum| maximum >= OPEN_MAX) {
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(OPEN_MAX), maximum });
        }
    }

    /// How many file descriptors this process may have; `None`: any number.
    pub(crate) fn descriptors() -> Option<usize> {
        getrlimit(Resource::Nofile).current.and_then(|count| usize::try_from(count).ok())
    }

    /// Where to bind to hear a multicast group, and nothing that was sent to us alone.
    pub(crate) fn group_address(group: SocketAddr) -> SocketAddr {
        group
    }

    /// The router that everything goes through which is not local, where Linux says so in its proc file system.
    pub(crate) fn default_gateway() -> Option<Ipv4Addr> {
        gateway_in(&std::fs::read_to_string("/proc/net/route").ok()?)
    }

    fn gateway_in(table: &str) -> Option<Ipv4Addr> {
        /// "It leads through a gateway", in the column of flags.
        const GATEWAY: u32 = 2;
        table.lines().skip(1).find_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, destination, gateway, flags, _, _, _, mask, ..] = columns[..] else { return None };
            let number = |text| u32::from_str_radix(text, 16).ok();
            let default = number(destination)? == 0 && number(mask)? == 0 && number(flags)? & GATEWAY != 0;
            // In the order of bytes that it has in memory.
            default.then_some(Ipv4Addr::from(number(gateway)?.to_ne_bytes()))
        })
    }

    /// Done when the system tells the program to end, if it does so after this call.
    pub(crate) fn terminated() -> impl Future<Output = ()> {
        signalled(SignalKind::terminate())
    }

    /// Done at Ctrl-C, if it is pressed after this call.
    pub(crate) fn interrupted() -> impl Future<Output = ()> {
        signalled(SignalKind::interrupt())
    }

    /// Orders to read files again (SIGHUP), from this value's making on.
    pub(crate) struct Hangups(Option<tokio::signal::unix::Signal>);

    impl Hangups {
        /// From now on such an order no longer ends the program.
        pub(crate) fn new() -> Self {
            Hangups(signal(SignalKind::hangup()).ok())
        }

        /// Done at the next one.
        pub(crate) async fn next(&mut self) {
            match &mut self.0 {
                Some(signal) => drop(signal.recv().await),
                None => std::future::pending().await,
            }
        }
    }

    /// From this call on, the signal no longer ends the program by itself.
    fn signalled(kind: SignalKind) -> impl Future<Output = ()> {
        let signal = signal(kind);
        async {
            match signal {
                Ok(mut signal) => drop(signal.recv().await),
                Err(_) => std::future::pending().await,
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_default_gateway_is_that_of_the_route_to_everywhere() {
            let hex = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
            let row = |to: [u8; 4], through: [u8; 4], flags: u32, mask: [u8; 4]| {
                format!("eth0\t{}\t{}\t{flags:04X}\t0\t0\t0\t{}\t0\t0\t0\n", hex(to), hex(through), hex(mask))
            };
            let local = row([192, 0, 2, 0], [0; 4], 1, [255, 255, 255, 0]);
            let half = row([0; 4], [192, 0, 2, 9], 3, [128, 0, 0, 0]);
            let everywhere = row([0; 4], [192, 0, 2, 1], 3, [0; 4]);
            let gateway = |rows: &[&str]| gateway_in(&format!("Iface\tDestination\n{}", rows.concat()));
            assert_eq!(gateway(&[&local, &half, &everywhere]), Some(Ipv4Addr::new(192, 0, 2, 1)));
            assert_eq!(gateway(&[&local, &half, "nonsense\n"]), None);
        }
    }
}

#[cfg(windows)]
mod system {
    use std::fs::{DirBuilder, File, OpenOptions};
    use std::io;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::os::windows::fs::FileExt;
    use std::path::Path;

    use tokio::net::TcpSocket;

    /// Writes at a place in a file; several threads may at once.
    pub(crate) fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = file.seek_write(bytes, offset)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
            offset += written as u64;
        }
        Ok(())
    }

    /// Fills `out` from a place in a file; several threads may at once.
    pub(crate) fn read_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !out.is_empty() {
            let read = file.seek_read(out, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            out = &mut out[read..];
            offset += read as u64;
        }
        Ok(())
    }

    /// Makes directories. Who may enter is inherited: below a user's own directory, the user.
    pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).create(path)
    }

    /// Who may read is inherited from the directory.
    pub(crate) fn private(_: &mut OpenOptions) {}

    /// Nothing tells it without more of the system than is used here: a copy is not noticed by this.
    pub(crate) fn place(_: &Path) -> Option<Vec<u8>> {
        None
    }

    /// Whether a file can have that name, which has no separator in it.
    pub(crate) fn takes_name(name: &str) -> bool {
        super::is_windows_name(name)
    }

    /// Directories cannot be flushed.
    pub(crate) fn sync_directory(_: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Nothing to be done: the option would let others listen at the same address.
    pub(crate) fn reuse_address(_: &TcpSocket) -> io::Result<()> {
        Ok(())
    }

    /// The system counts no descriptors.
    pub(crate) fn raise_descriptors() {}

    /// Any number.
    pub(crate) fn descriptors() -> Option<usize> {
        None
    }

    /// Where to bind to hear a multicast group: here a group is no address to bind to.
    pub(crate) fn group_address(group: SocketAddr) -> SocketAddr {
        match group {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, group.port()).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, group.port()).into(),
        }
    }

    /// It is not asked for here: a gateway is found by UPnP alone.
    pub(crate) fn default_gateway() -> Option<Ipv4Addr> {
        None
    }

    /// Orders to read files again: here there are none.
    pub(crate) struct Hangups;

    impl Hangups {
        /// Those from now on.
        pub(crate) fn new() -> Self {
            Hangups
        }

        /// Never done.
        pub(crate) async fn next(&mut self) {
            std::future::pending().await
        }
    }

    /// Done when the system shuts down or the console is closed, if that happens after this call.
    pub(crate) fn terminated() -> impl Future<Output = ()> {
        use tokio::signal::windows::{ctrl_close, ctrl_shutdown};
        let signals = (ctrl_close(), ctrl_shutdown());
        async {
            match signals {
                (Ok(mut close), Ok(mut shutdown)) => tokio::select! {
                    _ = close.recv() => {}
                    _ = shutdown.recv() => {}
                },
                _ => std::future::pending().await,
            }
        }
    }

    /// Done at Ctrl-C, if it is pressed after this call.
    pub(crate) fn interrupted() -> impl Future<Output = ()> {
        let interrupt = tokio::signal::windows::ctrl_c();
        async {
            match interrupt {
                Ok(mut interrupt) => drop(interrupt.recv().await),
                Err(_) => std::future::pending().await,
            }
        }
    }
}
