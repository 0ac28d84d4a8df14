//! Files that appear whole or not at all: written beside their place, flushed to the disk, then moved into it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::platform;

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner alone (0600).
    Private,
    /// Whom the umask lets.
    Shared,
}

/// What happens to a file that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the call fails with [`io::ErrorKind::AlreadyExists`].
    Keep,
    /// It is replaced.
    Replace,
}

/// Writes a whole file.
pub fn write(path: &Path, bytes: &[u8], access: Access, existing: Existing) -> io::Result<()> {
    let mut file = PendingFile::create(path, access)?;
    file.write_all(bytes)?;
    file.commit(existing)
}

/// Waits until no other process holds this lock, which is a file's, and holds it until the file is dropped. Blocks.
pub fn lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    platform::private(&mut options);
    let file = options.open(path)?;
    file.lock()?;
    Ok(file)
}

/// Creates the directories above a file whose path has these components, one after another: a link on the way could lead out of
/// `directory`. The file's path. Errors, with the path that they are about: [`io::ErrorKind::NotADirectory`] for a link as well.
pub fn make_parents(directory: &Path, components: &[String]) -> Result<PathBuf, (PathBuf, io::Error)> {
    let mut path = directory.to_owned();
    let Some((name, parents)) = components.split_last() else { return Ok(path) };
    for parent in parents {
        path.push(parent);
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                    return Err((path, io::ErrorKind::NotADirectory.into()));
                }
            }
            Err(error) => return Err((path, error)),
        }
    }
    path.push(name);
    Ok(path)
}

/// A file being written under a temporary name, removed again unless it is committed.
#[derive(Debug)]
pub struct PendingFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl PendingFile {
    /// Opens a temporary file beside `path`.
    pub fn create(path: &Path, access: Access) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        if access == Access::Private {
            platform::private(&mut options);
        }
        // A name that is long already must not grow past what a file system takes.
        let stem: String = name.to_string_lossy().chars().take(40).collect();
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let temporary = path.with_file_name(format!(".{stem}.{}.{count}.part", std::process::id()));
            match options.open(&temporary) {
                Ok(file) => return Ok(PendingFile { file, temporary, path: path.into(), committed: false }),
                // Left over from a process that had this id before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Flushes the file to the disk and moves it into its place.
    pub fn commit(mut self, existing: Existing) -> io::Result<()> {
        self.file.sync_all()?;
        match existing {
            Existing::Replace => fs::rename(&self.temporary, &self.path)?,
            Existing::Keep => self.link_into_place()?,
        }
        self.committed = true;
        sync_parent(&self.path)
    }

    /// A hard link fails where the name is taken, which a rename does not.
    fn link_into_place(&self) -> io::Result<()> {
        match fs::hard_link(&self.temporary, &self.path) {
            Ok(()) => fs::remove_file(&self.temporary),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // The file system has no hard links: two calls at once could now race for the name.
            Err(_) if fs::symlink_metadata(&self.path).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(&self.temporary, &self.path),
        }
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes a new name survive a crash, where directories can be flushed.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    platform::sync_directory(parent.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_kept_or_replaced_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"one", Access::Private, Existing::Keep).unwrap();
        let error = write(&path, b"two", Access::Private, Existing::Keep).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"three", Access::Private, Existing::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        drop(PendingFile::create(&path, Access::Shared).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
