//! CSIDriver: what a volume driver can do, and what it wants to be told.

use std::collections::BTreeSet;
use std::time::SystemTime;

use gantry_api::field::{Error, Path};
use gantry_api::storage::{CSIDriver, TokenRequest};
use serde_json::{Value, json};

use crate::common::check;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age, or_none};

const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;
const MIN_PERIOD_SECONDS: i64 = 10;

/// The kind.
pub struct CSIDriverKind;

impl Kind for CSIDriverKind {
    type Object = CSIDriver;
    const NAMES: Names =
        Names { singular: "csidriver", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn defaults(driver: &mut CSIDriver) {
        let spec = &mut driver.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".into());
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".into()]);
        }
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
    }

    fn prepare_create(driver: &mut CSIDriver) {
        // Alpha, and off.
        driver.spec.prevent_pod_scheduling_if_missing = None;
    }

    fn prepare_update(new: &mut CSIDriver, old: &CSIDriver) {
        if old.spec.prevent_pod_scheduling_if_missing.is_none() {
            new.spec.prevent_pod_scheduling_if_missing = None;
        }
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn validate(driver: &CSIDriver) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let spec = &driver.spec;
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        let policy = spec.fs_group_policy.as_deref();
        check::supported_if_set(&path.child("fsGroupPolicy"), policy, &policies, &mut errors);
        let tokens = spec.token_requests.as_deref().unwrap_or_default();
        validate_tokens(tokens, &path.child("tokenRequests"), &mut errors);
        for mode in spec.volume_lifecycle_modes.iter().flatten() {
            let modes = ["Persistent", "Ephemeral"];
            check::supported(&path.child("volumeLifecycleModes"), mode, &modes, &mut errors);
        }
        if let Some(period) = spec.node_allocatable_update_period_seconds.filter(|p| *p < MIN_PERIOD_SECONDS)
        {
            let why = "must be greater than or equal to 10 seconds";
            errors.push(Error::invalid(&path.child("nodeAllocatableUpdatePeriodSeconds"), period, why));
        }
        if let Some(in_secrets) = spec.service_account_token_in_secrets
            && tokens.is_empty()
        {
            let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            errors.push(Error::invalid(&path.child("serviceAccountTokenInSecrets"), in_secrets, why));
        }
        errors
    }

