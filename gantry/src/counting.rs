//! Counts what the process allocates and copies, for the benchmark row `allocations`; only built with the feature
//! `counting`, as it costs a little.
//!
//! The counts are three numbers of 64 bits in the file that `GANTRY_COUNTS` names, which a reader may look at any time:
//! allocations, bytes asked for, and bytes that `memcpy` and `memmove` copied. Copies so short that the compiler writes
//! them out are not among them.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::asm;
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use gantry_base::error::Context;
use gantry_base::{Class, Result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

/// Allocations, bytes asked for, bytes copied.
type Counts = [AtomicU64; 3];

/// Where counts go that nobody reads.
static NOWHERE: Counts = [const { AtomicU64::new(0) }; 3];
static COUNTS: AtomicPtr<Counts> = AtomicPtr::new((&raw const NOWHERE).cast_mut());

fn count(which: usize, by: usize) {
    // SAFETY: it points to a static, or to a mapping that is never taken away.
    let counts = unsafe { &*COUNTS.load(Ordering::Relaxed) };
    counts[which].fetch_add(by as u64, Ordering::Relaxed);
}

/// Lets the counts go where `GANTRY_COUNTS` says.
///
/// # Errors
/// The file cannot be made or mapped.
pub fn begin() -> Result<()> {
    let Some(path) = std::env::var_os("GANTRY_COUNTS") else { return Ok(()) };
    let file = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(path)?;
    file.set_len(size_of::<Counts>() as u64)?;
    let length = NonZeroUsize::new(size_of::<Counts>()).expect("three counts");
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a mapping of its own, which stays to the end of the process.
    let mapped = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, &file, 0) };
    COUNTS.store(mapped.context(Class::Refused, "map GANTRY_COUNTS")?.cast().as_ptr(), Ordering::Relaxed);
    Ok(())
}

/// The usual allocator, which counts.
pub struct Counting;

impl Counting {
    fn note(bytes: usize) {
        count(0, 1);
        count(1, bytes);
    }
}

// SAFETY: everything is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size());
        // SAFETY: as the caller promises.
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size());
        // SAFETY: as the caller promises.
        unsafe { mimalloc::MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::note(size.saturating_sub(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { mimalloc::MiMalloc.realloc(pointer, layout, size) }
    }
}

// The linker takes these two before those of the C library.

/// `memcpy(3)`
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, length: usize) -> *mut c_void {
    count(2, length);
    // SAFETY: the caller promises that both are valid for that length and do not overlap.
    unsafe { forward(to, from, length) };
    to
}

/// `memmove(3)`
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, length: usize) -> *mut c_void {
    count(2, length);
    if to.addr().wrapping_sub(from.addr()) >= length {
        // SAFETY: the caller promises that both are valid for that length; nothing is overwritten before it is read.
        unsafe { forward(to, from, length) };
        return to;
    }
    let last = length - 1;
    // SAFETY: the same from the end; the direction flag is put back.
    unsafe {
        asm!("std", "rep movsb", "cld",
            inout("rcx") length => _,
            inout("rdi") to.cast::<u8>().wrapping_add(last) => _,
            inout("rsi") from.cast::<u8>().wrapping_add(last) => _,
            options(nostack));
    }
    to
}

unsafe fn forward(to: *mut c_void, from: *const c_void, length: usize) {
    // SAFETY: the caller promises that both are valid for that length.
    unsafe {
        asm!("rep movsb", inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
}
