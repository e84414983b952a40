//! A real API server with its etcd, on loopback, for as long as a test runs.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Config, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Names the directory of the binaries.
const BINARIES: &str = "BULKHEAD_KUBERNETES_BINARIES";

/// How long an API server may take to be ready: this machine may do much else.
const READY: Duration = Duration::from_mins(3);

/// How long anything else may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A process that ends with its owner.
struct Process(Child);

impl Process {
    fn start(place: &Path, program: &Path, arguments: &[String]) -> Self {
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let log = File::create(place.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(place).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", program.display())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is what was wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The API server.
pub(crate) struct ApiServer {
    binaries: PathBuf,
    ports: [u16; 3],
    server: Option<Process>,
    _etcd: Process,
    place: TempDir,
}

impl ApiServer {
    /// Starts it, with our CRDs and what the controller may do.
    pub(crate) async fn start() -> Self {
        let binaries = std::env::var_os(BINARIES).unwrap_or_else(|| {
            panic!("{BINARIES} is not set; name the directory of kube-apiserver and etcd in it")
        });
        let binaries = PathBuf::from(binaries);
        for name in ["kube-apiserver", "etcd"] {
            let path = binaries.join(name);
            assert!(path.is_file(), "{} is not there; see `cargo xtask lab`", path.display());
        }
        let place = tempfile::tempdir().unwrap();
        let ports = free_ports();
        let url = |port| format!("http://127.0.0.1:{port}");
        let etcd = Process::start(
            place.path(),
            &binaries.join("etcd"),
            &[
                "--data-dir=etcd".to_owned(),
                format!("--listen-client-urls={}", url(ports[0])),
                format!("--advertise-client-urls={}", url(ports[0])),
                format!("--listen-peer-urls={}", url(ports[1])),
                format!("--initial-advertise-peer-urls={}", url(ports[1])),
                format!("--initial-cluster=default={}", url(ports[1])),
                "--unsafe-no-fsync".to_owned(),
            ],
        );
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(place.path().join("sa.key"), key.serialize_pem()).unwrap();
        fs::write(place.path().join("sa.pub"), key.public_key_pem()).unwrap();
        let tokens = "admin-token,admin,admin,system:masters\ncontroller-token,controller,c1\n";
        fs::write(place.path().join("tokens.csv"), tokens).unwrap();
        let mut this = Self { binaries, ports, server: None, _etcd: etcd, place };
        this.up().await;
        this.install().await;
        this
    }

    /// Starts the server, on the port that it had.
    pub(crate) async fn up(&mut self) {
        let [etcd, _, port] = self.ports;
        let arguments = [
            format!("--etcd-servers=http://127.0.0.1:{etcd}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            // Of nobody (RFC 5737): it must be no loopback address, and nobody goes there.
            "--advertise-address=192.0.2.1".to_owned(),
            "--cert-dir=certificates".to_owned(),
            "--token-auth-file=tokens.csv".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://bulkhead.test".to_owned(),
            "--service-account-signing-key-file=sa.key".to_owned(),
            "--service-account-key-file=sa.pub".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            // Nobody makes service accounts here.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        let program = self.binaries.join("kube-apiserver");
        self.server = Some(Process::start(self.place.path(), &program, &arguments));
        let client = self.admin().await;
        let begun = Instant::now();
        let services: Api<Service> = Api::namespaced(client.clone(), "default");
        let namespaces: Api<Namespace> = Api::all(client);
        // What it makes itself, last.
        while services.get("kubernetes").await.is_err()
            || namespaces.get("kube-system").await.is_err()
        {
            let ended = self.server.as_mut().and_then(|it| it.0.try_wait().unwrap());
            let soon = begun.elapsed() < READY && ended.is_none();
            assert!(soon, "the API server is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Ends the server. What it stores stays.
    pub(crate) fn down(&mut self) {
        self.server = None;
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("kube-apiserver.log")).unwrap_or_default()
    }

    /// A client that may do anything.
    pub(crate) async fn admin(&self) -> Client {
        let file = Kubeconfig::read_from(self.kubeconfig("admin")).unwrap();
        let options = KubeConfigOptions::default();
        Client::try_from(Config::from_custom_kubeconfig(file, &options).await.unwrap()).unwrap()
    }

    /// The kubeconfig of a user.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        let path = self.place.path().join(format!("{user}.kubeconfig"));
        let server = format!("https://127.0.0.1:{}", self.ports[2]);
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{
                "name": "it", "cluster": { "server": server, "insecure-skip-tls-verify": true },
            }],
            "users": [{ "name": "it", "user": { "token": format!("{user}-token") } }],
            "contexts": [{
                "name": "it", "context": { "cluster": "it", "user": "it", "namespace": "default" },
            }],
        });
        fs::write(&path, text.to_string()).unwrap();
        path
    }

    async fn install(&self) {
        let client = self.admin().await;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        for entry in fs::read_dir(root.join("../deploy/crds")).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            if !text.contains("kind: CustomResourceDefinition") {
                continue;
            }
            let crd: CustomResourceDefinition = serde_saphyr::from_str(&text).unwrap();
            crds.create(&PostParams::default(), &crd).await.unwrap();
            let name = crd.name_any();
            let established = until("the CRD is established", || async {
                let found = crds.get(&name).await.unwrap();
                let conditions = found.status.and_then(|status| status.conditions);
                let mut conditions = conditions.into_iter().flatten();
                conditions.any(|it| it.type_ == "Established" && it.status == "True").then_some(())
            });
            established.await;
        }
        let role = fs::read_to_string(root.join("tests/kubernetes/role.yaml")).unwrap();
        for object in serde_saphyr::from_multiple::<Value>(&role).unwrap() {
            apply(&client, object).await;
        }
    }
}

/// Creates an object, or makes it so.
pub(crate) async fn apply(client: &Client, object: Value) {
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let types = object.types.clone().unwrap();
    let (group, version) = types.api_version.rsplit_once('/').unwrap_or(("", &types.api_version));
    let kind = GroupVersionKind::gvk(group, version, &types.kind);
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let params = PatchParams::apply("test").force();
    let name = object.name_any();
    // A young server closes connections now and then.
    until(&format!("{name} is applied"), || async {
        match api.patch(&name, &params, &Patch::Apply(&object)).await {
            Ok(_) => Some(()),
            Err(kube::Error::Api(status)) => panic!("{name}: {status}"),
            Err(_) => None,
        }
    })
    .await;
}

/// As a kubelet does: the status of a pod.
pub(crate) async fn set_status<K>(api: &Api<K>, name: &str, status: Value)
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let patch = Patch::Merge(json!({ "status": status }));
    api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Waits until it is so.
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
