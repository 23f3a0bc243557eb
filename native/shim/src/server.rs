//! The shim's HTTP/1.1 server: parses a request, asks the sandbox, encodes the answer.

use crate::output::Reader;
use crate::sandbox::Sandbox;
use crate::wall::ProcessKey;
use bulkhead_protocol::{Failure, FailureCode};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

/// Most bytes of a JSON body.
const JSON_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes that a connection buffers in each direction.
const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;
/// Pause after `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Counts what is open, wakes who waits for none.
#[derive(Clone, Debug, Default)]
pub struct OpenCount(watch::Sender<usize>);

impl OpenCount {
    fn open(&self) -> Open {
        self.0.send_modify(|count| *count += 1);
        Open(self.clone())
    }

    /// Waits until none is open.
    pub async fn none(&self) {
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Waits until one is open.
    pub async fn some(&self) {
        let _ = self.0.subscribe().wait_for(|count| *count > 0).await;
    }
}

struct Open(OpenCount);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// What the server and the shim's end have in common.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    /// Connections.
    pub connections: OpenCount,
    /// Requests whose answer is not complete.
    pub requests: OpenCount,
    /// The daemon needs the sandbox no more.
    pub released: watch::Sender<bool>,
    /// The shim ends: connections finish what they do and close.
    pub closing: watch::Sender<bool>,
}

