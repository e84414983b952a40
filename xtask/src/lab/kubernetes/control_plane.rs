//! etcd, the API server, the controller manager and the scheduler: processes of the host that
//! listen on loopback only, each with a certificate of its own.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result};

use super::build::Programs;
use super::certificates::Certificates;
use super::keeper;

/// Addresses of Services; the first is the API server's own Service.
pub(super) const SERVICE_NETWORK: &str = "10.96.0.0/16";
const SERVICE_OF_API: &str = "10.96.0.1";

/// Where the host is on a node: QEMU's user network.
pub(super) const HOST_ON_NODE: &str = "10.0.2.2";

const ISSUER: &str = "https://kubernetes.default.svc";

/// The loopback ports that one cluster uses on the host.
pub(super) struct Ports {
    pub(super) api: u16,
    etcd: u16,
    etcd_peer: u16,
    controller_manager: u16,
    scheduler: u16,
}

impl Ports {
    /// Ports that nobody has now.
    pub(super) fn free() -> Result<Self> {
        let [api, etcd, etcd_peer, controller_manager, scheduler] = free_ports()?;
        Ok(Self { api, etcd, etcd_peer, controller_manager, scheduler })
    }
}

/// Ports of the loopback interface that nobody has now.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    // All are held until all are known, so that they differ.
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
        *port = listener.local_addr().context("see a free port")?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Makes certificates and configurations in `dir` and plans the processes.
pub(super) fn plan(
    dir: &Path,
    programs: &Programs,
    certificates: &Certificates,
    ports: &Ports,
) -> Result<()> {
    let server = format!("https://127.0.0.1:{}", ports.api);
    sign(certificates, &server)?;
    write_egress(dir)?;
    plan_etcd(dir, programs, ports)?;
    plan_api_server(dir, programs, ports)?;
    let own = |name: &str, port: u16, more: &[&str]| {
        let mut words = vec![
            programs.path(name).to_string_lossy().into_owned(),
            format!("--kubeconfig=certificates/{name}.kubeconfig"),
            "--bind-address=127.0.0.1".to_owned(),
            "--port=0".to_owned(),
            format!("--secure-port={port}"),
            "--cert-dir=certificates".to_owned(),
            "--leader-elect=false".to_owned(),
        ];
        words.extend(more.iter().map(|&word| word.to_owned()));
        keeper::plan(dir, name, &words)
    };
    own("kube-scheduler", ports.scheduler, &[])?;
    let more = [
        "--use-service-account-credentials=true",
        "--service-account-private-key-file=certificates/sa.key",
        "--root-ca-file=certificates/ca.crt",
        "--cluster-signing-cert-file=certificates/ca.crt",
        "--cluster-signing-key-file=certificates/ca.key",
    ];
    own("kube-controller-manager", ports.controller_manager, &more)
}

fn sign(certificates: &Certificates, server: &str) -> Result<()> {
    let api = format!(
        "IP:127.0.0.1,IP:{HOST_ON_NODE},IP:{SERVICE_OF_API},DNS:localhost,DNS:kubernetes,\
         DNS:kubernetes.default,DNS:kubernetes.default.svc,\
         DNS:kubernetes.default.svc.cluster.local"
    );
    certificates.sign("etcd", "/CN=etcd", "IP:127.0.0.1")?;
    certificates.sign("kube-apiserver", "/CN=kube-apiserver", &api)?;
    certificates.sign("etcd-client", "/CN=kube-apiserver", "")?;
    certificates.sign("kubelet-client", "/O=system:masters/CN=kube-apiserver", "")?;
    certificates.client("admin", "/O=system:masters/CN=admin", server)?;
    for name in ["kube-controller-manager", "kube-scheduler"] {
        certificates.client(name, &format!("/CN=system:{name}"), server)?;
    }
    Ok(())
}

/// The API server reaches kubelets, webhooks and Services through a node.
fn write_egress(dir: &Path) -> Result<()> {
    let text = format!(
        "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\n\
         egressSelections:\n- name: cluster\n  connection:\n    proxyProtocol: HTTPConnect\n    \
         transport: {{uds: {{udsName: {}}}}}\n",
        keeper::EGRESS
    );
    fs::write(dir.join("egress.yaml"), text).context("write egress.yaml")
}

fn plan_etcd(dir: &Path, programs: &Programs, ports: &Ports) -> Result<()> {
    let client = format!("https://127.0.0.1:{}", ports.etcd);
    let peer = format!("https://127.0.0.1:{}", ports.etcd_peer);
    let words = [
        programs.path("etcd").to_string_lossy().into_owned(),
        "--data-dir=etcd".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--client-cert-auth".to_owned(),
        "--trusted-ca-file=certificates/ca.crt".to_owned(),
        "--cert-file=certificates/etcd.crt".to_owned(),
        "--key-file=certificates/etcd.key".to_owned(),
        "--peer-client-cert-auth".to_owned(),
        "--peer-trusted-ca-file=certificates/ca.crt".to_owned(),
        "--peer-cert-file=certificates/etcd.crt".to_owned(),
        "--peer-key-file=certificates/etcd.key".to_owned(),
    ];
    keeper::plan(dir, "etcd", &words)
}

fn plan_api_server(dir: &Path, programs: &Programs, ports: &Ports) -> Result<()> {
    let words = [
        programs.path("kube-apiserver").to_string_lossy().into_owned(),
        format!("--etcd-servers=https://127.0.0.1:{}", ports.etcd),
        "--etcd-cafile=certificates/ca.crt".to_owned(),
        "--etcd-certfile=certificates/etcd-client.crt".to_owned(),
        "--etcd-keyfile=certificates/etcd-client.key".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", ports.api),
        format!("--advertise-address={HOST_ON_NODE}"),
        "--tls-cert-file=certificates/kube-apiserver.crt".to_owned(),
        "--tls-private-key-file=certificates/kube-apiserver.key".to_owned(),
        "--client-ca-file=certificates/ca.crt".to_owned(),
        "--kubelet-certificate-authority=certificates/ca.crt".to_owned(),
        "--kubelet-client-certificate=certificates/kubelet-client.crt".to_owned(),
        "--kubelet-client-key=certificates/kubelet-client.key".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--egress-selector-config-file=egress.yaml".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--service-cluster-ip-range={SERVICE_NETWORK}"),
        format!("--service-account-issuer={ISSUER}"),
        format!("--api-audiences={ISSUER}"),
        "--service-account-key-file=certificates/sa.pub".to_owned(),
        "--service-account-signing-key-file=certificates/sa.key".to_owned(),
    ];
    keeper::plan(dir, "kube-apiserver", &words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let [a, b, c] = free_ports().expect("there are some");
        assert!(a != 0 && a != b && b != c && a != c, "{a} {b} {c}");
    }
}
