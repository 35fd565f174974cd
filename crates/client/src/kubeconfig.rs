//! Kubeconfig files: which server, which user, which namespace.
//!
//! Source: `client-go/tools/clientcmd/api/v1`; files of `$KUBECONFIG` are merged, the first that names a thing wins.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};
use serde::Deserialize;
use serde_json::json;

use crate::https::{Basic, HttpsConfig, Identity, Token};

/// The largest kubeconfig file read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// What a kubeconfig says once a context is chosen.
#[derive(Clone, Debug)]
pub struct Selected {
    /// How to reach the server, and as whom.
    pub https: HttpsConfig,
    /// The context's namespace, `default` if it has none.
    pub namespace: String,
    /// The context's name; empty if there is none.
    pub context: String,
}

/// All files, merged.
#[derive(Clone, Debug, Default)]
pub struct Kubeconfig {
    clusters: BTreeMap<String, (Cluster, PathBuf)>,
    users: BTreeMap<String, (User, PathBuf)>,
    contexts: BTreeMap<String, ContextEntry>,
    current: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
    contexts: Option<Vec<NamedContext>>,
    current_context: Option<String>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: ContextEntry,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    username: Option<String>,
    password: Option<String>,
    exec: Option<serde_json::Value>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
    #[serde(rename = "as-groups")]
    impersonate_groups: Option<Vec<String>>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("User(…)")
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContextEntry {
    cluster: String,
    user: String,
    namespace: Option<String>,
}

/// The files to read: `explicit` alone, or those of `$KUBECONFIG`, or `~/.kube/config`. Those that do not exist are
/// left out, unless asked for by name.
///
/// # Errors
/// `Missing` if the explicit one is not there.
pub fn paths(explicit: Option<&Path>) -> Result<Vec<PathBuf>> {
    if let Some(path) = explicit {
        if !path.exists() {
            return Err(Error::missing(format!("stat {}: no such file or directory", path.display())));
        }
        return Ok(vec![path.to_owned()]);
    }
    let list = std::env::var_os("KUBECONFIG").filter(|l| !l.is_empty());
    Ok(candidates(list.as_deref(), std::env::var_os("HOME").as_deref()))
}

fn candidates(list: Option<&OsStr>, home: Option<&OsStr>) -> Vec<PathBuf> {
    let paths: Vec<PathBuf> = match (list, home) {
        (Some(list), _) => std::env::split_paths(list).filter(|p| !p.as_os_str().is_empty()).collect(),
        (None, Some(home)) => vec![Path::new(home).join(".kube/config")],
        (None, None) => Vec::new(),
    };
    paths.into_iter().filter(|p| p.exists()).collect()
}

impl Kubeconfig {
    /// Reads one file.
    ///
    /// # Errors
    /// The file cannot be read or is no kubeconfig.
    pub fn read(path: &Path) -> Result<Self> {
        Self::load(&[path.to_owned()])
    }

    /// Reads and merges `paths`.
    ///
    /// # Errors
    /// A file cannot be read or is no kubeconfig.
    pub fn load(paths: &[PathBuf]) -> Result<Self> {
        let mut merged = Self::default();
        for path in paths {
            let doing = || format!("read the kubeconfig {}", path.display());
            let metadata = std::fs::metadata(path).map_err(|e| Error::from(e).while_doing(doing()))?;
            if metadata.len() > MAX_FILE {
                return Err(Error::invalid(format!("{} is too large for a kubeconfig", path.display())));
            }
            let text = std::fs::read_to_string(path).map_err(|e| Error::from(e).while_doing(doing()))?;
            merged.merge(&text, path).map_err(|e| e.while_doing(doing()))?;
        }
        Ok(merged)
    }

    fn merge(&mut self, text: &str, path: &Path) -> Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let file: File = serde_saphyr::from_str(text).context(Class::Invalid, "it is no kubeconfig")?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        for entry in file.clusters.into_iter().flatten() {
            self.clusters.entry(entry.name).or_insert((entry.cluster, folder.clone()));
        }
        for entry in file.users.into_iter().flatten() {
            self.users.entry(entry.name).or_insert((entry.user.unwrap_or_default(), folder.clone()));
        }
        for entry in file.contexts.into_iter().flatten() {
            self.contexts.entry(entry.name).or_insert(entry.context);
        }
        if self.current.is_empty() {
            self.current = file.current_context.unwrap_or_default();
        }
        Ok(())
    }

