//! From what a user names to the pods behind it: `logs deploy/web`, `exec svc/web`, `port-forward svc/web`.

use std::fmt::Write;

use serde_json::Value;

use crate::discovery::Found;
use crate::error::{CliError, Result, fail};
use crate::options::Session;
use crate::select::{self, Mention, Target};

/// Reads `web-1`, `pod/web-1` or `deploy/web`.
pub(crate) async fn target(session: &Session, arg: &str) -> Result<Target> {
    let mention = match arg.split_once('/') {
        Some(_) => select::mentions(&[arg.to_owned()])?.remove(0),
        None => Mention { kind: "pods".into(), name: Some(arg.to_owned()) },
    };
    let found = session.discovery().await?.find(&mention.kind)?.clone();
    let namespace = if found.resource.namespaced { session.namespace.clone() } else { String::new() };
    Ok(Target { found, namespace, name: mention.name, object: None, source: None })
}

/// The resource of pods.
pub(crate) async fn pods_resource(session: &Session) -> Result<Found> {
    Ok(session.discovery().await?.find("pods")?.clone())
}

/// The label selector, as text, by which an object knows its pods; `None` if it knows none.
pub(crate) fn pod_selector(object: &Value) -> Option<String> {
    let selector = &object["spec"]["selector"];
    let is_plain = matches!(object["kind"].as_str(), Some("Service" | "ReplicationController"));
    let labels = if is_plain { selector } else { &selector["matchLabels"] };
    let mut text = String::new();
    let mut push = |term: std::fmt::Arguments<'_>| {
        if !text.is_empty() {
            text.push(',');
        }
        text.write_fmt(term).expect("strings take everything");
    };
    for (key, value) in labels.as_object().into_iter().flatten() {
        push(format_args!("{key}={}", value.as_str().unwrap_or("")));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or("");
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match expression["operator"].as_str() {
            Some("In") => push(format_args!("{key} in ({})", values.join(","))),
            Some("NotIn") => push(format_args!("{key} notin ({})", values.join(","))),
            Some("Exists") => push(format_args!("{key}")),
            _ => push(format_args!("!{key}")),
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The pods of `target`, the best to talk to first: running, ready, older.
pub(crate) async fn pods(session: &Session, target: &Target) -> Result<Vec<Value>> {
    let object = select::object(session, target).await?;
    if target.found.resource.kind == "Pod" && target.found.resource.group.is_empty() {
        return Ok(vec![object]);
    }
    let Some(selector) = pod_selector(&object) else {
        return fail(format!("{} selects no pods", target.object_name()));
    };
    select_pods(session, &target.namespace, &selector).await
}

/// The pods that `selector` selects, the best to talk to first.
pub(crate) async fn select_pods(session: &Session, namespace: &str, selector: &str) -> Result<Vec<Value>> {
    let all = Target {
        found: pods_resource(session).await?,
        namespace: namespace.to_owned(),
        name: None,
        object: None,
        source: None,
    };
    let mut pods = select::list(session, &all, &[("labelSelector", selector.to_owned())]).await?;
    pods.sort_by_cached_key(|pod| {
        let ready = condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
        let running = pod["status"]["phase"] == "Running";
        let created = pod["metadata"]["creationTimestamp"].as_str().unwrap_or("").to_owned();
        (!running, !ready, created)
    });
    Ok(pods)
}

/// One pod of `target` to talk to.
pub(crate) async fn one_pod(session: &Session, target: &Target) -> Result<Value> {
    let mut pods = pods(session, target).await?;
    if pods.is_empty() {
        return fail(format!("no pods found for {}", target.object_name()));
    }
    Ok(pods.remove(0))
}

/// A condition of an object.
pub(crate) fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == name)
}

/// `metadata.name`
pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or("")
}

/// The names of a pod's containers, the ordinary ones first.
pub(crate) fn containers(pod: &Value) -> Vec<String> {
    let of = |field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
    let all = of("containers").into_iter().chain(of("initContainers")).chain(of("ephemeralContainers"));
    all.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
}

/// The container that is meant: the one named, the annotated one, or the first (which is then told).
pub(crate) fn container(pod: &Value, asked: Option<&str>, quiet: bool) -> Result<String> {
    let all = containers(pod);
    if let Some(asked) = asked {
        if all.iter().any(|c| c == asked) {
            return Ok(asked.to_owned());
        }
        return fail(format!(
            "container {asked} is not valid for pod {} out of: {}",
            name(pod),
            all.join(", ")
        ));
    }
    let annotated = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    if let Some(annotated) = annotated.filter(|a| all.iter().any(|c| c == a)) {
        return Ok(annotated.to_owned());
    }
    let first = all
        .first()
        .cloned()
        .ok_or_else(|| CliError::message(format!("pod {} does not have any containers", name(pod))))?;
    if all.len() > 1 && !quiet {
        eprintln!("Defaulted container {first:?} out of: {}", all.join(", "));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_are_written_as_queries() {
        let service = json!({"kind": "Service", "spec": {"selector": {"app": "web", "tier": "a"}}});
        assert_eq!(pod_selector(&service).as_deref(), Some("app=web,tier=a"));
        let deployment = json!({"kind": "Deployment", "spec": {"selector": {"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "x", "operator": "In", "values": ["1", "2"]}, {"key": "y", "operator": "DoesNotExist"}]}}});
        assert_eq!(pod_selector(&deployment).as_deref(), Some("app=web,x in (1,2),!y"));
        assert_eq!(pod_selector(&json!({"kind": "Service", "spec": {}})), None);
    }

    #[test]
    fn the_container_is_found() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&pod, None, true).expect("the first"), "a");
        assert_eq!(container(&pod, Some("b"), true).expect("the one named"), "b");
        let error = container(&pod, Some("c"), true).expect_err("there is none");
        assert_eq!(error.text(), "error: container c is not valid for pod p out of: a, b");
    }
}
