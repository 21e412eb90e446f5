//! The one module that may be `unsafe`: what Rust cannot promise about the process that we run in.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Tells every version of ONNX Runtime that collects telemetry not to. Has to run before the library is opened.
pub(crate) fn forbid_telemetry() {
    for name in ["ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"] {
        // SAFETY: changing the environment races only with other threads that read it through libc. This runs once,
        // under the lock of `Runtime::load`, before any thread of ours or of ONNX Runtime exists; the documentation of
        // `Runtime::load` asks the same of its caller.
        unsafe { std::env::set_var(name, "1") };
    }
}

/// Makes a file that grows larger than `ulimit -f` allows an error of the write, in place of the end of the process. For a program's
/// beginning; programs that are started later inherit it.
pub fn ignore_file_size_signal() {
    // SAFETY: no handler is set, so that no code of ours ever runs in a signal; ignoring one touches no memory.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // It fails for signals alone that there are not.
    let _ = before;
}

/// Runs `listen`, which has signals handled; the end of a terminal stays ignored where it was, as `nohup` has it.
pub fn listen_but_to_ignored_hangups(listen: impl FnOnce()) {
    // SAFETY: as in `ignore_file_size_signal`; what is put back is what was there.
    let before = unsafe {
        let before = libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, before);
        before
    };
    listen();
    if before == libc::SIG_IGN {
        // SAFETY: as above.
        let handler = unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        // It fails for signals alone that there are not.
        let _ = handler;
    }
}

/// Lets go of the memory that holds `bytes`, whole pages of the program's own read-only file; what is read again later
/// comes from the file.
pub(crate) fn release_static(bytes: &'static [u8]) {
    let page = rustix::param::page_size();
    let start = bytes.as_ptr().addr().next_multiple_of(page);
    let end = (bytes.as_ptr().addr() + bytes.len()) / page * page;
    if start < end {
        let pointer = bytes.as_ptr().with_addr(start).cast_mut().cast();
        // SAFETY: the pages lie inside a static that nothing can write to, and a private mapping of a file that is never
        // written gives the same bytes again.
        let released = unsafe { rustix::mm::madvise(pointer, end - start, rustix::mm::Advice::LinuxDontNeed) };
        // Where the kernel will not, the memory stays held; nothing else depends on it.
        let _ = released;
    }
}

/// A command to start, and where its child is waited for.
type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts a child, in a process group of its own, which the kernel kills when this process ends, however it does; or not where it
/// `outlives` us, as one that reads what we write does until it has come to the end.
///
/// The kernel's promise holds for the life of the thread that starts the child (`PR_SET_PDEATHSIG`), which is therefore one that stays
/// until the end. When this process is killed, the signal comes once for every thread that the child falls to until the last has
/// ended, so that none but SIGKILL means the same each time.
///
/// # Errors
/// As [`Command::spawn`].
pub(crate) fn spawn(mut command: Command, outlives: bool) -> io::Result<Child> {
    static STARTER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let parent = getpid();
    command.process_group(0);
    // SAFETY: between fork and exec only system calls that take and allocate nothing run in the child.
    unsafe {
        command.pre_exec(move || {
            if outlives {
                return Ok(());
            }
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // It may have ended before that.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotConnected)) }
        });
    }
    let starter = STARTER.get_or_init(|| {
        let (orders, taken) = mpsc::channel::<Order>();
        // Without it, every order comes back as an error.
        let _ = std::thread::Builder::new().name("starting".into()).spawn(move || {
            for (mut command, done) in taken {
                let _ = done.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (done, child) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the thread that starts programs is not there");
    starter.lock().unwrap_or_else(PoisonError::into_inner).send((command, done)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// Ends the process now, with that exit code, whatever other threads do: nothing is dropped, and no library that is in use is
/// taken apart under the threads that use it.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: POSIX has it so; it does not return, and may be called from any thread.
    unsafe { libc::_exit(code) }
}
