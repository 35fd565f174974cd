//! Images: pull policies, credentials, back-off, one pull at a time for each image.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine as _;
use gantry_api::core::{Container, Pod, Secret};
use gantry_api::meta::MetaExt;
use gantry_base::image::ImagePolicy;
use gantry_base::{Clock, Result, Shutdown};
use gantry_cri::{Runtime, v1};
use parking_lot::Mutex;
use serde_json::Value;

use crate::engine::backoff::Backoffs;
use crate::engine::core::Core;
use crate::engine::events::{About, Kind};
use crate::pod;
use crate::steps::{Waiting, words};

/// An image that is on the node.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// What the runtime takes as the image of a container: its id.
    pub reference: String,
    /// The user it runs as, by number.
    pub uid: Option<i64>,
    /// The user it runs as, by name.
    pub username: String,
    /// Bytes.
    pub size: u64,
}

#[derive(Default)]
struct State {
    backoffs: Backoffs,
    /// The error of the last pull, by the back-off's key; goes when the next pull begins.
    errors: HashMap<String, String>,
    pulling: HashMap<String, Weak<tokio::sync::Mutex<()>>>,
}

/// At most this many errors of pulls are remembered.
const MAX_ERRORS: usize = 4096;

/// Sees to it that images are on the node.
pub struct Images {
    runtime: Arc<dyn Runtime>,
    clock: Arc<dyn Clock>,
    policy: ImagePolicy,
    state: Mutex<State>,
}

impl Images {
    /// Pulls through `runtime` what `policy` allows.
    pub fn new(runtime: Arc<dyn Runtime>, clock: Arc<dyn Clock>, policy: ImagePolicy) -> Self {
        Self { runtime, clock, policy, state: Mutex::default() }
    }

    /// Makes sure that the container's image is on the node, as its pull policy says.
    ///
    /// # Errors
    /// Why the container is waiting for its image.
    pub async fn ensure(
        &self,
        core: &Core,
        pod: &Pod,
        container: &Container,
        about: About<'_>,
        sandbox: &v1::PodSandboxConfig,
        stop: &Shutdown,
    ) -> Result<Present, Waiting> {
        let requested = container.image.clone().unwrap_or_default();
        let image = match with_default_tag(&requested) {
            Ok(image) => image,
            Err(problem) => {
                let text = format!(
                    "Failed to apply default image tag {requested:?}: couldn't parse image name {requested:?}: {problem}"
                );
                core.recorder.pod(pod, about, Kind::Warning, "InspectFailed", text.clone());
                return Err(Waiting::new("InvalidImageName", text));
            }
        };
        let image = self.policy.mirrored(&image).unwrap_or(image);
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let spec = v1::ImageSpec { image: image.clone(), ..Default::default() };
        if policy != "Always" {
            let present = match self.find(&spec).await {
                Ok(present) => present,
                Err(error) => {
                    let text = format!("Failed to inspect image {image:?}: {error}");
                    core.recorder.pod(pod, about, Kind::Warning, "InspectFailed", text.clone());
                    return Err(Waiting::new("ImageInspectError", text));
                }
            };
            if let Some(present) = present {
                let text = format!(
                    "Container image {requested:?} already present on machine and can be accessed by the pod"
                );
                core.recorder.pod(pod, about, Kind::Normal, "Pulled", text);
                return Ok(present);
            }
            if policy == "Never" {
                let text = format!("Container image {requested:?} is not present with pull policy of Never");
                core.recorder.pod(pod, about, Kind::Warning, "ErrImageNeverPull", text.clone());
                return Err(Waiting::new("ErrImageNeverPull", text));
            }
        }
        self.pull_unless_backing_off(core, pod, about, &requested, &spec, sandbox, stop).await
    }

