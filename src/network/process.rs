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
