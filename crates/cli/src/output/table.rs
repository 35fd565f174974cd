//! Columns: the server's `Table` objects, padded as kubectl users expect.

use serde_json::Value;

use super::paint;

/// What a request for a table accepts.
pub(crate) const ACCEPT: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
/// Spaces between columns.
const PADDING: usize = 3;
/// The narrowest column, padding included.
const MIN_WIDTH: usize = 6;

/// How a server's table is to be shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Style {
    /// All columns, not only those of priority 0.
    pub wide: bool,
    /// A column with the namespace in front.
    pub namespace: bool,
    /// Put in front of each name, `pod/`; empty for nothing.
    pub prefix: String,
    /// A column with all labels at the end.
    pub show_labels: bool,
    /// Columns with these labels at the end.
    pub label_columns: Vec<String>,
}

/// Lines of cells under a header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
}

impl Lines {
    /// Nothing under `header`.
    pub(crate) fn new(header: Vec<String>) -> Self {
        let widths = header.iter().map(|cell| width(cell)).collect();
        Self { header, rows: Vec::new(), widths }
    }

    /// One more line.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        for (i, cell) in row.iter().enumerate() {
            if i < self.widths.len() {
                self.widths[i] = self.widths[i].max(width(cell));
            } else {
                self.widths.push(width(cell));
            }
        }
        self.rows.push(row);
    }

    /// The lines as text. They are taken out; the columns stay as wide as they were.
    pub(crate) fn render(&mut self, with_header: bool) -> String {
        let mut text = String::new();
        if with_header {
            let line = self.line(&self.header, |_, cell| cell.to_owned());
            text.push_str(&paint::bold(line.trim_end_matches('\n')));
            text.push('\n');
        }
        for row in std::mem::take(&mut self.rows) {
            text.push_str(&self.line(&row, |i, cell| self.painted(i, cell)));
        }
        text
    }

    fn painted(&self, column: usize, cell: &str) -> String {
        match self.header.get(column).map(String::as_str) {
            Some("STATUS" | "PHASE") => paint::mood(cell, paint::mood_of(cell)),
            _ => cell.to_owned(),
        }
    }

    fn line(&self, cells: &[String], paint: impl Fn(usize, &str) -> String) -> String {
        let mut text = String::new();
        for (i, cell) in cells.iter().enumerate() {
            text.push_str(&paint(i, cell));
            if i + 1 < cells.len() {
                let full = (self.widths.get(i).copied().unwrap_or(0) + PADDING).max(MIN_WIDTH);
                text.extend(std::iter::repeat_n(' ', full.saturating_sub(width(cell))));
            }
        }
        text.push('\n');
        text
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// A server's `Table` (or, from a server that knows none, a list of objects) on its way to the terminal.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    style: Style,
    columns: Vec<(usize, String)>,
    lines: Lines,
}

impl Table {
    /// A table that shows `document` so.
    pub(crate) fn new(document: &Value, style: Style) -> Self {
        let definitions = document["columnDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut columns: Vec<(usize, String)> = definitions
            .iter()
            .enumerate()
            .filter(|(_, column)| style.wide || column["priority"].as_i64().unwrap_or(0) == 0)
            .map(|(i, column)| (i, column["name"].as_str().unwrap_or("").to_uppercase()))
            .collect();
        if document["kind"] != "Table" {
            columns = vec![(0, "NAME".into()), (1, "CREATED AT".into())];
        }
        let mut header: Vec<String> = Vec::new();
        if style.namespace {
            header.push("NAMESPACE".into());
        }
        header.extend(columns.iter().map(|(_, name)| name.clone()));
        header.extend(style.label_columns.iter().map(|l| l.rsplit('/').next().unwrap_or(l).to_uppercase()));
        if style.show_labels {
            header.push("LABELS".into());
        }
        Self { style, columns, lines: Lines::new(header) }
    }

    /// Adds the rows of `document`. How many there were.
    pub(crate) fn add(&mut self, document: &Value) -> usize {
        if document["kind"] != "Table" {
            let one = [document.clone()];
            let items = document["items"].as_array().map_or(&one[..], Vec::as_slice);
            for item in items {
                let cells = [item["metadata"]["name"].clone(), item["metadata"]["creationTimestamp"].clone()];
                self.row(&cells, &item["metadata"]);
            }
            return items.len();
        }
        let rows = document["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        for row in rows {
            let cells = row["cells"].as_array().map(Vec::as_slice).unwrap_or_default();
            self.row(cells, &row["object"]["metadata"]);
        }
        rows.len()
    }

    fn row(&mut self, cells: &[Value], metadata: &Value) {
        let mut line = Vec::new();
        if self.style.namespace {
            line.push(metadata["namespace"].as_str().unwrap_or("").to_owned());
        }
        for (n, (i, _)) in self.columns.iter().enumerate() {
            let cell = cells.get(*i).map(text).unwrap_or_default();
            line.push(if n == 0 { format!("{}{cell}", self.style.prefix) } else { cell });
        }
        let labels = &metadata["labels"];
        for name in &self.style.label_columns {
            line.push(labels[name.as_str()].as_str().unwrap_or("").to_owned());
        }
        if self.style.show_labels {
            line.push(all_labels(labels));
        }
        self.lines.push(line);
    }

    /// The rows added since the last time.
    pub(crate) fn render(&mut self, with_header: bool) -> String {
        self.lines.render(with_header)
    }
}

fn all_labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// A cell as text: the first line of it, as kubectl does, since it would break the table.
fn text(cell: &Value) -> String {
    match cell {
        Value::Null => "<none>".into(),
        Value::String(text) => match text.split_once(['\n', '\r', '\u{c}']) {
            Some((first, _)) => format!("{first}..."),
            None => text.replace('\u{1b}', "^["),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Value {
        json!({"kind": "Table", "columnDefinitions": [
            {"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["web-1", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "a", "labels": {"app": "web"}}}},
                {"cells": ["a-longer-name", 0, null], "object": {"metadata": {"namespace": "b"}}}]})
    }

    fn shown(style: Style) -> String {
        let mut shown = Table::new(&table(), style);
        assert_eq!(shown.add(&table()), 2);
        shown.render(true)
    }

    #[test]
    fn columns_are_padded_and_the_last_is_not() {
        assert_eq!(
            shown(Style::default()),
            "NAME            READY\nweb-1           1/1\na-longer-name   0\n"
        );
    }

    #[test]
    fn wide_tables_show_all() {
        let style = Style { wide: true, namespace: true, show_labels: true, ..Style::default() };
        assert_eq!(
            shown(style),
            "NAMESPACE   NAME            READY   IP         LABELS\n\
             a           web-1           1/1     10.0.0.1   app=web\n\
             b           a-longer-name   0       <none>     <none>\n"
        );
    }

    #[test]
    fn names_are_prefixed_and_labels_are_columns() {
        let style = Style {
            prefix: "pod/".into(),
            label_columns: vec!["x.io/app".into(), "app".into()],
            ..Style::default()
        };
        assert_eq!(
            shown(style),
            "NAME                READY   APP   APP\n\
             pod/web-1           1/1           web\n\
             pod/a-longer-name   0             \n"
        );
    }

    #[test]
    fn cells_of_several_lines_are_cut() {
        assert_eq!(text(&json!("one\ntwo")), "one...");
    }
}
