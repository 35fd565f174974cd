//! `/containerLogs`: a container's log, from where the client wants it, as long as the client wants it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_base::Tasks;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::query::Query;
use super::{Body, text};
use crate::engine::core::{Core, Door};
use crate::engine::observed::{RunState, Running};
use crate::logs::{self, Line};
use crate::pod;

/// How much of a file is read at once.
const BLOCK: usize = 64 * 1024;
/// Blocks that wait for a slow client; then reading waits.
const WAITING_BLOCKS: usize = 8;
/// How often a log that is followed is looked at.
const FOLLOW_PERIOD: Duration = Duration::from_millis(100);

/// What the client wants to see.
#[derive(Clone, Debug, Default)]
struct Wanted {
    follow: bool,
    timestamps: bool,
    tail: Option<usize>,
    limit: Option<u64>,
    since: Option<jiff::Timestamp>,
    stream: Option<bool>,
}

impl Wanted {
    fn of(query: &Query, now: jiff::Timestamp) -> Result<Self, String> {
        let number = |name: &str| -> Result<Option<u64>, String> {
            let Some(value) = query.get(name) else { return Ok(None) };
            value.parse().map(Some).map_err(|_| format!("invalid {name}: {value:?}"))
        };
        let mut since = match query.get("sinceTime") {
            Some(value) => Some(value.parse().map_err(|e| format!("invalid sinceTime: {e}"))?),
            None => None,
        };
        if let Some(seconds) = number("sinceSeconds")? {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            since = now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok();
        }
        Ok(Self {
            follow: query.is_set("follow"),
            timestamps: query.is_set("timestamps"),
            tail: number("tailLines")?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            limit: number("limitBytes")?,
            since,
            stream: match query.get("stream") {
                Some("Stdout") => Some(false),
                Some("Stderr") => Some(true),
                _ => None,
            },
        })
    }
}

/// Answers a request for the log of `container`.
pub async fn respond(
    core: &Arc<Core>,
    door: &Arc<Door>,
    container: &str,
    query: &Query,
    tasks: &Tasks,
) -> Response<Body> {
    let bad = |message: &str| text(StatusCode::BAD_REQUEST, message);
    let now = gantry_api::time::time(core.options.clock.now()).0;
    let wanted = match Wanted::of(query, now) {
        Ok(wanted) => wanted,
        Err(problem) => return bad(&problem),
    };
    let pod = door.inbox.borrow().pod.clone();
    let name = pod.metadata.name.clone().unwrap_or_default();
    if pod::find_container(&pod, container).is_none() {
        return text(StatusCode::NOT_FOUND, &format!("container {container:?} not found in pod {name:?}"));
    }
    let record = match choose(door, container, &name, query.is_set("previous")) {
        Ok(record) => record,
        Err(problem) => return bad(&problem),
    };
    let path = PathBuf::from(&record.log_path);
    let file = match File::open(&path) {
        Ok(file) => Some(file),
        // The runtime makes the file a moment after the start.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && wanted.follow => None,
        Err(error) => {
            let message =
                format!("failed to try resolving symlinks in path {:?}: {error}", path.display().to_string());
            return bad(&message);
        }
    };
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(WAITING_BLOCKS);
    let reader =
        Reader { door: door.clone(), id: record.id.clone(), path, wanted, out: sender, sent: 0, whole: true };
    tasks.spawn("container log", async move { reader.run(file).await });
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}

/// The container whose log is meant.
fn choose(door: &Door, container: &str, pod: &str, previous: bool) -> Result<Running, String> {
    let seen = door.seen.read().clone();
    let mut records = seen.containers.iter().filter(|c| c.name == container);
    let place = format!("container {container:?} in pod {pod:?}");
    if previous {
        let mut older =
            records.skip(usize::from(seen.latest(container).is_some_and(|c| c.state != RunState::Created)));
        let found = older.find(|c| c.state == RunState::Exited).cloned();
        return found.ok_or_else(|| format!("previous terminated {place} not found"));
    }
    if let Some(record) = records.find(|c| c.state != RunState::Created) {
        return Ok(record.clone());
    }
    let order = door.inbox.borrow().clone();
    let status = pod::status(&order.pod);
    let all =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let own = all.into_iter().flatten().flatten().find(|s| s.name == container);
    let waiting = own.and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
    Err(match waiting.as_deref() {
        Some("ErrImagePull") => format!("{place} is waiting to start: image can't be pulled"),
        Some("ImagePullBackOff") => format!("{place} is waiting to start: trying and failing to pull image"),
        Some(reason) => format!("{place} is waiting to start: {reason}"),
        None => format!("{place} is not available"),
    })
}

