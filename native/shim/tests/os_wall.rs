//! The wall of namespaces, through the shim's socket: the real binary, runc, and a busybox root. Needs root and runc.

mod sandbox;

use bulkhead_protocol::FailureCode;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use sandbox::{Scratch, Shim, all, demultiplex, enter_bridged_namespace, is_alive, network};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn started(scratch: &Scratch, container: &Value) -> Shim {
    let shim = Shim::start(scratch, &scratch.config()).unwrap();
    shim.create(container).await.unwrap();
    shim.start_process("init").await;
    shim
}

#[tokio::test]
async fn output_exit_code_log_and_exit_record_agree() {
    let scratch = Scratch::new();
    let shim = Shim::start(&scratch, &scratch.config()).unwrap();
    shim.create(&scratch.container(&["sh", "-c", "echo out; echo err >&2; cat /etc/hostname; exit 42"])).await.unwrap();
    let reader = shim.output("init", "from=0&stdout=1&stderr=1").await;
    assert_eq!(reader.headers()["x-offset"], "0");
    let begun = shim.start_process("init").await;
    assert!(begun.pid > 0);
    let framed = all(reader).await;
    assert_eq!(demultiplex(&framed), ("out\nbox\n".into(), "err\n".into()));
    let exit = shim.wait("init").await;
    assert_eq!((exit.exit_code, exit.output_bytes, exit.oom_killed), (42, framed.len() as u64, false));
    let record: Value =
        serde_json::from_str(&std::fs::read_to_string(scratch.path.join("state/exit.json")).unwrap()).unwrap();
    assert_eq!(record["containers"]["c1"], serde_json::to_value(&exit).unwrap());
    let log = scratch.log();
    assert_eq!(log.len(), 3);
    assert!(log.contains(&json!({ "log": "err\n", "stream": "stderr", "time": log.iter().find(|e| e["stream"] == "stderr").unwrap()["time"] })));
    let status = shim.stopped().await;
    assert_eq!(status.containers["c1"].exit.as_ref().unwrap().exit_code, 42);
    let phases: Vec<_> = status.phases.iter().map(|phase| phase.name.as_str()).collect();
    for name in ["shim-started", "shim-ready", "container-created", "process-started", "first-output", "sandbox-ended"]
    {
        assert!(phases.contains(&name), "{phases:?}");
    }
    shim.finish().await;
    assert!(!scratch.path.join("run").exists());
}

#[tokio::test]
async fn a_late_reader_gets_everything_and_a_selection_only_its_stream() {
    let scratch = Scratch::new();
    let shim = started(&scratch, &scratch.container(&["sh", "-c", "echo out; echo err >&2"])).await;
    shim.wait("init").await;
    let (everything, errors, again) = tokio::join!(
        async { all(shim.output("init", "from=0").await).await },
        async { all(shim.output("init", "from=0&stderr=1").await).await },
        async { all(shim.output("init", "from=0&stdout=1&stderr=1").await).await },
    );
    assert_eq!(demultiplex(&everything), ("out\n".into(), "err\n".into()));
    assert_eq!(demultiplex(&errors), (String::new(), "err\n".into()));
    assert_eq!(everything, again);
    assert_eq!(all(shim.output("init", "").await).await, b"");
    shim.finish().await;
}

#[tokio::test]
async fn a_missing_or_unusable_command_is_told_in_runcs_words() {
    let scratch = Scratch::new();
    let shim = Shim::start(&scratch, &scratch.config()).unwrap();
    let missing = shim.create(&scratch.container(&["nope"])).await.unwrap_err();
    assert_eq!(missing.code, FailureCode::CommandNotFound);
    assert!(missing.message.contains("exec: \"nope\": executable file not found in $PATH"), "{missing}");
    let unusable = shim.create(&scratch.container(&["/etc/passwd"])).await.unwrap_err();
    assert_eq!(unusable.code, FailureCode::CommandNotExecutable);
    let mut container = scratch.container(&["true"]);
    container["user"] = "nosuch".into();
    let nobody = shim.create(&container).await.unwrap_err();
    assert_eq!(nobody.code, FailureCode::NoSuchUser);
    assert_eq!(nobody.message, "unable to find user nosuch: no matching entries in passwd file");
    let mut container = scratch.container(&["true"]);
    container["spec"]["process"]["cwd"] = "/etc/passwd".into();
    let nowhere = shim.create(&container).await.unwrap_err();
    assert_eq!(nowhere.code, FailureCode::BadWorkingDirectory, "{nowhere}");
    shim.finish().await;
}

