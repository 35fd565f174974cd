//! Network namespaces: entering one happens on a thread of its own, never on one that others share.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use gantry_base::{Class, Error, Result, error::Context as _};
use nix::sched::{CloneFlags, setns, unshare};

/// A handle to a network namespace; one that nobody else holds ends with it.
#[derive(Debug)]
pub struct NetNs {
    file: File,
}

impl NetNs {
    /// A new, empty namespace.
    pub fn create() -> Result<Self> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context(Class::Refused, "create a network namespace")?;
            Self::current()
        })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace at `path`, such as `/var/run/netns/x` or `/proc/123/ns/net`. Missing if there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)
            .map_err(|e| Error::from(e).while_doing(format!("open network namespace {}", path.display())))?;
        Ok(Self { file })
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. Threads that `work` starts are inside too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .context(Class::Refused, "enter a network namespace")?;
            work()
        })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .context(Class::Retry, "start a thread")?
            .join()
            .map_err(|_| Error::bug("a thread in a network namespace panicked"))?
    })
}
