//! Looks after the cluster's certificate authorities: has their successors made, and tells everybody of them until everybody
//! knows.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use gantry_api::ApiError;
use gantry_apiserver::identify::Authorities;
use gantry_apiserver::limits::RELOAD_INTERVAL;
use gantry_apiserver::pki::Pki;
use gantry_base::{Backoff, BackoffPolicy, Class, Clock, Error, Result};

/// Writes files anew.
pub type Written = Arc<dyn Fn() -> Result<()> + Send + Sync>;
/// Tells the cluster.
pub type Publish =
    Box<dyn Fn(Bundles) -> BoxFuture<'static, std::result::Result<(), ApiError>> + Send + Sync>;

/// What the cluster is told: who vouches for clients and for front proxies, PEM.
pub type Published =
    Box<dyn Fn() -> BoxFuture<'static, std::result::Result<(String, String), ApiError>> + Send + Sync>;

/// Until what failed is tried again.
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_secs(1), RELOAD_INTERVAL);

/// Who vouches for clients and for front proxies.
#[derive(Clone)]
pub struct Believed {
    /// For clients.
    pub clients: Arc<Authorities>,
    /// For front proxies.
    pub proxies: Arc<Authorities>,
}

/// Certificates, PEM, as they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundles {
    /// Who vouches for the API server.
    pub cluster: String,
    /// Who vouches for clients.
    pub clients: String,
    /// Who vouches for front proxies.
    pub proxies: String,
}

/// The keeper.
pub struct Keeper {
    pub pki: Arc<Pki>,
    pub clock: Arc<dyn Clock>,
    pub believed: Believed,
    pub kubeconfigs: Written,
    pub publish: Publish,
    /// Reads that, where other servers may tell it too.
    pub published: Option<Published>,
    /// What was told last.
    pub told: Bundles,
    /// What others have told of that we do not have.
    pub foreign: Vec<String>,
}

impl Bundles {
    /// As they are now.
    pub fn of(pki: &Pki, believed: &Believed) -> Self {
        Self {
            cluster: pki.cluster().certificate_pem().to_owned(),
            clients: believed.clients.pem(),
            proxies: believed.proxies.pem(),
        }
    }
}

impl Keeper {
    /// Goes on for ever.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY);
        let mut wait = RELOAD_INTERVAL;
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.round().await {
                Ok(()) => {
                    backoff.reset();
                    RELOAD_INTERVAL
                }
                Err(error) => {
                    tracing::error!(%error, "the certificate authorities are not up to date");
                    backoff.next_delay()
                }
            };
        }
    }

    /// Compares what there is with what was told, and tells what differs.
    ///
    /// # Errors
    /// Something did not work. It is done again with the next round; what could be done is done.
    async fn round(&mut self) -> Result<()> {
        let renewed = self.pki.renew(self.clock.now()).map(drop);
        let looked = self.look().await;
        let told = self.tell().await;
        renewed.and(looked).and(told)
    }

    /// Looks for the successors of others.
    async fn look(&mut self) -> Result<()> {
        let Some(published) = &self.published else { return Ok(()) };
        let (clients, proxies) = published().await.map_err(again)?;
        let foreign = self.pki.foreign_successors(&clients, &proxies, self.clock.now());
        if foreign != self.foreign {
            for successor in &foreign {
                tracing::warn!(
                    successor,
                    folder = %self.pki.dir().display(),
                    "another server has made a successor of the certificate authority that this one does not have: copy the files *-next.crt and *-next.key of one server to all others"
                );
            }
            self.foreign = foreign;
        }
        Ok(())
    }

    async fn tell(&mut self) -> Result<()> {
        self.believed.clients.replace_own(self.pki.cluster().certificate_pem())?;
        self.believed.proxies.replace_own(self.pki.front_proxy().certificate_pem())?;
        let bundles = Bundles::of(&self.pki, &self.believed);
        if bundles == self.told {
            return Ok(());
        }
        (self.kubeconfigs)()?;
        (self.publish)(bundles.clone()).await.map_err(again)?;
        self.told = bundles;
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn again(error: ApiError) -> Error {
    Error::new(Class::Retry, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_base::{ManualClock, Tasks};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// The files cannot be written, then the API server refuses; everything is told in the end, once.
    #[tokio::test(start_paused = true)]
    async fn a_successor_is_told_of_until_everybody_knows() {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        let dir = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::at(Duration::from_secs(1_800_000_000)));
        let pki = Arc::new(Pki::load_or_create(dir.path(), clock.now()).expect("keys"));
        let authorities = |pem: &str| Arc::new(Authorities::new(pem, None, clock.clone()).expect("ours"));
        let believed = Believed {
            clients: authorities(pki.cluster().certificate_pem()),
            proxies: authorities(pki.front_proxy().certificate_pem()),
        };
        let (writable, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (may_write, writes) = (Arc::clone(&writable), Arc::clone(&written));
        let (sent, mut published) = tokio::sync::mpsc::unbounded_channel();
        let refusals = Arc::new(AtomicUsize::new(2));
        let left = Arc::clone(&refusals);
        let keeper = Keeper {
            published: None,
            foreign: Vec::new(),
            told: Bundles::of(&pki, &believed),
            pki: Arc::clone(&pki),
            clock: clock.clone(),
            believed: believed.clone(),
            kubeconfigs: Arc::new(move || {
                writes.fetch_add(1, Ordering::SeqCst);
                may_write.load(Ordering::SeqCst).then_some(()).ok_or_else(|| Error::refused("no room"))
            }),
            publish: Box::new(move |bundles| {
                let refused = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
                let told = match refused {
                    Ok(_) => Err(ApiError::unavailable("not now")),
                    Err(_) => {
                        sent.send(bundles).expect("the test listens");
                        Ok(())
                    }
                };
                Box::pin(async move { told })
            }),
        };
        let tasks = Tasks::new();
        tasks.spawn("keeper", keeper.run());
        clock.advance(YEAR * 17 / 2);
        // (Time passes by itself whenever everybody waits.)
        while written.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(RELOAD_INTERVAL).await;
        }
        assert!(published.try_recv().is_err(), "nobody was told yet");
        assert_eq!(pki.cluster().trusted().len(), 2);
        writable.store(true, Ordering::SeqCst);
        let told = published.recv().await.expect("told");
        assert_eq!(refusals.load(Ordering::SeqCst), 0);
        assert_eq!(told, Bundles::of(&pki, &believed));
        assert_eq!(told.cluster, pki.cluster().certificate_pem());
        // Nothing changes, nobody is told; the successor signs, everybody is.
        tokio::time::sleep(RELOAD_INTERVAL * 3).await;
        assert!(published.try_recv().is_err());
        clock.advance(YEAR);
        let told = published.recv().await.expect("told");
        assert_eq!(told.cluster, pki.cluster().certificate_pem());
        assert!(tasks.shut_down(Duration::from_secs(10)).await);
    }
}
