//! `Impersonate-User` and its companions: acting as somebody else, if that is allowed.
//!
//! Constrained impersonation (KEP-5284): who may `impersonate:MODE` a user and `impersonate-on:MODE:VERB` what the
//! request is about may do that as the user; the modes are tried from the narrowest on, the last is the plain verb
//! `impersonate`, which knows no limits.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use gantry_api::ApiError;
use gantry_api::field::quote;
use gantry_api::status::Result;
use http::{HeaderMap, HeaderName};

use crate::audit::{Impersonated, Level};
use crate::authorize::{Attributes, Authorizer, Decision};
use crate::core::forbidden;
use crate::identify::{AUTHENTICATED, MASTERS, UNAUTHENTICATED, User, service_account_of};
use crate::route::{RequestInfo, percent_decode};
use crate::warnings::Warnings;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const NODE: &str = "system:node:";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// From this many groups or extras on, the right to all of them is asked for first.
const MANY: usize = 4;

/// The user that the request is to be served as. The headers that ask for it are taken away.
///
/// # Errors
/// 403 if `user` may not impersonate that one; 400 for companions without a user.
pub(crate) async fn effective_user(
    headers: &mut HeaderMap,
    user: User,
    info: &RequestInfo,
    authorizer: &dyn Authorizer,
    warnings: &Warnings,
) -> Result<User> {
    // The ordinary request costs one pass over its few headers.
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(user);
    }
    let Some(wanted) = Wanted::read(headers)? else { return Ok(user) };
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    let request = info.attributes(&user);
    let mut first = None;
    for mode in Mode::ALL {
        if !mode.applies(&wanted, &user) {
            continue;
        }
        let check = Check { mode, requestor: &user, authorizer };
        match check.run(&wanted, &request).await {
            Ok(()) => {
                let constraint = if mode == Mode::Legacy { String::new() } else { mode.verb() };
                let user = wanted.user(mode);
                if warnings.audited().is_some_and(|level| level >= Level::Metadata) {
                    warnings.notes().impersonates(Impersonated { user: user.clone(), constraint });
                }
                return Ok(user);
            }
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| ApiError::internal("all impersonation modes failed")))
}

/// Who is asked for.
#[derive(Default)]
struct Wanted {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn read(headers: &HeaderMap) -> Result<Option<Self>> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        let groups = headers.get_all(GROUP).iter().filter_map(|v| v.to_str().ok());
        let mut wanted = Self {
            name: text(USER),
            uid: text(UID),
            groups: groups.map(str::to_owned).collect(),
            extra: BTreeMap::new(),
        };
        for (name, value) in headers {
            if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
                wanted.extra.entry(percent_decode(key)).or_default().push(value.to_owned());
            }
        }
        if !wanted.name.is_empty() {
            return Ok(Some(wanted));
        }
        if wanted.is_only_name() {
            return Ok(None);
        }
        let what = wanted.as_go();
        Err(ApiError::bad_request(format!("requested {what} without impersonating a user name")))
    }

    fn is_only_name(&self) -> bool {
        self.uid.is_empty() && self.groups.is_empty() && self.extra.is_empty()
    }

    fn node(&self) -> Option<&str> {
        self.name.strip_prefix(NODE).filter(|name| gantry_api::names::dns1123_subdomain(name).is_ok())
    }

    /// How Go's `%#v` shows it.
    fn as_go(&self) -> String {
        let list = |list: &[String]| {
            let quoted: Vec<String> = list.iter().map(|t| quote(t)).collect();
            format!("{{{}}}", quoted.join(", "))
        };
        let groups = match self.groups.as_slice() {
            [] => "[]string(nil)".to_owned(),
            groups => format!("[]string{}", list(groups)),
        };
        let mut extra = String::from("map[string][]string");
        if self.extra.is_empty() {
            extra.push_str("(nil)");
        } else {
            let pairs = self.extra.iter().map(|(k, v)| format!("{}:[]string{}", quote(k), list(v)));
            // Writing to a String cannot fail.
            write!(extra, "{{{}}}", pairs.collect::<Vec<_>>().join(", ")).unwrap_or_default();
        }
        format!(
            "&user.DefaultInfo{{Name:{}, UID:{}, Groups:{groups}, Extra:{extra}}}",
            quote(&self.name),
            quote(&self.uid)
        )
    }

    fn user(self, mode: Mode) -> User {
        let mut groups = self.groups.clone();
        if mode != Mode::Legacy && self.node().is_some() {
            groups = vec!["system:nodes".to_owned()];
        } else if groups.is_empty()
            && let Some((namespace, _)) = service_account_of(&self.name)
        {
            groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
        let has = |groups: &[String], group: &str| groups.iter().any(|g| g == group);
        if self.name == "system:anonymous" {
            if !has(&groups, UNAUTHENTICATED) {
                groups.push(UNAUTHENTICATED.to_owned());
            }
        } else if !has(&groups, UNAUTHENTICATED) && !has(&groups, AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        User {
            name: self.name.into(),
            uid: self.uid.into(),
            groups: groups.iter().map(|g| Arc::from(g.as_str())).collect(),
            extra: Arc::new(self.extra),
        }
    }
}

/// The ways to impersonate, from the narrowest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A service account acts as the node that its pod is on.
    AssociatedNode,
    /// Somebody acts as a node.
    ArbitraryNode,
    /// Somebody acts as a service account.
    ServiceAccount,
    /// Somebody acts as any other user.
    UserInfo,
    /// Somebody acts as anybody, in everything.
    Legacy,
}

