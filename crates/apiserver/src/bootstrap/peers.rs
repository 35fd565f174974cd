//! Several servers on one store: each tells by a Lease that it is there, as upstream's do (KEP-1965), and the service
//! `kubernetes` leads to all that are.
//!
//! Whether a server is there is judged by whether its lease changes in our sight; clocks are not compared. A server
//! that ends takes itself off; one that dies is taken off by the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::coordination::{Lease, LeaseSpec};
use gantry_api::meta::MetaExt;
use gantry_api::metav1::MicroTime;
use gantry_api::status::Result;
use gantry_api::{ObjectKey, time};
use gantry_base::{Clock, Tasks};
use gantry_client::{Api, DeleteOptions, ListParams, Transport};
use tokio::time::Instant;

use super::write::Writer;
use super::{Options, named, services};

/// How often a server renews its lease (upstream's `IdentityLeaseRenewIntervalPeriod`).
const PERIOD: Duration = Duration::from_secs(10);
/// A server whose lease has not changed for this long is gone.
const GONE: Duration = Duration::from_secs(25);
/// The lease of one that has been gone for this long is removed (upstream's `IdentityLeaseDurationSeconds`).
const FORGOTTEN: Duration = Duration::from_secs(3600);
const NAMESPACE: &str = "kube-system";
const LABEL: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");
/// Where the server is reached.
const ADDRESS: &str = "gantry.io/advertise-address";
const MANAGER: &str = "gantry-apiserver";

/// Keeps this server's lease, named after `host`, and the endpoints of `kubernetes` until `tasks` end.
pub fn start(
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    options: Options,
    host: &str,
    tasks: &Tasks,
) {
    let name = format!(
        "apiserver-{}",
        base32(&ring::digest::digest(&ring::digest::SHA256, host.as_bytes()).as_ref()[..16])
    );
    let mut peer = Peer {
        api: Api::new(Arc::clone(&transport), MANAGER),
        writer: Writer::new(transport),
        identity: format!("{name}_{}", crate::verbs::lifecycle::new_uid()),
        name,
        host: host.to_owned(),
        clock,
        options,
        seen: HashMap::new(),
    };
    tasks.spawn_graceful("server identity", |shutdown| async move {
        loop {
            if let Err(error) = peer.round().await {
                tracing::warn!(%error, "cannot keep this server among the endpoints of kubernetes");
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = shutdown.cancelled() => break,
            }
        }
        if let Err(error) = peer.leave().await {
            tracing::debug!(%error, "this server was not taken off the endpoints of kubernetes");
        }
    });
}

struct Peer {
    api: Api<Lease>,
    writer: Writer,
    name: String,
    identity: String,
    host: String,
    clock: Arc<dyn Clock>,
    options: Options,
    /// When each lease was renewed last, and since when that has been seen.
    seen: HashMap<String, (Option<MicroTime>, Instant)>,
}

impl Peer {
    async fn round(&mut self) -> Result<()> {
        self.renew().await?;
        let servers = self.servers().await?;
        services::lead_to(&self.writer, &self.options, servers).await
    }

    async fn leave(&mut self) -> Result<()> {
        self.api.delete(&ObjectKey::new(NAMESPACE, self.name.as_str()), &DeleteOptions::default()).await?;
        let own = self.options.advertise_address;
        let mut servers = self.servers().await?;
        servers.retain(|address| *address != own);
        // The last one leaves its address: nobody else would bring it back before it does so itself.
        if servers.is_empty() {
            Ok(())
        } else {
            services::lead_to(&self.writer, &self.options, servers).await
        }
    }

    async fn renew(&self) -> Result<()> {
        let current = self.api.find(&ObjectKey::new(NAMESPACE, self.name.as_str())).await?;
        let mut lease = current
            .as_deref()
            .cloned()
            .unwrap_or_else(|| Lease { metadata: named(NAMESPACE, &self.name), ..Lease::default() });
        let labels = lease.metadata.labels.get_or_insert_default();
        labels.insert(LABEL.0.to_owned(), LABEL.1.to_owned());
        labels.insert("kubernetes.io/hostname".to_owned(), self.host.clone());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(ADDRESS.to_owned(), self.options.advertise_address.to_string());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(FORGOTTEN.as_secs()).ok(),
            renew_time: Some(time::micro_time(self.clock.now())),
            ..LeaseSpec::default()
        });
        match current {
            Some(_) => self.api.update(&lease).await.map(drop),
            None => self.api.create(&lease).await.map(drop),
        }
    }

    /// The addresses of the servers that are there, in order.
    async fn servers(&mut self) -> Result<Vec<IpAddr>> {
        let (leases, _) = self.api.list(NAMESPACE, &ListParams::default()).await?;
        let now = Instant::now();
        let mut servers = vec![self.options.advertise_address];
        let ours = |lease: &&Arc<Lease>| {
            lease.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL.0)).map(String::as_str)
                == Some(LABEL.1)
        };
        for lease in leases.iter().filter(ours) {
            let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
            let seen = self.seen.entry(lease.name().to_owned()).or_insert_with(|| (renewed.clone(), now));
            if seen.0 != renewed {
                *seen = (renewed, now);
            }
            let silent = now - seen.1;
            let address = lease.metadata.annotations.as_ref().and_then(|all| all.get(ADDRESS));
            let address: Option<IpAddr> = address.and_then(|text| text.parse().ok());
            if silent < GONE {
                servers.extend(address);
            } else if silent > FORGOTTEN {
                self.api.delete(&lease.key(), &DeleteOptions::default()).await?;
            }
        }
        servers.sort_unstable();
        servers.dedup();
        Ok(servers)
    }
}

/// RFC 4648 without padding, in lower case.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::new();
    for chunk in bytes.chunks(5) {
        let mut block = [0; 8];
        block[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(block);
        let letters = (chunk.len() * 8).div_ceil(5);
        text.extend((0..letters).map(|i| char::from(LETTERS[(bits >> (35 - 5 * i)) as usize & 31])));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base32_is_as_in_the_rfc() {
        for (bytes, want) in [("f", "my"), ("fo", "mzxq"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(super::base32(bytes.as_bytes()), want);
        }
    }
}
