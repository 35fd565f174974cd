//! Texts of table cells that several kinds share.

use gantry_api::core::Container;
use gantry_api::metav1::LabelSelector;
use gantry_api::selector::{self, Labels};
use serde_json::Value;

/// `name,name` and `image,image`.
pub fn containers(list: &[Container]) -> [Value; 2] {
    let join = |pick: fn(&Container) -> &str| list.iter().map(pick).collect::<Vec<_>>().join(",");
    [join(|c| &c.name).into(), join(|c| c.image.as_deref().unwrap_or("")).into()]
}

/// A workload's selector in string form, `<none>` if it is empty.
pub fn selector(spec: Option<&LabelSelector>) -> Value {
    match selector::LabelSelector::from_spec(spec) {
        Ok(selector) => crate::table::or_none(selector.to_string()),
        Err(_) => "<error>".into(),
    }
}

/// `a=b,c=d`, `<none>` if there is none.
pub fn labels(labels: Option<&Labels>) -> Value {
    let text: Vec<String> = labels.into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    crate::table::or_none(text.join(","))
}

/// A selector in the form that Go prints the struct in: what some columns show.
pub fn selector_struct(selector: &LabelSelector) -> String {
    let labels: Vec<String> =
        selector.match_labels.iter().flatten().map(|(k, v)| format!("{k}: {v},")).collect();
    let expressions: Vec<String> = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|r| {
            let values = r.values.as_deref().unwrap_or_default().join(" ");
            format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}}", r.key, r.operator)
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.join(""),
        expressions.iter().map(|e| format!("{e},")).collect::<String>(),
    )
}

/// `True`, `False`, `<unset>`.
pub fn boolean(value: Option<bool>) -> Value {
    match value {
        None => "<unset>",
        Some(true) => "True",
        Some(false) => "False",
    }
    .into()
}
