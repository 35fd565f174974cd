//! Every resource that is served, through its life.

use std::collections::BTreeMap;

use futures::FutureExt;
use gantry_apiserver::testing::{http, respond};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::{Lab, refused};

const TABLE: (&str, &str) = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
/// A request for `CN=jane, O=dev`, made by openssl.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIWU1IOENBUUF3SFRFTk1Bc0dBMVVFQXd3RWFtRnVaVEVNTUFvR0ExVUVDZ3dEWkdWMk1Ga3dFd1lIS29aSQp6ajBDQVFZSUtvWkl6ajBEQVFjRFFnQUVJbFJ3di9XWXhyUXgzNWlZazc5QWlYVzVIb2kzM3czOWhlUWFqVmp6CnN3bVlGenJFKzFyOWVPWE9IMWhEbnU1aitCUXBaWVVuY0pleU1sL3hsYVprWUtBQU1Bb0dDQ3FHU000OUJBTUMKQTBrQU1FWUNJUUNDTGFQdXJBZHZUcmNqeG54SVBDb01jSnlqRVhQRjdGMnRRYmJ6MzBQc0hRSWhBTFJUdVBCTgoybW44c2VvN3o1QktpVWhSN3JSdGZrcng5RFBhOElJTURTK3kKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

/// A resource as discovery lists it.
struct Listed {
    /// `/api/v1`, `/apis/apps/v1`
    root: String,
    plural: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<String>,
    parts: Vec<String>,
}

impl Listed {
    fn group_version(&self) -> &str {
        self.root.trim_start_matches("/apis/").trim_start_matches("/api/")
    }

    fn collection(&self) -> String {
        let place = if self.namespaced { "/namespaces/default" } else { "" };
        format!("{}{place}/{}", self.root, self.plural)
    }
}

async fn listed(lab: &Lab) -> Vec<Listed> {
    let mut roots = vec!["/api/v1".to_owned()];
    let groups = lab.get("/apis").await.json();
    for group in groups["groups"].as_array().expect("groups") {
        for version in group["versions"].as_array().expect("versions") {
            roots.push(format!("/apis/{}", version["groupVersion"].as_str().expect("a version")));
        }
    }
    let mut all: Vec<Listed> = Vec::new();
    for root in roots {
        let list = lab.get(&root).await.json();
        for resource in list["resources"].as_array().expect("resources") {
            let name = resource["name"].as_str().expect("a name");
            let Some((plural, part)) = name.split_once('/') else {
                all.push(Listed {
                    root: root.clone(),
                    plural: name.to_owned(),
                    kind: resource["kind"].as_str().expect("a kind").to_owned(),
                    namespaced: resource["namespaced"] == true,
                    verbs: serde_json::from_value(resource["verbs"].clone()).expect("verbs"),
                    parts: Vec::new(),
                });
                continue;
            };
            let whole = all.iter_mut().rfind(|l| l.root == root && l.plural == plural).expect("the whole");
            whole.parts.push(part.to_owned());
        }
    }
    all
}

fn template() -> Value {
    json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    })
}

fn job() -> Value {
    let mut template = template();
    template["spec"]["restartPolicy"] = "Never".into();
    json!({"template": template})
}

