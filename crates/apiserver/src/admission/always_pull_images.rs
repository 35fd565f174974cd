//! Images are pulled for each pod, so that nobody runs another's image without its credentials.
//!
//! Behaviour and texts: `plugin/pkg/admission/alwayspullimages`.

use std::collections::BTreeSet;

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::core::{Pod, PodSpec};
use gantry_api::field::{Error, Path};
use gantry_api::status::Result;
use gantry_kinds::AnyObject;

use super::common::{aggregate, forbidden, is_pod, is_write};
use super::{AdmissionPlugin, AdmissionRequest, Operation};

const ALWAYS: &str = "Always";

/// The plugin.
pub(super) struct AlwaysPullImages;

/// Pull policies of all containers with where they stand.
fn policies(spec: &PodSpec) -> Vec<(Path, Option<&str>)> {
    let root = Path::new("spec");
    let at = |list: &str, i: usize| root.child(list).index(i).child("imagePullPolicy");
    let init = spec.init_containers.iter().flatten().enumerate();
    let ephemeral = spec.ephemeral_containers.iter().flatten().enumerate();
    init.map(|(i, c)| (at("initContainers", i), c.image_pull_policy.as_deref()))
        .chain(
            spec.containers
                .iter()
                .enumerate()
                .map(|(i, c)| (at("containers", i), c.image_pull_policy.as_deref())),
        )
        .chain(ephemeral.map(|(i, c)| (at("ephemeralContainers", i), c.image_pull_policy.as_deref())))
        .collect()
}

fn images(spec: &PodSpec) -> BTreeSet<&str> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let own = containers.filter_map(|c| c.image.as_deref());
    own.chain(spec.ephemeral_containers.iter().flatten().filter_map(|c| c.image.as_deref())).collect()
}

fn brings_no_image(new: Option<&Pod>, old: Option<&dyn AnyObject>) -> bool {
    let old = old.and_then(|o| o.downcast::<Pod>()).and_then(|p| p.spec.as_ref());
    let new = new.and_then(|p| p.spec.as_ref());
    old.zip(new).is_some_and(|(old, new)| images(new).is_subset(&images(old)))
}

#[async_trait]
impl AdmissionPlugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        is_write(operation) && is_pod(resource, subresource)
    }

    async fn mutate(
        &self,
        _request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        if brings_no_image(Some(pod), old) {
            return Ok(());
        }
        let Some(spec) = &mut pod.spec else { return Ok(()) };
        let always = || Some(ALWAYS.to_owned());
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            container.image_pull_policy = always();
        }
        for container in spec.ephemeral_containers.iter_mut().flatten() {
            container.image_pull_policy = always();
        }
        for image in spec.volumes.iter_mut().flatten().filter_map(|v| v.image.as_mut()) {
            image.pull_policy = always();
        }
        Ok(())
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let pod = object.and_then(|o| o.downcast::<Pod>());
        let Some(spec) = pod.and_then(|p| p.spec.as_ref()).filter(|_| !brings_no_image(pod, old)) else {
            return Ok(());
        };
        let volumes = Path::new("spec").child("volumes");
        let of_volumes = spec.volumes.iter().flatten().enumerate().filter_map(|(i, v)| {
            let image = v.image.as_ref()?;
            Some((volumes.index(i).child("image").child("pullPolicy"), image.pull_policy.as_deref()))
        });
        let all = policies(spec).into_iter().chain(of_volumes);
        let wrong = all.filter(|(_, policy)| *policy != Some(ALWAYS)).map(|(path, policy)| {
            let error = Error::not_supported(&path, policy.unwrap_or(""), &[ALWAYS]);
            forbidden(request, object, error).message().to_owned()
        });
        match aggregate(wrong.collect()) {
            None => Ok(()),
            Some(text) => Err(gantry_api::ApiError::new(403, "Forbidden", text)),
        }
    }
}
