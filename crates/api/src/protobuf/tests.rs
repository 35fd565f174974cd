use serde_json::{Map, Value, json};

use super::{Encoder, Error, enveloped, from_json, message, to_json, watch_event};
use crate::schema::{self, Type, TypeDef};

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

/// What must hold of a value after its way through protobuf and back.
fn round_trip(def: &'static TypeDef, object: &Value) -> Result<Value, Error> {
    let mut encoder = Encoder::default();
    let bytes = encoder.message(def, object.to_string().as_bytes())?;
    Ok(Value::Object(message(def, bytes, 0)?))
}

/// The bytes that Go's own code makes of these, worked out by hand from the `.proto` files: fields in the order of
/// their numbers, maps sorted, each embedded struct a message.
#[test]
fn messages_are_gos() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"annotations": {"b": "", "a": "ä\n"}, "creationTimestamp": "1970-01-02T00:00:01Z", "name": "x"},
        "spec": {
            "containers": [{"command": ["a", ""], "livenessProbe": {"failureThreshold": 3, "tcpSocket": {"port": "web"}},
                "name": "c"}],
            "enableServiceLinks": false, "priority": -1,
            "volumes": [{"emptyDir": {"sizeLimit": "1Gi"}, "name": "v"}],
        },
    });
    let annotation = |k: &str, v: &str| field(12, &[field(1, k.as_bytes()), field(2, v.as_bytes())].concat());
    let metadata = [
        field(1, b"x"),
        field(8, &[1 << 3, 0x81, 0xa3, 5, 2 << 3, 0]),
        annotation("a", "ä\n"),
        annotation("b", ""),
    ];
    let volume = field(1, &[field(1, b"v"), field(2, &field(2, &field(2, &field(1, b"1Gi"))))].concat());
    let port = [vec![1 << 3, 1, 2 << 3, 0], field(3, b"web")].concat();
    let probe = [field(1, &field(3, &field(1, &port))), vec![6 << 3, 3]].concat();
    let container = [field(1, b"c"), field(3, b"a"), field(3, b""), field(10, &probe)].concat();
    let minus_one = [&[0xff; 9][..], &[1]].concat();
    let spec = [
        volume,
        field(2, &container),
        // Numbers from 16 on take two bytes: 25 is priority, 30 is enableServiceLinks.
        [&[0xc8, 1][..], &minus_one].concat(),
        vec![0xf0, 1, 0],
    ];
    let wanted = object("v1", "Pod", &[field(1, &metadata.concat()), field(2, &spec.concat())].concat());
    assert_eq!(from_json(pod.to_string().as_bytes()), Ok(wanted.clone()));
    assert_eq!(to_json(&wanted), Ok(pod));
}

#[test]
fn a_watch_event_holds_the_whole_object() {
    let data = field(2, &[field(1, b"k"), field(2, &[0, 255])].concat());
    let inner = object("v1", "Secret", &data);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"k": "AP8="}}).to_string();
    assert_eq!(from_json(secret.as_bytes()), Ok(inner.clone()));
    assert_eq!(watch_event("ADDED", &inner), [field(1, b"ADDED"), field(2, &field(1, &inner))].concat());
    assert_eq!(enveloped("v1", "Secret", &data), inner);
}

#[test]
fn absence_and_zero_are_told_apart() {
    let of = |name: &str, value: Value| {
        let def = schema::lookup(name).expect("a type");
        round_trip(def, &value)
    };
    let kept = [
        ("io.k8s.api.apps.v1.RollingUpdateDeployment", json!({"maxSurge": 0, "maxUnavailable": "25%"})),
        ("io.k8s.api.core.v1.ContainerState", json!({"running": {"startedAt": "1970-01-01T00:00:00Z"}})),
        ("io.k8s.api.core.v1.ResourceFieldSelector", json!({"divisor": "0", "resource": ""})),
        ("io.k8s.api.coordination.v1.LeaseSpec", json!({"renewTime": "1969-12-31T23:59:58.999999Z"})),
        ("io.k8s.api.rbac.v1.PolicyRule", json!({"verbs": ["", "get"]})),
        (
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceSubresources",
            json!({"status": {}}),
        ),
        (
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
            json!({
                "$ref": "x", "additionalProperties": false, "default": 0, "enum": ["", null, {"a": [1.5]}],
                "items": {"type": "string"}, "maximum": 0.0, "dependencies": {"a": ["b"], "c": {"nullable": true}},
                "properties": {"a": {"items": [{"type": "x"}], "additionalItems": {}}},
                "x-kubernetes-preserve-unknown-fields": false,
            }),
        ),
        (
            "io.k8s.api.authentication.v1.UserInfo",
            json!({"extra": {"a": ["b", ""], "c": []}, "groups": ["d"], "uid": "e"}),
        ),
    ];
    for (name, value) in kept {
        assert_eq!(of(name, value.clone()), Ok(value), "{name}");
    }
    assert_eq!(
        of("io.k8s.api.core.v1.ServicePort", json!({"port": 0, "targetPort": 0})),
        Ok(json!({"port": 0}))
    );
}

