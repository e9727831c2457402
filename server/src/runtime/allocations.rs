//! An allocator that counts, per thread, how often memory was asked for.
//!
//! The hot path of a shard allocates nothing per execution; this makes that a number that the load generator prints.
//! Invariants: counting never allocates (a thread-local without destructor) and costs one increment. Deliberately
//! absent: bytes, frees, call sites; a profiler answers those.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait; every call goes straight to the one below")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Allocations and re-allocations by the calling thread so far; zero unless [`CountingAllocator`] is the program's
/// global allocator.
#[inline]
pub fn on_this_thread() -> u64 {
    COUNT.try_with(Cell::get).unwrap_or(0)
}

/// The system's allocator, counted. Made to be the `#[global_allocator]` of a binary.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

#[inline]
fn count() {
    // A thread that is being torn down is not counted any more.
    let _ = COUNT.try_with(|count| count.set(count.get().wrapping_add(1)));
}

// SAFETY: every method forwards its arguments unchanged to `System`, which upholds the contract.
unsafe impl GlobalAlloc for CountingAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those that `System` asks for, and all memory comes from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` asks for, and all memory comes from `System`.
        unsafe { System.realloc(pointer, layout, new_bytes) }
    }
}
