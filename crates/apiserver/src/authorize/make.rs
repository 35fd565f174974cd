//! Puts together who decides what users may do: from flags and files.

use std::sync::Arc;

use gantry_base::{Clock, Error, Result, Tasks};

use super::abac::Abac;
use super::config::{HookPlace, Mode, Options};
use super::webhook::{Conditions, Webhook};
use super::{AllowAll, Authorizer, DenyAll, NodeAuthorizer, Rbac, Union};
use crate::callout::{Callout, Config};
use crate::limits::RELOAD_INTERVAL;

/// What the authorizers are made of.
pub(crate) struct Deps<'a> {
    pub(crate) node: Arc<NodeAuthorizer>,
    pub(crate) rbac: Arc<Rbac>,
    pub(crate) callout: &'a Callout,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: &'a Tasks,
}

/// The authorizers that `options` name. A configuration file is read anew from time to time.
///
/// # Errors
/// A flag or file that cannot be understood; names it.
pub(crate) fn make(options: &Options, deps: &Deps<'_>) -> Result<Arc<Union>> {
    let maker = Maker {
        node: Arc::clone(&deps.node),
        rbac: Arc::clone(&deps.rbac),
        callout: deps.callout.clone(),
        clock: Arc::clone(&deps.clock),
    };
    let modes = options.modes()?;
    let union = Arc::new(Union::new(maker.links(&modes)?));
    if options.config_file.is_some() {
        let (union, options) = (Arc::clone(&union), options.clone());
        deps.tasks.spawn("authorization configuration", async move {
            let mut last = modes;
            loop {
                tokio::time::sleep(RELOAD_INTERVAL).await;
                let read = options.modes().and_then(|modes| {
                    if modes == last { Ok(None) } else { Ok(Some((maker.links(&modes)?, modes))) }
                });
                match read {
                    Ok(None) => {}
                    Ok(Some((links, modes))) => {
                        union.replace(links);
                        last = modes;
                        tracing::info!("the authorization configuration was reloaded");
                    }
                    Err(error) => tracing::error!(%error, "the authorization configuration stays as it is"),
                }
            }
        });
    }
    Ok(union)
}

struct Maker {
    node: Arc<NodeAuthorizer>,
    rbac: Arc<Rbac>,
    callout: Callout,
    clock: Arc<dyn Clock>,
}

impl Maker {
    fn links(&self, modes: &[Mode]) -> Result<Vec<Arc<dyn Authorizer>>> {
        modes.iter().map(|mode| self.link(mode)).collect()
    }

    fn link(&self, mode: &Mode) -> Result<Arc<dyn Authorizer>> {
        Ok(match mode {
            Mode::AlwaysAllow => Arc::new(AllowAll),
            Mode::AlwaysDeny => Arc::new(DenyAll),
            Mode::Abac(path) => Arc::new(Abac::read(path)?),
            Mode::Node => Arc::clone(&self.node) as _,
            Mode::Rbac => Arc::clone(&self.rbac) as _,
            Mode::Webhook(hook) => {
                let (config, named) = match &hook.place {
                    HookPlace::Kubeconfig(path) => {
                        (Config::from_kubeconfig(path), path.display().to_string())
                    }
                    HookPlace::InCluster => {
                        (Config::in_cluster(&|name| std::env::var(name).ok()), hook.settings.name.clone())
                    }
                };
                let doing = || format!("authorization webhook {named}");
                let config = config.map_err(|e| e.while_doing(doing()))?;
                let caller = self.callout.caller(&config).map_err(|e| e.while_doing(doing()))?;
                let mut faults = Vec::new();
                let path = gantry_api::field::Path::new("webhook");
                let conditions = Conditions::compile(&hook.conditions, &path, &mut faults);
                if let Some(fault) = faults.first() {
                    return Err(Error::invalid(fault.to_string()));
                }
                let clock = Arc::clone(&self.clock);
                Arc::new(Webhook::new(caller, hook.settings.clone(), conditions, clock))
            }
        })
    }
}
