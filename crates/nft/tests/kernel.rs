//! Our encoder against the kernel, read back by `nft` and by ourselves.

use std::net::Ipv4Addr;

use gantry_base::{Class, Result};
use gantry_nft::batch::Field;
use gantry_nft::testing::{Host, accept};
use gantry_nft::{Batch, Conntrack, Element, Hook, Nft, Reg, Rule, SetSpec, Value, Verdict};

const TABLE: &str = "test";
const KEY: &[Field] = &[Field::Ipv4, Field::Protocol, Field::Port];

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, last)
}

fn key(last: u8, port: u16) -> Value {
    Value::new().ipv4(address(last)).protocol(6).port(port)
}

fn maps() -> Batch {
    let mut batch = Batch::new(TABLE);
    batch.add_table();
    batch.add_set(&SetSpec {
        name: "targets",
        key: KEY,
        data: &[Field::Ipv4, Field::Port],
        ..SetSpec::default()
    });
    batch.add_set(&SetSpec { name: "ways", key: KEY, verdicts: true, ..SetSpec::default() });
    batch.add_chain("end");
    batch
}

#[test]
fn elements_are_added_listed_and_deleted() -> Result<()> {
    let host = Host::new()?;
    host.ns.run(|| {
        let mut nft = Nft::open()?;
        let mut batch = maps();
        batch.add_data("targets", &key(1, 80), &Value::new().ipv4(address(2)).port(8080));
        batch.add_verdict("ways", &key(1, 80), &Verdict::Goto("end".into()));
        batch.add_verdict("ways", &key(1, 81), &Verdict::Drop);
        nft.apply(batch)?;
        let listed = nft.elements(TABLE, "targets")?;
        assert_eq!(
            listed,
            [Element {
                key: key(1, 80),
                data: Some(Value::new().ipv4(address(2)).port(8080)),
                verdict: None
            }]
        );
        let mut ways: Vec<_> = nft.elements(TABLE, "ways")?.into_iter().map(|e| (e.key, e.verdict)).collect();
        ways.sort();
        assert_eq!(
            ways,
            [(key(1, 80), Some(Verdict::Goto("end".into()))), (key(1, 81), Some(Verdict::Drop))]
        );
        assert_eq!((listed[0].key.as_ipv4(0), listed[0].key.as_port(2)), (Some(address(1)), Some(80)));
        let mut batch = Batch::new(TABLE);
        batch.delete("ways", &key(1, 80));
        batch.add_verdict("ways", &key(1, 80), &Verdict::Accept);
        batch.delete("ways", &key(1, 81));
        nft.apply(batch)?;
        assert_eq!(nft.elements(TABLE, "ways")?.len(), 1);
        assert_eq!(nft.chains(TABLE)?, ["end"]);
        nft.remove_table(TABLE)?;
        nft.remove_table(TABLE)?;
        assert_eq!(nft.tables()?, Vec::<String>::new());
        Ok(())
    })
}

#[test]
fn nft_reads_what_we_wrote() -> Result<()> {
    let host = Host::new()?;
    host.ns.run(|| {
        let mut batch = maps();
        batch.add_data("targets", &key(1, 80), &Value::new().ipv4(address(2)).port(8080));
        batch.add_verdict("ways", &key(1, 80), &Verdict::Goto("end".into()));
        Nft::open()?.apply(batch)
    })?;
    let json: serde_json::Value = serde_json::from_str(&host.sh("nft -j list table ip test")?).expect("JSON");
    let maps: Vec<_> =
        json["nftables"].as_array().expect("a list").iter().filter_map(|o| o.get("map")).collect();
    assert_eq!(maps[0]["type"], serde_json::json!(["ipv4_addr", "inet_proto", "inet_service"]));
    assert_eq!(maps[0]["map"], "ipv4_addr . inet_service");
    assert_eq!(
        maps[0]["elem"],
        serde_json::json!([[{"concat": ["10.9.0.1", "tcp", 80]}, {"concat": ["10.9.0.2", 8080]}]])
    );
    assert_eq!(
        maps[1]["elem"],
        serde_json::json!([[{"concat": ["10.9.0.1", "tcp", 80]}, {"goto": {"target": "end"}}]])
    );
    Ok(())
}

#[test]
fn ten_thousand_elements_go_in_one_transaction_and_a_bad_one_undoes_all() -> Result<()> {
    let host = Host::new()?;
    host.ns.run(|| {
        let mut nft = Nft::open()?;
        let mut batch = maps();
        for i in 0..10_000u16 {
            batch.add_verdict("ways", &key(1, i), &Verdict::Goto("end".into()));
        }
        nft.apply(batch)?;
        assert_eq!(nft.elements(TABLE, "ways")?.len(), 10_000);
        let mut batch = Batch::new(TABLE);
        batch.delete("ways", &key(1, 5));
        batch.delete("ways", &key(2, 5));
        let error = nft.apply(batch).expect_err("one is missing");
        assert_eq!(error.class(), Class::Missing);
        assert!(error.message().contains("delete from ways"), "{error}");
        assert_eq!(nft.elements(TABLE, "ways")?.len(), 10_000);
        let mut batch = Batch::new(TABLE);
        batch.add_verdict("ways", &key(1, 5), &Verdict::Drop);
        assert_eq!(nft.apply(batch).expect_err("it leads elsewhere").class(), Class::Conflict);
        let error = nft.elements(TABLE, "nothing").expect_err("no such map");
        assert_eq!(error.class(), Class::Missing);
        Ok(())
    })
}

#[test]
fn a_translation_works_and_its_flow_is_listed_and_forgotten() -> Result<()> {
    let host = Host::new()?;
    let vip = Ipv4Addr::new(127, 9, 9, 9);
    host.ns.run(|| {
        let mut batch = maps();
        batch.add_base_chain("output", "nat", Hook::Output, -100);
        let rule = Rule::new().load_daddr(Reg(0)).load_protocol(Reg(1)).load_dport(Reg(2));
        batch.add_rule("output", &rule.load_from_map("targets", Reg(0), Reg(4)).dnat(Reg(4)));
        let target = Value::new().ipv4(Ipv4Addr::LOCALHOST).port(8080);
        batch.add_data("targets", &Value::new().ipv4(vip).protocol(6).port(80), &target);
        Nft::open()?.apply(batch)
    })?;
    let listener = host.listen(Ipv4Addr::LOCALHOST, 8080)?;
    let client = host.dial(vip, 80).expect("translated");
    let (_, _server, peer) = accept(&[&listener]);
    assert_eq!(peer, client.local_addr().expect("an address"));
    host.ns.run(|| {
        let mut conntrack = Conntrack::open()?;
        let flows = conntrack.flows(6)?;
        let flow = flows.iter().find(|f| f.destination == (vip, 80)).expect("tracked");
        assert_eq!(flow.answered_by, (Ipv4Addr::LOCALHOST, 8080));
        assert_eq!(conntrack.forget(6, |f| f.destination == (vip, 80))?, 1);
        assert!(conntrack.flows(6)?.iter().all(|f| f.destination != (vip, 80)));
        Ok(())
    })
}
