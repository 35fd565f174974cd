//! Real etcd servers for tests, of Debian's package `etcd-server`: on loopback, at free ports, in a directory that
//! goes with them. They end with the value that holds them, also when the test panics or is killed.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::EtcdTls;

/// Keeps a server beside a shell that ends it when the shell's input ends: with the test, however that ends.
const KEEPER: &str = "etcd \"$@\" & echo $!; read line; kill -9 $! 2>/dev/null; wait $! 2>/dev/null";
/// How often a server that starts is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Ports may be taken between their choice and their use.
const START_ATTEMPTS: usize = 5;

/// A cluster of etcd servers.
pub struct EtcdServers {
    members: Vec<Member>,
    dir: PathBuf,
}

struct Member {
    arguments: Vec<String>,
    scheme: &'static str,
    client_port: u16,
    log: PathBuf,
    running: Option<Running>,
}

struct Running {
    keeper: Child,
    input: Option<ChildStdin>,
    pid: Pid,
}

impl EtcdServers {
    /// Starts this many members. They may still be choosing a leader when this returns.
    ///
    /// # Panics
    /// They cannot be started.
    pub fn start(count: usize) -> Self {
        Self::start_with(count, None)
    }

    /// The same, and clients must use TLS and have a certificate.
    ///
    /// # Panics
    /// They cannot be started.
    pub fn start_with(count: usize, tls: Option<&EtcdTls>) -> Self {
        for _ in 0..START_ATTEMPTS {
            let mut servers = Self::prepare(count, tls);
            for place in 0..count {
                servers.run(place);
            }
            if servers.all_listen() {
                return servers;
            }
        }
        panic!("etcd cannot be started: is the package etcd-server there?");
    }

    fn prepare(count: usize, tls: Option<&EtcdTls>) -> Self {
        let dir =
            nix::unistd::mkdtemp(&std::env::temp_dir().join("gantry-etcd-XXXXXX")).expect("a directory");
        // All at once, so that they differ.
        let free: Vec<_> =
            (0..2 * count).map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port")).collect();
        let ports: Vec<u16> = free.iter().map(|l| l.local_addr().expect("an address").port()).collect();
        let (clients, peers) = ports.split_at(count);
        let cluster: Vec<_> =
            peers.iter().enumerate().map(|(i, port)| format!("m{i}=http://127.0.0.1:{port}")).collect();
        let member = |place: usize| Member {
            arguments: arguments(&dir, place, (clients[place], peers[place]), &cluster.join(","), tls),
            scheme: if tls.is_some() { "https" } else { "http" },
            client_port: clients[place],
            log: dir.join(format!("m{place}.log")),
            running: None,
        };
        Self { members: (0..count).map(member).collect(), dir }
    }

    /// Where the members are reached.
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|m| format!("{}://127.0.0.1:{}", m.scheme, m.client_port)).collect()
    }

    /// A member's port for clients.
    pub fn port(&self, place: usize) -> u16 {
        self.members[place].client_port
    }

    /// Starts a member that was killed, with what is on its disk.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn run(&mut self, place: usize) {
        let member = &mut self.members[place];
        let log = std::fs::File::options().create(true).append(true).open(&member.log).expect("a log");
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "etcd-keeper"])
            .args(&member.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a shell");
        let input = keeper.stdin.take();
        let mut line = String::new();
        let output = keeper.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a process id");
        let pid = Pid::from_raw(line.trim().parse().expect("a process id"));
        member.running = Some(Running { keeper, input, pid });
    }

    /// Kills a member at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self, place: usize) {
        self.members[place].running = None;
    }

    /// Stops a member's process (SIGSTOP): it keeps its connections and answers nothing.
    ///
    /// # Panics
    /// It does not run.
    pub fn pause(&self, place: usize) {
        self.signal(place, Signal::SIGSTOP);
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Panics
    /// It does not run.
    pub fn resume(&self, place: usize) {
        self.signal(place, Signal::SIGCONT);
    }

    fn signal(&self, place: usize, signal: Signal) {
        let running = self.members[place].running.as_ref().expect("the member runs");
        kill(running.pid, signal).expect("a signal");
    }

    /// Whether all come as far as listening; not if one has ended.
    #[expect(clippy::disallowed_methods, reason = "another process's progress can only be looked at")]
    fn all_listen(&mut self) -> bool {
        self.members.iter_mut().all(|member| {
            loop {
                if std::net::TcpStream::connect(("127.0.0.1", member.client_port)).is_ok() {
                    return true;
                }
                let alive = member.running.as_ref().is_some_and(|running| is_alive(running.pid));
                if !alive {
                    return false;
                }
                std::thread::sleep(LOOK);
            }
        })
    }
}

impl Drop for EtcdServers {
    fn drop(&mut self) {
        self.members.clear();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The end of its input has the keeper kill the server and wait for it.
        drop(self.input.take());
        self.keeper.wait().ok();
    }
}

fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

fn arguments(
    dir: &Path,
    place: usize,
    (client, peer): (u16, u16),
    cluster: &str,
    tls: Option<&EtcdTls>,
) -> Vec<String> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let data = dir.join(format!("m{place}"));
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut all = vec![
        ("name", format!("m{place}")),
        ("data-dir", text(&data)),
        ("listen-client-urls", format!("{scheme}://127.0.0.1:{client}")),
        ("advertise-client-urls", format!("{scheme}://127.0.0.1:{client}")),
        ("listen-peer-urls", format!("http://127.0.0.1:{peer}")),
        ("initial-advertise-peer-urls", format!("http://127.0.0.1:{peer}")),
        ("initial-cluster", cluster.to_owned()),
        ("initial-cluster-token", text(dir)),
        ("logger", "zap".to_owned()),
        ("log-outputs", "stderr".to_owned()),
        ("log-level", "warn".to_owned()),
        // Elections take a part of a second, even on a busy machine.
        ("heartbeat-interval", "50".to_owned()),
        ("election-timeout", "500".to_owned()),
    ];
    if let Some(EtcdTls { ca: Some(ca), certificate: Some(certificate), key: Some(key) }) = tls {
        all.extend([
            ("trusted-ca-file", text(ca)),
            ("cert-file", text(certificate)),
            ("key-file", text(key)),
            ("client-cert-auth", "true".to_owned()),
        ]);
    }
    all.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
}
