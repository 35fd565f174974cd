//! Custom resources: definitions are stored as objects of a built-in kind; what they define is served by a kind made
//! from them.

mod controller;
mod convert;
mod json_path;
mod kind;
mod names;

pub(crate) use controller::start;
pub(crate) use convert::Converter;
pub(crate) use kind::CustomKind;

use gantry_api::apiextensions::CustomResourceDefinition;
use gantry_api::field::{Error, Path};
use gantry_kinds::AnyObject;

use crate::structural::CustomSchema;

/// What is wrong with the schemas of a definition; nothing for any other object.
pub(crate) fn schema_errors(object: &dyn AnyObject) -> Vec<Error> {
    let Some(crd) = object.downcast::<CustomResourceDefinition>() else { return Vec::new() };
    let mut errors = Vec::new();
    for (i, version) in crd.spec.versions.iter().enumerate() {
        let Some(schema) = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()) else {
            continue;
        };
        let path = Path::new("spec").child("versions").index(i).child("schema").child("openAPIV3Schema");
        let tree = serde_json::to_value(schema).unwrap_or_default();
        match CustomSchema::parse(&tree) {
            Ok(schema) => errors.extend(schema.problems(&path)),
            Err(why) => errors.push(Error::forbidden(&path, why)),
        }
        if let Err(why) = CustomKind::new(crd, version) {
            let path = Path::new("spec").child("versions").index(i);
            errors.push(Error::invalid(&path, version.name.as_str(), why));
        }
    }
    errors
}
