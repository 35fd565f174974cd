//! `create`: makes objects from files, or the common ones from flags.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Args, Subcommand};
use gantry_client::https::{Request, query};
use http::Method;
use serde_json::{Value, json};

use crate::error::{CliError, Result, fail};
use crate::manifest::{self, Document};
use crate::options::Session;
use crate::output::{self, Format, OutputOptions};
use crate::select::{self, Target};
use crate::verbs::apply::{self, MANAGER};

/// Create objects: create -f web.yaml, create namespace x, create configmap c --from-literal=a=b
#[derive(Args, Debug)]
pub struct CreateArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Files, folders, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_delimiter = ',')]
    files: Vec<String>,
    /// Read folders with all that is below them
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct Common {
    /// json, yaml, name or jsonpath=TEMPLATE
    #[arg(short = 'o', long, global = true, value_name = "FORMAT")]
    output: Option<String>,
    /// Only try: none, client (send nothing) or server
    #[arg(long, global = true, value_name = "HOW", default_value = "none", num_args = 0..=1,
        default_missing_value = "server", require_equals = true)]
    dry_run: String,
    /// What to do about unknown fields: strict, warn or ignore
    #[arg(long, global = true, value_name = "HOW", default_value = "strict")]
    validate: String,
}

impl Common {
    fn output(&self) -> OutputOptions {
        OutputOptions { output: self.output.clone(), show_managed_fields: false }
    }
}

#[derive(Subcommand, Debug)]
enum What {
    /// A namespace
    #[command(alias = "ns")]
    Namespace(Named),
    /// A service account
    #[command(alias = "sa")]
    Serviceaccount(Named),
    /// A configmap from files and literals
    #[command(alias = "cm")]
    Configmap(WithData),
    /// A secret
    Secret(SecretArgs),
    /// A deployment of one image
    #[command(alias = "deploy")]
    Deployment(DeploymentArgs),
    /// A job of one image, or from a cron job
    Job(JobArgs),
}

#[derive(Args, Debug)]
struct Named {
    /// Its name
    name: String,
}

#[derive(Args, Debug)]
struct WithData {
    /// Its name
    name: String,
    /// KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// A file, a folder, or KEY=FILE
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,
    /// A file of KEY=VALUE lines
    #[arg(long, value_name = "FILE")]
    from_env_file: Vec<String>,
}

#[derive(Args, Debug)]
struct SecretArgs {
    #[command(subcommand)]
    kind: SecretKind,
}

#[derive(Subcommand, Debug)]
enum SecretKind {
    /// From files and literals
    Generic(GenericSecret),
    /// A certificate and its key
    Tls(TlsSecret),
}

#[derive(Args, Debug)]
struct GenericSecret {
    #[command(flatten)]
    data: WithData,
    /// Its type
    #[arg(long = "type", default_value = "Opaque")]
    kind: String,
}

#[derive(Args, Debug)]
struct TlsSecret {
    /// Its name
    name: String,
    /// The certificate, PEM
    #[arg(long)]
    cert: String,
    /// The key, PEM
    #[arg(long)]
    key: String,
}

#[derive(Args, Debug)]
struct DeploymentArgs {
    /// Its name
    name: String,
    /// The image
    #[arg(long, required = true)]
    image: Vec<String>,
    /// How many pods
    #[arg(long, default_value_t = 1)]
    replicas: u32,
    /// The port that the container listens on
    #[arg(long)]
    port: Option<u16>,
    /// The command and its arguments
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Args, Debug)]
struct JobArgs {
    /// Its name
    name: String,
    /// The image
    #[arg(long, required_unless_present = "from")]
    image: Option<String>,
    /// The cron job whose template to run, cronjob/NAME
    #[arg(long, conflicts_with = "image")]
    from: Option<String>,
    /// The command and its arguments
    #[arg(last = true)]
    command: Vec<String>,
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: CreateArgs) -> Result<()> {
    let Some(what) = args.what else {
        if args.files.is_empty() {
            return fail("must specify one of -f or a kind to create");
        }
        return from_files(session, &args.files, args.recursive, &args.common).await;
    };
    if !args.files.is_empty() {
        return fail("-f and a kind to create cannot be specified together");
    }
    let object = match what {
        What::Namespace(a) => json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": a.name}}),
        What::Serviceaccount(a) => {
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": a.name}})
        }
        What::Configmap(a) => config_map(&a)?,
        What::Secret(SecretArgs { kind: SecretKind::Generic(a) }) => {
            secret(&a.data.name, &a.kind, &data(&a.data)?)
        }
        What::Secret(SecretArgs { kind: SecretKind::Tls(a) }) => {
            let data = BTreeMap::from([
                ("tls.crt".to_owned(), file(&a.cert)?),
                ("tls.key".to_owned(), file(&a.key)?),
            ]);
            secret(&a.name, "kubernetes.io/tls", &data)
        }
        What::Deployment(a) => deployment(&a),
        What::Job(a) => job(session, &a).await?,
    };
    create_all(session, vec![Document { object, source: String::new() }], &args.common).await
}

async fn from_files(session: &Session, files: &[String], recursive: bool, common: &Common) -> Result<()> {
    let mut documents = manifest::read(files, recursive)?;
    if documents.is_empty() {
        return fail("no objects passed to create");
    }
    manifest::sort_for_creation(&mut documents);
    create_all(session, documents, common).await
}

