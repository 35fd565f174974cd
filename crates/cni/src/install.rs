//! Placing the plugin where a container runtime looks for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use gantry_base::{Class, Error, Result, error::Context as _};
use serde_json::json;

use crate::loopback::LOOPBACK_NAME;

/// The plugin's name: the file in the binary directory, and `type` in the configuration.
pub const PLUGIN_NAME: &str = "gantry-cni";

/// Where things are.
#[derive(Clone, Debug)]
pub struct Install {
    /// The runtime's CNI configuration directory (`/etc/cni/net.d`, or one of our own).
    pub conf_dir: PathBuf,
    /// The runtime's CNI plugin directory (`/opt/cni/bin`, or one of our own).
    pub bin_dir: PathBuf,
    /// The network's name.
    pub name: String,
    /// The Gantry binary.
    pub binary: PathBuf,
    /// The agent's socket, as given to [`crate::Network::serve`].
    pub socket: PathBuf,
}

impl Install {
    /// Writes the plugin's link, then the configuration list, each in one step; again is fine.
    ///
    /// The runtime reports the network as ready once the configuration is there, so do this after
    /// [`crate::Network::serve`].
    pub fn write(&self) -> Result<()> {
        for dir in [&self.conf_dir, &self.bin_dir] {
            fs::create_dir_all(dir).context(Class::Refused, format!("create {}", dir.display()))?;
        }
        for name in [PLUGIN_NAME, LOOPBACK_NAME] {
            self.place(name)?;
        }
        let conf = self.conflist();
        let next = conf.with_extension("next");
        let text =
            serde_json::to_vec_pretty(&self.configuration()).context(Class::Bug, "encode the conflist")?;
        fs::write(&next, text)
            .and_then(|()| fs::rename(&next, &conf))
            .context(Class::Refused, format!("write {}", conf.display()))
    }

    /// Removes all of it again.
    pub fn remove(&self) -> Result<()> {
        remove(&self.conflist())?;
        for name in [PLUGIN_NAME, LOOPBACK_NAME] {
            remove(&self.bin_dir.join(name))?;
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Result<()> {
        let link = self.bin_dir.join(name);
        let next = self.bin_dir.join(format!(".{name}.next"));
        remove(&next)?;
        symlink(&self.binary, &next)
            .and_then(|()| fs::rename(&next, &link))
            .context(Class::Refused, format!("place {}", link.display()))
    }

    fn conflist(&self) -> PathBuf {
        self.conf_dir.join(format!("10-{}.conflist", self.name))
    }

    fn configuration(&self) -> serde_json::Value {
        json!({
            "cniVersion": "1.0.0",
            "name": self.name,
            "plugins": [{
                "type": PLUGIN_NAME,
                "agent": self.socket,
                "capabilities": { "portMappings": true },
            }],
        })
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from(e).while_doing(format!("remove {}", path.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_leaves_one_link_and_one_configuration() {
        let dir = tempfile::tempdir().expect("a directory");
        let install = Install {
            conf_dir: dir.path().join("net.d"),
            bin_dir: dir.path().join("bin"),
            name: "gantry".into(),
            binary: "/usr/local/bin/gantry".into(),
            socket: "/run/gantry/cni.sock".into(),
        };
        install.write().expect("installed");
        install.write().expect("installed again");
        let link = fs::read_link(dir.path().join("bin/gantry-cni")).expect("a link");
        assert_eq!(link, Path::new("/usr/local/bin/gantry"));
        let text = fs::read(dir.path().join("net.d/10-gantry.conflist")).expect("a conflist");
        let conf: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(conf["plugins"][0]["agent"], "/run/gantry/cni.sock");
        assert_eq!(conf["plugins"][0]["capabilities"]["portMappings"], true);
        assert_eq!(fs::read_dir(dir.path().join("net.d")).expect("listed").count(), 1);
        install.remove().expect("removed");
        install.remove().expect("nothing left to remove");
        assert_eq!(fs::read_dir(dir.path().join("bin")).expect("listed").count(), 0);
    }
}
