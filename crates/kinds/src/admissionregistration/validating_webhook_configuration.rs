//! ValidatingWebhookConfiguration: who is asked to accept or refuse requests.

use std::time::SystemTime;

use gantry_api::admissionregistration::ValidatingWebhookConfiguration;
use serde_json::Value;

use super::webhooks::{self, webhook_defaults, webhook_view};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct ValidatingWebhookConfigurationKind;

impl Kind for ValidatingWebhookConfigurationKind {
    type Object = ValidatingWebhookConfiguration;
    const NAMES: Names = Names {
        singular: "validatingwebhookconfiguration",
        short: &[],
        categories: &["api-extensions"],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn defaults(configuration: &mut ValidatingWebhookConfiguration) {
        for hook in configuration.webhooks.iter_mut().flatten() {
            webhook_defaults!(hook);
        }
    }

    fn prepare_create(configuration: &mut ValidatingWebhookConfiguration) {
        configuration.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut ValidatingWebhookConfiguration, old: &ValidatingWebhookConfiguration) {
        let changed = new.webhooks != old.webhooks;
        bump_generation(new, old, changed);
    }

    fn validate(configuration: &ValidatingWebhookConfiguration) -> Errors {
        webhooks::validate(&views(configuration), None)
    }

    fn validate_replacement(
        new: &ValidatingWebhookConfiguration,
        old: &ValidatingWebhookConfiguration,
    ) -> Errors {
        webhooks::validate(&views(new), Some(&views(old)))
    }

    fn warnings(configuration: &ValidatingWebhookConfiguration) -> Vec<String> {
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

    fn cells(configuration: &ValidatingWebhookConfiguration, now: SystemTime) -> Vec<Value> {
        let count = configuration.webhooks.as_ref().map_or(0, Vec::len);
        vec![count.into(), age(&configuration.metadata, now)]
    }
}

fn views(configuration: &ValidatingWebhookConfiguration) -> Vec<webhooks::Webhook<'_>> {
    configuration.webhooks.iter().flatten().map(|h| webhook_view!(h, None)).collect()
}
