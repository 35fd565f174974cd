//! Protobuf, as client-go speaks it: objects, lists, errors, watches, in both directions.

use bytes::Bytes;
use gantry_api::protobuf::{from_json, to_json};
use gantry_apiserver::testing::{Answered, http, respond};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::{Lab, MAPS, map};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const CLIENT_GO: &str = "application/vnd.kubernetes.protobuf,application/json";

async fn get(lab: &Lab, path: &str) -> Answered {
    http(&lab.server, "GET", path, &[("accept", CLIENT_GO)], "").await
}

#[track_caller]
fn decoded(answer: &Answered) -> Value {
    assert_eq!(answer.headers["content-type"], PROTOBUF);
    to_json(&answer.bytes).expect("an object in protobuf")
}

/// Lists keep no types of their items.
fn untyped(list: &Value) -> Value {
    let mut list = list.clone();
    for item in list["items"].as_array_mut().expect("items") {
        let item = item.as_object_mut().expect("an object");
        item.remove("apiVersion");
        item.remove("kind");
    }
    list
}

#[tokio::test]
async fn objects_go_both_ways() {
    let lab = Lab::new().await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "250m"}},
            "livenessProbe": {"httpGet": {"port": "web", "path": "/"}}}],
            "volumes": [{"name": "v", "emptyDir": {}}]},
    });
    let body = from_json(pod.to_string().as_bytes()).expect("a pod");
    let headers = [("accept", CLIENT_GO), ("content-type", PROTOBUF)];
    let pods = "/api/v1/namespaces/default/pods";
    let created = http(&lab.server, "POST", pods, &headers, body).await;
    assert_eq!(created.code, 201);
    let json = lab.get(&format!("{pods}/p")).await.json();
    assert_eq!(json["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
    assert_eq!(decoded(&created), json);
    assert_eq!(decoded(&get(&lab, &format!("{pods}/p")).await), json);
    assert_eq!(decoded(&get(&lab, pods).await), untyped(&lab.get(pods).await.json()));

    let missing = get(&lab, &format!("{pods}/q")).await;
    assert_eq!((missing.code, decoded(&missing)["reason"].as_str()), (404, Some("NotFound")));
    let options = from_json(br#"{"apiVersion":"v1","kind":"DeleteOptions","gracePeriodSeconds":0}"#);
    let deleted =
        http(&lab.server, "DELETE", &format!("{pods}/p"), &headers, options.expect("options")).await;
    assert_eq!((deleted.code, decoded(&deleted)["metadata"]["name"].as_str()), (200, Some("p")));
    lab.end().await;
}

#[tokio::test]
async fn a_large_list_is_the_same_in_pieces() {
    let lab = Lab::new().await;
    for i in 0..24 {
        let mut body = map(&format!("m{i:02}"));
        body["data"]["large"] = json!("x".repeat(50_000 + i));
        lab.create(MAPS, &body).await;
    }
    let wanted = untyped(&lab.get(MAPS).await.json());
    // The second time the lengths are known.
    for _ in 0..2 {
        let list = get(&lab, MAPS).await;
        assert_eq!(list.headers["content-length"], list.bytes.len().to_string());
        assert_eq!(decoded(&list), wanted);
    }
    let packed =
        http(&lab.server, "GET", MAPS, &[("accept", CLIENT_GO), ("accept-encoding", "gzip")], "").await;
    assert_eq!(
        (&packed.headers["content-encoding"], &packed.headers["vary"]),
        (&"gzip".parse().unwrap(), &"Accept-Encoding".parse().unwrap())
    );
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed.bytes[..]), &mut bytes)
        .expect("gzip");
    assert_eq!(to_json(&bytes), Ok(wanted));
    let page = decoded(&get(&lab, &format!("{MAPS}?limit=20")).await);
    assert_eq!(page["metadata"]["remainingItemCount"], 4);
    assert!(page["metadata"]["continue"].is_string());
    lab.end().await;
}

#[tokio::test]
async fn what_is_no_object_of_the_resource_goes_both_ways() {
    let lab = Lab::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template});
    let deployment =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
    lab.create(deployments, &deployment).await;
    let path = format!("{deployments}/d/scale");
    let mut scale = lab.get(&path).await.json();
    assert_eq!(decoded(&get(&lab, &path).await), scale);
    scale["spec"]["replicas"] = 3.into();
    let body = from_json(scale.to_string().as_bytes()).expect("a scale");
    let headers = [("accept", CLIENT_GO), ("content-type", PROTOBUF)];
    let put = http(&lab.server, "PUT", &path, &headers, body).await;
    assert_eq!((put.code, &decoded(&put)["spec"]), (200, &json!({"replicas": 3})));

    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": template["spec"]});
    lab.create(pods, &pod).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let body = from_json(binding.to_string().as_bytes()).expect("a binding");
    let bound = http(&lab.server, "POST", &format!("{pods}/p/binding"), &headers, body).await;
    assert_eq!((bound.code, decoded(&bound)["status"].as_str()), (201, Some("Success")));
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let body = from_json(eviction.to_string().as_bytes()).expect("an eviction");
    let evicted = http(&lab.server, "POST", &format!("{pods}/p/eviction"), &headers, body).await;
    assert_eq!((evicted.code, decoded(&evicted)["kind"].as_str()), (201, Some("Status")));
    lab.end().await;
}

