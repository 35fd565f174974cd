//! POST of an Eviction: a pod is deleted, if its disruption budget allows (`registry/core/pod/storage/eviction.go`).

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::core::{Pod, PodCondition};
use gantry_api::field::{Error, Path};
use gantry_api::k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use gantry_api::metav1::{Condition, ObjectMeta, Status, StatusCause};
use gantry_api::status::Result;
use gantry_api::{ApiError, LabelSelector, Resource, conditions, time};
use serde_json::Value;

use super::delete::{self, Options};
use super::lifecycle::{self, Part};
use super::write::{Change, Current, Mutate, modify};
use super::{Answer, Call, Input, decode, get, list};
use crate::admission::{Body, Operation, VerbOptions};
use crate::limits::EVICTION_ATTEMPTS;
use crate::managed;
use crate::query::{FieldValidation, ListOptions, Query, WriteOptions};

const EVICTION: Resource = Resource::fixed("policy", "v1", "Eviction", "evictions", true);
/// The most pods whose eviction a budget's controller has not seen yet.
const MAX_DISRUPTED_PODS: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const MANY_BUDGETS: &str =
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";

/// Deletes a pod on behalf of whoever empties a node.
///
/// # Errors
/// 400, 404, 409, 422; 429 if the pod's disruption budget does not allow it now.
pub(crate) async fn evict(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let body = read(call, input, options)?;
    let delete_options = delete_options(call, &body, options)?;
    let mut body = Body::new("policy", "v1", "Eviction", body);
    lifecycle::admit_body(call, Operation::Create, VerbOptions::Write(options), &mut body).await?;
    let pods = Call { subresource: "", ..call.clone() };
    let eviction = Eviction { call: &pods, options: delete_options };
    let Some(pod) = eviction.delete_what_no_budget_guards().await? else { return Ok(success()) };
    let budgets = budgets_of(call, &pod).await?;
    let refined = match budgets.as_slice() {
        [] => eviction.options.clone(),
        [budget] => eviction.pass(budget, &pod).await?,
        _ => return Ok(too_many_budgets()),
    };
    let ours = refined.revision.is_some() && eviction.options.revision.is_none();
    match eviction.mark_and_delete(refined).await {
        // The pod is ready by now: it counts against the budget after all.
        Err(error) if error.is_conflict() && ours => {
            Err(still_processing(budgets.first().map_or("", |b| name_of(&b.metadata))))
        }
        Err(error) => Err(error),
        Ok(()) => Ok(success()),
    }
}

fn read(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Value> {
    // The older version is the same but for its name.
    let older = Resource { version: "v1beta1".into(), ..EVICTION };
    let body = decode::body(call.warnings, input, &EVICTION, options.validation).or_else(|error| {
        decode::body(call.warnings, input, &older, FieldValidation::Ignore).map_err(|_| error)
    })?;
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let mut meta = ObjectMeta { namespace: text("/metadata/namespace"), ..ObjectMeta::default() };
    lifecycle::ensure_namespace(call, &mut meta)?;
    if text("/metadata/name").unwrap_or_default() != call.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut body = body;
    body["metadata"]["namespace"] = call.namespace.into();
    Ok(body)
}

fn delete_options(call: &Call<'_>, body: &Value, options: &WriteOptions) -> Result<Options> {
    let inner = body.get("deleteOptions").filter(|o| o.is_object());
    let ignore = inner.and_then(|o| o.get("ignoreStoreReadErrorWithClusterBreakingPotential"));
    if ignore == Some(&Value::Bool(true)) {
        let path = Path::new("deleteOptions").child("ignoreStoreReadErrorWithClusterBreakingPotential");
        let why = "can not be set for pod eviction, try after removing the option";
        return Err(ApiError::invalid(&EVICTION, call.name, &[Error::invalid(&path, true, why)]));
    }
    let inner = inner.map(Value::to_string).unwrap_or_default();
    let input = Input { content_type: "application/json", bytes: inner.into() };
    let mut wanted = Options::read(&input, &Query::default(), call.warnings)?;
    wanted.dry_run |= options.dry_run;
    Ok(wanted)
}

fn success() -> Answer {
    Answer::status(201, &Status { status: Some("Success".into()), code: Some(201), ..Status::default() })
}

fn too_many_budgets() -> Answer {
    let status = Status {
        status: Some("Failure".into()),
        message: Some(MANY_BUDGETS.into()),
        code: Some(500),
        ..Status::default()
    };
    Answer::status(500, &status)
}

fn cause(message: String) -> StatusCause {
    StatusCause { reason: Some("DisruptionBudget".into()), message: Some(message), field: None }
}

fn still_processing(budget: &str) -> ApiError {
    let message = format!("The disruption budget {budget} is still being processed by the server.");
    ApiError::too_many_requests(REFUSED, 10).with_causes(vec![cause(message)])
}

fn name_of(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or("")
}

/// A pod that disrupts nothing any more, or not yet.
fn is_unguarded(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed" | "Pending") || pod.metadata.deletion_timestamp.is_some()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

fn is_ready(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|s| conditions::is_true(s.conditions.as_ref(), "Ready"))
}

struct Eviction<'a> {
    /// On the pod itself.
    call: &'a Call<'a>,
    /// As the client has them.
    options: Options,
}

