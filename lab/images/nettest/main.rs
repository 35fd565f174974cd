//! `nettest`: what tests of pods and networks need, as a server and as a client.
//!
//! `nettest [serve] [--http PORT] [--tcp PORT] [--udp PORT]` answers HTTP (8080) and echoes TCP (7) and UDP (7);
//! a port of 0 leaves one out. `nettest get URL`, `nettest tcp HOST:PORT TEXT`, `nettest udp HOST:PORT TEXT`
//! and `nettest lookup NAME` ask once, print the answer, and exit with 1 if there is none.
//! `nettest exit CODE`, `nettest sleep SECONDS` and `nettest hog MEGABYTES` do what they say.

#[path = "../common/http.rs"]
#[allow(dead_code, reason = "each program uses its own part")]
mod http;

use std::io::{self, Read, Write};
use std::net::{TcpListener, ToSocketAddrs, UdpSocket};
use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};

/// How long a client waits.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What `/ready` and `/healthz` say; `/ready?set=false` and `/healthz?set=false` change it.
static READY: AtomicBool = AtomicBool::new(true);
static HEALTHY: AtomicBool = AtomicBool::new(true);
static REQUESTS: AtomicU64 = AtomicU64::new(0);

fn main() {
    http::end_on_sigterm();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["get", url] => get(url),
        ["tcp", address, text] => tcp(address, text),
        ["udp", address, text] => udp(address, text),
        ["lookup", name] => lookup(name),
        ["exit", code] => exit(code.parse().unwrap_or(1)),
        ["sleep", seconds] => {
            std::thread::sleep(Duration::from_secs(seconds.parse().unwrap_or(1)));
            Ok(())
        }
        ["hog", megabytes] => hog(megabytes.parse().unwrap_or(1)),
        ["serve", options @ ..] => serve(options),
        options => serve(options),
    };
    if let Err(error) = result {
        eprintln!("nettest: {error}");
        exit(1);
    }
}

fn serve(options: &[&str]) -> io::Result<()> {
    let port = |name: &str, default: u16| {
        let at = options.iter().position(|option| *option == name);
        at.and_then(|at| options.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (http_port, tcp_port, udp_port) = (port("--http", 8080), port("--tcp", 7), port("--udp", 7));
    if tcp_port != 0 {
        let listener =
            TcpListener::bind(("::", tcp_port)).or_else(|_| TcpListener::bind(("0.0.0.0", tcp_port)))?;
        std::thread::spawn(move || echo_tcp(&listener));
    }
    if udp_port != 0 {
        let socket = UdpSocket::bind(("::", udp_port)).or_else(|_| UdpSocket::bind(("0.0.0.0", udp_port)))?;
        std::thread::spawn(move || echo_udp(&socket));
    }
    if http_port == 0 {
        loop {
            std::thread::park();
        }
    }
    // Without IPv6 only the second can be bound.
    http::serve(&format!("[::]:{http_port}"), answer)
        .or_else(|_| http::serve(&format!("0.0.0.0:{http_port}"), answer))
}

fn answer(request: Request) -> Response {
    let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    match request.path.as_str() {
        "/" | "/hostname" => Response::text(200, http::hostname()),
        "/echo" => match request.parameter("msg") {
            Some(text) => Response::text(200, text),
            None => Response { status: 200, kind: "application/octet-stream", body: request.body },
        },
        "/env" => {
            let lines: Vec<String> =
                std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            Response::text(200, lines.join("\n"))
        }
        "/headers" => {
            let lines: Vec<String> =
                request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            Response::text(200, lines.join("\n"))
        }
        "/clientip" => Response::text(200, request.peer),
        "/count" => Response::text(200, count.to_string()),
        "/healthz" => switch(&HEALTHY, &request),
        "/ready" => switch(&READY, &request),
        "/read" => match std::fs::read(request.parameter("path").unwrap_or_default()) {
            Ok(body) => Response { status: 200, kind: "application/octet-stream", body },
            Err(error) => Response::text(404, error.to_string()),
        },
        "/get" => match fetch(request.parameter("url").unwrap_or_default()) {
            Ok((status, body)) => Response { status, kind: "text/plain", body },
            Err(error) => Response::text(502, error.to_string()),
        },
        "/lookup" => match addresses(request.parameter("name").unwrap_or_default()) {
            Ok(found) => Response::text(200, found.join("\n")),
            Err(error) => Response::text(404, error.to_string()),
        },
        "/sleep" => {
            let seconds = request.parameter("seconds").and_then(|s| s.parse().ok()).unwrap_or(1);
            std::thread::sleep(Duration::from_secs(seconds));
            Response::text(200, "slept")
        }
        "/exit" | "/shutdown" => {
            exit(request.parameter("code").and_then(|code| code.parse().ok()).unwrap_or(0))
        }
        _ => Response::text(404, "no such path"),
    }
}

/// Tells a switch, after setting it if asked to.
fn switch(state: &AtomicBool, request: &Request) -> Response {
    if let Some(wanted) = request.parameter("set") {
        state.store(wanted == "true", Ordering::Relaxed);
        return Response::text(200, wanted);
    }
    if state.load(Ordering::Relaxed) { Response::text(200, "ok") } else { Response::text(503, "not ok") }
}

fn echo_tcp(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        std::thread::spawn(move || {
            let Ok(mut back) = stream.try_clone() else { return };
            if let Err(error) = io::copy(&mut stream, &mut back) {
                eprintln!("tcp: {error}");
            }
        });
    }
}

fn echo_udp(socket: &UdpSocket) {
    let mut buffer = [0; 65_536];
    loop {
        match socket.recv_from(&mut buffer).and_then(|(length, from)| socket.send_to(&buffer[..length], from))
        {
            Ok(_) => {}
            Err(error) => eprintln!("udp: {error}"),
        }
    }
}

fn fetch(url: &str) -> io::Result<(u16, Vec<u8>)> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { host.to_owned() } else { format!("{host}:80") };
    http::fetch("GET", &address, &format!("/{path}"), b"", TIMEOUT)
}

fn get(url: &str) -> io::Result<()> {
    let (status, body) = fetch(url)?;
    io::stdout().write_all(&body)?;
    println!();
    if status < 400 { Ok(()) } else { Err(io::Error::other(format!("status {status}"))) }
}

fn tcp(address: &str, text: &str) -> io::Result<()> {
    let mut stream = http::connect(address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("{answer}");
    Ok(())
}

fn udp(address: &str, text: &str) -> io::Result<()> {
    let target = address.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no address"))?;
    let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.send_to(text.as_bytes(), target)?;
    let mut buffer = [0; 65_536];
    let (length, _) = socket.recv_from(&mut buffer)?;
    println!("{}", String::from_utf8_lossy(&buffer[..length]));
    Ok(())
}

fn addresses(name: &str) -> io::Result<Vec<String>> {
    let mut found: Vec<String> =
        (name, 0).to_socket_addrs()?.map(|address| address.ip().to_string()).collect();
    found.sort();
    found.dedup();
    Ok(found)
}

fn lookup(name: &str) -> io::Result<()> {
    addresses(name)?.iter().for_each(|address| println!("{address}"));
    Ok(())
}

/// Takes memory and keeps it.
fn hog(megabytes: usize) -> io::Result<()> {
    let mut taken = Vec::new();
    for _ in 0..megabytes {
        taken.push(vec![1_u8; 1024 * 1024]);
    }
    println!("holding {} MiB", taken.len());
    loop {
        std::thread::park();
    }
}
