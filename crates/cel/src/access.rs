//! What is in lists and maps.

use serde_json::Value as Json;

use crate::data::{Data, DataKind};
use crate::error::{EvalError, Result};
use crate::escape::{escape, unescape};
use crate::json::{typed, untyped};
use crate::value::{Key, List, Map, Opaque, Text, Value};

fn view<'a>(json: &'a Json, data: Option<&'a Data>) -> Result<Value<'a>> {
    data.map_or_else(|| Ok(untyped(json)), |data| typed(json, data))
}

impl<'a> List<'a> {
    /// The element at a position.
    pub fn get(&self, index: usize) -> Option<Result<Value<'a>>> {
        match self {
            Self::Values(list) => list.get(index).cloned().map(Ok),
            Self::Json(list, data) => {
                let item = match data.map(|d| &d.kind) {
                    Some(DataKind::List { item, .. }) => Some(item.as_ref()),
                    _ => None,
                };
                list.get(index).map(|json| view(json, item))
            }
        }
    }

    /// The elements.
    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>>> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// The elements as a vector.
    pub fn to_vec(&self) -> Result<Vec<Value<'a>>> {
        match self {
            Self::Values(list) => Ok(list.as_ref().clone()),
            Self::Json(..) => self.iter().collect(),
        }
    }
}

impl<'a> Map<'a> {
    /// The value of a text key, as expressions spell it.
    pub fn field(&self, name: &str) -> Option<Result<Value<'a>>> {
        match self {
            Self::Values(entries) | Self::Struct(_, entries) => {
                entries.get(&Key::String(Text::Borrowed(name))).cloned().map(Ok)
            }
            Self::Json(map, None) => map.get(name).map(|json| Ok(untyped(json))),
            Self::Json(map, Some(data)) => match &data.kind {
                DataKind::Object(fields) => {
                    let unescaped = if name.contains("__") { Some(unescape(name)?) } else { None };
                    let name = unescaped.as_deref().unwrap_or(name);
                    let json = map.get(name).filter(|json| !json.is_null())?;
                    fields.get(name).map(|data| typed(json, data))
                }
                DataKind::Map(value) => map.get(name).map(|json| typed(json, value)),
                _ => map.get(name).map(|json| Ok(untyped(json))),
            },
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// Inside: the value cannot be read. Outside: the key is no key.
    pub fn get(&self, key: &Value<'a>) -> Result<Option<Value<'a>>> {
        match (self, key) {
            (_, Value::String(text)) => self.field(text.as_str()).transpose(),
            (Self::Values(entries), key) => {
                let key = Key::from_value(key);
                if key.is_none() && !matches!(key_kind(self), None | Some(true)) {
                    return Err(EvalError::no_overload());
                }
                Ok(key.and_then(|key| entries.get(&key).cloned()))
            }
            // Without a schema any key may be asked for; all there are, are texts.
            (Self::Json(_, None), Value::Int(_) | Value::Uint(_) | Value::Bool(_) | Value::Double(_)) => {
                Ok(None)
            }
            _ => Err(EvalError::no_overload()),
        }
    }

    /// The keys.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Values(entries) | Self::Struct(_, entries) => entries.keys().map(Key::to_value).collect(),
            Self::Json(map, data) => match data.map(|d| &d.kind) {
                Some(DataKind::Object(fields)) => {
                    let known = map.keys().filter(|name| fields.contains_key(*name));
                    known
                        .map(|name| match escape(name) {
                            Some(escaped) if escaped != *name => Value::text(escaped),
                            _ => Value::String(Text::Borrowed(name)),
                        })
                        .collect()
                }
                _ => map.keys().map(|name| Value::String(Text::Borrowed(name))).collect(),
            },
        }
    }
}

/// Whether a map's keys are numbers; `None` if it is empty.
fn key_kind(map: &Map<'_>) -> Option<bool> {
    match map {
        Map::Values(entries) => entries.keys().next().map(|k| matches!(k, Key::Int(_) | Key::Uint(_))),
        _ => Some(false),
    }
}

/// What `operand.name` is; `Ok(None)` if there is no such field.
pub fn select<'a>(operand: &Value<'a>, name: &str) -> Result<Option<Value<'a>>> {
    match operand {
        Value::Map(map) => map.field(name).transpose(),
        Value::Optional(None) => Ok(None),
        Value::Optional(Some(value)) => select(value, name),
        Value::Opaque(Opaque::Authorizer(_)) => Err(EvalError::no_overload()),
        _ => Ok(None),
    }
}

/// What `operand[index]` is; `Ok(None)` if there is no such element or entry.
pub fn index<'a>(operand: &Value<'a>, index: &Value<'a>) -> Result<Option<Value<'a>>> {
    match operand {
        Value::Map(map) => map.get(index),
        Value::List(list) => {
            let position = match index {
                Value::Int(n) => Some(*n),
                Value::Uint(n) => i64::try_from(*n).ok(),
                Value::Double(d) if d.fract() == 0.0 && d.abs() < 9.0e18 => Some(*d as i64),
                Value::Double(d) => {
                    return Err(EvalError::other(format!("unsupported index value {d} in list")));
                }
                other => {
                    let name = other.type_name();
                    return Err(EvalError::other(format!("unsupported index type '{name}' in list")));
                }
            };
            let position = position.and_then(|p| usize::try_from(p).ok());
            position.and_then(|p| list.get(p)).transpose()
        }
        Value::Optional(None) => Ok(None),
        Value::Optional(Some(value)) => self::index(value, index),
        _ => Err(EvalError::no_overload()),
    }
}
