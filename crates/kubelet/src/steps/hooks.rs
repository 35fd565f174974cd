//! Lifecycle hooks: exec, HTTP, sleep.

use std::time::Duration;

use gantry_api::core::{Container, LifecycleHandler, Pod};

use crate::engine::core::Core;
use crate::pod;
use crate::probes::http;

/// Runs a hook to its end.
///
/// # Errors
/// What is shown of its failure.
pub async fn run(
    core: &Core,
    pod: &Pod,
    container: &Container,
    id: &str,
    hook: &LifecycleHandler,
    pod_ips: &[String],
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output = core.options.runtime.exec_sync(id, &command, Duration::ZERO).await;
        let output = output.map_err(|e| format!("Exec lifecycle hook ({command:?}) failed - error: {e}"))?;
        if output.exit_code != 0 {
            return Err(format!(
                "Exec lifecycle hook ({command:?}) for Container {:?} in Pod {:?} failed - error: command '{}' exited with {}: {}, message: {:?}",
                container.name,
                pod::describe(pod),
                command.join(" "),
                output.exit_code,
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout),
            ));
        }
        return Ok(());
    }
    if let Some(action) = &hook.http_get {
        let host_ips = core.host_ips();
        let ips = if pod::host_network(pod) { host_ips.as_slice() } else { pod_ips };
        let request =
            http::Request::new(action, container, ips.first().map_or("", String::as_str), "lifecycle")?;
        // A server that speaks plain HTTP on a port said to be HTTPS is tried again in the clear, as upstream does.
        let outcome = http::fetch(&request, http::HOOK_TIMEOUT).await;
        let outcome = match outcome {
            Err(_) if request.is_tls() => http::fetch(&request.in_the_clear(), http::HOOK_TIMEOUT).await,
            other => other,
        };
        return outcome.map(|_| ()).map_err(|e| format!("HTTP lifecycle hook failed: {e}"));
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("invalid handler".to_owned())
}
