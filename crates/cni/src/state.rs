//! What the node's network remembers over a restart: one small file, replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use gantry_base::{Class, Error, Result, error::Context as _};
use serde::{Deserialize, Serialize};

use crate::protocol::HostPort;

/// A pod's place in the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The node's address in the pod network.
    pub gateway: Ipv4Addr,
    /// The pod interface's MAC address, as `0a:58:…`; it follows from the address.
    pub mac: String,
    /// The host's end of the veth pair.
    pub host_veth: String,
    /// The pod's end of it.
    pub ifname: String,
    /// Where the pod's network namespace was mounted.
    pub netns: PathBuf,
    /// `namespace/name` of the pod, if the runtime told (CNI_ARGS); empty otherwise.
    pub pod: String,
    /// The host ports that lead to it.
    pub host_ports: Vec<HostPort>,
}

/// The state in memory; every change is on disk before it is acted on.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Content {
    /// The kernel's boot identifier: after another boot no pod of this one exists.
    boot: String,
    /// The address given last.
    last: Option<Ipv4Addr>,
    attachments: BTreeMap<String, Attachment>,
}

impl State {
    /// Reads the state in `dir`; empty if there is none or it is from before the machine's last boot.
    pub fn load(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).context(Class::Refused, format!("create {}", dir.display()))?;
        let path = dir.join("attachments.json");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context(Class::Retry, "read the boot identifier")?
            .trim()
            .to_owned();
        let content = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Content::default(),
            Err(e) => return Err(Error::from(e).while_doing(format!("read {}", path.display()))),
            Ok(bytes) => serde_json::from_slice(&bytes).context(
                Class::Invalid,
                format!("{} is damaged: stop all pods of this node and delete it", path.display()),
            )?,
        };
        let content = if content.boot == boot { content } else { Content { boot, ..Content::default() } };
        Ok(Self { path, content })
    }

    /// All attachments by container id.
    pub fn all(&self) -> &BTreeMap<String, Attachment> {
        &self.content.attachments
    }

    /// The address given last.
    pub fn last(&self) -> Option<Ipv4Addr> {
        self.content.last
    }

    /// The addresses in use.
    pub fn used(&self) -> BTreeSet<Ipv4Addr> {
        self.content.attachments.values().map(|a| a.ip).collect()
    }

    /// Records an attachment.
    pub fn put(&mut self, container: &str, attachment: Attachment) -> Result<()> {
        self.change(|c| {
            c.last = Some(attachment.ip);
            c.attachments.insert(container.to_owned(), attachment);
        })
    }

    /// Forgets an attachment.
    pub fn remove(&mut self, container: &str) -> Result<()> {
        if !self.content.attachments.contains_key(container) {
            return Ok(());
        }
        self.change(|c| {
            c.attachments.remove(container);
        })
    }

    /// Deletes the file.
    pub fn erase(&mut self) -> Result<()> {
        self.content.attachments.clear();
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::from(e)),
            _ => Ok(()),
        }
    }

    fn change(&mut self, edit: impl FnOnce(&mut Content)) -> Result<()> {
        let mut next = self.content.clone();
        edit(&mut next);
        write(&self.path, &next)
            .map_err(|e| Error::from(e).while_doing(format!("write {}", self.path.display())))?;
        self.content = next;
        Ok(())
    }
}

fn write(path: &Path, content: &Content) -> std::io::Result<()> {
    let next = path.with_extension("next");
    let mut file = fs::File::create(&next)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    // A rename without this could leave an empty file after a power cut.
    file.sync_data()?;
    fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(last: u8) -> Attachment {
        Attachment {
            ip: Ipv4Addr::new(10, 42, 0, last),
            gateway: Ipv4Addr::new(10, 42, 0, 1),
            mac: "0a:58:0a:2a:00:02".into(),
            host_veth: format!("veth{last}"),
            ifname: "eth0".into(),
            netns: "/run/netns/x".into(),
            pod: "default/a".into(),
            host_ports: Vec::new(),
        }
    }

    #[test]
    fn a_restart_finds_what_was_recorded_and_a_half_written_file_does_not_matter() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut state = State::load(dir.path()).expect("empty");
        state.put("a", attachment(2)).expect("recorded");
        state.put("b", attachment(3)).expect("recorded");
        state.remove("a").expect("forgotten");
        state.remove("unknown").expect("nothing to forget");
        fs::write(dir.path().join("attachments.next"), b"{\"boot\":").expect("a torn write");
        let again = State::load(dir.path()).expect("read back");
        assert_eq!(again.all().keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(again.last(), Some(Ipv4Addr::new(10, 42, 0, 3)));
    }

    #[test]
    fn another_boot_starts_empty_and_damage_is_reported() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("attachments.json");
        fs::write(&path, r#"{"boot":"other","last":"10.42.0.9","attachments":{}}"#).expect("written");
        assert_eq!(State::load(dir.path()).expect("loaded").last(), None);
        fs::write(&path, "nonsense").expect("written");
        assert_eq!(State::load(dir.path()).expect_err("damaged").class(), Class::Invalid);
    }
}