#[tokio::test]
async fn the_user_is_looked_up_in_the_root() {
    let scratch = Scratch::new();
    let mut container = scratch.container(&["sh", "-c", "id; echo $HOME; echo hi > /dev/stdout"]);
    container["user"] = "web".into();
    let shim = started(&scratch, &container).await;
    assert_eq!(shim.wait("init").await.exit_code, 0);
    assert_eq!(scratch.logged_text(), "uid=1000(web) gid=1001(web) groups=50(staff),1001(web)\n/home/web\nhi\n");
    shim.finish().await;
}

#[tokio::test]
async fn sixty_four_mebibytes_go_through_stdin_unharmed() {
    let scratch = Scratch::new();
    let mut container = scratch.container(&["sha256sum"]);
    container["stdin"] = true.into();
    let shim = started(&scratch, &container).await;
    let block = Bytes::from((0..=255_u8).cycle().take(64 * 1024).collect::<Vec<u8>>());
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = StreamBody::new(futures_stream(move |context| receiver.poll_recv(context)));
    let request = Request::post("/v1/containers/c1/processes/init/stdin").header("host", "shim").body(body).unwrap();
    let mut connection = shim.connect_with().await;
    let answering = tokio::spawn(async move { connection.send_request(request).await.unwrap().status() });
    for _ in 0..1024 {
        sender.send(block.clone()).await.unwrap();
    }
    drop(sender);
    assert_eq!(answering.await.unwrap(), 204);
    assert_eq!(shim.wait("init").await.exit_code, 0);
    let mut expected = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = expected.stdin.take().unwrap();
    for _ in 0..1024 {
        std::io::Write::write_all(&mut input, &block).unwrap();
    }
    drop(input);
    let expected = String::from_utf8(expected.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(scratch.logged_text(), expected);
    shim.finish().await;
}

/// A stream of data frames out of a poll function.
fn futures_stream(
    poll: impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<Bytes>> + Send + Unpin + 'static,
) -> impl futures_core::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send + 'static {
    struct Polled<F>(F);
    impl<F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<Bytes>> + Unpin> futures_core::Stream
        for Polled<F>
    {
        type Item = Result<Frame<Bytes>, std::convert::Infallible>;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            (self.0)(context).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
        }
    }
    Polled(poll)
}

#[tokio::test]
async fn a_writer_whose_process_reads_no_more_is_told_soon() {
    let scratch = Scratch::new();
    let mut container = scratch.container(&["sh", "-c", "head -c 1 >/dev/null; exec <&-; sleep 1000"]);
    container["stdin"] = true.into();
    let shim = started(&scratch, &container).await;
    let body = Bytes::from(vec![0; 1024 * 1024]);
    let writing = shim.open("POST", "/v1/containers/c1/processes/init/stdin", body);
    let answer = tokio::time::timeout(Duration::from_secs(5), writing).await.unwrap();
    assert_eq!(answer.status(), 204);
    shim.finish().await;
}

#[tokio::test]
async fn a_terminal_has_its_size_and_takes_a_new_one() {
    let scratch = Scratch::new();
    let mut container = scratch.container(&[
        "sh",
        "-c",
        "trap 'stty size; exit 7' WINCH; tty; stty size; read line; while :; do sleep 0.1; done",
    ]);
    container["spec"]["process"]["terminal"] = true.into();
    container["stdin"] = true.into();
    container["terminalSize"] = json!({ "height": 40, "width": 100 });
    let shim = Shim::start(&scratch, &scratch.config()).unwrap();
    shim.create(&container).await.unwrap();
    let mut output = shim.output("init", "from=0").await.into_body();
    shim.start_process("init").await;
    let mut text = String::new();
    while !text.contains("40 100") {
        let frame = tokio::time::timeout(Duration::from_secs(10), output.frame()).await.unwrap().unwrap().unwrap();
        text += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
    }
    assert!(text.starts_with("/dev/"), "{text}");
    shim.open("POST", "/v1/containers/c1/processes/init/stdin?keep=1", "go\n".into()).await;
    shim.post("init", "resize", json!({ "height": 41, "width": 101 })).await.unwrap();
    assert_eq!(shim.wait("init").await.exit_code, 7);
    let rest = output.collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&rest).contains("41 101"), "{rest:?}");
    shim.finish().await;
}

