//! Options of lists and watches, and forms, that are refused, in upstream's words (Kubernetes 1.36).

use gantry_apiserver::testing::http;
use serde_json::json;

use crate::{Lab, MAPS};

const MATCH: &str = "resourceVersionMatch: Forbidden: ";

#[tokio::test]
async fn options_that_do_not_go_together() {
    let lab = Lab::new().await;
    let unless = format!("{MATCH}resourceVersionMatch is forbidden unless resourceVersion is provided");
    let continued = format!("{MATCH}resourceVersionMatch is forbidden when continue is provided");
    let for_watch =
        format!("{MATCH}resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
    let requires = format!("{MATCH}sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    let only = "resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"";
    let number = "strconv.ParseUint: parsing \"x\": invalid syntax";
    let cases = [
        ("resourceVersionMatch=Exact", 422, unless.clone()),
        ("resourceVersionMatch=NotOlderThan", 422, unless.clone()),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            422,
            format!("{MATCH}resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
        ),
        (
            "resourceVersionMatch=foo&resourceVersion=1",
            422,
            "resourceVersionMatch: Unsupported value: \"foo\": supported values: \"Exact\", \"NotOlderThan\", \"\"".to_owned(),
        ),
        ("continue=abc&resourceVersionMatch=Exact", 422, format!("[{unless}, {continued}]")),
        ("sendInitialEvents=true", 422, "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list".to_owned()),
        ("watch=1&sendInitialEvents=true", 422, requires.clone()),
        ("watch=1&sendInitialEvents=false", 422, requires.clone()),
        ("watch=1&sendInitialEvents=true&resourceVersionMatch=Exact", 422, format!("[{requires}, {only}]")),
        ("watch=1&resourceVersionMatch=NotOlderThan", 422, for_watch.clone()),
        ("watch=1&resourceVersionMatch=Exact&resourceVersion=1", 422, format!("[{for_watch}, {only}]")),
        ("watch=1&continue=abc", 422, continued.clone()),
    ];
    for (query, code, errors) in cases {
        let found = lab.get(&format!("{MAPS}?{query}")).await;
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {errors}");
        assert_eq!((found.code, found.json()["message"].as_str()), (code, Some(message.as_str())), "{query}");
    }
    let cases = [
        ("resourceVersion=x", 400, format!("invalid resource version: resourceVersion: Invalid value: \"x\": {number}")),
        ("watch=1&resourceVersion=x", 500, format!("resourceVersion: Invalid value: \"x\": {number}")),
        ("limit=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
        ("watch=1&timeoutSeconds=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
        ("labelSelector=a=b=c", 400, "found '=', expected: ',' or 'end of string'".to_owned()),
        ("labelSelector=,", 400, "found ',', expected: !, identifier, or 'end of string'".to_owned()),
        ("labelSelector=a%20b", 400, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt".to_owned()),
        ("labelSelector=a%20in%20b", 400, "unable to parse requirement: found 'b' expected: '('".to_owned()),
        ("labelSelector=a%20in%20(", 400, "unable to parse requirement: found '', expected: ',', ')' or identifier".to_owned()),
        ("labelSelector=!", 400, "unable to parse requirement: found '', expected: identifier".to_owned()),
        ("labelSelector=a=b,", 400, "found '', expected: identifier after ','".to_owned()),
        (
            "labelSelector=a%3Eb",
            400,
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer".to_owned(),
        ),
        ("fieldSelector=metadata.name", 400, "invalid selector: 'metadata.name'; can't understand 'metadata.name'".to_owned()),
        ("fieldSelector=metadata.name=a,b", 400, "invalid selector: 'metadata.name=a,b'; can't understand 'b'".to_owned()),
        (
            "fieldSelector=foo=bar",
            400,
            "\"foo\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"".to_owned(),
        ),
        (
            "continue=abc",
            400,
            "invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value".to_owned(),
        ),
    ];
    for (query, code, message) in cases {
        let found = lab.get(&format!("{MAPS}?{query}")).await;
        assert_eq!((found.code, found.json()["message"].as_str()), (code, Some(message.as_str())), "{query}");
    }
    lab.end().await;
}

#[tokio::test]
async fn forms_that_nobody_serves() {
    let lab = Lab::new().await;
    let streams = ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    let objects = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let routes =
        |streams: &str| format!("406: Not Acceptable\n\nAvailable representations: {objects}{streams}");
    let only = |types: &str| format!("only the following media types are accepted: {types}");
    let (list, watch, object) =
        (MAPS.to_owned(), format!("{MAPS}?watch=1"), "/api/v1/namespaces/default".to_owned());
    let cases = [
        (&list, "application/cbor", routes(streams)),
        (&watch, "application/cbor-seq", routes(streams)),
        (&list, "application/*", routes(streams)),
        (&object, "application/cbor", routes("")),
        (&list, "application/json;stream=foo", only(objects)),
        (&watch, "application/json;stream=foo", only(objects)),
        (&list, "application/json;as=Foo;g=meta.k8s.io;v=v1", only(objects)),
        (&watch, "application/yaml", only(&streams[2..])),
    ];
    for (path, accept, message) in cases {
        let found = http(&lab.server, "GET", path, &[("accept", accept)], "").await;
        let text = String::from_utf8_lossy(&found.bytes);
        // Who takes YAML is told in YAML.
        if accept == "application/yaml" {
            assert!(found.code == 406 && text.contains("stream=watch"), "{text}");
            continue;
        }
        assert_eq!(
            (found.code, found.json()["message"].as_str()),
            (406, Some(message.as_str())),
            "{path} {accept}"
        );
    }
    for accept in ["application/cbor, application/json", "*/*;q=0.1", "", "application/json;stream=watch"] {
        assert_eq!(http(&lab.server, "GET", MAPS, &[("accept", accept)], "").await.code, 200, "{accept}");
    }
    for media in ["application/cbor", "text/plain"] {
        let found = http(&lab.server, "POST", MAPS, &[("content-type", media)], "x").await;
        assert_eq!((found.code, found.json()["reason"].as_str()), (415, Some("UnsupportedMediaType")));
    }
    lab.end().await;
}

#[tokio::test]
async fn the_old_paths_of_watches() {
    let lab = Lab::new().await;
    let refused = lab.send("POST", "/api/v1/watch/nodes", &json!({})).await;
    assert_eq!((refused.code, refused.json()["reason"].as_str()), (405, Some("MethodNotAllowed")));
    assert_eq!(lab.get("/api/v1/watch/foo").await.code, 404);
    lab.create(MAPS, &crate::map("a")).await;
    lab.create(MAPS, &crate::map("b")).await;
    for (path, names) in [
        ("/api/v1/watch/namespaces/default/configmaps", &["a", "b"][..]),
        ("/api/v1/watch/configmaps", &["a", "b"]),
        ("/api/v1/watch/namespaces/default/configmaps/b", &["b"]),
    ] {
        let found = http(&lab.server, "GET", &format!("{path}?timeoutSeconds=1&watch=0"), &[], "").await;
        assert_eq!(found.code, 200, "{path}");
        let text = String::from_utf8_lossy(&found.bytes).into_owned();
        let seen: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an event"))
            .map(|event| event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(seen, names, "{path}");
    }
    lab.end().await;
}
