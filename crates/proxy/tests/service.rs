//! The running proxy between informers and the kernel.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::ObjectKey;
use gantry_base::{Result, SystemClock, Tasks};
use gantry_client::Informer;
use gantry_nft::Nft;
use gantry_nft::testing::Host;
use gantry_proxy::views::{EndpointView, PortView, ServiceView, SliceView};
use gantry_proxy::{Options, ServiceProxy};

const TABLE: &str = "gantry-services";

fn options() -> Options {
    Options {
        node_name: "me".into(),
        zone: String::new(),
        cluster_cidr: "10.42.0.0/16".parse().ok(),
        table: TABLE.into(),
        mark: 0x4000,
        loopback_node_ports: true,
    }
}

fn service(name: &str, last: u8, revision: u64) -> Arc<ServiceView> {
    Arc::new(ServiceView {
        key: ObjectKey::new("default", name),
        revision,
        cluster_ips: vec![Ipv4Addr::new(10, 43, 0, last)],
        external_ips: vec![],
        balancer_ips: vec![],
        ports: vec![PortView { name: "".into(), protocol: 6, port: 80, node_port: 0 }],
        affinity: None,
        external_local: false,
        internal_local: false,
    })
}

fn slice(name: &str, endpoints: &[u8], revision: u64) -> Arc<SliceView> {
    let endpoint = |last: &u8| EndpointView {
        address: Ipv4Addr::new(10, 42, 0, *last),
        ready: true,
        serving: true,
        terminating: false,
        node: "me".into(),
        zones: vec![],
        nodes: vec![],
    };
    Arc::new(SliceView {
        key: ObjectKey::new("default", format!("{name}-1")),
        revision,
        service: name.into(),
        service_key: format!("default/{name}").into(),
        ports: vec![("".into(), 6, 8080)],
        endpoints: endpoints.iter().map(endpoint).collect(),
    })
}

/// Waits until the kernel holds so many services and endpoints.
async fn settled(proxy: &ServiceProxy, services: usize, endpoints: usize) -> Result<()> {
    loop {
        let syncs = proxy.syncs();
        let mut nft = Nft::open()?;
        let count = (nft.elements(TABLE, "services")?.len(), nft.elements(TABLE, "endpoints")?.len());
        if count == (services, endpoints) {
            return Ok(());
        }
        let patience = tokio::time::timeout(Duration::from_secs(10), proxy.synced_times(syncs + 1)).await;
        assert!(patience.is_ok(), "the kernel holds {count:?}, not {services} and {endpoints}");
    }
}

#[test]
fn changes_reach_the_kernel_and_rules_outlive_the_proxy() -> Result<()> {
    let host = Host::new()?;
    host.ns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (services, slices) = (Informer::detached(), Informer::detached());
            let clock = Arc::new(SystemClock::default());
            let tasks = Tasks::new();
            let proxy =
                ServiceProxy::start_with(options(), services.clone(), slices.clone(), clock.clone(), &tasks)?;
            services.replace(vec![service("a", 1, 1), service("b", 2, 2)], 2);
            slices.replace(vec![slice("a", &[1, 2], 3)], 3);
            proxy.synced().await;
            settled(&proxy, 2, 2).await?;
            let b = slice("b", &[3], 4);
            slices.apply([(b.key.clone(), Some(b.clone()))], 4);
            settled(&proxy, 2, 3).await?;
            services.apply([(ObjectKey::new("default", "a"), None)], 5);
            settled(&proxy, 1, 1).await?;
            slices.apply([(b.key.clone(), None)], 6);
            settled(&proxy, 1, 0).await?;
            assert!(tasks.shut_down(Duration::from_secs(10)).await);
            assert_eq!(Nft::open()?.elements(TABLE, "services")?.len(), 1, "the rules outlive us");
            // While nobody looked, one service went and another came.
            let (services, slices) = (Informer::detached(), Informer::detached());
            let tasks = Tasks::new();
            let proxy = ServiceProxy::start_with(options(), services.clone(), slices.clone(), clock, &tasks)?;
            services.replace(vec![service("c", 3, 9), service("d", 4, 9)], 9);
            slices.replace(vec![slice("c", &[1, 2, 3], 9)], 9);
            proxy.synced().await;
            settled(&proxy, 2, 3).await?;
            assert!(tasks.shut_down(Duration::from_secs(10)).await);
            ServiceProxy::teardown(TABLE)?;
            ServiceProxy::teardown(TABLE)?;
            assert!(Nft::open()?.tables()?.is_empty());
            Ok(())
        })
    })
}
