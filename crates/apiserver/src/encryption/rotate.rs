//! Writes anew what is not sealed with the first key.

use gantry_base::{Error, Result};
use gantry_store::{Batch, Expect, Op, RangeRequest, Store as _, StoreError};

use super::sealer::Sealer;
use super::store::EncryptedStore;

/// How many values are read at once.
const PAGE: usize = 500;

/// What [`reseal`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotated {
    /// Values that were written anew.
    pub written: u64,
    /// Values under a rule, all in all.
    pub covered: u64,
}

/// Writes each value that is under a rule and not written as its first provider writes: with an older key, or not
/// sealed at all. Values that somebody else writes meanwhile are sealed by that.
///
/// # Errors
/// A value that no key opens, or the store's.
pub async fn reseal(store: &EncryptedStore) -> Result<Rotated> {
    let sealer = store.sealer();
    let mut done = Rotated::default();
    for prefix in sealer.prefixes() {
        reseal_below(store, &sealer, &prefix, &mut done).await?;
    }
    Ok(done)
}

async fn reseal_below(
    store: &EncryptedStore,
    sealer: &Sealer,
    prefix: &str,
    done: &mut Rotated,
) -> Result<()> {
    let mut after: Option<gantry_store::Key> = None;
    loop {
        let request =
            RangeRequest { start_after: after.as_deref(), limit: PAGE, ..RangeRequest::all(prefix) };
        let page = store.inner().range(request).await.map_err(Error::from)?;
        for item in page.items.iter().filter(|item| sealer.covers(&item.key)) {
            done.covered += 1;
            if sealer.is_current(&item.key, &item.value) {
                continue;
            }
            let plain = sealer.open(&item.key, &item.value, item.modified).await?;
            let op = Op::Put {
                key: item.key.clone(),
                value: crate::splice::unstamped(&plain),
                expect: Expect::At(item.modified),
            };
            match store.commit(Batch::durable(vec![op])).await {
                Ok(_) => done.written += 1,
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        after = page.items.last().map(|item| item.key.clone());
        if !page.more || after.is_none() {
            return Ok(());
        }
    }
}