impl Eviction<'_> {
    /// Deletes a pod that no budget guards; else the pod.
    async fn delete_what_no_budget_guards(&self) -> Result<Option<Pod>> {
        let mut attempts = EVICTION_ATTEMPTS;
        loop {
            attempts -= 1;
            let found = get::get(self.call).await?;
            let pod = found.typed::<Pod>().map_err(ApiError::internal)?;
            if !is_unguarded(&pod) {
                return Ok(Some(Pod::clone(&pod)));
            }
            let ended =
                matches!(phase(&pod), "Succeeded" | "Failed") || pod.metadata.deletion_timestamp.is_some();
            let mut options = self.options.clone();
            if !ended && options.revision.is_none() {
                // A pod that begins to run in this moment is guarded again.
                options.revision = Some(found.revision().to_string());
            }
            match self.mark_and_delete(options).await {
                Ok(()) => return Ok(None),
                Err(error) if error.is_conflict() && self.options.revision.is_none() && attempts > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks the budget; the options that the pod may be deleted with.
    async fn pass(&self, budget: &PodDisruptionBudget, pod: &Pod) -> Result<Options> {
        let mut options = self.options.clone();
        if !is_ready(pod) {
            let policy = budget.spec.as_ref().and_then(|s| s.unhealthy_pod_eviction_policy.as_deref());
            let status = budget.status.clone().unwrap_or_default();
            let (current, desired) = healthy(&status);
            let healthy = current >= desired && desired > 0;
            if policy == Some("AlwaysAllow") || healthy {
                // It does not count, as long as it stays unready.
                options.revision.clone_from(&pod.metadata.resource_version);
                return Ok(options);
            }
        }
        decrement(self.call, name_of(&budget.metadata), name_of(&pod.metadata), options.dry_run).await?;
        Ok(options)
    }

    async fn mark_and_delete(&self, mut options: Options) -> Result<()> {
        if !options.dry_run {
            let mut mark = Mark { call: self.call, options: &options };
            let marked = modify(self.call, EVICTION_ATTEMPTS, false, &mut mark).await?;
            if options.revision.is_some() {
                options.revision = Some(marked.object.revision().to_string());
            }
        }
        delete::delete_unadmitted(self.call, &options).await.map(drop)
    }
}

/// Writes into the pod's status why it goes.
struct Mark<'a> {
    call: &'a Call<'a>,
    options: &'a Options,
}

#[async_trait]
impl Mutate for Mark<'_> {
    async fn mutate(&mut self, current: Option<&Current>) -> Result<Change> {
        let call = self.call;
        let Some(current) = current else {
            return Err(ApiError::not_found(call.served.resource(), call.name));
        };
        delete::check_preconditions(call, self.options, current.object.metadata(), current.revision)?;
        let mut new = current.object.clone_box();
        let pod = new.downcast_mut::<Pod>().ok_or_else(|| ApiError::internal("a pod that is no pod"))?;
        let condition = PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("EvictionByEvictionAPI".into()),
            message: Some("Eviction API: evicting".into()),
            last_transition_time: Some(time::time(call.core.now())),
            ..PodCondition::default()
        };
        conditions::set(&mut pod.status.get_or_insert_default().conditions, condition);
        Ok(Change::Put(new))
    }
}