/// The least that makes a valid object, besides its name.
#[allow(clippy::too_many_lines, reason = "a table")]
fn minimal(group_version: &str, plural: &str) -> Option<Value> {
    let selector = json!({"matchLabels": {"a": "b"}});
    let hook = json!({
        "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": "https://example.com"},
    });
    let rules = json!({"resourceRules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    ]});
    let devices = json!({"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "c"}}]}});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"});
    let scale = json!({"spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    Some(match (group_version, plural) {
        ("v1", "configmaps" | "endpoints" | "namespaces" | "nodes" | "secrets" | "serviceaccounts") => {
            json!({})
        }
        ("v1", "events") => {
            json!({"involvedObject": {"namespace": "default", "name": "p"}, "type": "Normal"})
        }
        ("v1", "limitranges") => json!({"spec": {"limits": [{"type": "Pod"}]}}),
        ("v1", "persistentvolumes") => json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"},
        }}),
        ("v1", "persistentvolumeclaims") => json!({"spec": claim}),
        ("v1", "pods") => json!({"spec": template()["spec"]}),
        ("v1", "podtemplates") => json!({"template": template()}),
        ("v1", "replicationcontrollers") => json!({"spec": {"template": template()}}),
        ("v1", "resourcequotas") => json!({"spec": {"hard": {"pods": "1"}}}),
        ("v1", "services") => json!({"spec": {"ports": [{"port": 80}]}}),
        ("apps/v1", "controllerrevisions") => json!({"revision": 1, "data": {"a": 1}}),
        ("apps/v1", "statefulsets") => {
            json!({"spec": {"selector": selector, "template": template(), "serviceName": "s"}})
        }
        ("apps/v1", _) => json!({"spec": {"selector": selector, "template": template()}}),
        ("autoscaling/v1" | "autoscaling/v2", _) => scale,
        ("batch/v1", "jobs") => json!({"spec": job()}),
        ("batch/v1", "cronjobs") => json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": job()}}}),
        ("certificates.k8s.io/v1", _) => json!({"spec": {
            "request": REQUEST, "usages": ["client auth"], "signerName": "example.com/s",
        }}),
        ("coordination.k8s.io/v1", "leases") => json!({"spec": {}}),
        ("discovery.k8s.io/v1", _) => json!({"addressType": "IPv4", "endpoints": []}),
        ("events.k8s.io/v1", _) => json!({
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c", "reportingInstance": "i",
            "action": "a", "reason": "r", "type": "Normal", "regarding": {"namespace": "default", "name": "p"},
        }),
        ("flowcontrol.apiserver.k8s.io/v1", "flowschemas") => {
            json!({"spec": {"priorityLevelConfiguration": {"name": "p"}}})
        }
        ("flowcontrol.apiserver.k8s.io/v1", _) => {
            json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}})
        }
        ("networking.k8s.io/v1", "ingresses") => {
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}})
        }
        ("networking.k8s.io/v1", "ingressclasses") => json!({"spec": {"controller": "example.com/c"}}),
        ("networking.k8s.io/v1", "ipaddresses") => {
            json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": {"resource": "services", "name": "s"}}})
        }
        ("networking.k8s.io/v1", "networkpolicies") => json!({"spec": {}}),
        ("networking.k8s.io/v1", "servicecidrs") => json!({"spec": {"cidrs": ["10.0.0.0/16"]}}),
        ("node.k8s.io/v1", _) => json!({"handler": "runc"}),
        ("policy/v1", _) => json!({"spec": {"minAvailable": 1, "selector": selector}}),
        ("rbac.authorization.k8s.io/v1", "roles" | "clusterroles") => json!({"rules": []}),
        ("rbac.authorization.k8s.io/v1", _) => json!({"roleRef": role}),
        ("resource.k8s.io/v1", "deviceclasses") => json!({"spec": {}}),
        ("resource.k8s.io/v1", "resourceclaims") => json!({"spec": devices}),
        ("resource.k8s.io/v1", "resourceclaimtemplates") => json!({"spec": {"spec": devices}}),
        ("resource.k8s.io/v1", "resourceslices") => json!({"spec": {
            "driver": "d.example.com", "nodeName": "n", "pool": {"name": "n", "generation": 0, "resourceSliceCount": 1},
        }}),
        ("scheduling.k8s.io/v1", "priorityclasses") => json!({"value": 1}),
        ("storage.k8s.io/v1", "csidrivers") => json!({"spec": {}}),
        ("storage.k8s.io/v1", "csinodes") => json!({"spec": {"drivers": []}}),
        ("storage.k8s.io/v1", "csistoragecapacities") => json!({"storageClassName": "s"}),
        ("storage.k8s.io/v1", "storageclasses") => json!({"provisioner": "example.com/p"}),
        ("storage.k8s.io/v1", "volumeattachments") => {
            json!({"spec": {"attacher": "a.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}})
        }
        ("storage.k8s.io/v1", "volumeattributesclasses") => {
            json!({"driverName": "d.example.com", "parameters": {"a": "b"}})
        }
        (
            "admissionregistration.k8s.io/v1",
            "mutatingwebhookconfigurations" | "validatingwebhookconfigurations",
        ) => {
            json!({"webhooks": [hook]})
        }
        ("admissionregistration.k8s.io/v1", "validatingadmissionpolicies") => {
            json!({"spec": {"matchConstraints": rules, "validations": [{"expression": "true"}]}})
        }
        ("admissionregistration.k8s.io/v1", "mutatingadmissionpolicies") => json!({"spec": {
            "matchConstraints": rules, "reinvocationPolicy": "Never", "mutations": [{
                "patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"},
            }],
        }}),
        ("admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings") => {
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}})
        }
        ("admissionregistration.k8s.io/v1", "mutatingadmissionpolicybindings") => {
            json!({"spec": {"policyName": "p"}})
        }
        ("apiregistration.k8s.io/v1", _) => json!({"metadata": {"name": "v1.example.com"}, "spec": {
            "group": "example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 1,
        }}),
        ("apiextensions.k8s.io/v1", _) => json!({"metadata": {"name": "things.example.org"}, "spec": {
            "group": "example.org", "scope": "Cluster", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }],
        }}),
        _ => return None,
    })
}

