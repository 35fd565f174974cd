//! Query parameters and the options that they spell.

use std::time::Duration;

use gantry_api::field::{self, Path};
use gantry_api::status::Result;
use gantry_api::{ApiError, FieldSelector, LabelSelector, Resource};

use crate::route::percent_decode;

/// The parameters of a URL in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let decode = |part: &str| percent_decode(&part.replace('+', " "));
        let pair = |part: &str| match part.split_once('=') {
            Some((key, value)) => (decode(key), decode(value)),
            None => (decode(part), String::new()),
        };
        Self { pairs: text.split('&').filter(|part| !part.is_empty()).map(pair).collect() }
    }

    /// The first value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of `key`.
    pub(crate) fn all(&self, key: &str) -> Vec<&str> {
        self.pairs.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect()
    }

    /// A boolean parameter: there, and neither `false` nor `0`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// A number; `None` if there is none.
    ///
    /// # Errors
    /// 400
    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|e: std::num::ParseIntError| {
                use std::num::IntErrorKind::{NegOverflow, PosOverflow};
                let quoted = field::quote(text);
                let why = match e.kind() {
                    PosOverflow | NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                ApiError::bad_request(format!("strconv.ParseInt: parsing {quoted}: {why}"))
            }),
        }
    }
}

/// `resourceVersionMatch`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Exact,
    NotOlderThan,
    /// What nobody knows: validation says so.
    Other(String),
}

/// `ListOptions`
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
    pub(crate) limit: usize,
    pub(crate) continue_token: String,
    /// `None` if the client named none.
    pub(crate) revision: Option<u64>,
    pub(crate) version_match: Option<VersionMatch>,
    pub(crate) bookmarks: bool,
    pub(crate) initial_events: Option<bool>,
    pub(crate) timeout: Option<Duration>,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self> {
        let bad = |e: gantry_api::selector::SelectorError| ApiError::bad_request(e.to_string());
        let revision = parse_revision(query.get("resourceVersion").unwrap_or(""));
        let timeout = query.number("timeoutSeconds")?;
        let options = Self {
            labels: LabelSelector::parse(query.get("labelSelector").unwrap_or("")).map_err(bad)?,
            fields: FieldSelector::parse(query.get("fieldSelector").unwrap_or("")).map_err(bad)?,
            limit: usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(0),
            continue_token: query.get("continue").unwrap_or("").to_owned(),
            revision: *revision.as_ref().unwrap_or(&Some(1)),
            version_match: parse_match(query.get("resourceVersionMatch").unwrap_or("")),
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
            timeout: timeout.and_then(|t| u64::try_from(t).ok()).filter(|t| *t > 0).map(Duration::from_secs),
        };
        // What stands together is judged before the revision is read.
        if let Err(why) = revision {
            options.validate(false)?;
            return Err(why);
        }
        Ok(options)
    }

    /// The options of a watch: its revision is read last, and what is none is upstream's own failure.
    ///
    /// # Errors
    /// 400, 422, and 500 for a revision that is none.
    pub(crate) fn parse_watch(query: &Query) -> Result<Self> {
        let Err(why) = parse_revision(query.get("resourceVersion").unwrap_or("")) else {
            return Self::parse(query);
        };
        let mut rest = query.clone();
        rest.pairs.retain(|(key, _)| key != "resourceVersion");
        Self::parse(&rest)?.validate(true)?;
        Err(ApiError::new(500, "", why.message().trim_start_matches("invalid resource version: ")))
    }

    /// Checks what may stand together, as `ValidateListOptions` does.
    ///
    /// # Errors
    /// 422
    pub(crate) fn validate(&self, watch: bool) -> Result<()> {
        let errors = if watch { self.problems_of_watch() } else { self.problems_of_list() };
        refuse("ListOptions", &errors)
    }

    fn problems_of_list(&self) -> Vec<field::Error> {
        let mut errors = Vec::new();
        let path = Path::new("resourceVersionMatch");
        let mut forbidden = |why: &str| errors.push(field::Error::forbidden(&path, why));
        if let Some(version_match) = &self.version_match {
            if self.revision.is_none() {
                forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !self.continue_token.is_empty() {
                forbidden("resourceVersionMatch is forbidden when continue is provided");
            }
            match version_match {
                VersionMatch::Other(text) => errors.push(field::Error::not_supported(
                    &path,
                    text.as_str(),
                    &["Exact", "NotOlderThan", ""],
                )),
                VersionMatch::Exact if self.revision == Some(0) => {
                    forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
                }
                _ => {}
            }
        }
        if self.initial_events.is_some() {
            let path = Path::new("sendInitialEvents");
            errors.push(field::Error::forbidden(&path, "sendInitialEvents is forbidden for list"));
        }
        errors
    }

    fn problems_of_watch(&self) -> Vec<field::Error> {
        let mut errors = Vec::new();
        let path = Path::new("resourceVersionMatch");
        let not_older = self.version_match == Some(VersionMatch::NotOlderThan);
        let mut forbidden = |why: &str| errors.push(field::Error::forbidden(&path, why));
        if self.initial_events.is_some() && !not_older {
            forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        let no_continue = || {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            (!self.continue_token.is_empty()).then(|| field::Error::forbidden(&path, why))
        };
        let Some(version_match) = &self.version_match else {
            errors.extend(no_continue());
            return errors;
        };
        if self.initial_events.is_none() {
            forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if !not_older {
            let value = match version_match {
                VersionMatch::Other(text) => text.as_str(),
                _ => "Exact",
            };
            errors.push(field::Error::not_supported(&path, value, &["NotOlderThan"]));
        }
        errors.extend(no_continue());
        errors
    }

    /// Whether a watch begins with the objects that there are: as the client says, or because it names no revision.
    pub(crate) fn wants_initial_events(&self) -> bool {
        self.initial_events.unwrap_or(self.revision.is_none_or(|revision| revision == 0))
    }
}

/// Reads a `resourceVersion`: `None` if it is empty.
pub(crate) fn parse_revision(text: &str) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let quoted = field::quote(text);
        ApiError::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {quoted}: strconv.ParseUint: parsing {quoted}: invalid syntax"
        ))
    })
}

