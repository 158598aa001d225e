//! The yardstick: puts into etcd, with as many in flight as our own work has.
//!
//! Speaks gRPC by hand over `h2`: one unary call with two byte fields does not need a
//! framework, and the JSON gateway would make etcd look slower than it is.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::net::{TcpListener, TcpStream};

/// Connections that the calls are spread over, as a client library would.
const CONNECTIONS: usize = 8;

/// The size of a value: about that of a command of ours in the log.
const VALUE_BYTES: usize = 200;

/// How long the servers may take to elect a leader.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// Running etcd servers. Killed when dropped.
pub(crate) struct Etcd {
    servers: Vec<Child>,
    client_ports: Vec<u16>,
    _data: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for server in &mut self.servers {
            drop(server.kill());
            drop(server.wait());
        }
    }
}

impl Etcd {
    /// Starts a cluster of `nodes`; `None` if etcd is not installed.
    pub(crate) async fn start(nodes: usize) -> Option<Self> {
        Command::new("etcd").arg("--version").stdout(Stdio::null()).status().ok()?;
        let folder = tempfile::tempdir().ok()?;
        let client_ports = free_ports(nodes).await?;
        let peer_ports = free_ports(nodes).await?;
        let peer = |at: usize| format!("http://127.0.0.1:{}", peer_ports[at]);
        let cluster: Vec<String> = (0..nodes).map(|at| format!("n{at}={}", peer(at))).collect();
        let mut servers = Vec::new();
        for (at, port) in client_ports.iter().enumerate() {
            let client = format!("http://127.0.0.1:{port}");
            let server = Command::new("etcd")
                .args(["--name", &format!("n{at}"), "--log-level", "error"])
                .arg("--data-dir")
                .arg(folder.path().join(at.to_string()))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer(at), "--initial-advertise-peer-urls", &peer(at)])
                .args(["--initial-cluster", &cluster.join(",")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .ok()?;
            servers.push(server);
        }
        let etcd = Self { servers, client_ports, _data: folder };
        etcd.ready().await.then_some(etcd)
    }

    /// Waits until a put succeeds.
    async fn ready(&self) -> bool {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            if let Some(mut connection) = connect(self.client_ports[0]).await
                && put(&mut connection, 0).await.is_some()
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// Puts for a while with `in_flight` at once; puts a second.
    pub(crate) async fn puts_per_second(&self, in_flight: usize, during: Duration) -> f64 {
        let mut connections = Vec::new();
        for at in 0..CONNECTIONS {
            let port = self.client_ports[at % self.client_ports.len()];
            connections.extend(connect(port).await);
        }
        let begun = Instant::now();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..in_flight {
            let connection = connections[writer % connections.len()].clone();
            writers.spawn(put_until(connection, writer, begun + during));
        }
        let done: u64 = writers.join_all().await.into_iter().sum();
        crate::report::ratio(done, begun.elapsed())
    }
}

/// Puts again and again until then, or until one fails; how many succeeded.
async fn put_until(mut connection: SendRequest<Bytes>, writer: usize, end: Instant) -> u64 {
    let mut done = 0;
    while Instant::now() < end && put(&mut connection, writer).await.is_some() {
        done += 1;
    }
    done
}

async fn free_ports(count: usize) -> Option<Vec<u16>> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.ok()?);
    }
    listeners.iter().map(|listener| Some(listener.local_addr().ok()?.port())).collect()
}

async fn connect(port: u16) -> Option<SendRequest<Bytes>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (client, connection) = h2::client::handshake(stream).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// One put; `None` if it failed.
async fn put(connection: &mut SendRequest<Bytes>, writer: usize) -> Option<()> {
    let request = http::Request::post("http://etcd/etcdserverpb.KV/Put")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .ok()?;
    let mut ready = connection.clone().ready().await.ok()?;
    let (response, mut body) = ready.send_request(request, false).ok()?;
    body.send_data(message(writer), true).ok()?;
    let mut answer = response.await.ok()?.into_body();
    while let Some(chunk) = answer.data().await {
        let length = chunk.ok()?.len();
        answer.flow_control().release_capacity(length).ok()?;
    }
    let trailers = answer.trailers().await.ok()??;
    (trailers.get("grpc-status")?.as_bytes() == b"0").then_some(())
}

/// `PutRequest { key = 1, value = 2 }` behind gRPC's five bytes of framing.
fn message(writer: usize) -> Bytes {
    let key = format!("key-{writer:04}");
    let mut put = BytesMut::new();
    put.put_u8(0x0a);
    put.put_u8(u8::try_from(key.len()).unwrap_or(u8::MAX));
    put.put_slice(key.as_bytes());
    put.put_u8(0x12);
    // A length of two bytes: seven bits each, low ones first.
    put.put_u8(u8::try_from(VALUE_BYTES & 0x7f).unwrap_or(0) | 0x80);
    put.put_u8(u8::try_from(VALUE_BYTES >> 7).unwrap_or(0));
    put.put_bytes(7, VALUE_BYTES);
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(put.len()).unwrap_or(u32::MAX));
    framed.put(put);
    framed.freeze()
}
