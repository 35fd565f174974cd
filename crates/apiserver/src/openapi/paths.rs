//! Operations: what can be done with each resource, at which path.

use gantry_api::schema;
use serde_json::{Map, Value, json};

use super::schemas::Definitions;
use super::served::{Served, Subresource};

/// The version of OpenAPI that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Dialect {
    /// A reference to a definition.
    pub fn reference(self, name: &str) -> Value {
        match self {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }
}

const MEDIA: [&str; 3] = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
const WATCH_MEDIA: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: [&str; 3] =
    ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// The parameters of operations: name, type and purpose.
const PARAMETERS: [(&str, &str, &str); 21] = [
    ("allowWatchBookmarks", "boolean", "Asks for BOOKMARK events during a watch."),
    ("command", "string", "The command to execute remotely, one argument at a time."),
    ("container", "string", "The container to act on; the only or default one if absent."),
    ("continue", "string", "Where the last page of a list ended."),
    ("dryRun", "string", "'All' processes the request in every respect but stores nothing."),
    ("fieldManager", "string", "Who is to own the fields that change: at most 128 printable characters."),
    ("fieldSelector", "string", "Restricts a list by its objects' fields."),
    ("fieldValidation", "string", "What becomes of unknown and duplicate fields: Ignore, Warn or Strict."),
    ("force", "boolean", "Whether an apply takes fields that somebody else owns."),
    ("gracePeriodSeconds", "integer", "How long the object may take to end; 0 deletes at once."),
    ("labelSelector", "string", "Restricts a list by its objects' labels."),
    ("limit", "integer", "The most objects in one page of a list."),
    ("orphanDependents", "boolean", "Deprecated: see propagationPolicy."),
    ("path", "string", "The path to pass on."),
    ("pretty", "string", "Whether the answer is indented."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
    ("resourceVersion", "string", "The revision to start or read at."),
    ("resourceVersionMatch", "string", "How resourceVersion is to be understood: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Starts a watch with the objects that exist."),
    ("timeoutSeconds", "integer", "How long a list or watch may take."),
    ("watch", "boolean", "Streams changes instead of returning a list."),
];

const LIST: [&str; 9] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
];
const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const DELETE: [&str; 4] = ["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];

/// What operations of version 2 documents hold themselves, as kubectl up to 1.27 looks whether a server knows these only
/// there.
const UNSHARED: [&str; 2] = ["dryRun", "fieldValidation"];

/// The parameters that a version 2 document refers to.
pub fn shared_parameters() -> Value {
    PARAMETERS
        .iter()
        .filter(|(name, ..)| !UNSHARED.contains(name))
        .map(|(name, ..)| ((*name).to_owned(), parameter(name, Dialect::V2)))
        .collect::<Map<_, _>>()
        .into()
}

fn parameter(name: &str, dialect: Dialect) -> Value {
    let (_, ty, description) =
        PARAMETERS.iter().find(|(n, ..)| *n == name).copied().unwrap_or((name, "string", ""));
    let mut parameter = json!({"name": name, "in": "query", "description": description});
    put_type(&mut parameter, ty, dialect);
    parameter
}

fn put_type(parameter: &mut Value, ty: &str, dialect: Dialect) {
    match dialect {
        Dialect::V2 => {
            parameter["type"] = ty.into();
            parameter["uniqueItems"] = true.into();
        }
        Dialect::V3 => parameter["schema"] = json!({"type": ty, "uniqueItems": true}),
    }
}

fn path_parameter(name: &str, description: String, dialect: Dialect) -> Value {
    let mut parameter = json!({"name": name, "in": "path", "required": true, "description": description});
    put_type(&mut parameter, "string", dialect);
    parameter
}

/// The paths of a group and version.
pub fn of(resources: &[Served], dialect: Dialect, definitions: &mut Definitions) -> Map<String, Value> {
    let mut paths = Map::new();
    let Some(first) = resources.first() else { return paths };
    definitions.note(&first.group, &first.version);
    let mut discovery = Operation::new(first, dialect, "get", "get available resources");
    discovery.id = format!("get{}APIResources", prefix(first));
    discovery.response("200", definitions.meta("APIResourceList"), &MEDIA);
    let discovery = Map::from_iter([("get".to_owned(), discovery.finish())]);
    paths.insert(format!("/{}/", first.root()), Value::Object(discovery));
    for resource in resources {
        let mut writer = Writer { resource, dialect, definitions, paths: &mut paths };
        writer.collection();
        writer.object();
        for sub in &resource.subresources {
            writer.subresource(sub);
        }
    }
    paths
}

/// `CoreV1`, `AppsV1`, `RbacAuthorizationV1`: what operation ids begin with after their verb.
fn prefix(resource: &Served) -> String {
    format!("{}{}", camel(group_words(resource)), capitalized(&resource.version))
}

fn group_words(resource: &Served) -> &str {
    match resource.group.as_str() {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    }
}

fn camel(words: &str) -> String {
    words.split(['.', '-', '/']).map(capitalized).collect()
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// `core_v1`, `rbacAuthorization_v1`.
fn tag(resource: &Served) -> String {
    let group = camel(group_words(resource));
    let mut letters = group.chars();
    let first = letters.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
    format!("{first}{}_{}", letters.as_str(), resource.version)
}

/// One operation in the making.
struct Operation {
    dialect: Dialect,
    id: String,
    out: Map<String, Value>,
    parameters: Vec<Value>,
    responses: Map<String, Value>,
    produces: Vec<String>,
}

impl Operation {
    fn new(resource: &Served, dialect: Dialect, action: &str, description: &str) -> Self {
        let mut out = Map::new();
        out.insert("description".into(), description.into());
        out.insert("tags".into(), json!([tag(resource)]));
        if !description.starts_with("get available") {
            out.insert("x-kubernetes-action".into(), action.into());
        }
        let unauthorized = Map::from_iter([("401".to_owned(), json!({"description": "Unauthorized"}))]);
        Self {
            dialect,
            id: String::new(),
            out,
            parameters: Vec::new(),
            responses: unauthorized,
            produces: Vec::new(),
        }
    }

    fn kind(&mut self, group: &str, version: &str, kind: &str) {
        let gvk = json!({"group": group, "version": version, "kind": kind});
        self.out.insert("x-kubernetes-group-version-kind".into(), gvk);
    }

    fn parameters(&mut self, names: &[&str]) {
        for name in names {
            self.parameters.push(match self.dialect {
                Dialect::V2 if !UNSHARED.contains(name) => json!({"$ref": format!("#/parameters/{name}")}),
                dialect => parameter(name, dialect),
            });
        }
    }

    fn body(&mut self, schema: Value, media: &[&str], required: bool) {
        match self.dialect {
            Dialect::V2 => {
                let mut body = json!({"name": "body", "in": "body", "schema": schema});
                if required {
                    body["required"] = true.into();
                }
                self.parameters.push(body);
                self.out.insert("consumes".into(), json!(media));
            }
            Dialect::V3 => {
                let content: Map<String, Value> =
                    media.iter().map(|m| ((*m).to_owned(), json!({"schema": schema}))).collect();
                let mut body = json!({"content": content});
                if required {
                    body["required"] = true.into();
                }
                self.out.insert("requestBody".into(), body);
            }
        }
    }

    fn response(&mut self, code: &str, schema: Value, media: &[&str]) {
        let text = match code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        let response = match self.dialect {
            Dialect::V2 => {
                self.produces = media.iter().map(|m| (*m).to_owned()).collect();
                json!({"description": text, "schema": schema})
            }
            Dialect::V3 => {
                let content: Map<String, Value> =
                    media.iter().map(|m| ((*m).to_owned(), json!({"schema": schema}))).collect();
                json!({"description": text, "content": content})
            }
        };
        self.responses.insert(code.to_owned(), response);
    }

    fn finish(mut self) -> Value {
        self.out.insert("operationId".into(), self.id.into());
        self.out.insert("responses".into(), Value::Object(self.responses));
        if !self.parameters.is_empty() {
            self.out.insert("parameters".into(), Value::Array(self.parameters));
        }
        if self.dialect == Dialect::V2 {
            self.out.entry("consumes").or_insert_with(|| json!(["*/*"]));
            self.out.insert("produces".into(), json!(self.produces));
            self.out.insert("schemes".into(), json!(["https"]));
        }
        Value::Object(self.out)
    }
}

/// Writes the paths of one resource.
struct Writer<'a> {
    resource: &'a Served,
    dialect: Dialect,
    definitions: &'a mut Definitions,
    paths: &'a mut Map<String, Value>,
}

impl Writer<'_> {
    fn path(&self, below: &str) -> String {
        let namespace = if self.resource.namespaced { "/namespaces/{namespace}" } else { "" };
        format!("/{}{namespace}/{}{below}", self.resource.root(), self.resource.plural)
    }

    /// `readCoreV1NamespacedPodStatus`.
    fn id(&self, verb: &str, suffix: &str) -> String {
        let scope = if self.resource.namespaced { "Namespaced" } else { "" };
        format!("{verb}{}{scope}{}{suffix}", prefix(self.resource), self.resource.kind)
    }

    fn operation(&self, action: &str, description: String) -> Operation {
        let mut operation = Operation::new(self.resource, self.dialect, action, &description);
        operation.kind(&self.resource.group, &self.resource.version, &self.resource.kind);
        operation
    }

    /// The parameters of a path: the name, if it has one, and the namespace.
    fn common(&self, named: bool, namespaced: bool) -> Value {
        let mut parameters = Vec::new();
        if named {
            let text = format!("name of the {}", self.resource.kind);
            parameters.push(path_parameter("name", text, self.dialect));
        }
        if namespaced && self.resource.namespaced {
            let text = "object name and auth scope, such as for teams and projects".to_owned();
            parameters.push(path_parameter("namespace", text, self.dialect));
        }
        parameters.push(match self.dialect {
            Dialect::V2 => json!({"$ref": "#/parameters/pretty"}),
            Dialect::V3 => parameter("pretty", Dialect::V3),
        });
        Value::Array(parameters)
    }

    fn insert(&mut self, path: String, operations: Vec<(&str, Operation)>, common: Value) {
        if operations.is_empty() {
            return;
        }
        let mut out: Map<String, Value> =
            operations.into_iter().map(|(method, op)| (method.to_owned(), op.finish())).collect();
        out.insert("parameters".into(), common);
        self.paths.insert(path, Value::Object(out));
    }

    fn list_operation(&mut self, id: String) -> Operation {
        let (_, list) = self.definitions.of_resource(self.resource);
        let mut operation =
            self.operation("list", format!("list or watch objects of kind {}", self.resource.kind));
        operation.id = id;
        operation.parameters(&LIST);
        if self.resource.allows("watch") {
            operation.parameters(&["watch"]);
        }
        let media: Vec<&str> = if self.resource.allows("watch") {
            MEDIA.into_iter().chain(WATCH_MEDIA).collect()
        } else {
            MEDIA.to_vec()
        };
        operation.response("200", list, &media);
        operation
    }

    fn collection(&mut self) {
        let kind = &self.resource.kind;
        let mut operations = Vec::new();
        let (object, _) = self.definitions.of_resource(self.resource);
        if self.resource.allows("list") {
            let id = self.id("list", "");
            operations.push(("get", self.list_operation(id)));
        }
        if self.resource.allows("create") {
            let mut operation = self.operation("post", format!("create {} {kind}", article(kind)));
            operation.id = self.id("create", "");
            operation.parameters(&WRITE);
            operation.body(object.clone(), &["*/*"], true);
            for code in ["200", "201", "202"] {
                operation.response(code, object.clone(), &MEDIA);
            }
            operations.push(("post", operation));
        }
        if self.resource.allows("deletecollection") {
            let mut operation = self.operation("deletecollection", format!("delete collection of {kind}"));
            let scope = if self.resource.namespaced { "Namespaced" } else { "" };
            operation.id = format!("delete{}Collection{scope}{kind}", prefix(self.resource));
            operation.parameters(&DELETE);
            operation.parameters(&LIST[1..]);
            operation.body(self.definitions.meta("DeleteOptions"), &["*/*"], false);
            operation.response("200", self.definitions.meta("Status"), &MEDIA);
            operations.push(("delete", operation));
        }
        let common = self.common(false, true);
        self.insert(self.path(""), operations, common);
        if self.resource.namespaced && self.resource.allows("list") {
            let id = format!("list{}{kind}ForAllNamespaces", prefix(self.resource));
            let operation = self.list_operation(id);
            let common = self.common(false, false);
            let path = format!("/{}/{}", self.resource.root(), self.resource.plural);
            self.insert(path, vec![("get", operation)], common);
        }
    }

    fn object(&mut self) {
        let kind = self.resource.kind.clone();
        let (object, _) = self.definitions.of_resource(self.resource);
        let gvk = (self.resource.group.clone(), self.resource.version.clone(), kind.clone());
        let mut operations = self.read_and_write(&self.resource.verbs, &object, "", &gvk);
        if self.resource.allows("delete") {
            let mut operation = self.operation("delete", format!("delete {} {kind}", article(&kind)));
            operation.id = self.id("delete", "");
            operation.parameters(&DELETE);
            operation.body(self.definitions.meta("DeleteOptions"), &["*/*"], false);
            let (group, version) = (self.resource.group.clone(), self.resource.version.clone());
            let names = gantry_api::Resource {
                group: group.into(),
                version: version.into(),
                kind: kind.clone().into(),
                plural: self.resource.plural.clone().into(),
                namespaced: self.resource.namespaced,
            };
            let answer = match crate::verbs::delete::returns_object(&names) {
                true => object.clone(),
                false => self.definitions.meta("Status"),
            };
            for code in ["200", "202"] {
                operation.response(code, answer.clone(), &MEDIA);
            }
            operations.push(("delete", operation));
        }
        let common = self.common(true, true);
        self.insert(self.path("/{name}"), operations, common);
    }

    /// GET, PUT and PATCH of an object or of one of its subresources.
    fn read_and_write(
        &mut self,
        verbs: &[String],
        object: &Value,
        suffix: &str,
        (group, version, kind): &(String, String, String),
    ) -> Vec<(&'static str, Operation)> {
        let allows = |verb: &str| verbs.iter().any(|v| v == verb);
        let what = match suffix {
            "" => self.resource.kind.clone(),
            suffix => format!(
                "{} of {} {}",
                suffix.to_lowercase(),
                article(&self.resource.kind),
                self.resource.kind
            ),
        };
        let mut operations = Vec::new();
        if allows("get") {
            let mut operation = self.operation("get", format!("read {what}"));
            operation.id = self.id("read", suffix);
            operation.kind(group, version, kind);
            operation.response("200", object.clone(), &MEDIA);
            operations.push(("get", operation));
        }
        if allows("update") {
            let mut operation = self.operation("put", format!("replace {what}"));
            operation.id = self.id("replace", suffix);
            operation.kind(group, version, kind);
            operation.parameters(&WRITE);
            operation.body(object.clone(), &["*/*"], true);
            for code in ["200", "201"] {
                operation.response(code, object.clone(), &MEDIA);
            }
            operations.push(("put", operation));
        }
        if allows("patch") {
            let mut operation = self.operation("patch", format!("partially update {what}"));
            operation.id = self.id("patch", suffix);
            operation.kind(group, version, kind);
            operation.parameters(&WRITE);
            operation.parameters(&["force"]);
            let strategic = matches!(self.resource.definition, super::Definition::BuiltIn(_));
            let media: Vec<&str> = PATCHES.into_iter().chain(strategic.then_some(STRATEGIC)).collect();
            operation.body(self.definitions.meta("Patch"), &media, true);
            for code in ["200", "201"] {
                operation.response(code, object.clone(), &MEDIA);
            }
            operations.push(("patch", operation));
        }
        operations
    }

    fn subresource(&mut self, sub: &Subresource) {
        let below = format!("/{{name}}/{}", sub.name);
        let suffix = camel(&sub.name);
        if sub.allows("connect") {
            self.connect(sub, &below, &suffix, false);
            if sub.name == "proxy" {
                self.connect(sub, &format!("{below}/{{path}}"), &format!("{suffix}WithPath"), true);
            }
            return;
        }
        let gvk = (sub.group.clone(), sub.version.clone(), sub.kind.clone());
        let object = if sub.kind == self.resource.kind && sub.group == self.resource.group {
            self.definitions.of_resource(self.resource).0
        } else {
            match schema::lookup_kind(&sub.group, &sub.version, &sub.kind) {
                Some(def) => self.definitions.reference(def),
                None => json!({"type": "string"}),
            }
        };
        let mut operations = self.read_and_write(&sub.verbs, &object, &suffix, &gvk);
        if sub.allows("create") {
            let mut operation = self.operation(
                "post",
                format!("create {} of {} {}", sub.name, article(&self.resource.kind), self.resource.kind),
            );
            operation.id = self.id("create", &suffix);
            operation.kind(&sub.group, &sub.version, &sub.kind);
            operation.parameters(&WRITE);
            operation.body(object.clone(), &["*/*"], true);
            for code in ["200", "201", "202"] {
                operation.response(code, object.clone(), &MEDIA);
            }
            operations.push(("post", operation));
        }
        let common = self.common(true, true);
        self.insert(self.path(&below), operations, common);
    }

    fn connect(&mut self, sub: &Subresource, below: &str, suffix: &str, with_path: bool) {
        let methods: &[&str] = match sub.name.as_str() {
            "proxy" => &["delete", "get", "head", "options", "patch", "post", "put"],
            "log" => &["get"],
            _ => &["get", "post"],
        };
        let mut operations = Vec::new();
        for method in methods {
            let text = format!("connect {} requests to {}", method.to_uppercase(), sub.name);
            let mut operation = self.operation("connect", text);
            operation.id = self.id("connect", suffix).replacen(
                &prefix(self.resource),
                &format!("{}{}", prefix(self.resource), capitalized(method)),
                1,
            );
            operation.kind(&sub.group, &sub.version, &sub.kind);
            operation.response("200", json!({"type": "string"}), &["*/*"]);
            operations.push((*method, operation));
        }
        let mut common = self.common(true, true);
        if let (true, Some(common)) = (with_path, common.as_array_mut()) {
            common.push(path_parameter("path", "path to the resource".to_owned(), self.dialect));
        }
        self.insert(self.path(below), operations, common);
    }
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'I', 'O']) { "an" } else { "a" }
}
