//! Exec probes: a command in the container; its exit code decides.

use std::time::Duration;

use gantry_cri::{Runtime, is_deadline_exceeded};

use super::Outcome;

/// At most this much of the output is shown.
const MAX_OUTPUT: usize = 10 * 1024;

/// Runs `command` in the container.
pub async fn probe(runtime: &dyn Runtime, id: &str, command: &[String], timeout: Duration) -> Outcome {
    match runtime.exec_sync(id, command, timeout).await {
        Ok(output) => {
            let mut bytes = [output.stdout.as_ref(), output.stderr.as_ref()].concat();
            bytes.truncate(MAX_OUTPUT);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if output.exit_code == 0 { Outcome::Success } else { Outcome::Failure(text) }
        }
        Err(error) if is_deadline_exceeded(&error) => Outcome::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        Err(error) => Outcome::Errored(error.to_string()),
    }
}
