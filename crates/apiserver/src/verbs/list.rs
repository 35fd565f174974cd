//! GET of a collection: from the watch cache, or page by page from the store's history.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_api::metav1::ListMeta;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded};
use gantry_store::{RangeRequest, StoreError};
use serde::{Deserialize, Serialize};

use super::Call;
use crate::cache::{Entry, Selection, metrics};
use crate::limits::RANGE_CHUNK;
use crate::query::{ListOptions, VersionMatch};

/// A page.
#[derive(Clone)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) revision: u64,
    pub(crate) continue_token: String,
    pub(crate) remaining: Option<u64>,
}

/// Where a list goes on: upstream's token.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// Reads a page of what the options pick.
///
/// # Errors
/// 410 if the revision or token is too old, 504 if the revision lies in the future, 400 for what makes no sense.
pub(crate) async fn list(call: &Call<'_>, options: &ListOptions) -> Result<Page> {
    options.validate(false)?;
    let selection = selection(call, options)?;
    if call.served.converter().is_none() {
        return select(call, options, selection).await;
    }
    // What the fields of this version are, only the webhook knows.
    let coarse = selection.of_any_version();
    let limit = if coarse.is_some() { 0 } else { options.limit };
    let options = ListOptions { limit, ..options.clone() };
    let mut page = select(call, &options, coarse.unwrap_or_else(|| selection.clone())).await?;
    page.entries = call.served.translated(&call.core.callout, page.entries).await?;
    page.entries.retain(|entry| selection.matches(entry));
    Ok(page)
}

async fn select(call: &Call<'_>, options: &ListOptions, selection: Selection) -> Result<Page> {
    if !options.continue_token.is_empty() {
        return proceed(call, options, &selection).await;
    }
    let exact = options.version_match == Some(VersionMatch::Exact)
        || (options.version_match.is_none() && options.limit > 0 && options.revision.is_some_and(|r| r > 0));
    match options.revision {
        None => {
            let since = call.core.clock.monotonic();
            let fresh = call.stored(call.core.hub.catch_up()).await;
            let waited = call.core.clock.monotonic().saturating_sub(since);
            metrics::consistent_read(call.served.entry.storage.resource(), waited, fresh.is_ok());
            fresh?;
        }
        Some(0) => {}
        Some(revision) => call.core.hub.wait_for(revision).await?,
    }
    if exact {
        return page(call, &selection, options.limit, None, options.revision).await;
    }
    // Who takes any revision gets all at once: upstream's watch cache has no pages.
    let limit = if options.revision == Some(0) { 0 } else { options.limit };
    match from_cache(call, &selection, limit) {
        Ok(page) => Ok(page),
        // What cannot be read may be none of what is asked for: the store knows, and says what is wrong.
        Err(_) => page(call, &selection, limit, None, None).await,
    }
}

/// What the options of a list or watch pick. A name in the path is one more term.
///
/// # Errors
/// 400 for fields that cannot be selected by, or that contradict the name.
pub(crate) fn selection(call: &Call<'_>, options: &ListOptions) -> Result<Selection> {
    let (kind, storage) = (&*call.served.kind, &*call.served.entry.storage);
    let selection = Selection::new(kind, storage, call.namespace, &options.labels, &options.fields)?;
    let contradicts = !options.fields.is_everything() && selection.name() != Some(call.name);
    if !call.name.is_empty() && contradicts {
        return Err(ApiError::bad_request("fieldSelector metadata.name doesn't match requested name"));
    }
    Ok(selection.named(call.name))
}

fn from_cache(call: &Call<'_>, selection: &Selection, limit: usize) -> Result<Page> {
    let cache = &call.served.entry.cache;
    let snapshot = cache.snapshot(selection, limit, None)?;
    let continue_token = match snapshot.entries.last().filter(|_| snapshot.more) {
        Some(last) => token(&cache.range_prefix(selection), &last.key, signed(snapshot.revision)),
        None => String::new(),
    };
    let remaining = (snapshot.more && !selection.is_selective()).then_some(snapshot.remaining);
    metrics::listed(call.served.entry.storage.resource(), snapshot.looked_at, snapshot.entries.len());
    Ok(Page { entries: snapshot.entries, revision: snapshot.revision, continue_token, remaining })
}

