//! ComponentStatus: whether the parts of the control plane are well. Nobody stores them.

use std::time::SystemTime;

use gantry_api::core::ComponentStatus;
use serde_json::Value;

use crate::kind::{Kind, NameRule, Names, Verbs};
use crate::table::Column;

/// The kind.
pub struct ComponentStatusKind;

impl Kind for ComponentStatusKind {
    type Object = ComponentStatus;
    const NAMES: Names =
        Names { singular: "componentstatus", short: &["cs"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const READ_ONLY: bool = true;
    const DEPRECATION: Option<&'static str> = Some("v1 ComponentStatus is deprecated in v1.19+");

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Status", "string", "Status of the component conditions"),
            Column::new("Message", "string", "Message of the component conditions"),
            Column::new("Error", "string", "Error of the component conditions"),
        ];
        COLUMNS
    }

    fn cells(component: &ComponentStatus, _: SystemTime) -> Vec<Value> {
        let condition = component.conditions.iter().flatten().find(|c| c.type_ == "Healthy");
        let status = match condition.map(|c| c.status.as_str()) {
            None => "Unknown",
            Some("True") => "Healthy",
            Some(_) => "Unhealthy",
        };
        let text = |value: Option<&String>| Value::from(value.cloned().unwrap_or_default());
        vec![
            status.into(),
            text(condition.and_then(|c| c.message.as_ref())),
            text(condition.and_then(|c| c.error.as_ref())),
        ]
    }
}
