//! Groups of the Kubernetes community: definitions in them name who approved them (KEP-1111).

use std::collections::BTreeMap;

use gantry_api::field::quote;

/// The annotation.
pub const ANNOTATION: &str = "api-approved.kubernetes.io";

/// What the annotation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// It makes no sense.
    Invalid,
    /// It is a URL.
    Approved,
    /// It says that nobody approved it.
    Bypassed,
    /// It is not there.
    Missing,
}

/// Whether definitions in this group need the annotation.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

/// What the annotations say, and in words.
pub fn state(annotations: Option<&BTreeMap<String, String>>) -> (Approval, String) {
    let annotation = annotations.and_then(|a| a.get(ANNOTATION)).map_or("", String::as_str);
    let needed = format!("protected groups must have approval annotation {}", quote(ANNOTATION));
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    if annotation.is_empty() {
        return (Approval::Missing, format!("{needed}, {see}"));
    }
    if annotation.starts_with("unapproved") {
        return (Approval::Bypassed, format!("not approved: {}", quote(annotation)));
    }
    let url = annotation.split_once("://");
    let is_url = url.is_some_and(|(scheme, rest)| {
        !scheme.is_empty()
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
            && !rest.is_empty()
            && !rest.starts_with('/')
            && !annotation.contains(char::is_whitespace)
    });
    if is_url {
        return (Approval::Approved, format!("approved in {annotation}"));
    }
    let why = format!("{needed} with either a URL or a reason starting with \"unapproved\", {see}");
    (Approval::Invalid, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn community_groups_need_a_url_or_an_excuse() {
        assert!(is_protected("k8s.io") && is_protected("x.k8s.io") && is_protected("a.kubernetes.io"));
        assert!(!is_protected("notk8s.io") && !is_protected("example.com"));
        let of = |text: &str| state(Some(&BTreeMap::from([(ANNOTATION.to_owned(), text.to_owned())]))).0;
        assert_eq!(of("https://github.com/x/y/pull/1"), Approval::Approved);
        assert_eq!(of("unapproved, a test"), Approval::Bypassed);
        assert_eq!(of("yes"), Approval::Invalid);
        assert_eq!(state(None).0, Approval::Missing);
    }
}
