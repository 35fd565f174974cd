//! From an authorized request on a resource to the verb that serves it.

use bytes::Bytes;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded};
use serde_json::Value;

use crate::connect::ConnectRequest;
use crate::core::Core;
use crate::identify::User;
use crate::managed;
use crate::query::{ListOptions, Query, WriteOptions};
use crate::resources::Served;
use crate::route::RequestInfo;
use crate::serve::Body;
use crate::verbs::list::Page;
use crate::verbs::watch::Watching;
use crate::verbs::{
    Answer, Call, Input, bind, components, create, decode, delete, delete_collection, get, list, patch,
    scale, subresources, update, watch,
};
use crate::warnings::Warnings;

/// What a verb answers.
pub(crate) enum Reply {
    Object(Answer, Option<Served>),
    List(Page, Served),
    Watch(Box<Watching>, Served),
}

/// A request on a resource, with its body.
pub(crate) struct Incoming<'a> {
    pub(crate) user: &'a User,
    pub(crate) info: &'a RequestInfo,
    pub(crate) query: &'a Query,
    pub(crate) input: Input<'a>,
    pub(crate) user_agent: &'a str,
    pub(crate) is_get: bool,
    pub(crate) warnings: &'a Warnings,
}

/// Serves it.
///
/// # Errors
/// What the client is told.
pub(crate) async fn serve(core: &Core, incoming: &Incoming<'_>) -> Result<Reply> {
    let info = incoming.info;
    if let Some(answer) = virtual_resource(core, incoming).await? {
        return Ok(Reply::Object(answer, None));
    }
    let served = find(core, info)?;
    let writes = !matches!(info.verb, "list" | "get" | "watch");
    if let Some(warning) = served.deprecation.as_ref().filter(|_| !(writes && served.kind.read_only())) {
        incoming.warnings.add(warning.clone());
        crate::metrics::deprecated(info, removed_release(warning));
        incoming.warnings.annotate("k8s.io/deprecated", "true");
    }
    let namespaced = served.resource().namespaced;
    if namespaced && info.namespace.is_empty() && info.name_in_path {
        return Err(ApiError::no_such_path());
    }
    // The path of a namespace names it as what the request is about and as where that is.
    let is_itself = info.resource == "namespaces" && info.namespace == info.name;
    if !namespaced && !info.namespace.is_empty() && !is_itself {
        return Err(ApiError::no_such_path());
    }
    if let Err(why) = gantry_api::names::path_segment(&info.name) {
        let name = gantry_api::field::quote(&info.name);
        return Err(ApiError::bad_request(format!("Name parameter invalid: {name}: {why}")));
    }
    let call = Call {
        core,
        user: incoming.user,
        served,
        namespace: if namespaced { &info.namespace } else { "" },
        name: &info.name,
        subresource: &info.subresource,
        warnings: incoming.warnings,
    };
    let answer = verb(&call, incoming).await;
    if call.served.entry.custom {
        answer.map_err(|error| as_definitions_say(&call, info, error))
    } else {
        answer
    }
}

/// What upstream's handler of custom resources, which is behind no router, says of what there is not.
fn as_definitions_say(call: &Call<'_>, info: &RequestInfo, error: ApiError) -> ApiError {
    let resource = call.served.resource();
    match error.code() {
        405 if error.message() == not_allowed().message() => {
            ApiError::method_not_allowed(resource, info.verb)
        }
        404 if error.message() == ApiError::no_such_path().message() && !info.subresource.is_empty() => {
            ApiError::not_found(resource, &info.name)
        }
        _ => error,
    }
}

/// `1.22` of `… deprecated in v1.16+, unavailable in v1.22+; …`; empty if the version is not said.
fn removed_release(warning: &str) -> &str {
    let after = warning.split_once("unavailable in v").map_or("", |(_, after)| after);
    after.split(['+', ';', ' ']).next().unwrap_or("")
}

/// The resource of the path.
fn find(core: &Core, info: &RequestInfo) -> Result<Served> {
    let found = core.served(&info.group, &info.version, &info.resource);
    found.map_err(|_| crate::discovery::no_such(core, info))
}

