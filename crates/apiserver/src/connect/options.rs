//! The options of a connection, as admission sees them: `PodExecOptions` and so on.

use serde_json::{Map, Value};

use crate::admission::Body;
use crate::query::Query;
use crate::route::RequestInfo;

/// What the query of a request for a subresource says.
pub(crate) fn options(info: &RequestInfo, query: &Query) -> Body {
    let mut map = Map::new();
    let flag = |map: &mut Map<String, Value>, name: &str| {
        if query.flag(name) {
            map.insert(name.into(), true.into());
        }
    };
    let kind = match (info.resource.as_str(), info.subresource.as_str()) {
        ("pods", "exec" | "attach") => {
            ["stdin", "stdout", "stderr", "tty"].iter().for_each(|name| flag(&mut map, name));
            if let Some(container) = query.get("container").filter(|c| !c.is_empty()) {
                map.insert("container".into(), container.into());
            }
            if info.subresource == "exec" {
                let command = query.all("command");
                // Go's way to write a list that is not there.
                map.insert("command".into(), if command.is_empty() { Value::Null } else { command.into() });
                "PodExecOptions"
            } else {
                "PodAttachOptions"
            }
        }
        ("pods", "portforward") => {
            let ports = query.all("ports");
            let numbers: Vec<i32> =
                ports.iter().flat_map(|p| p.split(',')).filter_map(|p| p.parse().ok()).collect();
            if !numbers.is_empty() {
                map.insert("ports".into(), numbers.into());
            }
            "PodPortForwardOptions"
        }
        (resource, _) => {
            if !info.rest.is_empty() {
                map.insert("path".into(), info.rest.as_str().into());
            }
            match resource {
                "services" => "ServiceProxyOptions",
                "nodes" => "NodeProxyOptions",
                _ => "PodProxyOptions",
            }
        }
    };
    Body::new("", "v1", kind, Value::Object(map))
}
