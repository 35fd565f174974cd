//! Tables, partial metadata, discovery, health.

use gantry_apiserver::testing::http;
use serde_json::json;

use crate::{Lab, MAPS, map};

#[tokio::test]
async fn tables_and_metadata_are_derived() {
    let lab = Lab::new().await;
    lab.create(MAPS, &map("a")).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let answer = http(&lab.server, "GET", MAPS, &[("accept", table)], "").await.json();
    assert_eq!(
        (answer["kind"].as_str(), answer["apiVersion"].as_str()),
        (Some("Table"), Some("meta.k8s.io/v1"))
    );
    let titles: Vec<&str> = answer["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(titles, ["Name", "Data", "Age"]);
    assert_eq!(answer["rows"][0]["cells"][0], "a");
    assert_eq!(answer["rows"][0]["cells"][1], 1);
    assert_eq!(answer["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let one = http(&lab.server, "GET", &format!("{MAPS}/a?includeObject=None"), &[("accept", table)], "")
        .await
        .json();
    assert_eq!(one["rows"][0]["object"], json!(null));
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = http(&lab.server, "GET", MAPS, &[("accept", partial)], "").await.json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0].get("data").is_none());
    let list = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    crate::refused(
        &http(&lab.server, "GET", MAPS, &[("accept", list)], "").await,
        406,
        "NotAcceptable",
        "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)",
    );
    let bad = http(&lab.server, "GET", &format!("{MAPS}?includeObject=x"), &[("accept", table)], "").await;
    crate::refused(
        &bad,
        400,
        "BadRequest",
        "Unable to convert to Table as requested: includeObject: Invalid value: \"x\": must be 'Metadata', 'Object', 'None', or empty",
    );
    let old = http(
        &lab.server,
        "GET",
        MAPS,
        &[("accept", "application/json;as=Table;v=v1beta1;g=meta.k8s.io")],
        "",
    );
    let old = old.await.json();
    assert_eq!(old["apiVersion"], "meta.k8s.io/v1beta1");
    assert_eq!(old["rows"][0]["object"]["apiVersion"], "meta.k8s.io/v1beta1");
    let people = http(&lab.server, "GET", MAPS, &[("user-agent", "curl/8")], "").await;
    assert!(people.bytes.starts_with(b"{\n  \""));
    let yaml = http(&lab.server, "GET", &format!("{MAPS}/a"), &[("accept", "application/yaml")], "").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(String::from_utf8_lossy(&yaml.bytes).contains("kind: ConfigMap\n"));
    assert_eq!(http(&lab.server, "HEAD", MAPS, &[], "").await.code, 405);
    lab.end().await;
}

#[tokio::test]
async fn large_lists_are_compressed_for_those_who_accept_it() {
    let lab = Lab::new().await;
    for name in ["a", "b", "c"] {
        let mut body = map(name);
        body["data"]["large"] = json!("x".repeat(100_000));
        lab.create(MAPS, &body).await;
    }
    let answer = http(&lab.server, "GET", MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(answer.headers["content-encoding"], "gzip");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&answer.bytes[..]), &mut text)
        .expect("gzip");
    let plain = lab.get(MAPS).await;
    assert_eq!(plain.headers["content-length"], plain.bytes.len().to_string());
    assert_eq!(text.as_bytes(), &plain.bytes[..]);
    lab.end().await;
}

