//! ServiceAccount: an identity for pods.

use gantry_api::core::ServiceAccount;

use crate::kind::{Kind, NameRule, Names, Verbs};

/// The kind.
pub struct ServiceAccountKind;

impl Kind for ServiceAccountKind {
    type Object = ServiceAccount;
    const NAMES: Names =
        Names { singular: "serviceaccount", short: &["sa"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &["token"] };
}
