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
    let maps = std::fs::read_to_string("/proc/self/smaps").context(Class::Refused, "read our mappings")?;
    for (from, to) in clean_parts(&maps, &program.to_string_lossy()) {
        // SAFETY: the range is a mapping of the program's file that nobody can write to and of which no page differs
        // from the file, so every page of it can be read from the file again.
        let done = unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
        nix::errno::Errno::result(done).context(Class::Refused, "unmap unused code")?;
    }
    Ok(())
}

/// The addresses of the mappings of the program's file that cannot be written to and hold nothing but what is in the
/// file: code and constants, but not what was relocated. (`/proc/self/smaps`, proc_pid_smaps(5))
fn clean_parts(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    let mut is_ours = false;
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else { continue };
        if let Some(range) = range(first) {
            is_ours = second.starts_with("r-") && words.nth(3) == Some(program);
            parts.extend(is_ours.then_some(range));
        } else if is_ours && matches!(first, "Private_Dirty:" | "Shared_Dirty:" | "Swap:") && second != "0" {
            parts.pop();
            is_ours = false;
        }
    }
    parts
}

/// `5000-7000`
fn range(text: &str) -> Option<(usize, usize)> {
    let (from, to) = text.split_once('-')?;
    Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_is_let_go() {
        let part = |range, permissions, path, dirty, swapped| {
            format!(
                "{range} {permissions} 00001000 fe:00 1234   {path}\nRss: 8 kB\nShared_Dirty: 0 kB\n\
                 Private_Dirty: {dirty} kB\nSwap: {swapped} kB\nVmFlags: rd mr mw me\n"
            )
        };
        let maps = [
            part("1000-2000", "r--p", "/usr/bin/gantry", 0, 0),
            part("2000-3000", "r-xp", "/usr/bin/gantry", 0, 0),
            part("3000-4000", "r--p", "/usr/bin/gantry", 4, 0),
            part("4000-5000", "r--p", "/usr/bin/gantry", 0, 4),
            part("5000-6000", "rw-p", "/usr/bin/gantry", 0, 0),
            part("6000-7000", "r-xp", "/lib/libc.so.6", 0, 0),
            part("7000-8000", "rw-p", "", 0, 0),
        ];
        let parts = clean_parts(&maps.concat(), "/usr/bin/gantry");
        assert_eq!(parts, [(0x1000, 0x2000), (0x2000, 0x3000)]);
        trim().expect("this program's code can be let go");
        trim().expect("and again");
    }
}