struct Reader {
    door: Arc<Door>,
    id: String,
    path: PathBuf,
    wanted: Wanted,
    out: mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>,
    sent: u64,
    /// Whether the last line that was sent was whole.
    whole: bool,
}

impl Reader {
    async fn run(mut self, file: Option<File>) {
        if let Err(error) = self.copy(file).await {
            tracing::debug!(%error, path = %self.path.display(), "a log ended early");
        }
    }

    async fn copy(&mut self, file: Option<File>) -> std::io::Result<()> {
        let mut file = file;
        if let (Some(file), Some(tail)) = (&mut file, self.wanted.tail) {
            let from = logs::tail_offset(file, tail)?;
            file.seek(SeekFrom::Start(from))?;
        }
        let mut pending: Vec<u8> = Vec::new();
        loop {
            // Asked before the read: what is written until the end is then read.
            let alive = self.is_alive();
            let Some(open) = file.as_mut() else {
                if !alive {
                    return Ok(());
                }
                tokio::time::sleep(FOLLOW_PERIOD).await;
                file = File::open(&self.path).ok();
                continue;
            };
            let mut block = vec![0; BLOCK];
            let count = open.read(&mut block)?;
            if count > 0 {
                pending.extend_from_slice(&block[..count]);
                if !self.send_lines(&mut pending).await {
                    return Ok(());
                }
                continue;
            }
            if !self.wanted.follow || (!alive && !rotated(open, &self.path)) {
                return Ok(());
            }
            if rotated(open, &self.path) {
                file = File::open(&self.path).ok();
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_PERIOD) => {}
                () = self.out.closed() => return Ok(()),
            }
        }
    }

    fn is_alive(&self) -> bool {
        let seen = self.door.seen.read();
        seen.containers.iter().any(|c| c.id == self.id && c.state != RunState::Exited)
    }

    /// Sends all whole lines; false when there is nothing more to send.
    async fn send_lines(&mut self, pending: &mut Vec<u8>) -> bool {
        let Some(end) = pending.iter().rposition(|b| *b == b'\n') else { return true };
        let rest = pending.split_off(end + 1);
        let lines = std::mem::replace(pending, rest);
        let mut out = Vec::with_capacity(lines.len());
        for line in lines.split(|b| *b == b'\n').filter_map(logs::parse) {
            self.render(&line, &mut out);
        }
        if let Some(limit) = self.wanted.limit {
            let left = usize::try_from(limit.saturating_sub(self.sent)).unwrap_or(usize::MAX);
            out.truncate(left);
        }
        self.sent += out.len() as u64;
        let full = self.wanted.limit.is_some_and(|limit| self.sent >= limit);
        if !out.is_empty() && self.out.send(Ok(Frame::data(Bytes::from(out)))).await.is_err() {
            return false;
        }
        !full
    }

    fn render(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        if self.wanted.stream.is_some_and(|stderr| stderr != line.stderr) {
            return;
        }
        if let Some(since) = self.wanted.since
            && line.time.parse::<jiff::Timestamp>().is_ok_and(|t| t < since)
        {
            return;
        }
        if self.wanted.timestamps && self.whole {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.whole = !line.partial;
    }
}

/// Whether the file at `path` is another one than the open one.
fn rotated(open: &File, path: &Path) -> bool {
    match (open.metadata(), std::fs::metadata(path)) {
        (Ok(own), Ok(there)) => own.ino() != there.ino(),
        _ => false,
    }
}
