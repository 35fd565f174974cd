//! ServiceAccount: an identity for pods.

use std::time::SystemTime;

use gantry_api::core::ServiceAccount;
use serde_json::Value;

use crate::kind::{Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct ServiceAccountKind;

impl Kind for ServiceAccountKind {
    type Object = ServiceAccount;
    const NAMES: Names =
        Names { singular: "serviceaccount", short: &["sa"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &["token"] };

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Secrets",
                "string",
                "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are allowed to use.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(account: &ServiceAccount, now: SystemTime) -> Vec<Value> {
        vec![account.secrets.as_ref().map_or(0, Vec::len).into(), age(&account.metadata, now)]
    }
}