impl Mode {
    const ALL: [Self; 5] =
        [Self::AssociatedNode, Self::ArbitraryNode, Self::ServiceAccount, Self::UserInfo, Self::Legacy];

    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn verb(self) -> String {
        match self {
            Self::Legacy => "impersonate".to_owned(),
            mode => format!("impersonate:{}", mode.name()),
        }
    }

    fn applies(self, wanted: &Wanted, requestor: &User) -> bool {
        let account = service_account_of(&wanted.name).is_some();
        match self {
            Self::AssociatedNode => {
                let own = match requestor.extra.get(NODE_NAME).map(Vec::as_slice) {
                    Some([one]) if service_account_of(&requestor.name).is_some() => one.as_str(),
                    _ => "",
                };
                wanted.is_only_name() && wanted.node().is_some_and(|node| node == own)
            }
            Self::ArbitraryNode => wanted.is_only_name() && wanted.node().is_some(),
            Self::ServiceAccount => wanted.is_only_name() && account,
            Self::UserInfo => wanted.node().is_none() && !account,
            Self::Legacy => true,
        }
    }
}

/// The checks of one mode.
struct Check<'a> {
    mode: Mode,
    requestor: &'a User,
    authorizer: &'a dyn Authorizer,
}

impl Check<'_> {
    async fn run(&self, wanted: &Wanted, request: &Attributes<'_>) -> Result<()> {
        let own;
        let this = if self.mode == Mode::AssociatedNode {
            own = without_extra(self.requestor);
            &Check { requestor: &own, ..*self }
        } else {
            self
        };
        if this.mode != Mode::Legacy {
            let verb = format!("impersonate-on:{}:{}", this.mode.name(), request.verb);
            this.ask(&Attributes { user: this.requestor, verb: &verb, ..*request }).await?;
        }
        let verb = this.mode.verb();
        this.user_name(&verb, wanted).await?;
        if !wanted.uid.is_empty() {
            let uid = this.about(&verb, "authentication.k8s.io", "uids");
            this.ask(&Attributes { name: &wanted.uid, ..uid }).await?;
        }
        this.groups(&verb, &wanted.groups).await?;
        this.extra(&verb, &wanted.extra).await
    }

    fn is_constrained(&self) -> bool {
        self.mode != Mode::Legacy
    }

    fn about<'b>(&'b self, verb: &'b str, group: &'b str, resource: &'b str) -> Attributes<'b> {
        Attributes::on_resource(self.requestor, verb, group, resource)
    }

    /// The group of `users` and `groups`.
    fn group(&self) -> &'static str {
        if self.is_constrained() { "authentication.k8s.io" } else { "" }
    }

    async fn ask(&self, attributes: &Attributes<'_>) -> Result<()> {
        match self.authorizer.authorize(attributes).await {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(why)
            | Decision::NoOpinion(why)
            | Decision::Failed(why)
            | Decision::DenyFailed(why) => Err(forbidden(attributes, &why)),
        }
    }

    async fn user_name(&self, verb: &str, wanted: &Wanted) -> Result<()> {
        let user = Attributes { name: &wanted.name, ..self.about(verb, self.group(), "users") };
        if self.is_constrained()
            && let Some(node) = wanted.node()
        {
            let name = if self.mode == Mode::AssociatedNode { "*" } else { node };
            return self.ask(&Attributes { resource: "nodes", name, ..user }).await;
        }
        match service_account_of(&wanted.name) {
            Some((namespace, name)) => {
                self.ask(&Attributes { resource: "serviceaccounts", namespace, name, ..user }).await
            }
            None => self.ask(&user).await,
        }
    }

    async fn groups(&self, verb: &str, groups: &[String]) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let about = self.about(verb, self.group(), "groups");
        if self.is_constrained() {
            if groups.iter().any(String::is_empty) {
                return Err(forbidden(&about, "impersonating the empty string group is not allowed"));
            }
            if groups.iter().any(|g| g == MASTERS) {
                let about = Attributes { name: MASTERS, ..about };
                return Err(forbidden(&about, "impersonating the system:masters group is not allowed"));
            }
            if groups.len() >= MANY && self.ask(&Attributes { name: "*", ..about }).await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            self.ask(&Attributes { name: group, ..about }).await?;
        }
        Ok(())
    }

    async fn extra(&self, verb: &str, extra: &BTreeMap<String, Vec<String>>) -> Result<()> {
        if extra.is_empty() {
            return Ok(());
        }
        let about = self.about(verb, "authentication.k8s.io", "userextras");
        if self.is_constrained() {
            check_extra(extra).map_err(|why| forbidden(&about, &why))?;
            let many = extra.len() >= MANY || extra.values().map(Vec::len).sum::<usize>() >= MANY;
            let all = Attributes { subresource: "*", name: "*", ..about };
            if many && self.ask(&all).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.ask(&Attributes { subresource: key, name: value, ..about }).await?;
            }
        }
        Ok(())
    }
}

