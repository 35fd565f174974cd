//! `/healthz`, `/livez`, `/readyz`.

use std::fmt::Write as _;

use parking_lot::RwLock;

/// A check: fine, or what is wrong.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks of a server.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<(String, Check)>>,
}

impl Health {
    /// Makes readiness depend on `check` as well.
    pub fn add(&self, name: impl Into<String>, check: Check) {
        self.checks.write().push((name.into(), check));
    }

    /// The answer of `/readyz` (also of the other two, which know no further checks): whether it is fine, and the text.
    pub(crate) fn report(&self, endpoint: &str, verbose: bool, only_ping: bool) -> (bool, String) {
        let mut text = String::from("[+]ping ok\n");
        let mut fine = true;
        if !only_ping {
            for (name, check) in self.checks.read().iter() {
                match check() {
                    Ok(()) => writeln!(text, "[+]{name} ok").unwrap_or_default(),
                    Err(_why) => {
                        fine = false;
                        writeln!(text, "[-]{name} failed: reason withheld").unwrap_or_default();
                    }
                }
            }
        }
        match (fine, verbose) {
            (true, false) => (true, "ok".to_owned()),
            (true, true) => (true, format!("{text}{endpoint} check passed\n")),
            (false, _) => (false, format!("{text}{endpoint} check failed\n")),
        }
    }
}
