//! Lets go of the code that nobody runs any more.
//!
//! Most of the program's code is only needed at the start or seldom, but stays mapped, and counts as our memory, until
//! the machine is short of it. Unmapping costs nothing: the kernel keeps the file's pages as long as it has room, and
//! maps those that are still in use again at once.

use std::time::Duration;

use gantry_base::Tasks;
use gantry_base::error::Context;
use gantry_base::{Class, Result};

/// What the start left to do is done after this.
const FIRST: Duration = Duration::from_secs(8);
const PERIOD: Duration = Duration::from_secs(600);

/// Does so now and then, until `tasks` end.
pub fn start(tasks: &Tasks) {
    tasks.spawn("trim", async {
        let mut pause = FIRST;
        loop {
            tokio::time::sleep(pause).await;
            pause = PERIOD;
            if let Err(error) = trim() {
                tracing::debug!(%error, "unused code cannot be unmapped");
            }
        }
    });
}

fn trim() -> Result<()> {
    let program = std::env::current_exe().context(Class::Refused, "find this binary")?;
    let maps = std::fs::read_to_string("/proc/self/maps").context(Class::Refused, "read our mappings")?;
    for line in maps.lines() {
        let Some((from, to)) = code_of(line, &program.to_string_lossy()) else { continue };
        // SAFETY: the range is a mapping of the program's file that nobody can write to, so every page of it can be
        // read from the file again.
        let done = unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
        nix::errno::Errno::result(done).context(Class::Refused, "unmap unused code")?;
    }
    Ok(())
}

/// The addresses of a mapping of the program's code: a line of proc_pid_maps(5).
fn code_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    if permissions != "r-xp" || fields.nth(3)? != program {
        return None;
    }
    let (from, to) = range.split_once('-')?;
    Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_code_is_let_go() {
        let line = |permissions, path| format!("5000-7000 {permissions} 00001000 fe:00 1234   {path}");
        assert_eq!(code_of(&line("r-xp", "/usr/bin/gantry"), "/usr/bin/gantry"), Some((0x5000, 0x7000)));
        assert_eq!(code_of(&line("r--p", "/usr/bin/gantry"), "/usr/bin/gantry"), None);
        assert_eq!(code_of(&line("r-xp", "/lib/libc.so.6"), "/usr/bin/gantry"), None);
        assert_eq!(code_of("5000-7000 r-xp 00000000 00:00 0", "/usr/bin/gantry"), None);
        trim().expect("this program's code can be let go");
        trim().expect("and again");
    }
}
