//! TLS on loopback, with certificates made for each test and a real service between.

#![expect(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkhead_proto::connect::{Authorities, connect, connect_with};
use bulkhead_proto::listen::{Limits, ListenError, Listener, Peer, Tls};
use bulkhead_proto::rustls::crypto::ring;
use bulkhead_proto::rustls::pki_types::PrivateKeyDer;
use bulkhead_proto::rustls::server::{ClientHello, ResolvesServerCert};
use bulkhead_proto::rustls::sign::CertifiedKey;
use bulkhead_proto::rustls::{ServerConfig, version};
use bulkhead_proto::v1::node_agent_client::NodeAgentClient;
use bulkhead_proto::v1::node_agent_server::{NodeAgent, NodeAgentServer};
use bulkhead_proto::{Endpoint, v1};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Request, Response, Status};

type Ca = CertifiedIssuer<'static, KeyPair>;

static CAS: AtomicUsize = AtomicUsize::new(1);

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    // Each is another: by name, too.
    let number = CAS.fetch_add(1, Ordering::Relaxed);
    params.distinguished_name.push(DnType::CommonName, format!("test CA {number}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A serving certificate for `names`, valid for so many days from now; negative: it has ended.
fn certificate(ca: &Ca, names: &[&str], days: i64) -> Arc<CertifiedKey> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let now = std::time::SystemTime::now();
    let day = Duration::from_hours(24);
    params.not_before = (now - day * 30).into();
    let span = day * u32::try_from(days.unsigned_abs()).unwrap();
    params.not_after = if days < 0 { (now - span).into() } else { (now + span).into() };
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let chain = vec![certificate.der().clone()];
    Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider()).unwrap())
}

/// What is shown to whoever comes next.
#[derive(Debug)]
struct Shown(Mutex<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.lock().unwrap()))
    }
}

/// Answers, and takes everybody's word for who they are unless told not to.
struct Agent {
    trusting: bool,
}

#[tonic::async_trait]
impl NodeAgent for Agent {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let Some(Peer::Tls(peer)) = request.extensions().get::<Peer>() else {
            return Err(Status::internal("no TLS"));
        };
        if self.trusting {
            peer.proof.give();
        }
        Ok(Response::new(v1::GetStatusResponse { node: "here".to_owned(), ..Default::default() }))
    }

    async fn get_plan(
        &self,
        _: Request<v1::GetPlanRequest>,
    ) -> Result<Response<v1::GetPlanResponse>, Status> {
        Ok(Response::new(v1::GetPlanResponse { steps: Vec::new() }))
    }
}

struct Server {
    dir: TempDir,
    shown: Arc<Shown>,
    address: SocketAddr,
}

