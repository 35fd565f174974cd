//! Spans under way.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;

use super::{Context, DROPPED, MAX_ATTRIBUTES};
use crate::Clock;

/// What kind of work a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Inside of the process.
    Internal = 1,
    /// A request that somebody sent us.
    Server = 2,
    /// A request that we send.
    Client = 3,
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// What is sent of a span.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) context: Context,
    /// 0 for the first of a trace.
    pub(super) parent: u64,
    /// A span of another trace that led to this one.
    pub(super) link: Option<Context>,
    pub(super) name: Cow<'static, str>,
    pub(super) kind: Kind,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    /// What went wrong, if something did.
    pub(super) error: Option<String>,
}

/// Decides what is traced and takes what is finished.
pub(super) struct Tracer {
    pub(super) clock: Arc<dyn Clock>,
    /// Traces whose lower 63 bits are below this are sampled.
    pub(super) threshold: u64,
    pub(super) queue: mpsc::Sender<Finished>,
}

static ENABLED: AtomicBool = AtomicBool::new(false);
static TRACER: ArcSwapOption<Tracer> = ArcSwapOption::const_empty();

tokio::task_local! {
    static CURRENT: Cell<Option<Context>>;
}

pub(super) fn install(tracer: Option<Arc<Tracer>>) {
    ENABLED.store(tracer.is_some(), Ordering::Relaxed);
    TRACER.store(tracer);
}

/// Whether anything is traced.
pub fn enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// The span that this task is in; `None` if it is not traced.
pub fn current() -> Option<Context> {
    if !enabled() {
        return None;
    }
    CURRENT.try_with(Cell::get).ok().flatten()
}

/// The header that tells others which span asks them.
pub fn traceparent() -> Option<String> {
    current().map(|context| context.to_string())
}

/// A span; what it says is sent when it is dropped. One that is not sampled says nothing and costs nothing, but is
/// handed on, so that others do not sample it either.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Active>>);

#[derive(Debug)]
struct Active {
    tracer: ByIdentity,
    began: Duration,
    span: Finished,
}

struct ByIdentity(Arc<Tracer>);

impl std::fmt::Debug for ByIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tracer")
    }
}

impl Span {
    fn new(
        tracer: Arc<Tracer>,
        context: Context,
        parent: u64,
        name: impl FnOnce() -> Cow<'static, str>,
        kind: Kind,
    ) -> Self {
        let (name, attributes) =
            if context.sampled { (name(), Vec::with_capacity(8)) } else { ("".into(), Vec::new()) };
        let start = nanos(tracer.clock.now());
        let began = tracer.clock.monotonic();
        let span =
            Finished { context, parent, link: None, name, kind, start, end: 0, attributes, error: None };
        Self(Some(Box::new(Active { tracer: ByIdentity(tracer), began, span })))
    }

    /// Whether it will be sent: only then is it worth to think of attributes.
    pub fn is_recording(&self) -> bool {
        self.0.as_ref().is_some_and(|active| active.span.context.sampled)
    }

    /// Notes something.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(active) = self.0.as_mut().filter(|a| a.span.context.sampled)
            && active.span.attributes.len() < MAX_ATTRIBUTES
        {
            active.span.attributes.push((key, value.into()));
        }
    }

    /// Something went wrong.
    pub fn fail(&mut self, why: impl Into<String>) {
        if let Some(active) = self.0.as_mut().filter(|a| a.span.context.sampled) {
            active.span.error = Some(why.into());
        }
    }

    /// It began so long ago.
    pub fn began_before(&mut self, ago: Duration) {
        if let Some(active) = &mut self.0 {
            active.began = active.began.saturating_sub(ago);
            active.span.start = active.span.start.saturating_sub(whole(ago));
        }
    }

    /// Where it stands.
    pub fn context(&self) -> Option<Context> {
        self.0.as_ref().map(|active| active.span.context)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(active) = self.0.take().filter(|a| a.span.context.sampled) else { return };
        let Active { tracer: ByIdentity(tracer), began, mut span } = *active;
        span.end = span.start + whole(tracer.clock.monotonic().saturating_sub(began));
        if tracer.queue.try_send(span).is_err() {
            DROPPED.inc();
        }
    }
}

/// The first span that we see of a request. With a parent that is `trusted` it belongs to that one's trace, and is
/// sampled if that one is; else it begins a trace of its own, which only names the parent.
pub fn root(
    name: impl FnOnce() -> Cow<'static, str>,
    kind: Kind,
    parent: Option<Context>,
    trusted: bool,
) -> Span {
    if !enabled() {
        return Span::default();
    }
    let Some(tracer) = TRACER.load_full() else { return Span::default() };
    match parent.filter(|_| trusted) {
        Some(parent) => Span::new(tracer, Context { span: id(), ..parent }, parent.span, name, kind),
        None => {
            let trace = (u128::from(id()) << 64) | u128::from(id());
            let sampled = (trace as u64 & (u64::MAX >> 1)) < tracer.threshold;
            let mut span = Span::new(tracer, Context { trace, span: id(), sampled }, 0, name, kind);
            if let Some(active) = &mut span.0 {
                active.span.link = parent;
            }
            span
        }
    }
}

/// A part of what this task does; nothing if the task is not traced.
pub fn child(name: &'static str, kind: Kind) -> Span {
    let Some(parent) = current().filter(|parent| parent.sampled) else { return Span::default() };
    let Some(tracer) = TRACER.load_full() else { return Span::default() };
    Span::new(tracer, Context { span: id(), ..parent }, parent.span, || name.into(), kind)
}

/// Does `work` in this span.
pub async fn within<T>(span: &Span, work: impl Future<Output = T>) -> T {
    match span.context() {
        None => work.await,
        Some(context) => CURRENT.scope(Cell::new(Some(context)), work).await,
    }
}

/// Not 0.
fn id() -> u64 {
    rand::random::<u64>().max(1)
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, whole)
}

fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
