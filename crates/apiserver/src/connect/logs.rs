//! `pods/log`: the options of the client, checked, in the kubelet's spelling.

use gantry_api::core::Pod;
use gantry_api::field::{Error, Path};
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};

use super::kubelets::Parameters;
use crate::query::Query;

const OPTIONS: Resource = Resource::fixed("", "v1", "PodLogOptions", "podlogoptions", true);

/// The kubelet's query for the client's.
pub(super) fn parameters(pod: &Pod, query: &Query) -> Result<Parameters> {
    let mut parameters = Parameters::default();
    for name in ["follow", "previous", "timestamps"] {
        if query.flag(name) {
            parameters.add(name, "true");
        }
    }
    let mut errors = Vec::new();
    for (name, least, why) in [
        ("sinceSeconds", 1, "must be greater than 0"),
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
    ] {
        let Some(text) = query.get(name).filter(|t| !t.is_empty()) else { continue };
        let number: i64 = text.parse().map_err(|_| {
            ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })?;
        if number < least {
            errors.push(Error::invalid(&Path::new(name), number, why));
        }
        parameters.add(name, text);
    }
    if let Some(text) = query.get("sinceTime").filter(|t| !t.is_empty()) {
        if let Some(why) = crate::apply::time_error(text, false) {
            return Err(ApiError::bad_request(why));
        }
        if query.get("sinceSeconds").is_some_and(|t| !t.is_empty()) {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(Error::forbidden(&Path::new("[]"), why));
        }
        parameters.add("sinceTime", text);
    }
    if query.get("stream").is_some_and(|t| !t.is_empty()) {
        // The streams of a log apart are a feature that upstream has switched off (`PodLogsQuerySplitStreams`).
        errors.push(Error::forbidden(&Path::new("stream"), "may not be specified"));
    }
    if errors.is_empty() { Ok(parameters) } else { Err(ApiError::invalid(&OPTIONS, pod.name(), &errors)) }
}