    /// The image that `spec` names, if it is on the node.
    ///
    /// # Errors
    /// The runtime's.
    pub async fn find(&self, spec: &v1::ImageSpec) -> Result<Option<Present>> {
        let image = self.runtime.image_status(spec, false).await?.image;
        Ok(image.map(|image| {
            // An image that names no user runs as root.
            let root = image.username.is_empty().then_some(0);
            Present {
                reference: image.id,
                uid: image.uid.map(|u| u.value).or(root),
                username: image.username,
                size: image.size,
            }
        }))
    }

    #[expect(clippy::too_many_arguments, reason = "one pull has this many sides")]
    async fn pull_unless_backing_off(
        &self,
        core: &Core,
        pod: &Pod,
        about: About<'_>,
        requested: &str,
        spec: &v1::ImageSpec,
        sandbox: &v1::PodSandboxConfig,
        stop: &Shutdown,
    ) -> Result<Present, Waiting> {
        let key = format!("{}_{requested}", pod.uid());
        {
            let mut state = self.state.lock();
            if state.backoffs.remaining_since_update(&key, self.clock.now()).is_some() {
                let mut text = format!("Back-off pulling image {requested:?}");
                core.recorder.pod(pod, about, Kind::Normal, "BackOff", text.clone());
                if let Some(error) = state.errors.get(&key) {
                    text = format!("{text}: {error}");
                }
                return Err(Waiting::new("ImagePullBackOff", text));
            }
            state.errors.remove(&key);
        }
        core.recorder.pod(pod, about, Kind::Normal, "Pulling", format!("Pulling image {requested:?}"));
        let asked = self.clock.monotonic();
        let pulled = tokio::select! {
            pulled = self.pull(core, pod, requested, spec, sandbox) => pulled,
            () = stop.cancelled() => return Err(Waiting::new("ContainerCreating", "")),
        };
        match pulled {
            Ok((present, took)) => {
                let whole = self.clock.monotonic().saturating_sub(asked);
                let text = format!(
                    "Successfully pulled image {requested:?} in {} ({} including waiting). Image size: {} bytes.",
                    go_duration(took),
                    go_duration(whole),
                    present.size
                );
                core.recorder.pod(pod, about, Kind::Normal, "Pulled", text);
                Ok(present)
            }
            Err(error) => {
                let text = error.to_string();
                let event = format!("Failed to pull image {requested:?}: {text}");
                core.recorder.pod(pod, about, Kind::Warning, "Failed", event);
                let (reason, message) = classify_pull_error(requested, text, words(&error));
                let mut state = self.state.lock();
                state.backoffs.next(&key, self.clock.now());
                if state.errors.len() < MAX_ERRORS {
                    state.errors.insert(key, format!("{reason}: {message}"));
                }
                Err(Waiting::new(reason, message))
            }
        }
    }

    /// How long until a pod's image may be pulled again.
    pub fn wait_for(&self, pod: &Pod, image: &str) -> Option<Duration> {
        let key = format!("{}_{image}", pod.uid());
        self.state.lock().backoffs.remaining_since_update(&key, self.clock.now()).map(|(_, left)| left)
    }

    async fn pull(
        &self,
        core: &Core,
        pod: &Pod,
        requested: &str,
        spec: &v1::ImageSpec,
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<(Present, Duration)> {
        self.policy.check(requested).map_err(gantry_base::Error::refused)?;
        let credentials = credentials(core, pod, &spec.image).await;
        let turn = {
            let mut state = self.state.lock();
            state.pulling.retain(|_, lock| lock.strong_count() > 0);
            let known = state.pulling.get(requested).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(tokio::sync::Mutex::new(()));
                state.pulling.insert(requested.to_owned(), Arc::downgrade(&lock));
                lock
            })
        };
        let _turn = turn.lock().await;
        let began = self.clock.monotonic();
        let mut outcome = None;
        for auth in credentials.into_iter().map(Some).chain([None]) {
            match self.runtime.pull_image(spec, auth, Some(sandbox)).await {
                Ok(reference) => {
                    outcome = Some(Ok(reference));
                    break;
                }
                // The first error is about the credentials that were meant to work.
                Err(error) => outcome = outcome.or(Some(Err(error))),
            }
        }
        let reference = outcome.ok_or_else(|| gantry_base::Error::bug("no pull was tried"))??;
        let took = self.clock.monotonic().saturating_sub(began);
        let by_id = v1::ImageSpec { image: reference.clone(), ..Default::default() };
        let present = self.find(&by_id).await?.unwrap_or(Present { reference, ..Present::default() });
        Ok((present, took))
    }
}