async fn verb(call: &Call<'_>, incoming: &Incoming<'_>) -> Result<Reply> {
    let (info, query, input) = (incoming.info, incoming.query, &incoming.input);
    let object = |answer| Ok(Reply::Object(answer, Some(call.served.clone())));
    let writes = |options: &str| WriteOptions::parse(query, incoming.user_agent, options);
    if call.served.kind.read_only() {
        return match (info.verb, call.subresource) {
            ("list", _) => {
                let page = components::list(call, &ListOptions::parse(query)?)?;
                Ok(Reply::List(page, call.served.clone()))
            }
            ("get", "") => object(Answer::object(200, components::get(call)?)),
            _ => Err(not_allowed()),
        };
    }
    match info.verb {
        "list" => Ok(Reply::List(list::list(call, &ListOptions::parse(query)?).await?, call.served.clone())),
        // The old paths of watches have a verb whatever the method is.
        "watch" if !incoming.is_get => Err(not_allowed()),
        "watch" => {
            let watching = watch::watch(call, &ListOptions::parse_watch(query)?).await?;
            Ok(Reply::Watch(Box::new(watching), call.served.clone()))
        }
        "get" => object(read(call, query).await?),
        "create" => object(post(call, input, &writes("CreateOptions")?).await?),
        "update" => object(put(call, input, &writes("UpdateOptions")?).await?),
        "patch" => object(modify(call, input, &writes("PatchOptions")?).await?),
        "delete" if call.subresource.is_empty() => {
            object(delete::delete(call, &delete::Options::read(input, query, call.warnings)?).await?)
        }
        "deletecollection" if is_collection(call) => {
            let options = delete::Options::read(input, query, call.warnings)?;
            let page =
                delete_collection::delete_collection(call, &ListOptions::parse(query)?, &options).await?;
            Ok(Reply::List(page, call.served.clone()))
        }
        _ => Err(not_allowed()),
    }
}

/// Whether all objects of the collection may be deleted at once.
fn is_collection(call: &Call<'_>) -> bool {
    let resource = call.served.resource();
    let in_scope = !resource.namespaced || !call.namespace.is_empty();
    in_scope && crate::discovery::verbs(&call.served.entry).contains(&"deletecollection")
}

/// 405 for a verb that a resource does not know.
pub(crate) fn not_allowed() -> ApiError {
    ApiError::no_such_verb()
}

/// GET of an object or a subresource.
pub(crate) async fn read(call: &Call<'_>, query: &Query) -> Result<Answer> {
    match call.subresource {
        "" => {}
        "finalize" => return Err(not_allowed()),
        "scale" => return scale::get_scale(call).await,
        // What has a part of its own can also be read, and reads as the whole.
        _ => drop(crate::verbs::lifecycle::Part::of(call)?),
    }
    let revision = crate::query::parse_revision(query.get("resourceVersion").unwrap_or(""));
    if let Some(revision) = revision.map_err(crate::query::of_storage)? {
        call.core.hub.wait_for(revision).await?;
    }
    Ok(Answer::object(200, get::get(call).await?))
}

/// POST.
pub(crate) async fn post(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    if !call.subresource.is_empty() {
        return subresources::create(call, input, options).await;
    }
    if !call.name.is_empty() || (call.served.resource().namespaced && call.namespace.is_empty()) {
        return Err(not_allowed());
    }
    create::create(call, input, options).await
}

/// PUT.
pub(crate) async fn put(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    match (call.name, call.subresource) {
        ("", _) => Err(not_allowed()),
        (_, "scale") => scale::put_scale(call, input, options).await,
        _ => update::update(call, input, options).await,
    }
}

/// PATCH.
pub(crate) async fn modify(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    match (call.name, call.subresource) {
        ("", _) => Err(not_allowed()),
        (_, "finalize") => Err(not_allowed()),
        (_, "scale") => scale::patch_scale(call, input, options).await,
        _ => patch::patch(call, input, options).await,
    }
}

