//! HTTP: a request → what the sandbox is asked → an answer.

use crate::failure::{Result, invalid};
use crate::moments::Moments;
use crate::output::OutputReader;
use crate::process::Process;
use crate::sandbox::Sandbox;
use bulkhead_protocol::{
    CreateContainer, CreateProcess, Failure, FailureCode, Kill, MOMENTS_HEADER, RemoveContainer, Resize, StopSandbox,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Largest JSON body; a runtime spec with its seccomp profile is below 100 KB.
const MAX_JSON_BYTES: usize = 4 << 20;

/// The body of an answer.
pub(crate) enum Answer {
    /// All at once, or nothing.
    Whole(Option<Bytes>),
    /// A process's output as it comes.
    Output(OutputReader),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Output(reader) => reader.poll_piece(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }
}

/// What an answer means for the agent itself.
pub(crate) struct Handled {
    pub response: Response<Answer>,
    /// The sandbox was stopped: the machine ends once this answer is out.
    pub end_machine: bool,
}

/// Answers one request.
pub(crate) async fn handle(sandbox: Rc<Sandbox>, request: Request<Incoming>) -> Handled {
    let end_machine = request.method() == Method::POST && request.uri().path() == "/v1/sandbox/stop";
    match dispatch(&sandbox, request).await {
        Ok(response) => Handled { response, end_machine },
        Err(failure) => {
            let status = StatusCode::from_u16(failure.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Handled { response: json(status, &failure), end_machine: false }
        }
    }
}

async fn dispatch(sandbox: &Rc<Sandbox>, request: Request<Incoming>) -> Result<Response<Answer>> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or("").to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let method = request.method().clone();
    let method = method.as_str();
    match (method, parts.as_slice()) {
        ("GET", ["v1", "sandbox"]) => Ok(json(StatusCode::OK, &sandbox.status())),
        ("POST", ["v1", "sandbox", "stop"]) => {
            let stop: StopSandbox = read_json(request).await?;
            sandbox.stop(&stop).await;
            Ok(no_content())
        }
        ("POST", ["v1", "containers", id]) => {
            let mut moments = Moments::new();
            let create: CreateContainer = read_json(request).await?;
            sandbox.create_container(id, create, &mut moments).await?;
            let mut response = empty(StatusCode::CREATED);
            if let Ok(header) = moments.header().parse() {
                response.headers_mut().insert(MOMENTS_HEADER, header);
            }
            Ok(response)
        }
        ("DELETE", ["v1", "containers", id]) => {
            let remove: RemoveContainer = read_json(request).await?;
            sandbox.remove_container(id, &remove)?;
            Ok(no_content())
        }
        ("POST", ["v1", "containers", id, action @ ("pause" | "unpause")]) => {
            sandbox.freeze(id, *action == "pause").await?;
            Ok(no_content())
        }
        ("POST", ["v1", "containers", id, "update"]) => {
            sandbox.update(id, read_json(request).await?)?;
            Ok(no_content())
        }
        ("GET", ["v1", "containers", id, "stats"]) => Ok(json(StatusCode::OK, &sandbox.stats(id)?)),
        ("GET", ["v1", "containers", id, "top"]) => Ok(json(StatusCode::OK, &sandbox.top(id)?)),
        ("POST", ["v1", "containers", id, "processes", name]) => {
            let create: CreateProcess = read_json(request).await?;
            sandbox.create_process(id, name, create).await?;
            Ok(empty(StatusCode::CREATED))
        }
        ("POST", ["v1", "containers", id, "processes", name, "start"]) => {
            Ok(json(StatusCode::OK, &sandbox.start(id, name).await?))
        }
        (_, ["v1", "containers", id, "processes", name, action]) => {
            let process = sandbox.process(id, name)?;
            act(&process, method, action, &query, request).await
        }
        _ => Err(no_route(method, &path)),
    }
}

async fn act(
    process: &Rc<Process>,
    method: &str,
    action: &str,
    query: &str,
    request: Request<Incoming>,
) -> Result<Response<Answer>> {
    match (method, action) {
        ("POST", "kill") => {
            let kill: Kill = read_json(request).await?;
            process.kill(kill.signal)?;
            Ok(no_content())
        }
        ("POST", "resize") => {
            let size: Resize = read_json(request).await?;
            process.resize(size)?;
            Ok(no_content())
        }
        ("POST", "stdin") => {
            let keep = parameter(query, "keep") == Some("1");
            feed_stdin(process, request.into_body(), keep).await?;
            Ok(no_content())
        }
        ("GET", "output") => {
            let from = match parameter(query, "from") {
                None => None,
                Some(text) => Some(text.parse().map_err(|_| invalid(format!("from={text} is not an offset")))?),
            };
            let (stdout, stderr) = (parameter(query, "stdout"), parameter(query, "stderr"));
            let both = stdout.is_none() && stderr.is_none();
            let reader = process.output.read(from, both || stdout == Some("1"), both || stderr == Some("1"));
            let mut response = Response::new(Answer::Whole(None));
            response.headers_mut().insert("x-offset", reader.offset().into());
            *response.body_mut() = Answer::Output(reader);
            Ok(response)
        }
        ("GET", "wait") => Ok(json(StatusCode::OK, &process.wait().await)),
        _ => Err(no_route(method, action)),
    }
}

async fn feed_stdin(process: &Process, mut body: Incoming, keep: bool) -> Result<()> {
    while let Some(frame) = body.frame().await {
        // A body that breaks off is a client that went away: what it sent counts, and it did not ask for the end.
        let Ok(frame) = frame else { return Ok(()) };
        if let Some(bytes) = frame.data_ref()
            && !process.write_stdin(bytes).await?
        {
            break;
        }
    }
    if !keep {
        process.close_stdin().await;
    }
    Ok(())
}

fn no_route(method: &str, path: &str) -> Failure {
    Failure::new(FailureCode::NotFound, format!("the agent has no {method} {path}"))
}

async fn read_json<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T> {
    let body = Limited::new(request.into_body(), MAX_JSON_BYTES)
        .collect()
        .await
        .map_err(|error| invalid(format!("the body cannot be read: {error}")))?
        .to_bytes();
    serde_json::from_slice(&body).map_err(|error| invalid(format!("the body cannot be read: {error}")))
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn empty(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(None));
    *response.status_mut() = status;
    response
}

fn no_content() -> Response<Answer> {
    empty(StatusCode::NO_CONTENT)
}

fn json<T: serde::Serialize>(status: StatusCode, value: &T) -> Response<Answer> {
    let mut response = empty(status);
    *response.body_mut() = Answer::Whole(serde_json::to_vec(value).ok().map(Bytes::from));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_their_whole_name() {
        assert_eq!(parameter("from=12&stdout=1", "stdout"), Some("1"));
        assert_eq!(parameter("from=12", "fro"), None);
        assert_eq!(parameter("", "from"), None);
    }
}
