//! Charging, without a server.

use std::sync::Arc;
use std::time::SystemTime;

use gantry_api::Object;
use gantry_api::core::{Pod, ResourceQuota};
use gantry_kinds::quota::Measure;
use serde_json::{Value, json};

use super::check::{Ask, Running, check};
use super::{Config, Limited};

fn quota(name: &str, spec: Value, hard: Value, used: Value) -> Running {
    let value = json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec, "status": {"hard": hard, "used": used}});
    Running::new(Arc::new(ResourceQuota::decode_value(&value).expect("a quota")))
}

fn pod(spec: Value) -> Pod {
    Pod::decode_value(&json!({"spec": spec})).expect("a pod")
}

fn ask(new: &Pod, old: Option<&Pod>) -> Ask {
    Ask {
        new: Measure::Pods.measure(new),
        old: old.map(|old| Measure::Pods.measure(old)),
        pod: Some(new.clone()),
        measure: Measure::Pods,
        group: String::new(),
        plural: "pods".to_owned(),
        dry_run: false,
    }
}

fn said(quotas: &[Running], ask: &Ask, config: &Config) -> String {
    match check(quotas, ask, config, SystemTime::UNIX_EPOCH) {
        Err(why) => why,
        Ok(changes) => {
            let text = |(place, used): (usize, gantry_kinds::resources::Amounts)| {
                let used = used.iter().map(|(n, q)| format!("{n}={q}")).collect::<Vec<_>>();
                format!("{place}: {}", used.join(","))
            };
            changes.into_iter().map(text).collect::<Vec<_>>().join("; ")
        }
    }
}

fn small(cpu: &str) -> Pod {
    pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
}

#[test]
fn a_write_is_charged_or_refused_in_upstreams_words() {
    let hard = json!({"pods": "5", "requests.cpu": "1"});
    let full = quota("q", json!({}), hard.clone(), json!({"pods": "5", "requests.cpu": "500m"}));
    let room = quota("q", json!({}), hard.clone(), json!({"pods": "4", "requests.cpu": "500m"}));
    let fresh = quota("q", json!({}), hard.clone(), json!({}));
    let limits = quota(
        "q",
        json!({}),
        json!({"limits.cpu": "1", "memory": "1Gi"}),
        json!({"limits.cpu": "0", "memory": "0"}),
    );
    let none = Config::default();
    for (quotas, new, expected) in [
        (vec![room.clone()], small("500m"), "0: pods=5,requests.cpu=1"),
        (
            vec![full.clone()],
            small("500m"),
            "exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5",
        ),
        (
            vec![room.clone()],
            small("600m"),
            "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=500m, limited: requests.cpu=1",
        ),
        (
            vec![full.clone()],
            small("2"),
            "exceeded quota: q, requested: pods=1,requests.cpu=2, used: pods=5,requests.cpu=500m, limited: pods=5,requests.cpu=1",
        ),
        (vec![fresh], small("1"), "status unknown for quota: q, resources: pods,requests.cpu"),
        (vec![limits], small("1"), "failed quota: q: must specify limits.cpu for: c; memory for: c"),
        (
            vec![quota("q", json!({"scopes": ["BestEffort"]}), hard.clone(), json!({"pods": "5"}))],
            small("1"),
            "",
        ),
        (vec![], small("1"), ""),
    ] {
        assert_eq!(said(&quotas, &ask(&new, None), &none), expected);
    }
}

#[test]
fn an_update_is_charged_for_what_it_adds() {
    let room = quota("q", json!({}), json!({"requests.cpu": "10"}), json!({"requests.cpu": "3"}));
    let none = Config::default();
    assert_eq!(
        said(std::slice::from_ref(&room), &ask(&small("5"), Some(&small("2"))), &none),
        "0: requests.cpu=6"
    );
    assert_eq!(said(std::slice::from_ref(&room), &ask(&small("1"), Some(&small("2"))), &none), "");
    let ending = quota("q", json!({"scopes": ["Terminating"]}), json!({"pods": "3"}), json!({"pods": "1"}));
    let mut dated = small("1");
    dated.spec.as_mut().expect("a spec").active_deadline_seconds = Some(5);
    assert_eq!(said(&[ending], &ask(&dated, Some(&small("1"))), &none), "0: pods=2");
}

#[test]
fn what_is_limited_needs_a_quota_that_covers_it() {
    let limited = |contains: &str, scopes: Value| Config {
        limited_resources: vec![Limited {
            resource: "pods".to_owned(),
            match_contains: vec![contains.to_owned()],
            match_scopes: serde_json::from_value(scopes).expect("scopes"),
            ..Limited::default()
        }],
    };
    let cpu = limited("requests.cpu", json!([]));
    assert_eq!(said(&[], &ask(&small("1"), None), &cpu), "insufficient quota to consume: requests.cpu");
    let covering = quota("q", json!({}), json!({"requests.cpu": "5"}), json!({"requests.cpu": "0"}));
    assert_eq!(said(&[covering], &ask(&small("1"), None), &cpu), "0: requests.cpu=1");
    let classes = json!([{"scopeName": "PriorityClass", "operator": "In", "values": ["gold"]}]);
    let gold = limited("nothing", classes.clone());
    let mut golden = small("1");
    golden.spec.as_mut().expect("a spec").priority_class_name = Some("gold".into());
    assert_eq!(
        said(&[], &ask(&golden, None), &gold),
        "insufficient quota to match these scopes: [{PriorityClass In [gold]}]"
    );
    let spec = json!({"scopeSelector": {"matchExpressions": classes}});
    let covering = quota("q", spec, json!({"pods": "5"}), json!({"pods": "0"}));
    assert_eq!(said(&[covering], &ask(&golden, None), &gold), "0: pods=1");
}
