//! What `/metrics` and the health endpoints say.

use gantry_apiserver::testing::http;
use serde_json::json;

use crate::{Lab, MAPS, map};

/// The API server's STABLE metrics (`test/instrumentation/documentation/documentation-list.yaml` of 1.36), with labels.
const STABLE: [(&str, &str); 15] = [
    ("apiserver_admission_controller_admission_duration_seconds", "name,type,operation,rejected"),
    ("apiserver_admission_step_admission_duration_seconds", "type,operation,rejected"),
    ("apiserver_admission_webhook_admission_duration_seconds", "name,type,operation,rejected"),
    ("apiserver_current_inflight_requests", "request_kind"),
    ("apiserver_longrunning_requests", "verb,group,version,resource,subresource,scope,component"),
    ("apiserver_request_duration_seconds", "verb,dry_run,group,version,resource,subresource,scope,component"),
    ("apiserver_request_total", "verb,dry_run,group,version,resource,subresource,scope,component,code"),
    ("apiserver_requested_deprecated_apis", "group,version,resource,subresource,removed_release"),
    ("apiserver_response_sizes", "verb,group,version,resource,subresource,scope,component"),
    ("apiserver_storage_objects", "resource"),
    ("apiserver_storage_size_bytes", "storage_cluster_id"),
    ("kubernetes_healthcheck", "name,type"),
    ("kubernetes_healthchecks_total", "name,type,status"),
    ("process_start_time_seconds", ""),
    ("process_cpu_seconds_total", ""),
];

async fn page(lab: &Lab, path: &str, accept: &str) -> (String, String) {
    let answer = http(&lab.server, "GET", path, &[("accept", accept)], "").await;
    assert_eq!(answer.code, 200);
    let media = answer.headers["content-type"].to_str().expect("text").to_owned();
    (media, String::from_utf8(answer.bytes.to_vec()).expect("UTF-8"))
}

#[tokio::test]
async fn every_stable_metric_is_there_with_its_labels() {
    let lab = Lab::new().await;
    let families = gantry_base::metrics::families();
    for (name, labels) in STABLE {
        let found = families.iter().find(|(_, family)| family.desc().name == name);
        let (_, family) = found.unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(family.desc().labels.join(","), labels, "{name}");
    }
    lab.end().await;
}

