//! The one module that may be `unsafe`: what Rust cannot promise about the process that we run in.

#![allow(unsafe_code)]

/// Tells every version of ONNX Runtime that collects telemetry not to. Has to run before the library is opened.
pub(super) fn forbid_telemetry() {
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

/// Lets go of the memory that holds `bytes`, whole pages of the program's own read-only file; what is read again later
/// comes from the file.
pub(super) fn release_static(bytes: &'static [u8]) {
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
