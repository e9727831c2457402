//! Asking for memory before it is needed.
//!
//! A shard's job records, names and executions are far larger than any cache, and which of them a turn needs is known a little
//! ahead: from the wheel, the ready queue, and the frames that were read. Asking for them together lets their misses overlap; an
//! ordinary read would do that too, but holds up everything behind it once a few hundred instructions wait.
//!
//! A prefetch is a hint: it reads nothing, changes nothing and cannot fail. Elsewhere than on x86-64 it does nothing.

#![expect(unsafe_code, reason = "the intrinsic takes a raw pointer")]

const LINE_BYTES: usize = 64;

/// Asks for the cache lines of `value`.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    lines(std::ptr::from_ref(value).cast(), size_of::<T>());
}

/// Asks for the cache lines of `bytes`.
#[inline]
pub(crate) fn prefetch_bytes(bytes: &[u8]) {
    lines(bytes.as_ptr().cast(), bytes.len());
}

#[inline]
fn lines(begin: *const i8, bytes: usize) {
    for offset in (0..bytes).step_by(LINE_BYTES) {
        line(begin.wrapping_add(offset));
    }
    line(begin.wrapping_add(bytes.saturating_sub(1)));
}

#[inline]
fn line(address: *const i8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch never faults, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}
