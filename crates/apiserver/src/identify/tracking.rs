//! Notes, in a ConfigMap, since when the uses of tokens that are kept in secrets have been noted: the cleaner of
//! such tokens waits for as long.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::core::ConfigMap;
use gantry_api::status::Result;
use gantry_base::{Clock, Tasks};

use crate::lookup::Lookup;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// How often it is looked whether the note is still there.
const INTERVAL: Duration = Duration::from_secs(1800);
/// How long to wait at first, for the namespace to be there, and after a failure: nothing hangs on the hour.
const RETRY: Duration = Duration::from_secs(30);

/// Sees to it until `tasks` end.
pub(super) fn start(lookup: Lookup, clock: Arc<dyn Clock>, tasks: &Tasks) {
    tasks.spawn("legacy token tracking", async move {
        tokio::time::sleep(RETRY).await;
        loop {
            let wait = match note(&lookup, &*clock).await {
                Ok(()) => INTERVAL,
                Err(error) => {
                    tracing::debug!(%error, "the start of legacy token tracking is not noted yet");
                    RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    });
}

async fn note(lookup: &Lookup, clock: &dyn Clock) -> Result<()> {
    let found = lookup.find::<ConfigMap>(NAMESPACE, NAME).await?;
    let is_date = |text: &String| text.parse::<jiff::civil::Date>().is_ok();
    if found.as_ref().and_then(|m| m.data.as_ref()?.get("since")).is_some_and(is_date) {
        return Ok(());
    }
    let today = jiff::Timestamp::try_from(clock.now()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let mut map = found.map(|map| (*map).clone()).unwrap_or_default();
    map.metadata.namespace = Some(NAMESPACE.to_owned());
    map.metadata.name = Some(NAME.to_owned());
    map.data.get_or_insert_default().insert("since".to_owned(), today.strftime("%Y-%m-%d").to_string());
    lookup.put(&map).await
}
