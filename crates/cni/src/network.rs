//! The agent's side of the pod network.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_base::{Class, Error, Result, Tasks};
use gantry_nft::{Ipv4Cidr, NetNs, Nft};
use tracing::{info, warn};

use crate::links::{Links, Mac, VethSpec, set_sysctl};
use crate::protocol::HostPort;
use crate::state::{Attachment, State};
use crate::{ipam, rules, server};

/// What a network is made of. Several networks can live on one machine if names and ranges differ.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the attachments are remembered.
    pub data_dir: PathBuf,
    /// The interface that holds the gateway address, such as `gantry0`; at most 15 bytes.
    pub interface: String,
    /// The node's range of pod addresses; its first address is the gateway.
    pub pod_cidr: Ipv4Cidr,
    /// All pods' range: traffic inside it is never masqueraded.
    pub cluster_cidr: Ipv4Cidr,
    /// The services' range. Routed to the interface, so that the host reaches services without a default route too,
    /// and no packet for a service leaves the machine untranslated.
    pub service_cidr: Option<Ipv4Cidr>,
    /// MTU of the pods' interfaces.
    pub mtu: u32,
    /// Whether pods reach the world with the node's address.
    pub masquerade: bool,
    /// Name of the nftables table, such as `gantry-pods`.
    pub table: String,
}

/// What a pod asks of the network.
#[derive(Clone, Debug, Default)]
pub struct AttachRequest {
    /// The sandbox's id.
    pub container_id: String,
    /// The sandbox's network namespace.
    pub netns: PathBuf,
    /// The interface to make in it.
    pub ifname: String,
    /// `namespace/name` of the pod, for people.
    pub pod: String,
    /// Ports of the host that are to lead to the pod.
    pub host_ports: Vec<HostPort>,
}

/// The pod network of this node. Cheap to clone.
///
/// It belongs to the network namespace of the thread that made it.
#[derive(Clone, Debug)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    gateway: Ipv4Addr,
    links: Links,
    tasks: Tasks,
    nft: Mutex<Nft>,
    /// Held over each change: the kernel takes them one by one anyway.
    state: tokio::sync::Mutex<State>,
}

