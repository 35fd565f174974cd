//! The documents as clients read them.

use std::sync::Arc;

use gantry_api::schema::lookup_kind;
use serde_json::{Value, json};

use super::{Definition, Document, OpenApi, Served, Subresource};
use crate::structural::CustomSchema;

fn words(text: &str) -> Vec<String> {
    text.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

fn served(group: &str, kind: &str, plural: &str, definition: Definition) -> Served {
    Served {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        plural: plural.into(),
        selectable: Vec::new(),
        namespaced: true,
        verbs: words("create delete deletecollection get list patch update watch"),
        definition,
        subresources: vec![Subresource {
            name: "status".into(),
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            verbs: words("get patch update"),
        }],
    }
}

fn built_in(group: &str, kind: &str, plural: &str) -> Served {
    served(group, kind, plural, Definition::BuiltIn(lookup_kind(group, "v1", kind).unwrap()))
}

fn cron_tab() -> Served {
    let schema = CustomSchema::parse(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "description": "what", "required": ["port"], "properties": {
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"a": {"type": "string"}}},
            "list": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 5}},
            "null": {"type": "string", "nullable": true, "default": "x"}}}}}));
    let schema = Arc::new(schema.unwrap().root().clone());
    served("stable.example.com", "CronTab", "crontabs", Definition::Custom(Some(schema)))
}

fn json(document: &Document) -> Value {
    serde_json::from_slice(&document.body.plain()).unwrap()
}

