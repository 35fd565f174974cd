//! Others who know users and decide what they may do: OIDC issuers, token webhooks, authorization webhooks, each a
//! server with TLS on the loopback.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gantry_apiserver::authorize;
use gantry_apiserver::identify::{self, Discovery, TokenKey};
use gantry_apiserver::pki::{LEAF_LIFE, Leaf, Pki, Usage, server_config};
use gantry_base::{Clock, ManualClock, SystemClock, Tasks};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::Cluster;

type Answer = Box<dyn Fn(&str, &Value) -> Option<Value> + Send + Sync>;

/// Somebody else's server.
struct Outside {
    url: String,
    pki: Pki,
    dir: tempfile::TempDir,
    asked: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Outside {
    /// Answers with what `answer` says of path and body; 404 for nothing.
    async fn start(answer: impl Fn(&str, &str, &Value) -> Option<Value> + Send + Sync + 'static) -> Self {
        let tasks = Tasks::new();
        let dir = tempfile::tempdir().expect("a folder");
        let now = SystemClock::default().now();
        let pki = Pki::load_or_create(dir.path(), now).expect("keys");
        let hosts = vec!["127.0.0.1".to_owned()];
        let leaf = Leaf {
            common_name: "outside",
            organizations: &[],
            hosts: &hosts,
            usage: Usage::Server,
            life: LEAF_LIFE,
        };
        let identity = pki.cluster().issue(&leaf, now).expect("a certificate");
        let mut config = server_config(&identity, &[pki.cluster().certificate()]).expect("TLS");
        config.alpn_protocols.clear();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicUsize::new(0));
        let (own, counter, group) = (url.clone(), Arc::clone(&asked), tasks.clone());
        let answer: Arc<Answer> = Arc::new(Box::new(move |path, body| answer(&own, path, body)));
        tasks.spawn("outside", async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (acceptor, answer, counter) =
                    (acceptor.clone(), Arc::clone(&answer), Arc::clone(&counter));
                group.spawn("connection", async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (answer, counter) = (Arc::clone(&answer), Arc::clone(&counter));
                        async move { Ok::<_, Infallible>(respond(&**answer, &counter, request).await) }
                    });
                    let io = TokioIo::new(stream);
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service).await.ok();
                });
            }
        });
        Self { url, pki, dir, asked, tasks }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn file(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// How to reach it, in a file.
    fn kubeconfig(&self) -> std::path::PathBuf {
        let ca = self.dir.path().join("ca.crt");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{}/hook', certificate-authority: {}}}}}]\nusers: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            self.url,
            ca.display()
        );
        self.file("kubeconfig", &text)
    }

    async fn end(self) {
        assert!(self.tasks.shut_down(Duration::from_secs(20)).await, "all tasks end");
    }
}

async fn respond(
    answer: &(dyn Fn(&str, &Value) -> Option<Value> + Send + Sync),
    asked: &AtomicUsize,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    asked.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    // What has no body is told by who asks.
    let asks = request.headers().get("authorization").and_then(|v| v.to_str().ok()).map(Value::from);
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).ok().or(asks).unwrap_or(Value::Null);
    let mut response = match answer(&path, &body) {
        // A token is no JSON.
        Some(Value::String(text)) => Response::new(Full::from(text)),
        Some(answer) => Response::new(Full::from(answer.to_string())),
        None => {
            let mut response = Response::new(Full::from("not here"));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            response
        }
    };
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}

fn clock() -> Arc<ManualClock> {
    let now = SystemClock::default().now().duration_since(UNIX_EPOCH).expect("after 1970");
    Arc::new(ManualClock::at(now))
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

fn who() -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
}

fn open() -> authorize::Options {
    authorize::Options { modes: vec!["AlwaysAllow".to_owned()], ..Default::default() }
}

fn key() -> TokenKey {
    TokenKey::from_pkcs8(&rcgen::KeyPair::generate().expect("a key").serialize_der()).expect("a P-256 key")
}

