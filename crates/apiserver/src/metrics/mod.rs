//! Metrics of the API server: what `/metrics` and `/metrics/slis` say, under upstream's names.
//!
//! Each module declares its families beside what it counts; this one lists them.

mod body;
mod collect;
mod inflight;
mod notes;
mod request;
mod storage;

use gantry_base::metrics::{Encoder, Format, encode, register};
use http::HeaderMap;
use http::header::ACCEPT;

pub(crate) use notes::{admitted, exclude, terminated};
pub(crate) use request::{Tracked, body_size, deprecated, filter, seated, tls_failed, watch_list};
pub(crate) use storage::{Timed, listed, place};

use crate::core::Core;
use crate::pipeline::header;

/// The part that the families belong to.
const PART: &str = "apiserver";

/// Lists all families of this crate.
pub(crate) fn register_all() {
    for families in [
        request::FAMILIES,
        inflight::FAMILIES,
        storage::FAMILIES,
        collect::FAMILIES,
        crate::cache::metrics::FAMILIES,
        crate::identify::metrics::FAMILIES,
        crate::authorize::metrics::FAMILIES,
        crate::admission::metrics::FAMILIES,
        crate::aggregate::metrics::FAMILIES,
        crate::custom::metrics::FAMILIES,
        crate::encryption::metrics::FAMILIES,
        crate::fairness::metrics::FAMILIES,
        crate::audit::metrics::FAMILIES,
        crate::health::FAMILIES,
        crate::reach::metrics::FAMILIES,
        crate::pki::foreign::FAMILIES,
    ] {
        register(PART, families);
    }
}

/// The metrics of the process as the client wants them, and their media type. The kubelet has a server of its own.
pub(crate) fn page(core: &Core, headers: &HeaderMap) -> (String, &'static str) {
    let format = Format::preferred(header(headers, ACCEPT.as_str()));
    let text = encode(
        format,
        |part| !matches!(part, "kubelet" | "slis"),
        |out| {
            inflight::collect(&*core.clock, out);
            collect::collect(core, out);
        },
    );
    (text, format.content_type())
}

/// The service levels alone: how the health checks went.
pub(crate) fn slis(headers: &HeaderMap) -> (String, &'static str) {
    let format = Format::preferred(header(headers, ACCEPT.as_str()));
    let mut out = Encoder::new(format);
    crate::health::encode(&mut out);
    (out.finish(), format.content_type())
}