    /// The contexts' names.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        self.contexts.keys().map(String::as_str)
    }

    /// The current context's name; empty if none is set.
    pub fn current_context(&self) -> &str {
        &self.current
    }

    /// What `context` (or, without one, the current one) says.
    ///
    /// # Errors
    /// `Missing` if there is no such context, cluster or user; `Invalid` if a user authenticates in a way that is not
    /// supported.
    pub fn select(&self, context: Option<&str>) -> Result<Selected> {
        let name = context.unwrap_or(&self.current);
        if name.is_empty() {
            return Err(Error::missing(
                "no kubeconfig with a current context was found: set KUBECONFIG or pass --kubeconfig",
            ));
        }
        let entry = self
            .contexts
            .get(name)
            .ok_or_else(|| Error::missing(format!("context {name:?} does not exist")))?;
        let (cluster, folder) = self
            .clusters
            .get(&entry.cluster)
            .ok_or_else(|| Error::missing(format!("cluster {:?} does not exist", entry.cluster)))?;
        let mut https = HttpsConfig::new(&cluster.server);
        https.ca_pem = material(
            cluster.certificate_authority_data.as_ref(),
            cluster.certificate_authority.as_ref(),
            folder,
            "certificate-authority",
        )?;
        https.insecure = cluster.insecure_skip_tls_verify;
        https.tls_server_name = cluster.tls_server_name.clone().filter(|n| !n.is_empty());
        if !entry.user.is_empty() {
            let (user, folder) = self
                .users
                .get(&entry.user)
                .ok_or_else(|| Error::missing(format!("user {:?} does not exist", entry.user)))?;
            identify(&mut https, user, folder)
                .map_err(|e| e.while_doing(format!("user {:?}", entry.user)))?;
        }
        let namespace = entry.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
        Ok(Selected { https, namespace, context: name.to_owned() })
    }
}

fn identify(https: &mut HttpsConfig, user: &User, folder: &Path) -> Result<()> {
    if user.exec.is_some() {
        return Err(Error::invalid(
            "credential plugins (exec) are not supported; use a token or a certificate",
        ));
    }
    let certificate = material(
        user.client_certificate_data.as_ref(),
        user.client_certificate.as_ref(),
        folder,
        "client-certificate",
    )?;
    let key = material(user.client_key_data.as_ref(), user.client_key.as_ref(), folder, "client-key")?;
    https.identity = match (certificate, key) {
        (Some(certificate_pem), Some(key_pem)) => Some(Identity { certificate_pem, key_pem }),
        (None, None) => None,
        (Some(_), None) => return Err(Error::invalid("a client certificate without its key")),
        (None, Some(_)) => return Err(Error::invalid("a client key without its certificate")),
    };
    let filled = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    https.token = filled(&user.token)
        .map(Token::Text)
        .or_else(|| filled(&user.token_file).map(|path| Token::File(folder.join(path))));
    https.basic = filled(&user.username)
        .map(|username| Basic { username, password: user.password.clone().unwrap_or_default() });
    https.impersonate_user = filled(&user.impersonate);
    https.impersonate_groups = user.impersonate_groups.clone().unwrap_or_default();
    Ok(())
}

/// Inline data goes before a file.
fn material(
    data: Option<&String>,
    file: Option<&String>,
    folder: &Path,
    what: &str,
) -> Result<Option<Vec<u8>>> {
    if let Some(data) = data.filter(|d| !d.is_empty()) {
        let bytes =
            STANDARD.decode(data.trim()).context(Class::Invalid, format!("{what}-data is no base64"))?;
        return Ok(Some(bytes));
    }
    let Some(file) = file.filter(|f| !f.is_empty()) else { return Ok(None) };
    let path = folder.join(file);
    let bytes = std::fs::read(&path)
        .map_err(|e| Error::from(e).while_doing(format!("read {what} {}", path.display())))?;
    Ok(Some(bytes))
}

