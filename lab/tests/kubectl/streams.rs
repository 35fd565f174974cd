//! What goes through connections that are upgraded: exec, copies, port-forward; and logs.

use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;

use serde_json::json;

use crate::tool::*;

/// Prints the terminal's size as soon as it is known: kubectl tells it after the command has started.
const SIZE: &str =
    "for i in 1 2 3 4 5 6 7 8 9; do stty size 2>/dev/null | grep -q 31 && break; sleep 1; done; stty size";

pub fn logs_exec_and_copies(k: &Kubectl<'_>) {
    k.apply(&two());
    k.ok("wait pod/two --for=condition=Ready --timeout=120s");
    until("both containers have printed", || {
        let logs = k.ok("logs two --all-containers");
        if logs.contains("three") && logs.contains("from-b") { Ok(()) } else { Err(logs) }
    });
    assert_eq!(k.ok("logs two -c a --tail=2"), "two\nthree\n");
    assert_eq!(k.ok("logs two -c b"), "from-b\n");
    if k.is_old {
        has(
            &k.refused("logs two"),
            &["a container name must be specified for pod two, choose one of: [a b]"],
        );
    } else {
        assert_eq!(k.ok("logs two"), "one\ntwo\nthree\n", "the first container is the default");
    }
    has(&k.ok("logs -l app=two --all-containers --prefix"), &["[pod/two/a] one", "[pod/two/b] from-b"]);
    has(&k.refused("logs two -c none"), &["container none is not valid for pod two"]);
    let mut follow = k.start("logs -f two -c a");
    assert_eq!([follow.line(), follow.line(), follow.line()], ["one", "two", "three"]);
    k.ok_with("exec two -c a --", &["sh", "-c", "echo four > /proc/1/fd/1"]);
    assert_eq!(follow.line(), "four");

    let failed = k.run_with("exec two -c a -- sh -c", &["echo out; echo err >&2; exit 7"]);
    assert_eq!((failed.code, failed.out.as_str()), (Some(7), "out\n"));
    has(&failed.err, &["err\n", "command terminated with exit code 7"]);
    let echoed = k.input("exec -i two -c a -- cat", "through stdin\n");
    assert_eq!((echoed.code, echoed.out.as_str()), (Some(0), "through stdin\n"));
    let script = format!("exec -it two -c a -- sh -c 'test -t 0 && read x && echo got $x; {SIZE}'");
    let shown = k.terminal(&script, "word\n");
    has(&shown.out, &["31 97", "got word"]);

    let text: String = (0..20_000).map(|i| format!("{i}\n")).collect();
    let sent = k.file("sent.txt", &text);
    let back = k.file("back.txt", "");
    k.ok(&format!("cp {} two:/tmp/copy.txt -c a", sent.display()));
    k.ok(&format!("cp two:/tmp/copy.txt {} -c a", back.display()));
    assert!(std::fs::read_to_string(&back).is_ok_and(|read| read == text), "the copy came back whole");

    k.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "again"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": IMAGE, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "command": ["sh", "-c", "echo run >> /v/runs; wc -l < /v/runs; test $(wc -l < /v/runs) -gt 1 && exec sleep 3600"],
            }], "volumes": [{"name": "v", "emptyDir": {}}]},
        })
        .to_string(),
    );
    until("it has started again", || {
        let count = k.ok("get pod again -o jsonpath={.status.containerStatuses[0].restartCount}");
        if count == "1" { Ok(()) } else { Err(count) }
    });
    k.ok("wait pod/again --for=condition=Ready --timeout=120s");
    assert_eq!(k.ok("logs again --previous"), "1\n");
}

pub fn port_forward_carries_requests(k: &Kubectl<'_>) {
    k.apply(&web(1));
    k.ok("expose deployment web --port=80 --target-port=8080");
    k.ok("rollout status deployment/web --timeout=120s");
    for target in ["deployment/web :8080", "service/web :80"] {
        let mut forward = k.start(&format!("port-forward {target}"));
        let line = forward.line();
        let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|l| l.split(' ').next());
        let address = format!("127.0.0.1:{}", port.expect("kubectl says where it listens"));
        // Twice, to see that the connection lives on.
        for _ in 0..2 {
            let answer =
                k.cluster.run("curl", &["-s", "--max-time", "20", &format!("http://{address}/")], None);
            assert_eq!(answer.out, "hello\n", "{answer:?}");
        }
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                k.cluster.enter_network().expect("its network");
                forwarded_connections_are_independent(&address);
            });
            asking.join().expect("all are answered");
        });
    }
    // A port on which nobody listens does not end the forward of the others.
    let mut forward = k.start("port-forward deployment/web :8080 :9");
    let open = forward.line();
    let port = open.strip_prefix("Forwarding from 127.0.0.1:").and_then(|l| l.split(' ').next());
    let address = format!("127.0.0.1:{}", port.expect("kubectl says where it listens"));
    for _ in 0..3 {
        let answer = k.cluster.run("curl", &["-s", "--max-time", "20", &format!("http://{address}/")], None);
        assert_eq!(answer.out, "hello\n", "{answer:?}");
    }
}

