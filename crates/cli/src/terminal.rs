//! The user's terminal: raw while a remote command has it, and its size.

use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;

use gantry_api::ApiError;
use gantry_api::metav1::Status;
use gantry_stream::ConnectError;
use gantry_stream::remote_command::{ResizeSender, TerminalSize};
use nix::sys::termios::{self, SetArg, Termios};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::Receiver;

use crate::error::{CliError, Result};

/// How much of standard input is read at a time, in bytes.
const CHUNK: usize = 32 * 1024;
/// How many pieces of it may wait to be sent.
const PENDING_CHUNKS: usize = 8;

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// What comes from standard input, in pieces; ends with it.
///
/// A thread of its own reads it: the runtime waits for its own threads when it ends, and this one may wait for a key
/// that nobody presses any more.
pub(crate) fn input() -> Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(PENDING_CHUNKS);
    let read = move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) if sender.blocking_send(buffer[..n].to_vec()).is_err() => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(%error, "standard input cannot be read any further");
                    return;
                }
            }
        }
    };
    std::thread::Builder::new().name("input".into()).spawn(read)?;
    Ok(receiver)
}

/// Hands each key through as it is pressed. Dropping it restores the terminal.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Makes standard input raw.
    pub(crate) fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let failed = |e: nix::Error| CliError::message(format!("cannot set the terminal up: {e}"));
        let before = termios::tcgetattr(stdin.as_fd()).map_err(failed)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = termios::tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.before) {
            eprintln!("cannot restore the terminal: {error}; try `reset`");
        }
    }
}

mod size {
    nix::ioctl_read_bad!(get, nix::libc::TIOCGWINSZ, nix::libc::winsize);
}

/// The terminal's size; `None` if there is no terminal.
fn current_size() -> Option<TerminalSize> {
    use std::os::fd::AsRawFd;
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call fills in the struct that it is given, which outlives it.
    let result = unsafe { size::get(std::io::stdin().as_raw_fd(), &raw mut size) };
    (result.is_ok() && size.ws_col > 0).then_some(TerminalSize { width: size.ws_col, height: size.ws_row })
}

/// Sends the terminal's size now and whenever it changes, until the other side is gone.
pub(crate) async fn send_sizes(mut sender: ResizeSender) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Some(size) = current_size()
            && sender.send(size).await.is_err()
        {
            return;
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// The error of an upgrade that did not come about: the server's own, if it sent one.
pub(crate) fn refused(error: ConnectError) -> CliError {
    match &error {
        ConnectError::Rejected { status, body } => match serde_json::from_str::<Status>(body) {
            Ok(status) if status.status.as_deref() == Some("Failure") => {
                CliError::Api(ApiError::from_status(status))
            }
            _ => CliError::message(format!("unable to upgrade connection ({status}): {}", body.trim())),
        },
        _ => CliError::message(error.to_string()),
    }
}
