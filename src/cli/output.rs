//! Files that a command writes: whole or not at all, and never over what is there unless asked.
use anyhow::{Context, Result, bail};
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
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = || format!("cannot write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(cannot)?;
    std::io::Write::write_all(&mut file, bytes).with_context(cannot)?;
    file.persist(path).with_context(cannot)?;
    Ok(())
}
