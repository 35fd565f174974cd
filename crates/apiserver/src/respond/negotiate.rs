//! Which of the media types that a client accepts it gets, and in which form.

use gantry_api::ApiError;
use gantry_api::status::Result;

use super::accept::{self, Clause};
use crate::query::Query;

/// How a response is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

impl Encoding {
    /// In the order of the server's own preference.
    pub(crate) const ALL: [Self; 3] = [Self::Json, Self::Yaml, Self::Protobuf];

    /// The media type.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The media type of a watch.
    pub(super) fn stream_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            _ => "application/json",
        }
    }
}

/// The form of an object or list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As it is.
    #[default]
    Plain,
    /// Rows for people.
    Table(Include),
    /// Only the metadata of an object.
    Partial,
    /// Only the metadata of a list's objects.
    PartialList,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
    /// The version of `Table` and `PartialObjectMetadata`: `meta.k8s.io/v1`, or the older `v1beta1`.
    pub(crate) meta_version: &'static str,
    /// Indented, for people.
    pub(crate) pretty: bool,
}

impl Default for Format {
    fn default() -> Self {
        Self { encoding: Encoding::Json, shape: Shape::Plain, meta_version: META_V1, pretty: false }
    }
}

const META_V1: &str = "meta.k8s.io/v1";
const META_V1BETA1: &str = "meta.k8s.io/v1beta1";

/// What an endpoint can answer with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Objects as tables and as their metadata.
    pub(crate) transforms: bool,
    /// Objects that have no protobuf of their own: custom resources.
    pub(crate) custom: bool,
    /// A stream of events.
    pub(crate) watch: bool,
    /// A resource that is served.
    pub(crate) known: bool,
    /// One object, and no collection.
    pub(crate) named: bool,
}

/// What patches of built-in kinds are written in.
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// A request, as far as the form of its answer goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// The `Accept` header.
    pub(crate) accept: &'a str,
    pub(crate) user_agent: &'a str,
    pub(crate) query: &'a Query,
}

impl Wish<'_> {
    /// Checks the media types against those of the route, as upstream's router does before its handlers: it takes no
    /// `application/*`. Custom resources are not behind it.
    ///
    /// # Errors
    /// 406, 415
    pub(crate) fn check_route(&self, verb: &str, endpoint: Endpoint, content_type: &str) -> Result<()> {
        if endpoint.custom || !endpoint.known {
            return Ok(());
        }
        if verb == "patch" && endpoint.named && !PATCH_TYPES.contains(&without_parameters(content_type)) {
            return Err(ApiError::no_such_media_type());
        }
        if takes(self.accept, &Encoding::ALL) {
            return Ok(());
        }
        let mut types = Encoding::ALL.map(Encoding::media_type).join(", ");
        if matches!(verb, "list" | "watch") {
            types += ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
        }
        Err(ApiError::no_such_representation(&types))
    }

    /// The same of a path that is no resource and answers in these encodings.
    ///
    /// # Errors
    /// 406
    pub(crate) fn check_document(&self, encodings: &[Encoding]) -> Result<()> {
        if takes(self.accept, encodings) {
            return Ok(());
        }
        let types: Vec<&str> = encodings.iter().map(|e| e.media_type()).collect();
        Err(ApiError::no_such_representation(&types.join(", ")))
    }

    /// Picks the first range, in the order of quality, that can be served.
    ///
    /// # Errors
    /// 406; 400 for an unknown `includeObject`.
    pub(crate) fn negotiate(&self, endpoint: Endpoint) -> Result<Format> {
        // A watch answers in a form that lists have, too.
        let plain = Endpoint { watch: false, ..endpoint };
        self.pick(plain).ok_or_else(|| not_acceptable(plain))?;
        let mut format = self.pick(endpoint).ok_or_else(|| not_acceptable(endpoint))?;
        if let Shape::Table(include) = &mut format.shape {
            *include = include_object(self.query.get("includeObject").unwrap_or(""))?;
        }
        Ok(format)
    }

    /// The form of an error, which no transformation is for; `None` if none is accepted.
    pub(crate) fn of_error(&self) -> Option<Format> {
        self.pick(Endpoint::default())
    }

    fn pick(&self, endpoint: Endpoint) -> Option<Format> {
        let pretty = self.is_pretty();
        if self.accept.is_empty() {
            return Some(Format { pretty, ..Format::default() });
        }
        let served = |clause: &Clause<'_>| {
            Encoding::ALL.into_iter().find_map(|encoding| serve(clause, encoding, endpoint))
        };
        let format = accept::parse(self.accept).iter().find_map(served)?;
        Some(Format { pretty: format.pretty || pretty, ..format })
    }

    /// Whether a person reads the answer: they said so, or use a tool of people.
    fn is_pretty(&self) -> bool {
        match self.query.get("pretty") {
            Some(value) if !value.is_empty() => matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
            _ => ["curl", "Wget", "Mozilla/5.0"].iter().any(|tool| self.user_agent.starts_with(tool)),
        }
    }
}

