//! The only module that may use `unsafe`: calls that affect the whole process.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};

use crate::setting::SANDBOX;
use rustix::process::{
    Resource, Signal, getpid, getppid, set_parent_process_death_signal, setrlimit,
};

/// Turns off telemetry in every version of ONNX Runtime that has it, by environment variables.
/// Must be called before the library is opened, which does it, too. A plugin that loads the library
/// late, when threads of its host exist, calls it when it is loaded itself.
pub fn forbid_telemetry() {
    for name in ["ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"] {
        if std::env::var_os(name).is_some_and(|value| value == "1") {
            continue;
        }
        // SAFETY: changing the environment races only with other threads that read it through libc.
        // This runs once, under the lock of `Runtime::load`, before any thread of ours or of ONNX
        // Runtime exists; the documentation of `Runtime::load` asks the same of its caller.
        unsafe { std::env::set_var(name, "1") };
    }
}

/// Whether standard output was closed when the program was started. The runtime of Rust opens
/// `/dev/null` in its place before `main`, and a result would be lost there without an error.
pub fn is_stdout_closed() -> bool {
    STDOUT_CLOSED.load(Ordering::Relaxed)
}

static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Runs before the runtime of Rust does.
#[used]
// SAFETY: the linker takes this section for a list of functions to call at start, and this is one.
#[unsafe(link_section = ".init_array")]
static CHECK_STDOUT: extern "C" fn() = {
    extern "C" fn look() {
        // SAFETY: `fcntl` reads the flags of a descriptor by its number, open or not.
        let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
        STDOUT_CLOSED.store(flags == -1, Ordering::Relaxed);
    }
    look
};

/// Makes a write beyond `ulimit -f` fail with an error instead of killing the process. Call it at
/// program start; child processes inherit it.
pub fn ignore_file_size_signal() {
    // SAFETY: no handler is set, so that no code of ours ever runs in a signal; ignoring one
    // touches no memory.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // It fails only for signals that do not exist.
    let _ = before;
}

/// Ends the process with a message and exit code 1 at SIGFPE, which ONNX Runtime raises when a
/// network divides an integer by zero, or the smallest by -1. Call it at program start.
pub fn report_integer_division() {
    extern "C" fn report(_: libc::c_int) {
        let message = b"eddy: the network failed: it divides an integer by zero, or the smallest \
                      integer by -1; take another model\n";
        // SAFETY: `write` and `_exit` may be called in a signal handler, and the buffer is as long
        // as it says.
        unsafe {
            libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
            libc::_exit(1);
        }
    }
    let handler: extern "C" fn(libc::c_int) = report;
    // SAFETY: the handler calls nothing that is not safe in a signal handler, and touches no memory
    // but its constant.
    let before = unsafe { libc::signal(libc::SIGFPE, handler as libc::sighandler_t) };
    // It fails only for signals that do not exist.
    let _ = before;
}

/// Runs `listen`, which installs signal handlers. SIGHUP stays ignored if it was ignored before, as
/// under `nohup`.
pub fn install_signal_handler(listen: impl FnOnce()) {
    // SAFETY: as in `ignore_file_size_signal`; the handler that is put back is the previous one.
    let before = unsafe {
        let before = libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, before);
        before
    };
    listen();
    if before == libc::SIG_IGN {
        // SAFETY: as above.
        let handler = unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        // It fails only for signals that do not exist.
        let _ = handler;
    }
}

/// Releases the memory of `bytes`, whole pages of the program's own read-only file. Later reads
/// load them from the file.
pub(crate) fn release_static(bytes: &'static [u8]) {
    let page = rustix::param::page_size();
    let start = bytes.as_ptr().addr().next_multiple_of(page);
    let end = (bytes.as_ptr().addr() + bytes.len()) / page * page;
    if start < end {
        let pointer = bytes.as_ptr().with_addr(start).cast_mut().cast();
        // SAFETY: the pages lie inside a static that nothing can write to. It is a private mapping
        // of a file that is never written, so later reads give equal bytes.
        let released =
            unsafe { rustix::mm::madvise(pointer, end - start, rustix::mm::Advice::LinuxDontNeed) };
        // If the kernel refuses, the memory stays in use; nothing else depends on it.
        let _ = released;
    }
}

