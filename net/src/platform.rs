//! What depends on the system, all of it: Linux is what is tested; another Unix should do, and Windows as far as it goes.

pub(crate) use self::system::{
    interrupted, make_private_dir, private, read_at, reuse_address, sync_directory, terminated, write_at,
};

#[cfg(unix)]
mod system {
    use std::fs::{DirBuilder, File, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
    use std::path::Path;

    use tokio::net::TcpSocket;

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

    /// Makes the names in a directory survive a power cut.
    pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Lets a program that starts again listen where connections of before are still being closed.
    pub(crate) fn reuse_address(socket: &TcpSocket) -> io::Result<()> {
        socket.set_reuseaddr(true)
    }

    /// Done when the system tells the program to end, if it does so after this call.
    pub(crate) fn terminated() -> impl Future<Output = ()> {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = signal(SignalKind::terminate());
        async {
            match terminate {
                Ok(mut terminate) => drop(terminate.recv().await),
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Done at Ctrl-C, if it is pressed after this call.
    pub(crate) fn interrupted() -> impl Future<Output = ()> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt());
        async {
            match interrupt {
                Ok(mut interrupt) => drop(interrupt.recv().await),
                Err(_) => std::future::pending().await,
            }
        }
    }
}

#[cfg(windows)]
mod system {
    use std::fs::{DirBuilder, File, OpenOptions};
    use std::io;
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

    /// Directories cannot be flushed.
    pub(crate) fn sync_directory(_: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Nothing to be done: the option would let others listen at the same address.
    pub(crate) fn reuse_address(_: &TcpSocket) -> io::Result<()> {
        Ok(())
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