/// The same error as the storage has it, which a get and a watch ask first.
pub(crate) fn of_storage(error: ApiError) -> ApiError {
    match error.message().strip_prefix("invalid resource version: ") {
        Some(text) => ApiError::new(500, "", text),
        None => error,
    }
}

pub(crate) fn parse_match(text: &str) -> Option<VersionMatch> {
    match text {
        "" => None,
        "Exact" => Some(VersionMatch::Exact),
        "NotOlderThan" => Some(VersionMatch::NotOlderThan),
        other => Some(VersionMatch::Other(other.to_owned())),
    }
}

/// `fieldValidation`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// The options of create, update, patch and apply.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    /// Empty if the client named none.
    pub(crate) field_manager: String,
    /// Who stands in for it: made of the user agent.
    pub(crate) default_manager: String,
    pub(crate) force: Option<bool>,
    pub(crate) validation: FieldValidation,
}

/// Longest field manager.
const MAX_MANAGER_LEN: usize = 128;

impl WriteOptions {
    pub(crate) fn parse(query: &Query, user_agent: &str, options: &str) -> Result<Self> {
        let manager = query.get("fieldManager").unwrap_or("");
        let mut errors = manager_errors(manager);
        let dry_run = query.all("dryRun");
        errors.extend(dry_run_error(&dry_run));
        let validation = read_validation(query.get("fieldValidation").unwrap_or(""), &mut errors);
        refuse(options, &errors)?;
        Ok(Self {
            dry_run: is_dry(&dry_run),
            field_manager: manager.to_owned(),
            default_manager: manager_of(user_agent),
            force: query.get("force").map(|_| query.flag("force")),
            validation,
        })
    }

    /// The manager that writes are recorded under.
    pub(crate) fn manager(&self) -> &str {
        if self.field_manager.is_empty() { &self.default_manager } else { &self.field_manager }
    }
}

/// 422 for the options of a request (`CreateOptions`, …), if there is anything wrong with them.
pub(crate) fn refuse(options: &str, errors: &[field::Error]) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let kind = options.to_owned().into();
    let resource = Resource { kind, ..Resource::fixed("meta.k8s.io", "v1", "", "", false) };
    Err(ApiError::invalid(&resource, "", errors))
}

pub(crate) fn parse_validation(text: &str, options: &str) -> Result<FieldValidation> {
    let mut errors = Vec::new();
    let validation = read_validation(text, &mut errors);
    refuse(options, &errors)?;
    Ok(validation)
}

fn read_validation(text: &str, errors: &mut Vec<field::Error>) -> FieldValidation {
    match text {
        "Ignore" => FieldValidation::Ignore,
        "Warn" | "" => FieldValidation::Warn,
        "Strict" => FieldValidation::Strict,
        other => {
            let known = ["", "Ignore", "Strict", "Warn"];
            errors.push(field::Error::not_supported(&field::Path::new("fieldValidation"), other, &known));
            FieldValidation::Warn
        }
    }
}

fn manager_errors(manager: &str) -> Vec<field::Error> {
    let path = field::Path::new("fieldManager");
    let mut errors = Vec::new();
    if manager.len() > MAX_MANAGER_LEN {
        errors.push(field::Error::too_long(&path, MAX_MANAGER_LEN));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| !is_printable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(field::Error::invalid(&path, manager, why));
    }
    errors
}

/// As Go's `unicode.IsPrint`, as far as it matters: no control character, and no space but the plain one.
fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}

fn is_dry(values: &[&str]) -> bool {
    values.contains(&"All")
}

fn dry_run_error(values: &[&str]) -> Option<field::Error> {
    let fits = values.iter().all(|value| *value == "All");
    (!fits).then(|| field::Error::not_supported(&field::Path::new("dryRun"), values.to_vec(), &["All"]))
}

pub(crate) fn parse_dry_run(values: &[&str], options: &str) -> Result<bool> {
    let error = dry_run_error(values);
    refuse(options, error.as_slice())?;
    Ok(is_dry(values))
}

/// The manager that stands for a client which named none: the first word of its user agent.
pub(crate) fn manager_of(user_agent: &str) -> String {
    let word = user_agent.split('/').next().unwrap_or("");
    let mut name: String = word.chars().filter(|c| is_printable(*c)).collect();
    let mut end = name.len().min(MAX_MANAGER_LEN);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    if name.is_empty() { "unknown".to_owned() } else { name }
}
