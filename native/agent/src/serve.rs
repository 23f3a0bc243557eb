//! HTTP/2 on a byte stream.

use crate::routes::{Answer, handle};
use crate::sandbox::Sandbox;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// Flow-control window of a stream and of the connection, bytes: the host may send this much stdin unasked.
const WINDOW_BYTES: u32 = 4 << 20;

/// Largest frame that the host may send, bytes.
const MAX_FRAME_BYTES: u32 = 256 << 10;

/// The filler of a new session must fill up a frame that was begun in the one before.
const _: () = assert!(bulkhead_protocol::FILLER_BYTES > MAX_FRAME_BYTES as usize + 9);

/// Answers that wait for the connection, bytes per stream.
const MAX_SEND_BUFFER_BYTES: usize = 256 << 10;

/// How long the last answer may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs hyper's tasks on the one thread that there is.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The peer is gone.
    Disconnected,
    /// The sandbox was stopped, and the answer is out.
    Stopped,
}

/// Serves one connection to its end.
pub(crate) async fn serve<I>(io: I, sandbox: &Rc<Sandbox>) -> Ended
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let stopped = Rc::new(Notify::new());
    let service = service_fn(|request: Request<Incoming>| {
        let (sandbox, stopped) = (Rc::clone(sandbox), Rc::clone(&stopped));
        async move {
            let handled = handle(sandbox, request).await;
            if handled.end_machine {
                stopped.notify_one();
            }
            Ok::<Response<Answer>, Infallible>(handled.response)
        }
    });
    let connection = http2::Builder::new(LocalExecutor)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .auto_date_header(false)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A broken connection is the host's business: it opens the next one.
        _ = &mut connection => return Ended::Disconnected,
        () = stopped.notified() => {}
    }
    // Streams that are still open (a reader of output) would hold a graceful end up: the deadline is for them.
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(FAREWELL, connection).await;
    Ended::Stopped
}
