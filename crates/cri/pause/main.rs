//! The process that holds a pod sandbox's namespaces: it waits, reaps what is given to it as process 1 of a
//! shared PID namespace, and ends on SIGINT or SIGTERM. No libc and no heap, so that it costs one page or two.
//!
//! The signals are blocked and then waited for: a blocked signal reaches even process 1, which the kernel
//! otherwise shields from signals without a handler.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

const SIGINT: i64 = 2;
const SIGTERM: i64 = 15;
const SIGCHLD: i64 = 17;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
/// The size of the kernel's signal set in bytes.
const SIGNAL_SET_BYTES: usize = 8;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const SIGPROCMASK: usize = 14;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const WAIT4: usize = 61;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const WAIT4: usize = 260;
    pub const EXIT_GROUP: usize = 94;
}

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {main}", "ud2", main = sym main);

#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x30, #0", "bl {main}", "brk #1", main = sym main);

#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> i64 {
    let result: i64;
    // SAFETY: the kernel keeps every register but rax, rcx and r11; the caller answers for the arguments.
    unsafe {
        asm!("syscall", inlateout("rax") number as i64 => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> i64 {
    let result: i64;
    // SAFETY: the kernel keeps every register but x0; the caller answers for the arguments.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a as i64 => result, in("x1") b, in("x2") c,
             in("x3") d, options(nostack));
    }
    result
}

extern "C" fn main() -> ! {
    let signals: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
    let set = &raw const signals as usize;
    // SAFETY: the set outlives the calls, and null stands for "not wanted" in all of them.
    unsafe { syscall(number::SIGPROCMASK, SIG_BLOCK, set, 0, SIGNAL_SET_BYTES) };
    loop {
        // SAFETY: as above.
        match unsafe { syscall(number::SIGTIMEDWAIT, set, 0, 0, SIGNAL_SET_BYTES) } {
            // SAFETY: exits.
            SIGINT | SIGTERM => unsafe {
                syscall(number::EXIT_GROUP, 0, 0, 0, 0);
            },
            // One signal may stand for many children.
            // SAFETY: asks for no status and no usage.
            SIGCHLD => while unsafe { syscall(number::WAIT4, usize::MAX, 0, WNOHANG, 0) } > 0 {},
            _ => {}
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