fn without_parameters(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Whether one of the encodings is named, or any is taken.
fn takes(accept: &str, encodings: &[Encoding]) -> bool {
    accept.split(',').map(without_parameters).any(|clause| {
        clause.is_empty() || clause == "*/*" || encodings.iter().any(|e| e.media_type() == clause)
    })
}

fn serve(clause: &Clause<'_>, encoding: Encoding, endpoint: Endpoint) -> Option<Format> {
    let (kind, subtype) = encoding.media_type().split_once('/')?;
    if !clause.matches(kind, subtype) || (endpoint.watch && encoding == Encoding::Yaml) {
        return None;
    }
    let (mut target, mut pretty) = (None, false);
    for (name, value) in &clause.parameters {
        let (shape, group, version) = target.unwrap_or(("", "", ""));
        match *name {
            "as" => target = Some((*value, group, version)),
            "g" => target = Some((shape, *value, version)),
            "v" => target = Some((shape, group, *value)),
            "stream" if *value != "watch" || encoding == Encoding::Yaml => return None,
            "sv" => return None,
            "pretty" => pretty = *value == "1",
            _ => {}
        }
    }
    let (shape, meta_version) = match target {
        None if endpoint.custom && encoding == Encoding::Protobuf => return None,
        None => (Shape::Plain, META_V1),
        Some(_) if !endpoint.transforms => return None,
        Some((shape, "meta.k8s.io", version)) => {
            let version = match version {
                "v1" => META_V1,
                "v1beta1" => META_V1BETA1,
                _ => return None,
            };
            match shape {
                "Table" if encoding != Encoding::Protobuf => (Shape::Table(Include::Metadata), version),
                "PartialObjectMetadata" => (Shape::Partial, version),
                "PartialObjectMetadataList" => (Shape::PartialList, version),
                _ => return None,
            }
        }
        Some(_) => return None,
    };
    Some(Format { encoding, shape, meta_version, pretty })
}

fn include_object(value: &str) -> Result<Include> {
    match value {
        "" | "Metadata" => Ok(Include::Metadata),
        "None" => Ok(Include::None),
        "Object" => Ok(Include::Object),
        other => {
            let quoted = gantry_api::field::quote(other);
            Err(ApiError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {quoted}: must be 'Metadata', 'Object', 'None', or empty"
            )))
        }
    }
}

fn not_acceptable(endpoint: Endpoint) -> ApiError {
    let types = if endpoint.watch {
        "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    } else {
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    };
    ApiError::not_acceptable(format!("only the following media types are accepted: {types}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTS: Endpoint =
        Endpoint { transforms: true, custom: false, watch: false, known: true, named: true };

    fn of(accept: &str, endpoint: Endpoint) -> std::result::Result<(Encoding, Shape), i32> {
        let query = Query::default();
        let wish = Wish { accept, user_agent: "", query: &query };
        wish.negotiate(endpoint).map(|f| (f.encoding, f.shape)).map_err(|e| i32::from(e.code()))
    }

    #[test]
    fn the_first_range_that_can_be_served_wins() {
        use Encoding::{Json, Protobuf, Yaml};
        let custom = Endpoint { custom: true, ..OBJECTS };
        let watch = Endpoint { watch: true, ..OBJECTS };
        let table = Shape::Table(Include::Metadata);
        let client_go = "application/vnd.kubernetes.protobuf,application/json";
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        let both = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io";
        let rows = [
            ("", OBJECTS, Ok((Json, Shape::Plain))),
            (client_go, OBJECTS, Ok((Protobuf, Shape::Plain))),
            (client_go, watch, Ok((Protobuf, Shape::Plain))),
            (client_go, custom, Ok((Json, Shape::Plain))),
            ("application/vnd.kubernetes.protobuf", custom, Err(406)),
            ("application/vnd.kubernetes.protobuf;q=0.5,application/yaml", OBJECTS, Ok((Yaml, Shape::Plain))),
            ("application/yaml", watch, Err(406)),
            ("*/*", custom, Ok((Json, Shape::Plain))),
            ("application/*", watch, Ok((Json, Shape::Plain))),
            ("text/html,application/json;stream=watch", watch, Ok((Json, Shape::Plain))),
            ("text/html", OBJECTS, Err(406)),
            (kubectl, custom, Ok((Json, table))),
            (kubectl, Endpoint::default(), Ok((Json, Shape::Plain))),
            (metadata, custom, Ok((Protobuf, Shape::Partial))),
            // Rows have no protobuf.
            (both, OBJECTS, Ok((Json, table))),
            ("application/json;as=Rows;v=v1;g=meta.k8s.io", OBJECTS, Err(406)),
        ];
        for (accept, endpoint, wanted) in rows {
            assert_eq!(of(accept, endpoint), wanted, "{accept}");
        }
    }
}
