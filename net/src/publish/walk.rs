//! Which files a path holds, in an order that depends on their names alone.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, entry};
use crate::wire::content::{FileEntry, FileList};

/// The files at `source`: itself, or all in and below a directory, sorted by the bytes of their names. Returns also the
/// directory that their paths start from.
///
/// Errors: [`Error::NotAFile`] where a link, a device or the like is found (`source` itself may be a link),
/// [`Error::NameNotUtf8`], [`Error::Io`], and [`Error::Content`] where there are no files.
pub fn list_files(source: &Path) -> Result<(PathBuf, FileList), Error> {
    let io = |error| Error::Io { path: source.into(), error };
    let metadata = fs::metadata(source).map_err(io)?;
    if metadata.is_dir() {
        let mut entries = Vec::new();
        walk(source, &mut Vec::new(), &mut entries)?;
        return Ok((source.into(), FileList::new(entries)?));
    }
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: source.into() });
    }
    let name = source.file_name().ok_or_else(|| Error::NotAFile { path: source.into() })?;
    let name = name.to_str().ok_or_else(|| Error::NameNotUtf8 { path: source.into() })?;
    let files = FileList::new(vec![entry(vec![name.into()], metadata.len())])?;
    Ok((parent(source), files))
}

/// The directory that a published list's paths start from: `source` itself, or its parent where it is the one file.
pub(super) fn root_of(source: &Path, entries: &[FileEntry]) -> Result<PathBuf, Error> {
    let metadata = fs::metadata(source).map_err(|error| Error::Io { path: source.into(), error })?;
    if metadata.is_dir() {
        return Ok(source.into());
    }
    match entries {
        [only] if source.file_name() == only.path.first().map(AsRef::as_ref) => Ok(parent(source)),
        _ => Err(Error::WrongTorrent),
    }
}

fn parent(file: &Path) -> PathBuf {
    file.parent().map_or_else(PathBuf::new, Path::to_owned)
}

fn walk(dir: &Path, prefix: &mut Vec<String>, entries: &mut Vec<FileEntry>) -> Result<(), Error> {
    let io = |error| Error::Io { path: dir.into(), error };
    let mut names = Vec::new();
    for item in fs::read_dir(dir).map_err(io)? {
        let item = item.map_err(io)?;
        let kind = item.file_type().map_err(io)?;
        let name = item.file_name().into_string().map_err(|_| Error::NameNotUtf8 { path: item.path() })?;
        names.push((name, kind));
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, kind) in names {
        let path = dir.join(&name);
        prefix.push(name);
        if kind.is_dir() {
            walk(&path, prefix, entries)?;
        } else if kind.is_file() {
            let size = fs::metadata(&path).map_err(|error| Error::Io { path: path.clone(), error })?.len();
            entries.push(entry(prefix.clone(), size));
        } else {
            return Err(Error::NotAFile { path });
        }
        prefix.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/c")).unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        for (name, size) in [("b/c/z.mp4", 3), ("b/a.txt", 0), ("a", 1), ("c.html", 2)] {
            fs::write(dir.path().join(name), vec![1; size]).unwrap();
        }
        let (root, files) = list_files(dir.path()).unwrap();
        assert_eq!(root, dir.path());
        let listed: Vec<_> = files
            .entries()
            .iter()
            .map(|entry| (entry.display_path(), entry.size, entry.mime.clone()))
            .collect();
        let expected = [
            ("a", 1, "application/octet-stream"),
            ("b/a.txt", 0, "text/plain"),
            ("b/c/z.mp4", 3, "video/mp4"),
            ("c.html", 2, "text/html"),
        ];
        assert_eq!(listed, expected.map(|(path, size, mime)| (path.to_owned(), size, mime.to_owned())));

        let (root, files) = list_files(&dir.path().join("a")).unwrap();
        assert_eq!((root.as_path(), files.entries().len()), (dir.path(), 1));
        assert!(matches!(list_files(&dir.path().join("empty")), Err(Error::Content(_))));
        assert!(matches!(list_files(&dir.path().join("none")), Err(Error::Io { .. })));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
            assert!(matches!(list_files(dir.path()), Err(Error::NotAFile { .. })));
        }
    }
}
