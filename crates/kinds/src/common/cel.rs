//! Where objects hold CEL expressions: the one place that knows what each of them sees and must give.
//!
//! Expressions are compiled here before an object is accepted, and again by whoever evaluates them. As
//! `apiserver/pkg/admission/plugin/cel`.

use gantry_api::field::{Error, Path};
use gantry_cel::{Env, Fields, Object, Program, Type, authorizer_type, resource_check_type};

use crate::kind::Errors;

/// What an expression is for, which decides its variables and the type of its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// `matchConditions[*].expression` of webhooks and policies: a boolean.
    MatchCondition,
    /// `variables[*].expression` of a policy: anything.
    Variable,
    /// `validations[*].expression`: a boolean.
    Validation,
    /// `validations[*].messageExpression`: a string.
    MessageExpression,
    /// `auditAnnotations[*].valueExpression`: a string or null.
    AuditAnnotation,
    /// `mutations[*].applyConfiguration.expression`: an object of the mutated kind.
    ApplyConfiguration,
    /// `mutations[*].jsonPatch.expression`: a list of patches.
    JsonPatch,
    /// The selector of a device of `resource.k8s.io`: a boolean.
    DeviceSelector,
}

/// What surrounds an expression.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// Whether `params` is a variable.
    pub has_params: bool,
    /// The policy's own variables that stand before this expression: name and expression.
    pub variables: &'a [(&'a str, &'a str)],
    /// Whether the object held this expression before: what an older server accepted stays valid.
    pub stored: bool,
}

/// Compiles `expression` (as text, what the object holds) and reports what is wrong with it at `path`.
pub fn check(site: Site, expression: &str, context: Context<'_>, path: &Path, errors: &mut Errors) {
    let mut known = Vec::with_capacity(context.variables.len());
    for (name, source) in context.variables {
        let found = compile(Site::Variable, source, context.has_params, &known);
        // One that does not compile was reported in its own place.
        known.push(((*name).to_owned(), found.map_or(Type::Dyn, |program| variable_type(program.output()))));
    }
    if let Err(why) = compile(site, expression, context.has_params, &known) {
        errors.push(Error::invalid(path, expression, why));
    }
}

/// The type that later expressions see of a variable: objects are dynamic.
pub fn variable_type(ty: &Type) -> Type {
    match ty {
        Type::List(of) => Type::list(variable_type(of)),
        Type::Map(key, value) => Type::Map(variable_type(key).into(), variable_type(value).into()),
        Type::Object(_) | Type::Opaque(..) | Type::Kind(_) => Type::Dyn,
        other => other.clone(),
    }
}

/// Compiles an expression of admission.
///
/// # Errors
/// The complaint of the compiler, in upstream's words.
pub fn compile(
    site: Site,
    expression: &str,
    has_params: bool,
    variables: &[(String, Type)],
) -> Result<Program, String> {
    if site == Site::DeviceSelector {
        return compile_in(&device_environment(), expression, &[Type::Bool]);
    }
    let wanted: &[Type] = match site {
        Site::MatchCondition | Site::Validation | Site::DeviceSelector => &[Type::Bool],
        Site::MessageExpression => &[Type::String],
        Site::AuditAnnotation => &[Type::String, Type::Null],
        Site::Variable => &[],
        Site::ApplyConfiguration => &[object_type("Object")],
        Site::JsonPatch => &[Type::list(patch_type())],
    };
    compile_in(&environment(site, has_params, variables), expression, wanted)
}

/// Compiles an expression of a validating policy where `object`, `oldObject` and `params` are of known types; any result will
/// do. `variables` are those of the policy, name and expression.
///
/// # Errors
/// The complaint of the compiler, in upstream's words.
pub fn check_types(
    expression: &str,
    has_params: bool,
    variables: &[(&str, &str)],
    types: &[Type; 3],
) -> Result<(), String> {
    let mut known = Vec::with_capacity(variables.len());
    for (name, source) in variables {
        let env = environment_of(Site::Validation, has_params, &known, types.clone());
        let ty = compile_in(&env, source, &[]).map_or(Type::Dyn, |program| variable_type(program.output()));
        known.push(((*name).to_owned(), ty));
    }
    compile_in(&environment_of(Site::Validation, has_params, &known, types.clone()), expression, &[])
        .map(drop)
}

