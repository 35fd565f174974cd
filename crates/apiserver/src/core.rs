//! What all requests share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use gantry_api::field::quote;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_base::{Clock, Tasks};
use gantry_store::Store;
use tokio::sync::watch;

use crate::audit::Auditor;
use crate::authorize::{Attributes, Decision};
use crate::cache::Hub;
use crate::callout::Callout;
use crate::discovery::Documents;
use crate::fairness::Fairness;
use crate::health::Health;
use crate::identify::User;
use crate::lifecycle::{Lifecycle, Timing};
use crate::resources::{Served, Table};
use crate::route::RequestInfo;
use crate::server::Parts;
use crate::verbs::repeated::Repeated;
use crate::warnings::Warnings;

/// The server's shared state.
pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) table: ArcSwap<Table>,
    /// Told when the table changes.
    pub(crate) table_changes: watch::Sender<()>,
    pub(crate) parts: Parts,
    /// Tells what happens.
    pub(crate) auditor: Arc<Auditor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: Health,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) timing: ArcSwap<Timing>,
    /// What the server was told, by flag.
    pub(crate) flags: ArcSwap<BTreeMap<String, String>>,
    /// When it was.
    pub(crate) started: SystemTime,
    /// Calls conversion webhooks and aggregated servers.
    pub(crate) callout: Callout,
    /// Runs proxied connections.
    pub(crate) tasks: Tasks,
    pub(crate) fairness: Fairness,
    /// Applies that change nothing.
    pub(crate) repeated: Repeated,
    /// OpenAPI.
    pub(crate) documents: Documents,
}

impl Core {
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Changes what is served.
    pub(crate) fn change_table(&self, change: impl Fn(&mut Table)) {
        self.table.rcu(|table| {
            let mut table = Table::clone(table);
            change(&mut table);
            table
        });
        self.table_changes.send_replace(());
    }

    /// The version of the resource that a request names.
    ///
    /// # Errors
    /// 404 if it is not served.
    pub(crate) fn served(&self, group: &str, version: &str, plural: &str) -> Result<Served> {
        self.table.load().find(group, version, plural).ok_or_else(ApiError::no_such_path)
    }

    /// The same, with a note for the audit log.
    ///
    /// # Errors
    /// 403
    pub(crate) async fn authorize_noting(
        &self,
        user: &User,
        info: &RequestInfo,
        warnings: &Warnings,
    ) -> Result<()> {
        const DECISION: &str = "authorization.k8s.io/decision";
        const REASON: &str = "authorization.k8s.io/reason";
        let attributes = info.attributes(user);
        match self.parts.authorizer.authorize(&attributes).await {
            Decision::Allow(why) => {
                warnings.annotate(DECISION, "allow");
                warnings.annotate(REASON, why);
                Ok(())
            }
            Decision::Deny(why) | Decision::NoOpinion(why) => {
                warnings.annotate(DECISION, "forbid");
                warnings.annotate(REASON, why.as_str());
                Err(forbidden(&attributes, &why))
            }
            Decision::Failed(why) | Decision::DenyFailed(why) => {
                warnings.annotate(REASON, "internal error");
                Err(ApiError::internal(why))
            }
        }
    }

    /// Lets the request pass, or says why not.
    ///
    /// # Errors
    /// 403
    pub(crate) async fn authorize(&self, user: &User, info: &RequestInfo) -> Result<()> {
        let attributes = info.attributes(user);
        match crate::authorize::metrics::authorize(self, &attributes).await {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => Err(forbidden(&attributes, &why)),
            Decision::Failed(why) | Decision::DenyFailed(why) => Err(ApiError::internal(why)),
        }
    }
}

/// 403 in upstream's words; what looks like HTML is escaped, but for the reason.
pub(crate) fn forbidden(attributes: &Attributes<'_>, why: &str) -> ApiError {
    let user = quote(&attributes.user.name);
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    if !attributes.is_resource {
        let text = format!("User {user} cannot {} path {}", attributes.verb, quote(attributes.path));
        return ApiError::forbidden_path(sanitized(&text) + &why);
    }
    let resource = Resource {
        group: attributes.group.to_owned().into(),
        version: attributes.version.to_owned().into(),
        kind: "".into(),
        plural: attributes.resource.to_owned().into(),
        namespaced: false,
    };
    let what = match attributes.subresource {
        "" => attributes.resource.to_owned(),
        subresource => format!("{}/{subresource}", attributes.resource),
    };
    let scope = match attributes.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {}", quote(namespace)),
    };
    let message = format!(
        "User {user} cannot {} resource {} in API group {} {scope}",
        attributes.verb,
        quote(&what),
        quote(attributes.group),
    );
    ApiError::forbidden(&resource, attributes.name, sanitized(&message) + &why)
}

fn sanitized(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
