//! What all requests share.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_base::Clock;
use gantry_store::Store;

use crate::authorize::{Attributes, Decision};
use crate::cache::Hub;
use crate::discovery::Documents;
use crate::health::Health;
use crate::identify::User;
use crate::in_flight::InFlight;
use crate::resources::{Served, Table};
use crate::route::RequestInfo;
use crate::server::Parts;

/// The server's shared state.
pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) parts: Parts,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: Health,
    pub(crate) in_flight: InFlight,
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
    }

    /// The version of the resource that a request names.
    ///
    /// # Errors
    /// 404 if it is not served.
    pub(crate) fn served(&self, group: &str, version: &str, plural: &str) -> Result<Served> {
        self.table.load().find(group, version, plural).ok_or_else(ApiError::no_such_path)
    }

    /// Lets the request pass, or says why not.
    ///
    /// # Errors
    /// 403
    pub(crate) fn authorize(&self, user: &User, info: &RequestInfo) -> Result<()> {
        let attributes = Attributes {
            user,
            verb: info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
        };
        match self.parts.authorizer.authorize(&attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => Err(forbidden(&attributes, &why)),
        }
    }
}

/// 403 in upstream's words.
pub(crate) fn forbidden(attributes: &Attributes<'_>, why: &str) -> ApiError {
    let user = gantry_api::field::quote(&attributes.user.name);
    let verb = gantry_api::field::quote(attributes.verb);
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    if !attributes.is_resource {
        return ApiError::forbidden_path(format!(
            "User {user} cannot {} path {:?}{why}",
            attributes.verb, attributes.path
        ));
    }
    let resource = Resource {
        group: attributes.group.to_owned().into(),
        version: attributes.version.to_owned().into(),
        kind: "".into(),
        plural: attributes.resource.to_owned().into(),
        namespaced: false,
    };
    let what = if attributes.subresource.is_empty() {
        attributes.resource.to_owned()
    } else {
        format!("{}/{}", attributes.resource, attributes.subresource)
    };
    let scope = if attributes.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {}", gantry_api::field::quote(attributes.namespace))
    };
    let message = format!(
        "User {user} cannot {} resource {} in API group {} {scope}{why}",
        verb.trim_matches('"'),
        gantry_api::field::quote(&what),
        gantry_api::field::quote(attributes.group),
    );
    ApiError::forbidden(&resource, attributes.name, message)
}
