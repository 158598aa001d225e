//! TLS, towards a server with a certificate of its own making.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::user::{Ran, User};

/// Of a certificate for `localhost`, and its key. Good for a hundred years, and for nothing else.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinds/tls").join(name)
}

/// A server that says hello over TLS, to whoever believes it.
fn start() -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(file("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Ends with the test.
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Those who do not believe it hang up.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 4096];
                drop(stream.read(&mut request).await);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                drop(stream.write_all(answer).await);
                drop(stream.shutdown().await);
            }
        });
    });
    address
}

#[test]
fn a_server_is_believed_by_its_certificate() {
    let (user, port) = (User::new(), start().port());
    let ask = |host: &str, tls: &Value| -> Ran {
        let http = json!({"url": format!("https://{host}:{port}/"), "tls": tls});
        let file = json!({"name": "tls", "tasks": [{"id": "ask", "http": http,
            "outputs": {"said": "${{ response.text }}"}}],
            "outputs": {"said": "${{ tasks.ask.outputs.said }}"}});
        let path = user.file("tls.json", &file.to_string());
        user.types(&format!("quorate run {path}"))
    };
    let ca = json!({ "ca": file("ca.pem") });
    ask("localhost", &ca).exits(0).prints("said=hello");
    ask("127.0.0.1", &ca).exits(3).says("TLS");
    ask("localhost", &json!({})).exits(3).says("speaks no TLS that is believed");
    ask("127.0.0.1", &json!({"verify": false})).exits(0).prints("said=hello");
    ask("localhost", &json!({"ca": "/nowhere.pem"})).exits(3).says("/nowhere.pem");
}
