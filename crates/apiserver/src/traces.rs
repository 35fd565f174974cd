//! Traces of the API server: which requests, under which names, and where they go (`TracingConfiguration`, KEP-647).
//!
//! Spans are named as upstream names them. A client's `traceparent` is followed only if the client is trusted
//! (`system:masters`, `system:monitoring`); others' traces are only linked to.

use std::path::Path;

use gantry_api::field::{Error as Fault, Path as FieldPath};
use gantry_base::trace::{self, Context, Kind, Options, Protocol, Span, Value};
use gantry_base::{Error, Result};
use http::header::USER_AGENT;
use http::{HeaderMap, Request, Response};
use serde::Deserialize;

use crate::identify::{MASTERS, User};
use crate::pipeline::header;
use crate::route::RequestInfo;
use crate::serve::Body;

/// The group of those who look after the cluster.
const MONITORING: &str = "system:monitoring";
/// Where OpenTelemetry's collectors listen.
const DEFAULT_ENDPOINT: &str = "localhost:4317";
const MILLION: i64 = 1_000_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    endpoint: Option<String>,
    #[serde(default)]
    sampling_rate_per_million: Option<i64>,
}

/// Where traces go: as `file` says (a TracingConfiguration), else as OpenTelemetry's variables do; `None` if neither
/// says anything.
///
/// # Errors
/// The file or a variable cannot be understood.
pub fn options(file: Option<&Path>, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Options>> {
    let told = |name: &str| variable(name).filter(|text| !text.is_empty());
    let service = told("OTEL_SERVICE_NAME").unwrap_or_else(|| "apiserver".to_owned());
    let resource = vec![("service.name", Value::from(service))];
    if let Some(file) = file {
        let doing = || format!("--tracing-config-file {}", file.display());
        let text = std::fs::read_to_string(file).map_err(|e| Error::from(e).while_doing(doing()))?;
        let (endpoint, per_million) =
            configured(&text).map_err(|why| Error::invalid(format!("{}: {why}", doing())))?;
        return Ok(Some(Options { endpoint, protocol: Protocol::Grpc, per_million, resource }));
    }
    let endpoint = told("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| told("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let Some(endpoint) = endpoint else { return Ok(None) };
    let protocol = told("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| told("OTEL_EXPORTER_OTLP_PROTOCOL"));
    let protocol = match protocol.as_deref() {
        None | Some("grpc") => Protocol::Grpc,
        Some("http/protobuf") => Protocol::Http,
        Some(other) => {
            let why = "it is grpc or http/protobuf";
            return Err(Error::invalid(format!("OTEL_EXPORTER_OTLP_PROTOCOL {other:?}: {why}")));
        }
    };
    let per_million = match told("OTEL_TRACES_SAMPLER_ARG") {
        None => MILLION,
        Some(text) => match text.parse::<f64>() {
            #[expect(clippy::cast_possible_truncation, reason = "between 0 and a million")]
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => (ratio * MILLION as f64) as i64,
            _ => {
                let why = "it is a share between 0 and 1";
                return Err(Error::invalid(format!("OTEL_TRACES_SAMPLER_ARG {text:?}: {why}")));
            }
        },
    };
    let per_million = u32::try_from(per_million).unwrap_or(0);
    Ok(Some(Options { endpoint, protocol, per_million, resource }))
}

/// Endpoint and rate of a TracingConfiguration.
fn configured(text: &str) -> std::result::Result<(String, u32), String> {
    const VERSIONS: [&str; 3] =
        ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
    let configuration: Configuration = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let Configuration { api_version, kind, endpoint, sampling_rate_per_million } = configuration;
    if kind != "TracingConfiguration" || !VERSIONS.contains(&api_version.as_str()) {
        return Err(format!("no kind {kind:?} is registered for version {api_version:?}"));
    }
    let path = FieldPath::new("samplingRatePerMillion");
    let rate = sampling_rate_per_million.unwrap_or(0);
    let why = match rate {
        ..0 => "sampling rate must be positive",
        0..=MILLION => "",
        _ => "sampling rate per million must be less than or equal to one million",
    };
    if !why.is_empty() {
        return Err(Fault::invalid(&path, rate, why).to_string());
    }
    let endpoint = endpoint.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    Ok((endpoint, u32::try_from(rate).unwrap_or(0)))
}

/// The span of a request by this user.
pub(crate) fn request(user: &User, info: &RequestInfo, request: &Request<Body>) -> Span {
    if !trace::enabled() {
        return Span::default();
    }
    let parent = Context::parse(header(request.headers(), "traceparent"));
    let trusted = user.is_in(MASTERS) || user.is_in(MONITORING);
    let mut span = trace::root(|| name(request, info).into(), Kind::Server, parent, trusted);
    if span.is_recording() {
        span.set("http.method", request.method().to_string());
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        span.set("http.target", target.to_owned());
        span.set("user_agent.original", header(request.headers(), USER_AGENT.as_str()).to_owned());
        span.set("k8s.verb", info.verb);
    }
    span
}

/// Upstream's `getSpanNameFromRequestInfo`: the route, without names.
fn name(request: &Request<Body>, info: &RequestInfo) -> String {
    let mut name = request.method().to_string();
    if !info.is_resource {
        return name;
    }
    name.push_str(if info.group.is_empty() { " /api" } else { " /apis/" });
    name.push_str(&info.group);
    let mut part = |text: &str| {
        name.push('/');
        name.push_str(text);
    };
    part(&info.version);
    if !info.namespace.is_empty() {
        part("namespaces/{:namespace}");
    }
    part(&info.resource);
    if !info.name.is_empty() {
        part("{:name}");
    }
    if !info.subresource.is_empty() {
        part(&info.subresource);
    }
    name
}

/// The request has its answer.
pub(crate) fn answered(span: &mut Span, answer: &gantry_api::status::Result<Response<Body>>) {
    if !span.is_recording() {
        return;
    }
    let code = match answer {
        Ok(response) => response.status().as_u16(),
        Err(error) => error.code(),
    };
    span.set("http.status_code", i64::from(code));
    if code >= 500 {
        span.fail(match answer {
            Ok(_) => String::new(),
            Err(error) => error.message().to_owned(),
        });
    }
}

/// Tells whom we call which span calls.
pub(crate) fn inject(headers: &mut HeaderMap) {
    if let Some(value) = trace::traceparent().and_then(|text| text.parse().ok()) {
        headers.insert("traceparent", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_says_where_and_how_many() {
        let of = |rest: &str| {
            configured(&format!("apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n{rest}"))
        };
        assert_eq!(of(""), Ok(("localhost:4317".to_owned(), 0)));
        assert_eq!(of("endpoint: a:1\nsamplingRatePerMillion: 7"), Ok(("a:1".to_owned(), 7)));
        let too_many = of("samplingRatePerMillion: 1000001").expect_err("too many");
        assert!(too_many.starts_with("samplingRatePerMillion: Invalid value: 1000001"), "{too_many}");
        assert!(of("samplingRatePerMillion: -1").expect_err("negative").ends_with("must be positive"));
        assert!(of("port: 1").is_err());
        assert!(configured("apiVersion: v1\nkind: Pod").is_err());
    }

    #[test]
    fn variables_say_it_too() {
        let of = |pairs: &'static [(&str, &str)]| {
            let get = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            options(None, get)
        };
        assert_eq!(of(&[]).expect("understood"), None);
        let some = of(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ]);
        let some = some.expect("understood").expect("options");
        assert_eq!(
            (some.endpoint.as_str(), some.protocol, some.per_million),
            ("http://c:4318", Protocol::Http, 1_000_000)
        );
        assert!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:1"), ("OTEL_TRACES_SAMPLER_ARG", "2")]).is_err());
    }
}
