//! How objects are shown: as JSON, YAML, names, single fields, or (see [`table`]) as a table.

pub(crate) mod jsonpath;
pub(crate) mod paint;
pub(crate) mod table;

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use crate::discovery::Found;
use crate::error::{CliError, Result, fail};
use jsonpath::Template;

/// `-o`
#[derive(Clone, Debug)]
pub(crate) enum Format {
    /// Columns; `wide` for all of them.
    Table { wide: bool },
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// `pod/web`
    Name,
    /// `jsonpath=…`
    JsonPath(Template),
    /// `custom-columns=NAME:.metadata.name,…`
    Columns(Vec<(String, Template)>),
}

/// The options of verbs that show objects.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct OutputOptions {
    /// json, yaml, wide, name, jsonpath=TEMPLATE or custom-columns=NAME:PATH,…
    #[arg(short = 'o', long, value_name = "FORMAT")]
    pub output: Option<String>,
    /// Keep managedFields in JSON and YAML
    #[arg(long)]
    pub show_managed_fields: bool,
}

impl OutputOptions {
    /// The format asked for.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn format(&self) -> Result<Format> {
        let Some(text) = self.output.as_deref() else { return Ok(Format::Table { wide: false }) };
        let (name, argument) = text.split_once('=').unwrap_or((text, ""));
        Ok(match name {
            "" => Format::Table { wide: false },
            "wide" => Format::Table { wide: true },
            "json" => Format::Json,
            "yaml" => Format::Yaml,
            "name" => Format::Name,
            "jsonpath" if !argument.is_empty() => Format::JsonPath(Template::parse(argument)?),
            "jsonpath" => return fail("template format specified but no template given"),
            "custom-columns" => Format::Columns(columns(argument)?),
            _ => {
                return fail(format!(
                    "unable to match a printer suitable for the output format {name:?}, allowed formats are: custom-columns,json,jsonpath,name,wide,yaml"
                ));
            }
        })
    }
}

fn columns(argument: &str) -> Result<Vec<(String, Template)>> {
    if argument.is_empty() {
        return fail("custom-columns format specified but no custom columns given");
    }
    let column = |part: &str| {
        let (name, path) = part.split_once(':').ok_or_else(|| {
            CliError::message(format!(
                "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
            ))
        })?;
        Ok((name.to_owned(), Template::parse(&jsonpath::relaxed(path))?))
    };
    argument.split(',').map(column).collect()
}

/// Prints objects in any format but a table. One alone is printed as it is, several as a `List`.
pub(crate) fn print_objects(
    format: &Format,
    options: &OutputOptions,
    mut objects: Vec<(Found, Value)>,
    single: bool,
) -> Result<()> {
    if !options.show_managed_fields {
        for (_, object) in &mut objects {
            hide_managed_fields(object);
        }
    }
    let mut out = std::io::stdout().lock();
    match format {
        Format::Name => {
            for (found, object) in &objects {
                writeln!(out, "{}", found.object_name(object["metadata"]["name"].as_str().unwrap_or("")))?;
            }
        }
        Format::Columns(columns) => {
            let mut table = table::Lines::new(columns.iter().map(|(name, _)| name.clone()).collect());
            for (_, object) in &objects {
                table.push(columns.iter().map(|(_, path)| cell(&path.render(object))).collect());
            }
            out.write_all(table.render(true).as_bytes())?;
        }
        Format::Json | Format::Yaml | Format::JsonPath(_) | Format::Table { .. } => {
            let value = match (single, objects.len()) {
                (true, 1) => objects.remove(0).1,
                _ => {
                    let items: Vec<Value> = objects.into_iter().map(|(_, object)| object).collect();
                    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
                }
            };
            out.write_all(document(format, &value)?.as_bytes())?;
        }
    }
    Ok(())
}

fn cell(rendered: &Result<String>) -> String {
    match rendered {
        Ok(text) if !text.is_empty() => text.clone(),
        _ => "<none>".to_owned(),
    }
}

/// One value as a document, with a line end (except of a template's own making).
pub(crate) fn document(format: &Format, value: &Value) -> Result<String> {
    match format {
        Format::Yaml => yaml(value),
        Format::JsonPath(template) => template.render(value),
        _ => {
            let mut text = Vec::new();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
            serde::Serialize::serialize(value, &mut serializer)
                .map_err(|e| CliError::message(format!("an object cannot be written as JSON: {e}")))?;
            text.push(b'\n');
            String::from_utf8(text).map_err(|e| CliError::message(e.to_string()))
        }
    }
}

/// A value as YAML.
pub(crate) fn yaml(value: &Value) -> Result<String> {
    let options = serde_saphyr::ser_options! { min_fold_chars: usize::MAX };
    let mut text = serde_saphyr::to_string_with_options(value, options)
        .map_err(|e| CliError::message(format!("an object cannot be written as YAML: {e}")))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Takes `metadata.managedFields` out.
pub(crate) fn hide_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// What a write prints: `deployment.apps/web created`, or the object in the format asked for.
pub(crate) fn report(
    options: &OutputOptions,
    found: &Found,
    name: &str,
    object: &Value,
    operation: &str,
) -> Result<()> {
    match options.format()? {
        Format::Table { .. } => {
            writeln!(std::io::stdout(), "{} {operation}", found.object_name(name))?;
            Ok(())
        }
        format => print_objects(&format, options, vec![(found.clone(), object.clone())], true),
    }
}

/// Prints the server's warnings to standard error.
pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("Warning: {warning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_checked() {
        let format =
            |text: &str| OutputOptions { output: Some(text.into()), show_managed_fields: false }.format();
        assert!(matches!(format("wide"), Ok(Format::Table { wide: true })));
        assert!(matches!(format("jsonpath={.a}"), Ok(Format::JsonPath(_))));
        assert!(matches!(format("custom-columns=A:.a,B:{.b}"), Ok(Format::Columns(c)) if c.len() == 2));
        assert!(format("xml").expect_err("no such format").text().contains("\"xml\""));
        assert!(format("jsonpath").is_err());
    }

    #[test]
    fn json_is_indented_by_four_and_sorted() {
        let text = document(&Format::Json, &json!({"kind": "Pod", "apiVersion": "v1"})).expect("plain data");
        assert_eq!(text, "{\n    \"apiVersion\": \"v1\",\n    \"kind\": \"Pod\"\n}\n");
    }
}