#[tokio::test]
async fn a_killed_process_has_137_and_its_children_die_with_it() {
    let scratch = Scratch::new();
    let shim = started(&scratch, &scratch.container(&["sh", "-c", "sleep 1000 & echo ready; wait"])).await;
    let first = shim.output("init", "from=0").await.into_body().frame().await.unwrap().unwrap();
    assert!(first.into_data().unwrap().ends_with(b"ready\n"));
    shim.post("init", "kill", json!({ "signal": 9 })).await.unwrap();
    assert_eq!(shim.wait("init").await.exit_code, 137);
    let late = shim.post("init", "kill", json!({ "signal": 9 })).await.unwrap_err();
    assert_eq!(late.code, FailureCode::WrongState);
    shim.finish().await;
}

#[tokio::test]
async fn further_processes_have_their_own_stdio_exit_code_and_failures() {
    let scratch = Scratch::new();
    let shim = started(&scratch, &scratch.container(&["sleep", "1000"])).await;
    let process = |arguments: Value, terminal: bool| {
        let mut process = scratch.spec(&[])["process"].clone();
        process["args"] = arguments;
        process["terminal"] = terminal.into();
        json!({ "process": process, "user": "web", "stdin": true, "terminalSize": { "height": 11, "width": 22 } })
    };
    let create = async |name: &str, body: Value| {
        shim.request("POST", &format!("/v1/containers/c1/processes/{name}"), &body).await
    };
    create("e1", process(json!(["sh", "-c", "cat; id -u; exit 3"]), false)).await.unwrap();
    let reader = shim.output("e1", "from=0").await;
    shim.start_process("e1").await;
    shim.open("POST", "/v1/containers/c1/processes/e1/stdin", "typed\n".into()).await;
    assert_eq!(demultiplex(&all(reader).await).0, "typed\n1000\n");
    assert_eq!(shim.wait("e1").await.exit_code, 3);

    create("e2", process(json!(["sh", "-c", "tty >/dev/null && stty size"]), true)).await.unwrap();
    shim.start_process("e2").await;
    assert_eq!(shim.wait("e2").await.exit_code, 0);
    assert_eq!(all(shim.output("e2", "from=0").await).await, b"11 22\r\n");

    create("e3", process(json!(["nope"]), false)).await.unwrap();
    let failure = shim.post("e3", "start", Value::Null).await.unwrap_err();
    assert_eq!(failure.code, FailureCode::CommandNotFound, "{failure}");

    create("e4", process(json!(["sh", "-c", "sleep 1000 & echo left"]), false)).await.unwrap();
    shim.start_process("e4").await;
    let exit = tokio::time::timeout(Duration::from_secs(3), shim.wait("e4")).await.unwrap();
    assert_eq!((exit.exit_code, exit.output_bytes), (0, 13));

    create("e5", process(json!(["sleep", "1000"]), false)).await.unwrap();
    shim.start_process("e5").await;
    shim.post("init", "kill", json!({ "signal": 9 })).await.unwrap();
    assert_eq!(shim.wait("e5").await.exit_code, 137);
    shim.finish().await;
}

