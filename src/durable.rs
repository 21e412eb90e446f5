//! Results that appear complete or not at all, even after a power failure: each is written under a
//! temporary name, synced and renamed, and its folder is synced. Leftovers of a killed process are
//! deleted by the next process that writes to that folder.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::OFlags;
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempDir};

mod links;

pub(crate) use links::check_links;

/// The prefix of temporary names: `.eddy-PID-START-XXXXXX.part`.
const PREFIX: &str = ".eddy-";
const SUFFIX: &str = ".part";

/// Random letters and digits in a temporary name.
const RANDOM: usize = 6;

/// The most results that are synced together.
const MAX_PENDING: usize = 32;

static SYNC_ENABLED: AtomicBool = AtomicBool::new(true);

/// Turns off syncing in this process: a power failure may then lose or empty results.
pub fn disable_sync() {
    SYNC_ENABLED.store(false, Ordering::Relaxed);
}

fn is_sync_enabled() -> bool {
    SYNC_ENABLED.load(Ordering::Relaxed)
}

/// A file that is written under a temporary name beside its destination. Dropping it deletes it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) file: NamedTempFile,
    /// The final path.
    pub(crate) target: PathBuf,
}

impl Part {
    /// Creates the file beside `target`, with the permissions of `target` if that exists, else
    /// those of a new file.
    ///
    /// # Errors
    /// Errors of the operating system.
    pub(crate) fn beside(target: PathBuf) -> io::Result<Self> {
        let file = create(folder_of(&target), SUFFIX)?;
        if let Ok(replaced) = target.metadata() {
            file.as_file().set_permissions(replaced.permissions())?;
        }
        Ok(Self { file, target })
    }

    /// Renames the complete file to its final name.
    ///
    /// # Errors
    /// Errors of the operating system. The file is then deleted, unless it replaced another one and
    /// only the folder could not be synced.
    pub(crate) fn complete(self) -> io::Result<()> {
        sync(self.file.as_file())?;
        let folder = self.rename()?;
        sync_renamed(&folder)
    }

    fn rename(self) -> io::Result<Renamed> {
        let is_new = !self.target.exists();
        self.file.persist(&self.target).map_err(|failed| failed.error)?;
        Ok(Renamed { path: self.target, is_new })
    }
}

/// A file that has its final name, but whose folder may not be synced.
struct Renamed {
    path: PathBuf,
    is_new: bool,
}

/// Syncs the folder of a renamed file. On failure, a newly created result is deleted.
fn sync_renamed(renamed: &Renamed) -> io::Result<()> {
    sync_folder(folder_of(&renamed.path)).inspect_err(|_| {
        if renamed.is_new {
            let _ = if renamed.path.is_dir() {
                fs::remove_dir_all(&renamed.path)
            } else {
                fs::remove_file(&renamed.path)
            };
        }
    })
}

/// Creates a new file in `folder` for this process only, whose name ends in `suffix`. Links are not
/// followed.
///
/// # Errors
/// Errors of the operating system.
pub(crate) fn create(folder: &Path, suffix: &str) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    delete_leftovers_once(folder);
    let prefix = format!("{PREFIX}{}-", Owner::own());
    let mut builder = tempfile::Builder::new();
    // The usual mode of new files; the umask applies.
    builder
        .prefix(&prefix)
        .suffix(suffix)
        .rand_bytes(RANDOM)
        .permissions(fs::Permissions::from_mode(0o666));
    let file = builder.tempfile_in(folder)?;
    // The lock is held while the file is open. Without support for locks, the name has to suffice.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// The folders that are being filled.
static OPEN_FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Deletes every [`PartFolder`] of this process and calls `end`, which ends the process. No folder
/// is renamed meanwhile.
pub fn discard_folders(end: impl FnOnce()) {
    let folders = OPEN_FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    // A later process deletes what cannot be deleted now.
    folders.iter().for_each(|folder| drop(fs::remove_dir_all(folder)));
    end();
}