/// The waiting reason and message for a failed pull.
fn classify_pull_error(image: &str, text: String, words: String) -> (&'static str, String) {
    for (name, why) in [
        ("RegistryUnavailable", "the registry is unavailable"),
        ("SignatureValidationFailed", "the signature validation failed"),
    ] {
        if let Some(rest) = words.strip_prefix(name) {
            return (name, format!("image pull failed for {image} because {why}{rest}"));
        }
    }
    ("ErrImagePull", text)
}

/// A duration as Go prints it, cut to milliseconds: `1.234s`, `2m3.4s`.
fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    seconds = seconds.trim_end_matches('0').trim_end_matches('.').to_owned();
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, m) => format!("{m}m{seconds}s"),
        (h, m) => format!("{h}h{m}m{seconds}s"),
    }
}

/// Adds `:latest` where an image name has neither tag nor digest.
///
/// # Errors
/// The text is no image name.
pub fn with_default_tag(image: &str) -> Result<String, String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match name[slash..].split_once(':') {
        Some((last, tag)) => (&name[..slash + last.len()], Some(tag)),
        None => (name, None),
    };
    let invalid = || "invalid reference format".to_owned();
    let (host, repository) = split_host(path);
    let component = |part: &str| {
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let inner = |c: char| ok(c) || matches!(c, '.' | '_' | '-');
        part.starts_with(ok) && part.ends_with(ok) && part.chars().all(inner)
    };
    if repository.chars().any(|c| c.is_ascii_uppercase()) && !repository.is_empty() {
        let full = if host.is_empty() && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        return Err(format!("{}: repository name ({full}) must be lowercase", invalid()));
    }
    let host_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if !host.chars().all(host_ok) || !repository.split('/').all(component) {
        return Err(invalid());
    }
    if let Some(tag) = tag {
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let starts_well = tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !starts_well || tag.len() > 128 || !tag.chars().all(ok) {
            return Err(invalid());
        }
    }
    if let Some(digest) = digest {
        let hex = digest.split_once(':').map(|(_, hex)| hex).ok_or_else(invalid)?;
        if hex.len() < 32 || !hex.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(invalid());
        }
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

/// The registry's host (empty for the default one) and the repository of an image name without tag and digest.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("", name),
    }
}

/// The credentials of the pod's pull secrets that fit an image, the most specific first.
async fn credentials(core: &Core, pod: &Pod, image: &str) -> Vec<v1::AuthConfig> {
    let mut found: Vec<(usize, v1::AuthConfig)> = Vec::new();
    for reference in pod::spec(pod).image_pull_secrets.iter().flatten() {
        match core.secrets.fetch(pod.namespace(), &reference.name).await {
            Ok(secret) => found.extend(matching(&secret, image)),
            Err(error) => {
                let text = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    reference.name
                );
                tracing::debug!(%error, secret = reference.name, "cannot read a pull secret");
                core.recorder.pod(pod, None, Kind::Warning, "FailedToRetrieveImagePullSecret", text);
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn matching(secret: &Secret, image: &str) -> Vec<(usize, v1::AuthConfig)> {
    let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.as_slice());
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let auths = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            data(".dockerconfigjson").and_then(parse).and_then(|mut v| v.get_mut("auths").map(Value::take))
        }
        Some("kubernetes.io/dockercfg") => data(".dockercfg").and_then(parse),
        _ => None,
    };
    let Some(Value::Object(auths)) = auths else { return Vec::new() };
    let auths: BTreeMap<String, Value> = auths.into_iter().collect();
    let fitting = auths.into_iter().filter(|(server, _)| fits(server, image));
    fitting.filter_map(|(server, entry)| Some((server.len(), auth_config(&entry)?))).collect()
}