/// A command to start, and where to send its child.
type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts a child in its own process group. The kernel kills the child when this process ends,
/// unless it `outlives` this process, as an encoder does that reads our output to its end.
///
/// The child is free of [`limit_allocations`](super::limit_allocations). The kernel sends the
/// signal when the thread that started the child ends (`PR_SET_PDEATHSIG`), so a permanent thread
/// starts it. When this process is killed, the child may get the signal several times, once for
/// each thread that becomes its parent, so only SIGKILL is reliable.
///
/// # Errors
/// As [`Command::spawn`].
pub(crate) fn spawn(mut command: Command, outlives: bool) -> io::Result<Child> {
    static SPAWN_THREAD: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    if super::IS_CONFINED.load(Ordering::Relaxed) {
        return Err(io::Error::other(format!("{SANDBOX} lets it start no other program")));
    }
    let parent = getpid();
    command.process_group(0);
    let limits = super::UNLIMITED.get().copied();
    // SAFETY: between fork and exec only system calls that take and allocate nothing run in the
    // child.
    unsafe {
        command.pre_exec(move || {
            if let Some(limits) = limits {
                setrlimit(Resource::Data, limits)?;
            }
            if outlives {
                return Ok(());
            }
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have ended before that.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from(io::ErrorKind::NotConnected))
            }
        });
    }
    let starter = SPAWN_THREAD.get_or_init(|| {
        let (orders, taken) = mpsc::channel::<Order>();
        // If the thread cannot start, every request returns an error.
        let _ = std::thread::Builder::new().name("starting".into()).spawn(move || {
            for (mut command, done) in taken {
                let _ = done.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (done, child) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the thread that starts programs has ended");
    starter
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, done))
        .map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// The system's allocator, for a program's `#[global_allocator]`. When memory runs out, it says so
/// and ends the process with exit code 1, where Rust would abort.
#[derive(Debug)]
pub struct ExitOutOfMemory;

thread_local! {
    /// Whether this thread handles a failed allocation itself.
    static HANDLES_FAILED_ALLOCATION: Cell<bool> = const { Cell::new(false) };
}

/// Runs `reserve`, which handles failures of allocations itself.
pub(crate) fn try_to_allocate<T>(reserve: impl FnOnce() -> T) -> T {
    HANDLES_FAILED_ALLOCATION.set(true);
    let reserved = reserve();
    HANDLES_FAILED_ALLOCATION.set(false);
    reserved
}

fn checked(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() && !HANDLES_FAILED_ALLOCATION.get() {
        end_out_of_memory();
    }
    pointer
}

fn end_out_of_memory() -> ! {
    let message =
        b"eddy: there is not enough memory; raise --max-memory or the system's limit, or \
                    take smaller images\n";
    // SAFETY: the buffer is as long as it says, and nothing allocates.
    let written =
        unsafe { libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len()) };
    // Without standard error, the exit code has to suffice.
    let _ = written;
    exit_at_once(1);
}

/// Ends the process with a message and exit code 1 where Rust's runtime panics in a new thread,
/// for whose signal stack there is no memory. Call it at program start.
pub fn report_missing_stacks() {
    let report_panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str().is_some_and(|text| text.contains("allocate an alternative stack"))
        {
            end_out_of_memory();
        }
        report_panic(panic);
    }));
}

// SAFETY: every call is passed on to the system's allocator with the caller's arguments.
unsafe impl GlobalAlloc for ExitOutOfMemory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller assures.
        checked(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller assures.
        checked(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller assures.
        checked(unsafe { System.realloc(pointer, layout, size) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller assures.
        unsafe { System.dealloc(pointer, layout) };
    }
}

/// Ends the process at once with that exit code, whatever other threads do. Nothing is dropped, and
/// libraries are not unloaded under the threads that use them.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: POSIX allows `_exit` on any thread; it does not return.
    unsafe { libc::_exit(code) }
}