/// Every `$ref` in a document.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value.as_str().filter(|_| name == "$ref") {
                    Some(target) => found.push(target.to_owned()),
                    None => references(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

fn assert_complete(document: &Value) {
    let mut found = Vec::new();
    references(document, &mut found);
    assert!(!found.is_empty());
    for target in found {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
    }
}

#[test]
fn a_group_has_a_document() {
    let api = OpenApi::new(
        "v1.36.0",
        vec![built_in("", "Pod", "pods"), built_in("apps", "Deployment", "deployments")],
    );
    let index = json(&api.index());
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let apps = api.v3("apis/apps/v1").unwrap();
    assert_eq!(url, format!("/openapi/v3/apis/apps/v1?hash={}", apps.hash));
    assert!(api.v3("apis/batch/v1").is_none());
    let apps = json(&apps);
    assert_complete(&apps);
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let gvk = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], gvk);
    let names: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let ids: Vec<&Value> =
        ["/apis/apps/v1/deployments/get", "/apis/apps/v1/namespaces/{namespace}/deployments/delete"]
            .map(|p| p.rsplit_once('/').unwrap())
            .iter()
            .map(|(path, method)| &apps["paths"][*path][*method]["operationId"])
            .collect();
    assert_eq!(ids, ["listAppsV1DeploymentForAllNamespaces", "deleteAppsV1CollectionNamespacedDeployment"]);

    let schemas = &apps["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"];
    assert_eq!(port["properties"]["protocol"]["default"], "TCP");
    assert_eq!(port["required"], json!(["containerPort"]));
    let spec = &schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
    assert_eq!(spec["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    assert_eq!(spec["default"], json!({}));
    assert!(spec["description"].as_str().unwrap().starts_with("Specification"));
    assert_eq!(schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"], json!([gvk]));
}

#[test]
fn everything_is_in_version_2() {
    let api = OpenApi::new("v1.36.0", vec![built_in("", "Pod", "pods"), cron_tab()]);
    let document = json(&api.v2());
    assert_complete(&document);
    assert_eq!(document["swagger"], "2.0");
    let spec = &document["definitions"]["com.example.stable.v1.CronTab"]["properties"]["spec"];
    let wanted = json!({"type": "object", "description": "what", "required": ["port"], "properties": {
        "port": {"x-kubernetes-int-or-string": true},
        "free": {"x-kubernetes-preserve-unknown-fields": true},
        "list": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 5}},
        "null": {}}});
    assert_eq!(spec, &wanted);
    let metadata = &document["definitions"]["com.example.stable.v1.CronTab"]["properties"]["metadata"];
    assert_eq!(metadata["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    assert!(metadata["description"].as_str().unwrap().starts_with("Standard object's metadata."));
    let quantity = &document["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(quantity["type"], "string");
}

#[test]
fn custom_resources_are_published() {
    let api = OpenApi::new("v1.36.0", vec![cron_tab()]);
    let document = json(&api.v3("apis/stable.example.com/v1").unwrap());
    assert_complete(&document);
    let definition = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(
        definition["properties"]["spec"]["properties"],
        json!({
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"a": {"type": "string"}}},
            "list": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 5}},
            "null": {"type": "string", "nullable": true, "default": "x"},
        })
    );
    let path =
        &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}/status"];
    assert_eq!(path["put"]["operationId"], "replaceStableExampleComV1NamespacedCronTabStatus");
    assert_eq!(path["put"]["tags"], json!(["stableExampleCom_v1"]));
    assert!(path["patch"]["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
}

/// What upstream's builder makes of the same schemas, by its own rules (`ToStructuralOpenAPIV2`).
#[test]
fn version_2_is_told_less() {
    let v2 = |schema: Value| {
        let schema = CustomSchema::parse(&schema).unwrap();
        let resource = served(
            "stable.example.com",
            "CronTab",
            "crontabs",
            Definition::Custom(Some(Arc::new(schema.root().clone()))),
        );
        let document = json(&OpenApi::new("v1.36.0", vec![resource]).v2());
        document["definitions"]["com.example.stable.v1.CronTab"].clone()
    };
    let object = |properties: Value| json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}});
    let spec = |properties: Value| v2(object(properties))["properties"]["spec"]["properties"].clone();
    let gvk = json!([{"group": "stable.example.com", "version": "v1", "kind": "CronTab"}]);
    assert_eq!(
        v2(json!({"type": "object", "description": "x", "x-kubernetes-preserve-unknown-fields": true})),
        json!({"type": "object", "x-kubernetes-group-version-kind": gvk})
    );
    let given = json!({
        "nullable": {"type": "array", "nullable": true, "items": {"type": "string"}, "maxItems": 3},
        "map": {"type": "object", "nullable": true, "additionalProperties": {"type": "string"}},
        "either": {"type": "string", "oneOf": [{"minLength": 1}], "not": {"pattern": "a"}, "default": "b", "enum": ["b"]},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"a": {"type": "string"}}},
        "free": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        "required": {"type": "object", "required": ["a", "b"],
            "properties": {"a": {"type": "string", "nullable": true}, "b": {"type": "string"}}},
    });
    let found = spec(given);
    assert_eq!(found["nullable"], json!({"maxItems": 3}));
    assert_eq!(found["map"], json!({"additionalProperties": {"type": "string"}}));
    assert_eq!(found["either"], json!({"type": "string", "enum": ["b"]}));
    assert_eq!(
        found["free"],
        json!({"x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true})
    );
    assert_eq!(found["required"]["required"], json!(["b"]));
    assert_eq!(found["embedded"]["required"], json!(["kind", "apiVersion"]));
    assert_eq!(
        found["embedded"]["properties"]["metadata"]["$ref"],
        "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
}

/// Reads length-delimited fields along a path of numbers.
fn dig(mut bytes: &[u8], path: &[u64]) -> Vec<Vec<u8>> {
    let varint = |bytes: &mut &[u8]| {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    };
    let Some((number, rest)) = path.split_first() else { return vec![bytes.to_vec()] };
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        match key & 7 {
            0 => drop(varint(&mut bytes)),
            1 => bytes = &bytes[8..],
            _ => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (value, after) = bytes.split_at(length);
                bytes = after;
                if key >> 3 == *number {
                    found.extend(dig(value, rest));
                }
            }
        }
    }
    found
}

