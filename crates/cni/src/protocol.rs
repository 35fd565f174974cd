//! What the plugin process and the agent say to each other: one JSON line each way.

use std::net::Ipv4Addr;
use std::str::FromStr;

use gantry_base::{Class, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest line either side takes, in bytes.
pub const MAX_LINE: usize = 1 << 20;

/// The environment and the configuration of one plugin call.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    pub command: String,
    #[serde(default)]
    pub container_id: String,
    #[serde(default)]
    pub netns: String,
    #[serde(default)]
    pub ifname: String,
    #[serde(default)]
    pub args: String,
    pub config: Value,
}

/// The agent's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// What the plugin prints; null for nothing.
    Result(Value),
    /// Printed as a CNI error.
    Error(CniError),
}

/// A CNI error (specification, section 5 "Error").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniError {
    pub code: u32,
    pub msg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// The codes of the specification that we use.
pub mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const UNKNOWN_CONTAINER: u32 = 3;
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const IO: u32 = 5;
    pub const DECODE: u32 = 6;
    pub const INVALID_CONFIG: u32 = 7;
    pub const TRY_AGAIN_LATER: u32 = 11;
}

impl CniError {
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }
}

impl From<Error> for CniError {
    fn from(error: Error) -> Self {
        let code = match error.class() {
            Class::Retry | Class::Conflict => code::TRY_AGAIN_LATER,
            Class::Invalid => code::INVALID_CONFIG,
            Class::Missing => code::UNKNOWN_CONTAINER,
            Class::Refused | Class::Bug => code::IO,
        };
        Self::new(code, error.to_string())
    }
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            _ => Err(Error::invalid(format!("{text:?} is no transport protocol: use tcp, udp or sctp"))),
        }
    }
}

/// A port of the host that leads to a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// Only on this address of the host; all of them (also 127.0.0.1) if none.
    pub host_ip: Option<Ipv4Addr>,
    /// The host's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// The host ports in `runtimeConfig.portMappings` of a plugin configuration. containerd writes the names of the
/// fields with a capital letter, CRI-O as the specification has them.
///
/// IPv6 host addresses are left out (this network has no IPv6); so are mappings without a host port, as the
/// reference plugin does.
pub fn host_ports(config: &Value) -> Result<Vec<HostPort>, CniError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Mapping {
        #[serde(default, alias = "HostPort")]
        host_port: u16,
        #[serde(default, alias = "ContainerPort")]
        container_port: u16,
        #[serde(default, alias = "Protocol")]
        protocol: String,
        #[serde(default, rename = "hostIP", alias = "HostIP")]
        host_ip: String,
    }
    let invalid =
        |what: String| CniError::new(code::INVALID_CONFIG, format!("runtimeConfig.portMappings: {what}"));
    let mappings = match config.pointer("/runtimeConfig/portMappings") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(mappings) => Vec::<Mapping>::deserialize(mappings).map_err(|e| invalid(e.to_string()))?,
    };
    let mut ports = Vec::new();
    for m in mappings.iter().filter(|m| m.host_port != 0) {
        if m.container_port == 0 {
            return Err(invalid(format!("host port {} has no container port", m.host_port)));
        }
        let host_ip = match m.host_ip.as_str() {
            "" | "0.0.0.0" | "::" => None,
            text if text.contains(':') => continue,
            text => Some(text.parse().map_err(|_| invalid(format!("{text:?} is no address")))?),
        };
        let protocol = if m.protocol.is_empty() { "tcp" } else { &m.protocol };
        let protocol = protocol.parse().map_err(|e: Error| invalid(e.to_string()))?;
        ports.push(HostPort { host_ip, host_port: m.host_port, container_port: m.container_port, protocol });
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_mappings_are_read_as_containerd_passes_them() {
        let config = serde_json::json!({"runtimeConfig": {"portMappings": [
            {"hostPort": 54323, "containerPort": 8080, "protocol": "tcp", "hostIP": "127.0.0.1"},
            {"hostPort": 54323, "containerPort": 8080, "protocol": "UDP", "hostIP": ""},
            {"hostPort": 0, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 9, "containerPort": 9, "hostIP": "fd00::1"},
        ]}});
        let ports = host_ports(&config).expect("valid");
        let text: Vec<_> = ports.iter().map(|p| (p.host_ip, p.host_port, p.protocol)).collect();
        assert_eq!(text, [(None, 54323, Protocol::Udp), (Some(Ipv4Addr::LOCALHOST), 54323, Protocol::Tcp)]);
        assert_eq!(host_ports(&serde_json::json!({})), Ok(Vec::new()));
        let bad = serde_json::json!({"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "x"}]}});
        assert_eq!(host_ports(&bad).expect_err("invalid").code, code::INVALID_CONFIG);
    }
}