/// A folder that is filled under a temporary name beside its destination. Dropping it deletes it.
#[derive(Debug)]
pub struct PartFolder {
    folder: TempDir,
    target: PathBuf,
    /// Kept open to hold the lock.
    _lock: Option<File>,
}

impl PartFolder {
    /// Creates the folder beside `target`, which must not exist.
    ///
    /// # Errors
    /// Errors of the operating system, and a link on the way that another user may have planted.
    pub fn beside(target: &Path) -> io::Result<Self> {
        check_links(target)?;
        let place = folder_of(target);
        delete_leftovers_once(place);
        let prefix = format!("{PREFIX}{}-", Owner::own());
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(SUFFIX)
            .rand_bytes(RANDOM)
            .tempdir_in(place)?;
        let lock = File::open(folder.path()).ok().filter(|folder| folder.try_lock().is_ok());
        OPEN_FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).push(folder.path().to_owned());
        Ok(Self { folder, target: target.to_owned(), _lock: lock })
    }

    /// The current path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Renames the complete folder to its final name.
    ///
    /// # Errors
    /// Errors of the operating system; the folder is then deleted.
    pub fn complete(self) -> io::Result<()> {
        OPEN_FOLDERS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|folder| folder != self.folder.path());
        rename_folder(self.folder.path(), &self.target)?;
        // The temporary name no longer exists, so there is nothing to delete.
        let _ = self.folder.keep();
        Ok(())
    }
}

/// Syncs a folder with its content, and renames it.
///
/// # Errors
/// Errors of the operating system; nothing then has the new name.
pub(crate) fn rename_folder(from: &Path, to: &Path) -> io::Result<()> {
    sync_below(from)?;
    fs::rename(from, to)?;
    sync_renamed(&Renamed { path: to.into(), is_new: true })
}

/// Syncs an open file that another process wrote by its [`descriptor`], and renames it from `from`
/// to `to`.
///
/// # Errors
/// Errors of the operating system; the file then keeps its old name. Also when the name is no
/// longer that of the file, because somebody else who may write to the folder renamed it.
pub(crate) fn rename(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    sync(file)?;
    check_name(file, from)?;
    fs::rename(from, to)?;
    check_name(file, to)?;
    sync_folder(folder_of(to)).inspect_err(|_| drop(fs::rename(to, from)))
}

fn check_name(file: &File, name: &Path) -> io::Result<()> {
    let [found, own] = [name.symlink_metadata()?, file.metadata()?];
    if (found.dev(), found.ino()) == (own.dev(), own.ino()) {
        return Ok(());
    }
    let problem = format!("another program replaced {}; choose another folder", name.display());
    Err(io::Error::other(problem))
}

/// The path by which a program that this process starts opens exactly this file, wherever `name`
/// leads by then; `name` itself where `/proc` is missing.
pub(crate) fn descriptor(file: &File, name: &Path) -> PathBuf {
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    if path.exists() { path } else { name.to_owned() }
}

/// Creates a folder and its missing parents, and syncs them.
///
/// # Errors
/// Errors of the operating system, and a link on the way that another user may have planted.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    check_links(folder)?;
    let missing: Vec<&Path> = folder
        .ancestors()
        .filter(|folder| !folder.as_os_str().is_empty())
        .take_while(|folder| !folder.exists())
        .collect();
    fs::create_dir_all(folder)?;
    missing.into_iter().rev().try_for_each(|folder| sync_folder(folder_of(folder)))
}

fn sync_below(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_below(&entry.path())?
        } else {
            sync(&File::open(entry.path())?)?
        }
    }
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => sync(&folder),
        // The folder may be writable but not readable.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

