//! The API server at its boundary: requests in, responses and events out.

mod aggregate;
mod applying;
mod bad_conversions;
mod bad_requests;
mod conversion;
mod crud;
mod custom;
mod decoding;
mod definitions;
mod delete;
mod ending;
mod etcd;
mod evictions;
mod forms;
mod kinds;
mod lists;
mod metrics;
mod options;
mod patches;
mod prepared;
mod protobuf;
mod secrets;
mod storage_versions;
mod tls;
mod watches;
mod websockets;
mod writing;

use gantry_apiserver::server::ApiServer;
use gantry_apiserver::testing::{Answered, http, in_memory};
use gantry_base::Tasks;
use serde_json::Value;

/// A server and the group its tasks run in.
pub(crate) struct Lab {
    pub(crate) server: ApiServer,
    pub(crate) tasks: Tasks,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let tasks = Tasks::new();
        let (server, _) = in_memory(&tasks).await;
        Self { server, tasks }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Answered {
        http(&self.server, method, path, &[], body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        http(&self.server, "GET", path, &[], "").await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answered {
        let content_type = format!("application/{kind}");
        http(&self.server, "PATCH", path, &[("content-type", &content_type)], body.to_string()).await
    }

    /// Creates an object, which must work.
    pub(crate) async fn create(&self, path: &str, body: &Value) -> Value {
        let answer = self.send("POST", path, body).await;
        assert_eq!(answer.code, 201, "{}", answer.json());
        answer.json()
    }

    pub(crate) async fn end(self) {
        assert!(self.tasks.shut_down(std::time::Duration::from_secs(20)).await, "all tasks end");
    }
}

/// Checks a failure's code, reason and message.
#[track_caller]
pub(crate) fn refused(answer: &Answered, code: u16, reason: &str, message: &str) {
    let status = answer.json();
    assert_eq!(answer.code, code, "{status}");
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["reason"].as_str().unwrap_or(""), reason, "{status}");
    assert_eq!(status["message"], message);
    assert_eq!(status["code"], code);
}

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(crate) fn map(name: &str) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}