#[test]
fn version_3_is_the_same_in_protobuf() {
    let api = OpenApi::new("v1.36.0", vec![built_in("apps", "Deployment", "deployments"), cron_tab()]);
    for path in ["apis/apps/v1", "apis/stable.example.com/v1"] {
        let document = json(&api.v3(path).unwrap());
        assert_eq!(super::gnostic_v3::unknown(&document), Vec::<String>::new());
    }
    let protobuf = api.v3_protobuf("apis/apps/v1").unwrap().body.plain();
    let texts = |path: &[u64]| -> Vec<String> {
        dig(&protobuf, path).into_iter().map(|b| String::from_utf8(b).unwrap()).collect()
    };
    assert_eq!(texts(&[1]), ["3.0.0"]);
    assert_eq!(texts(&[2, 6]), ["v1.36.0"]);
    // Paths by name, schemas by name, and a property that refers to a schema.
    assert!(texts(&[4, 1, 1]).contains(&"/apis/apps/v1/namespaces/{namespace}/deployments".to_owned()));
    assert!(texts(&[5, 1, 1, 1]).contains(&"io.k8s.api.apps.v1.Deployment".to_owned()));
    assert!(texts(&[4, 1, 2, 4, 5]).contains(&"readAppsV1NamespacedDeployment".to_owned()));
    let codes = texts(&[4, 1, 2, 4, 8, 2, 1]);
    assert!(codes.contains(&"200".to_owned()), "{codes:?}");
    let properties = texts(&[5, 1, 1, 2, 1, 31, 1, 1]);
    assert!(properties.contains(&"replicas".to_owned()), "{properties:?}");
    assert!(api.v3_protobuf("apis/batch/v1").is_none());
}

#[test]
fn version_2_is_the_same_in_protobuf() {
    let resources =
        vec![built_in("", "Pod", "pods"), built_in("apps", "Deployment", "deployments"), cron_tab()];
    let api = OpenApi::new("v1.36.0", resources);
    let document = json(&api.v2());
    assert_eq!(super::gnostic::unknown(&document), Vec::<String>::new());
    let protobuf = api.v2_protobuf().body.plain();
    let texts = |path: &[u64]| -> Vec<String> {
        dig(&protobuf, path).into_iter().map(|b| String::from_utf8(b).unwrap()).collect()
    };
    assert_eq!((texts(&[1]), texts(&[2, 2])), (vec!["2.0".to_owned()], vec!["v1.36.0".to_owned()]));
    let names = |member: &str| document[member].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(texts(&[9, 1, 1]), names("definitions"));
    assert_eq!(texts(&[8, 2, 1]), names("paths"));
    let tab =
        dig(&protobuf, &[9, 1]).into_iter().find(|d| dig(d, &[1])[0] == b"com.example.stable.v1.CronTab");
    let tab = tab.unwrap();
    assert_eq!(dig(&tab, &[2, 31, 1]), [b"x-kubernetes-group-version-kind"]);
    let gvk: Value = serde_json::from_slice(&dig(&tab, &[2, 31, 2, 2])[0]).unwrap();
    assert_eq!(gvk[0]["kind"], "CronTab");
    assert_eq!(dig(&tab, &[2, 22, 1]), [b"object"]);
    // The port's extension, and in a list the items' type.
    let spec = dig(&tab, &[2, 25, 1]).into_iter().find(|p| dig(p, &[1])[0] == b"spec").unwrap();
    assert_eq!(dig(&spec, &[2, 25, 1, 2, 23, 1, 22, 1]), [b"string"]);
    assert_eq!(dig(&spec, &[2, 19]), [b"port"]);
}

#[test]
fn documents_are_stable() {
    let resources = || vec![built_in("", "Pod", "pods"), built_in("apps", "Deployment", "deployments")];
    let api = OpenApi::new("v1.36.0", resources());
    let again = OpenApi::new("v1.36.0", resources().into_iter().rev().collect());
    assert_eq!(api.v2().body.gzip(), again.v2().body.gzip());
    assert_eq!(api.index().etag(), again.index().etag());
    let apps = api.v3("apis/apps/v1").unwrap();
    let more = api.with(resources().into_iter().chain([cron_tab()]).collect());
    // What did not change is not made again.
    assert_eq!(more.v3("apis/apps/v1").unwrap().body.gzip().as_ptr(), apps.body.gzip().as_ptr());
    assert_ne!(more.index().hash, api.index().hash);
    let mut fewer = resources();
    fewer[1].verbs = words("get");
    assert_ne!(api.with(fewer).v3("apis/apps/v1").unwrap().hash, apps.hash);
}
