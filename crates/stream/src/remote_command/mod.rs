//! Exec and attach: a command's stdin, stdout and stderr, its terminal's size, and how it ended.

mod client;
mod relay;
mod resize;
mod server;
mod status;

use std::collections::HashMap;

use http::{StatusCode, Uri};

pub use client::{ClientProtocol, RemoteCommandClient, StatusReader, connect_remote_command};
pub use relay::relay_remote_command;
pub use resize::{ResizeEvents, ResizeSender, TerminalSize};
pub use server::{AcceptedRemoteCommand, RemoteCommandStreams, StatusWriter, accept_remote_command};
pub use status::{CommandStatus, StatusCause, StatusDetails};

use crate::upgrade::Rejection;

/// The header that says what a SPDY stream is for.
pub(crate) const STREAM_TYPE: &str = "streamtype";

/// A version of the remote command protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V1,
    V2,
    V3,
    V4,
    V5,
}

impl Version {
    fn of(protocol: &str) -> Self {
        match protocol.split('.').next() {
            Some("v5") => Self::V5,
            Some("v4") => Self::V4,
            Some("v3") => Self::V3,
            Some("v2") => Self::V2,
            _ => Self::V1,
        }
    }

    /// The final status is JSON, and success is told too.
    fn has_json_status(self) -> bool {
        self >= Self::V4
    }

    /// Over SPDY, terminal sizes have a stream.
    fn has_resize(self) -> bool {
        self >= Self::V3
    }
}

/// Which streams a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteCommandOptions {
    /// The client sends the command's input.
    pub stdin: bool,
    /// The client wants the command's output.
    pub stdout: bool,
    /// The client wants the command's errors; without effect with a terminal, where both are one.
    pub stderr: bool,
    /// The command gets a terminal.
    pub tty: bool,
}

impl RemoteCommandOptions {
    /// Reads the options from a request's query: `stdin`, `stdout`, `stderr` and `tty` as the API has them, or
    /// `input`, `output`, `error` and `tty` as the kubelet and CRI runtimes have them.
    pub fn from_uri(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let pairs: HashMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let is_set = |name: &str| {
            pairs.get(name).is_some_and(|value| matches!(*value, "1" | "true" | "True" | "TRUE" | "t" | "T"))
        };
        Self {
            stdin: is_set("stdin") || is_set("input"),
            stdout: is_set("stdout") || is_set("output"),
            stderr: is_set("stderr") || is_set("error"),
            tty: is_set("tty"),
        }
    }

    /// Without stderr if there is a terminal.
    ///
    /// # Errors
    ///
    /// No stream is asked for.
    pub(crate) fn checked(mut self) -> Result<Self, Rejection> {
        self.stderr &= !self.tty;
        if self.stdin || self.stdout || self.stderr {
            Ok(self)
        } else {
            let message = "you must specify at least 1 of stdin, stdout, stderr";
            Err(Rejection::new(StatusCode::BAD_REQUEST, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_the_words_of_the_api_and_of_the_kubelet() {
        let api = Uri::from_static("/exec?command=sh&stdin=true&stdout=true&stderr=false&tty=true");
        let expected = RemoteCommandOptions { stdin: true, stdout: true, stderr: false, tty: true };
        assert_eq!(RemoteCommandOptions::from_uri(&api), expected);
        let kubelet = Uri::from_static("/exec/ns/pod/c?command=sh&input=1&output=1&tty=1");
        assert_eq!(RemoteCommandOptions::from_uri(&kubelet), expected);
    }

    #[test]
    fn a_terminal_has_no_stderr_and_no_stream_at_all_is_refused() {
        let both = RemoteCommandOptions { stderr: true, stdout: true, tty: true, stdin: false };
        assert!(!both.checked().expect("one stream is left").stderr);
        let none = RemoteCommandOptions { tty: true, stderr: true, ..Default::default() };
        assert_eq!(none.checked().expect_err("nothing is left").status(), StatusCode::BAD_REQUEST);
    }
}
