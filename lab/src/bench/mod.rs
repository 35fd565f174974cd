//! The performance rows that one machine can measure. They print figures and assert nothing: what counts is the
//! server's CPU time per operation and the ratio to a peer measured in the same run; absolute times depend on the
//! machine, and the load generator shares its cores.

mod admission;
mod allocations;
mod apply;
mod crds;
mod figures;
mod form;
mod idle;
mod list;
mod load;
mod memory;
mod objects;
mod process;
mod server;
mod start;
mod watch;
mod writes;

use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;

pub use figures::{HEADER, Line};

/// How long one row may take.
const ROW_LIMIT: Duration = Duration::from_secs(300);

/// A row: its number and goal are those of the project's list of performance goals; rows with a letter are of
/// goals that are not in that list.
pub struct Row {
    /// Its number in the list, or its letter.
    pub number: &'static str,
    /// What it is called on the command line.
    pub name: &'static str,
    run: fn() -> BoxFuture<'static, anyhow::Result<Vec<Line>>>,
}

/// Every row, in order.
pub const ROWS: [Row; 10] = [
    Row { number: "1", name: "start", run: || Box::pin(start::run()) },
    Row { number: "2", name: "idle", run: || Box::pin(idle::run()) },
    Row { number: "3", name: "memory", run: || Box::pin(memory::run()) },
    Row { number: "6", name: "writes", run: || Box::pin(writes::run()) },
    Row { number: "7", name: "list", run: || Box::pin(list::run()) },
    Row { number: "8", name: "watch", run: || Box::pin(watch::run()) },
    Row { number: "a", name: "admission", run: || Box::pin(admission::run()) },
    Row { number: "b", name: "apply", run: || Box::pin(apply::run()) },
    Row { number: "c", name: "crds", run: || Box::pin(crds::run()) },
    Row { number: "d", name: "allocations", run: || Box::pin(allocations::run()) },
];

impl Row {
    /// Measures.
    ///
    /// # Errors
    /// A server does not start or refuses a request, or the row takes longer than its limit.
    pub async fn measure(&self) -> anyhow::Result<Vec<Line>> {
        let measured = tokio::time::timeout(ROW_LIMIT, (self.run)()).await;
        measured.with_context(|| format!("row {} took longer than {ROW_LIMIT:?}", self.name))?
    }
}
