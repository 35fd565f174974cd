//! A TCP proxy whose connections a test may silence or cut.

use std::sync::Arc;

use gantry_base::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// They wait, with the connections open: a partition.
    Silent,
    /// Connections are closed, and new ones at once.
    Cut,
}

/// A proxy in front of a port of this machine.
pub struct Proxy {
    pub url: String,
    mode: Arc<watch::Sender<Mode>>,
    _tasks: End,
}

/// Ends the proxy's tasks.
struct End(Tasks);

impl Drop for End {
    fn drop(&mut self) {
        self.0.shutdown_signal().cancel();
    }
}

impl Proxy {
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let tasks = Tasks::new();
        let (group, modes) = (tasks.clone(), Arc::clone(&mode));
        tasks.spawn("proxy", async move {
            loop {
                let (inside, _) = listener.accept().await.unwrap();
                group.spawn("proxied", carry(inside, port, modes.subscribe()));
            }
        });
        Self { url, mode, _tasks: End(tasks) }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn carry(mut inside: TcpStream, port: u16, mut mode: watch::Receiver<Mode>) {
    let Ok(mut outside) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    loop {
        let now = *mode.borrow_and_update();
        let pass = async {
            match now {
                Mode::Pass => drop(tokio::io::copy_bidirectional(&mut inside, &mut outside).await),
                Mode::Silent => std::future::pending().await,
                Mode::Cut => {}
            }
        };
        tokio::select! {
            () = pass => return,
            changed = mode.changed() => if changed.is_err() { return },
        }
    }
}
