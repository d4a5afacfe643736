//! A file that appears under its name only when it is complete, so that a crash or a full disk costs no older file.
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{Error, Result};

/// A temporary file beside its destination. Dropped before [`commit`](Self::commit), it is removed.
pub(crate) struct PendingFile {
    temporary: NamedTempFile,
    path: PathBuf,
    overwrite: bool,
}

impl PendingFile {
    /// Refuses a destination that exists, unless `overwrite`.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self> {
        // A link that leads nowhere is there too.
        if !overwrite && path.symlink_metadata().is_ok() {
            return Err(Error::OutputExists { path: path.to_owned() });
        }
        // The rename at the end needs both names on one file system.
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".mirage-").suffix(".part");
        #[cfg(unix)]
        {
            // Temporary files are private by default; this one becomes an ordinary file, as the umask has it.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let temporary = builder.tempfile_in(folder).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                let source = io::Error::new(source.kind(), "its folder is not there; make it first");
                Error::Io { doing: "create", path: path.to_owned(), source }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::writing(path, source),
            _ => Error::Io { doing: "create", path: path.to_owned(), source },
        })?;
        Ok(Self { temporary, path: path.to_owned(), overwrite })
    }

    /// The name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file lies until then, for another program to write.
    pub fn temporary_path(&self) -> &Path {
        self.temporary.path()
    }

    /// A buffered handle that writes into the file.
    pub fn writer(&self) -> Result<BufWriter<File>> {
        let file = self.temporary.as_file().try_clone().map_err(|error| Error::writing(&self.path, error))?;
        Ok(BufWriter::new(file))
    }

    /// Brings the file, written and flushed, to the disk and then in its place: not even a power cut leaves less
    /// than the older or the newer file.
    pub fn commit(self) -> Result<()> {
        self.temporary.as_file().sync_all().map_err(|error| Error::writing(&self.path, error))?;
        self.place()
    }

    /// Puts the file, written and flushed, in its place without waiting for the disk.
    pub fn place(self) -> Result<()> {
        let Self { temporary, path, overwrite } = self;
        let moved = if overwrite { temporary.persist(&path) } else { temporary.persist_noclobber(&path) };
        let Err(failed) = moved else { return Ok(()) };
        // The frames may have taken hours: keep them under the temporary name.
        match failed.file.keep() {
            Ok((_, kept)) => Err(Error::NotMoved { path, kept, source: failed.error }),
            Err(_) => Err(Error::writing(&path, failed.error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    #[test]
    fn nothing_shows_before_the_commit_and_nothing_stays_after_a_drop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        fs::write(&path, "older").unwrap();
        assert!(matches!(PendingFile::create(&path, false), Err(Error::OutputExists { .. })));
        let pending = PendingFile::create(&path, true).unwrap();
        pending.writer().unwrap().write_all(b"half").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"older");
        drop(pending);
        assert_eq!(fs::read(&path).unwrap(), b"older");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let pending = PendingFile::create(&path, true).unwrap();
        pending.writer().unwrap().write_all(b"newer").unwrap();
        pending.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
    }

    #[test]
    fn a_file_that_appeared_meanwhile_is_not_overwritten_and_ours_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        let pending = PendingFile::create(&path, false).unwrap();
        pending.writer().unwrap().write_all(b"ours").unwrap();
        fs::write(&path, "theirs").unwrap();
        let Err(Error::NotMoved { kept, .. }) = pending.commit() else { panic!("moved") };
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(fs::read(kept).unwrap(), b"ours");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = PendingFile::create(Path::new("no-such-folder/out.gif"), false).err().unwrap();
        assert!(error.to_string().starts_with("cannot create no-such-folder/out.gif"), "{error}");
    }
}