/// The budgets whose selector matches the pod.
async fn budgets_of(call: &Call<'_>, pod: &Pod) -> Result<Vec<Arc<PodDisruptionBudget>>> {
    let served = call.core.served("policy", "v1", "poddisruptionbudgets")?;
    let budgets = Call { served, name: "", subresource: "", ..call.clone() };
    let page = list::list(&budgets, &ListOptions::default()).await?;
    let mut found = Vec::new();
    for entry in &page.entries {
        let encoded = budgets.served.encoded(&entry.encoded)?;
        let budget = encoded.typed::<PodDisruptionBudget>().map_err(ApiError::internal)?;
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        // A selector that cannot be read matches nothing.
        if LabelSelector::from_spec(selector).is_ok_and(|s| s.matches(pod.metadata.labels.as_ref())) {
            found.push(budget);
        }
    }
    Ok(found)
}

/// Takes one disruption from a budget, or says why there is none.
async fn decrement(call: &Call<'_>, budget: &str, pod: &str, dry_run: bool) -> Result<()> {
    let served = call.core.served("policy", "v1", "poddisruptionbudgets")?;
    let budgets = Call { served, name: budget, subresource: "status", ..call.clone() };
    let mut decrement = Decrement { call: &budgets, pod };
    match modify(&budgets, EVICTION_ATTEMPTS, dry_run, &mut decrement).await {
        Err(error) if error.is_conflict() => Err(ApiError::timeout(
            format!(
                "couldn't update PodDisruptionBudget {} due to conflicts",
                gantry_api::field::quote(budget)
            ),
            10,
        )),
        done => done.map(drop),
    }
}

struct Decrement<'a> {
    call: &'a Call<'a>,
    pod: &'a str,
}

#[async_trait]
impl Mutate for Decrement<'_> {
    async fn mutate(&mut self, current: Option<&Current>) -> Result<Change> {
        let call = self.call;
        let Some(current) = current else {
            return Err(ApiError::not_found(call.served.resource(), call.name));
        };
        let mut new = current.object.clone_box();
        let budget = new.downcast_mut::<PodDisruptionBudget>();
        let budget = budget.ok_or_else(|| ApiError::internal("a disruption budget that is none"))?;
        check(budget)?;
        let now = time::time(call.core.now());
        let generation = budget.metadata.generation;
        let status = budget.status.get_or_insert_default();
        let left = status.disruptions_allowed.unwrap_or(0) - 1;
        status.disruptions_allowed = Some(left);
        if left == 0 {
            let condition = Condition {
                type_: "DisruptionAllowed".into(),
                status: "False".into(),
                reason: "InsufficientPods".into(),
                observed_generation: generation,
                last_transition_time: now.clone(),
                message: String::new(),
            };
            set_condition(status.conditions.get_or_insert_default(), condition);
        }
        status.disrupted_pods.get_or_insert_default().insert(self.pod.to_owned(), now);
        managed::track(call, &mut *new, Some(current), &as_server()).await?;
        lifecycle::update_internally(call, Part::Status, new, current)
    }
}

/// The server writes the status of budgets in its own name.
fn as_server() -> WriteOptions {
    WriteOptions {
        dry_run: false,
        field_manager: "kube-apiserver".into(),
        default_manager: String::new(),
        force: None,
        validation: FieldValidation::Ignore,
    }
}

fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time.clone_from(&old.last_transition_time);
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// How many pods are healthy, and how many are to be.
fn healthy(status: &PodDisruptionBudgetStatus) -> (i32, i32) {
    (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0))
}

/// Whether the budget has a disruption left.
fn check(budget: &PodDisruptionBudget) -> Result<()> {
    let name = name_of(&budget.metadata);
    let status = budget.status.clone().unwrap_or_default();
    if status.observed_generation.unwrap_or(0) < budget.metadata.generation.unwrap_or(0) {
        return Err(still_processing(name));
    }
    let resource = Resource::fixed("policy", "v1", "PodDisruptionBudget", "poddisruptionbudget", true);
    let left = status.disruptions_allowed.unwrap_or(0);
    if left < 0 {
        return Err(ApiError::forbidden(&resource, name, "pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.as_ref().is_some_and(|pods| pods.len() > MAX_DISRUPTED_PODS) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiError::forbidden(&resource, name, why));
    }
    if left > 0 {
        return Ok(());
    }
    let (current, desired) = healthy(&status);
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionAllowed");
    let refusal = condition.filter(|c| c.status == "False" && !c.message.is_empty());
    let message = match refusal {
        Some(c) if c.reason == "SyncFailed" => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            c.message
        ),
        _ if current <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        }
        Some(c) => format!(
            "The disruption budget {name} does not allow evicting pods currently ({}): {}",
            c.reason, c.message
        ),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    };
    Err(ApiError::new(429, "TooManyRequests", REFUSED).retry_after(0).with_causes(vec![cause(message)]))
}
