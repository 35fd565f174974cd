//! How the C library copies memory.
//!
//! On AMD processors that say "fast short REP MOV" (Zen 3 and later) glibc before 2.40 copies everything above 2 KiB with
//! `rep movsb`, which is several times slower than its vector loop unless both ends are aligned alike: [glibc bug 30994].
//! A server copies its objects into records of TLS all day; LIST of 22 MB costs it 36 ms of processor time instead of 28.
//! glibc reads the threshold from the environment, before `main`: so the process becomes itself once more, with the
//! variable set. Whoever sets the tunable is left alone.
//!
//! [glibc bug 30994]: https://sourceware.org/bugzilla/show_bug.cgi?id=30994

use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// `ld.so`'s tunables, see ld.so(8).
const VARIABLE: &str = "GLIBC_TUNABLES";
/// From how many bytes on `rep movsb` is used.
const TUNABLE: &str = "glibc.cpu.x86_rep_movsb_threshold";
/// More than anybody copies at once.
const NEVER: u64 = 1 << 40;

/// Starts the program again in this process, if it has to and can: then this does not return.
pub(crate) fn choose() {
    let set = std::env::var(VARIABLE).unwrap_or_default();
    let Some(wanted) = wanted(&Processor::here(), &set) else { return };
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // It goes on as it is, only slower, where that is not allowed.
    let _refused = command.args(arguments).env(VARIABLE, wanted).exec();
}

/// What a processor says of itself (CPUID).
struct Processor {
    vendor: [u8; 12],
    /// Fast short REP MOV.
    fsrm: bool,
}

impl Processor {
    fn here() -> Self {
        let about = __cpuid(0);
        let mut vendor = [0; 12];
        for (part, word) in vendor.chunks_exact_mut(4).zip([about.ebx, about.edx, about.ecx]) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        let fsrm = about.eax >= 7 && __cpuid_count(7, 0).edx & 1 << 4 != 0;
        Self { vendor, fsrm }
    }
}

/// What the variable is to say on such a processor; `None` if that is fine as it is.
fn wanted(processor: &Processor, set: &str) -> Option<String> {
    let slow = processor.fsrm && processor.vendor == *b"AuthenticAMD";
    if !slow || set.contains(TUNABLE) {
        return None;
    }
    let ours = format!("{TUNABLE}={NEVER}");
    Some(if set.is_empty() { ours } else { format!("{set}:{ours}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEN: Processor = Processor { vendor: *b"AuthenticAMD", fsrm: true };

    #[test]
    fn only_processors_that_are_slow_at_it_are_told() {
        let ours = "glibc.cpu.x86_rep_movsb_threshold=1099511627776";
        assert_eq!(wanted(&ZEN, "").as_deref(), Some(ours));
        assert_eq!(wanted(&Processor { fsrm: false, ..ZEN }, ""), None);
        assert_eq!(wanted(&Processor { vendor: *b"GenuineIntel", ..ZEN }, ""), None);
    }

    #[test]
    fn what_is_set_stays() {
        let other = "glibc.malloc.check=1";
        let both = "glibc.malloc.check=1:glibc.cpu.x86_rep_movsb_threshold=1099511627776";
        assert_eq!(wanted(&ZEN, other).as_deref(), Some(both));
        assert_eq!(wanted(&ZEN, both), None, "the second time is the last");
        assert_eq!(wanted(&ZEN, "glibc.cpu.x86_rep_movsb_threshold=4096"), None);
    }
}