#[test]
fn what_is_no_such_object_is_refused() {
    let bad = [
        r#"{"apiVersion":"v1","kind":"Pod","spec":3}"#,
        r#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":{}}}"#,
        r#"{"apiVersion":"v1","kind":"Pod","spec":{"priority":"x"}}"#,
        r#"{"apiVersion":"v1","kind":"Pod","spec":{"hostNetwork":tru"#,
        r#"{"apiVersion":"v1","kind":"Secret","data":{"a":"!"}}"#,
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"creationTimestamp":"yesterday"}}"#,
        r#"{"apiVersion":"v1","kind":"#,
        "[]",
        "",
    ];
    for text in bad {
        assert!(matches!(from_json(text.as_bytes()), Err(Error::Malformed(_))), "{text}");
    }
    let unknown = from_json(br#"{"apiVersion":"example.com/v1","kind":"CronTab"}"#);
    assert_eq!(unknown, Err(Error::Kind { version: "example.com/v1".into(), kind: "CronTab".into() }));
}

/// A small generator of pseudo-random numbers, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn text(&mut self) -> String {
        let alphabet = ['a', 'Z', '0', '-', '/', '"', '\\', '\n', '\u{1}', 'é', '語', '😀'];
        (0..1 + self.next(9)).map(|_| alphabet[usize::try_from(self.next(12)).expect("small")]).collect()
    }

    fn any(&mut self, depth: u32) -> Value {
        match self.next(if depth == 0 { 4 } else { 6 }) {
            0 => Value::Bool(true),
            1 => Value::from(self.next(1 << 40)),
            2 => Value::from(-1.5),
            3 => Value::String(self.text()),
            4 => (0..self.next(3)).map(|_| self.any(depth - 1)).collect(),
            _ => Value::Object((0..self.next(3)).map(|_| (self.text(), self.any(depth - 1))).collect()),
        }
    }

    /// A value of a type that says something: no zeros, nothing empty.
    fn value(&mut self, ty: &Type, depth: u32) -> Value {
        match ty {
            Type::String => Value::String(self.text()),
            Type::Int32 => Value::from(i64::try_from(self.next(1 << 31)).expect("small") - (1 << 30)),
            Type::Int64 => Value::from(self.next(u64::MAX).cast_signed() | 1),
            Type::Double => Value::from(0.5 + f64::from(u32::try_from(self.next(1 << 20)).expect("small"))),
            Type::Bool => Value::Bool(true),
            Type::Bytes => {
                Value::String(["AA==", "/+8=", "AQID"][usize::try_from(self.next(3)).expect("small")].into())
            }
            Type::Quantity => Value::from(format!("{}m", 1 + self.next(1000))),
            Type::IntOrString if self.next(2) == 0 => Value::from(1 + self.next(65535)),
            Type::IntOrString => Value::String(self.text()),
            Type::Time => {
                let month = 1 + self.next(12);
                let day = 1 + self.next(if month == 2 { 28 } else { 30 });
                Value::from(format!("20{:02}-{month:02}-{day:02}T23:59:01Z", self.next(99)))
            }
            Type::MicroTime => Value::from(format!("2026-02-28T00:00:00.{:06}Z", self.next(1_000_000))),
            Type::AnyObject(name) if name.ends_with("SubresourceStatus") => json!({}),
            Type::AnyObject(_) => json!({"f:a": {}, "kind": self.any(2)}),
            Type::Any(name) if name.ends_with("OrBool") => Value::Bool(false),
            Type::Any(name) if name.ends_with("OrStringArray") => json!([self.text()]),
            Type::Any(name) if name.ends_with("OrArray") => json!([{"type": self.text()}]),
            Type::Any(_) => self.any(2),
            Type::Array(item) => (0..1 + self.next(3)).map(|_| self.value(item, depth)).collect(),
            Type::Map(item) => (0..1 + self.next(3))
                .map(|_| (self.text(), self.value(item, depth)))
                .collect::<Map<_, _>>()
                .into(),
            Type::Ref(_) => self.object(ty.definition().expect("a definition"), depth),
        }
    }

    fn object(&mut self, def: &'static TypeDef, depth: u32) -> Value {
        // A schema holds a dozen fields that are schemas.
        let depth = if def.name().ends_with(".JSONSchemaProps") { depth.min(1) } else { depth };
        let mut out = Map::new();
        // The deeper, the fewer: types may hold themselves.
        let chance = if depth > 3 { 1 } else { 2 };
        for field in def.fields.iter().filter(|f| !f.tag.is_empty()) {
            let wanted =
                if field.ty.is_scalar() { self.next(4) != 0 } else { depth > 0 && self.next(chance) == 0 };
            if wanted {
                out.insert(field.name.to_owned(), self.value(&field.ty, depth.saturating_sub(1)));
            }
        }
        Value::Object(out)
    }
}

#[test]
fn every_type_survives_the_way_there_and_back() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for def in schema::all().iter().filter(|d| matches!(d.instance(), Type::Ref(_))) {
        for _ in 0..6 {
            let object = random.object(def, 5);
            assert_eq!(round_trip(def, &object).as_ref(), Ok(&object), "{}", def.name());
        }
    }
}

#[test]
fn every_field_of_every_kind_has_a_number() {
    for def in schema::all().iter().filter(|d| !d.name().ends_with(".version.Info")) {
        let mut seen = std::collections::HashSet::new();
        for field in
            def.fields.iter().filter(|f| !matches!(f.name, "apiVersion" | "kind") || !f.tag.is_empty())
        {
            assert!(!field.tag.is_empty() && seen.insert(&field.tag), "{}.{}", def.name(), field.name);
        }
        if def.gvk.is_some_and(|gvk| {
            gvk.kind.ends_with("List") && gvk.kind != "APIGroupList" && gvk.kind != "APIResourceList"
        }) {
            let tag = |name: &str| def.field(name).map(|f| f.tag.as_slice());
            assert_eq!((tag("metadata"), tag("items")), (Some(&[1][..]), Some(&[2][..])), "{}", def.name());
        }
    }
}
