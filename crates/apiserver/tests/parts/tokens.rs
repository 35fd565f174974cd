//! Service account tokens, from their issue to the user that they stand for; and the reviews.

use gantry_api::core::{Pod, ServiceAccount};
use gantry_api::meta::MetaExt;
use gantry_apiserver::identify::{LegacyTokens, TokenKey};
use gantry_client::DeleteOptions;
use serde_json::{Value, json};

use crate::Cluster;

async fn issue(cluster: &Cluster, name: &str, spec: Value) -> Result<Value, gantry_api::ApiError> {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let key = gantry_api::ObjectKey::new("shop", name);
    let answer = cluster.api::<ServiceAccount>().create_subresource(&key, "token", &body).await?;
    Ok(serde_json::from_slice(answer.bytes()).expect("JSON"))
}

fn token(answer: &Value) -> String {
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

fn who() -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
}

pub(crate) async fn bootstrapped() -> Cluster {
    let cluster = Cluster::new().await;
    let options = gantry_apiserver::bootstrap::Options {
        service_cidr: crate::CIDR,
        advertise_address: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
        secure_port: 6443,
        several: false,
        cluster_dns: None,
        dns_endpoint: None,
        cluster_ca_pem: String::new(),
        client_ca_pem: String::new(),
        front_proxy_ca_pem: String::new(),
        request_header: gantry_apiserver::identify::RequestHeader::usual(),
    };
    gantry_apiserver::bootstrap::run(cluster.transport.clone(), &options).await.expect("the first objects");
    cluster.namespace("shop").await;
    cluster.account("shop", "builder").await;
    cluster
}

/// Who the server takes the token's bearer for. (The authorizer may be a moment behind the bootstrap.)
async fn whoami(cluster: &Cluster, token: &str) -> (u16, Value) {
    loop {
        let answer = cluster.with_token(token, "POST", WHO, &who()).await;
        if answer.code != 403 {
            return (answer.code, answer.json()["status"]["userInfo"].clone());
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_token_stands_for_its_account_until_the_account_is_gone() {
    let cluster = bootstrapped().await;
    let answer = issue(&cluster, "builder", json!({"expirationSeconds": 600})).await.expect("a token");
    assert_eq!(answer["spec"]["audiences"], json!([gantry_apiserver::parts::ISSUER]));
    let token = token(&answer);
    let (code, user) = whoami(&cluster, &token).await;
    assert_eq!(code, 201);
    assert_eq!(user["username"], "system:serviceaccount:shop:builder");
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"])
    );
    let pods = cluster.with_token(&token, "GET", "/api/v1/namespaces/shop/pods", &Value::Null).await;
    assert_eq!(pods.code, 403);
    let text = r#"pods is forbidden: User "system:serviceaccount:shop:builder" cannot list resource "pods" in API group "" in the namespace "shop""#;
    assert_eq!(pods.json()["message"], text);
    let at = token.len() - 5;
    let other = if token[at..].starts_with('A') { 'B' } else { 'A' };
    let tampered = format!("{}{other}{}", &token[..at], &token[at + 1..]);
    assert_eq!(cluster.with_token(&tampered, "GET", "/version", &Value::Null).await.code, 401);
    let key = gantry_api::ObjectKey::new("shop", "builder");
    cluster.api::<ServiceAccount>().delete(&key, &DeleteOptions::default()).await.expect("deleted");
    cluster.account("shop", "builder").await;
    assert_eq!(
        cluster.with_token(&token, "GET", "/version", &Value::Null).await.code,
        401,
        "another account of that name"
    );
    cluster.end().await;
}

#[tokio::test]
async fn a_token_bound_to_a_pod_ends_with_the_pod() {
    let cluster = bootstrapped().await;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"serviceAccountName": "builder", "nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    }))
    .expect("a pod");
    let pod = cluster.api().create(&pod).await.expect("a pod");
    let bound =
        |uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}});
    let error = issue(&cluster, "builder", bound("other")).await.expect_err("another pod");
    assert_eq!(error.code(), 409);
    let token = token(&issue(&cluster, "builder", bound(pod.uid())).await.expect("a token"));
    let (code, user) = whoami(&cluster, &token).await;
    assert_eq!((code, &user["extra"]["authentication.kubernetes.io/pod-name"]), (201, &json!(["p"])));
    assert_eq!(user["extra"]["authentication.kubernetes.io/node-name"], json!(["n1"]));
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    cluster.api::<Pod>().delete(&pod.key(), &now).await.expect("deleted");
    assert_eq!(whoami(&cluster, &token).await.0, 401);
    cluster.end().await;
}

