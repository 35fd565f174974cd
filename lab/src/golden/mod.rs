//! Golden fixtures: requests, and what an API server answered.
//!
//! A fixture is one JSON file in `lab/golden`: a few requests in order, in a namespace of their own. A request has
//! one answer, or a table of rows, each a change (a merge patch) of its body that is tried as a dry run. The answers
//! are part of the file: recorded from one server, compared with another. What differs between any two runs (UIDs,
//! times, revisions, cluster addresses, ages) is replaced by placeholders.

mod fixture;
mod normal;
mod replay;

pub use fixture::{Answer, Fixture, Row, RowAnswer, Step, all, folder};
pub use normal::{Names, normal, settled};
pub use replay::{Https, Raw, Sent, Server, differences, replay};

/// The user agent of all requests, hence the manager of all fields.
pub const AGENT: &str = "golden/1";
