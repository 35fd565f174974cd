//! Waiting for something that another process does.

use std::time::Duration;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);

/// Looks again and again until `look` returns something; `what` says what was waited for.
///
/// # Panics
/// It did not happen within [`PATIENCE`]: with the last thing that was seen instead.
#[expect(clippy::disallowed_methods, reason = "other processes' progress can only be looked at")]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = std::time::Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if start.elapsed() > PATIENCE => {
                panic!("{what}: not after {PATIENCE:?}; last seen: {seen}")
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}
