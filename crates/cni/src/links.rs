//! Interfaces, addresses and routes, by netlink.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use futures::TryStreamExt;
use gantry_base::{Class, Error, Result, Tasks};
use gantry_nft::{Ipv4Cidr, NetNs};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use netlink_packet_route::route::{RouteScope, RouteType};
use nix::errno::Errno;
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// Routing netlink of one network namespace.
#[derive(Clone, Debug)]
pub struct Links {
    handle: Handle,
}

/// A MAC address.
pub type Mac = [u8; 6];

/// A veth pair to create.
pub struct VethSpec<'a> {
    pub host_name: &'a str,
    pub host_mac: Mac,
    pub pod_name: &'a str,
    pub pod_mac: Mac,
    pub mtu: u32,
}

/// The loopback interface is the first of every namespace.
const LOOPBACK: u32 = 1;

impl Links {
    /// A connection to the namespace of the calling thread; `tasks` runs it.
    pub fn open(tasks: &Tasks) -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|e| Error::from(e).while_doing("open a routing netlink socket"))?;
        tasks.spawn("rtnetlink", connection);
        Ok(Self { handle })
    }

    /// A connection to the namespace `ns`.
    pub fn open_in(ns: &NetNs, tasks: &Tasks) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        ns.run(|| {
            let _context = runtime.enter();
            Self::open(tasks)
        })
    }

    /// The index of the interface `name`, none if there is no such interface.
    pub async fn index(&self, name: &str) -> Result<Option<u32>> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|l| l.header.index)),
            Err(e) if errno(&e) == Errno::ENODEV as i32 => Ok(None),
            Err(e) => Err(failed(e, &format!("look up interface {name}"))),
        }
    }

    async fn existing(&self, name: &str) -> Result<u32> {
        self.index(name).await?.ok_or_else(|| Error::missing(format!("there is no interface {name}")))
    }

    /// Makes sure the interface that holds the gateway address exists and is up: a bridge without ports, since that
    /// needs no module that a kernel might lack.
    pub async fn ensure_gateway(&self, name: &str, mac: Mac, mtu: u32, address: Ipv4Addr) -> Result<()> {
        let what = format!("create interface {name}");
        let message = LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).up().build();
        tolerate(self.handle.link().add(message).execute().await, Errno::EEXIST, &what)?;
        self.up(self.existing(name).await?).await?;
        self.add_address(name, address).await
    }

    /// Gives an interface an address that it shares with no neighbour; one that it has already is fine.
    pub async fn add_address(&self, name: &str, address: Ipv4Addr) -> Result<()> {
        let index = self.existing(name).await?;
        let added = self.handle.address().add(index, IpAddr::V4(address), 32).execute().await;
        tolerate(added, Errno::EEXIST, &format!("give {address} to {name}"))
    }

    /// Routes `cidr` to the interface `name`.
    pub async fn route_to(&self, cidr: Ipv4Cidr, name: &str, source: Ipv4Addr) -> Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(cidr.network(), cidr.prefix())
            .output_interface(self.existing(name).await?)
            .scope(RouteScope::Link)
            .pref_source(source)
            .build();
        self.add_route(route, &format!("route {cidr} to {name}")).await
    }

    /// Answers `unreachable` for what is in `cidr` and has no route of its own.
    pub async fn route_unreachable(&self, cidr: Ipv4Cidr) -> Result<()> {
        self.add_route(unreachable(cidr), &format!("route {cidr} to nowhere")).await
    }

    /// Takes that back.
    pub async fn unroute_unreachable(&self, cidr: Ipv4Cidr) -> Result<()> {
        let deleted = self.handle.route().del(unreachable(cidr)).execute().await;
        tolerate(deleted, Errno::ESRCH, &format!("remove the route of {cidr} to nowhere"))
    }

    async fn add_route(&self, route: netlink_packet_route::route::RouteMessage, what: &str) -> Result<()> {
        self.handle.route().add(route).replace().execute().await.map_err(|e| failed(e, what))
    }

    /// Creates a veth pair with its other end in `ns`; only the host's end is up (the kernel refuses the other so early).
    pub async fn create_veth(&self, spec: &VethSpec<'_>, ns: &NetNs) -> Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(spec.pod_name)
            .address(spec.pod_mac.to_vec())
            .mtu(spec.mtu)
            .append_extra_attribute(LinkAttribute::NetNsFd(ns.as_fd().as_raw_fd()))
            .build();
        let message = LinkVeth::new(spec.host_name, spec.pod_name)
            .address(spec.host_mac.to_vec())
            .mtu(spec.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .up()
            .build();
        let created = self.handle.link().add(message).execute().await;
        created
            .map_err(|e| failed(e, &format!("create the veth pair {} and {}", spec.host_name, spec.pod_name)))
    }

    /// Deletes an interface if it exists.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let Some(index) = self.index(name).await? else { return Ok(()) };
        tolerate(
            self.handle.link().del(index).execute().await,
            Errno::ENODEV,
            &format!("delete interface {name}"),
        )
    }

    async fn up(&self, index: u32) -> Result<()> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
        let done = self.handle.link().change(message).execute().await;
        done.map_err(|e| failed(e, &format!("set interface {index} up")))
    }

    /// Sets up a pod's namespace: loopback, the address, and the gateway as the way to everything.
    pub async fn configure_pod(
        &self,
        ifname: &str,
        ip: Ipv4Addr,
        gateway: Ipv4Addr,
        gateway_mac: Mac,
    ) -> Result<()> {
        self.up(LOOPBACK).await?;
        self.add_address(ifname, ip).await?;
        let index = self.existing(ifname).await?;
        self.up(index).await?;
        // Known from the start: the host need not answer for an address that is on another interface of it.
        let neighbour =
            self.handle.neighbours().add(index, IpAddr::V4(gateway)).link_layer_address(&gateway_mac);
        neighbour
            .execute()
            .await
            .map_err(|e| failed(e, &format!("make {gateway} a neighbour of {ifname}")))?;
        let link = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(gateway, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        self.add_route(link, &format!("route {gateway} to {ifname}")).await?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build();
        self.add_route(default, &format!("route everything to {gateway}")).await
    }
}

fn unreachable(cidr: Ipv4Cidr) -> netlink_packet_route::route::RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(cidr.network(), cidr.prefix())
        .kind(RouteType::Unreachable)
        .build()
}

/// A setting under `/proc/sys/net`, of the network namespace of the calling thread.
pub fn set_sysctl(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value)
        .map_err(|e| Error::from(e).while_doing(format!("set {} to {value}", path.display())))
}

fn errno(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code().abs(),
        _ => 0,
    }
}

fn tolerate(done: std::result::Result<(), rtnetlink::Error>, errno_ok: Errno, what: &str) -> Result<()> {
    match done {
        Err(e) if errno(&e) == errno_ok as i32 => Ok(()),
        Err(e) => Err(failed(e, what)),
        Ok(()) => Ok(()),
    }
}

fn failed(error: rtnetlink::Error, what: &str) -> Error {
    let class = match Errno::from_raw(errno(&error)) {
        Errno::EPERM => Class::Refused,
        Errno::EEXIST => Class::Conflict,
        Errno::ENODEV | Errno::ESRCH => Class::Missing,
        Errno::EINVAL | Errno::EOPNOTSUPP => Class::Invalid,
        _ => Class::Retry,
    };
    Error::new(class, what.to_owned()).because(error)
}