#[tokio::test]
async fn a_reader_that_comes_back_in_mid_stream_misses_nothing() {
    let scratch = Scratch::new();
    let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done";
    let shim = Shim::start(&scratch, &scratch.config()).unwrap();
    shim.create(&scratch.container(&["sh", "-c", script])).await.unwrap();
    let mut framed = Vec::new();
    let mut reader = shim.output("init", "from=0").await.into_body();
    shim.start_process("init").await;
    while framed.len() < 10_000 {
        framed.extend_from_slice(&reader.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    framed.truncate(9_999);
    drop(reader);
    let resumed = shim.output("init", "from=9999").await;
    assert_eq!(resumed.headers()["x-offset"], "9999");
    framed.extend(all(resumed).await);
    let expected: String = (0..3000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(demultiplex(&framed).0, expected);
    assert_eq!(scratch.logged_text(), expected);
    shim.finish().await;
}

#[tokio::test]
async fn a_full_log_is_rotated_while_the_container_runs() {
    let scratch = Scratch::new();
    let mut container = scratch.container(&["sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done"]);
    container["log"]["maxSizeBytes"] = 10_000.into();
    container["log"]["maxFiles"] = 3.into();
    let shim = started(&scratch, &container).await;
    assert_eq!(shim.wait("init").await.exit_code, 0);
    let size = |name: &str| std::fs::metadata(scratch.path.join("state").join(name)).map(|facts| facts.len());
    assert!((10_000..10_100).contains(&size("container.log.1").unwrap()));
    assert!((10_000..10_100).contains(&size("container.log.2").unwrap()));
    assert!(size("container.log.3").is_err());
    assert!(scratch.logged_text().ends_with("1999\n"));
    shim.finish().await;
}

#[tokio::test]
async fn a_full_disk_costs_log_entries_and_not_the_container() {
    let scratch = Scratch::new();
    let mut container = scratch.container(&["sh", "-c", "echo one; echo two; exit 5"]);
    container["log"]["path"] = "/dev/full".into();
    let shim = started(&scratch, &container).await;
    assert_eq!(shim.wait("init").await.exit_code, 5);
    assert_eq!(demultiplex(&all(shim.output("init", "from=0").await).await).0, "one\ntwo\n");
    shim.finish().await;
    let said = std::fs::read_to_string(scratch.path.join("shim.log")).unwrap();
    assert!(said.contains("cannot write"), "{said}");
}

#[tokio::test]
async fn the_oom_killer_is_reported() {
    let scratch = Scratch::new();
    let mut container = scratch.container(&["sh", "-c", "x=$(yes | head -c 200000000); echo unreachable"]);
    container["spec"]["linux"]["resources"] = json!({ "memory": { "limit": 16 * 1024 * 1024 } });
    let shim = started(&scratch, &container).await;
    let exit = shim.wait("init").await;
    assert_eq!((exit.exit_code, exit.oom_killed), (137, true));
    shim.finish().await;
}

#[tokio::test]
async fn a_published_port_reaches_the_container_and_is_held_before_its_start() {
    enter_bridged_namespace();
    let scratch = Scratch::new();
    let mut config = scratch.config();
    config["network"] = network();
    config["ports"] = json!([{ "protocol": "tcp", "hostIp": "", "hostPort": 0, "containerPort": 8080 }]);
    let shim = Shim::start(&scratch, &config).unwrap();
    let port = shim.status().await.ports[0].host_port;
    assert_ne!(port, 0);

    let second = Scratch::new();
    let mut taken = second.config();
    taken["ports"] = json!([{ "protocol": "tcp", "hostIp": "", "hostPort": port, "containerPort": 80 }]);
    taken["network"] = network();
    let failure = Shim::start(&second, &taken).err().unwrap();
    assert_eq!(failure.code, FailureCode::PortInUse);
    assert_eq!(failure.message, format!("failed to bind host port 0.0.0.0:{port}/tcp: address already in use"));
    assert!(!second.path.join("run").exists());

    // The answer is made only after the end of the question: a lost half-close would wait for ever.
    let script = "ip addr show eth0; ip route; nc -ll -p 8080 -e sh -c 'q=$(cat); echo got $q'";
    shim.create(&scratch.container(&["sh", "-c", script])).await.unwrap();
    for address in ["127.0.0.1", "::1"] {
        let early = tokio::net::TcpStream::connect((address, port)).await;
        assert!(early.is_ok(), "{address}: {early:?}");
    }
    shim.start_process("init").await;
    let mut listening = shim.output("init", "from=0").await.into_body();
    listening.frame().await.unwrap().unwrap();
    let mut answer = String::new();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while answer.is_empty() && std::time::Instant::now() < deadline {
        let mut client = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let _ = client.write_all(b"question").await;
        let _ = client.shutdown().await;
        let _ = client.read_to_string(&mut answer).await;
    }
    assert_eq!(answer, "got question\n");
    shim.post("init", "kill", json!({ "signal": 9 })).await.unwrap();
    assert_eq!(shim.wait("init").await.exit_code, 137);
    let facts = scratch.logged_text();
    for fact in ["10.99.0.2/24", "02:42:0a:63:00:02", "mtu 1400", "default via 10.99.0.1 dev eth0"] {
        assert!(facts.contains(fact), "{fact}: {facts}");
    }
    shim.stopped().await;
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err());
    shim.finish().await;
    let links = std::process::Command::new("ip").args(["-o", "link"]).output().unwrap().stdout;
    assert!(!String::from_utf8_lossy(&links).contains("bt-veth0"));
}

#[tokio::test]
async fn layers_lie_over_each_other_and_writes_go_to_the_writable_part() {
    let scratch = Scratch::new();
    let mut container = scratch.container(&["sh", "-c", "cat /f0 /f126 /top; echo new > /written; touch /f1"]);
    let layers: Vec<Value> = (0..126)
        .map(|number| {
            let path = scratch.path.join(format!("layer-{number}"));
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(format!("f{number}")), format!("{number}\n")).unwrap();
            std::fs::write(path.join("top"), format!("top {number}\n")).unwrap();
            json!({ "imagePath": "", "sizeBytes": 0, "mountPath": path })
        })
        .collect();
    let list = container["rootfs"]["layers"].as_array_mut().unwrap();
    list.extend(layers);
    std::fs::write(scratch.path.join("layer/f126"), "lowest\n").unwrap();
    let shim = started(&scratch, &container).await;
    assert_eq!(shim.wait("init").await.exit_code, 0);
    assert_eq!(scratch.logged_text(), "0\nlowest\ntop 125\n");
    shim.finish().await;
    assert_eq!(std::fs::read_to_string(scratch.path.join("writable/upper/written")).unwrap(), "new\n");
    assert!(!scratch.path.join("layer/written").exists());
}

#[tokio::test]
async fn an_erofs_image_is_a_layer() {
    // A mount namespace of the test's own thread: its end takes the loop mount along.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let scratch = Scratch::new();
    let mut container = scratch.container(&["sh", "-c", "ls /etc; echo changed > /etc/group"]);
    let (image, mounted) = (scratch.text("layer.erofs"), scratch.text("mounted"));
    std::fs::create_dir(&mounted).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    };
    run("mkfs.erofs", &[&image, &scratch.text("layer")]);
    run("mount", &["-t", "erofs", "-o", "loop,ro", &image, &mounted]);
    container["rootfs"]["layers"][0]["mountPath"] = mounted.clone().into();
    let shim = started(&scratch, &container).await;
    assert_eq!(shim.wait("init").await.exit_code, 0);
    assert_eq!(scratch.logged_text(), "group\nhostname\npasswd\n");
    shim.finish().await;
    run("umount", &[&mounted]);
    assert_eq!(std::fs::read_to_string(scratch.path.join("writable/upper/etc/group")).unwrap(), "changed\n");
}

