//! Projected volumes: several sources in one directory, whose paths may not collide.

use std::collections::BTreeSet;

use gantry_api::core::{KeyToPath, ServiceAccountTokenProjection, VolumeProjection};

use super::super::at::{At, Complaints, items};
use super::options::Options;
use super::volumes::{check_downward_file, check_key, check_local_path};
use crate::kind::Errors;

const COLLISION: &str = "conflicting duplicate paths";

pub(super) fn check_sources(
    sources: &[VolumeProjection],
    at: &At<'_>,
    options: &Options,
    errors: &mut Errors,
) {
    let mut paths = BTreeSet::new();
    let list = at.child("sources");
    for (i, source) in sources.iter().enumerate() {
        let here = list.index(i);
        let mut count = 0;
        if let Some(secret) = &source.secret {
            count += 1;
            let here = here.child("secret");
            errors.needed(&here.child("name"), &secret.name);
            check_items(items(&secret.items), &secret.name, &here, at, &mut paths, errors);
        }
        if let Some(map) = &source.config_map {
            count += 1;
            let here = here.child("configMap");
            errors.needed(&here.child("name"), &map.name);
            check_items(items(&map.items), &map.name, &here, at, &mut paths, errors);
        }
        if let Some(downward) = &source.downward_api {
            count += 1;
            for file in items(&downward.items) {
                check_downward_file(file, &here.child("downwardAPI"), errors);
                if !file.path.is_empty() && !paths.insert(file.path.as_str()) {
                    errors.invalid(at, file.path.as_str(), COLLISION);
                }
            }
        }
        if let Some(token) = &source.service_account_token {
            count += 1;
            check_token(token, &here.child("serviceAccountToken"), at, options, errors);
        }
        if count > 1 {
            errors.forbidden(&here, "may not specify more than 1 volume type per source");
        }
    }
}

fn check_items<'a>(
    keys: &'a [KeyToPath],
    name: &str,
    here: &At<'_>,
    volume: &At<'_>,
    paths: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    let list = here.child("items");
    for (i, key) in keys.iter().enumerate() {
        check_key(key, &list.index(i), errors);
        if !key.path.is_empty() && !paths.insert(key.path.as_str()) {
            errors.invalid(volume, name, COLLISION);
        }
    }
}

fn check_token(
    token: &ServiceAccountTokenProjection,
    here: &At<'_>,
    volume: &At<'_>,
    options: &Options,
    errors: &mut Errors,
) {
    const MIN_SECONDS: i64 = 600;
    const MAX_SECONDS: i64 = 1 << 32;
    let seconds = token.expiration_seconds.unwrap_or(0);
    let expiration = here.child("expirationSeconds");
    if seconds < MIN_SECONDS {
        errors.invalid(&expiration, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > MAX_SECONDS {
        errors.invalid(&expiration, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if token.path.is_empty() {
        errors.required(&volume.child("path"), "");
    } else if !options.distant_token_path {
        check_local_path(&token.path, &volume.child("path"), errors);
    }
}
