//! The numbers of replicas of a custom resource: whole, not negative, and not too large.

use gantry_api::field::{Error, Path};
use serde_json::Value;

use super::go_type;
use super::json_path::JsonPath;
use crate::apply;

/// What is wrong with the number at a path; one that is absent is none.
pub(super) fn error(path: &JsonPath, object: &Value) -> Option<Error> {
    let names = path.members();
    let joined = format!(".{}", names.join("."));
    let at = Path::new(&joined);
    match number(&names, object) {
        Ok(None) => None,
        Ok(Some(number)) if number < 0 => {
            Some(Error::invalid(&at, number, "should be a non-negative integer"))
        }
        Ok(Some(number)) if number > i64::from(i32::MAX) => {
            Some(Error::invalid(&at, number, format!("should be less than or equal to {}", i32::MAX)))
        }
        Ok(Some(_)) => None,
        Err(why) => Some(Error::invalid(&at, 0, why)),
    }
}

fn number(names: &[String], object: &Value) -> Result<Option<i64>, String> {
    let misfit = |depth: usize, value: &Value, wanted: &str| {
        format!(
            ".{} accessor error: {} is of the type {}, expected {wanted}",
            names[..depth].join("."),
            apply::go_text(value),
            go_type(value)
        )
    };
    let mut value = object;
    for (i, name) in names.iter().enumerate() {
        match value {
            Value::Object(map) => match map.get(name) {
                Some(inner) => value = inner,
                None => return Ok(None),
            },
            Value::Null => return Ok(None),
            other => return Err(misfit(i + 1, other, "map[string]interface{}")),
        }
    }
    value.as_i64().map(Some).ok_or_else(|| misfit(names.len(), value, "int64"))
}