/// Answers come faster than some clients are ready for them.
pub fn no_exec_loses_a_line(k: &Kubectl<'_>) {
    k.apply(&two());
    k.ok("wait pod/two --for=condition=Ready --timeout=120s");
    for round in 0..50 {
        let ran = k.run_with("exec two -c a -- sh -c", &["echo out; echo err >&2"]);
        assert_eq!(
            (ran.code, ran.out.as_str(), ran.err.as_str()),
            (Some(0), "out\n", "err\n"),
            "round {round}"
        );
    }
    let missing = k.run("exec two -c a -- /no/such/program");
    assert!(!missing.ok());
    has(&missing.err, &["/no/such/program"]);
    has(&k.refused("exec two -c none -- true"), &["container none is not valid for pod two"]);
    for code in [1, 42, 255] {
        let ended = k.run_with("exec two -c a -- sh -c", &[&format!("exit {code}")]);
        assert_eq!(ended.code, Some(code));
        has(&ended.err, &[&format!("command terminated with exit code {code}")]);
    }
}

pub fn large_copies_come_back_whole(k: &Kubectl<'_>) {
    const BYTES: usize = 10_000_000;
    k.apply(&two());
    k.ok("wait pod/two --for=condition=Ready --timeout=120s");
    // Nothing that a compression or a repeated block would hide.
    let mut state = 0x9e37_79b9_u32;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
    .take(BYTES)
    .collect();
    let sent = k.file("sent.bin", &bytes);
    let back = k.file("back.bin", "");
    k.ok(&format!("cp {} two:/tmp/copy.bin -c a", sent.display()));
    let inside = k.ok("exec two -c a -- sha256sum /tmp/copy.bin");
    let outside = k.cluster.run("sha256sum", &[&sent.to_string_lossy()], None).out;
    assert_eq!(inside.split(' ').next(), outside.split(' ').next());
    k.ok(&format!("cp two:/tmp/copy.bin {} -c a", back.display()));
    assert!(std::fs::read(&back).is_ok_and(|read| read == bytes), "the copy came back whole");
    // A folder, with what it holds.
    let folder = sent.parent().expect("a folder").join("tree");
    std::fs::create_dir_all(folder.join("deep")).expect("a folder");
    std::fs::write(folder.join("deep/a.txt"), "a").expect("a file");
    k.ok(&format!("cp {} two:/tmp/tree -c b", folder.display()));
    assert_eq!(k.ok("exec two -c b -- cat /tmp/tree/deep/a.txt"), "a");
    let received = folder.with_file_name("received");
    k.ok(&format!("cp two:/tmp/tree {} -c b", received.display()));
    assert_eq!(std::fs::read_to_string(received.join("deep/a.txt")).expect("a file"), "a");
    // The input's end reaches the command, and what it has to say then comes back.
    let counted = k.input("exec -i two -c a -- wc -c", &"x".repeat(1_000_000));
    assert_eq!(counted.out, "1000000\n");
}

pub fn attach_run_and_proxy(k: &Kubectl<'_>) {
    let greeted = k.cluster.run(
        k.program,
        &[
            "-n",
            &k.namespace,
            "run",
            "greet",
            &format!("--image={IMAGE}"),
            "--rm",
            "-i",
            "--restart=Never",
            "--",
            "cat",
        ],
        Some("hello to attach\n"),
    );
    assert!(greeted.ok(), "{greeted:?}");
    has(&greeted.out, &["hello to attach\n", "pod \"greet\" deleted"]);
    has(&k.refused("get pod greet"), &["NotFound"]);

    k.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shell"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": IMAGE, "stdin": true, "tty": true, "command": ["sh"],
            }]},
        })
        .to_string(),
    );
    k.ok("wait pod/shell --for=condition=Ready --timeout=120s");
    let shown = k.terminal("attach -it shell", &format!("{SIZE}; exit\n"));
    has(&shown.out, &["31 97"]);

    let mut proxy = k.start("proxy --port=0");
    let line = proxy.line();
    let address = line.strip_prefix("Starting to serve on ").expect("kubectl says where it listens");
    let get = |path: &str| {
        k.cluster.run("curl", &["-s", "--max-time", "20", &format!("http://{address}{path}")], None).out
    };
    has(&get("/version"), &["\"minor\": \"36\""]);
    has(&get(&format!("/api/v1/namespaces/{}/pods", k.namespace)), &["\"kind\": \"PodList\"", "shell"]);
    drop(proxy);

    if k.is_old {
        // Its way of adding ephemeral containers was an alpha that no server has any more.
        return;
    }
    let debug = k.run(&format!("debug shell --image={IMAGE} --container=look --quiet -- sh -c true"));
    assert!(debug.ok(), "{debug:?}");
    until("the ephemeral container has ended", || {
        let shown =
            k.ok("get pod shell -o jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.reason}");
        if shown == "Completed" { Ok(()) } else { Err(shown) }
    });
    let copied = k.run(&format!(
        "debug shell --copy-to=shell-copy --image={IMAGE} --container=look --quiet -- sleep 3600"
    ));
    assert!(copied.ok(), "{copied:?}");
    k.ok("wait pod/shell-copy --for=condition=Ready --timeout=120s");
}

/// Many connections over one forward, some of which close one side first.
fn forwarded_connections_are_independent(address: &str) {
    let ask = |half_close: bool| {
        let mut connection = std::net::TcpStream::connect(address).expect("kubectl listens");
        connection.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a limit");
        connection.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("kubectl reads");
        if half_close {
            connection.shutdown(Shutdown::Write).expect("it is open");
        }
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("the other side ends it");
        assert!(answer.ends_with("\r\n\r\nhello\n"), "{answer}");
    };
    std::thread::scope(|scope| {
        for i in 0..20 {
            let ask = &ask;
            scope.spawn(move || ask(i % 2 == 0));
        }
    });
}
