//! MutatingWebhookConfiguration: who is asked to change requests.

use std::time::SystemTime;

use gantry_api::admissionregistration::MutatingWebhookConfiguration;
use serde_json::Value;

use super::webhooks::{self, webhook_defaults, webhook_view};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct MutatingWebhookConfigurationKind;

impl Kind for MutatingWebhookConfigurationKind {
    type Object = MutatingWebhookConfiguration;
    const NAMES: Names = Names {
        singular: "mutatingwebhookconfiguration",
        short: &[],
        categories: &["api-extensions"],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn defaults(configuration: &mut MutatingWebhookConfiguration) {
        for hook in configuration.webhooks.iter_mut().flatten() {
            webhook_defaults!(hook);
            hook.reinvocation_policy.get_or_insert_with(|| "Never".into());
        }
    }

    fn prepare_create(configuration: &mut MutatingWebhookConfiguration) {
        configuration.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut MutatingWebhookConfiguration, old: &MutatingWebhookConfiguration) {
        let changed = new.webhooks != old.webhooks;
        bump_generation(new, old, changed);
    }

    fn validate(configuration: &MutatingWebhookConfiguration) -> Errors {
        webhooks::validate(&views(configuration), None)
    }

    fn validate_replacement(
        new: &MutatingWebhookConfiguration,
        old: &MutatingWebhookConfiguration,
    ) -> Errors {
        webhooks::validate(&views(new), Some(&views(old)))
    }

    fn warnings(configuration: &MutatingWebhookConfiguration) -> Vec<String> {
        super::name_warnings(&configuration.metadata)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Webhooks",
                "integer",
                "Webhooks indicates the number of webhooks registered in this configuration",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(configuration: &MutatingWebhookConfiguration, now: SystemTime) -> Vec<Value> {
        let count = configuration.webhooks.as_ref().map_or(0, Vec::len);
        vec![count.into(), age(&configuration.metadata, now)]
    }
}

fn views(configuration: &MutatingWebhookConfiguration) -> Vec<webhooks::Webhook<'_>> {
    configuration
        .webhooks
        .iter()
        .flatten()
        .map(|h| webhook_view!(h, h.reinvocation_policy.as_deref()))
        .collect()
}
