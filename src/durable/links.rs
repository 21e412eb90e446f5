//! Links that another user may have planted in a shared folder.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use super::folder_of;

/// Maximum number of links that the kernel follows.
const LINKS: usize = 40;

/// Rejects a path through a link, or to a pipe, that another user, neither root nor the folder's
/// owner, put into a folder that others may write to, such as `/tmp`: it may lead to one of our
/// files, or to that user, by malice. Every link on the way is examined, also those that links lead
/// through.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] with the link.
pub(crate) fn check_links(path: &Path) -> io::Result<()> {
    let Some(foreign) = foreign(path) else { return Ok(()) };
    let kind = if foreign.is_symlink() { "link" } else { "pipe" };
    let problem = format!(
        "{} is a {kind} of another user in a folder that others may write to; choose another name",
        foreign.display()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

fn foreign(path: &Path) -> Option<PathBuf> {
    // The rest of the way, its next part last.
    let mut rest = vec![path.to_owned()];
    let mut at = std::env::current_dir().unwrap_or_default();
    let mut links = 0;
    while let Some(path) = rest.pop() {
        let mut parts = path.components();
        let Some(part) = parts.next() else { continue };
        rest.push(parts.as_path().to_owned());
        match part {
            Component::Prefix(_) | Component::CurDir => {}
            Component::RootDir => at = PathBuf::from("/"),
            // `at` has no links, so its parent is the folder above.
            Component::ParentDir => drop(at.pop()),
            Component::Normal(name) => {
                let next = at.join(name);
                if is_foreign(&next) {
                    return Some(next);
                }
                match next.read_link() {
                    Ok(target) if links < LINKS => {
                        links += 1;
                        rest.push(target);
                    }
                    _ => at = next,
                }
            }
        }
    }
    None
}

fn is_foreign(path: &Path) -> bool {
    let is_link_or_pipe = |found: &Metadata| found.is_symlink() || found.file_type().is_fifo();
    let Some(found) = path.symlink_metadata().ok().filter(is_link_or_pipe) else { return false };
    let own = rustix::process::geteuid().as_raw();
    // As the kernel does with `fs.protected_symlinks`, but also for group-writable folders, and
    // without the sticky bit.
    let is_shared = |folder: &Metadata| folder.mode() & 0o022 != 0;
    let folder = folder_of(path).metadata().ok().filter(is_shared);
    folder.is_some_and(|folder| ![0, own, folder.uid()].contains(&found.uid()))
}