/// Writes a kubeconfig of one cluster, user and context (all called `gantry`), readable by its owner only, in one
/// step: a reader sees the old file or the new one.
///
/// # Errors
/// The folder or file cannot be written.
pub fn write_kubeconfig(
    path: &Path,
    server: &str,
    ca_pem: &[u8],
    certificate_pem: &[u8],
    key_pem: &[u8],
) -> Result<()> {
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "gantry", "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(ca_pem),
        }}],
        "users": [{"name": "gantry", "user": {
            "client-certificate-data": STANDARD.encode(certificate_pem),
            "client-key-data": STANDARD.encode(key_pem),
        }}],
        "contexts": [{"name": "gantry", "context": {"cluster": "gantry", "user": "gantry"}}],
        "current-context": "gantry",
    });
    let options = serde_saphyr::ser_options! { min_fold_chars: usize::MAX };
    let text = serde_saphyr::to_string_with_options(&document, options)
        .context(Class::Bug, "write a kubeconfig as YAML")?;
    write_private(path, text.as_bytes())
        .map_err(|e| Error::from(e).while_doing(format!("write the kubeconfig {}", path.display())))
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or(OsStr::new("kubeconfig")).to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = folder.join(name);
    let written = (|| {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // Whatever went wrong is the error to tell; the remains may not even be there.
        std::fs::remove_file(&temporary).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FILE: &str = r#"
apiVersion: v1
kind: Config
current-context: dev
clusters:
- name: one
  cluster:
    server: https://127.0.0.1:6443
    certificate-authority-data: Q0E=
users:
- name: me
  user:
    token: secret
- name: plugin
  user:
    exec: {command: aws}
contexts:
- name: dev
  context: {cluster: one, user: me, namespace: team}
- name: aws
  context: {cluster: one, user: plugin}
- name: broken
  context: {cluster: two, user: me}
"#;

    fn config() -> Kubeconfig {
        let mut config = Kubeconfig::default();
        config.merge(FILE, Path::new("/etc/x/config")).expect("a kubeconfig");
        config
    }

    #[test]
    fn the_current_context_is_used_unless_another_is_named() {
        let selected = config().select(None).expect("the context is whole");
        assert_eq!(selected.namespace, "team");
        assert_eq!(selected.https.server, "https://127.0.0.1:6443");
        assert_eq!(selected.https.ca_pem.as_deref(), Some(&b"CA"[..]));
        assert!(matches!(selected.https.token, Some(Token::Text(t)) if t == "secret"));
        let error = config().select(Some("aws")).expect_err("no plugins");
        assert!(error.to_string().contains("exec"), "{error}");
        assert_eq!(config().select(Some("broken")).expect_err("no cluster").class(), Class::Missing);
        assert_eq!(config().select(Some("none")).expect_err("no context").class(), Class::Missing);
    }

    #[test]
    fn the_first_file_wins() {
        let mut config = config();
        config
            .merge(&FILE.replace("6443", "1").replace("dev", "prod"), Path::new("b"))
            .expect("a kubeconfig");
        assert_eq!(config.current_context(), "dev");
        assert_eq!(config.contexts().collect::<Vec<_>>(), ["aws", "broken", "dev", "prod"]);
        let selected = config.select(Some("prod")).expect("the context is whole");
        assert_eq!(selected.https.server, "https://127.0.0.1:6443");
    }

    #[test]
    fn what_is_written_can_be_read_and_only_by_its_owner() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("deep/admin.conf");
        write_kubeconfig(&path, "https://[::1]:6443", b"ca", b"crt", b"key").expect("writable");
        write_kubeconfig(&path, "https://[::1]:6443", b"ca", b"crt", b"key").expect("writable again");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let selected = Kubeconfig::load(&[path]).expect("readable").select(None).expect("whole");
        assert_eq!(selected.namespace, "default");
        let identity = selected.https.identity.expect("a certificate");
        assert_eq!((identity.certificate_pem, identity.key_pem), (b"crt".to_vec(), b"key".to_vec()));
    }
}
