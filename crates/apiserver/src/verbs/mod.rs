//! The verbs: what a request does once it may.

pub(crate) mod bind;
pub(crate) mod components;
pub(crate) mod create;
pub(crate) mod decode;
pub(crate) mod delete;
pub(crate) mod delete_collection;
pub(crate) mod evict;
pub(crate) mod get;
pub(crate) mod lifecycle;
pub(crate) mod list;
mod marked;
pub(crate) mod patch;
pub(crate) mod preconditions;
pub(crate) mod repeated;
pub(crate) mod scale;
pub(crate) mod subresources;
pub(crate) mod update;
pub(crate) mod watch;
pub(crate) mod write;

use std::sync::Arc;

use bytes::Bytes;
use gantry_api::metav1::Status;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded};
use serde_json::Value;

use crate::admission::{AdmissionRequest, Operation, Passes, VerbOptions};
use crate::audit::Tally;
use crate::core::Core;
use crate::identify::User;
use crate::resources::Served;
use crate::warnings::Warnings;

/// A request on a stored resource, authorized.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) core: &'a Core,
    pub(crate) user: &'a User,
    pub(crate) served: Served,
    /// Empty for cluster scope and across namespaces.
    pub(crate) namespace: &'a str,
    /// Empty for collections.
    pub(crate) name: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) warnings: &'a Warnings,
}

impl<'a> Call<'a> {
    pub(crate) fn key(&self) -> Arc<str> {
        self.served.key(self.namespace, self.name)
    }

    /// Waits for the store; the audit log may tell how long that took.
    pub(crate) async fn stored<T>(&self, work: impl Future<Output = T>) -> T {
        let since = self.core.clock.monotonic();
        let done = work.await;
        let took = self.core.clock.monotonic().saturating_sub(since);
        self.warnings.took("etcd", took, Tally::Sum);
        done
    }

    /// The same call on another object of the collection.
    pub(crate) fn on<'b>(&'b self, namespace: &'b str, name: &'b str) -> Call<'b> {
        Call { namespace, name, ..self.clone() }
    }

    /// The other versions of the resource.
    pub(crate) fn equivalents(&self) -> Vec<Served> {
        self.core.table.load().equivalents(&self.served)
    }

    /// An object of the version `from` in the version `to`, both of one resource.
    ///
    /// # Errors
    /// It cannot be converted.
    pub(crate) async fn converted(&self, object: Value, from: &Served, to: &Served) -> Result<Value> {
        let callout = &self.core.callout;
        let bytes = Bytes::from(object.to_string());
        let read = match from.converter() {
            // A webhook takes the direct way.
            Some(_) => to.read(callout, &bytes).await?,
            None => to.read(callout, &from.storable(callout, bytes).await?).await?,
        };
        serde_json::from_slice(&read).map_err(ApiError::internal)
    }

    pub(crate) fn admission<'b>(
        &'b self,
        operation: Operation,
        name: &'b str,
        options: VerbOptions<'b>,
        passes: &'b Passes,
    ) -> AdmissionRequest<'b> {
        AdmissionRequest {
            user: self.user,
            operation,
            resource: self.served.resource(),
            subresource: self.subresource,
            namespace: self.namespace,
            name,
            dry_run: options.dry_run(),
            kind: &*self.served.kind,
            warnings: self.warnings,
            passes,
            options,
            call: self,
        }
    }
}

/// A request's body.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a> {
    pub(crate) content_type: &'a str,
    pub(crate) bytes: Bytes,
}

/// What a verb on one object answers.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Arc<Encoded>,
    /// Whether the body is an object of the resource's kind (else a `Status`, `Scale`, …).
    pub(crate) is_object: bool,
}

impl Answer {
    pub(crate) fn object(code: u16, body: Arc<Encoded>) -> Self {
        Self { code, body, is_object: true }
    }

    pub(crate) fn other(code: u16, body: &Value, revision: u64) -> Self {
        let bytes = Bytes::from(body.to_string());
        Self { code, body: Arc::new(Encoded::new(bytes, revision)), is_object: false }
    }

    pub(crate) fn status(code: u16, status: &Status) -> Self {
        Self { code, body: Arc::new(Encoded::new(status_bytes(status), 0)), is_object: false }
    }
}

/// A `Status` as JSON.
pub(crate) fn status_bytes(status: &Status) -> Bytes {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Value::Object(map) = &mut value {
        map.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    Bytes::from(value.to_string())
}
