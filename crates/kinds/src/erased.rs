//! Kinds with their type erased once, so that the verb pipeline is compiled once and custom resources take the
//! same way as built-in kinds.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::SystemTime;

use gantry_api::encoded::Encoded;
use gantry_api::metav1::ObjectMeta;
use gantry_api::{DecodeError, Object, Resource};
use serde_json::Value;

use crate::kind::{Errors, FieldPaths, Kind, NameRule, Requester, SPEC, STATUS, StoredAs, Verbs};
use crate::scale::Scale;
use crate::table::Column;

/// An object whose type only its kind knows.
pub trait AnyObject: Any + Send + Sync {
    /// `metadata`
    fn metadata(&self) -> &ObjectMeta;
    /// `metadata`
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// JSON bytes with `apiVersion` and `kind`.
    fn encode(&self) -> Vec<u8>;
    /// JSON tree with `apiVersion` and `kind`.
    fn to_value(&self) -> Value;
    /// A copy.
    fn clone_box(&self) -> Box<dyn AnyObject>;
    /// Whether `other` is of the same kind and has the same fields.
    fn same_as(&self, other: &dyn AnyObject) -> bool;
    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
    /// For downcasts.
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// Becomes `other`, which is of the same kind.
    ///
    /// # Panics
    /// It is not.
    fn take_over(&mut self, other: Box<dyn AnyObject>);
    /// The object shared with readers of the encoded form: `bytes` at `revision`.
    fn into_encoded(self: Box<Self>, bytes: bytes::Bytes, revision: u64) -> Arc<Encoded>;
}

impl<K: Object> AnyObject for K {
    fn metadata(&self) -> &ObjectMeta {
        Object::metadata(self)
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        Object::metadata_mut(self)
    }

    fn encode(&self) -> Vec<u8> {
        Object::encode(self)
    }

    fn to_value(&self) -> Value {
        self.encode_value()
    }

    fn clone_box(&self) -> Box<dyn AnyObject> {
        Box::new(self.clone())
    }

    fn same_as(&self, other: &dyn AnyObject) -> bool {
        other.as_any().downcast_ref::<K>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn take_over(&mut self, other: Box<dyn AnyObject>) {
        let other: Box<dyn Any> = other;
        *self = *other.downcast::<K>().unwrap_or_else(|_| panic!("an object became one of another kind"));
    }

    fn into_encoded(self: Box<Self>, bytes: bytes::Bytes, revision: u64) -> Arc<Encoded> {
        Arc::new(Encoded::new(bytes, revision))
    }
}

impl dyn AnyObject {
    /// The typed object, if it is of this type.
    pub fn downcast<K: Object>(&self) -> Option<&K> {
        self.as_any().downcast_ref()
    }

