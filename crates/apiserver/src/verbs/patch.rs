//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::ApiError;
use gantry_api::field::{Error, Path};
use gantry_api::schema::Node;
use gantry_api::status::Result;
use gantry_kinds::AnyObject;
use serde_json::Value;

use super::lifecycle::Part;
use super::repeated::{Question, question};
use super::write::{Change, Current, Mutate, is_stored, modify};
use super::{Answer, Call, Input, create, decode, lifecycle, preconditions, update};
use crate::apply::{self, Applied};
use crate::limits::PATCH_ATTEMPTS;
use crate::query::{FieldValidation, WriteOptions};
use crate::{audit, managed};

/// A patch, read.
pub(crate) struct Patch {
    pub(crate) form: Form,
    tree: Value,
    /// What strict reading complains of.
    complaints: Vec<String>,
}

/// What a patch is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Merge,
    Strategic,
    Apply,
}

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Patches the object.
///
/// # Errors
/// 400, 403, 404, 409, 415, 422.
pub(crate) async fn patch(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let part = Part::of(call)?;
    let form = Patch::form(call, input, options)?;
    let creates = form == Form::Apply && call.subresource.is_empty();
    let body = input.bytes.clone();
    let mut patching =
        Patching { call, part, form, patch: OnceLock::new(), body, options, warned: false, absent: false };
    if !creates {
        patching.patch()?;
    }
    match modify(call, PATCH_ATTEMPTS, options.dry_run, &mut patching).await {
        Err(_) if patching.absent && creates => patching.create().await,
        written => Ok(Answer::object(200, written?.object)),
    }
}

impl Patch {
    /// Reads the patch; its media type says which it is.
    ///
    /// # Errors
    /// 400, 413, 415, or 422 for options that do not go with it.
    pub(crate) fn read(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Self> {
        let form = Self::form(call, input, options)?;
        Self::parse(form, &input.bytes, options)
    }

    /// What the patch is written in, and whether the options go with that.
    fn form(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Form> {
        let form = Form::of(call, &decode::media_type(input.content_type))?;
        options.check_patch(form == Form::Apply)?;
        audit::request_patch(call.warnings, &input.bytes);
        Ok(form)
    }

    fn parse(form: Form, bytes: &Bytes, options: &WriteOptions) -> Result<Self> {
        let strict = options.validation != FieldValidation::Ignore;
        if form == Form::Apply {
            return Self::read_apply(bytes, strict);
        }
        let read = apply::read(bytes, None).map_err(|e| {
            let prefix = if form == Form::Strategic || !strict { "" } else { "error decoding patch: " };
            ApiError::bad_request(format!("{prefix}{}", decode::parse_error(&e, bytes)))
        })?;
        let mut complaints = read.problems;
        if form == Form::Json && strict {
            complaints = complaints_of_operations(&read.tree, complaints);
        }
        let patch = Self { form, tree: read.tree, complaints };
        patch.check_shape(strict)?;
        Ok(patch)
    }

    fn read_apply(bytes: &Bytes, strict: bool) -> Result<Self> {
        let json = decode::yaml(bytes).map_err(|why| {
            ApiError::bad_request(format!("error decoding YAML: error converting YAML to JSON: {why}"))
        })?;
        let malformed = |e: serde_json::Error| {
            ApiError::bad_request(format!("error decoding YAML: {}", decode::parse_error(&e, &json)))
        };
        let read = apply::read(&json, None).map_err(malformed)?;
        // JSON is searched for lines only if there is something to be found.
        let is_json = json == *bytes;
        let complaint = match strict && !(is_json && read.problems.is_empty()) {
            true => decode::yaml_complaint(bytes),
            false => None,
        };
        let complaints =
            complaint.map(|c| format!("error converting YAML to JSON: {c}")).into_iter().collect();
        if read.tree.is_null() {
            return Err(ApiError::bad_request("invalid object type: /, Kind="));
        }
        if !read.tree.is_object() {
            let what = kind_of(&read.tree);
            return Err(ApiError::bad_request(format!(
                "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
            )));
        }
        Ok(Self { form: Form::Apply, tree: read.tree, complaints })
    }

    /// Whether the patch is of the outer form that its media type has.
    fn check_shape(&self, strict: bool) -> Result<()> {
        let (fits, wanted) = match self.form {
            Form::Json if strict => (self.tree.is_array(), "[]handlers.jsonPatchOp"),
            Form::Json => (self.tree.is_array(), "jsonpatch.Patch"),
            _ => (self.tree.is_object() || self.tree.is_null(), "map[string]interface {}"),
        };
        let mut operations = self.tree.as_array().into_iter().flatten().enumerate();
        let misfit = operations.find(|(_, op)| !op.is_object() && !op.is_null());
        let (tree, place, wanted) = match misfit {
            Some((_, op)) if self.form == Form::Json && strict => {
                (op, "Go value".to_owned(), "handlers.jsonPatchOp")
            }
            Some((at, op)) if self.form == Form::Json => (op, format!("Patch.{at}"), "jsonpatch.Operation"),
            _ if fits => return Ok(()),
            _ => (&self.tree, "Go value".to_owned(), wanted),
        };
        let prefix = if strict && self.form != Form::Strategic { "error decoding patch: " } else { "" };
        let what = kind_of(tree);
        Err(ApiError::bad_request(format!(
            "{prefix}json: cannot unmarshal {what} into {place} of type {wanted}"
        )))
    }

    /// The patched form of `tree`, which is of any kind.
    ///
    /// # Errors
    /// What upstream says of a patch that does not apply.
    pub(crate) fn apply_to(&self, tree: Value, node: Node<'_>) -> Result<Value> {
        match self.form {
            Form::Json => apply::json_patch(tree, &self.tree),
            Form::Merge => apply::merge_patch(tree, self.tree.clone()),
            Form::Strategic if self.tree.is_null() => Ok(tree),
            Form::Strategic => apply::strategic_merge_patch(tree, self.tree.clone(), node),
            Form::Apply => Err(ApiError::internal("an apply configuration is no patch")),
        }
    }

    /// The configuration, of an apply.
    pub(crate) fn config(&self) -> &Value {
        &self.tree
    }

    /// What strict validation says of the configuration of an apply: keys that stand twice.
    ///
    /// # Errors
    /// 400
    pub(crate) fn check_config(&self, call: &Call<'_>, validation: FieldValidation) -> Result<()> {
        let Some(complaint) = self.complaints.first() else { return Ok(()) };
        match validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => decode::warn(call.warnings, complaint),
            FieldValidation::Strict => {
                return Err(ApiError::bad_request(format!("error strict decoding YAML: {complaint}")));
            }
        }
        Ok(())
    }

    /// What messages show: the patch itself if it is a strategic one, else what came of it.
    pub(crate) fn shown(&self, patched: &Value) -> String {
        match self.form {
            Form::Strategic => apply::go_text(&self.tree),
            _ => patched.to_string(),
        }
    }

    /// What strict validation says of the patch itself.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.clone()
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::Null => "null",
    }
}

