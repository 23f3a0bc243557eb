//! The launcher for real, with the kernel of this host: namespaces, users, terminals, pipes, ends. Needs root.

mod support;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::{Agent, container, process, split};

#[tokio::test]
async fn a_container_runs_and_its_output_and_exit_code_come_back() {
    let agent = Agent::start("run").await;
    let (exit, stdout, stderr) =
        agent.run("c", container(&["sh", "-c", "echo out; echo err >&2; hostname; exit 7"])).await;
    assert_eq!((exit["exitCode"].as_i64(), stdout.as_str(), stderr.as_str()), (Some(7), "out\nbox\n", "err\n"));
}

#[tokio::test]
async fn the_first_process_is_pid_1_of_its_own_namespace_and_root() {
    let agent = Agent::start("pid").await;
    let script = "echo $$; ls -d /proc/[0-9]* | wc -l; ls /; cat /proc/sys/kernel/hostname";
    let (_, stdout, _) = agent.run("c", container(&["sh", "-c", script])).await;
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0], "1");
    assert!(lines[1].parse::<u32>().unwrap() <= 4, "{stdout}");
    assert_eq!(&lines[2..], ["bin", "dev", "etc", "home", "proc", "tmp", "box"]);
}

#[tokio::test]
async fn a_signal_gives_128_and_its_number() {
    let agent = Agent::start("signal").await;
    agent.create("c", container(&["sleep", "60"])).await;
    agent.call("POST", "/v1/containers/c/processes/init/start", Value::Null).await;

    let killed = agent.call("POST", "/v1/containers/c/processes/init/kill", json!({"signal": 9})).await;
    let (_, exit) = agent.call("GET", "/v1/containers/c/processes/init/wait", Value::Null).await;
    let again = agent.call("POST", "/v1/containers/c/processes/init/kill", json!({"signal": 9})).await;

    assert_eq!(killed.0, 204);
    assert_eq!(exit["exitCode"], 137);
    assert_eq!((again.0, again.1["code"].as_str()), (409, Some("wrong-state")));
}

#[tokio::test]
async fn users_are_names_of_the_root_and_have_its_groups_and_home() {
    let agent = Agent::start("user").await;
    let mut request = container(&["sh", "-c", "id; echo $HOME; grep CapEff /proc/self/status"]);
    request["user"] = json!("ana");
    request["additionalGroups"] = json!(["4711"]);
    let (_, stdout, _) = agent.run("c", request).await;
    assert_eq!(
        stdout,
        "uid=1000(ana) gid=1000(ana) groups=10(wheel),1000(ana),4711\n/home/ana\nCapEff:\t0000000000000000\n"
    );
}

#[tokio::test]
async fn root_has_exactly_the_capabilities_it_was_given() {
    let agent = Agent::start("capabilities").await;
    let (_, stdout, _) =
        agent.run("c", container(&["grep", "-E", "Cap(Eff|Prm|Bnd)|NoNew", "/proc/self/status"])).await;
    // CHOWN 0, DAC_OVERRIDE 1, KILL 5, SETGID 6, SETUID 7.
    assert_eq!(
        stdout,
        "CapPrm:\t00000000000000e3\nCapEff:\t00000000000000e3\nCapBnd:\t00000000000000e3\nNoNewPrivs:\t1\n"
    );
}

