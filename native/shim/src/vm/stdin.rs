//! One process's stdin: a request to the agent whose body stays open as long as stdin does.

use crate::vm::agent::{Agent, full};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, watch};

/// Chunks between the writer and the connection; a chunk is as long as the writer's client made it.
const CHUNKS_MAX: usize = 4;

/// The writing half; a clone is another handle of the same. It is closed when the last one is dropped.
#[derive(Clone)]
pub struct Stdin {
    chunks: mpsc::Sender<Bytes>,
    /// True once the agent takes no more: the process has ended or closed its stdin.
    refused: watch::Receiver<bool>,
}

/// The process no longer reads.
pub struct Refused;

/// A body whose chunks come from a channel.
struct Chunks(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

impl Stdin {
    /// Opens the stdin at `path`.
    pub fn open(agent: Agent, path: String) -> Self {
        let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
        let (sender, refused) = watch::channel(false);
        tokio::spawn(async move {
            // The answer comes after the body's end, or before it when nobody reads any more.
            let _ = agent.open(Method::POST, &path, Chunks(receiver).boxed_unsync()).await;
            sender.send_replace(true);
        });
        Self { chunks, refused }
    }

    /// Closes a stdin that nothing was written to.
    pub async fn close_unused(agent: &Agent, path: &str) {
        // A process that has ended has none.
        let _ = agent.open(Method::POST, path, full(Bytes::new())).await;
    }

    /// Hands over a chunk; waits while the process does not read.
    pub async fn write(&self, chunk: Bytes) -> Result<(), Refused> {
        let mut refused = self.refused.clone();
        tokio::select! {
            biased;
            _ = refused.wait_for(|refused| *refused) => Err(Refused),
            sent = self.chunks.send(chunk) => sent.map_err(|_| Refused),
        }
    }
}
