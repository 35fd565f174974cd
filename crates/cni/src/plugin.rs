//! The plugin process: what a container runtime starts for each pod.
//!
//! It decides nothing. It reads the environment and the configuration, hands them to the agent, and prints the
//! answer. While the agent restarts it waits, so that a pod's start is not lost to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use gantry_base::{Backoff, BackoffPolicy};
use serde_json::{Value, json};

use crate::install::PLUGIN_NAME;
use crate::loopback::{self, LOOPBACK_NAME};
use crate::protocol::{CniError, MAX_LINE, Request, Response, code, host_ports};

/// The versions we speak, newest last.
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// So often is the agent tried, with doubling pauses: about twelve seconds in all.
const ATTEMPTS: u32 = 10;
const PAUSES: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(50), Duration::from_secs(2));
/// One answer may take so long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether this process was started as the plugin: by its name, or by a runtime's environment.
pub fn invoked() -> bool {
    let by_name = std::env::args_os()
        .next()
        .is_some_and(|program| std::path::Path::new(&program).file_name().is_some_and(|n| n == PLUGIN_NAME));
    by_name || std::env::var_os("CNI_COMMAND").is_some()
}

/// Serves one call: environment and standard input in, standard output and exit code out.
pub fn main() -> ExitCode {
    let mut input = Vec::new();
    let read = std::io::stdin().take(MAX_LINE as u64).read_to_end(&mut input);
    let answer = match read {
        Ok(_) => call(&|name| std::env::var(name).unwrap_or_default(), &input),
        Err(e) => Err(CniError::new(code::IO, format!("read the configuration: {e}"))),
    };
    let (text, exit) = match answer {
        Ok(Value::Null) => (String::new(), ExitCode::SUCCESS),
        Ok(value) => (value.to_string(), ExitCode::SUCCESS),
        Err(error) => (error_text(&error, &input), ExitCode::FAILURE),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => exit,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A configuration as the plugin reads it, up to where it would ask the agent: the host ports, or what is printed.
///
/// # Errors
/// The text that goes to standard output.
pub fn read_configuration(input: &[u8]) -> Result<usize, String> {
    let read = serde_json::from_slice::<Value>(input)
        .map_err(|e| CniError::new(code::DECODE, format!("decode the configuration: {e}")))
        .and_then(|config| host_ports(&config));
    read.map(|ports| ports.len()).map_err(|error| error_text(&error, input))
}

fn error_text(error: &CniError, input: &[u8]) -> String {
    let version = serde_json::from_slice::<Value>(input)
        .ok()
        .and_then(|config| config["cniVersion"].as_str().map(str::to_owned))
        .unwrap_or_else(|| "1.0.0".into());
    json!({ "cniVersion": version, "code": error.code, "msg": error.msg, "details": error.details })
        .to_string()
}

/// One call, with the environment as a function.
fn call(env: &dyn Fn(&str) -> String, input: &[u8]) -> Result<Value, CniError> {
    let command = env("CNI_COMMAND");
    if command == "VERSION" {
        return Ok(json!({ "cniVersion": "1.1.0", "supportedVersions": VERSIONS }));
    }
    if command.is_empty() {
        return Err(CniError::new(
            code::INVALID_ENVIRONMENT,
            "required env variables [CNI_COMMAND] missing: a container runtime starts this program",
        ));
    }
    let config: Value = serde_json::from_slice(input)
        .map_err(|e| CniError::new(code::DECODE, format!("decode the configuration: {e}")))?;
    let version = config["cniVersion"].as_str().unwrap_or("0.3.1");
    if !VERSIONS.contains(&version) {
        return Err(CniError::new(
            code::INCOMPATIBLE_VERSION,
            format!("cniVersion {version} is not supported: use one of {}", VERSIONS.join(", ")),
        ));
    }
    if config["type"] == LOOPBACK_NAME {
        return loopback::call(&command, &env("CNI_NETNS"), version);
    }
    let Some(agent) = config["agent"].as_str().map(str::to_owned) else {
        return Err(CniError::new(
            code::INVALID_CONFIG,
            "the configuration has no \"agent\": the agent's socket",
        ));
    };
    let request = Request {
        command,
        container_id: env("CNI_CONTAINERID"),
        netns: env("CNI_NETNS"),
        ifname: env("CNI_IFNAME"),
        args: env("CNI_ARGS"),
        config,
    };
    let mut line = serde_json::to_vec(&request).map_err(|e| CniError::new(code::DECODE, e.to_string()))?;
    line.push(b'\n');
    ask_patiently(&agent, &line)
}

/// Asks until there is an answer. Asking again is safe: the agent treats a repeated request like the first.
fn ask_patiently(agent: &str, line: &[u8]) -> Result<Value, CniError> {
    let mut backoff = Backoff::new(PAUSES);
    loop {
        let error = match ask(agent, line) {
            Ok(Response::Result(value)) => return Ok(value),
            Ok(Response::Error(error)) => return Err(error),
            Err(error) => error,
        };
        let pause = backoff.next_delay();
        if backoff.failures() >= ATTEMPTS {
            return Err(CniError::new(
                code::TRY_AGAIN_LATER,
                format!("the agent at {agent} does not answer: {error}"),
            ));
        }
        #[expect(clippy::disallowed_methods, reason = "a short process of its own with one thread")]
        std::thread::sleep(pause);
    }
}

fn ask(agent: &str, line: &[u8]) -> std::io::Result<Response> {
    let mut stream = UnixStream::connect(agent)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_LINE as u64)).read_until(b'\n', &mut answer)?;
    serde_json::from_slice(&answer).map_err(std::io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> String + 'a {
        |name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()).unwrap_or_default()
    }

    #[test]
    fn version_needs_no_agent() {
        let answer = call(&env(&[("CNI_COMMAND", "VERSION")]), b"{}").expect("an answer");
        assert_eq!(answer["supportedVersions"], json!(VERSIONS));
    }

    #[test]
    fn a_call_waits_for_the_agent_and_passes_everything_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("cni.sock");
        let config = json!({ "cniVersion": "1.0.0", "name": "gantry", "agent": socket }).to_string();
        std::thread::scope(|scope| {
            let plugin = scope.spawn(|| {
                let env = env(&[
                    ("CNI_COMMAND", "ADD"),
                    ("CNI_CONTAINERID", "a"),
                    ("CNI_NETNS", "/run/netns/x"),
                    ("CNI_IFNAME", "eth0"),
                    ("CNI_ARGS", "K8S_POD_NAME=p"),
                ]);
                call(&env, config.as_bytes())
            });
            // The agent comes up after the plugin has begun (or before: both are right).
            let listener = std::os::unix::net::UnixListener::bind(&socket).expect("listening");
            let (mut stream, _) = listener.accept().expect("asked");
            let mut line = String::new();
            BufReader::new(stream.try_clone().expect("cloned")).read_line(&mut line).expect("read");
            let request: Request = serde_json::from_str(&line).expect("a request");
            assert_eq!((request.command.as_str(), request.ifname.as_str()), ("ADD", "eth0"));
            assert_eq!((request.netns.as_str(), request.args.as_str()), ("/run/netns/x", "K8S_POD_NAME=p"));
            assert_eq!(request.config["name"], "gantry");
            stream.write_all(b"{\"error\":{\"code\":11,\"msg\":\"later\"}}\n").expect("answered");
            let answer = plugin.join().expect("no panic");
            assert_eq!(answer, Err(CniError::new(code::TRY_AGAIN_LATER, "later")));
        });
    }

    #[test]
    fn wrong_input_has_the_codes_of_the_specification() {
        let add = env(&[("CNI_COMMAND", "ADD")]);
        assert_eq!(call(&env(&[]), b"{}").expect_err("no command").code, code::INVALID_ENVIRONMENT);
        assert_eq!(call(&add, b"{").expect_err("no JSON").code, code::DECODE);
        let old = br#"{"cniVersion":"0.1.0"}"#;
        assert_eq!(call(&add, old).expect_err("too old").code, code::INCOMPATIBLE_VERSION);
        let bare = br#"{"cniVersion":"1.0.0"}"#;
        let error = call(&add, bare).expect_err("no agent");
        assert_eq!(error.code, code::INVALID_CONFIG);
        let printed: Value = serde_json::from_str(&error_text(&error, bare)).expect("JSON");
        assert_eq!((&printed["cniVersion"], &printed["code"]), (&json!("1.0.0"), &json!(7)));
    }
}