    /// The typed object, if it is of this type.
    pub fn downcast_mut<K: Object>(&mut self) -> Option<&mut K> {
        self.as_any_mut().downcast_mut()
    }
}

/// An object as a client sent it, with what strict validation would complain about.
pub struct Decoded {
    /// The object; unknown fields are dropped.
    pub object: Box<dyn AnyObject>,
    /// What strict validation says: `unknown field "spec.foo"`.
    pub unknown: Vec<String>,
}

/// A kind behind a pointer: a built-in one, or a custom resource's version.
pub trait AnyKind: Send + Sync + 'static {
    /// Group, version, kind, plural, scope.
    fn resource(&self) -> &Resource;
    /// `configmap`
    fn singular(&self) -> &str;
    /// Short names.
    fn short_names(&self) -> Vec<String>;
    /// Categories.
    fn categories(&self) -> Vec<String>;
    /// How object names are checked.
    fn name_rule(&self) -> NameRule;
    /// Subresources.
    fn verbs(&self) -> Verbs;
    /// Whether writes may be flushed late.
    fn is_lazy(&self) -> bool;
    /// The schema's name in `gantry_api::schema` (`io.k8s.api.core.v1.Pod`); `None` for custom resources.
    fn definition(&self) -> Option<String>;
    /// What fields there are and how they merge: the built-in type's schema, or the custom resource definition's.
    fn schema(&self) -> gantry_api::schema::Node<'_> {
        let definition = self.definition().and_then(|name| gantry_api::schema::lookup(&name));
        definition.map_or(gantry_api::schema::Node::ANY, |d| d.node())
    }
    /// The schema of a custom resource, for OpenAPI.
    fn structural(&self) -> Option<Arc<gantry_api::schema::Structural>> {
        None
    }

    /// Reads a body; `strict` asks for the unknown fields.
    fn decode(&self, json: &[u8], strict: bool) -> Result<Decoded, DecodeError>;
    /// Reads a tree, for instance the result of a patch.
    fn decode_value(&self, value: Value) -> Result<Box<dyn AnyObject>, DecodeError>;

    /// See [`Kind::recall`].
    fn recall(&self, _object: &mut dyn AnyObject, _sent: &[u8]) {}
    /// See [`Kind::defaults`].
    fn defaults(&self, object: &mut dyn AnyObject);
    /// See [`Kind::prepare_create`].
    fn prepare_create(&self, object: &mut dyn AnyObject);
    /// See [`Kind::prepare_update`].
    fn prepare_update(&self, new: &mut dyn AnyObject, old: &dyn AnyObject);
    /// See [`Kind::prepare_status_update`].
    fn prepare_status_update(&self, new: &mut dyn AnyObject, old: &dyn AnyObject);
    /// See [`Kind::validate`].
    fn validate(&self, object: &dyn AnyObject) -> Errors;
    /// See [`Kind::validate_update`].
    fn validate_update(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Errors;
    /// See [`Kind::validate_status_update`].
    fn validate_status_update(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Errors;
    /// See [`Kind::warnings`].
    fn warnings(&self, object: &dyn AnyObject) -> Vec<String>;
    /// See [`Kind::update_warnings`].
    fn update_warnings(&self, new: &dyn AnyObject, _old: &dyn AnyObject) -> Vec<String> {
        self.warnings(new)
    }
    /// See [`Kind::columns`].
    fn columns(&self) -> Vec<OwnedColumn>;
    /// See [`Kind::READ_ONLY`].
    fn read_only(&self) -> bool {
        false
    }
    /// See [`Kind::DEPRECATION`].
    fn deprecation(&self) -> Option<&'static str> {
        None
    }
    /// See [`Kind::NAME_FIRST`].
    fn name_first(&self) -> bool {
        true
    }
    /// See [`Kind::name_cell`].
    fn name_cell(&self, object: &dyn AnyObject) -> String {
        object.metadata().name.clone().unwrap_or_default()
    }
    /// See [`Kind::cells`].
    fn cells(&self, object: &dyn AnyObject, now: SystemTime) -> Vec<Value>;
    /// See [`Kind::selectable`].
    fn selectable(&self) -> Vec<String>;
    /// See [`Kind::selectable_values`].
    fn selectable_values(&self, object: &dyn AnyObject) -> Vec<String>;
    /// See [`Kind::scale`].
    fn scale(&self, object: &dyn AnyObject) -> Option<Scale>;
    /// See [`Kind::set_replicas`].
    fn set_replicas(&self, object: &mut dyn AnyObject, replicas: i32);
    /// The field that holds the replicas, from the root; `None` if the kind cannot be scaled.
    fn replicas_path(&self) -> Option<Vec<String>> {
        self.verbs().scale.then(|| vec!["spec".to_owned(), "replicas".to_owned()])
    }
    /// See [`Kind::grace_period`].
    fn grace_period(&self, object: &dyn AnyObject, requested: Option<i64>) -> Option<i64>;
    /// See [`Kind::ORPHANS_BY_DEFAULT`].
    fn orphans_by_default(&self) -> bool;

    /// See [`Kind::note_requester`].
    fn note_requester(&self, _object: &mut dyn AnyObject, _requester: Requester<'_>) {}
    /// See [`Kind::prepare_part_update`].
    fn prepare_part_update(&self, _part: &str, _new: &mut dyn AnyObject, _old: &dyn AnyObject) {}
    /// See [`Kind::note_time`].
    fn note_time(&self, _new: &mut dyn AnyObject, _old: &dyn AnyObject, _now: SystemTime) {}
    /// See [`Kind::note_creation`].
    fn note_creation(&self, _object: &mut dyn AnyObject, _now: SystemTime) {}
    /// See [`Kind::validate_part_update`].
    fn validate_part_update(&self, _part: &str, _new: &dyn AnyObject, _old: &dyn AnyObject) -> Errors {
        Errors::new()
    }
    /// See [`Kind::validate_replacement`].
    fn validate_replacement(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Errors {
        let mut errors = self.validate(new);
        errors.extend(self.validate_update(new, old));
        errors
    }
    /// [`AnyKind::validate`], added to what is wrong with the metadata: some rules are not asked then.
    fn validate_beside(&self, object: &dyn AnyObject, errors: &mut Errors) {
        errors.extend(self.validate(object));
    }
    /// [`AnyKind::validate_replacement`], added to what is wrong with the metadata.
    fn validate_replacement_beside(&self, new: &dyn AnyObject, old: &dyn AnyObject, errors: &mut Errors) {
        errors.extend(self.validate_replacement(new, old));
    }
    /// [`AnyKind::validate_status_update`], added to what is wrong with the metadata.
    fn validate_status_beside(&self, new: &dyn AnyObject, old: &dyn AnyObject, errors: &mut Errors) {
        errors.extend(self.validate_status_update(new, old));
    }
    /// See [`Kind::refuse_deletion`].
    fn refuse_deletion(&self, _object: &dyn AnyObject) -> Option<&'static str> {
        None
    }
    /// See [`Kind::UNCONDITIONAL_UPDATE`].
    fn unconditional_update(&self) -> bool {
        false
    }
    /// See [`Kind::CREATE_ON_UPDATE`].
    fn create_on_update(&self) -> bool {
        false
    }
    /// See [`Kind::STORED`].
    fn stored(&self) -> Option<StoredAs> {
        None
    }
    /// See [`Kind::reset_fields`].
    fn reset_fields(&self, subresource: &str) -> FieldPaths {
        match subresource {
            "status" => SPEC,
            "" if self.verbs().status => STATUS,
            _ => &[],
        }
    }
}

/// A column whose texts may come from a custom resource definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedColumn {
    /// Its title.
    pub name: String,
    /// `string`, `integer`, `date`, …
    pub kind: String,
    /// `name` for the name column, else empty.
    pub format: String,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// What it says.
    pub description: String,
}