async fn watched(lab: &Lab, path: &str) -> Vec<Value> {
    let response = respond(&lab.server, "GET", path, &[], "").await;
    let bytes = response.into_body().collect().await.expect("a whole watch").to_bytes();
    serde_json::Deserializer::from_slice(&bytes).into_iter().map(|event| event.expect("an event")).collect()
}

/// Waits until the object is not there any more: a definition's objects go first.
async fn gone(lab: &Lab, path: &str) {
    for _ in 0..500 {
        if lab.get(path).await.code == 404 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{path} stays");
}

async fn live(lab: &Lab, resource: &Listed) {
    let (about, collection) = (format!("{}/{}", resource.root, resource.plural), resource.collection());
    let mut object = minimal(resource.group_version(), &resource.plural)
        .unwrap_or_else(|| panic!("{about} has no minimal object"));
    object["apiVersion"] = resource.group_version().into();
    object["kind"] = resource.kind.as_str().into();
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = "x".into();
    }
    object["metadata"]["labels"]["made"] = "yes".into();
    let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
    let path = format!("{collection}/{name}");
    let start = lab.get(&collection).await.json();
    assert_eq!(start["kind"], format!("{}List", resource.kind), "{about}");
    assert_eq!(start["apiVersion"], resource.group_version());
    let start = start["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();

    let created = lab.send("POST", &collection, &object).await;
    assert_eq!(created.code, 201, "{about}: {}", created.json());
    let created = created.json();
    let gvk = |value: &Value| (value["apiVersion"].clone(), value["kind"].clone());
    assert_eq!(gvk(&created), gvk(&object), "{about}");
    let managed = &created["metadata"]["managedFields"][0];
    assert_eq!(managed["apiVersion"], object["apiVersion"], "{about}");
    let read = lab.get(&path).await.json();
    assert_eq!(read, created, "{about}");

    let list = lab.get(&collection).await.json();
    assert!(list["items"].as_array().expect("items").iter().any(|i| i["metadata"]["name"] == *name));
    let table = http(&lab.server, "GET", &collection, &[TABLE], "").await.json();
    assert_eq!(table["kind"], "Table", "{about}: {table}");
    // Upstream's rows of addresses have an age, for which there is no column.
    let more = usize::from(resource.kind == "IPAddress");
    let columns = table["columnDefinitions"].as_array().expect("columns").len() + more;
    for row in table["rows"].as_array().expect("rows") {
        assert_eq!(row["cells"].as_array().expect("cells").len(), columns, "{about}: {table}");
    }
    let first = &table["columnDefinitions"][0]["name"];
    assert!(first == "Name" || (resource.kind == "Event" && first == "Last Seen"), "{about}: {first}");

    for (kind, labels) in [("merge-patch+json", "merge"), ("strategic-merge-patch+json", "strategic")] {
        let patch = json!({"metadata": {"labels": {labels: "yes"}}});
        let patched = lab.patch(&path, kind, &patch).await;
        assert_eq!(patched.code, 200, "{about} {kind}: {}", patched.json());
        assert_eq!(patched.json()["metadata"]["labels"][labels], "yes", "{about}");
    }
    let apply = json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": {"name": name, "labels": {"apply": "yes"}},
    });
    let applied = lab.patch(&format!("{path}?fieldManager=t"), "apply-patch+yaml", &apply).await;
    assert_eq!(applied.code, 200, "{about}: {}", applied.json());
    let entry = json!(applied.json()["metadata"]["managedFields"]);
    let entry =
        entry.as_array().expect("entries").iter().find(|e| e["manager"] == "t").expect("ours").clone();
    assert_eq!(entry["apiVersion"], object["apiVersion"], "{about}");
    assert_eq!(entry["fieldsV1"], json!({"f:metadata": {"f:labels": {"f:apply": {}}}}), "{about}");

    if resource.parts.iter().any(|p| p == "status") {
        let status_path = format!("{path}/status");
        let status = lab.get(&status_path).await;
        assert_eq!((status.code, gvk(&status.json())), (200, gvk(&object)), "{about}");
        let put = lab.send("PUT", &status_path, &status.json()).await;
        assert_eq!(put.code, 200, "{about}: {}", put.json());
        let patched = lab.patch(&status_path, "merge-patch+json", &json!({"status": {}})).await;
        assert_eq!(patched.code, 200, "{about}: {}", patched.json());
    }
    if resource.parts.iter().any(|p| p == "scale") {
        let scale = lab.get(&format!("{path}/scale")).await.json();
        assert_eq!(gvk(&scale), ("autoscaling/v1".into(), "Scale".into()), "{about}");
    }
    let mut whole = lab.get(&path).await.json();
    whole["metadata"]["annotations"]["a"] = "b".into();
    let put = lab.send("PUT", &path, &whole).await;
    assert_eq!(put.code, 200, "{about}: {}", put.json());

    let deleted =
        lab.send("DELETE", &path, &json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"})).await;
    assert_eq!(deleted.code, 200, "{about}: {}", deleted.json());
    if resource.kind == "Namespace" {
        // It stays until it is empty, which is for a controller to see to; and there is no more than that.
        refused(
            &lab.send("DELETE", &collection, &json!({})).await,
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        return;
    }
    gone(lab, &path).await;
    let again = lab.send("POST", &collection, &object).await;
    assert_eq!(again.code, 201, "{about}: {}", again.json());
    let body = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
    let all = lab.send("DELETE", &collection, &body).await;
    assert_eq!(all.code, 200, "{about}: {}", all.json());
    gone(lab, &path).await;

    let selector =
        format!("resourceVersion={start}&watch=1&timeoutSeconds=1&fieldSelector=metadata.name={name}");
    let events = watched(lab, &format!("{collection}?{selector}")).await;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for event in &events {
        assert_eq!(gvk(&event["object"]), gvk(&object), "{about}: {event}");
        *seen.entry(event["type"].as_str().expect("a type").to_owned()).or_default() += 1;
    }
    assert_eq!((seen["ADDED"], seen["DELETED"]), (2, 2), "{about}: {seen:?}");
    assert!(seen["MODIFIED"] >= 4, "{about}: {seen:?}");
}

#[tokio::test]
async fn every_resource_lives_as_long_as_it_should() {
    let lab = Lab::new().await;
    let all = listed(&lab).await;
    let stored = all.iter().filter(|r| r.verbs.iter().any(|v| v == "watch"));
    // Versions of one resource are one collection: they take turns.
    let mut turns: Vec<Vec<&Listed>> = Vec::new();
    for resource in stored {
        let same = turns.iter_mut().find(|t| t.iter().any(|r| r.plural == resource.plural));
        match same {
            Some(turn) => turn.push(resource),
            None => turns.push(vec![resource]),
        }
    }
    assert!(turns.len() > 55, "{}", turns.len());
    let lab = &lab;
    let lives = turns.into_iter().map(|turn| {
        let life = async move {
            for resource in turn {
                live(lab, resource).await;
            }
        };
        // So that the failures of all of them are told.
        std::panic::AssertUnwindSafe(life).catch_unwind()
    });
    let outcomes = futures::future::join_all(lives).await;
    assert_eq!(outcomes.iter().filter(|o| o.is_err()).count(), 0);
}

#[tokio::test]
async fn component_statuses_are_only_read() {
    let lab = Lab::new().await;
    let all = listed(&lab).await;
    let resource = all.iter().find(|r| r.plural == "componentstatuses").expect("component statuses");
    assert_eq!(resource.verbs, ["get", "list"]);
    let one = lab.get("/api/v1/componentstatuses/scheduler").await;
    let warning = one.headers["warning"].to_str().expect("text");
    assert_eq!(warning, "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    assert_eq!(
        one.json(),
        json!({
            "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": "scheduler"},
            "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}],
        })
    );
    let table = http(&lab.server, "GET", "/api/v1/componentstatuses", &[TABLE], "").await.json();
    let cells: Vec<&Value> = table["rows"].as_array().expect("rows").iter().map(|r| &r["cells"]).collect();
    assert_eq!(cells.len(), 3);
    assert_eq!(*cells[0], json!(["controller-manager", "Healthy", "ok", ""]));
    let list = lab.get("/api/v1/componentstatuses?fieldSelector=metadata.name=etcd-0").await.json();
    assert_eq!(list["kind"], "ComponentStatusList");
    assert_eq!(list["items"][0]["metadata"]["name"], "etcd-0");
    refused(
        &lab.get("/api/v1/componentstatuses/nothing").await,
        404,
        "NotFound",
        "componentstatus \"nothing\" not found",
    );
    let created = lab.send("POST", "/api/v1/componentstatuses", &json!({"metadata": {"name": "x"}})).await;
    assert_eq!(created.code, 405);
}

const SCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";

#[tokio::test]
async fn versions_of_one_resource_show_the_same_objects() {
    let lab = Lab::new().await;
    let older = SCALERS.replace("/v2/", "/v1/");
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let object = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 70},
    });
    lab.create(&older, &object).await;
    let newer = lab.get(&format!("{SCALERS}/h")).await.json();
    assert_eq!(newer["apiVersion"], "autoscaling/v2");
    assert_eq!(newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    // What the older version cannot say is in annotations of it, and only there.
    let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let mut changed = newer.clone();
    changed["spec"]["metrics"].as_array_mut().expect("metrics").push(memory.clone());
    let put = lab.send("PUT", &format!("{SCALERS}/h"), &changed).await;
    assert_eq!(put.code, 200, "{}", put.json());
    let old = lab.get(&format!("{older}/h")).await.json();
    assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 70);
    let text =
        old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].as_str().expect("metrics");
    assert!(text.contains("\"targetAverageValue\":\"1Gi\""), "{text}");
    let patched =
        lab.patch(&format!("{older}/h"), "merge-patch+json", &json!({"spec": {"maxReplicas": 5}})).await;
    assert_eq!(patched.code, 200, "{}", patched.json());
    let new = lab.get(&format!("{SCALERS}/h")).await.json();
    assert_eq!(new["spec"]["maxReplicas"], 5);
    assert!(new["spec"]["metrics"].as_array().expect("metrics").contains(&memory), "{new}");
    assert_eq!(new["metadata"]["annotations"], Value::Null);
    // Each manager is remembered with the version that it spoke.
    let versions: Vec<&str> = new["metadata"]["managedFields"]
        .as_array()
        .expect("managers")
        .iter()
        .filter_map(|m| m["apiVersion"].as_str())
        .collect();
    assert!(versions.contains(&"autoscaling/v1") && versions.contains(&"autoscaling/v2"), "{versions:?}");
    let table = http(&lab.server, "GET", &older, &[TABLE], "").await.json();
    assert_eq!(table["rows"][0]["object"]["apiVersion"], "meta.k8s.io/v1");
    let apply = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"minReplicas": 2},
    });
    let applied =
        lab.patch(&format!("{older}/h?fieldManager=t&force=true"), "apply-patch+yaml", &apply).await;
    assert_eq!(
        (applied.code, &applied.json()["spec"]["minReplicas"]),
        (200, &json!(2)),
        "{}",
        applied.json()
    );
    let new = lab.get(&format!("{SCALERS}/h")).await.json();
    assert_eq!(new["spec"]["minReplicas"], 2);

    // Selectors of the one version work on what was written in the other.
    let events = "/api/v1/namespaces/default/events";
    let regarding = "/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=regarding.name=";
    lab.create(
        events,
        &json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default", "name": "p"}, "reportingComponent": "example.com/c"}),
    )
    .await;
    assert_eq!(lab.get(&format!("{regarding}p")).await.json()["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(lab.get(&format!("{regarding}q")).await.json()["items"].as_array().map(Vec::len), Some(0));
    let by = "/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=reportingController=";
    assert_eq!(
        lab.get(&format!("{by}example.com/c")).await.json()["items"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(
        lab.get(&format!("{by}example.com/d")).await.json()["items"].as_array().map(Vec::len),
        Some(0)
    );
}