#[tokio::test]
async fn tokens_of_an_oidc_issuer_are_believed_and_its_keys_may_change() {
    let current = Arc::new(Mutex::new(key()));
    let shown = Arc::clone(&current);
    let outside = Outside::start(move |url, path, _| documents(url, path, &shown.lock())).await;
    let mappings =
        r#"{username: {expression: '"oidc:" + claims.sub'}, groups: {claim: groups, prefix: 'oidc:'}}"#;
    let anonymous = "anonymous: {enabled: true, conditions: [{path: /livez}]}";
    let config = format!("{}{anonymous}\n", issuer(&outside, mappings));
    let clock = clock();
    let identify = identify::Options {
        config_file: Some(outside.file("authn.yaml", &config)),
        ..identify::Options::default()
    };
    let cluster = Cluster::deciding(identify, open(), clock.clone()).await;
    let token = |audience: &str, life: i64| {
        let now = i64::try_from(seconds(clock.now())).expect("a small number");
        let claims = json!({
            "iss": outside.url, "sub": "jane", "aud": audience, "exp": now + life, "iat": now,
            "groups": ["devs"], "jti": "id",
        });
        current.lock().sign(&claims).expect("a token")
    };
    let ask = async |token: &str| {
        let answer = cluster.with_token(token, "POST", WHO, &who()).await;
        (answer.code, answer.json()["status"]["userInfo"].clone())
    };
    // The issuer is found by and by.
    let user = loop {
        match ask(&token("gantry", 600)).await {
            (201, user) => break user,
            (code, _) => assert_eq!(code, 401),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(user["username"], "oidc:jane");
    assert_eq!(user["groups"], json!(["oidc:devs", "system:authenticated"]));
    assert_eq!(user["extra"]["authentication.kubernetes.io/credential-id"], json!(["JTI=id"]));
    assert_eq!(ask(&token("others", 600)).await.0, 401);
    assert_eq!(ask(&token("gantry", -600)).await.0, 401);
    // A new key: its first token makes the server look, but not more often than now and then.
    *current.lock() = key();
    clock.advance(Duration::from_secs(11));
    let before = outside.asked();
    assert_eq!(ask(&token("gantry", 600)).await.0, 201);
    assert_eq!(ask(&token("gantry", 500)).await.0, 201);
    assert_eq!(outside.asked(), before + 1);
    *current.lock() = key();
    assert_eq!(ask(&token("gantry", 600)).await.0, 401);
    assert_eq!(outside.asked(), before + 1);
    let anonymous =
        async |path: &str| gantry_apiserver::testing::http(&cluster.server, "GET", path, &[], "").await.code;
    assert_eq!((anonymous("/livez").await, anonymous("/version").await), (200, 401));
    cluster.end().await;
    outside.end().await;
}

/// A configuration that believes the issuer there.
fn issuer(outside: &Outside, mappings: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: {}
    audiences: [gantry]
    certificateAuthority: |
      {}
  claimMappings: {mappings}
",
        outside.url,
        outside.pki.cluster().certificate_pem().trim_end().replace('\n', "\n      ")
    )
}

/// A discovery document, or keys.
fn documents(url: &str, path: &str, key: &TokenKey) -> Option<Value> {
    let documents = Discovery::new(url, &format!("{url}/keys"), key)?;
    let document = match path {
        "/.well-known/openid-configuration" => documents.configuration,
        "/keys" => documents.keys,
        _ => return None,
    };
    serde_json::from_slice(&document).ok()
}

#[tokio::test]
async fn groups_of_a_token_may_be_behind_an_endpoint() {
    let (key, other) = (key(), key());
    let now = i64::try_from(seconds(SystemClock::default().now())).expect("a small number");
    let shown = key.clone();
    let outside = Outside::start(move |url, path, asks| {
        let signed = |key: &TokenKey, claims: Value| {
            let mut all = json!({"iss": url, "aud": "gantry", "exp": now + 600});
            all.as_object_mut()?.extend(claims.as_object()?.clone());
            Some(Value::String(key.sign(&all).expect("a token")))
        };
        match path {
            "/groups" if asks == "Bearer secret" => signed(&shown, json!({"groups": ["devs", "ops"]})),
            "/open" => signed(&shown, json!({"groups": "all"})),
            "/none" => signed(&shown, json!({"roles": ["devs"]})),
            "/stranger" => signed(&other, json!({"groups": ["root"]})),
            "/elsewhere" => signed(&shown, json!({"groups": ["root"], "aud": "others"})),
            "/past" => signed(&shown, json!({"groups": ["root"], "exp": now - 600})),
            "/garbage" => Some(Value::String("no token".to_owned())),
            _ => documents(url, path, &shown),
        }
    })
    .await;
    let mappings = "{username: {claim: sub, prefix: ''}, groups: {claim: groups, prefix: 'oidc:'}}";
    let config = issuer(&outside, mappings);
    let config_file = Some(outside.file("authn.yaml", &config));
    let identify = identify::Options { config_file, ..identify::Options::default() };
    let cluster = Cluster::deciding(identify, open(), clock()).await;
    let ask = async |claims: Value| {
        let mut all = json!({"iss": outside.url, "sub": "jane", "aud": "gantry", "exp": now + 600});
        all.as_object_mut().expect("an object").extend(claims.as_object().expect("an object").clone());
        let answer = cluster.with_token(&key.sign(&all).expect("a token"), "POST", WHO, &who()).await;
        let groups = answer.json()["status"]["userInfo"]["groups"].clone();
        (answer.code, groups)
    };
    let at = |path: &str, token: &str| {
        let source = json!({"endpoint": format!("{}{path}", outside.url), "access_token": token});
        json!({"_claim_names": {"groups": "src"}, "_claim_sources": {"src": source}})
    };
    // The issuers, of the token and of the claims, are found by and by.
    while ask(at("/open", "")).await.0 != 201 {
        tokio::task::yield_now().await;
    }
    let groups = |names: &[&str]| {
        let mut all: Vec<String> = names.iter().map(|name| format!("oidc:{name}")).collect();
        all.push("system:authenticated".to_owned());
        (201, json!(all))
    };
    let mut own = at("/groups", "secret");
    own["groups"] = json!(["mine"]);
    let mut aggregated = at("/open", "");
    aggregated["_claim_sources"]["src"] = json!({"JWT": "x.y.z"});
    let mut unnamed = at("/open", "");
    unnamed["_claim_names"] = json!({"roles": "src"});
    let mut lost = at("/open", "");
    lost["_claim_names"] = json!({"groups": "other"});
    let mut nowhere = at("/open", "");
    nowhere.as_object_mut().expect("an object").remove("_claim_sources");
    let refused = (401, Value::Null);
    let cases = [
        (at("/groups", "secret"), groups(&["devs", "ops"])),
        (at("/open", ""), groups(&["all"])),
        (own, groups(&["mine"])),
        (aggregated, groups(&[])),
        (unnamed, groups(&[])),
        (at("/groups", "wrong"), refused.clone()),
        (at("/none", ""), refused.clone()),
        (at("/stranger", ""), refused.clone()),
        (at("/elsewhere", ""), refused.clone()),
        (at("/past", ""), refused.clone()),
        (at("/garbage", ""), refused.clone()),
        (lost, refused.clone()),
        (nowhere, refused),
    ];
    for (claims, want) in cases {
        assert_eq!(ask(claims.clone()).await, want, "{claims}");
    }
    cluster.end().await;
    outside.end().await;
}

#[tokio::test]
async fn a_token_webhook_is_asked_once_in_a_while() {
    let outside = Outside::start(|_, path, review| {
        assert_eq!((path, &review["kind"]), ("/hook", &json!("TokenReview")));
        let known = review["spec"]["token"] == "magic";
        let user = json!({"username": "jane", "uid": "7", "groups": ["devs"], "extra": {"k": ["v"]}});
        Some(json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "status": {"authenticated": known, "user": if known { user } else { json!({}) }},
        }))
    })
    .await;
    let clock = clock();
    let identify =
        identify::Options { webhook_file: Some(outside.kubeconfig()), ..identify::Options::default() };
    let cluster = Cluster::deciding(identify, open(), clock.clone()).await;
    for _ in 0..3 {
        let answer = cluster.with_token("magic", "POST", WHO, &who()).await;
        assert_eq!(answer.code, 201, "{}", answer.json());
        let user = &answer.json()["status"]["userInfo"];
        assert_eq!((&user["username"], &user["uid"]), (&json!("jane"), &json!("7")));
        assert_eq!(user["groups"], json!(["devs", "system:authenticated"]));
        assert_eq!(user["extra"]["k"], json!(["v"]));
    }
    assert_eq!(outside.asked(), 1);
    clock.advance(Duration::from_secs(121));
    assert_eq!(cluster.with_token("magic", "POST", WHO, &who()).await.code, 201);
    assert_eq!(outside.asked(), 2);
    assert_eq!(cluster.with_token("other", "POST", WHO, &who()).await.code, 401);
    cluster.end().await;
    outside.end().await;
}