fn compile_in(env: &Env, expression: &str, wanted: &[Type]) -> Result<Program, String> {
    let program = Program::compile(expression, env).map_err(|issues| issues.complaint())?;
    let found = program.output();
    if wanted.is_empty() || wanted.iter().any(|ty| ty.same(found)) {
        return Ok(program);
    }
    let (found, wanted) = (go_name(found), wanted.iter().map(go_name).collect::<Vec<_>>());
    Err(match wanted.as_slice() {
        [one] => format!("must evaluate to {one} but got {found}"),
        several => format!("must evaluate to one of [{}] but got {found}", several.join(" ")),
    })
}

/// A type as cel-go's `Type.String` prints it.
fn go_name(ty: &Type) -> String {
    match ty {
        Type::Null => "null_type".to_owned(),
        Type::Duration => "google.protobuf.Duration".to_owned(),
        Type::Timestamp => "google.protobuf.Timestamp".to_owned(),
        Type::List(of) => format!("list({})", go_name(of)),
        Type::Map(key, value) => format!("map({}, {})", go_name(key), go_name(value)),
        other => other.to_string(),
    }
}

/// What an expression of admission sees.
fn environment(site: Site, has_params: bool, variables: &[(String, Type)]) -> Env {
    environment_of(site, has_params, variables, [Type::Dyn, Type::Dyn, Type::Dyn])
}

/// The same, where `object`, `oldObject` and `params` are of these types.
fn environment_of(
    site: Site,
    has_params: bool,
    variables: &[(String, Type)],
    [object, old, params]: [Type; 3],
) -> Env {
    let mut env = Env::new()
        .variable("object", object)
        .variable("oldObject", old)
        .variable("namespaceObject", namespace_type())
        .variable("request", request_type());
    if has_params {
        env = env.variable("params", params);
    }
    // Messages and annotations ask nobody.
    if !matches!(site, Site::MessageExpression | Site::AuditAnnotation) {
        env = env
            .variable("authorizer", authorizer_type())
            .variable("authorizer.requestResource", resource_check_type());
    }
    if site != Site::MatchCondition || !variables.is_empty() {
        env = env.computed("variables", "kubernetes.variables", variables.iter().cloned());
    }
    if matches!(site, Site::ApplyConfiguration | Site::JsonPatch | Site::Variable) {
        env = env.structs(patch_struct).json_patch();
    }
    env
}

fn device_environment() -> Env {
    let texts = Type::map(Type::Dyn);
    let device = Type::object(
        "kubernetes.DRADevice",
        [
            ("driver", Type::String),
            ("attributes", Type::map(texts.clone())),
            ("capacity", Type::map(Type::map(gantry_cel::quantity_type()))),
            ("allowMultipleAllocations", Type::Bool),
        ],
    );
    Env::new().variable("device", device)
}

fn object_type(name: &str) -> Type {
    Type::Object(Object::new(name, Fields::Any))
}

fn patch_type() -> Type {
    let fields = [("op", Type::String), ("from", Type::String), ("path", Type::String), ("value", Type::Dyn)];
    Type::object("JSONPatch", fields)
}

/// The structs that mutations build: `Object`, `Object.spec`, … with any fields, and `JSONPatch`.
fn patch_struct(name: &str) -> Option<Type> {
    match name {
        "JSONPatch" => Some(patch_type()),
        "Object" => Some(object_type(name)),
        name if name.starts_with("Object.") => Some(object_type(name)),
        _ => None,
    }
}

fn request_type() -> Type {
    let named = |name: &str, last: &'static str| {
        Type::object(name, [("group", Type::String), ("version", Type::String), (last, Type::String)])
    };
    let kind = named("kubernetes.GroupVersionKind", "kind");
    let resource = named("kubernetes.GroupVersionResource", "resource");
    let texts = Type::list(Type::String);
    let user = Type::object(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", texts.clone()),
            ("extra", Type::map(texts)),
        ],
    );
    Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", Type::String),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

fn namespace_type() -> Type {
    let texts = Type::list(Type::String);
    let condition = Type::object(
        "kubernetes.NamespaceCondition",
        [
            ("status", Type::String),
            ("type", Type::String),
            ("lastTransitionTime", Type::Timestamp),
            ("message", Type::String),
            ("reason", Type::String),
        ],
    );
    let metadata = Type::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", Type::map(Type::String)),
            ("annotations", Type::map(Type::String)),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", texts.clone()),
        ],
    );
    let status = [("conditions", Type::list(condition)), ("phase", Type::String)];
    Type::object(
        "kubernetes.Namespace",
        [
            ("metadata", metadata),
            ("spec", Type::object("kubernetes.NamespaceSpec", [("finalizers", texts)])),
            ("status", Type::object("kubernetes.NamespaceStatus", status)),
        ],
    )
}