impl Form {
    fn of(call: &Call<'_>, media_type: &str) -> Result<Self> {
        // Custom resources have no merge keys, and so no strategic merge.
        let strategic = call.served.kind.definition().is_some();
        match media_type {
            JSON_PATCH => Ok(Self::Json),
            MERGE_PATCH => Ok(Self::Merge),
            STRATEGIC_PATCH if strategic => Ok(Self::Strategic),
            APPLY_PATCH => Ok(Self::Apply),
            _ if strategic => {
                Err(decode::unsupported_media_type(&[JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH]))
            }
            _ => Err(decode::unsupported_media_type(&[JSON_PATCH, MERGE_PATCH, APPLY_PATCH])),
        }
    }
}

/// Unknown fields of the operations and what was found before, operation by operation.
fn complaints_of_operations(patch: &Value, duplicates: Vec<String>) -> Vec<String> {
    let operations = patch.as_array().map_or(&[][..], Vec::as_slice);
    let mut found = Vec::new();
    for (i, operation) in operations.iter().enumerate() {
        let unknown = operation.as_object().into_iter().flat_map(|map| map.keys());
        let unknown = unknown.filter(|key| !matches!(key.as_str(), "op" | "path" | "from" | "value"));
        found.extend(unknown.map(|key| format!("json patch unknown field \"[{i}].{key}\"")));
        let here = format!("duplicate field \"[{i}]");
        let own = duplicates.iter().filter(|d| d.starts_with(&here));
        found.extend(own.map(|d| format!("json patch {d}")));
    }
    found
}

struct Patching<'a> {
    call: &'a Call<'a>,
    part: Part,
    form: Form,
    /// Read when it is needed first: an apply that repeats an earlier one is known by its bytes.
    patch: OnceLock<Patch>,
    /// The patch as it came.
    body: Bytes,
    options: &'a WriteOptions,
    /// Whether the patch itself was complained of: once, however often it is tried.
    warned: bool,
    /// Whether there is no such object. (Admission may say `NotFound` of another one.)
    absent: bool,
}

#[async_trait]
impl Mutate for Patching<'_> {
    async fn mutate(&mut self, current: Option<&Current>) -> Result<Change> {
        let call = self.call;
        let Some(current) = current else {
            self.absent = true;
            return Err(ApiError::not_found(call.served.resource(), call.name));
        };
        self.absent = false;
        if self.form != Form::Apply {
            let object = self.patched(current).await?;
            return self.finish(object, current).await;
        }
        let question = self.question(current);
        if call.core.repeated.knows(&question) {
            return lifecycle::repeat(call, self.part, current, self.options).await;
        }
        let object = self.applied(current).await?;
        let change = self.finish(object, current).await?;
        // Only what has come through validation, and without a word: a repetition is not validated again.
        if let Change::Put(object) = &change
            && self.is_beyond_doubt()?
            && is_stored(object.clone_box(), current)
        {
            call.core.repeated.note(question);
            return Ok(Change::Keep);
        }
        Ok(change)
    }
}

