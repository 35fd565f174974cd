//! What each namespace starts with and each service account gets: the `default` account, the root certificate, and
//! the tokens of secrets that ask for one.
//!
//! Behaviour: `pkg/controller/serviceaccount` and `pkg/controller/certificates/rootcacertpublisher`.

use std::sync::Arc;

use gantry_api::core::{ConfigMap, Namespace, Secret, ServiceAccount};
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey};
use gantry_client::{Informer, InformerSet, Projection, Scope};
use serde_json::json;

use crate::engine::{Check, Controller, Effect, Moment, Plan, Watch, Write};
use crate::registry::RootCa;

const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";

fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    phase.is_none_or(|p| p == "Active") && !namespace.is_terminating()
}

/// Sees to it that each namespace has its `default` service account.
pub struct DefaultAccounts {
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

impl DefaultAccounts {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { namespaces: informers.of(), accounts: informers.of() }
    }
}

impl Controller for DefaultAccounts {
    const NAME: &'static str = "serviceaccount-controller";
    const ACCOUNT: &'static str = "service-account-controller";
    const COMPONENT: &'static str = "service-account-controller";
    /// A namespace without its account.
    type Seen = ObjectKey;

    fn watches(&self) -> Vec<Watch> {
        let namespace = |name: &Arc<str>| vec![ObjectKey::cluster(Arc::clone(name))];
        vec![
            Watch::each(&self.namespaces),
            Watch::on(&self.accounts, move |delta| match (&delta.new, &*delta.key.name) {
                (None, "default") => namespace(&delta.key.namespace),
                _ => Vec::new(),
            }),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<ObjectKey> {
        self.namespaces.get(key).filter(|n| is_active(n))?;
        let account = ObjectKey::new(Arc::clone(&key.name), "default");
        self.accounts.get(&account).is_none().then_some(account)
    }

    fn plan(missing: &ObjectKey, _: &Moment) -> Plan {
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(missing.name.to_string());
        account.metadata.namespace = Some(missing.namespace.to_string());
        let mut plan = Plan::nothing();
        plan.push(Write::create(&account).tolerating("AlreadyExists"));
        plan
    }
}

/// A ConfigMap that the root certificate is published in.
#[derive(Debug)]
pub struct RootCaView {
    map: Arc<ConfigMap>,
}

impl Projection for RootCaView {
    type Object = ConfigMap;

    fn project(map: Arc<ConfigMap>) -> Arc<Self> {
        Arc::new(Self { map })
    }

    fn object_key(&self) -> ObjectKey {
        self.map.key()
    }

    fn object_revision(&self) -> u64 {
        MetaExt::revision(&*self.map)
    }

    fn scope() -> Scope {
        Scope::named("", ROOT_CA)
    }
}

/// Publishes the root certificate in each namespace.
pub struct RootCaPublisher {
    namespaces: Informer<Namespace>,
    maps: Informer<RootCaView>,
    root_ca: RootCa,
}

impl RootCaPublisher {
    /// A controller that reads `informers` and publishes `root_ca` (PEM).
    pub fn new(informers: &InformerSet, root_ca: RootCa) -> Self {
        Self { namespaces: informers.of(), maps: informers.of(), root_ca }
    }
}

/// What the publisher sees of a namespace.
pub struct Published {
    namespace: Arc<str>,
    map: Option<Arc<ConfigMap>>,
    root_ca: Arc<str>,
}

impl Controller for RootCaPublisher {
    const NAME: &'static str = "root-ca-certificate-publisher-controller";
    const ACCOUNT: &'static str = "root-ca-cert-publisher";
    const COMPONENT: &'static str = "root-ca-cert-publisher";
    type Seen = Published;

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::each(&self.namespaces),
            Watch::on(&self.maps, |delta| vec![ObjectKey::cluster(Arc::clone(&delta.key.namespace))]),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Published> {
        self.namespaces.get(key).filter(|n| is_active(n))?;
        let namespace = Arc::clone(&key.name);
        let view = self.maps.get(&ObjectKey::new(Arc::clone(&namespace), ROOT_CA));
        let map = view.map(|view| Arc::clone(&view.map));
        Some(Published { namespace, map, root_ca: (self.root_ca)() })
    }

    fn plan(seen: &Published, _: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let wanted = [("ca.crt".to_owned(), seen.root_ca.to_string())].into();
        let mut map = seen.map.as_deref().cloned().unwrap_or_default();
        let described = map.annotation(DESCRIPTION).is_some_and(|text| !text.is_empty());
        if described && map.data.as_ref() == Some(&wanted) {
            return plan;
        }
        map.data = Some(wanted);
        let annotations = map.metadata.annotations.get_or_insert_default();
        annotations.insert(DESCRIPTION.into(), DESCRIPTION_TEXT.into());
        if seen.map.is_some() {
            plan.push(Write::update(&map));
        } else {
            map.metadata.name = Some(ROOT_CA.into());
            map.metadata.namespace = Some(seen.namespace.to_string());
            plan.push(Write::create(&map).tolerating("NotFound"));
        }
        plan
    }
}

/// What is kept of a token secret: whose token it holds. Never its content.
#[derive(Debug)]
pub struct TokenSecretView {
    key: ObjectKey,
    revision: u64,
    uid: Arc<str>,
    /// The account's name and UID.
    account: (Arc<str>, Arc<str>),
    /// Whether token, certificate and namespace are there.
    filled: bool,
}

impl Projection for TokenSecretView {
    type Object = Secret;

    fn project(secret: Arc<Secret>) -> Arc<Self> {
        let has = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).is_some_and(|v| !v.0.is_empty());
        let text = |key| secret.annotation(key).unwrap_or("").into();
        Arc::new(Self {
            key: secret.key(),
            revision: MetaExt::revision(&*secret),
            uid: secret.uid().into(),
            account: (text(ACCOUNT_NAME), text(ACCOUNT_UID)),
            filled: ["token", "ca.crt", "namespace"].into_iter().all(has),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn scope() -> Scope {
        Scope::with_field("type", TOKEN_TYPE)
    }
}

/// Fills secrets of type `kubernetes.io/service-account-token`, and deletes those whose account is gone.
pub struct TokenSecrets {
    secrets: Informer<TokenSecretView>,
    accounts: Informer<ServiceAccount>,
    root_ca: RootCa,
}

impl TokenSecrets {
    /// A controller that reads `informers`; `root_ca` (PEM) goes into the secrets.
    pub fn new(informers: &InformerSet, root_ca: RootCa) -> Self {
        Self { secrets: informers.of(), accounts: informers.of(), root_ca }
    }
}

/// What the controller sees of a token secret.
pub struct Token {
    secret: Arc<TokenSecretView>,
    account: Option<Arc<ServiceAccount>>,
    root_ca: Arc<str>,
}

impl Controller for TokenSecrets {
    const NAME: &'static str = "serviceaccount-token-controller";
    const ACCOUNT: &'static str = "tokens-controller";
    const COMPONENT: &'static str = "tokens-controller";
    type Seen = Token;

    fn watches(&self) -> Vec<Watch> {
        let secrets = self.secrets.clone();
        vec![
            Watch::each(&self.secrets),
            Watch::on(&self.accounts, move |delta| {
                let name = &delta.key.name;
                let of = |s: &Arc<TokenSecretView>| s.account.0 == *name;
                let secrets = secrets.in_namespace(&delta.key.namespace);
                secrets.iter().filter(|s| of(s)).map(|s| s.key.clone()).collect()
            }),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Token> {
        let secret = self.secrets.get(key)?;
        let (name, _) = &secret.account;
        if name.is_empty() {
            return None;
        }
        let account = self.accounts.get(&ObjectKey::new(Arc::clone(&key.namespace), Arc::clone(name)));
        Some(Token { account, secret, root_ca: (self.root_ca)() })
    }

    fn plan(seen: &Token, _: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let secret = &*seen.secret;
        let (name, uid) = &secret.account;
        let key = &secret.key;
        match seen.account.as_deref() {
            Some(account) if uid.is_empty() || **uid == *account.uid() => {
                if !secret.filled || uid.is_empty() {
                    plan.push(token(seen, account));
                }
            }
            found => {
                if found.is_none() {
                    let account = ObjectKey::new(Arc::clone(&key.namespace), Arc::clone(name));
                    plan.push(Check::Absent(ServiceAccount::RESOURCE, account, uid.to_string()));
                    plan.next_stage();
                }
                plan.push(Write::delete_exactly(Secret::RESOURCE, key.clone(), &secret.uid));
            }
        }
        plan
    }
}

fn token(seen: &Token, account: &ServiceAccount) -> Effect {
    let key = &seen.secret.key;
    let (namespace, secret, name) = (&*key.namespace, &*key.name, account.name());
    Effect::TokenSecret {
        key: key.clone(),
        secret_uid: seen.secret.uid.to_string(),
        account_uid: account.uid().to_owned(),
        root_ca: Arc::clone(&seen.root_ca),
        claims: json!({
            "iss": "kubernetes/serviceaccount",
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": account.uid(),
        }),
    }
}
