use serde_json::json;

use super::{Error, to_json};

/// A field with bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).expect("a short field")];
    out.extend_from_slice(bytes);
    out
}

fn object(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &meta), field(2, raw), field(3, b""), field(4, b"")].concat()
}

#[test]
fn a_config_map_as_kubectl_writes_it() {
    let meta = [field(1, b"cm"), field(2, b""), field(8, b""), vec![7 << 3, 0]].concat();
    let data = field(2, &[field(1, b"a"), field(2, b"b")].concat());
    let binary = field(3, &[field(1, b"k"), field(2, &[0, 255])].concat());
    let read = to_json(&object("v1", "ConfigMap", &[field(1, &meta), data, binary].concat()));
    let wanted = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"},
        "data": {"a": "b"}, "binaryData": {"k": "AP8="},
    });
    assert_eq!(read, Ok(wanted));
}

#[test]
fn zeros_stay_where_go_has_a_pointer() {
    // replicas = 0, minReadySeconds = 0
    let spec = vec![1 << 3, 0, 5 << 3, 0];
    let read = to_json(&object("apps/v1", "Deployment", &field(2, &spec))).expect("a deployment");
    assert_eq!(read["spec"], json!({"replicas": 0}));
}

#[test]
fn embedded_structs_are_flat() {
    // A volume's source is a message of its own.
    let empty_dir = field(2, b"");
    let volume = field(1, &[field(1, b"data"), field(2, &empty_dir)].concat());
    let read = to_json(&object("v1", "Pod", &field(2, &volume))).expect("a pod");
    assert_eq!(read["spec"]["volumes"], json!([{"name": "data", "emptyDir": {}}]));
}

#[test]
fn delete_options_have_every_groups_name() {
    let read = to_json(&object("apps/v1", "DeleteOptions", &[vec![1 << 3, 0], field(4, b"Orphan")].concat()));
    let wanted = json!({
        "apiVersion": "apps/v1", "kind": "DeleteOptions",
        "gracePeriodSeconds": 0, "propagationPolicy": "Orphan",
    });
    assert_eq!(read, Ok(wanted));
}

#[test]
fn values_with_a_codec_of_their_own() {
    let port =
        [vec![3 << 3, 80], field(4, &[vec![1 << 3, 1, 2 << 3, 0], field(3, b"web")].concat())].concat();
    let read = to_json(&object("v1", "Service", &field(2, &field(1, &port)))).expect("a service");
    assert_eq!(read["spec"]["ports"][0]["targetPort"], json!("web"));
    let limits = field(1, &[field(1, b"cpu"), field(2, &field(1, b"250m"))].concat());
    let container = field(2, &field(8, &limits));
    let read = to_json(&object("v1", "Pod", &field(2, &container))).expect("a pod");
    assert_eq!(read["spec"]["containers"][0]["resources"], json!({"limits": {"cpu": "250m"}}));
    let created = field(8, &[1 << 3, 60]);
    let read = to_json(&object("v1", "Namespace", &field(1, &created))).expect("a namespace");
    assert_eq!(read["metadata"]["creationTimestamp"], json!("1970-01-01T00:01:00Z"));
}

#[test]
fn what_is_no_object_is_refused() {
    assert_eq!(to_json(b"{}"), Err(Error::Prefix));
    assert_eq!(
        to_json(&object("example.com/v1", "Toy", b"")),
        Err(Error::Kind { version: "example.com/v1".into(), kind: "Toy".into() })
    );
    let whole = object("v1", "ConfigMap", &field(1, &field(1, b"name")));
    // Without the two empty fields at its end, and a byte of the object's.
    assert!(matches!(to_json(&whole[..whole.len() - 5]), Err(Error::Malformed(_))));
    assert!(to_json(&object("v1", "ConfigMap", &[0x0b])).is_err(), "groups are not used");
}