#[tokio::test]
async fn sigterm_leaves_no_process_no_mount_and_no_directory() {
    let scratch = Scratch::new();
    let mut shim = started(
        &scratch,
        &scratch.container(&["sh", "-c", "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done"]),
    )
    .await;
    let pid = shim.status().await.containers["c1"].pid;
    assert!(is_alive(pid));
    shim.output("init", "from=0").await.into_body().frame().await.unwrap().unwrap();
    shim.signal(nix::sys::signal::SIGTERM);
    assert!(shim.wait_for_end().success());
    assert!(!is_alive(pid));
    assert!(!scratch.path.join("run").exists());
    assert_eq!(scratch.logged_text(), "ready\nbye\n");
    let record = std::fs::read_to_string(scratch.path.join("state/exit.json")).unwrap();
    assert!(record.contains("\"exitCode\":9"), "{record}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(scratch.path.to_str().unwrap()));
    for controller in ["memory", "pids", "devices", "systemd"] {
        let cgroup = format!("/sys/fs/cgroup/{controller}/bulkhead-shim-test-{}", &scratch.id[..12]);
        assert!(!std::path::Path::new(&cgroup).exists(), "{cgroup}");
    }
}

#[tokio::test]
async fn after_a_killed_shim_only_the_cgroup_is_left_to_clear() {
    enter_bridged_namespace();
    let scratch = Scratch::new();
    let mut config = scratch.config();
    config["network"] = network();
    let mut shim = Shim::start(&scratch, &config).unwrap();
    shim.create(&scratch.container(&["sh", "-c", "sleep 1000 & wait"])).await.unwrap();
    let pid = shim.start_process("init").await.pid;
    shim.signal(nix::sys::signal::SIGKILL);
    assert!(!shim.wait_for_end().success());
    let cgroup = std::path::PathBuf::from(format!("/sys/fs/cgroup/pids/bulkhead-shim-test-{}", &scratch.id[..12]));
    let members = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    assert!(members.lines().any(|member| member == pid.to_string()), "{members}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::SIGKILL).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let links =
        || String::from_utf8(std::process::Command::new("ip").args(["-o", "link"]).output().unwrap().stdout).unwrap();
    while is_alive(pid) || links().contains("bt-veth0") {
        assert!(std::time::Instant::now() < deadline, "{}", links());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(scratch.path.to_str().unwrap()));
    for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        let _ = std::fs::remove_dir(controller.unwrap().path().join(cgroup.file_name().unwrap()));
    }
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_half_made() {
    let scratch = Scratch::new();
    let shim = Shim::start(&scratch, &scratch.config()).unwrap();
    let connection = shim.post_only("/v1/containers/c1", &scratch.container(&["sh", "-c", "exit 4"]));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !scratch.path.join("run/c1").exists() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(connection);
    while shim.status().await.containers.is_empty() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shim.start_process("init").await;
    assert_eq!(shim.wait("init").await.exit_code, 4);
    shim.finish().await;
}

#[tokio::test]
async fn a_read_only_root_with_files_of_its_own_is_read_only() {
    let scratch = Scratch::new();
    let mut container = scratch.container(&["sh", "-c", "cat /etc/hosts; touch /new || echo refused"]);
    container["rootfs"]["readOnly"] = true.into();
    container["ephemeral"] = true.into();
    container["files"] = json!({ "/etc/hosts": "127.0.0.1 localhost\n" });
    for _ in 0..2 {
        let _ = std::fs::create_dir(scratch.path.join("run"));
        let _ = std::fs::remove_file(scratch.path.join("state/container.log"));
        let shim = started(&scratch, &container).await;
        assert_eq!(shim.wait("init").await.exit_code, 0);
        let text = scratch.logged_text();
        assert!(text.contains("127.0.0.1 localhost\n") && text.contains("refused\n"), "{text}");
        shim.finish().await;
    }
}

#[tokio::test]
async fn a_container_that_was_never_started_ends_with_the_sandbox() {
    let scratch = Scratch::new();
    let shim = Shim::start(&scratch, &scratch.config()).unwrap();
    shim.create(&scratch.container(&["true"])).await.unwrap();
    let early = shim.request("POST", "/v1/sandbox/release", &Value::Null).await.unwrap_err();
    assert_eq!(early.code, FailureCode::WrongState);
    let deadline = json!({ "deadlineMs": 1000 });
    let (exit, stopped) = tokio::join!(shim.wait("init"), shim.request("POST", "/v1/sandbox/stop", &deadline));
    stopped.unwrap();
    assert_eq!(exit.exit_code, 255);
    assert!(!exit.error.is_empty());
    shim.finish().await;
}

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let scratch = Scratch::new();
    let shim = Shim::start(&scratch, &scratch.config()).unwrap();
    let code = async |method: &str, path: &str, body: Value| shim.request(method, path, &body).await.unwrap_err().code;
    assert_eq!(code("POST", "/v1/containers/c%2f1", json!({})).await, FailureCode::InvalidRequest);
    assert_eq!(code("POST", "/v1/containers/c1", json!({ "spec": 1 })).await, FailureCode::InvalidRequest);
    assert_eq!(code("GET", "/v1/containers/c1/processes/init/output", Value::Null).await, FailureCode::NotFound);
    assert_eq!(code("POST", "/v1/containers/c1/processes/init/start", Value::Null).await, FailureCode::NotFound);
    assert_eq!(code("GET", "/v2", Value::Null).await, FailureCode::NotFound);
    shim.finish().await;
    let mut bad = Scratch::new().config();
    bad["runtimeDir"] = "relative".into();
    let failure = Shim::start(&scratch, &bad).err().unwrap();
    assert_eq!(failure.code, FailureCode::InvalidRequest);
}
