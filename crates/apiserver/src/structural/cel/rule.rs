//! One rule: what the definition says, and its programs.

use std::sync::Arc;

use gantry_api::field::{Error, ErrorType, Path};
use gantry_api::schema::{Additional, Structural};
use gantry_cel::{Data, Env, Program, Type};
use serde_json::Value;

/// The variables of a rule.
pub const SELF: &str = "self";
/// The value before the update.
pub const OLD_SELF: &str = "oldSelf";

/// An entry of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    /// `rule`
    pub rule: String,
    /// `message`
    pub message: String,
    /// `messageExpression`
    pub message_expression: String,
    /// `reason`
    pub reason: Option<String>,
    /// `fieldPath`
    pub field_path: String,
    /// `optionalOldSelf`
    pub optional_old_self: Option<bool>,
}

impl Definition {
    /// Reads an entry.
    pub fn read(entry: &Value) -> Self {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: entry.get("reason").and_then(Value::as_str).map(str::to_owned),
            field_path: text("fieldPath"),
            optional_old_self: entry.get("optionalOldSelf").and_then(Value::as_bool),
        }
    }

    /// How errors name the rule.
    pub fn shown(&self) -> &str {
        if self.message.is_empty() { self.rule.trim() } else { self.message.trim() }
    }

    /// What a failure says if no expression says it.
    pub fn complaint(&self) -> String {
        if self.message.is_empty() {
            format!("failed rule: {}", self.rule.trim())
        } else {
            self.message.trim().to_owned()
        }
    }

    /// A failure in the way that the rule asks for.
    pub fn failure(&self, path: &Path, value: Option<Value>, detail: String) -> Error {
        let kind = match self.reason.as_deref() {
            Some("FieldValueForbidden") => ErrorType::Forbidden,
            Some("FieldValueRequired") => ErrorType::Required,
            Some("FieldValueDuplicate") => ErrorType::Duplicate,
            _ => ErrorType::Invalid,
        };
        match kind {
            ErrorType::Forbidden | ErrorType::Required => {
                Error { kind, path: path.clone(), value: None, detail }
            }
            ErrorType::Duplicate => Error { kind, path: path.clone(), value, detail: String::new() },
            _ => Error { kind, path: path.clone(), value, detail },
        }
    }
}

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    /// What the definition says.
    pub definition: Definition,
    /// The rule.
    pub program: Program,
    /// Its message.
    pub message: Option<Program>,
    /// Where failures are reported, below the place of the rule.
    pub field_path: Option<String>,
}

/// Why a rule does not compile.
pub struct Complaint {
    /// Whether it is about the message expression.
    pub of_message: bool,
    /// Why.
    pub text: String,
}

impl Rule {
    /// Compiles the rules of one place of a schema.
    ///
    /// # Errors
    /// The compiler's complaint, in upstream's words.
    pub fn compile(definition: Definition, data: &Arc<Data>, schema: &Structural) -> Result<Self, Complaint> {
        let complaint = |of_message, text: String| Complaint { of_message, text };
        let Some(ty) = data.ty.clone() else {
            return Err(complaint(
                false,
                "failed to convert to declType for CEL validation rules".to_owned(),
            ));
        };
        let optional = definition.optional_old_self == Some(true);
        let old = if optional { Type::optional(ty.clone()) } else { ty.clone() };
        let env = Env::new().variable(SELF, ty).variable(OLD_SELF, old).sizes(Arc::clone(data));
        let program = Program::compile(&definition.rule, &env)
            .map_err(|issues| complaint(false, issues.complaint()))?;
        if !matches!(program.output(), Type::Bool) {
            return Err(complaint(false, "cel expression must evaluate to a bool".to_owned()));
        }
        let message = match definition.message_expression.as_str() {
            "" => None,
            source => {
                let program = Program::compile(source, &env)
                    .map_err(|issues| complaint(true, format!("messageExpression {}", issues.complaint())))?;
                if !matches!(program.output(), Type::String) {
                    return Err(complaint(true, "messageExpression must evaluate to a string".to_owned()));
                }
                Some(program)
            }
        };
        let field_path = field_path(&definition.field_path, schema).ok().filter(|path| !path.is_empty());
        Ok(Self { definition, program, message, field_path })
    }
}

/// The field that a path such as `.spec['a.b']` means, as errors write it.
///
/// # Errors
/// Why it means none.
pub fn field_path(text: &str, schema: &Structural) -> Result<String, String> {
    let mut path = Path::root();
    let mut place = schema;
    let mut rest = text;
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            if end == 0 {
                return Err("unexpected end of JSON path".to_owned());
            }
            name = after[..end].to_owned();
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix('[') {
            let quoted = after.strip_prefix('\'').ok_or("expected single quoted string")?;
            let end = closing_quote(quoted).ok_or("unexpected end of JSON path")?;
            name = unescape(&quoted[..end])?;
            rest = quoted[end + 1..].strip_prefix(']').ok_or("expected ]")?;
        } else {
            return Err(format!("expected [ or . but got: {rest}"));
        }
        let missing = || "does not refer to a valid field".to_owned();
        if !place.properties.is_empty() {
            path = path.child(&name);
            place = place.properties.get(&name).ok_or_else(missing)?;
        } else {
            let Some(Additional::Schema(values)) = &place.additional else { return Err(missing()) };
            path = path.key(&name);
            place = values;
        }
    }
    Ok(path.as_str().to_owned())
}

fn closing_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len()).find(|i| bytes[*i] == b'\'' && (*i == 0 || bytes[i - 1] != b'\\'))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let escaped = chars.next().unwrap_or_default();
        out.push(match escaped {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\'' | '\\' => escaped,
            other => return Err(format!("invalid string literal: invalid escape char \\{other}")),
        });
    }
    Ok(out)
}