async fn proceed(call: &Call<'_>, options: &ListOptions, selection: &Selection) -> Result<Page> {
    let prefix = call.served.entry.cache.range_prefix(selection);
    let (start, revision) = read_token(&options.continue_token, &prefix)?;
    if options.revision.is_some_and(|r| r != 0) {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    let at = u64::try_from(revision).ok();
    match page(call, selection, options.limit, Some(&start), at).await {
        Err(error) if error.is_expired() => Err(expired_token(&prefix, &start)),
        answer => answer,
    }
}

/// Fills a page from the store, as of `at` (now if `None`).
async fn page(
    call: &Call<'_>,
    selection: &Selection,
    limit: usize,
    start: Option<&str>,
    at: Option<u64>,
) -> Result<Page> {
    let cache = &call.served.entry.cache;
    let prefix = cache.range_prefix(selection);
    let wanted = if limit == 0 { usize::MAX } else { limit };
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    let mut after: Option<String> = start.map(str::to_owned);
    let mut at = at;
    let names = call.served.entry.storage.resource();
    let mut fetched = 0;
    loop {
        let chunk = if selection.is_selective() { RANGE_CHUNK } else { wanted.min(RANGE_CHUNK) };
        let request = RangeRequest { prefix: &prefix, start_after: after.as_deref(), limit: chunk, at };
        let range = match call.stored(call.core.store.range(request)).await {
            Err(StoreError::Compacted { .. }) => {
                return Err(ApiError::expired("The resourceVersion for the provided list is too old."));
            }
            other => other.map_err(crate::errors::store)?,
        };
        at = Some(range.revision);
        let count = range.items.len();
        fetched += count;
        for (i, kv) in range.items.into_iter().enumerate() {
            let encoded = Arc::new(Encoded::new(kv.value, kv.modified));
            let entry = Entry::new(kv.key.clone(), cache.prefix.len(), encoded, &*cache.kind);
            after = Some(kv.key.to_string());
            if selection.matches(&entry) {
                entries.push(Arc::new(entry));
            }
            if entries.len() == wanted {
                let rest = range.remaining + (count - i - 1) as u64;
                let continue_token =
                    if rest > 0 { token(&prefix, &kv.key, signed(range.revision)) } else { String::new() };
                let remaining = (rest > 0 && !selection.is_selective()).then_some(rest);
                crate::metrics::listed(&names.group, &names.plural, fetched, entries.len());
                return Ok(Page { entries, revision: range.revision, continue_token, remaining });
            }
        }
        if !range.more {
            crate::metrics::listed(&names.group, &names.plural, fetched, entries.len());
            let continue_token = String::new();
            return Ok(Page { entries, revision: range.revision, continue_token, remaining: None });
        }
    }
}

fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

pub(crate) fn token(prefix: &str, last_key: &str, revision: i64) -> String {
    let start = format!("{}\0", last_key.strip_prefix(prefix).unwrap_or(last_key));
    let token = Token { v: TOKEN_VERSION.into(), rv: revision, start };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

/// The key after which to go on, and the revision (negative: now).
pub(crate) fn read_token(text: &str, prefix: &str) -> Result<(String, i64)> {
    let bad = |why: &str| {
        ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
    };
    let illegal = |e: base64::DecodeError| match e {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
            bad(&format!("illegal base64 data at input byte {at}"))
        }
        _ => bad(&format!("illegal base64 data at input byte {}", text.len())),
    };
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(illegal)?;
    let wrong = |e: serde_json::Error| bad(&super::decode::parse_error(&e, &bytes));
    let token: Token = serde_json::from_slice(&bytes).map_err(wrong)?;
    if token.v != TOKEN_VERSION {
        return Err(bad(&format!("server does not recognize this encoded version {}", token.v)));
    }
    if token.rv == 0 {
        return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
    }
    if token.start.is_empty() {
        return Err(bad("encoded start key empty (version meta.k8s.io/v1)"));
    }
    let path = token.start.strip_prefix('/').unwrap_or(&token.start);
    // Nothing outside the collection can be reached.
    if path.split('/').any(|part| matches!(part, "." | ".." | "")) {
        return Err(bad(&token.start));
    }
    Ok((format!("{prefix}{}", path.trim_end_matches('\0')), token.rv))
}

/// 410, with a token that goes on at the present state.
fn expired_token(prefix: &str, start: &str) -> ApiError {
    const MESSAGE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
    let mut status = ApiError::expired(MESSAGE).status().clone();
    let metadata = ListMeta { continue_: Some(token(prefix, start, -1)), ..ListMeta::default() };
    status.metadata = metadata;
    ApiError::from_status(status)
}