#[tokio::test]
async fn an_authorization_webhook_decides_where_its_conditions_hold() {
    let outside = Outside::start(|_, path, review| {
        assert_eq!((path, &review["kind"]), ("/hook", &json!("SubjectAccessReview")));
        let asked = &review["spec"]["resourceAttributes"];
        let status = match asked["namespace"].as_str() {
            Some("open") => json!({"allowed": true, "reason": "it is open"}),
            Some("closed") => json!({"allowed": false, "denied": true, "reason": "it is closed"}),
            Some("lost") => return None,
            _ => json!({"allowed": false}),
        };
        Some(
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status}),
        )
    })
    .await;
    let config = format!(
        "apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: hook
  webhook:
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}
    matchConditions: [{{expression: \"has(request.resourceAttributes) && request.user == 'jane'\"}}]
- {{type: RBAC, name: rbac}}
",
        outside.kubeconfig().display()
    );
    let authorize = authorize::Options {
        config_file: Some(outside.file("authz.yaml", &config)),
        ..authorize::Options::default()
    };
    let identify = identify::Options {
        token_file: Some(outside.file("tokens.csv", "t,jane,1,\"devs\"\nj,joe,2\n")),
        ..identify::Options::default()
    };
    let cluster = Cluster::deciding(identify, authorize, clock()).await;
    cluster.namespace("open").await;
    let list = async |token: &str, namespace: &str| {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let answer = cluster.with_token(token, "GET", &path, &Value::Null).await;
        (answer.code, answer.json()["message"].as_str().unwrap_or("").to_owned())
    };
    assert_eq!(list("t", "open").await.0, 200);
    let (code, why) = list("t", "closed").await;
    let wanted = r#"configmaps is forbidden: User "jane" cannot list resource "configmaps" in API group "" in the namespace "closed": it is closed"#;
    assert_eq!((code, why.as_str()), (403, wanted));
    assert_eq!(list("t", "other").await.0, 403);
    assert_eq!(list("t", "lost").await.0, 500, "nobody knows, and that is a no");
    let before = outside.asked();
    assert_eq!(list("t", "open").await.0, 200);
    assert_eq!(list("j", "open").await.0, 403);
    assert_eq!(outside.asked(), before, "what is known or does not match is not asked");
    cluster.end().await;
    outside.end().await;
}
