//! An allocator that counts, per thread, how often memory was asked for, and places the blocks of the core's tables in huge pages.
//!
//! The hot path of a shard allocates nothing per execution; this makes that a number that the load generator prints.
//! Invariants: counting never allocates (a thread-local without destructor) and costs one increment. Deliberately
//! absent: bytes, frees, call sites; a profiler answers those.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait; every call goes on to one of those below")]

use super::huge_pages::{advise_if_large, allocate, class_of, deallocate};
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

/// The system's allocator, and huge pages for the blocks of the core's tables, counted. Made to be the `#[global_allocator]` of a binary.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

#[inline]
fn count() {
    // A thread that is being torn down is not counted any more.
    let _ = COUNT.try_with(|count| count.set(count.get().wrapping_add(1)));
}

// SAFETY: every method forwards its arguments unchanged to `System`, which upholds the contract, or to the blocks in huge pages,
// which are as long as their class says and aligned to pages. Which of the two a layout belongs to never changes.
unsafe impl GlobalAlloc for CountingAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        if let Some(class) = class_of(layout) {
            return allocate(class);
        }
        // SAFETY: the caller's promises are those that `System` asks for.
        let block = unsafe { System.alloc(layout) };
        advise_if_large(block, layout.size());
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        if let Some(class) = class_of(layout) {
            let block = allocate(class);
            if !block.is_null() {
                // SAFETY: the block is as long as the layout says.
                unsafe { block.write_bytes(0, layout.size()) };
            }
            return block;
        }
        // SAFETY: the caller's promises are those that `System` asks for.
        let block = unsafe { System.alloc_zeroed(layout) };
        advise_if_large(block, layout.size());
        block
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match class_of(layout) {
            // SAFETY: a block of this layout came from `allocate`, and the caller gives it up.
            Some(class) => unsafe { deallocate(class, pointer) },
            // SAFETY: the caller's promises are those that `System` asks for, and all other memory comes from `System`.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is valid for the alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_bytes, layout.align()) };
        if class_of(layout).is_none() && class_of(new_layout).is_none() {
            count();
            // SAFETY: the caller's promises are those that `System` asks for, and the memory comes from `System`.
            return unsafe { System.realloc(pointer, layout, new_bytes) };
        }
        // SAFETY: the caller's promises are those of the calls below; the blocks are distinct and at least as long as what is copied.
        unsafe {
            let block = self.alloc(new_layout);
            if !block.is_null() {
                pointer.copy_to_nonoverlapping(block, layout.size().min(new_bytes));
                self.dealloc(pointer, layout);
            }
            block
        }
    }
}