/// Resources that are not stored: reviews, and `bindings`.
async fn virtual_resource(core: &Core, incoming: &Incoming<'_>) -> Result<Option<Answer>> {
    let info = incoming.info;
    if info.group.is_empty() && info.version == "v1" && info.resource == "bindings" {
        return bindings(core, incoming).await.map(Some);
    }
    let found = core.table.load().find_virtual(&info.group, &info.version, &info.resource).cloned();
    let Some(resource) = found else { return Ok(None) };
    if !info.name.is_empty() || (resource.resource().namespaced && info.namespace.is_empty()) {
        return Err(ApiError::no_such_path());
    }
    if info.verb != "create" {
        return Err(not_allowed());
    }
    let expected = resource.resource();
    let options = WriteOptions::parse(incoming.query, incoming.user_agent, "CreateOptions")?;
    let mut body = decode::body(incoming.warnings, &incoming.input, expected, options.validation)?;
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut)
        && !expected.namespaced
    {
        metadata.remove("namespace");
    }
    let namespace = body.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("");
    if expected.namespaced && !namespace.is_empty() && namespace != info.namespace {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(why));
    }
    let body = managed::track_virtual(core, body, expected, options.manager());
    let answer = resource.create(incoming.user, &info.namespace, body).await?;
    Ok(Some(Answer::other(201, &answer, 0)))
}

/// POST of a Binding on the old collection.
async fn bindings(core: &Core, incoming: &Incoming<'_>) -> Result<Answer> {
    if incoming.info.verb != "create" {
        return Err(not_allowed());
    }
    let options = WriteOptions::parse(incoming.query, incoming.user_agent, "CreateOptions")?;
    let pods = Call {
        core,
        user: incoming.user,
        served: core.served("", "v1", "pods")?,
        namespace: &incoming.info.namespace,
        name: "",
        subresource: "binding",
        warnings: incoming.warnings,
    };
    let body = decode::body(pods.warnings, &incoming.input, &bind::BINDING, options.validation)?;
    let name = body.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("").to_owned();
    if name.is_empty() {
        return Err(ApiError::bad_request("Name parameter required."));
    }
    bind::bind(&pods.on(pods.namespace, &name), body, &options).await
}

/// Whether the connector serves the request.
pub(crate) fn is_connect(info: &RequestInfo) -> bool {
    info.is_resource
        && info.group.is_empty()
        && match info.subresource.as_str() {
            "proxy" => matches!(info.resource.as_str(), "pods" | "services" | "nodes"),
            "log" | "exec" | "attach" | "portforward" => info.resource == "pods",
            _ => false,
        }
}

/// Whether a subresource that [connects](is_connect) takes the method.
pub(crate) fn connects(info: &RequestInfo, method: &http::Method) -> bool {
    match info.subresource.as_str() {
        "proxy" => true,
        "log" => *method == http::Method::GET,
        _ => matches!(*method, http::Method::GET | http::Method::POST),
    }
}

/// Hands the request to the connector.
///
/// # Errors
/// What the client is told.
pub(crate) async fn connect(
    core: &Core,
    user: &User,
    info: &RequestInfo,
    warnings: &Warnings,
    request: http::Request<Body>,
) -> Result<http::Response<Body>> {
    let served = find(core, info)?;
    let call = Call {
        core,
        user,
        served,
        namespace: &info.namespace,
        name: &info.name,
        subresource: &info.subresource,
        warnings,
    };
    if info.subresource != "log" {
        use crate::admission::{Operation, VerbOptions};
        let query = Query::parse(request.uri().query().unwrap_or(""));
        let mut options = crate::connect::options(info, &query);
        crate::verbs::lifecycle::admit_body(&call, Operation::Connect, VerbOptions::None, &mut options)
            .await?;
    }
    let object = get::find(&Call { subresource: "", ..call.clone() }).await?;
    if object.is_none() && info.subresource != "proxy" {
        return Err(ApiError::not_found(call.served.resource(), call.name));
    }
    let request = ConnectRequest {
        user: user.clone(),
        resource: call.served.resource().clone(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        path: info.rest.clone(),
        object,
        request,
    };
    core.parts.connector.connect(request).await
}

/// An object of nothing but bytes, for answers that are no objects.
pub(crate) fn raw(bytes: Bytes) -> Encoded {
    Encoded::new(bytes, 0)
}
