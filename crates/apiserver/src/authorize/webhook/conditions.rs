//! Conditions, in CEL, under which the other server is asked at all (KEP-3221).

use std::sync::LazyLock;

use gantry_api::field::{Error as Fault, Path};
use gantry_cel::{Env, Program, Type, limits, untyped};
use serde_json::{Value, json};

/// Conditions of one webhook.
const MAX: usize = 64;

/// The type of `request`. Its fields are named as they are, also those that CEL reserves (`namespace`): unlike those
/// of objects, upstream does not escape them.
static ENV: LazyLock<Env> = LazyLock::new(|| {
    let text = || Type::String;
    let texts = || Type::list(Type::String);
    let selector = |name: &str| {
        let fields = [("key", text()), ("operator", text()), ("values", texts())];
        let requirement = Type::object("kubernetes.SelectorRequirement", fields);
        Type::object(name, [("rawSelector", text()), ("requirements", Type::list(requirement))])
    };
    let resource = Type::object(
        "kubernetes.ResourceAttributes",
        [
            ("namespace", text()),
            ("verb", text()),
            ("group", text()),
            ("version", text()),
            ("resource", text()),
            ("subresource", text()),
            ("name", text()),
            ("fieldSelector", selector("kubernetes.FieldSelectorAttributes")),
            ("labelSelector", selector("kubernetes.LabelSelectorAttributes")),
        ],
    );
    let path = Type::object("kubernetes.NonResourceAttributes", [("path", text()), ("verb", text())]);
    let request = Type::object(
        "kubernetes.SubjectAccessReviewSpec",
        [
            ("resourceAttributes", resource),
            ("nonResourceAttributes", path),
            ("user", text()),
            ("groups", texts()),
            ("extra", Type::map(texts())),
            ("uid", text()),
        ],
    );
    Env::new().variable("request", request)
});

/// The conditions of one webhook; all of them have to hold.
#[derive(Default)]
pub(in super::super) struct Conditions {
    all: Vec<(String, Program)>,
}

impl Conditions {
    /// Compiles `sources`; what is wrong goes into `faults`.
    pub(in super::super) fn compile(sources: &[String], path: &Path, faults: &mut Vec<Fault>) -> Self {
        let path = path.child("matchConditions");
        if sources.len() > MAX {
            faults.push(Fault::too_many(&path, sources.len(), MAX));
            return Self::default();
        }
        let mut all = Vec::new();
        for (i, source) in sources.iter().enumerate() {
            let path = path.index(i).child("expression");
            if source.trim().is_empty() {
                faults.push(Fault::required(&path, ""));
            } else if sources[..i].contains(source) {
                faults.push(Fault::duplicate(&path, source.as_str()));
            } else {
                match Program::compile(source, &ENV) {
                    Ok(program) if matches!(program.output(), Type::Bool) => {
                        all.push((source.clone(), program));
                    }
                    Ok(program) => {
                        let why = format!("must evaluate to bool but got {}", program.output());
                        faults.push(Fault::invalid(&path, source.as_str(), why));
                    }
                    Err(issues) => {
                        let why = issues.complaint();
                        faults.push(Fault::invalid(&path, source.as_str(), why));
                    }
                }
            }
        }
        Self { all }
    }

    /// Whether all hold. One that does not outweighs others that fail.
    pub(super) fn hold(&self, spec: &Value) -> Result<bool, String> {
        if self.all.is_empty() {
            return Ok(true);
        }
        let request = filled(spec);
        let mut errors = Vec::new();
        for (source, program) in &self.all {
            let done = program.eval(&[("request", untyped(&request))], limits::PER_CALL);
            match done.result.map(|value| value.as_bool()) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Ok(false),
                Ok(None) => errors.push(format!(
                    "cel evaluation error: expression '{source}' eval result value should be bool"
                )),
                Err(error) => errors
                    .push(format!("cel evaluation error: expression '{source}' resulted in error: {error}")),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }
}

/// With every text that may be asked for, also the empty ones.
fn filled(spec: &Value) -> Value {
    let mut request = json!({"user": "", "uid": "", "groups": [], "extra": {}});
    let merge = |into: &mut Value, from: &Value| {
        for (key, value) in from.as_object().into_iter().flatten() {
            into[key] = value.clone();
        }
    };
    merge(&mut request, spec);
    if let Some(groups) = spec.get("group") {
        request["groups"] = groups.clone();
        if let Some(map) = request.as_object_mut() {
            map.remove("group");
        }
    }
    if let Some(resource) = spec.get("resourceAttributes") {
        let mut all = json!({
            "namespace": "", "verb": "", "group": "", "version": "", "resource": "", "subresource": "", "name": "",
        });
        merge(&mut all, resource);
        request["resourceAttributes"] = all;
    }
    if let Some(path) = spec.get("nonResourceAttributes") {
        let mut all = json!({"path": "", "verb": ""});
        merge(&mut all, path);
        request["nonResourceAttributes"] = all;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_decide_who_is_asked_about() {
        let compile = |sources: &[&str]| {
            let sources: Vec<String> = sources.iter().map(|s| (*s).to_owned()).collect();
            let mut faults = Vec::new();
            let conditions = Conditions::compile(&sources, &Path::new("w"), &mut faults);
            (conditions, faults.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let (conditions, faults) = compile(&[
            "has(request.resourceAttributes)",
            "request.resourceAttributes.namespace == 'kube-system'",
            "!('system:nodes' in request.groups)",
        ]);
        assert_eq!(faults, Vec::<String>::new());
        let of = |namespace: &str| json!({"user": "u", "resourceAttributes": {"namespace": namespace, "verb": "get"}});
        assert_eq!(conditions.hold(&of("kube-system")), Ok(true));
        assert_eq!(conditions.hold(&of("shop")), Ok(false));
        assert_eq!(conditions.hold(&json!({"nonResourceAttributes": {"path": "/x"}})), Ok(false));
        let (lone, _) = compile(&["request.resourceAttributes.verb == 'get'"]);
        assert!(lone.hold(&json!({"nonResourceAttributes": {"path": "/x"}})).is_err());
        let (_, faults) = compile(&["", "1", "request.user == 'a'", "request.user == 'a'", "nonsense("]);
        assert_eq!(faults[0], "w.matchConditions[0].expression: Required value");
        assert!(faults[1].ends_with("must evaluate to bool but got int"), "{}", faults[1]);
        assert!(faults[2].contains("Duplicate value"), "{}", faults[2]);
        assert!(faults[3].contains("compilation failed: "), "{}", faults[3]);
    }
}
