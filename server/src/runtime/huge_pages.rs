//! Memory in huge pages for what a shard's tables grow by.
//!
//! A shard reads the record of one job, then that of another somewhere else in hundreds of megabytes: with pages of 4 KiB nearly
//! every such read first waits for a walk of the page tables, which a prefetch cannot hide. The tables grow by blocks of a few sizes
//! ([`BLOCK_BYTES`]), so blocks of just these sizes are cut from regions of 2 MiB that ask the kernel for one huge page each
//! (`MADV_HUGEPAGE`, honoured while transparent huge pages are `madvise` or `always`). Large allocations ask for huge pages too.
//!
//! The first touch of a huge page costs its thread 0.1 ms, and in a virtual machine whose host has to find the memory 6 ms: a shard would
//! stand still. So a helper ([`keep_stock`]) touches the next few regions ahead.
//!
//! Invariants: whether a block is one of these is told by its size and alignment alone; a block that was given back serves the
//! next of its size; without a helper, or when it falls behind, blocks come all the same. Deliberately absent: giving memory back to
//! the kernel (tables seldom shrink), and every other size, which the system's allocator serves.
#![expect(unsafe_code, reason = "it maps memory and links free blocks through themselves")]

use super::sys;
use std::{
    alloc::Layout,
    io,
    ptr::{null_mut, without_provenance_mut},
    sync::{Condvar, Mutex, MutexGuard, Once, PoisonError},
    thread,
};
use tickwheel_engine::BLOCK_BYTES;

const PAGE_BYTES: usize = 4 << 10;
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Other allocations of at least this many bytes ask for huge pages.
const LARGE_BYTES_MIN: usize = 2 * HUGE_PAGE_BYTES;

/// The blocks of one size.
#[derive(Debug)]
struct Blocks {
    /// The first free block, which holds the address of the next; 0: none.
    free: usize,
    /// What was not given out yet of the newest region.
    fresh: usize,
    fresh_end: usize,
}

static BLOCKS: [Mutex<Blocks>; BLOCK_BYTES.len()] =
    [const { Mutex::new(Blocks { free: 0, fresh: 0, fresh_end: 0 }) }; BLOCK_BYTES.len()];

/// Regions that are kept ready: enough for 60,000 new jobs while the next is made.
const STOCK_REGIONS: usize = 2;

/// Regions that are mapped and in memory.
#[derive(Debug)]
struct Stock {
    regions: [usize; STOCK_REGIONS],
    count: usize,
    /// A program without tables needs no stock: it is filled once the first region was asked for.
    is_wanted: bool,
}

static STOCK: Mutex<Stock> = Mutex::new(Stock { regions: [0; STOCK_REGIONS], count: 0, is_wanted: false });
/// [`STOCK`] may have room for its helper.
static STOCK_CALLS: Condvar = Condvar::new();

/// Starts the thread that keeps regions ready, on `cores`, unless it runs already. It lives as long as the process.
///
/// # Errors
/// When the system refuses a thread.
pub fn keep_stock(cores: &[usize]) -> io::Result<()> {
    static STARTED: Once = Once::new();
    let mut result = Ok(());
    STARTED.call_once(|| {
        let cores = cores.to_vec();
        let work = move || {
            // Where that is refused it runs anywhere.
            let _ = sys::run_on(&cores);
            loop {
                wait_for_room();
                // No memory left: who needs the next region learns it as well.
                let Some(region) = map_region() else { return };
                populate(region);
                add_to_stock(region);
            }
        };
        result = thread::Builder::new().name("tw-memory".into()).spawn(work).map(drop);
    });
    result
}

/// Waits until a region can be added, which only the helper does.
fn wait_for_room() {
    let has_no_room = |stock: &mut Stock| !stock.is_wanted || stock.count == STOCK_REGIONS;
    drop(STOCK_CALLS.wait_while(stock(), has_no_room).unwrap_or_else(PoisonError::into_inner));
}

fn add_to_stock(region: usize) {
    let mut stock = stock();
    let count = stock.count;
    stock.regions[count] = region;
    stock.count += 1;
}

/// A region: one that is ready if there is one.
fn take_region() -> Option<usize> {
    let mut stock = stock();
    stock.is_wanted = true;
    let ready = stock.count.checked_sub(1).map(|last| {
        stock.count = last;
        stock.regions[last]
    });
    drop(stock);
    STOCK_CALLS.notify_one();
    ready.or_else(map_region)
}

fn stock() -> MutexGuard<'static, Stock> {
    STOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which of the sizes `layout` is, if it is one.
#[inline]
pub(super) fn class_of(layout: Layout) -> Option<usize> {
    // Most allocations are small.
    if layout.size() < BLOCK_BYTES[0] || layout.align() > PAGE_BYTES {
        return None;
    }
    BLOCK_BYTES.iter().position(|bytes| *bytes == layout.size())
}

/// A block of a size that [`class_of`] named; null if there is no memory. Its contents are arbitrary.
pub(super) fn allocate(class: usize) -> *mut u8 {
    let bytes = BLOCK_BYTES[class];
    let mut blocks = BLOCKS[class].lock().unwrap_or_else(PoisonError::into_inner);
    if blocks.free != 0 {
        let block = blocks.free;
        // SAFETY: a free block is ours alone, mapped, aligned to a page, and holds the next one's address.
        blocks.free = unsafe { std::ptr::with_exposed_provenance::<usize>(block).read() };
        return std::ptr::with_exposed_provenance_mut(block);
    }
    if blocks.fresh_end - blocks.fresh < bytes {
        let Some(region) = take_region() else { return null_mut() };
        (blocks.fresh, blocks.fresh_end) = (region, region + HUGE_PAGE_BYTES);
    }
    let block = blocks.fresh;
    blocks.fresh += bytes;
    std::ptr::with_exposed_provenance_mut(block)
}

