//! Client of the guest agent: the protocol over HTTP/2 on a console port.

use bulkhead_protocol::{
    CreateContainer, Failure, FailureCode, MOMENTS_HEADER, PREAMBLE_BYTES, PREAMBLE_MAGIC, RemoveContainer,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// What a guest may make the shim hold: per stream (one per process's output, taken as fast as the core takes), and of all streams.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Small frames cost an emulated guest more than anything else on this path.
const FRAME_BYTES_MAX: u32 = 256 << 10;
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// An answer that is not a stream. The longest is a list of processes, which the agent bounds below this.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// A fresh machine sends nothing before the preamble, a used one what was left of its last session.
const LEFTOVER_BYTES_MAX: usize = 4 << 20;

/// Body of a request.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An open session with the agent; a clone is another handle of the same.
#[derive(Clone)]
pub struct Agent(http2::SendRequest<Body>);

/// A request that got no answer, or a refusal by the agent.
#[derive(Debug)]
pub enum CallError {
    /// The agent said no.
    Refused(Failure),
    /// The connection is gone or the answer made no sense.
    Broken(String),
}

impl Agent {
    /// Opens a session. It takes as long as the guest takes to boot: the port holds the preamble until the agent opens it, and
    /// the agent's echo is the sign that it serves.
    pub async fn connect(mut stream: UnixStream) -> std::io::Result<Self> {
        let mut preamble = [0; PREAMBLE_BYTES];
        preamble[..PREAMBLE_MAGIC.len()].copy_from_slice(PREAMBLE_MAGIC);
        fill_random(&mut preamble[PREAMBLE_MAGIC.len()..])?;
        stream.write_all(&preamble).await?;
        let mut seen = [0; PREAMBLE_BYTES];
        stream.read_exact(&mut seen).await?;
        for _ in 0..LEFTOVER_BYTES_MAX {
            if seen == preamble {
                break;
            }
            seen.rotate_left(1);
            seen[PREAMBLE_BYTES - 1] = stream.read_u8().await?;
        }
        if seen != preamble {
            return Err(std::io::Error::other("the guest agent does not answer the session's preamble"));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .max_send_buf_size(1 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        // Its end shows in every request that is under way.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// A request whose answer is read by the caller.
    pub async fn open(&self, method: Method, path: &str, body: Body) -> Result<Response<Incoming>, CallError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://agent{path}"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| CallError::Broken(error.to_string()))?;
        let answer = self.0.clone().send_request(request).await.map_err(|error| CallError::Broken(describe(&error)))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let bytes = read(answer).await?;
        Err(CallError::Refused(refusal(status, &bytes)))
    }

    /// A request with a JSON body whose answer carries nothing.
    pub async fn tell(&self, path: &str, body: &impl Serialize) -> Result<(), CallError> {
        let bytes = serde_json::to_vec(body).map_err(|error| CallError::Broken(error.to_string()))?;
        let answer = self.open(Method::POST, path, full(bytes)).await?;
        read(answer).await.map(drop)
    }

    /// Builds a container; tells the moments of its steps, as the agent's header has them.
    pub async fn create_container(&self, path: &str, request: &CreateContainer) -> Result<String, CallError> {
        let bytes = serde_json::to_vec(request).map_err(|error| CallError::Broken(error.to_string()))?;
        let answer = self.open(Method::POST, path, full(bytes)).await?;
        let moments = answer.headers().get(MOMENTS_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        read(answer).await?;
        Ok(moments.unwrap_or_default())
    }

    /// Takes an ended container away.
    pub async fn remove_container(&self, path: &str, request: &RemoveContainer) -> Result<(), CallError> {
        let bytes = serde_json::to_vec(request).map_err(|error| CallError::Broken(error.to_string()))?;
        let answer = self.open(Method::DELETE, path, full(bytes)).await?;
        read(answer).await.map(drop)
    }

    /// A request without a body whose answer is JSON.
    pub async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, CallError> {
        let answer = self.open(method, path, full(Bytes::new())).await?;
        let bytes = read(answer).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| CallError::Broken(format!("the answer to {path} is not understood: {error}")))
    }
}

/// A body that is known as a whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// Fills a buffer from the host kernel's generator.
pub fn fill_random(buffer: &mut [u8]) -> std::io::Result<()> {
    // SAFETY: pointer and length are the buffer's.
    let count = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    // Up to 256 bytes come whole (getrandom(2)).
    if usize::try_from(count).is_ok_and(|count| count == buffer.len()) {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, CallError> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    body.collect().await.map(http_body_util::Collected::to_bytes).map_err(|error| CallError::Broken(error.to_string()))
}

fn refusal(status: StatusCode, bytes: &[u8]) -> Failure {
    serde_json::from_slice(bytes).unwrap_or_else(|_| {
        Failure::new(FailureCode::Internal, format!("the guest agent answered {status} without a reason"))
    })
}

fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
