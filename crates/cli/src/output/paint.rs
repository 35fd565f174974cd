//! Colours, where a person looks at them: standard output is a terminal and `NO_COLOR` is not set.

use std::io::IsTerminal;
use std::sync::LazyLock;

/// What a cell means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As it should be.
    Good,
    /// On its way.
    Waiting,
    /// Broken.
    Bad,
    /// Nothing in particular.
    Plain,
}

static ENABLED: LazyLock<bool> = LazyLock::new(|| {
    let dumb = crate::options::environment("TERM").is_none_or(|term| term == "dumb");
    std::io::stdout().is_terminal() && crate::options::environment("NO_COLOR").is_none() && !dumb
});

/// Whether colours are wanted.
pub(crate) fn enabled() -> bool {
    *ENABLED
}

/// `text` in bold.
pub(crate) fn bold(text: &str) -> String {
    if enabled() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// `text` in the colour of its mood.
pub(crate) fn mood(text: &str, mood: Mood) -> String {
    let code = match mood {
        Mood::Good => 32,
        Mood::Waiting => 33,
        Mood::Bad => 31,
        Mood::Plain => return text.to_owned(),
    };
    if enabled() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// What a status says.
pub(crate) fn mood_of(status: &str) -> Mood {
    let first = status.split(',').next().unwrap_or(status);
    match first {
        "Running" | "Ready" | "Active" | "Bound" | "Succeeded" | "Completed" | "Complete" | "Available" => {
            Mood::Good
        }
        "Pending" | "ContainerCreating" | "PodInitializing" | "Terminating" | "Unknown" | "Released"
        | "SchedulingDisabled" | "Suspended" => Mood::Waiting,
        _ if first.starts_with("Init:") && !first.contains("Error") && !first.contains("BackOff") => {
            Mood::Waiting
        }
        "Failed" | "Error" | "NotReady" | "Evicted" | "OOMKilled" | "Lost" => Mood::Bad,
        _ if first.contains("BackOff") || first.contains("Err") || first.contains("Invalid") => Mood::Bad,
        _ => Mood::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_moods() {
        assert_eq!(mood_of("Running"), Mood::Good);
        assert_eq!(mood_of("Ready,SchedulingDisabled"), Mood::Good);
        assert_eq!(mood_of("Init:0/1"), Mood::Waiting);
        assert_eq!(mood_of("CrashLoopBackOff"), Mood::Bad);
        assert_eq!(mood_of("ErrImagePull"), Mood::Bad);
        assert_eq!(mood_of("web"), Mood::Plain);
    }
}
