//! Every route, for those who may not: strangers and users without rights get 403 and bearers of bad tokens 401, in
//! Kubernetes' words.

use gantry_apiserver::testing::{Answered, http};
use serde_json::{Value, json};

use crate::Cluster;
use crate::tokens::bootstrapped;

const STRANGER: &str = "system:anonymous";
const ACCOUNT: &str = "system:serviceaccount:shop:builder";

/// One request, and how it is named in a refusal.
struct Route {
    method: &'static str,
    path: String,
    verb: &'static str,
    group: String,
    resource: String,
    namespace: &'static str,
    name: &'static str,
}

fn method(verb: &str) -> Option<(&'static str, bool)> {
    Some(match verb {
        "create" => ("POST", false),
        "get" => ("GET", true),
        "list" | "watch" => ("GET", false),
        "update" => ("PUT", true),
        "patch" => ("PATCH", true),
        "delete" => ("DELETE", true),
        "deletecollection" => ("DELETE", false),
        _ => return None,
    })
}

fn routes(group: &str, version: &str, list: &Value) -> Vec<Route> {
    let mut routes = Vec::new();
    let prefix =
        if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    for entry in list["resources"].as_array().expect("resources") {
        let full = entry["name"].as_str().expect("a name").to_owned();
        let (resource, subresource) = full.split_once('/').unwrap_or((full.as_str(), ""));
        let namespaced = entry["namespaced"] == true;
        for verb in entry["verbs"].as_array().expect("verbs") {
            let verb: &'static str = match verb.as_str().expect("a verb") {
                "create" => "create",
                "get" => "get",
                "list" => "list",
                "watch" => "watch",
                "update" => "update",
                "patch" => "patch",
                "delete" => "delete",
                "deletecollection" => "deletecollection",
                other => panic!("an unknown verb {other}"),
            };
            let Some((method, named)) = method(verb) else { continue };
            let named = named || !subresource.is_empty();
            let mut path = prefix.clone();
            if namespaced {
                path.push_str("/namespaces/shop");
            }
            path.push_str(&format!("/{resource}"));
            if named {
                path.push_str("/x");
            }
            if !subresource.is_empty() {
                path.push_str(&format!("/{subresource}"));
            }
            if subresource == "proxy" {
                path.push_str("/some/where");
            }
            if verb == "watch" {
                path.push_str("?watch=true");
            }
            // A namespace is in itself.
            let own = resource == "namespaces" && group.is_empty() && named;
            let namespace = if own {
                "x"
            } else if namespaced {
                "shop"
            } else {
                ""
            };
            routes.push(Route {
                method,
                path,
                verb,
                group: group.to_owned(),
                resource: full.clone(),
                namespace,
                name: if named { "x" } else { "" },
            });
        }
    }
    routes
}

impl Route {
    fn refusal(&self, user: &str) -> String {
        let (resource, group) = (&self.resource, &self.group);
        let plural = resource.split('/').next().unwrap_or("");
        let what = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        let what = if self.name.is_empty() { what } else { format!("{what} \"{}\"", self.name) };
        let place = match self.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        format!(
            "{what} is forbidden: User \"{user}\" cannot {} resource \"{resource}\" in API group \"{group}\" {place}",
            self.verb
        )
    }
}

#[track_caller]
fn refused(answer: &Answered, code: u16, reason: &str, message: &str, what: &str) {
    assert_eq!(answer.code, code, "{what}: {}", String::from_utf8_lossy(&answer.bytes));
    let status = answer.json();
    assert_eq!(status["message"], message, "{what}");
    let wanted = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code,
    });
    let mut bare = status.clone();
    bare.as_object_mut().expect("an object").remove("details");
    assert_eq!(bare, wanted, "{what}");
}

async fn send(cluster: &Cluster, token: &str, method: &str, path: &str) -> Answered {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let headers = if token.is_empty() { &[][..] } else { &headers[..] };
    http(&cluster.server, method, path, headers, if method == "GET" { "" } else { "{}" }).await
}

async fn json(cluster: &Cluster, path: &str) -> Value {
    let bytes = cluster.transport.raw(path).await.expect(path);
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test]
async fn every_route_refuses_strangers_and_users_without_rights() {
    let cluster = bootstrapped().await;
    let account = cluster.token("shop", "builder").await;
    let mut all = routes("", "v1", &json(&cluster, "/api/v1").await);
    for group in json(&cluster, "/apis").await["groups"].as_array().expect("groups") {
        for version in group["versions"].as_array().expect("versions") {
            let (name, version) = (group["name"].as_str(), version["version"].as_str());
            let (name, version) = (name.expect("a name"), version.expect("a version"));
            all.extend(routes(name, version, &json(&cluster, &format!("/apis/{name}/{version}")).await));
        }
    }
    assert!(all.len() > 500, "{}", all.len());
    // The authorizer may be a moment behind the bootstrap.
    while send(&cluster, "", "GET", "/version").await.code == 403 {
        tokio::task::yield_now().await;
    }
    let bad = format!("{}x", &account[..account.len() - 8]);
    for route in &all {
        let what = format!("{} {}", route.method, route.path);
        let answer = send(&cluster, "", route.method, &route.path).await;
        refused(&answer, 403, "Forbidden", &route.refusal(STRANGER), &what);
        let details = &answer.json()["details"];
        let plural = route.resource.split('/').next().unwrap_or("");
        assert_eq!(details["kind"], plural, "{what}");
        assert_eq!(details["name"].as_str().unwrap_or(""), route.name, "{what}");
        assert_eq!(details["group"].as_str().unwrap_or(""), route.group, "{what}");
        let answer = send(&cluster, &account, route.method, &route.path).await;
        // Everybody may ask about themselves.
        if !route.resource.starts_with("selfsubject") {
            refused(&answer, 403, "Forbidden", &route.refusal(ACCOUNT), &what);
        } else {
            assert_ne!(answer.code, 403, "{what}");
        }
        let answer = send(&cluster, &bad, route.method, &route.path).await;
        refused(&answer, 401, "Unauthorized", "Unauthorized", &what);
    }
    let strangers = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let users = ["/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/openapi/v2", "/openapi/v3"];
    let accounts = ["/.well-known/openid-configuration", "/openid/v1/jwks"];
    let nobody = ["/", "/metrics", "/logs/", "/debug/pprof/", "/nonsense", "/healthz/etcd", "/livez/ping"];
    for path in strangers.iter().chain(&users).chain(&accounts).chain(&nobody) {
        let known = |list: &[&str]| list.contains(path);
        let answer = send(&cluster, "", "GET", path).await;
        if known(&strangers) {
            assert_ne!(answer.code, 403, "{path}");
        } else {
            let message = format!("forbidden: User \"{STRANGER}\" cannot get path \"{path}\"");
            refused(&answer, 403, "Forbidden", &message, path);
        }
        let answer = send(&cluster, &account, "GET", path).await;
        if known(&nobody) {
            let message = format!("forbidden: User \"{ACCOUNT}\" cannot get path \"{path}\"");
            refused(&answer, 403, "Forbidden", &message, path);
        } else {
            assert_ne!(answer.code, 403, "{path}");
        }
        let answer = send(&cluster, &bad, "GET", path).await;
        refused(&answer, 401, "Unauthorized", "Unauthorized", path);
        let answer = send(&cluster, &account, "POST", path).await;
        let message = format!("forbidden: User \"{ACCOUNT}\" cannot post path \"{path}\"");
        refused(&answer, 403, "Forbidden", &message, path);
    }
    cluster.end().await;
}