/// One field with bytes, of a number below 16.
fn field<'a>(bytes: &mut &'a [u8]) -> (u8, &'a [u8]) {
    let number = bytes[0] >> 3;
    let (mut length, mut at) = (0usize, 1);
    loop {
        length |= usize::from(bytes[at] & 0x7f) << (7 * (at - 1));
        at += 1;
        if bytes[at - 1] & 0x80 == 0 {
            break;
        }
    }
    let (value, rest) = bytes[at..].split_at(length);
    *bytes = rest;
    (number, value)
}

/// Reads the frames of a watch: four bytes of length, then a WatchEvent.
async fn events(lab: &Lab, path: &str, accept: &str, count: usize) -> Vec<(String, Value)> {
    let response = respond(&lab.server, "GET", path, &[("accept", accept)], Bytes::new()).await;
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let mut body = response.into_body();
    let (mut bytes, mut found) = (Vec::new(), Vec::new());
    while found.len() < count {
        let frame = body.frame().await.expect("more events").expect("a whole body");
        bytes.extend_from_slice(&frame.into_data().expect("data"));
        while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            if rest.len() < length {
                break;
            }
            let mut event = &rest[..length];
            let (kind, mut raw) = (field(&mut event), field(&mut event));
            assert_eq!((kind.0, raw.0, event.len()), (1, 2, 0));
            let (_, object) = field(&mut raw.1);
            found.push((
                String::from_utf8(kind.1.to_vec()).expect("text"),
                to_json(object).expect("an object"),
            ));
            bytes.drain(..4 + length);
        }
    }
    found
}

#[tokio::test]
async fn watches_are_framed() {
    let lab = Lab::new().await;
    let start = lab.create(MAPS, &map("a")).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    lab.patch(&format!("{MAPS}/a"), "merge-patch+json", &json!({"data": {"b": "1"}})).await;
    let after = lab.get(&format!("{MAPS}/a")).await.json();
    lab.send("DELETE", &format!("{MAPS}/a"), &json!({})).await;
    let path = format!("{MAPS}?watch=true&resourceVersion={start}");
    // Two watchers share the frames.
    for _ in 0..2 {
        let seen = events(&lab, &path, CLIENT_GO, 2).await;
        assert_eq!((seen[0].0.as_str(), &seen[0].1), ("MODIFIED", &after));
        assert_eq!(seen[1].0, "DELETED");
    }
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let (_, first) = &events(&lab, &path, &partial, 1).await[0];
    assert_eq!((first["kind"].as_str(), first.get("data")), (Some("PartialObjectMetadata"), None));
    assert_eq!(first["metadata"], after["metadata"]);
    let streaming = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&resourceVersion="
    );
    let (kind, bookmark) = &events(&lab, &streaming, CLIENT_GO, 1).await[0];
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    lab.end().await;
}

#[tokio::test]
async fn custom_resources_have_only_their_metadata_in_protobuf() {
    let lab = Lab::new().await;
    crate::custom::define(&lab).await;
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "t"}, "spec": {"size": 1}});
    lab.create(widgets, &widget).await;
    let one = get(&lab, &format!("{widgets}/t")).await;
    assert_eq!((one.code, &one.headers["content-type"]), (200, &"application/json".parse().unwrap()));
    let only = http(&lab.server, "GET", widgets, &[("accept", PROTOBUF)], "").await;
    assert_eq!(only.code, 406);
    assert_eq!(
        decoded(&only)["message"],
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    let partial = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json");
    let list = decoded(&http(&lab.server, "GET", widgets, &[("accept", &partial)], "").await);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"], one.json()["metadata"]);
    lab.end().await;
}

#[test]
fn every_kind_has_a_message() {
    for kind in gantry_kinds::builtin() {
        let resource = kind.resource();
        for name in [resource.kind.to_string(), format!("{}List", resource.kind)] {
            let version = resource.api_version();
            assert!(gantry_api::protobuf::definition(&version, &name).is_some(), "{version} {name}");
        }
    }
}
