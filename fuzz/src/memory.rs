//! The system's allocator, with a limit for each input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Limited;

#[global_allocator]
static ALLOCATOR: Limited = Limited;

/// Bytes that are allocated, and how many may be.
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Allows so many bytes from now on, beside those that are allocated already.
pub(crate) fn limit(bytes: usize) {
    MOST.store(HELD.load(Relaxed).saturating_add(bytes), Relaxed);
}

/// Counts bytes that are to be allocated, unless they are too many.
fn take(bytes: usize) -> bool {
    let is_within = HELD.load(Relaxed).saturating_add(bytes) <= MOST.load(Relaxed);
    if is_within {
        HELD.fetch_add(bytes, Relaxed);
    }
    is_within
}

fn give(bytes: usize) {
    HELD.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged, or fails.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        if take(layout.size()) { unsafe { System.alloc(layout) } } else { null_mut() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        if take(layout.size()) { unsafe { System.alloc_zeroed(layout) } } else { null_mut() }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !take(size.saturating_sub(layout.size())) {
            return null_mut();
        }
        give(layout.size().saturating_sub(size));
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        give(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) };
    }
}