impl From<&Column> for OwnedColumn {
    fn from(column: &Column) -> Self {
        Self {
            name: column.name.into(),
            kind: column.kind.into(),
            format: column.format.into(),
            priority: column.priority,
            description: column.description.into(),
        }
    }
}

/// A built-in kind, erased.
pub struct Builtin<K: Kind> {
    resource: Resource,
    definition: &'static str,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Builtin<K> {
    /// `K`, whose schema is `definition`.
    pub fn new(definition: &'static str) -> Self {
        Self { resource: K::Object::RESOURCE, definition, kind: PhantomData }
    }
}

fn typed<K: Kind>(object: &dyn AnyObject) -> &K::Object {
    object
        .downcast()
        .unwrap_or_else(|| panic!("an object of another kind was given to {}", K::Object::RESOURCE.kind))
}

fn typed_mut<K: Kind>(object: &mut dyn AnyObject) -> &mut K::Object {
    object
        .downcast_mut()
        .unwrap_or_else(|| panic!("an object of another kind was given to {}", K::Object::RESOURCE.kind))
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|t| (*t).to_owned()).collect()
}

impl<K: Kind> AnyKind for Builtin<K> {
    fn resource(&self) -> &Resource {
        &self.resource
    }

    fn singular(&self) -> &str {
        K::NAMES.singular
    }

    fn short_names(&self) -> Vec<String> {
        owned(K::NAMES.short)
    }

    fn categories(&self) -> Vec<String> {
        owned(K::NAMES.categories)
    }

    fn name_rule(&self) -> NameRule {
        K::NAMES.rule
    }

    fn verbs(&self) -> Verbs {
        K::VERBS
    }

    fn is_lazy(&self) -> bool {
        K::LAZY
    }

    fn definition(&self) -> Option<String> {
        Some(self.definition.to_owned())
    }

    fn decode(&self, json: &[u8], strict: bool) -> Result<Decoded, DecodeError> {
        let (object, unknown) =
            if strict { K::Object::decode_strict(json)? } else { (K::Object::decode(json)?, Vec::new()) };
        Ok(Decoded { object: Box::new(object), unknown })
    }

    fn decode_value(&self, value: Value) -> Result<Box<dyn AnyObject>, DecodeError> {
        Ok(Box::new(K::Object::decode_value(&value)?))
    }

    fn recall(&self, object: &mut dyn AnyObject, sent: &[u8]) {
        K::recall(typed_mut::<K>(object), sent);
    }

