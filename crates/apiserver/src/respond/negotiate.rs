//! Which of the media types that a client accepts it gets.

use gantry_api::ApiError;
use gantry_api::status::Result;

/// The form of an object or list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As it is.
    #[default]
    Plain,
    /// Rows for people.
    Table(Include),
    /// Only the metadata.
    Partial,
}

/// What stands beside the cells of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

/// The form of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) yaml: bool,
    pub(crate) shape: Shape,
}

/// Picks from an `Accept` header; the first range that can be served wins, as its order (and `q`) says.
///
/// # Errors
/// 406
pub(crate) fn negotiate(accept: &str, include: Option<&str>) -> Result<Format> {
    if accept.trim().is_empty() {
        return Ok(Format::default());
    }
    let include = match include {
        None | Some("" | "Metadata") => Include::Metadata,
        Some("None") => Include::None,
        Some("Object") => Include::Object,
        Some(other) => {
            return Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}")));
        }
    };
    let mut ranges: Vec<(f32, &str)> = accept.split(',').map(|range| (quality(range), range)).collect();
    ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranges.iter().find_map(|(_, range)| serve(range, include)).ok_or_else(|| {
        ApiError::not_acceptable(
            "only the following media types are accepted: application/json, application/yaml",
        )
    })
}

fn quality(range: &str) -> f32 {
    let parameter = range.split(';').filter_map(|p| p.trim().strip_prefix("q=")).next();
    parameter.and_then(|q| q.parse().ok()).unwrap_or(1.0)
}

fn serve(range: &str, include: Include) -> Option<Format> {
    let mut parts = range.split(';').map(str::trim);
    let yaml = match parts.next()? {
        "application/json" | "*/*" | "application/*" => false,
        "application/yaml" => true,
        _ => return None,
    };
    let (mut shape, mut group, mut version) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", value)) => shape = value,
            Some(("g", value)) => group = value,
            Some(("v", value)) => version = value,
            _ => {}
        }
    }
    let shape = match shape {
        "" => Shape::Plain,
        _ if group != "meta.k8s.io" || version != "v1" => return None,
        "Table" => Shape::Table(include),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Partial,
        _ => return None,
    };
    Some(Format { yaml, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_range_that_can_be_served_wins() {
        let of = |accept| negotiate(accept, None);
        assert_eq!(of("").ok(), Some(Format::default()));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json").ok(), Some(Format::default()));
        assert_eq!(of("application/yaml").ok().map(|f| f.yaml), Some(true));
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(of(kubectl).ok().map(|f| f.shape), Some(Shape::Table(Include::Metadata)));
        assert_eq!(of("application/vnd.kubernetes.protobuf").map_err(|e| e.code()), Err(406));
    }
}