/// Waits until the data is on disk. A file system without sync is not an error.
fn sync(file: &File) -> io::Result<()> {
    if !is_sync_enabled() {
        return Ok(());
    }
    match file.sync_all() {
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS)
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// The folder that contains a path.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Completes files on another thread. Files that arrive while the disk is busy are synced and
/// renamed together, and then their folder is synced once. This waits for the disk less often, and
/// no file waits long.
#[derive(Debug)]
pub(crate) struct Completer {
    parts: Option<SyncSender<Part>>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

/// The file that could not be completed, and the system's error.
pub(crate) type Failure = (PathBuf, io::Error);

impl Completer {
    /// # Errors
    /// When the thread cannot start.
    pub(crate) fn new() -> io::Result<Self> {
        let (parts, receiver) = sync_channel(MAX_PENDING);
        let thread = std::thread::Builder::new()
            .name("syncing".into())
            .spawn(move || complete_all(&receiver))?;
        Ok(Self { parts: Some(parts), thread: Some(thread) })
    }

    /// Queues a file for completion. All files must be in one folder.
    ///
    /// # Errors
    /// The failure of an earlier file.
    pub(crate) fn complete(&mut self, part: Part) -> Result<(), Failure> {
        match &self.parts {
            Some(parts) if parts.send(part).is_ok() => Ok(()),
            _ => self.finish(),
        }
    }

    /// Waits for all queued files.
    ///
    /// # Errors
    /// The failure of a file. That file and later ones are deleted.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.parts = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| {
            Err((PathBuf::new(), io::Error::other("the sync thread has ended")))
        })
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

fn complete_all(parts: &Receiver<Part>) -> Result<(), Failure> {
    while let Ok(first) = parts.recv() {
        let batch = std::iter::once(first).chain(parts.try_iter().take(MAX_PENDING - 1));
        complete_together(batch.collect())?;
    }
    Ok(())
}

fn complete_together(batch: Vec<Part>) -> Result<(), Failure> {
    let mut failure = None;
    let mut renamed = Vec::new();
    let mut synced = Vec::new();
    for part in batch {
        match sync(part.file.as_file()) {
            Ok(()) => synced.push(part),
            Err(error) => {
                failure = Some((part.target.clone(), error));
                break;
            }
        }
    }
    for part in synced {
        let target = part.target.clone();
        match part.rename() {
            Ok(done) => renamed.push(done),
            Err(error) => {
                failure.get_or_insert((target, error));
                break;
            }
        }
    }
    if let Some(last) = renamed.last()
        && let Err(error) = sync_renamed(last)
    {
        let path = last.path.clone();
        renamed
            .iter()
            .rev()
            .skip(1)
            .filter(|done| done.is_new)
            .for_each(|done| drop(fs::remove_file(&done.path)));
        failure.get_or_insert((path, error));
    }
    failure.map_or(Ok(()), Err)
}

/// A process, identified by its ID and start time, since IDs are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    process: u32,
    /// Start time in clock ticks since boot.
    start_time: u64,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.process, self.start_time)
    }
}

impl Owner {
    /// This process.
    pub(crate) fn own() -> Self {
        let process = std::process::id();
        Self { process, start_time: start_time(process).unwrap_or_default() }
    }

    /// Parses exactly the format of [`Display`](std::fmt::Display).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (process, start_time) = text.split_once('-')?;
        let owner = Self { process: process.parse().ok()?, start_time: start_time.parse().ok()? };
        (owner.to_string() == text).then_some(owner)
    }

    /// Whether the process has certainly ended, as seen on this machine.
    pub(crate) fn is_gone(self) -> bool {
        start_time(std::process::id()).is_some()
            && start_time(self.process) != Some(self.start_time)
    }
}