    fn defaults(&self, object: &mut dyn AnyObject) {
        K::defaults(typed_mut::<K>(object));
    }

    fn prepare_create(&self, object: &mut dyn AnyObject) {
        K::prepare_create(typed_mut::<K>(object));
    }

    fn prepare_update(&self, new: &mut dyn AnyObject, old: &dyn AnyObject) {
        K::prepare_update(typed_mut::<K>(new), typed::<K>(old));
    }

    fn prepare_status_update(&self, new: &mut dyn AnyObject, old: &dyn AnyObject) {
        K::prepare_status_update(typed_mut::<K>(new), typed::<K>(old));
    }

    fn validate(&self, object: &dyn AnyObject) -> Errors {
        K::validate(typed::<K>(object))
    }

    fn validate_update(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Errors {
        K::validate_update(typed::<K>(new), typed::<K>(old))
    }

    fn update_warnings(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Vec<String> {
        K::update_warnings(typed::<K>(new), typed::<K>(old))
    }

    fn validate_status_update(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Errors {
        K::validate_status_update(typed::<K>(new), typed::<K>(old))
    }

    fn warnings(&self, object: &dyn AnyObject) -> Vec<String> {
        K::warnings(typed::<K>(object))
    }

    fn columns(&self) -> Vec<OwnedColumn> {
        K::columns().iter().map(OwnedColumn::from).collect()
    }

    fn read_only(&self) -> bool {
        K::READ_ONLY
    }

    fn deprecation(&self) -> Option<&'static str> {
        K::DEPRECATION
    }

    fn name_first(&self) -> bool {
        K::NAME_FIRST
    }

    fn name_cell(&self, object: &dyn AnyObject) -> String {
        K::name_cell(typed::<K>(object))
    }

    fn cells(&self, object: &dyn AnyObject, now: SystemTime) -> Vec<Value> {
        K::cells(typed::<K>(object), now)
    }

    fn selectable(&self) -> Vec<String> {
        owned(K::selectable())
    }

    fn selectable_values(&self, object: &dyn AnyObject) -> Vec<String> {
        K::selectable_values(typed::<K>(object))
    }

    fn scale(&self, object: &dyn AnyObject) -> Option<Scale> {
        K::scale(typed::<K>(object))
    }

    fn set_replicas(&self, object: &mut dyn AnyObject, replicas: i32) {
        K::set_replicas(typed_mut::<K>(object), replicas);
    }

    fn grace_period(&self, object: &dyn AnyObject, requested: Option<i64>) -> Option<i64> {
        K::grace_period(typed::<K>(object), requested)
    }

    fn orphans_by_default(&self) -> bool {
        K::ORPHANS_BY_DEFAULT
    }
    fn note_requester(&self, object: &mut dyn AnyObject, requester: Requester<'_>) {
        K::note_requester(typed_mut::<K>(object), requester);
    }

    fn prepare_part_update(&self, part: &str, new: &mut dyn AnyObject, old: &dyn AnyObject) {
        K::prepare_part_update(part, typed_mut::<K>(new), typed::<K>(old));
    }

    fn note_time(&self, new: &mut dyn AnyObject, old: &dyn AnyObject, now: SystemTime) {
        K::note_time(typed_mut::<K>(new), typed::<K>(old), now);
    }

    fn note_creation(&self, object: &mut dyn AnyObject, now: SystemTime) {
        K::note_creation(typed_mut::<K>(object), now);
    }

    fn validate_part_update(&self, part: &str, new: &dyn AnyObject, old: &dyn AnyObject) -> Errors {
        K::validate_part_update(part, typed::<K>(new), typed::<K>(old))
    }

    fn validate_replacement(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Errors {
        K::validate_replacement(typed::<K>(new), typed::<K>(old))
    }

    fn refuse_deletion(&self, object: &dyn AnyObject) -> Option<&'static str> {
        K::refuse_deletion(typed::<K>(object))
    }

    fn unconditional_update(&self) -> bool {
        K::UNCONDITIONAL_UPDATE
    }

    fn create_on_update(&self) -> bool {
        K::CREATE_ON_UPDATE
    }

    fn stored(&self) -> Option<StoredAs> {
        K::STORED
    }

    fn reset_fields(&self, subresource: &str) -> FieldPaths {
        K::reset_fields(subresource)
    }
}
