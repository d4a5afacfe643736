//! Files that a command writes: whole or not at all, and never over what is there unless asked.
use crate::media::pending::PendingFile;
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::Path;

/// Refuses to go on when `path` exists and `force` is not given.
pub fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    if !force && path.exists() {
        bail!("{} exists: choose another name, or add --force to replace it", path.display());
    }
    Ok(())
}

/// Writes a whole file: into a temporary one beside it, which then takes its place.
pub fn write(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    refuse_existing(path, force)?;
    let cannot = || format!("cannot write {}", path.display());
    let file = PendingFile::create(path, force).with_context(cannot)?;
    let mut writer = file.writer().with_context(cannot)?;
    writer.write_all(bytes).and_then(|()| writer.flush()).with_context(cannot)?;
    file.place().with_context(cannot)?;
    Ok(())
}
