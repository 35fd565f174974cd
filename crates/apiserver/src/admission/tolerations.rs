//! Merging of tolerations: what another one covers is left out.

use gantry_api::core::Toleration;

/// Both lists as one, without what is covered by another.
pub(super) fn merge(first: &[Toleration], second: &[Toleration]) -> Vec<Toleration> {
    let all: Vec<&Toleration> = first.iter().chain(second).collect();
    let mut merged: Vec<Toleration> = Vec::new();
    for (i, toleration) in all.iter().enumerate() {
        let covered = merged.iter().any(|m| covers(m, toleration))
            || all[i + 1..].iter().any(|later| later != toleration && covers(later, toleration));
        if !covered {
            merged.push((*toleration).clone());
        }
    }
    merged
}

/// Whether each toleration is covered by one of the list.
pub(super) fn all_covered(tolerations: &[Toleration], list: &[Toleration]) -> bool {
    list.is_empty() || tolerations.iter().all(|t| list.iter().any(|l| covers(l, t)))
}

/// Whether `wide` tolerates all that `narrow` does.
fn covers(wide: &Toleration, narrow: &Toleration) -> bool {
    fn text(t: &Option<String>) -> &str {
        t.as_deref().unwrap_or("")
    }
    if wide == narrow {
        return true;
    }
    let exists = text(&wide.operator) == "Exists";
    if text(&narrow.key) != text(&wide.key) && !(text(&wide.key).is_empty() && exists) {
        return false;
    }
    if text(&narrow.effect) != text(&wide.effect) && !text(&wide.effect).is_empty() {
        return false;
    }
    if text(&wide.effect) == "NoExecute"
        && let Some(seconds) = wide.toleration_seconds
        && narrow.toleration_seconds.is_none_or(|s| s > seconds)
    {
        return false;
    }
    match text(&wide.operator) {
        "Exists" => true,
        "Equal" | "" => text(&narrow.operator) == "Equal" && text(&narrow.value) == text(&wide.value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Toleration {
        let mut parts = text.split(':');
        let mut next = || parts.next().filter(|p| !p.is_empty()).map(str::to_owned);
        let (key, operator, value, effect) = (next(), next(), next(), next());
        let seconds = next().and_then(|s| s.parse().ok());
        Toleration { key, operator, value, effect, toleration_seconds: seconds }
    }

    #[test]
    fn what_is_covered_is_left_out() {
        for (first, second, expected) in [
            (&["a:Exists::"][..], &["a:Equal:x:NoSchedule"][..], &["a:Exists::"][..]),
            (&["a:Equal:x:NoSchedule"], &["a:Exists::"], &["a:Exists::"]),
            (
                &["a:Equal:x:NoSchedule"],
                &["a:Equal:y:NoSchedule"],
                &["a:Equal:x:NoSchedule", "a:Equal:y:NoSchedule"],
            ),
            (&["a:Exists::NoExecute:5"], &["a:Exists::NoExecute"], &["a:Exists::NoExecute"]),
            (&[":Exists::"], &["b:Equal:z:NoExecute"], &[":Exists::"]),
            (&["a:Exists::"], &["a:Exists::"], &["a:Exists::"]),
        ] {
            let list = |texts: &[&str]| texts.iter().map(|t| read(t)).collect::<Vec<_>>();
            assert_eq!(merge(&list(first), &list(second)), list(expected), "{first:?} {second:?}");
        }
    }
}