async fn create_all(session: &Session, documents: Vec<Document>, common: &Common) -> Result<()> {
    let discovery = session.discovery().await?;
    let mut errors = Vec::new();
    for document in documents {
        let source = Some(document.source.clone()).filter(|s| !s.is_empty());
        let result = match discovery.of_object(document.api_version(), document.kind()) {
            None => Err(select::no_match(&document)),
            Some(found) => match select::of_document(session, found, document) {
                Ok(target) => create(session, &target, common).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = result {
            errors.push(error.from_source("creating", source.as_deref()));
        }
    }
    CliError::of(errors)
}

async fn create(session: &Session, target: &Target, common: &Common) -> Result<()> {
    let object = target.object.clone().unwrap_or_default();
    if common.dry_run == "client" {
        return match common.output().format()? {
            Format::Table { .. } => {
                output::report(&common.output(), &target.found, target.name(), &object, "created (dry run)")
            }
            format => {
                output::print_objects(&format, &common.output(), vec![(target.found.clone(), object)], true)
            }
        };
    }
    let dry = apply::is_dry(&common.dry_run)?;
    let mut pairs = vec![
        ("fieldManager", MANAGER.to_owned()),
        ("fieldValidation", apply::field_validation(&common.validate)?.to_owned()),
    ];
    if dry {
        pairs.push(("dryRun", "All".into()));
    }
    let path = format!("{}{}", target.collection_path(), query(&pairs));
    let request = Request::send(Method::POST, path, "application/json", Bytes::from(object.to_string()));
    let reply = session.client.send(request).await?;
    output::warn(&reply.warnings);
    let created = select::json(&reply.body)?;
    let name = created["metadata"]["name"].as_str().unwrap_or("").to_owned();
    let operation = if dry { "created (server dry run)" } else { "created" };
    output::report(&common.output(), &target.found, &name, &created, operation)
}

fn file(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| CliError::message(format!("error reading {path}: {e}")))
}

/// Keys and values from all three kinds of flags.
fn data(args: &WithData) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut data = BTreeMap::new();
    let mut add = |key: String, value: Vec<u8>| {
        if data.insert(key.clone(), value).is_some() {
            return fail(format!("cannot add key {key:?}, another key by that name already exists"));
        }
        Ok(())
    };
    for literal in &args.from_literal {
        let Some((key, value)) = literal.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return fail(format!("invalid literal source {literal}, expected key=value"));
        };
        add(key.to_owned(), value.trim_matches(['"', '\'']).as_bytes().to_vec())?;
    }
    for source in &args.from_file {
        let (key, path) = match source.split_once('=') {
            Some((key, path)) => (Some(key.to_owned()), path),
            None => (None, source.as_str()),
        };
        let base = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if Path::new(path).is_dir() {
            if key.is_some() {
                return fail("cannot give a key name for a directory path");
            }
            for entry in std::fs::read_dir(path)? {
                let entry = entry?.path();
                if entry.is_file() {
                    add(base(&entry), std::fs::read(&entry)?)?;
                }
            }
            continue;
        }
        add(key.unwrap_or_else(|| base(Path::new(path))), file(path)?)?;
    }
    for path in &args.from_env_file {
        let text = String::from_utf8(file(path)?)
            .map_err(|_| CliError::message(format!("{path} has invalid utf8 bytes")))?;
        for line in text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (key, value) = match line.split_once('=') {
                Some((key, value)) => (key, value.to_owned()),
                None => (line, std::env::var(line).unwrap_or_default()),
            };
            add(key.to_owned(), value.into_bytes())?;
        }
    }
    Ok(data)
}

fn config_map(args: &WithData) -> Result<Value> {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": args.name}});
    for (key, value) in data(args)? {
        match String::from_utf8(value) {
            Ok(text) => object["data"][key] = text.into(),
            Err(error) => object["binaryData"][key] = STANDARD.encode(error.as_bytes()).into(),
        }
    }
    Ok(object)
}

fn secret(name: &str, kind: &str, data: &BTreeMap<String, Vec<u8>>) -> Value {
    let data: BTreeMap<&String, String> =
        data.iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "data": data})
}

/// A container is called as its image is, without registry and tag.
fn container(image: &str, command: &[String], port: Option<u16>) -> Value {
    let name = image.rsplit('/').next().unwrap_or(image);
    let name = name.split(['@', ':']).next().unwrap_or(name).replace(['_', '.'], "-");
    let mut container = json!({"name": name, "image": image});
    if !command.is_empty() {
        container["command"] = command.into();
    }
    if let Some(port) = port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    container
}

fn deployment(args: &DeploymentArgs) -> Value {
    let labels = json!({"app": args.name});
    let containers: Vec<Value> = args.image.iter().map(|i| container(i, &args.command, args.port)).collect();
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": args.name, "labels": labels},
        "spec": {"replicas": args.replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}})
}

async fn job(session: &Session, args: &JobArgs) -> Result<Value> {
    let mut object = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": args.name}});
    if let Some(from) = &args.from {
        let target = crate::verbs::workload::target(session, from).await?;
        if target.found.resource.kind != "CronJob" {
            return fail(format!("unknown object type {}", target.found.resource.kind));
        }
        let cron = select::object(session, &target).await?;
        object["spec"] = cron["spec"]["jobTemplate"]["spec"].clone();
        for field in ["labels", "annotations"] {
            object["metadata"][field] = cron["spec"]["jobTemplate"]["metadata"][field].clone();
        }
        object["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] = "manual".into();
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "CronJob",
            "name": cron["metadata"]["name"], "uid": cron["metadata"]["uid"], "controller": true}]);
        return Ok(object);
    }
    let mut container = container(args.image.as_deref().unwrap_or(""), &args.command, None);
    container["name"] = args.name.clone().into();
    object["spec"] = json!({"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}});
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_called_as_their_images() {
        assert_eq!(container("docker.io/library/nginx:1.2", &[], None)["name"], "nginx");
        assert_eq!(container("nginx@sha256:00", &[], Some(80))["ports"][0]["containerPort"], 80);
    }
}