impl Patching<'_> {
    async fn finish(&self, mut object: Box<dyn AnyObject>, current: &Current) -> Result<Change> {
        let call = self.call;
        lifecycle::ensure_namespace(call, object.metadata_mut())?;
        update::check_name(call, object.metadata())?;
        lifecycle::update(call, self.part, object, current, self.options).await
    }

    fn patch(&self) -> Result<&Patch> {
        if let Some(patch) = self.patch.get() {
            return Ok(patch);
        }
        let patch = Patch::parse(self.form, &self.body, self.options)?;
        Ok(self.patch.get_or_init(|| patch))
    }

    /// Whether the same bytes come to the same for everybody: they were looked through for what strict validation
    /// complains of, nothing was complained of, and no webhook, which may change its mind, converted the object.
    fn is_beyond_doubt(&self) -> Result<bool> {
        let looked = self.options.validation != FieldValidation::Ignore;
        let quiet = self.patch()?.complaints.is_empty() && self.call.warnings.is_empty();
        Ok(looked && quiet && self.call.served.converter().is_none())
    }

    /// What is asked of the memory of repeated applies.
    fn question(&self, current: &Current) -> Question {
        let uid = current.object.metadata().uid.as_deref().unwrap_or("");
        question(self.call, &self.body, self.options, uid, current.revision)
    }

    async fn patched(&mut self, current: &Current) -> Result<Box<dyn AnyObject>> {
        let call = self.call;
        let first = !std::mem::replace(&mut self.warned, true);
        let patch = self.patch()?;
        let tree = patch.apply_to(current.tree()?.clone(), call.served.kind.schema())?;
        let shown = |tree: &Value| patch.shown(tree);
        let mut object = decode::patched(call, &tree, shown)?;
        if first {
            let complaints = patch.complaints();
            decode::check_patched(call, &tree, complaints, self.options.validation, shown)?;
        }
        lifecycle::omit_empty(object.metadata_mut());
        call.served.kind.defaults(&mut *object);
        managed::track(call, &mut *object, Some(current), self.options).await?;
        Ok(object)
    }

    async fn applied(&mut self, current: &Current) -> Result<Box<dyn AnyObject>> {
        let applied = self.apply(Some(current.tree()?)).await?;
        match applied.object {
            // What is stored is complete: nothing has to be read again.
            None => Ok(current.object.clone_box()),
            Some(tree) => self.complete(tree),
        }
    }

    async fn apply(&mut self, live: Option<&Value>) -> Result<Applied> {
        let call = self.call;
        let first = !std::mem::replace(&mut self.warned, true);
        let (kind, patch) = (call.served.kind.as_ref(), self.patch()?);
        let force = self.options.force.unwrap_or(false);
        let applied = managed::as_writer(call, self.options, |writer| {
            apply::apply(live, patch.config(), writer, &kind.resource().kind, force, kind.schema())
        });
        let applied = applied.await??;
        if first {
            patch.check_config(call, self.options.validation)?;
        }
        Ok(applied)
    }

    fn complete(&self, tree: Value) -> Result<Box<dyn AnyObject>> {
        let call = self.call;
        if let Some(apply::Misfit(why)) = apply::misfit(&tree, call.served.kind.schema()) {
            let resource = call.served.resource();
            let gvk = format!("{}/{}, Kind={}", resource.group, resource.version, resource.kind);
            return Err(ApiError::new(
                500,
                "",
                format!(
                    "failed to convert new object ({}/{}; {gvk}) to proper version: unable to convert unstructured object to {gvk}: {why}",
                    call.namespace, call.name
                ),
            ));
        }
        let mut object = decode::patched(call, &tree, Value::to_string)?;
        lifecycle::omit_empty(object.metadata_mut());
        call.served.kind.defaults(&mut *object);
        Ok(object)
    }

    /// Creates what an apply describes.
    async fn create(&mut self) -> Result<Answer> {
        let call = self.call;
        let tree = self.apply(None).await?.object.unwrap_or_default();
        let mut object = self.complete(tree)?;
        let meta = object.metadata();
        if let Some(uid) = meta.uid.as_deref().filter(|uid| !uid.is_empty()) {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(ApiError::conflict(call.served.resource(), call.name, why));
        }
        lifecycle::ensure_namespace(call, object.metadata_mut())?;
        update::check_name(call, object.metadata())?;
        preconditions::authorize_create(call).await?;
        let stored = create::create_applied(call, object, self.options).await?;
        Ok(Answer::object(201, stored))
    }
}

impl WriteOptions {
    /// Checks what only an apply, or only another patch, may say.
    fn check_patch(&self, is_apply: bool) -> Result<()> {
        let mut errors = Vec::new();
        if !is_apply && self.force.is_some() {
            errors.push(Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
        }
        if is_apply && self.field_manager.is_empty() {
            errors.push(Error::required(&Path::new("fieldManager"), "is required for apply patch"));
        }
        crate::query::refuse("PatchOptions", &errors)
    }
}
