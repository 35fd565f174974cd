//! The options that all verbs share, and the session they open.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use gantry_base::{SystemClock, Tasks};
use gantry_client::HttpsTransport;
use gantry_client::kubeconfig::{self, Kubeconfig};
use tokio::sync::OnceCell;

use crate::discovery::Discovery;
use crate::error::Result;
use crate::parse;

/// Which cluster, as whom, in which namespace.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct GlobalOptions {
    /// The kubeconfig file; without it those of $KUBECONFIG, else ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; without it the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace; without it that of the context
    #[arg(long, short = 'n', global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// How long one request may take (1s, 2m, 3h; 0 for ever)
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse::duration)]
    pub request_timeout: Option<Duration>,
    /// Act as this user
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,
    /// Act as a member of this group
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub impersonate_groups: Vec<String>,
    /// How much to tell: 6 shows each request
    #[arg(short = 'v', long = "v", global = true, value_name = "LEVEL", default_value_t = 0)]
    pub verbosity: u8,
}

/// The options that take a value and may stand in front of the verb.
const WITH_VALUE: [&str; 8] =
    ["--kubeconfig", "--context", "--namespace", "-n", "--request-timeout", "--as", "--as-group", "--v"];

/// The program's arguments with those shared options that stand in front of the verb (`gantry -n x get pods`) moved
/// behind it, where the verb knows them.
pub fn arguments(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    let rest: Vec<OsString> = args.collect();
    let mut leading = 0;
    while let Some(arg) = rest.get(leading).and_then(|a| a.to_str()) {
        let name = arg.split_once('=').map_or(arg, |(name, _)| name);
        let known = WITH_VALUE.contains(&name) || (arg.starts_with("-v") && !arg.starts_with("-ver"));
        if !known {
            break;
        }
        leading += if WITH_VALUE.contains(&arg) || arg == "-v" { 2 } else { 1 };
    }
    let leading = leading.min(rest.len());
    let (front, behind) = rest.split_at(leading);
    match behind.split_first() {
        Some((verb, others)) => {
            out.push(verb.clone());
            out.extend_from_slice(front);
            out.extend_from_slice(others);
        }
        None => out.extend(rest),
    }
    out
}

/// A connection to a cluster.
pub(crate) struct Session {
    /// The door to the API.
    pub client: HttpsTransport,
    /// The namespace asked for, or the context's.
    pub namespace: String,
    /// Whether the namespace was asked for.
    pub namespace_is_explicit: bool,
    /// What runs in the background; ends with the verb.
    pub tasks: Tasks,
    /// Reads the time.
    pub clock: SystemClock,
    discovery: OnceCell<Discovery>,
}

impl Session {
    /// Reads the configuration; nothing is sent yet.
    pub(crate) fn open(options: &GlobalOptions) -> Result<Self> {
        let paths = kubeconfig::paths(options.kubeconfig.as_deref())?;
        let selected = Kubeconfig::load(&paths)?.select(options.context.as_deref())?;
        let mut https = selected.https;
        if let Some(limit) = options.request_timeout {
            https.request_timeout = (!limit.is_zero()).then_some(limit);
        }
        if options.impersonate.is_some() {
            https.impersonate_user.clone_from(&options.impersonate);
            https.impersonate_groups.clone_from(&options.impersonate_groups);
        }
        let tasks = Tasks::new();
        Ok(Self {
            client: HttpsTransport::new(https, &tasks)?,
            namespace: options.namespace.clone().unwrap_or(selected.namespace),
            namespace_is_explicit: options.namespace.is_some(),
            tasks,
            clock: SystemClock::default(),
            discovery: OnceCell::new(),
        })
    }

    /// What the server serves; asked once.
    pub(crate) async fn discovery(&self) -> Result<&Discovery> {
        self.discovery.get_or_try_init(|| Discovery::read(&self.client)).await
    }

    /// What the server serves now.
    pub(crate) async fn fresh_discovery(&self) -> Result<Discovery> {
        Discovery::read(&self.client).await
    }
}

/// The text of an environment variable; `None` if it is unset or empty.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value: &OsString| value.as_os_str() != OsStr::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_options_may_stand_in_front_of_the_verb() {
        let moved = |line: &str| {
            let args = arguments(line.split(' ').map(OsString::from));
            args.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(moved("gantry -n x get pods -o wide"), "gantry get -n x pods -o wide");
        assert_eq!(moved("gantry --context=a -v 6 get pods"), "gantry get --context=a -v 6 pods");
        assert_eq!(moved("gantry get -n x pods"), "gantry get -n x pods");
        assert_eq!(moved("gantry --version"), "gantry --version");
        assert_eq!(moved("gantry -n"), "gantry -n");
    }
}
