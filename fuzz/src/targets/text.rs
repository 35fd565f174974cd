//! Small texts with a grammar.

use std::time::Duration;

use gantry_api::{FieldSelector, LabelSelector, Quantity, names};
use gantry_apiserver::authorize::parse_duration;
use gantry_base::image::{ImagePolicy, normalize, repository};
use gantry_kinds::rules::cron;

use crate::input;

/// The canonical form of a quantity says the same, and settles.
pub fn quantity(data: &[u8]) {
    let Some([one, other]) = input::parts(data) else { return };
    let Ok(quantity) = one.parse::<Quantity>() else { return };
    let canonical = quantity.to_string();
    let again: Quantity =
        canonical.parse().unwrap_or_else(|e| panic!("{one:?} is written as {canonical:?}, which is: {e}"));
    assert_eq!(again, quantity, "{one:?} is {canonical:?}");
    // `437.5Ki` is written as `448000`, which belongs to the decimal ones: `448k`. That stays.
    let settled = again.to_string();
    let last: Quantity =
        settled.parse().unwrap_or_else(|e| panic!("{canonical:?} is written as {settled:?}: {e}"));
    assert_eq!(last.to_string(), settled, "of {one:?}");
    std::hint::black_box((quantity.value(), quantity.millis(), quantity.as_f64(), quantity.rounded_up()));
    let Ok(other) = other.parse::<Quantity>() else { return };
    assert_eq!(quantity.plus(other), other.plus(quantity));
    assert_eq!(quantity.minus(other).sign(), -other.minus(quantity).sign());
    assert_eq!(quantity.partial_cmp(&other), other.partial_cmp(&quantity).map(std::cmp::Ordering::reverse));
}

/// A selector that was read and written selects the same.
pub fn label_selector(data: &[u8]) {
    let Some(text) = input::text(data) else { return };
    let Ok(selector) = LabelSelector::parse(text) else { return };
    let written = selector.to_string();
    let again = LabelSelector::parse(&written).unwrap_or_else(|e| panic!("{text:?} is {written:?}: {e}"));
    assert_eq!(again.to_string(), written);
    let labels = [("a".to_owned(), "b".to_owned()), ("n".to_owned(), "5".to_owned())].into();
    assert_eq!(selector.matches(Some(&labels)), again.matches(Some(&labels)), "{text:?} and {written:?}");
}

/// Likewise of fields.
pub fn field_selector(data: &[u8]) {
    let Some(text) = input::text(data) else { return };
    let Ok(selector) = FieldSelector::parse(text) else { return };
    let written = selector.to_string();
    let again = FieldSelector::parse(&written).unwrap_or_else(|e| panic!("{text:?} is {written:?}: {e}"));
    assert_eq!(again.terms(), selector.terms(), "{text:?} is written as {written:?}");
}

/// Checks of names.
pub fn names(data: &[u8]) {
    let Some(text) = input::text(data) else { return };
    let label = names::dns1123_label(text).is_ok();
    let subdomain = names::dns1123_subdomain(text).is_ok();
    assert!(!label || subdomain, "a label is a subdomain: {text:?}");
    if names::dns1035_label(text).is_ok() {
        assert!(label, "a label of RFC 1035 is one of RFC 1123: {text:?}");
    }
    if names::label_value(text).is_ok() && !text.is_empty() {
        assert!(names::qualified_name(text).is_ok(), "a label's value that is not empty is a name: {text:?}");
    }
    drop(names::qualified_name_complaints(text));
    drop(names::path_segment(text));
    drop(names::config_key(text));
    drop(names::env_var(text));
    drop(names::port_name_complaints(text));
    drop(names::dns1123_subdomain_with_underscore(text));
    drop(names::http_header_name(text));
}

/// Durations, schedules and times.
pub fn times(data: &[u8]) {
    let Some(text) = input::text(data) else { return };
    if let Some(duration) = parse_duration(text) {
        gantry_api::time::human_duration(duration);
    }
    if let Ok(schedule) = cron::parse(text)
        && let cron::Schedule::Every(period) = schedule
    {
        assert!(period >= Duration::from_secs(1), "{text:?}");
    }
    if let Ok(time) = serde_json::from_value::<gantry_api::metav1::Time>(text.into()) {
        let at = gantry_api::time::system_time(&time.0);
        gantry_api::time::since(&time, at);
        // What is written has whole seconds.
        let written = serde_json::to_value(&time).expect("a text");
        let again: gantry_api::metav1::Time = serde_json::from_value(written.clone()).expect("a time");
        assert_eq!(serde_json::to_value(&again).expect("a text"), written, "{text:?}");
    }
}

/// References of images, and the line that says which may run.
pub fn images(data: &[u8]) {
    let Some([image, policy]) = input::parts(data) else { return };
    let long = normalize(image);
    assert_eq!(normalize(&long), long, "the long form of {image:?}");
    assert!(long.starts_with(repository(&long)));
    let Ok(policy) = policy.parse::<ImagePolicy>() else { return };
    let allowed = policy.check(image).is_ok();
    assert_eq!(policy.check(&long).is_ok(), allowed, "{image:?} and {long:?} are one");
    policy.mirrored(image);
}
