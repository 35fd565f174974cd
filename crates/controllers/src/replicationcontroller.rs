//! ReplicationControllers: what ReplicaSets were before, kept by the same rules.

use gantry_api::LabelSelector;
use gantry_api::apps::{ReplicaSetCondition, ReplicaSetStatus};
use gantry_api::core::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};

use crate::replicaset::{Replicated, Workload};

/// The replicationcontroller controller.
pub type ReplicationControllers = Replicated<ReplicationController>;

impl Workload for ReplicationController {
    const NAME: &'static str = "replicationcontroller-controller";
    const ACCOUNT: &'static str = "replication-controller";
    const COMPONENT: &'static str = "replication-controller";

    fn selector(&self) -> Option<LabelSelector> {
        Some(LabelSelector::exactly(self.spec.as_ref()?.selector.as_ref()?))
    }

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn min_ready(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Option<ReplicaSetStatus> {
        let status = self.status.as_ref()?;
        let condition = |c: &ReplicationControllerCondition| ReplicaSetCondition {
            type_: c.type_.clone(),
            status: c.status.clone(),
            reason: c.reason.clone(),
            message: c.message.clone(),
            last_transition_time: c.last_transition_time.clone(),
        };
        Some(ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            terminating_replicas: None,
            observed_generation: status.observed_generation,
            conditions: status.conditions.as_ref().map(|list| list.iter().map(condition).collect()),
        })
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let condition = |c: ReplicaSetCondition| ReplicationControllerCondition {
            type_: c.type_,
            status: c.status,
            reason: c.reason,
            message: c.message,
            last_transition_time: c.last_transition_time,
        };
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions: status.conditions.map(|list| list.into_iter().map(condition).collect()),
        };
        Self { status: Some(status), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use gantry_api::Object;
    use gantry_api::core::Pod;
    use gantry_api::meta::MetaExt;
    use serde_json::json;

    #[test]
    fn a_controller_keeps_its_pods_and_tells_of_them() {
        let mut model = Model::default();
        let controller = ReplicationControllers::in_model(&mut model);
        let value = json!({"metadata": {"name": "rc", "namespace": "a"}, "spec": {"replicas": 2,
            "selector": {"app": "x"}, "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}}}});
        let key = model.create(&ReplicationController::decode_value(&value).expect("a controller")).key();
        model.settle(&controller, &key);
        let pods = model.all::<Pod>();
        assert_eq!(pods.len(), 2);
        let owner = &pods[0].metadata.owner_references.as_ref().expect("owners")[0];
        assert_eq!((owner.api_version.as_str(), owner.kind.as_str()), ("v1", "ReplicationController"));
        let status = model.get::<ReplicationController>(&key).and_then(|rc| rc.status).expect("a status");
        assert_eq!((status.replicas, status.fully_labeled_replicas), (2, Some(2)));
        model.edit::<ReplicationController>(&key, |rc| {
            rc.spec.get_or_insert_default().replicas = Some(0);
        });
        model.settle(&controller, &key);
        assert!(model.all::<Pod>().is_empty());
    }
}