/// The start time of a process in clock ticks since boot.
fn start_time(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may contain anything. The 22nd field is the 20th after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The process that a temporary file belongs to, by its name.
fn owner_of(name: &str) -> Option<Owner> {
    let (name, extension) = name.strip_prefix(PREFIX)?.split_once(SUFFIX)?;
    let (owner, random) = name.rsplit_once('-')?;
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let ends_well = extension.is_empty()
        || extension.strip_prefix('.').is_some_and(|end| !end.is_empty() && is_plain(end));
    (random.len() == RANDOM && is_plain(random) && ends_well).then(|| Owner::parse(owner)).flatten()
}

/// Deletes leftovers of ended processes in a folder, the first time that this process writes there.
fn delete_leftovers_once(folder: &Path) {
    static CLEANED_FOLDERS: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let mut swept = CLEANED_FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    if swept.get_or_insert_default().insert(folder.to_owned()) {
        drop(swept);
        delete_leftovers(folder);
    }
}

/// Deletes the temporary files of killed processes in a folder. Those of running ones are kept.
pub fn delete_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let owner = entry.file_name().to_str().and_then(owner_of);
        if owner.is_some_and(Owner::is_gone) {
            // Leftovers that cannot be deleted do no harm.
            let _ = clear(&entry.path());
        }
    }
}

/// Deletes a leftover file or folder that nobody has locked. Links, other users' files and files of
/// processes in other containers are kept.
fn clear(path: &Path) -> io::Result<()> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let found = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = found.metadata()?;
    if kind.uid() != rustix::process::geteuid().as_raw() || found.try_lock().is_err() {
        return Ok(());
    }
    match kind.is_dir() {
        true => fs::remove_dir_all(path),
        false if kind.is_file() => fs::remove_file(path),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Owner, delete_leftovers, owner_of};
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn parses_only_exact_temporary_names() {
        let own = Owner::own();
        let name = |owner: &str, rest: &str| owner_of(&format!(".eddy-{owner}-{rest}"));
        assert_eq!(name(&own.to_string(), "aB3dE6.part"), Some(own));
        assert_eq!(name(&own.to_string(), "aB3dE6.part.mp4"), Some(own));
        for (owner, rest) in [
            ("1-2", "aB3dE6.part.mp4.mp4"),
            ("1-2", "aB3dE6.part."),
            ("1-2", "aB3dE6.partly"),
            ("1-2", "aB3dE.part"),
            ("1-2", "aB3/E6.part"),
            ("01-2", "aB3dE6.part"),
            ("+1-2", "aB3dE6.part"),
            ("1", "aB3dE6.part"),
            ("1-2-3", "aB3dE6.part"),
        ] {
            assert_eq!(name(owner, rest), None, "{owner} {rest}");
        }
    }

    #[test]
    fn deletes_only_leftovers_of_ended_processes() {
        let own = Owner::own();
        assert!(!own.is_gone());
        let before = Owner { start_time: own.start_time + 1, ..own };
        assert!(before.is_gone(), "a process of the same number that start_time at another time");
        let place = tempfile::tempdir().unwrap();
        let at = |name: String| place.path().join(name);
        let kept = at("kept".into());
        fs::write(&kept, "").unwrap();
        symlink(&kept, at(format!(".eddy-{before}-linked.part"))).unwrap();
        fs::write(at(format!(".eddy-{before}-gone12.part")), "").unwrap();
        fs::create_dir_all(at(format!(".eddy-{before}-folder.part")).join("below")).unwrap();
        fs::write(at(format!(".eddy-{own}-mine12.part")), "").unwrap();
        fs::write(at(format!(".eddy-{before}-held12.part")), "").unwrap();
        let held = fs::File::open(at(format!(".eddy-{before}-held12.part"))).unwrap();
        held.lock().unwrap();
        delete_leftovers(place.path());
        let mut left: Vec<_> =
            fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let expected = [
            format!(".eddy-{before}-held12.part"),
            format!(".eddy-{before}-linked.part"),
            format!(".eddy-{own}-mine12.part"),
            "kept".into(),
        ];
        let mut expected: Vec<std::ffi::OsString> = expected.into_iter().map(Into::into).collect();
        expected.sort();
        assert_eq!(left, expected);
    }
}