#[tokio::test]
async fn failures_are_told_by_kind_in_runcs_words() {
    let agent = Agent::start("failures").await;
    let cases = [
        (container(&["nosuch"]), 422, "command-not-found", "exec: \"nosuch\": executable file not found in $PATH"),
        (
            container(&["/no/such"]),
            422,
            "command-not-found",
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        (container(&["/etc/plain"]), 422, "command-not-executable", "exec: \"/etc/plain\": permission denied"),
        (container(&["/etc"]), 422, "command-not-executable", "exec: \"/etc\": is a directory"),
    ];
    for (index, (request, status, code, message)) in cases.into_iter().enumerate() {
        let failure = agent.call("POST", &format!("/v1/containers/c{index}"), request).await;
        assert_eq!(failure, (status, json!({"code": code, "message": message})));
    }
    let mut request = container(&["true"]);
    request["user"] = json!("nosuch");
    let (status, failure) = agent.call("POST", "/v1/containers/u", request).await;
    assert_eq!((status, &failure["code"]), (400, &json!("no-such-user")));
    assert_eq!(failure["message"], "unable to find user nosuch: no matching entries in passwd file");
    let mut request = container(&["true"]);
    request["spec"]["process"]["cwd"] = json!("/etc/passwd");
    let (status, failure) = agent.call("POST", "/v1/containers/d", request).await;
    assert_eq!((status, &failure["code"]), (400, &json!("bad-working-directory")));
}

#[tokio::test]
async fn a_file_that_is_no_program_fails_at_its_start() {
    use std::os::unix::fs::PermissionsExt;
    let agent = Agent::start("format").await;
    let file = agent.root().join("bin/garbage");
    std::fs::write(&file, [0x7f, 1, 2, 3]).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();

    agent.create("c", container(&["garbage"])).await;
    let failure = agent.call("POST", "/v1/containers/c/processes/init/start", Value::Null).await;

    let message = "exec /bin/garbage: exec format error";
    assert_eq!(failure, (422, json!({"code": "command-not-executable", "message": message})));
}

#[tokio::test]
async fn a_terminal_is_the_controlling_one_and_has_its_size() {
    let agent = Agent::start("terminal").await;
    let mut request = container(&["sh", "-c", "stty size; tty; ls /dev/console; read line; stty size; echo got $line"]);
    request["spec"]["process"]["terminal"] = json!(true);
    request["stdin"] = json!(true);
    request["terminalSize"] = json!({"height": 33, "width": 111});
    agent.create("c", request).await;
    agent.call("POST", "/v1/containers/c/processes/init/start", Value::Null).await;

    let size = json!({"height": 44, "width": 122});
    assert_eq!(agent.call("POST", "/v1/containers/c/processes/init/resize", size).await.0, 204);
    agent.send("POST", "/v1/containers/c/processes/init/stdin?keep=1", "word\n").await;
    let (_, exit) = agent.call("GET", "/v1/containers/c/processes/init/wait", Value::Null).await;
    let (stdout, _) = split(&agent.bytes("/v1/containers/c/processes/init/output?from=0").await);

    assert_eq!(exit["exitCode"], 0);
    assert!(stdout.contains("/dev/pts/0\r\n/dev/console\r\n"), "{stdout}");
    assert!(stdout.contains("44 122\r\ngot word\r\n"), "{stdout}");
}

#[tokio::test]
async fn stdin_comes_in_several_bodies_and_ends_with_the_last() {
    let agent = Agent::start("stdin").await;
    let mut request = container(&["cat"]);
    request["stdin"] = json!(true);
    agent.create("c", request).await;
    agent.call("POST", "/v1/containers/c/processes/init/start", Value::Null).await;

    agent.send("POST", "/v1/containers/c/processes/init/stdin?keep=1", "one ").await;
    agent.send("POST", "/v1/containers/c/processes/init/stdin", "two").await;
    let (_, exit) = agent.call("GET", "/v1/containers/c/processes/init/wait", Value::Null).await;

    assert_eq!(exit["exitCode"], 0);
    let framed = agent.bytes("/v1/containers/c/processes/init/output?from=0").await;
    assert_eq!(split(&framed).0, "one two");
}

#[tokio::test]
async fn a_further_process_joins_the_container_and_dies_with_it() {
    let agent = Agent::start("exec").await;
    agent.create("c", container(&["sleep", "60"])).await;
    agent.call("POST", "/v1/containers/c/processes/init/start", Value::Null).await;

    let base = "/v1/containers/c/processes";
    let exec = json!({"process": process(&["sh", "-c", "ps -o pid,args; hostname; exit 3"]), "user": "ana"});
    assert_eq!(agent.call("POST", &format!("{base}/e1"), exec).await, (201, Value::Null));
    let (exit, stdout, _) = agent.finish("c", "e1").await;
    let exec = json!({"process": process(&["sleep", "60"])});
    agent.call("POST", &format!("{base}/e2"), exec).await;
    agent.call("POST", &format!("{base}/e2/start"), Value::Null).await;
    agent.call("POST", &format!("{base}/init/kill"), json!({"signal": 9})).await;
    let (_, second) = agent.call("GET", &format!("{base}/e2/wait"), Value::Null).await;

    assert_eq!(exit["exitCode"], 3);
    assert!(stdout.contains("1 sleep 60") && stdout.ends_with("box\n"), "{stdout}");
    assert_eq!(second["exitCode"], 137);
}

#[tokio::test]
async fn an_exec_ends_though_something_it_left_behind_holds_its_pipes() {
    let agent = Agent::start("left-behind").await;
    agent.create("c", container(&["sleep", "60"])).await;
    agent.call("POST", "/v1/containers/c/processes/init/start", Value::Null).await;
    let exec = json!({"process": process(&["sh", "-c", "sleep 50 & echo done"])});
    agent.call("POST", "/v1/containers/c/processes/e", exec).await;

    let (exit, stdout, _) = agent.finish("c", "e").await;

    assert_eq!((exit["exitCode"].as_i64(), stdout.as_str()), (Some(0), "done\n"));
}

#[tokio::test]
async fn much_output_waits_for_its_reader_and_arrives_whole() {
    let agent = Agent::start("much").await;
    agent.create("c", container(&["sh", "-c", "yes | head -c 20000000"])).await;
    let output = agent.send("GET", "/v1/containers/c/processes/init/output?from=0", "").await;
    agent.call("POST", "/v1/containers/c/processes/init/start", Value::Null).await;

    let framed = output.into_body().collect().await.unwrap().to_bytes();
    let (_, exit) = agent.call("GET", "/v1/containers/c/processes/init/wait", Value::Null).await;

    assert_eq!(exit["outputBytes"], framed.len());
    let (stdout, _) = split(&framed);
    assert_eq!(stdout.len(), 20_000_000);
    assert!(stdout.as_bytes().chunks_exact(2).all(|pair| pair == b"y\n"));
}

#[tokio::test]
async fn a_broken_connection_loses_nothing() {
    let mut agent = Agent::start("reconnect").await;
    let mut request = container(&["sh", "-c", "echo before; read line; echo $line"]);
    request["stdin"] = json!(true);
    agent.create("c", request).await;
    agent.call("POST", "/v1/containers/c/processes/init/start", Value::Null).await;
    let mut output = agent.send("GET", "/v1/containers/c/processes/init/output?from=0", "").await.into_body();
    let first = output.frame().await.unwrap().unwrap().into_data().unwrap();
    drop(output);

    agent.reconnect().await;
    agent.send("POST", "/v1/containers/c/processes/init/stdin", "after\n").await;
    agent.call("GET", "/v1/containers/c/processes/init/wait", Value::Null).await;
    let rest = agent.send("GET", "/v1/containers/c/processes/init/output?from=15", "").await;

    assert_eq!(split(&first).0, "before\n");
    assert_eq!(rest.headers()["x-offset"], "15");
    assert_eq!(split(&rest.into_body().collect().await.unwrap().to_bytes()).0, "after\n");
}

#[tokio::test]
async fn files_cover_those_of_the_image_and_links_do_not_lead_out() {
    let agent = Agent::start("files").await;
    std::os::unix::fs::symlink("/run/nowhere/stub.conf", agent.root().join("etc/resolv.conf")).unwrap();
    let mut request = container(&["sh", "-c", "cat /etc/hosts /etc/resolv.conf; echo >> /etc/passwd"]);
    request["files"] = json!({"/etc/hosts": "127.0.0.1 here\n", "/etc/resolv.conf": "nameserver 9.9.9.9\n"});
    request["rootfs"]["readOnly"] = json!(true);
    let (_, stdout, stderr) = agent.run("c", request).await;
    assert_eq!(stdout, "127.0.0.1 here\nnameserver 9.9.9.9\n");
    assert!(stderr.contains("Read-only file system"), "{stderr}");
    assert!(!std::path::Path::new("/run/nowhere").exists());
}

#[tokio::test]
async fn limits_sysctls_and_hidden_paths_hold() {
    let agent = Agent::start("limits").await;
    let script = "ulimit -n; umask; cat /proc/sys/kernel/msgmax; wc -c < /proc/version; ls /proc/tty; echo 1 > /proc/sys/kernel/msgmax";
    let mut request = container(&["sh", "-c", script]);
    request["spec"]["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
    request["spec"]["linux"]["sysctl"] = json!({"kernel.msgmax": "4097"});
    let (_, stdout, stderr) = agent.run("c", request).await;
    assert_eq!(stdout, "77\n0022\n4097\n0\n", "{stderr}");
    assert!(stderr.contains("Read-only file system"), "{stderr}");
}

#[tokio::test]
async fn a_user_can_open_the_standard_streams_again() {
    let agent = Agent::start("reopen").await;
    let mut request = container(&["sh", "-c", "echo again > /dev/stdout; echo err > /dev/stderr"]);
    request["user"] = json!("1000:1000");
    let (exit, stdout, stderr) = agent.run("c", request).await;
    assert_eq!((exit["exitCode"].as_i64(), stdout.as_str(), stderr.as_str()), (Some(0), "again\n", "err\n"));
}

#[tokio::test]
async fn a_missing_working_directory_is_made() {
    let agent = Agent::start("cwd").await;
    let mut request = container(&["pwd"]);
    request["spec"]["process"]["cwd"] = json!("/srv/new/place");
    assert_eq!(agent.run("c", request).await.1, "/srv/new/place\n");
}

#[tokio::test]
async fn a_program_finds_nothing_of_the_agent_open() {
    let agent = Agent::start("descriptors").await;
    let (_, stdout, _) = agent.run("c", container(&["ls", "/proc/self/fd"])).await;
    // 3 is the directory that ls itself reads.
    assert_eq!(stdout, "0\n1\n2\n3\n");
}

#[tokio::test]
async fn the_stop_ends_every_process_and_the_agent() {
    let agent = Agent::start("stop").await;
    agent.create("c", container(&["sleep", "60"])).await;
    let (_, started) = agent.call("POST", "/v1/containers/c/processes/init/start", Value::Null).await;

    assert_eq!(agent.call("POST", "/v1/sandbox/stop", json!({"deadlineMs": 5000})).await.0, 204);

    let process = format!("/proc/{}", started["pid"]);
    assert!(!std::path::Path::new(&process).exists());
    let status = format!("/proc/{}/stat", agent.pid());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while std::fs::read_to_string(&status).is_ok_and(|text| !text.contains(") Z ")) {
        assert!(std::time::Instant::now() < deadline, "the agent goes on");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_status_names_every_container() {
    let agent = Agent::start("status").await;
    agent.create("a", container(&["true"])).await;
    agent.run("b", container(&["true"])).await;
    let (_, status) = agent.call("GET", "/v1/sandbox", Value::Null).await;
    assert_eq!(status["containers"]["a"]["state"], "created");
    assert_eq!(status["containers"]["b"]["state"], "exited");
    assert_eq!(status["containers"]["b"]["exit"]["exitCode"], 0);
}
