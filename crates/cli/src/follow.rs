//! Waiting for what becomes of one object: a read, then its events, then again if the watch breaks.

use std::ops::ControlFlow;
use std::time::Duration;

use futures::StreamExt;
use gantry_base::{Class, Clock, SystemClock};
use gantry_client::https::{Request, query};
use serde_json::Value;

use crate::error::{CliError, Result};
use crate::options::Session;
use crate::select::{self, Target};

/// How long to wait before a broken watch is begun again.
const PAUSE: Duration = Duration::from_millis(250);

/// Why waiting came to an end.
#[derive(Debug)]
pub(crate) enum Ended<T> {
    /// The condition was met.
    Met(T),
    /// The time was over.
    TimedOut,
}

/// Shows `judge` every state of a named object (`None`: it is not there) until it breaks, or `patience` is over.
pub(crate) async fn follow<T>(
    session: &Session,
    target: &Target,
    patience: Option<Duration>,
    judge: impl FnMut(Option<&Value>) -> Result<ControlFlow<T>>,
) -> Result<Ended<T>> {
    match patience {
        Some(limit) => match tokio::time::timeout(limit, forever(session, target, judge)).await {
            Ok(result) => result.map(Ended::Met),
            Err(_) => Ok(Ended::TimedOut),
        },
        None => forever(session, target, judge).await.map(Ended::Met),
    }
}

async fn forever<T>(
    session: &Session,
    target: &Target,
    mut judge: impl FnMut(Option<&Value>) -> Result<ControlFlow<T>>,
) -> Result<T> {
    loop {
        if let ControlFlow::Break(result) = once(session, target, &mut judge).await? {
            return Ok(result);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One read and one watch; `Continue` when the watch ends.
async fn once<T>(
    session: &Session,
    target: &Target,
    judge: &mut impl FnMut(Option<&Value>) -> Result<ControlFlow<T>>,
) -> Result<ControlFlow<T>> {
    let by_name = ("fieldSelector", format!("metadata.name={}", target.name()));
    let path = target.collection_path();
    let list = select::read(session, &format!("{path}{}", query(std::slice::from_ref(&by_name)))).await?;
    let state = list["items"].get(0);
    if let ControlFlow::Break(result) = judge(state)? {
        return Ok(ControlFlow::Break(result));
    }
    let from = list["metadata"]["resourceVersion"].as_str().unwrap_or("").to_owned();
    let pairs = [by_name, ("watch", "true".to_owned()), ("resourceVersion", from)];
    let mut frames = match session.client.watch_frames(Request::get(format!("{path}{}", query(&pairs)))).await
    {
        Ok(frames) => frames,
        Err(error) if passing(&error) => return Ok(ControlFlow::Continue(())),
        Err(error) => return Err(error.into()),
    };
    while let Some(batch) = frames.next().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) if passing(&error) => break,
            Err(error) => return Err(error.into()),
        };
        for frame in batch {
            let object = select::json(&frame.object)?;
            let verdict = match frame.kind.as_str() {
                "BOOKMARK" => continue,
                "DELETED" => judge(None)?,
                _ => judge(Some(&object))?,
            };
            if verdict.is_break() {
                return Ok(verdict);
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn passing(error: &gantry_api::ApiError) -> bool {
    error.is_expired() || error.class() == Class::Retry
}

/// What is left of a patience that several waits share.
pub(crate) struct Patience {
    end: Option<Duration>,
    clock: SystemClock,
}

impl Patience {
    /// From now on; `None` for ever.
    pub(crate) fn new(session: &Session, limit: Option<Duration>) -> Self {
        let clock = session.clock;
        Self { end: limit.map(|l| clock.monotonic() + l), clock }
    }

    /// How much is left; `None` for ever.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_sub(self.clock.monotonic()))
    }
}

/// The error of a wait that took too long.
pub(crate) fn timed_out(target: &Target) -> CliError {
    CliError::message(format!(
        "timed out waiting for the condition on {}/{}",
        target.found.resource.plural,
        target.name()
    ))
}