#[tokio::test]
async fn requests_that_cannot_be_granted_are_refused_in_upstreams_words() {
    let cluster = bootstrapped().await;
    let error = issue(&cluster, "builder", json!({"expirationSeconds": 599})).await.expect_err("too short");
    assert!(error.message().contains("may not specify a duration less than 10 minutes"), "{error}");
    let unknown = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}});
    let error = issue(&cluster, "builder", unknown).await.expect_err("not bindable");
    assert_eq!(error.message(), "cannot bind token to object of type /v1, Kind=ConfigMap");
    let gone = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "x"}});
    assert_eq!(issue(&cluster, "builder", gone).await.expect_err("no pod").code(), 404);
    cluster.end().await;
}

#[tokio::test]
async fn a_token_for_others_is_not_for_us_and_a_review_tells() {
    let cluster = bootstrapped().await;
    let spec = json!({"audiences": ["vault"], "expirationSeconds": 3600});
    let token = token(&issue(&cluster, "builder", spec).await.expect("a token"));
    assert_eq!(cluster.with_token(&token, "GET", "/version", &Value::Null).await.code, 401);
    let admin = cluster.account("kube-system", "reviewer").await;
    let binding: gantry_api::rbac::ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "reviewer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": "reviewer"}],
    }))
    .expect("a binding");
    cluster.api().create(&binding).await.expect("a binding");
    let key = gantry_api::ObjectKey::new("kube-system", admin.name());
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer =
        cluster.api::<ServiceAccount>().create_subresource(&key, "token", &body).await.expect("a token");
    let reviewer: Value = serde_json::from_slice(answer.bytes()).expect("JSON");
    let reviewer = reviewer["status"]["token"].as_str().expect("a token").to_owned();
    let ask = async |path: &str, body: Value| loop {
        let answer = cluster.with_token(&reviewer, "POST", path, &body).await;
        if answer.code != 403 {
            assert_eq!(answer.code, 201, "{}", answer.json());
            break answer.json()["status"].clone();
        }
        tokio::task::yield_now().await;
    };
    let review = |audiences: Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": audiences}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let fine = ask(path, review(json!(["vault", "x"]))).await;
    assert_eq!((&fine["authenticated"], &fine["audiences"]), (&json!(true), &json!(["vault"])));
    assert_eq!(fine["user"]["username"], "system:serviceaccount:shop:builder");
    let other = ask(path, review(json!(["x"]))).await;
    assert_ne!(other["authenticated"], json!(true));

    let access = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "joe", "groups": ["system:masters"], "resourceAttributes": {"verb": "get", "resource": "pods"}},
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(ask(path, access.clone()).await["allowed"], json!(true));
    let mut nobody = access;
    nobody["spec"]["groups"] = json!(["devs"]);
    assert_eq!(ask(path, nobody).await["allowed"], json!(false));
    let mine = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "shop"},
    });
    let mine = ask("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", mine).await;
    let rules = mine["resourceRules"].as_array().expect("rules");
    assert!(rules.iter().any(|rule| rule["resources"] == json!(["tokenreviews"])));
    cluster.end().await;
}

#[tokio::test]
async fn a_token_kept_in_a_secret_is_good_while_the_secret_holds_it() {
    let cluster = bootstrapped().await;
    let key = gantry_api::ObjectKey::new("shop", "builder");
    let account = cluster.api::<ServiceAccount>().get(&key).await.expect("the account");
    let signer = LegacyTokens::new(TokenKey::from_pkcs8(&cluster.pki.token_key).expect("the key"));
    let token = signer.sign("shop", "builder", account.uid(), "old").expect("a token");
    assert_eq!(whoami(&cluster, &token).await.0, 401, "there is no secret yet");
    let secret: gantry_api::core::Secret = serde_json::from_value(json!({
        "metadata": {
            "name": "old", "namespace": "shop",
            "annotations": {"kubernetes.io/service-account.name": "builder"},
        },
        "type": "kubernetes.io/service-account-token",
        "stringData": {"token": token},
    }))
    .expect("a secret");
    let secret = cluster.api().create(&secret).await.expect("a secret");
    let (code, user) = whoami(&cluster, &token).await;
    assert_eq!((code, &user["username"]), (201, &json!("system:serviceaccount:shop:builder")));
    cluster
        .api::<gantry_api::core::Secret>()
        .delete(&secret.key(), &DeleteOptions::default())
        .await
        .expect("deleted");
    assert_eq!(whoami(&cluster, &token).await.0, 401);
    cluster.end().await;
}

#[tokio::test]
async fn strangers_see_health_and_version_only() {
    let cluster = bootstrapped().await;
    let get = async |path: &str| gantry_apiserver::testing::http(&cluster.server, "GET", path, &[], "").await;
    while get("/version").await.code == 403 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get("/healthz").await.code, 200);
    let pods = get("/api/v1/pods").await;
    assert_eq!(pods.code, 403);
    let text = r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" at the cluster scope"#;
    assert_eq!(pods.json()["message"], text);
    cluster.end().await;
}
