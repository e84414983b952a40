//! Whether a cluster does what tests will take for granted.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Cluster;
use crate::progress;

const OBJECTS: &str = include_str!("node/check.yaml");
const NAMESPACE: &str = "lab-check";

/// How long a path may take to be there after the pods are.
const PATIENCE: Duration = Duration::from_mins(1);

/// One pod of the check.
struct Pod {
    name: String,
    address: String,
    node: String,
}

/// Starts a pod on every node and tries every path between them; removes them afterwards.
pub(super) fn all(cluster: &Cluster) -> Result<()> {
    let count = cluster.nodes().len();
    progress::during("A pod on every node", |_| {
        cluster.apply(OBJECTS)?;
        cluster.wait_pods_ready(NAMESPACE, "app=check", count)
    })?;
    let pods = pods(cluster)?;
    ensure!(pods.len() == count, "{} pods instead of {count}", pods.len());
    progress::during("Pod to pod, Service, name, node port, API server", |_| {
        paths(cluster, &pods)
    })?;
    progress::during("Tokens, logs and the way from the API server to a Service", |_| {
        api(cluster, &pods)
    })?;
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]).map(drop)
}

fn pods(cluster: &Cluster) -> Result<Vec<Pod>> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.spec.nodeName}\
                {\"\\n\"}{end}";
    let said = cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", path])?;
    let mut pods = Vec::new();
    for line in said.lines() {
        if let [name, address, node] = line.split(' ').collect::<Vec<_>>()[..] {
            pods.push(Pod { name: name.into(), address: address.into(), node: node.into() });
        }
    }
    Ok(pods)
}

/// Every pod gets every other's page by address, and one of them by the Service.
fn paths(cluster: &Cluster, pods: &[Pod]) -> Result<()> {
    let field =
        |path: &str| cluster.kubectl(&["get", "service", "check", "-n", NAMESPACE, "-o", path]);
    let service = field("jsonpath={.spec.clusterIP}")?;
    let node_port = field("jsonpath={.spec.ports[0].nodePort}")?;
    for pod in pods {
        for other in pods {
            let said = get(cluster, pod, &format!("http://{}:8080/", other.address))?;
            ensure!(said == other.name, "{} got {said:?} from {}", pod.name, other.name);
        }
        let mut places = vec![
            service.clone(),
            "check".to_owned(),
            "check.lab-check.svc.cluster.local".to_owned(),
        ];
        places.extend(cluster.nodes().iter().map(|node| format!("{}:{node_port}", node.address())));
        for place in places {
            let said = get(cluster, pod, &format!("http://{place}/"))?;
            ensure!(
                pods.iter().any(|pod| pod.name == said),
                "{} on {} got {said:?} from {place}",
                pod.name,
                pod.node
            );
        }
        // Without rights and by TLS that a busybox does not verify: any answer shows the path.
        let script = "nc -w 10 kubernetes.default 443 </dev/null && echo reached";
        let said = exec(cluster, pod, &["sh", "-c", script])?;
        ensure!(said == "reached", "{} cannot reach the API server", pod.name);
    }
    Ok(())
}

/// What pods get from the API server, and it from them.
fn api(cluster: &Cluster, pods: &[Pod]) -> Result<()> {
    for pod in pods {
        let token = exec(cluster, pod, &["cat", "/token/token"])?;
        let review = format!(
            "{{\"apiVersion\": \"authentication.k8s.io/v1\", \"kind\": \"TokenReview\", \
             \"spec\": {{\"token\": \"{token}\", \"audiences\": [\"lab-check\"]}}}}"
        );
        let path = cluster.dir.join("review.json");
        std::fs::write(&path, review)?;
        let path = path.to_string_lossy().into_owned();
        let said = cluster.kubectl(&["create", "-f", &path, "-o", "jsonpath={.status}"])?;
        ensure!(
            said.contains("\"authenticated\":true"),
            "the token of {} is refused: {said}",
            pod.name
        );
        cluster.kubectl(&["logs", "-n", NAMESPACE, &pod.name])?;
    }
    let proxy = format!("/api/v1/namespaces/{NAMESPACE}/services/check:80/proxy/index.html");
    cluster.wait("the API server to reach a Service", PATIENCE, || {
        let said = cluster.kubectl(&["get", "--raw", &proxy])?;
        Ok(pods.iter().any(|pod| pod.name == said.trim()))
    })
}

/// The page at `url`, as `pod` sees it.
fn get(cluster: &Cluster, pod: &Pod, url: &str) -> Result<String> {
    let mut page = String::new();
    cluster.wait(&format!("{} to get {url}", pod.name), PATIENCE, || {
        page = exec(cluster, pod, &["wget", "-q", "-T", "5", "-O", "-", url])?;
        Ok(true)
    })?;
    Ok(page)
}

fn exec(cluster: &Cluster, pod: &Pod, words: &[&str]) -> Result<String> {
    let kubectl = ["exec", "-n", NAMESPACE, &pod.name, "--"];
    Ok(cluster.kubectl(&[&kubectl[..], words].concat())?.trim().to_owned())
}