#[tokio::test]
async fn discovery_lists_what_is_served() {
    let lab = Lab::new().await;
    let core = lab.get("/api/v1").await.json();
    let find = |list: &serde_json::Value, name: &str| {
        list["resources"].as_array().and_then(|r| r.iter().find(|r| r["name"] == name).cloned())
    };
    let pods = find(&core, "pods").expect("pods");
    assert_eq!(pods["shortNames"], json!(["po"]));
    assert!(find(&core, "pods/log").is_some() && find(&core, "pods/binding").is_some());
    let apps = lab.get("/apis/apps/v1").await.json();
    // The first eight bytes of the SHA-256 of apps/v1/Deployment.
    assert_eq!(find(&apps, "deployments").expect("deployments")["storageVersionHash"], "8aSe+NMegvE=");
    let client_go = "application/vnd.kubernetes.protobuf,application/json";
    for path in ["/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1"] {
        let answer = http(&lab.server, "GET", path, &[("accept", client_go)], "").await;
        assert_eq!(answer.headers["content-type"], "application/vnd.kubernetes.protobuf", "{path}");
        let mut json = lab.get(path).await.json();
        json["apiVersion"] = json.get("apiVersion").cloned().unwrap_or_else(|| "".into());
        assert_eq!(gantry_api::protobuf::to_json(&answer.bytes), Ok(json), "{path}");
    }
    assert_eq!(find(&apps, "deployments/scale").expect("scale")["group"], "autoscaling");
    let groups = lab.get("/apis").await.json();
    assert!(groups["groups"].as_array().is_some_and(|g| g.iter().any(|g| g["name"] == "apps")));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let whole = http(&lab.server, "GET", "/apis", &[("accept", accept)], "").await;
    assert_eq!(whole.json()["kind"], "APIGroupDiscoveryList");
    let tag = whole.headers["etag"].to_str().expect("a tag").to_owned();
    let same = http(&lab.server, "GET", "/apis", &[("accept", accept), ("if-none-match", &tag)], "").await;
    assert_eq!(same.code, 304);
    assert_eq!(
        (&whole.headers["cache-control"], &whole.headers["vary"]),
        (&"public".parse().unwrap(), &"Accept".parse().unwrap())
    );
    let binary = accept.replace("application/json;", "application/vnd.kubernetes.protobuf;");
    let binary = http(&lab.server, "GET", "/apis", &[("accept", &binary)], "").await;
    assert_eq!(
        binary.headers["content-type"],
        "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let mut whole = whole.json();
    without_empty_texts(&mut whole);
    assert_eq!(gantry_api::protobuf::to_json(&binary.bytes), Ok(whole));
    let gone = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
    assert_eq!(http(&lab.server, "GET", "/apis", &[("accept", gone)], "").await.code, 406);
    let version = http(&lab.server, "GET", "/version", &[("accept", client_go)], "").await;
    assert_eq!(version.json()["minor"], "36");
    assert!(version.bytes.starts_with(b"{\n  \""), "for people");
    assert_eq!(&lab.get("/readyz").await.bytes[..], b"ok");
    assert_eq!(
        lab.get("/openapi/v3").await.json()["paths"]["api/v1"]["serverRelativeURL"]
            .as_str()
            .map(|u| &u[..16]),
        Some("/openapi/v3/api/")
    );
    lab.server.health().add("never", Box::new(|| Err("not today".to_owned())));
    assert_eq!(lab.get("/readyz?verbose").await.code, 500);
    let metrics = lab.get("/metrics").await;
    assert!(String::from_utf8_lossy(&metrics.bytes).contains("apiserver_request_total{"));
    lab.end().await;
}

#[tokio::test]
async fn what_the_server_is_and_was_told_are_pages_and_objects() {
    let lab = Lab::new().await;
    let get = |path: &'static str, accept: &'static str| {
        let server = lab.server.clone();
        async move { http(&server, "GET", path, &[("accept", accept)], "").await }
    };
    for (path, kind) in [("/statusz", "Statusz"), ("/flagz", "Flagz")] {
        let page = get(path, "*/*").await;
        assert_eq!(page.headers["content-type"], "text/plain; charset=utf-8");
        let title = format!("\napiserver {}\nWarning: This endpoint is not meant", &path[1..]);
        assert!(String::from_utf8_lossy(&page.bytes).starts_with(&title), "{path}");
        assert_eq!(get(path, "application/json").await.code, 406, "{path}: of no version");
        assert_eq!(
            get(path, "application/json").await.json()["message"],
            "only the following media types are accepted: application/json, application/yaml, text/plain"
        );
        let wanted = |version| format!("application/json;as={kind};v={version};g=config.k8s.io");
        let ask = |version| {
            let (server, accept) = (lab.server.clone(), wanted(version));
            async move { http(&server, "GET", path, &[("accept", accept.as_str())], "").await }
        };
        let object = ask("v1beta1").await;
        let media = format!("application/json;g=config.k8s.io;v=v1beta1;as={kind}");
        assert_eq!(object.headers["content-type"], media.as_str());
        assert!(object.headers.get("warning").is_none());
        let object = object.json();
        assert_eq!((&object["kind"], &object["metadata"]["name"]), (&kind.into(), &"apiserver".into()));
        let warned = ask("v1alpha1").await;
        let warning = format!(
            "299 - \"This version of the {} endpoint is deprecated. Please use a newer version.\"",
            &path[1..]
        );
        assert_eq!(warned.headers["warning"], warning.as_str());
        assert_eq!(ask("v1").await.code, 406);
    }
    lab.end().await;
}

const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

#[tokio::test]
async fn openapi_is_published_for_old_and_new_clients() {
    let lab = Lab::new().await;
    let before = lab.get("/openapi/v2").await;
    assert_eq!(
        (&before.headers["content-type"], &before.headers["vary"]),
        (&"application/json".parse().unwrap(), &"Accept".parse().unwrap())
    );
    let tag = before.headers["etag"].to_str().unwrap().to_owned();
    let same = http(&lab.server, "GET", "/openapi/v2", &[("if-none-match", &tag)], "").await;
    assert_eq!((same.code, same.bytes.len()), (304, 0));
    let old = http(&lab.server, "GET", "/openapi/v2", &[("accept", GNOSTIC)], "").await;
    assert_eq!(old.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    // `Document.swagger`
    assert!(old.bytes.windows(5).any(|w| w == b"\n\x032.0"));
    let none = http(&lab.server, "GET", "/openapi/v2", &[("accept", "text/html")], "").await;
    assert_eq!(none.code, 406);

    crate::custom::define(&lab).await;
    let after = lab.get("/openapi/v2").await.json();
    let widget = &after["definitions"]["com.example.v1.Widget"];
    assert_eq!(widget["properties"]["spec"]["properties"]["color"], json!({"type": "string"}));
    assert_eq!(
        after["definitions"]["com.example.v1.WidgetList"]["description"],
        "WidgetList is a list of Widget"
    );
    assert!(
        after["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}/scale"]["get"].is_object()
    );
    assert!(after["definitions"]["io.k8s.api.core.v1.Pod"].is_object());

    let index = lab.get("/openapi/v3").await.json();
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let named = http(&lab.server, "GET", url, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(
        (&named.headers["cache-control"], &named.headers["content-encoding"]),
        (&"public, immutable".parse().unwrap(), &"gzip".parse().unwrap())
    );
    assert!(named.headers["expires"].to_str().unwrap().ends_with(" GMT"));
    let moved = lab.get(&format!("{}0", url)).await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (301, url));
    let widget = &lab.get(url).await.json()["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(widget["properties"]["spec"]["properties"]["color"]["default"], "red");

    lab.send(
        "DELETE",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com",
        &json!({}),
    )
    .await;
    crate::custom::eventually(&lab, "/openapi/v2", |_, d| {
        d["definitions"]["com.example.v1.Widget"].is_null()
    })
    .await;
    assert_eq!(lab.get(url).await.code, 404);
    lab.end().await;
}

/// Protobuf does not write them.
fn without_empty_texts(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, value| value != "");
            map.values_mut().for_each(without_empty_texts);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(without_empty_texts),
        _ => {}
    }
}