/// Takes a block back.
///
/// # Safety
/// `block` came from [`allocate`] with the same class and is not used any more.
pub(super) unsafe fn deallocate(class: usize, block: *mut u8) {
    let mut blocks = BLOCKS[class].lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the block is at least a page, aligned to one, and nobody else's.
    unsafe { block.cast::<usize>().write(blocks.free) };
    blocks.free = block.expose_provenance();
}

/// Asks for huge pages for an allocation that the system's allocator served, if it is large.
#[inline]
pub(super) fn advise_if_large(block: *mut u8, bytes: usize) {
    if bytes >= LARGE_BYTES_MIN && !block.is_null() {
        let begin = block.addr().next_multiple_of(HUGE_PAGE_BYTES);
        advise(begin, (block.addr() + bytes - begin) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES);
    }
}

/// Maps one huge page's worth, aligned to it.
fn map_region() -> Option<usize> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping concerns no memory in use.
    let mapped = unsafe { libc::mmap(null_mut(), 2 * HUGE_PAGE_BYTES, protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return None;
    }
    let begin = mapped.expose_provenance();
    let region = begin.next_multiple_of(HUGE_PAGE_BYTES);
    unmap(begin, region - begin);
    unmap(region + HUGE_PAGE_BYTES, begin + HUGE_PAGE_BYTES - region);
    advise(region, HUGE_PAGE_BYTES);
    Some(region)
}

/// Gives a part of a new mapping back that is not needed.
fn unmap(begin: usize, bytes: usize) {
    if bytes > 0 {
        // SAFETY: the caller has just mapped it and nothing lies there. If it fails the part stays mapped, unused.
        unsafe { libc::munmap(without_provenance_mut(begin), bytes) };
    }
}

/// Touches every page of a region, so that the kernel finds and clears its memory now. One by one, for the kernel's call that
/// populates memory would hold up the mappings of other threads meanwhile.
fn populate(region: usize) {
    for page in (region..region + HUGE_PAGE_BYTES).step_by(PAGE_BYTES) {
        // SAFETY: the page is mapped, writable, and nobody else knows the region yet.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(page).write_volatile(0) };
    }
}

fn advise(begin: usize, bytes: usize) {
    // SAFETY: this advice changes no contents, and is about memory that is mapped and ours. Without huge pages all goes on, slower.
    unsafe { libc::madvise(without_provenance_mut(begin), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn blocks_do_not_overlap_and_serve_again() {
        let class = 0;
        let count = 3 * HUGE_PAGE_BYTES / BLOCK_BYTES[class];
        let mut blocks: Vec<*mut u8> = (0..count).map(|_| allocate(class)).collect();
        for (number, block) in (0..=250_u8).cycle().zip(blocks.iter().copied()) {
            assert!(block.addr().is_multiple_of(PAGE_BYTES));
            // SAFETY: the block has this many bytes.
            unsafe { block.write_bytes(number, BLOCK_BYTES[class]) };
        }
        for (number, block) in (0..=250_u8).cycle().zip(blocks.iter().copied()) {
            // SAFETY: it was written above.
            let bytes = unsafe { std::slice::from_raw_parts(block, BLOCK_BYTES[class]) };
            assert!(bytes.iter().all(|byte| *byte == number));
        }
        // SAFETY: they came from `allocate` and are not used below.
        blocks.iter().for_each(|block| unsafe { deallocate(class, *block) });
        let mut again: Vec<*mut u8> = (0..count).map(|_| allocate(class)).collect();
        blocks.sort_unstable();
        again.sort_unstable();
        assert_eq!(again, blocks);
    }

    #[test]
    fn the_stock_is_filled_again_and_serves_regions_that_are_in_memory() {
        keep_stock(&[]).unwrap();
        for _ in 0..2 * STOCK_REGIONS {
            let region = take_region().unwrap();
            let until = Instant::now() + Duration::from_secs(30);
            while stock().count < STOCK_REGIONS {
                assert!(Instant::now() < until, "nobody fills the stock");
                thread::yield_now();
            }
            let next = stock().regions[STOCK_REGIONS - 1];
            assert_ne!(next, region);
            assert_eq!(resident_pages(next), HUGE_PAGE_BYTES / PAGE_BYTES);
        }
    }

    /// How many pages of a region are in memory.
    fn resident_pages(region: usize) -> usize {
        let mut pages = [0_u8; HUGE_PAGE_BYTES / PAGE_BYTES];
        let begin = std::ptr::with_exposed_provenance_mut(region);
        // SAFETY: the region is mapped, and there is a byte for each of its pages.
        let result = unsafe { libc::mincore(begin, HUGE_PAGE_BYTES, pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn only_the_sizes_of_the_tables_are_served() {
        let layout = |bytes, align| Layout::from_size_align(bytes, align).unwrap();
        for (class, bytes) in BLOCK_BYTES.into_iter().enumerate() {
            assert_eq!(class_of(layout(bytes, 8)), Some(class));
            assert_eq!(class_of(layout(bytes + 8, 8)), None);
            assert_eq!(class_of(layout(bytes, 2 * PAGE_BYTES)), None);
        }
        assert_eq!(class_of(layout(64, 8)), None);
    }
}