/// Accepts connections until it is dropped.
pub async fn serve(listener: UnixListener, sandbox: Sandbox, activity: Activity) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_connection(stream, sandbox.clone(), activity.clone()));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve_connection(stream: UnixStream, sandbox: Sandbox, activity: Activity) {
    let _open = activity.connections.open();
    let mut closing = activity.closing.subscribe();
    let service = hyper::service::service_fn(move |request| {
        let (sandbox, activity) = (sandbox.clone(), activity.clone());
        async move { Ok::<_, Infallible>(answer(request, &sandbox, &activity).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .max_buf_size(CONNECTION_BUFFER_BYTES)
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = closing.wait_for(|closing| *closing) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// An answer's body: all of it, or a stream.
pub struct Answer {
    whole: Option<Bytes>,
    stream: Option<mpsc::Receiver<Result<Bytes, std::io::Error>>>,
    _open: Option<Open>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(whole) = self.whole.take() {
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        match &mut self.stream {
            Some(stream) => stream.poll_recv(context).map(|next| next.map(|bytes| bytes.map(Frame::data))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_none() && self.stream.is_none()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match (&self.whole, &self.stream) {
            (Some(whole), _) => hyper::body::SizeHint::with_exact(whole.len() as u64),
            (None, None) => hyper::body::SizeHint::with_exact(0),
            (None, Some(_)) => hyper::body::SizeHint::default(),
        }
    }
}

fn respond(status: StatusCode, body: Option<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer { whole: body, stream: None, _open: None });
    *response.status_mut() = status;
    response
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Answer> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = respond(status, Some(body.into()));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn no_content() -> Response<Answer> {
    respond(StatusCode::NO_CONTENT, None)
}

async fn answer(request: Request<Incoming>, sandbox: &Sandbox, activity: &Activity) -> Response<Answer> {
    let open = activity.requests.open();
    let answered = if request.method() == Method::POST {
        // A task of its own: a client that goes away must not leave half of what it asked for.
        let (sandbox, activity) = (sandbox.clone(), activity.clone());
        let acting = tokio::spawn(async move { route(request, &sandbox, &activity).await });
        acting.await.unwrap_or_else(|cause| Err(Failure::new(FailureCode::Internal, format!("the shim: {cause}"))))
    } else {
        route(request, sandbox, activity).await
    };
    match answered {
        Ok(mut response) => {
            response.body_mut()._open = Some(open);
            response
        }
        Err(failure) => {
            json(StatusCode::from_u16(failure.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &failure)
        }
    }
}

async fn route(
    request: Request<Incoming>,
    sandbox: &Sandbox,
    activity: &Activity,
) -> Result<Response<Answer>, Failure> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let method = request.method().clone();
    match (&method, parts.as_slice()) {
        (&Method::GET, ["v1", "sandbox"]) => Ok(json(StatusCode::OK, &sandbox.status())),
        (&Method::POST, ["v1", "sandbox", "stop"]) => {
            let stop: bulkhead_protocol::StopSandbox = body(request).await?;
            sandbox.stop(Duration::from_millis(stop.deadline_ms)).await?;
            Ok(no_content())
        }
        (&Method::POST, ["v1", "sandbox", "assign"]) => {
            sandbox.assign(&body(request).await?).await?;
            Ok(no_content())
        }
        (&Method::POST, ["v1", "sandbox", "release"]) => {
            if sandbox.status().containers.values().any(|container| container.state != "exited") {
                let message = "a container of this sandbox has not ended: stop it first";
                return Err(Failure::new(FailureCode::WrongState, message));
            }
            // Its containers have ended, and it is closing down: the answer says that nothing of it is left.
            sandbox.ended().await;
            activity.released.send_replace(true);
            Ok(json(StatusCode::OK, &sandbox.status()))
        }
        (&Method::POST, ["v1", "containers", id]) => {
            check_name(id)?;
            sandbox.create_container(id, body(request).await?).await?;
            Ok(respond(StatusCode::CREATED, None))
        }
        (method, ["v1", "containers", id, action]) => {
            check_name(id)?;
            match (method, *action) {
                (&Method::POST, "pause") => sandbox.pause(id).await.map(|()| no_content()),
                (&Method::POST, "unpause") => sandbox.unpause(id).await.map(|()| no_content()),
                (&Method::POST, "update") => sandbox.update(id, body(request).await?).await.map(|()| no_content()),
                (&Method::POST, "health") => {
                    sandbox.start_health(id, body(request).await?)?;
                    Ok(no_content())
                }
                (&Method::GET, "health") => {
                    let after = query_value(&query, "after").and_then(|text| text.parse().ok());
                    Ok(json(StatusCode::OK, &sandbox.health(id, after).await?))
                }
                (&Method::GET, "stats") => Ok(json(StatusCode::OK, &sandbox.stats(id).await?)),
                (&Method::GET, "top") => Ok(json(StatusCode::OK, &sandbox.top(id).await?)),
                _ => Err(no_such_path(&path)),
            }
        }
        (&Method::POST, ["v1", "containers", id, "processes", process]) => {
            let key = process_key(id, process)?;
            sandbox.create_process(&key, body(request).await?).await?;
            Ok(respond(StatusCode::CREATED, None))
        }
        (method, ["v1", "containers", id, "processes", process, action]) => {
            let key = process_key(id, process)?;
            match (method, *action) {
                (&Method::POST, "start") => Ok(json(StatusCode::OK, &sandbox.start(&key).await?)),
                (&Method::POST, "kill") => {
                    let kill: bulkhead_protocol::Kill = body(request).await?;
                    sandbox.kill(&key, kill.signal).await?;
                    Ok(no_content())
                }
                (&Method::POST, "resize") => {
                    sandbox.resize(&key, body(request).await?).await?;
                    Ok(no_content())
                }
                (&Method::POST, "stdin") => {
                    let keep = query_value(&query, "keep").is_some_and(|value| value == "1");
                    stdin(sandbox, &key, request.into_body(), keep).await
                }
                (&Method::GET, "output") => output(sandbox, &key, &query),
                (&Method::GET, "wait") => Ok(json(StatusCode::OK, &sandbox.process(&key)?.wait().await)),
                _ => Err(no_such_path(&path)),
            }
        }
        _ => Err(no_such_path(&path)),
    }
}

fn no_such_path(path: &str) -> Failure {
    Failure::new(FailureCode::NotFound, format!("no such path or method: {path}"))
}

fn check_name(name: &str) -> Result<(), Failure> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
        let message = format!("\"{name}\" is no id: 1 to 64 letters, digits, - or _");
        return Err(Failure::new(FailureCode::InvalidRequest, message));
    }
    Ok(())
}

fn process_key(container: &str, process: &str) -> Result<ProcessKey, Failure> {
    check_name(container)?;
    check_name(process)?;
    Ok(ProcessKey { container: container.to_owned(), process: process.to_owned() })
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Failure> {
    let invalid = |cause: String| Failure::new(FailureCode::InvalidRequest, format!("request body: {cause}"));
    let whole = Limited::new(request.into_body(), JSON_BYTES_MAX).collect().await;
    let whole = whole.map_err(|cause| invalid(cause.to_string()))?.to_bytes();
    serde_json::from_slice(&whole).map_err(|cause| invalid(cause.to_string()))
}

fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|part| part.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

async fn stdin(
    sandbox: &Sandbox,
    key: &ProcessKey,
    mut body: Incoming,
    keep: bool,
) -> Result<Response<Answer>, Failure> {
    let process = sandbox.process(key)?;
    let mut complete = true;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            complete = false;
            break;
        };
        if let Ok(data) = frame.into_data()
            && let Err(failure) = sandbox.write_stdin(key, data).await
        {
            if failure.code != FailureCode::WrongState {
                return Err(failure);
            }
            // Nobody reads any more: what is still on its way is of no use, and the writer should know soon.
            let mut response = no_content();
            response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
            return Ok(response);
        }
    }
    // A terminal's input has no end: who leaves it may come back.
    if !process.terminal && (process.stdin_once || (complete && !keep)) {
        sandbox.close_stdin(key).await?;
    }
    Ok(no_content())
}

fn output(sandbox: &Sandbox, key: &ProcessKey, query: &str) -> Result<Response<Answer>, Failure> {
    let process = sandbox.process(key)?;
    let invalid = |what: &str| Failure::new(FailureCode::InvalidRequest, format!("{key}: {what} cannot be read"));
    let from = match query_value(query, "from") {
        None | Some("") => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| invalid("from"))?),
    };
    let wanted = |name: &str| query_value(query, name).map(|value| value == "1");
    let (stdout, stderr) = match (wanted("stdout"), wanted("stderr")) {
        (None, None) => (true, true),
        (stdout, stderr) => (stdout.unwrap_or(false), stderr.unwrap_or(false)),
    };
    let reader = process.output.reader(from, process.selection(stdout, stderr))?;
    let offset = http::HeaderValue::from(reader.offset());
    let (sender, stream) = mpsc::channel(1);
    tokio::spawn(read(reader, sender));
    let mut response = Response::new(Answer { whole: None, stream: Some(stream), _open: None });
    response.headers_mut().insert("x-offset", offset);
    let kind = if process.terminal {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    };
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    Ok(response)
}

/// Feeds an answer until the stream ends or the client goes away.
async fn read(mut reader: Reader, sender: mpsc::Sender<Result<Bytes, std::io::Error>>) {
    loop {
        // The place in the answer comes first: bytes are taken from the ring only when they can go out.
        let permit = tokio::select! {
            permit = sender.reserve() => permit,
            () = sender.closed() => return,
        };
        let Ok(permit) = permit else { return };
        let next = tokio::select! {
            next = reader.next() => next,
            () = sender.closed() => return,
        };
        match next {
            Ok(Some(bytes)) => permit.send(Ok(bytes)),
            Ok(None) => return,
            Err(_) => {
                permit.send(Err(std::io::Error::other("this reader was too slow and is cut off")));
                return;
            }
        }
    }
}