    fn validate_update(new: &CSIDriver, old: &CSIDriver) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let (new, old) = (&new.spec, &old.spec);
        check::immutable(
            &path.child("attachedRequired"),
            &new.attach_required,
            &old.attach_required,
            &mut errors,
        );
        let at = path.child("volumeLifecycleModes");
        check::immutable(&at, &new.volume_lifecycle_modes, &old.volume_lifecycle_modes, &mut errors);
        errors
    }

    fn warnings(driver: &CSIDriver) -> Vec<String> {
        let spec = &driver.spec;
        let tokens = spec.token_requests.as_ref().is_some_and(|t| !t.is_empty());
        if !tokens || spec.service_account_token_in_secrets.is_some() {
            return Vec::new();
        }
        vec!["spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".into()]
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "AttachRequired",
                "boolean",
                "attachRequired indicates this CSI volume driver requires an attach operation (because it implements the CSI ControllerPublishVolume() method), and that the Kubernetes attach detach controller should call the attach volume interface which checks the volumeattachment status and waits until the volume is attached before proceeding to mounting. The CSI external-attacher coordinates with CSI volume driver and updates the volumeattachment status when the attach operation is complete. If the value is specified to false, the attach operation will be skipped. Otherwise the attach operation will be called.\n\nThis field is immutable.",
            ),
            Column::new(
                "PodInfoOnMount",
                "boolean",
                "podInfoOnMount indicates this CSI volume driver requires additional pod information (like podName, podUID, etc.) during mount operations, if set to true. If set to false, pod information will not be passed on mount. Default is false.\n\nThe CSI driver specifies podInfoOnMount as part of driver deployment. If true, Kubelet will pass pod information as VolumeContext in the CSI NodePublishVolume() calls. The CSI driver is responsible for parsing and validating the information passed in as VolumeContext.\n\nThe following VolumeContext will be passed if podInfoOnMount is set to true. This list might grow, but the prefix will be used. \"csi.storage.k8s.io/pod.name\": pod.Name \"csi.storage.k8s.io/pod.namespace\": pod.Namespace \"csi.storage.k8s.io/pod.uid\": string(pod.UID) \"csi.storage.k8s.io/ephemeral\": \"true\" if the volume is an ephemeral inline volume\n                                defined by a CSIVolumeSource, otherwise \"false\"\n\n\"csi.storage.k8s.io/ephemeral\" is a new feature in Kubernetes 1.16. It is only required for drivers which support both the \"Persistent\" and \"Ephemeral\" VolumeLifecycleMode. Other drivers can leave pod info disabled and/or ignore this field. As Kubernetes 1.15 doesn't support this field, drivers can only support one mode when deployed on such a cluster and the deployment determines which mode that is, for example via a command line parameter of the driver.\n\nThis field was immutable in Kubernetes < 1.29 and now is mutable.",
            ),
            Column::new(
                "StorageCapacity",
                "boolean",
                "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage capacity that the driver deployment will report by creating CSIStorageCapacity objects with capacity information, if set to true.\n\nThe check can be enabled immediately when deploying a driver. In that case, provisioning new volumes with late binding will pause until the driver deployment has published some suitable CSIStorageCapacity object.\n\nAlternatively, the driver can be deployed with the field unset or false and it can be flipped later when storage capacity information has been published.\n\nThis field was immutable in Kubernetes <= 1.22 and now is mutable.",
            ),
            Column::new(
                "TokenRequests",
                "string",
                "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to do necessary authentication. Kubelet will pass the tokens in VolumeContext in the CSI NodePublishVolume calls. The CSI driver should parse and validate the following VolumeContext: \"csi.storage.k8s.io/serviceAccount.tokens\": {\n  \"<audience>\": {\n    \"token\": <token>,\n    \"expirationTimestamp\": <expiration timestamp in RFC3339>,\n  },\n  ...\n}\n\nNote: Audience in each TokenRequest should be different and at most one token is empty string. To receive a new token after expiry, RequiresRepublish can be used to trigger NodePublishVolume periodically.",
            ),
            Column::new(
                "RequiresRepublish",
                "boolean",
                "requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called to reflect any possible change in the mounted volume. This field defaults to false.\n\nNote: After a successful initial NodePublishVolume call, subsequent calls to NodePublishVolume should only update the contents of the volume. New mount points will not be seen by a running container.",
            ),
            Column::new(
                "Modes",
                "string",
                "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports. The default if the list is empty is \"Persistent\", which is the usage defined by the CSI specification and implemented in Kubernetes via the usual PV/PVC mechanism.\n\nThe other mode is \"Ephemeral\". In this mode, volumes are defined inline inside the pod spec with CSIVolumeSource and their lifecycle is tied to the lifecycle of that pod. A driver has to be aware of this because it is only going to get a NodePublishVolume call for such a volume.\n\nFor more information about implementing this mode, see https://kubernetes-csi.github.io/docs/ephemeral-local-volumes.html A driver can support one or more of these modes and more modes may be added in the future.\n\nThis field is beta. This field is immutable.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(driver: &CSIDriver, now: SystemTime) -> Vec<Value> {
        let spec = &driver.spec;
        let audiences = spec
            .token_requests
            .as_ref()
            .map(|tokens| tokens.iter().map(|t| t.audience.as_str()).collect::<Vec<_>>().join(","));
        vec![
            spec.attach_required.unwrap_or(true).into(),
            spec.pod_info_on_mount.unwrap_or(false).into(),
            spec.storage_capacity.unwrap_or(false).into(),
            audiences.unwrap_or_else(|| "<unset>".into()).into(),
            spec.requires_republish.unwrap_or(false).into(),
            or_none(spec.volume_lifecycle_modes.as_deref().unwrap_or_default().join(",")),
            age(&driver.metadata, now),
        ]
    }
}

fn validate_tokens(tokens: &[TokenRequest], path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, token) in tokens.iter().enumerate() {
        let at = path.index(i);
        if !seen.insert(token.audience.as_str()) {
            errors.push(Error::duplicate(&at.child("audience"), token.audience.as_str()));
            continue;
        }
        let Some(seconds) = token.expiration_seconds else { continue };
        let at = at.child("expirationSeconds");
        if seconds < MIN_TOKEN_SECONDS {
            let why = "may not specify a duration less than 10 minutes";
            errors.push(Error::invalid(&at, json!(seconds), why));
        }
        if seconds > MAX_TOKEN_SECONDS {
            let why = "may not specify a duration larger than 2^32 seconds";
            errors.push(Error::invalid(&at, json!(seconds), why));
        }
    }
}