/// What an authorizer sees of an account that acts as its own node: which extras it has, but not their values.
fn without_extra(user: &User) -> User {
    let keys: Vec<String> = user.extra.keys().cloned().collect();
    let extra = BTreeMap::from([("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)]);
    User { extra: Arc::new(extra), ..user.clone() }
}

fn check_extra(extra: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
    for (key, values) in extra {
        if key.is_empty() {
            return Err("impersonating the empty string key in extra is not allowed".to_owned());
        }
        domain_prefixed_path(key)
            .map_err(|why| format!("impersonating an invalid key in extra is not allowed: {why}"))?;
        if *key != key.to_lowercase() {
            let key = quote(key);
            return Err(format!("impersonating a non-lowercase key in extra is not allowed: {key}"));
        }
        if values.iter().any(String::is_empty) {
            return Err("impersonating the empty string value in extra is not allowed".to_owned());
        }
    }
    Ok(())
}

/// `acme.io/foo`
pub(crate) fn domain_prefixed_path(key: &str) -> Result<(), String> {
    let invalid = |value: &str, why: &str| Err(format!("extra.key: Invalid value: {}: {why}", quote(value)));
    let (host, path) = match key.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => (host, path),
        _ => return invalid(key, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    };
    if let Err(why) = gantry_api::names::dns1123_subdomain(host) {
        return invalid(host, &why);
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if path.bytes().all(allowed) {
        return Ok(());
    }
    let why = gantry_api::names::regex_error("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[]);
    invalid(path, &why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::{Asked, Rules};
    use http::Method;

    /// Allows what is listed: `VERB GROUP RESOURCE[/SUB] NAMESPACE NAME`.
    struct Listed(&'static [&'static str]);

    impl Authorizer for Listed {
        fn authorize<'a>(&'a self, a: &'a Attributes<'a>) -> Asked<'a> {
            let dash = |text: &'a str| if text.is_empty() { "-" } else { text };
            let what = match a.subresource {
                "" => a.resource.to_owned(),
                subresource => format!("{}/{subresource}", a.resource),
            };
            let asked = format!("{} {} {what} {} {}", a.verb, dash(a.group), dash(a.namespace), dash(a.name));
            let found = self.0.contains(&asked.as_str());
            if found { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) }.into()
        }

        fn rules_for(&self, _user: &User, _namespace: &str) -> Rules {
            Rules::default()
        }
    }

    async fn ask(
        requestor: User,
        headers: &[(&str, &str)],
        allowed: &'static [&'static str],
    ) -> Result<User, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a header's name");
            map.append(name, value.parse().expect("a header's value"));
        }
        let query = crate::query::Query::parse("");
        let info = crate::route::resolve(&Method::GET, "/api/v1/namespaces/shop/pods", &query);
        let user = effective_user(&mut map, requestor, &info, &Listed(allowed), &Warnings::default()).await;
        if user.is_ok() {
            assert!(map.is_empty(), "the headers go no further");
        }
        user.map_err(|error| error.message().to_owned())
    }

    fn joe() -> User {
        User::new("joe", [AUTHENTICATED])
    }

    #[tokio::test]
    async fn whoever_may_impersonate_becomes_that_one() {
        let jane = &[("impersonate-user", "jane")];
        let legacy = ask(joe(), jane, &["impersonate - users - jane"]).await;
        assert_eq!(legacy, Ok(User::new("jane", [AUTHENTICATED])));
        let constrained = &[
            "impersonate-on:user-info:list - pods shop -",
            "impersonate:user-info authentication.k8s.io users - jane",
        ];
        assert_eq!(ask(joe(), jane, constrained).await, legacy);
        let account = &[("impersonate-user", "system:serviceaccount:shop:builder")];
        let wanted = ["system:serviceaccounts", "system:serviceaccounts:shop", AUTHENTICATED];
        for allowed in [
            &["impersonate - serviceaccounts shop builder"][..],
            &[
                "impersonate-on:serviceaccount:list - pods shop -",
                "impersonate:serviceaccount authentication.k8s.io serviceaccounts shop builder",
            ],
        ] {
            let user = ask(joe(), account, allowed).await;
            assert_eq!(user, Ok(User::new("system:serviceaccount:shop:builder", wanted)));
        }
        let node = &[("impersonate-user", "system:node:n")];
        let constrained = &[
            "impersonate-on:arbitrary-node:list - pods shop -",
            "impersonate:arbitrary-node authentication.k8s.io nodes - n",
        ];
        let as_node = Ok(User::new("system:node:n", ["system:nodes", AUTHENTICATED]));
        assert_eq!(ask(joe(), node, constrained).await, as_node);
        let mut agent = User::new("system:serviceaccount:kube-system:agent", []);
        agent.extra = Arc::new(BTreeMap::from([(NODE_NAME.to_owned(), vec!["n".to_owned()])]));
        let own = &[
            "impersonate-on:associated-node:list - pods shop -",
            "impersonate:associated-node authentication.k8s.io nodes - *",
        ];
        assert_eq!(ask(agent, node, own).await, as_node);
        assert!(ask(joe(), node, own).await.is_err(), "somebody else's node");
        assert_eq!(ask(joe(), &[], &[]).await, Ok(joe()));
    }

    #[tokio::test]
    async fn each_part_is_asked_for_and_refusals_name_it() {
        let all = &[
            ("impersonate-user", "jane"),
            ("impersonate-uid", "7"),
            ("impersonate-group", "devs"),
            ("impersonate-extra-acme.io%2fteam", "t"),
        ];
        let allowed = &[
            "impersonate - users - jane",
            "impersonate authentication.k8s.io uids - 7",
            "impersonate - groups - devs",
            "impersonate authentication.k8s.io userextras/acme.io/team - t",
        ];
        let jane = ask(joe(), all, allowed).await.expect("allowed");
        assert_eq!((&*jane.uid, jane.is_in("devs"), jane.is_in(AUTHENTICATED)), ("7", true, true));
        assert_eq!(jane.extra["acme.io/team"], ["t"]);
        let why = ask(joe(), all, &[]).await.expect_err("refused");
        let wanted = r#"pods is forbidden: User "joe" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "shop""#;
        assert_eq!(why, wanted);
        let why = ask(joe(), &[("impersonate-group", "devs")], &[]).await.expect_err("refused");
        let wanted = r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"devs"}, Extra:map[string][]string(nil)} without impersonating a user name"#;
        assert_eq!(why, wanted);
        let masters = &[("impersonate-user", "jane"), ("impersonate-group", MASTERS)];
        let constrained = &[
            "impersonate-on:user-info:list - pods shop -",
            "impersonate:user-info authentication.k8s.io users - jane",
        ];
        let why = ask(joe(), masters, constrained).await.expect_err("refused");
        assert!(why.ends_with("impersonating the system:masters group is not allowed"), "{why}");
        let anonymous = ask(
            joe(),
            &[("impersonate-user", "system:anonymous")],
            &["impersonate - users - system:anonymous"],
        )
        .await;
        assert_eq!(anonymous, Ok(User::anonymous()));
    }
}