impl Server {
    async fn start(certificate: Arc<CertifiedKey>, limits: Limits, trusting: bool) -> Self {
        let shown = Arc::new(Shown(Mutex::new(certificate)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = Tls { config: Arc::new(config), limits };
        let endpoint = Endpoint::parse("https://127.0.0.1:0").unwrap();
        let listener = Listener::bind_with(&endpoint, Some(&tls)).await.unwrap();
        let Endpoint::Tls(address) = listener.endpoint() else { panic!("no TLS") };
        let address = address.socket_address().unwrap();
        let agent = NodeAgentServer::new(Agent { trusting });
        let server = tonic::transport::Server::builder().add_service(agent);
        tokio::spawn(async move { server.serve_with_incoming(listener).await.unwrap() });
        Self { dir: tempfile::tempdir().unwrap(), shown, address }
    }

    fn endpoint(&self, host: &str) -> Endpoint {
        Endpoint::parse(&format!("https://{host}:{}", self.address.port())).unwrap()
    }

    fn trusting(&self, cas: &[&Ca]) -> Authorities {
        let path: PathBuf = self.dir.path().join("ca.crt");
        fs::write(&path, cas.iter().map(|ca| ca.pem()).collect::<String>()).unwrap();
        Authorities::File(path)
    }
}

async fn ask(
    endpoint: &Endpoint,
    authorities: &Authorities,
) -> Result<NodeAgentClient<tonic::transport::Channel>, String> {
    let channel = connect_with(endpoint, Some(authorities)).await.map_err(|error| {
        let mut told = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            told = format!("{told}: {inner}");
            source = inner.source();
        }
        told
    })?;
    let mut client = NodeAgentClient::new(channel);
    let answer = client.get_status(v1::GetStatusRequest {}).await.map_err(|it| it.to_string())?;
    assert_eq!(answer.into_inner().node, "here");
    Ok(client)
}

#[tokio::test]
async fn a_server_is_known_by_address_and_by_name() {
    let ca = ca();
    let of = certificate(&ca, &["127.0.0.1", "localhost"], 10);
    let server = Server::start(of, Limits::default(), true).await;
    let authorities = server.trusting(&[&ca]);
    ask(&server.endpoint("127.0.0.1"), &authorities).await.unwrap();
    ask(&server.endpoint("localhost"), &authorities).await.unwrap();
    let pem = Authorities::Pem(ca.pem().into_bytes().into());
    ask(&server.endpoint("localhost"), &pem).await.unwrap();
}

#[tokio::test]
async fn a_wrong_ca_a_wrong_name_and_an_expired_certificate_are_refused_and_named() {
    let ca = ca();
    let good = certificate(&ca, &["127.0.0.1"], 10);
    let server = Server::start(good, Limits::default(), true).await;
    let other = server.trusting(&[&self::ca()]);
    let refused = ask(&server.endpoint("127.0.0.1"), &other).await.unwrap_err();
    assert!(
        refused.contains("not who it should be") && refused.contains("UnknownIssuer"),
        "{refused}"
    );
    let authorities = server.trusting(&[&ca]);
    let refused = ask(&server.endpoint("localhost"), &authorities).await.unwrap_err();
    assert!(refused.contains("not valid for name"), "{refused}");
    *server.shown.0.lock().unwrap() = certificate(&ca, &["127.0.0.1"], -1);
    let refused = ask(&server.endpoint("127.0.0.1"), &authorities).await.unwrap_err();
    assert!(refused.contains("expired"), "{refused}");
}

#[tokio::test]
async fn a_missing_or_broken_file_of_the_ca_is_named() {
    let ca = ca();
    let server = Server::start(certificate(&ca, &["127.0.0.1"], 10), Limits::default(), true).await;
    let endpoint = server.endpoint("127.0.0.1");
    let absent = Authorities::File(server.dir.path().join("absent.crt"));
    assert!(ask(&endpoint, &absent).await.unwrap_err().contains("absent.crt"));
    let path = server.dir.path().join("broken.crt");
    let half = ca.pem().replace("END CERTIFICATE", "END OF IT");
    for text in ["", "no certificate", half.as_str()] {
        fs::write(&path, text).unwrap();
        let refused = ask(&endpoint, &Authorities::File(path.clone())).await.unwrap_err();
        assert!(refused.contains("broken.crt"), "{refused}");
    }
    let refused = connect(&endpoint).await.unwrap_err();
    assert!(refused.to_string().contains("--ca-file"), "{refused}");
}

#[tokio::test]
async fn a_new_ca_takes_over_and_live_connections_go_on() {
    let (old, new) = (ca(), ca());
    let server =
        Server::start(certificate(&old, &["127.0.0.1"], 10), Limits::default(), true).await;
    let endpoint = server.endpoint("127.0.0.1");
    let authorities = server.trusting(&[&old]);
    let mut before = ask(&endpoint, &authorities).await.unwrap();
    // First the bundle of both, then the certificate, as the file is replaced on a node.
    *server.shown.0.lock().unwrap() = certificate(&new, &["127.0.0.1"], 10);
    assert!(ask(&endpoint, &authorities).await.unwrap_err().contains("UnknownIssuer"));
    before.get_status(v1::GetStatusRequest {}).await.unwrap();
    let authorities = server.trusting(&[&old, &new]);
    ask(&endpoint, &authorities).await.unwrap();
    before.get_status(v1::GetStatusRequest {}).await.unwrap();
    let authorities = server.trusting(&[&new]);
    ask(&endpoint, &authorities).await.unwrap();
}

#[tokio::test]
async fn plain_text_is_refused_on_both_sides() {
    let ca = ca();
    let server = Server::start(certificate(&ca, &["127.0.0.1"], 10), Limits::default(), true).await;
    let plain = Endpoint::Loopback(server.address);
    if let Ok(channel) = connect(&plain).await {
        let answer = NodeAgentClient::new(channel).get_status(v1::GetStatusRequest {}).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    // A client of TLS does not fall back.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    });
    let endpoint = Endpoint::parse(&format!("https://127.0.0.1:{port}")).unwrap();
    let refused = ask(&endpoint, &server.trusting(&[&ca])).await.unwrap_err();
    assert!(refused.contains("speak TLS"), "{refused}");
}

#[tokio::test]
async fn who_says_nothing_is_cut_off_and_harms_nobody() {
    let ca = ca();
    let limits = Limits {
        connections_per_address: 8,
        handshake: Duration::from_millis(400),
        proof: Duration::from_millis(400),
        ..Limits::default()
    };
    let server = Server::start(certificate(&ca, &["127.0.0.1"], 10), limits, true).await;
    let endpoint = server.endpoint("127.0.0.1");
    let authorities = server.trusting(&[&ca]);
    // Seven that say half a word; the eighth place is free.
    let mut silent = Vec::new();
    for _ in 0..7 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&[22, 3, 1]).await.unwrap();
        silent.push(stream);
    }
    let began = Instant::now();
    let client = ask(&endpoint, &authorities).await.unwrap();
    // All places are taken: who comes now is cut off at once.
    let mut ninth = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(ninth.read(&mut [0; 1]).await.unwrap_or(0), 0);
    for stream in &mut silent {
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut [0; 64])).await;
        assert!(ended.is_ok(), "still open after {:?}", began.elapsed());
    }
    ask(&endpoint, &authorities).await.unwrap();
    drop(client);
}

#[tokio::test]
async fn who_never_proves_who_it_is_is_cut_off_others_stay() {
    let ca = ca();
    let limits = Limits { proof: Duration::from_millis(500), ..Limits::default() };
    for trusting in [true, false] {
        let server = Server::start(certificate(&ca, &["127.0.0.1"], 10), limits, trusting).await;
        let authorities = server.trusting(&[&ca]);
        let mut client = ask(&server.endpoint("127.0.0.1"), &authorities).await.unwrap();
        // One connection for all: what is shown next would be refused by the client.
        *server.shown.0.lock().unwrap() = certificate(&self::ca(), &["127.0.0.1"], 10);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let answer = client.get_status(v1::GetStatusRequest {}).await;
        assert_eq!(answer.is_ok(), trusting, "{answer:?}");
    }
}

#[tokio::test]
async fn a_port_over_tls_needs_a_certificate_and_an_address() {
    let endpoint = Endpoint::parse("https://127.0.0.1:0").unwrap();
    let refused = Listener::bind(&endpoint).await.unwrap_err();
    assert!(matches!(refused, ListenError::NoCertificate { .. }), "{refused}");
}
