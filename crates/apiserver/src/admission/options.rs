//! Which plugins run, and what each is told: `--enable-admission-plugins`, `--disable-admission-plugins` and the
//! `AdmissionConfiguration` of `--admission-control-config-file`.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_base::error::Context;
use gantry_base::image::ImagePolicy;
use gantry_base::{Class, Error, Result};
use serde::Deserialize;
use serde_json::Value;

use super::registry::{is_on_by_default, names};

/// What of admission can be chosen.
#[derive(Clone, Debug, Default)]
pub struct AdmissionOptions {
    enabled: Vec<String>,
    disabled: Vec<String>,
    configurations: BTreeMap<String, Value>,
    images: ImagePolicy,
}

impl AdmissionOptions {
    /// The default plugins, and those that are `enable`d, without those that are `disable`d.
    ///
    /// # Errors
    /// A name that is none of a plugin, or one that is in both lists.
    pub fn new(enable: &[String], disable: &[String]) -> Result<Self> {
        let known = |flag: &str, name: &String| match names().any(|known| known == name) {
            true => Ok(()),
            false => Err(Error::invalid(format!("{flag} plugin {name:?} is unknown"))),
        };
        enable.iter().try_for_each(|name| known("enable-admission-plugins", name))?;
        disable.iter().try_for_each(|name| known("disable-admission-plugins", name))?;
        let both: Vec<&str> = enable.iter().filter(|n| disable.contains(n)).map(String::as_str).collect();
        if !both.is_empty() {
            return Err(Error::invalid(format!(
                "[{}] in enable-admission-plugins and disable-admission-plugins overlapped",
                both.join(" ")
            )));
        }
        Ok(Self { enabled: enable.to_vec(), disabled: disable.to_vec(), ..Self::default() })
    }

    /// Reads an `AdmissionConfiguration`; paths in it are relative to the file.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn configured_by(mut self, file: &Path) -> Result<Self> {
        let document: Document = read(file)?;
        if document.kind != "AdmissionConfiguration" {
            return Err(Error::invalid(format!("{}: unexpected type: {}", file.display(), document.kind)));
        }
        for plugin in document.plugins {
            let configuration = match (plugin.configuration, plugin.path.as_str()) {
                (Some(inline), _) => inline,
                (None, "") => continue,
                (None, path) => read(&file.parent().unwrap_or(Path::new(".")).join(path))?,
            };
            self.configurations.insert(plugin.name, configuration);
        }
        Ok(self)
    }

    /// The same with this configuration of a plugin.
    #[must_use]
    pub fn with(mut self, plugin: &str, configuration: Value) -> Self {
        self.configurations.insert(plugin.to_owned(), configuration);
        self
    }

    /// The same with these rules on images.
    #[must_use]
    pub fn with_images(mut self, policy: ImagePolicy) -> Self {
        self.images = policy;
        self
    }

    /// The rules on images.
    pub(super) fn images(&self) -> &ImagePolicy {
        &self.images
    }

    /// Whether the plugin of this name runs.
    pub(super) fn runs(&self, name: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|n| n == name);
        named(&self.enabled) || (is_on_by_default(name) && !named(&self.disabled))
    }

    /// What the plugin of this name is told.
    pub(super) fn configuration(&self, name: &str) -> Option<&Value> {
        self.configurations.get(name)
    }

    /// The same as its own type; the default if it is told nothing.
    ///
    /// # Errors
    /// The configuration is none of that plugin.
    pub(super) fn configuration_of<T: Default + for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T> {
        match self.configuration(name) {
            None => Ok(T::default()),
            Some(value) => T::deserialize(value).context(Class::Invalid, format!("{name}'s configuration")),
        }
    }
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Document {
    kind: String,
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Plugin {
    name: String,
    path: String,
    configuration: Option<Value>,
}

fn read<T: for<'de> Deserialize<'de>>(file: &Path) -> Result<T> {
    let text = std::fs::read_to_string(file).context(Class::Missing, file.display().to_string())?;
    serde_saphyr::from_str(&text)
        .map_err(|e| Error::invalid(format!("admission configuration {}: {e}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn plugins_are_selected_as_upstream_selects_them() {
        let options =
            AdmissionOptions::new(&owned(&["AlwaysPullImages"]), &owned(&["PodSecurity"])).expect("options");
        assert!(options.runs("AlwaysPullImages") && options.runs("NamespaceLifecycle"));
        assert!(!options.runs("PodSecurity") && !options.runs("AlwaysDeny"));
        let error = AdmissionOptions::new(&owned(&["Nope"]), &[]).expect_err("unknown");
        assert_eq!(error.to_string(), r#"enable-admission-plugins plugin "Nope" is unknown"#);
        let both = owned(&["Priority"]);
        let error = AdmissionOptions::new(&both, &both).expect_err("in both");
        assert!(error.to_string().contains("[Priority] in enable-admission-plugins and"), "{error}");
    }

    #[test]
    fn plugins_are_configured_by_a_file_and_by_files_that_it_names() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("admission.yaml");
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: A\n  configuration: {x: 1}\n- name: B\n  path: b.yaml\n";
        std::fs::write(&file, text).expect("written");
        std::fs::write(dir.path().join("b.yaml"), "y: 2\n").expect("written");
        let options = AdmissionOptions::default().configured_by(&file).expect("options");
        assert_eq!(options.configuration("A").map(|v| &v["x"]), Some(&serde_json::json!(1)));
        assert_eq!(options.configuration("B").map(|v| &v["y"]), Some(&serde_json::json!(2)));
        assert!(AdmissionOptions::default().configured_by(&dir.path().join("b.yaml")).is_err());
    }
}
