//! What holds for events in both of their forms. As `legacyValidateEvent`.

use gantry_api::names;

use super::at::{At, Complaints, text};
use crate::kind::Errors;

/// Longest names of instance, action and reason, in bytes.
const MAX_WORD: usize = 128;
/// Longest message, in bytes.
const MAX_NOTE: usize = 1024;

/// What is checked of an event, whatever its form.
pub struct Facts<'a> {
    namespace: &'a str,
    involved: &'a str,
    dated: bool,
    controller_field: &'static str,
    controller: &'a str,
    instance: &'a str,
    action: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl<'a> Facts<'a> {
    /// Of the older form.
    pub fn of_core(event: &'a gantry_api::core::Event) -> Self {
        Self {
            namespace: text(&event.metadata.namespace),
            involved: text(&event.involved_object.namespace),
            dated: event.event_time.is_some(),
            controller_field: "reportingComponent",
            controller: text(&event.reporting_component),
            instance: text(&event.reporting_instance),
            action: text(&event.action),
            reason: text(&event.reason),
            message: text(&event.message),
        }
    }

    /// Of the newer form.
    pub fn of_events(event: &'a gantry_api::events::Event) -> Self {
        Self {
            namespace: text(&event.metadata.namespace),
            involved: event.regarding.as_ref().map_or("", |r| text(&r.namespace)),
            dated: event.event_time.is_some(),
            controller_field: "reportingController",
            controller: text(&event.reporting_controller),
            instance: text(&event.reporting_instance),
            action: text(&event.action),
            reason: text(&event.reason),
            message: text(&event.note),
        }
    }

    /// Adds what is wrong.
    pub fn check(&self, errors: &mut Errors) {
        let fits = match (self.involved, self.dated) {
            ("", false) => matches!(self.namespace, "" | "default"),
            ("", true) => matches!(self.namespace, "default" | "kube-system"),
            (involved, false) => involved == self.namespace,
            (_, true) => true,
        };
        if !fits {
            let why = "does not match event.namespace";
            errors.invalid(&At::root("involvedObject.namespace"), self.involved, why);
        }
        if self.dated {
            self.check_report(errors);
        }
        let namespace = self.namespace;
        errors.check(&At::root("namespace"), namespace, names::dns1123_subdomain(namespace));
    }

    fn check_report(&self, errors: &mut Errors) {
        let at = At::root(self.controller_field);
        errors.needed(&at, self.controller);
        errors.qualified(&at, self.controller);
        for (field, value) in
            [("reportingInstance", self.instance), ("action", self.action), ("reason", self.reason)]
        {
            errors.needed(&At::root(field), value);
            check_length(field, value, MAX_WORD, errors);
        }
        check_length("message", self.message, MAX_NOTE, errors);
    }
}

fn check_length(field: &str, value: &str, max: usize, errors: &mut Errors) {
    if value.len() > max {
        errors.invalid(&At::root(field), "", format!("can have at most {max} characters"));
    }
}