fn auth_config(entry: &Value) -> Option<v1::AuthConfig> {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    // No server address: containerd reads it as a URL, which a bare host with a port is not.
    let mut config = v1::AuthConfig {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        ..Default::default()
    };
    if let Some(auth) = entry["auth"].as_str().filter(|a| !a.is_empty()) {
        let engine = base64::engine::general_purpose::STANDARD;
        let decoded = String::from_utf8(engine.decode(auth.trim()).ok()?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        config.username = username.to_owned();
        config.password = password.trim_end_matches('\0').to_owned();
    }
    Some(config)
}

/// Whether the credentials for `server` are meant for `image`.
fn fits(server: &str, image: &str) -> bool {
    const DEFAULT: &str = "docker.io";
    let name = image.split('@').next().unwrap_or(image);
    let (host, repository) = split_host(name);
    let (host, repository) = if host.is_empty() {
        let full =
            if repository.contains('/') { repository.to_owned() } else { format!("library/{repository}") };
        (DEFAULT, full)
    } else {
        (host, repository.to_owned())
    };
    let server = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (server_host, server_path) = server.split_once('/').unwrap_or((server, ""));
    let server_path = if matches!(server_path, "v1" | "v2") { "" } else { server_path };
    let server_host = if server_host == "index.docker.io" { DEFAULT } else { server_host };
    host_fits(server_host, host) && repository.starts_with(server_path)
}

/// Host patterns may have `*` within a label.
fn host_fits(pattern: &str, host: &str) -> bool {
    let (pattern_name, pattern_port) = pattern.split_once(':').unwrap_or((pattern, ""));
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let labels: Vec<&str> = name.split('.').collect();
    let patterns: Vec<&str> = pattern_name.split('.').collect();
    pattern_port == port
        && labels.len() == patterns.len()
        && labels.iter().zip(patterns).all(|(label, pattern)| match pattern.split_once('*') {
            Some((head, tail)) => {
                label.len() >= head.len() + tail.len() && label.starts_with(head) && label.ends_with(tail)
            }
            None => *label == pattern,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_tag_get_the_default_one() {
        let tagged = |name: &str| with_default_tag(name);
        assert_eq!(tagged("busybox").as_deref(), Ok("busybox:latest"));
        assert_eq!(tagged("localhost:5000/a/b").as_deref(), Ok("localhost:5000/a/b:latest"));
        assert_eq!(tagged("r.example/a:1.2").as_deref(), Ok("r.example/a:1.2"));
        let digest = format!("a@sha256:{}", "0".repeat(64));
        assert_eq!(tagged(&digest), Ok(digest.clone()));
        assert!(tagged("FAILED_IMAGE").expect_err("upper case").contains("must be lowercase"));
        assert_eq!(tagged("").expect_err("empty"), "invalid reference format");
        assert_eq!(tagged("a:b c").expect_err("a space"), "invalid reference format");
    }

    #[test]
    fn credentials_fit_by_host_and_path() {
        assert!(fits("https://index.docker.io/v1/", "busybox:1"));
        assert!(fits("r.example:5000", "r.example:5000/a/b:1"));
        assert!(!fits("r.example", "r.example:5000/a"));
        assert!(fits("*.r.example/team", "eu.r.example/team/x"));
        assert!(!fits("*.r.example/team", "eu.r.example/other/x"));
    }

    #[test]
    fn durations_read_like_gos() {
        let text = |ms| go_duration(Duration::from_millis(ms));
        assert_eq!(
            (text(7).as_str(), text(1500).as_str(), text(61_020).as_str()),
            ("7ms", "1.5s", "1m1.02s")
        );
    }
}
