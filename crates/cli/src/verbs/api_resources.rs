//! `api-resources`: what the server serves.

use std::io::Write;

use clap::Args;

use crate::discovery::Found;
use crate::error::{Result, fail};
use crate::options::Session;
use crate::output::table::Lines;

/// Show which kinds the server knows
#[derive(Args, Debug)]
pub struct ApiResourcesArgs {
    /// Only those in (or, =false, not in) namespaces
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    namespaced: Option<bool>,
    /// Only those of this group; empty for the core group
    #[arg(long)]
    api_group: Option<String>,
    /// Only those that can all of this: list,get,watch
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// Only those of all of these categories
    #[arg(long, value_delimiter = ',')]
    categories: Vec<String>,
    /// wide or name
    #[arg(short = 'o', long, value_name = "FORMAT")]
    output: Option<String>,
    /// No line with the columns' names
    #[arg(long)]
    no_headers: bool,
}

impl ApiResourcesArgs {
    fn wants(&self, found: &Found) -> bool {
        found.preferred
            && self.namespaced.is_none_or(|n| n == found.resource.namespaced)
            && self.api_group.as_ref().is_none_or(|g| *g == found.resource.group)
            && self.verbs.iter().all(|verb| found.can(verb))
            && self.categories.iter().all(|c| found.categories.contains(c))
    }
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: ApiResourcesArgs) -> Result<()> {
    let mut found: Vec<&Found> = session.discovery().await?.all().iter().filter(|f| args.wants(f)).collect();
    found.sort_by_key(|f| (f.resource.group.clone(), f.resource.plural.clone()));
    let mut out = std::io::stdout().lock();
    let wide = match args.output.as_deref() {
        None | Some("") => false,
        Some("wide") => true,
        Some("name") => {
            for found in found {
                writeln!(out, "{}", found.resource.qualified())?;
            }
            return Ok(());
        }
        Some(other) => return fail(format!("--output {other} is not available")),
    };
    let mut header = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"].map(str::to_owned).to_vec();
    if wide {
        header.extend(["VERBS", "CATEGORIES"].map(str::to_owned));
    }
    let mut table = Lines::new(header);
    for found in found {
        let mut row = vec![
            found.resource.plural.to_string(),
            found.short_names.join(","),
            found.resource.api_version(),
            found.resource.namespaced.to_string(),
            found.resource.kind.to_string(),
        ];
        if wide {
            row.extend([found.verbs.join(","), found.categories.join(",")]);
        }
        table.push(row);
    }
    Ok(out.write_all(table.render(!args.no_headers).as_bytes())?)
}