impl Network {
    /// Reads the remembered attachments and opens the kernel's doors; changes nothing yet.
    ///
    /// Invalid if names or ranges cannot work; refused without CAP_NET_ADMIN.
    pub fn new(options: Options, tasks: &Tasks) -> Result<Self> {
        check_interface_name(&options.interface)?;
        let gateway = ipam::gateway(options.pod_cidr).ok_or_else(|| {
            Error::invalid(format!("pod range {} is too small: at most /30", options.pod_cidr))
        })?;
        let state = State::load(&options.data_dir)?;
        let inner = Inner {
            gateway,
            links: Links::open(tasks)?,
            tasks: tasks.clone(),
            nft: Mutex::new(Nft::open()?),
            state: tokio::sync::Mutex::new(state),
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The node's address in the pod network: where the node's DNS server can listen.
    pub fn gateway(&self) -> Ipv4Addr {
        self.inner.gateway
    }

    /// Makes sure interface, routes, forwarding and the nftables table are there. Again is fine, and disturbs no
    /// traffic of the pods that are attached.
    pub async fn setup(&self) -> Result<()> {
        let Inner { options: o, links, gateway, .. } = &*self.inner;
        set_sysctl("ipv4/ip_forward", "1")?;
        links.ensure_gateway(&o.interface, mac(*gateway), o.mtu, *gateway).await?;
        set_sysctl(&format!("ipv4/conf/{}/route_localnet", o.interface), "1")?;
        links.route_unreachable(o.pod_cidr).await?;
        if let Some(services) = o.service_cidr {
            links.route_to(services, &o.interface, *gateway).await?;
        }
        let state = self.inner.state.lock().await;
        let fixed = rules::Fixed {
            table: o.table.clone(),
            pod_cidr: o.pod_cidr,
            cluster_cidr: o.cluster_cidr,
            masquerade: o.masquerade,
        };
        let mappings: Vec<_> =
            state.all().values().flat_map(|a| a.host_ports.iter().map(|p| (a.ip, *p))).collect();
        rules::replace(&mut self.nft(), &fixed, &mappings)?;
        info!(interface = o.interface, pods = %o.pod_cidr, attached = state.all().len(), "the pod network is up");
        Ok(())
    }

    /// Listens for the plugin at `socket` (mode 0600) until `tasks` is shut down.
    pub fn serve(&self, socket: &Path, tasks: &Tasks) -> Result<()> {
        server::serve(self.clone(), socket, tasks)
    }

    /// Attaches a sandbox. One that is attached already is attached anew and keeps its address.
    ///
    /// Conflict if another pod has one of the host ports; refused if no address is free; missing if there is no such
    /// namespace. Nothing is left behind by a failure.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attachment> {
        let mut state = self.inner.state.lock().await;
        let id = request.container_id.clone();
        check_interface_name(&request.ifname)?;
        let ns = NetNs::open(&request.netns)?;
        let before = state.all().get(&id).cloned();
        if let Some(old) = &before {
            self.dismantle(old).await?;
            state.remove(&id)?;
        }
        let attachment = self.plan(request, &state, before.map(|a| a.ip))?;
        state.put(&id, attachment.clone())?;
        if let Err(error) = self.build(&attachment, &ns).await {
            if let Err(left) = self.dismantle(&attachment).await {
                warn!(container = id, error = %left, "a failed attachment could not be undone; detaching will try again");
            } else {
                state.remove(&id)?;
            }
            return Err(error.while_doing(format!("attach {id}")));
        }
        Ok(attachment)
    }

    fn plan(&self, request: AttachRequest, state: &State, keep: Option<Ipv4Addr>) -> Result<Attachment> {
        let cidr = self.inner.options.pod_cidr;
        let ip = keep
            .filter(|ip| cidr.contains(*ip))
            .or_else(|| ipam::pick(cidr, &state.used(), state.last()))
            .ok_or_else(|| Error::refused(format!("no address is free in the pod range {cidr}")))?;
        let host_veth = veth_name(&self.inner.options.interface, &request.container_id, &request.ifname);
        Ok(Attachment {
            ip,
            gateway: self.inner.gateway,
            mac: mac_text(mac(ip)),
            host_veth,
            ifname: request.ifname,
            netns: request.netns,
            pod: request.pod,
            host_ports: request.host_ports,
        })
    }

    async fn build(&self, a: &Attachment, ns: &NetNs) -> Result<()> {
        let Inner { options, links, gateway, tasks, .. } = &*self.inner;
        let host_mac = mac(*gateway);
        let spec = VethSpec {
            host_name: &a.host_veth,
            host_mac,
            pod_name: &a.ifname,
            pod_mac: mac(a.ip),
            mtu: options.mtu,
        };
        links.create_veth(&spec, ns).await?;
        // So that what is masqueraded on its way to the pod comes from the gateway.
        links.add_address(&a.host_veth, *gateway).await?;
        set_sysctl(&format!("ipv4/conf/{}/route_localnet", a.host_veth), "1")?;
        links.route_to(Ipv4Cidr::new(a.ip, 32)?, &a.host_veth, *gateway).await?;
        // A group of its own, so that the connection ends with this call.
        let inside = tasks.child();
        let done = match Links::open_in(ns, &inside) {
            Ok(pod) => pod.configure_pod(&a.ifname, a.ip, *gateway, host_mac).await,
            Err(e) => Err(e),
        };
        inside.shutdown_signal().cancel();
        done?;
        self.change_host_ports(a.ip, &[], &a.host_ports)
    }

    /// Removes what an attachment has in the kernel; what is not there is no error.
    async fn dismantle(&self, a: &Attachment) -> Result<()> {
        // The peer and the routes go with it.
        self.inner.links.delete(&a.host_veth).await?;
        match self.change_host_ports(a.ip, &a.host_ports, &[]) {
            Err(e) if e.class() == Class::Missing => self.repair_host_ports(a),
            done => done,
        }
    }

    /// Some of an attachment's host ports were never made (or belong to another pod): deletes those that are its own.
    fn repair_host_ports(&self, a: &Attachment) -> Result<()> {
        for port in &a.host_ports {
            rules::remove_own(&mut self.nft(), &self.inner.options.table, a.ip, port)?;
        }
        Ok(())
    }

    fn change_host_ports(&self, ip: Ipv4Addr, old: &[HostPort], new: &[HostPort]) -> Result<()> {
        if old == new {
            return Ok(());
        }
        rules::change(&mut self.nft(), &self.inner.options.table, ip, old, new)?;
        rules::forget_flows(ip, old)?;
        rules::forget_flows(ip, new)
    }

    /// Changes the host ports of an attached sandbox. Missing if it is not attached.
    pub async fn set_host_ports(&self, container_id: &str, ports: Vec<HostPort>) -> Result<()> {
        let mut state = self.inner.state.lock().await;
        let mut attachment = state
            .all()
            .get(container_id)
            .cloned()
            .ok_or_else(|| Error::missing(format!("sandbox {container_id} is not attached")))?;
        self.change_host_ports(attachment.ip, &attachment.host_ports, &ports)?;
        attachment.host_ports = ports;
        state.put(container_id, attachment)
    }

    /// Detaches a sandbox and frees its address; one that is not attached is no error.
    pub async fn detach(&self, container_id: &str) -> Result<()> {
        let mut state = self.inner.state.lock().await;
        let Some(attachment) = state.all().get(container_id).cloned() else { return Ok(()) };
        self.dismantle(&attachment).await.map_err(|e| e.while_doing(format!("detach {container_id}")))?;
        state.remove(container_id)
    }

    /// The attachment of a sandbox, if it has one.
    pub async fn get(&self, container_id: &str) -> Option<Attachment> {
        self.inner.state.lock().await.all().get(container_id).cloned()
    }

    /// Whether an attachment is whole in the kernel. Missing, with what is missing, if not.
    pub async fn check(&self, attachment: &Attachment) -> Result<()> {
        match self.inner.links.index(&attachment.host_veth).await? {
            Some(_) => Ok(()),
            None => Err(Error::missing(format!("interface {} is gone", attachment.host_veth))),
        }
    }

    /// All attachments by container id.
    pub async fn list(&self) -> BTreeMap<String, Attachment> {
        self.inner.state.lock().await.all().clone()
    }

    /// Detaches those of `candidates` that are not in `live`; returns them.
    ///
    /// Take the candidates from [`Network::list`] *before* asking the runtime what is alive, so that a sandbox that
    /// is being made meanwhile is not taken for dead.
    pub async fn collect_garbage(
        &self,
        candidates: impl IntoIterator<Item = String>,
        live: &HashSet<String>,
    ) -> Result<Vec<String>> {
        let mut collected = Vec::new();
        for id in candidates.into_iter().filter(|id| !live.contains(id)) {
            self.detach(&id).await?;
            collected.push(id);
        }
        Ok(collected)
    }

    /// Removes everything: attachments, interface, routes, table and state. Forwarding stays on, others may need it.
    pub async fn teardown(&self) -> Result<()> {
        let Inner { options, links, .. } = &*self.inner;
        let mut state = self.inner.state.lock().await;
        for attachment in state.all().values() {
            links.delete(&attachment.host_veth).await?;
        }
        links.delete(&options.interface).await?;
        links.unroute_unreachable(options.pod_cidr).await?;
        self.nft().remove_table(&options.table)?;
        state.erase()
    }

    fn nft(&self) -> MutexGuard<'_, Nft> {
        // What panicked held only a socket; the kernel's transactions are whole or absent.
        self.inner.nft.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_interface_name(name: &str) -> Result<()> {
    let fine = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if fine {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name:?} is no interface name: 1 to 15 printable characters without / and :"
    )))
}

/// A locally administered MAC address that follows from the IP address.
fn mac(ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    [0x0a, 0x58, a, b, c, d]
}

fn mac_text(mac: Mac) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// The host's end of the veth pair: the same for the same sandbox, different between networks.
fn veth_name(interface: &str, container: &str, ifname: &str) -> String {
    // FNV-1a: the name must stay the same over releases.
    let hash = [interface, container, ifname]
        .iter()
        .flat_map(|part| part.bytes().chain([0]))
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("veth{:011x}", hash >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn veth_names_are_stable_short_and_different() {
        let name = veth_name("gantry0", "abc", "eth0");
        assert_eq!(name.len(), 15);
        assert_eq!(name, veth_name("gantry0", "abc", "eth0"));
        assert_ne!(name, veth_name("gantry1", "abc", "eth0"));
        assert_ne!(name, veth_name("gantry0", "abd", "eth0"));
        assert_eq!(mac_text(mac(Ipv4Addr::new(10, 42, 0, 2))), "0a:58:0a:2a:00:02");
    }

    #[test]
    fn interface_names_are_checked() {
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters-"] {
            assert!(check_interface_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_interface_name("eth0").is_ok());
    }
}