#[tokio::test]
async fn requests_are_counted_under_what_they_are_about() {
    let lab = Lab::new().await;
    lab.create(MAPS, &map("counted")).await;
    assert_eq!(lab.get(MAPS).await.code, 200);
    assert_eq!(lab.send("POST", &format!("{MAPS}?dryRun=All"), &map("dry")).await.code, 201);
    assert_eq!(lab.get("/apis/strange.example.com/v1/made-up").await.code, 404);
    assert_eq!(lab.get("/api/v1/pods/no-such/subresource").await.code, 404);
    let watch = format!("{MAPS}?watch=true&timeoutSeconds=1&resourceVersion=0");
    assert_eq!(lab.get(&watch).await.code, 200);
    let (media, text) = page(&lab, "/metrics", "*/*").await;
    assert!(media.starts_with("text/plain; version=0.0.4"), "{media}");
    let maps = r#"group="",version="v1",resource="configmaps",subresource="""#;
    for line in [
        format!(
            r#"apiserver_request_total{{verb="POST",dry_run="",{maps},scope="resource",component="apiserver",code="201"}} "#
        ),
        format!(
            r#"apiserver_request_total{{verb="POST",dry_run="All",{maps},scope="resource",component="apiserver",code="201"}} "#
        ),
        format!(
            r#"apiserver_request_total{{verb="LIST",dry_run="",{maps},scope="namespace",component="apiserver",code="200"}} "#
        ),
        format!(
            r#"apiserver_request_total{{verb="WATCH",dry_run="",{maps},scope="namespace",component="apiserver",code="200"}} "#
        ),
        format!(
            r#"apiserver_request_duration_seconds_bucket{{verb="POST",dry_run="",{maps},scope="resource",component="apiserver",le="+Inf"}} "#
        ),
        format!(
            r#"apiserver_request_sli_duration_seconds_count{{verb="LIST",{maps},scope="namespace",component="apiserver"}} "#
        ),
        format!(
            r#"apiserver_response_sizes_sum{{verb="LIST",{maps},scope="namespace",component="apiserver"}} "#
        ),
        format!(
            r#"apiserver_longrunning_requests{{verb="WATCH",{maps},scope="namespace",component="apiserver"}} "#
        ),
        r#"apiserver_request_body_size_bytes_count{group="",resource="configmaps",verb="create"} "#
            .to_owned(),
        r#"apiserver_watch_events_total{group="",version="v1",resource="configmaps"} "#.to_owned(),
        r#"apiserver_cache_list_total{group="",resource="configmaps",index=""} "#.to_owned(),
        r#"apiserver_watch_cache_events_received_total{group="",resource="configmaps"} "#.to_owned(),
        r#"etcd_request_duration_seconds_count{operation="create",group="",resource="configmaps"} "#
            .to_owned(),
        r#"apiserver_storage_objects{resource="configmaps"} 1"#.to_owned(),
        r#"apiserver_resource_objects{group="apps",resource="deployments"} 0"#.to_owned(),
        r#"authentication_attempts{result="success"} "#.to_owned(),
        r#"authorization_attempts_total{result="allowed"} "#.to_owned(),
        r#"apiserver_current_inflight_requests{request_kind="mutating"} "#.to_owned(),
        r#"kubernetes_build_info{major="1",minor="36","#.to_owned(),
        "# HELP apiserver_request_total [STABLE] Counter of apiserver requests broken out".to_owned(),
        "# HELP apiserver_storage_objects [STABLE] (Deprecated since 1.34.0) ".to_owned(),
        "# TYPE apiserver_request_duration_seconds histogram".to_owned(),
        "process_resident_memory_bytes ".to_owned(),
    ] {
        assert!(text.lines().any(|l| l.starts_with(&line)), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("made-up") && !text.contains("no-such"), "what strangers make up has no series");
    lab.end().await;
}

#[tokio::test]
async fn pages_are_written_as_the_client_wants_them() {
    let lab = Lab::new().await;
    let (media, text) = page(&lab, "/metrics", "application/openmetrics-text;version=1.0.0,*/*;q=0.1").await;
    assert!(media.starts_with("application/openmetrics-text; version=1.0.0"), "{media}");
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE apiserver_tls_handshake_errors counter\n"));
    assert!(text.contains("# TYPE authentication_attempts unknown\n"));
    let zipped = http(&lab.server, "GET", "/metrics", &[("accept-encoding", "gzip")], "").await;
    assert_eq!(zipped.code, 200);
    lab.get("/readyz").await;
    let (_, levels) = page(&lab, "/metrics/slis", "*/*").await;
    assert!(levels.contains("kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1\n"), "{levels}");
    assert!(!levels.contains("apiserver_request_total"));
    let answer = lab.get("/debug/pprof/profile").await;
    assert_eq!(answer.code, 404);
    assert!(answer.bytes.starts_with(b"profiling is not available"));
    lab.end().await;
}

#[tokio::test]
async fn checks_are_told_apart_and_left_out_on_demand() {
    let lab = Lab::new().await;
    let text = async |path: &str| {
        let answer = lab.get(path).await;
        (answer.code, String::from_utf8_lossy(&answer.bytes).into_owned())
    };
    for endpoint in ["healthz", "livez", "readyz"] {
        assert_eq!(text(&format!("/{endpoint}")).await, (200, "ok".to_owned()));
        let (_, all) = text(&format!("/{endpoint}?verbose")).await;
        assert!(all.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n"), "{all}");
        assert!(all.ends_with(&format!("{endpoint} check passed\n")), "{all}");
        assert!(all.contains("[+]poststarthook/start-apiextensions-controllers ok\n"), "{all}");
        assert_eq!(all.contains("[+]informer-sync ok\n"), endpoint == "readyz");
        assert_eq!(text(&format!("/{endpoint}/etcd")).await, (200, "ok".to_owned()));
        assert_eq!(text(&format!("/{endpoint}/nonsense")).await.0, 404);
    }
    lab.server.health().add("never", Box::new(|| Err("not today".to_owned())));
    let (code, all) = text("/livez").await;
    assert_eq!(code, 500);
    assert!(all.ends_with("[-]never failed: reason withheld\nlivez check failed\n"), "{all}");
    assert_eq!(text("/livez/never").await, (500, "internal server error: not today\n".to_owned()));
    let (code, all) = text("/livez?verbose&exclude=never&exclude=what").await;
    assert_eq!(code, 200);
    assert!(all.contains("[+]never excluded: ok\n"), "{all}");
    assert!(all.contains("warn: some health checks cannot be excluded: no matches for \"what\"\n"), "{all}");
    // Neither the method nor anything else matters; only the path does.
    assert_eq!(lab.send("POST", "/livez/ping", &json!({})).await.code, 200);
    assert_eq!(text("/livez/").await.0, 404);
    lab.end().await;
}

#[tokio::test]
async fn a_request_may_be_given_less_time() {
    let lab = Lab::new().await;
    let answer = lab.get(&format!("{MAPS}?timeout=soon")).await;
    crate::refused(
        &answer,
        400,
        "BadRequest",
        "invalid timeout specified in the request URL - time: invalid duration \"soon\"",
    );
    assert_eq!(lab.get(&format!("{MAPS}?timeout=30s")).await.code, 200);
    lab.end().await;
}
