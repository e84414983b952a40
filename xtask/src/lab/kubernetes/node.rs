//! One node: a virtual machine that runs containerd, kubelet and kube-proxy.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::super::initramfs::Archive;
use super::super::machine::{CPU, KERNEL_COMMAND_LINE};
use super::certificates::Certificates;
use super::control_plane::HOST_ON_NODE;
use super::image::NodeImage;
use super::keeper;
use crate::command::{Cmd, find, quoted};

/// Addresses of pods; node N has 10.244.N.0/24 of them.
pub(super) const POD_NETWORK: &str = "10.244.0.0/16";

/// Files of every node, laid over its root file system: path, content.
const FILES: &[(&str, &str)] = &[
    ("etc/containerd/config.toml", include_str!("node/containerd.toml")),
    ("etc/kubernetes/import", include_str!("node/import")),
    ("etc/kubernetes/kubelet.yaml", include_str!("node/kubelet.yaml")),
    ("etc/kubernetes/network", include_str!("node/network")),
    ("etc/systemd/system.conf.d/lab.conf", include_str!("node/system.conf")),
    ("etc/systemd/system/dropbear.service", include_str!("node/dropbear.service")),
    ("etc/systemd/system/egress.service", include_str!("node/egress.service")),
    ("etc/systemd/system/kube-proxy.service", include_str!("node/kube-proxy.service")),
    ("etc/systemd/system/kubelet.service", include_str!("node/kubelet.service")),
    ("etc/systemd/system/node-images.service", include_str!("node/node-images.service")),
    ("etc/systemd/system/node-network.service", include_str!("node/node-network.service")),
    ("etc/systemd/system/node-resolver.service", include_str!("node/node-resolver.service")),
    ("etc/systemd/system/node.target", include_str!("node/node.target")),
];

/// Directories on the way to those files and to the files of one node, each before what is in it.
const DIRECTORIES: &[&str] = &[
    "over",
    "over/etc",
    "over/etc/cni",
    "over/etc/cni/net.d",
    "over/etc/containerd",
    "over/etc/kubernetes",
    "over/etc/systemd",
    "over/etc/systemd/system",
    "over/etc/systemd/system.conf.d",
    "over/root",
    "over/root/.ssh",
];

/// A node of a cluster, by its number from 1 on.
pub(crate) struct Node {
    dir: PathBuf,
    number: u8,
    ssh_port: u16,
}

impl Node {
    pub(super) fn new(dir: &Path, number: u8, ssh_port: u16) -> Self {
        Self { dir: dir.to_owned(), number, ssh_port }
    }

    /// "node-1"
    pub(crate) fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Its address among the nodes.
    pub(crate) fn address(&self) -> String {
        format!("10.250.0.{}", self.number)
    }

    /// Addresses of its pods.
    pub(super) fn pods(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    pub(super) fn ssh_port(&self) -> u16 {
        self.ssh_port
    }

    /// Runs a command there and returns what it prints; an error status is an error.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        let script: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        self.ssh(&format!("run a command on {}", self.name()))?.arg(script.join(" ")).read()
    }

    /// Runs a command there with this process's input and output; returns its status.
    pub(crate) fn show(&self, words: &[String]) -> Result<u8> {
        let script: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let ssh = self.ssh(&format!("run a command on {}", self.name()))?.arg(script.join(" "));
        let status = ssh.into_command().status().context("run ssh")?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
    }

    /// Copies a file there, with its permissions.
    ///
    /// The node fetches it compressed from a port of this machine's loopback: an emulated
    /// processor takes minutes to decipher what ssh would bring, and is slow at all it receives.
    pub(crate) fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let file = File::open(from).with_context(|| format!("read {}", from.display()))?;
        let length = file.metadata().with_context(|| format!("read {}", from.display()))?.len();
        let mode = if is_program(from)? { "755" } else { "644" };
        let to = quoted(to);
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen for the node")?;
        let number = port.local_addr().context("the port's number")?.port();
        // A new file under the old name: a program that runs keeps its own.
        let script = format!(
            "busybox nc {HOST_ON_NODE} {number} </dev/null | gzip -d >{to}.new && \
             [ $(busybox stat -c %s {to}.new) = {length} ] && \
             chmod {mode} {to}.new && mv {to}.new {to}"
        );
        let why = format!("copy {} to {}", from.display(), self.name());
        let ssh = self.ssh(&why)?.arg(script);
        thread::scope(|scope| {
            let sent = scope.spawn(move || -> io::Result<ExitStatus> {
                let (node, _) = port.accept()?;
                let mut gzip = Command::new("gzip");
                gzip.args(["-1", "-c"]).stdin(file).stdout(OwnedFd::from(node)).status()
            });
            let fetched = ssh.read();
            if fetched.is_err() {
                // It may never have come: nobody must wait for it.
                let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, number));
            }
            let sent = sent.join().map_err(|_| anyhow!("the thread that sends panicked"))?;
            fetched?;
            sent.with_context(|| why.clone()).map(drop)
        })
    }

    /// Brings container images, in an archive as `docker save` writes it, into its containerd.
    pub(crate) fn load(&self, archive: &Path) -> Result<()> {
        self.copy(archive, "/root/image.tar")?;
        let import = ["ctr", "--namespace", "k8s.io", "images", "import", "--local"];
        self.run(&[&import[..], &["/root/image.tar"]].concat())?;
        self.run(&["rm", "/root/image.tar"]).map(drop)
    }

    /// Its boot's identity, which changes with every boot.
    pub(crate) fn boot_id(&self) -> Result<String> {
        Ok(self.run(&["cat", "/proc/sys/kernel/random/boot_id"])?.trim().to_owned())
    }

    /// Lets it shut down and boot again; returns just before the shutdown begins.
    pub(crate) fn reboot(&self) -> Result<()> {
        // Not `systemctl reboot`, which asks logind, which the node does not have.
        // The connection may end before the command does: a new boot is what tells.
        let reboot =
            "(sleep 1; systemctl --no-block start reboot.target) >/dev/null 2>&1 </dev/null &";
        self.run(&["sh", "-c", reboot])?;
        self.hang_up()
    }

    /// Ends the connection that commands share, so that a dead one delays no other command.
    fn hang_up(&self) -> Result<()> {
        // There may be none.
        let _ = self.ssh("end a connection")?.args(["-O", "exit"]).read();
        Ok(())
    }

    /// ssh with the cluster's key; commands share a connection, since a handshake takes an
    /// emulated processor a while.
    fn ssh(&self, why: &str) -> Result<Cmd> {
        let options = [
            "BatchMode=yes",
            "ConnectTimeout=20",
            "ControlMaster=auto",
            &format!("ControlPath=ssh-{}", self.number),
            "ControlPersist=120",
            "IdentitiesOnly=yes",
            "IdentityFile=certificates/ssh",
            "LogLevel=ERROR",
            "ServerAliveCountMax=4",
            "ServerAliveInterval=5",
            // A machine that we have just made ourselves, on our own loopback.
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ];
        let options = options.iter().map(|option| format!("-o{option}"));
        let ssh = Cmd::tool("ssh", why)?.args(options).arg("-p").arg(self.ssh_port.to_string());
        Ok(ssh.args(["-F", "/dev/null", "root@127.0.0.1"]).dir(&self.dir))
    }

    /// Signs its certificates, writes its initial file system and plans its process.
    pub(super) fn plan(&self, cluster: &Plan<'_>) -> Result<()> {
        let name = self.name();
        let certificates = cluster.certificates;
        let server = format!("https://{HOST_ON_NODE}:{}", cluster.api_port);
        let addresses = format!("IP:{},DNS:{name}", self.address());
        certificates.sign(&name, &format!("/O=system:nodes/CN=system:node:{name}"), &addresses)?;
        certificates.kubeconfig(&name, &server)?;
        let initrd = self.dir.join(format!("{name}.initrd"));
        fs::write(&initrd, self.initial_files(cluster)?)
            .with_context(|| format!("write {}", initrd.display()))?;
        keeper::plan(&self.dir, &name, &self.qemu(cluster)?)
    }

    fn initial_files(&self, cluster: &Plan<'_>) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        for dir in ["bin", "dev", "proc", "root", "sys"].iter().chain(DIRECTORIES) {
            archive.directory(dir);
        }
        let bytes = |file: &str| {
            let path = cluster.image.path(file);
            fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        archive.file("init", 0o755, include_bytes!("node/init"));
        archive.file("bin/busybox", 0o755, &bytes("busybox")?);
        archive.file("virtio_blk.ko.xz", 0o644, &bytes("virtio_blk.ko.xz")?);
        archive.mask();
        for (path, content) in FILES {
            archive.file(&format!("over/{path}"), 0o644, content.as_bytes());
        }
        let certificates = cluster.certificates;
        let name = self.name();
        let mut own = |path: &str, content: String| {
            archive.file(&format!("over/{path}"), 0o600, content.as_bytes());
        };
        own("etc/hostname", format!("{name}\n"));
        own(
            "etc/machine-id",
            format!("{:032x}\n", 0x6275_6c6b_6865_6164 + u128::from(self.number)),
        );
        own("etc/cni/net.d/10-lab.conflist", self.pod_network());
        own("etc/kubernetes/node.env", self.environment(cluster.nodes));
        own("etc/kubernetes/ca.crt", certificates.read("ca.crt")?);
        own("etc/kubernetes/kubelet.crt", certificates.read(&format!("{name}.crt"))?);
        own("etc/kubernetes/kubelet.key", certificates.read(&format!("{name}.key"))?);
        own("etc/kubernetes/kubelet.kubeconfig", certificates.read(&format!("{name}.kubeconfig"))?);
        own("etc/kubernetes/kube-proxy.kubeconfig", certificates.read("kube-proxy.kubeconfig")?);
        own("root/.ssh/authorized_keys", certificates.read("ssh.pub")?);
        if self.number == 1 {
            own("etc/kubernetes/egress.conf", include_str!("node/egress.conf").to_owned());
        }
        Ok(archive.finish())
    }

    /// Pods on a bridge; no masquerading between nodes, so that pods keep their own addresses.
    fn pod_network(&self) -> String {
        format!(
            "{{\"cniVersion\": \"0.4.0\", \"name\": \"lab\", \"plugins\": [\n  \
             {{\"type\": \"bridge\", \"bridge\": \"cni0\", \"isGateway\": true, \
             \"hairpinMode\": true, \"ipam\": {{\"type\": \"host-local\", \
             \"ranges\": [[{{\"subnet\": \"{}\"}}]], \"routes\": [{{\"dst\": \"0.0.0.0/0\"}}]}}}},\n  \
             {{\"type\": \"portmap\", \"capabilities\": {{\"portMappings\": true}}}}\n]}}\n",
            self.pods()
        )
    }

    fn environment(&self, nodes: &[Self]) -> String {
        let mut text = format!(
            "NODE={}\nNODE_ADDRESS={}\nPOD_NETWORK={POD_NETWORK}\nHOST_MAC={}\nNODES_MAC={}\n",
            self.name(),
            self.address(),
            self.mac(1),
            self.mac(2),
        );
        let others = nodes.iter().filter(|other| other.number != self.number);
        let routes: Vec<String> =
            others.map(|other| format!("{}={}", other.pods(), other.address())).collect();
        let _ = writeln!(text, "POD_ROUTES=\"{}\"", routes.join(" "));
        text
    }

    fn mac(&self, interface: u8) -> String {
        format!("52:54:00:b4:{interface:02x}:{:02x}", self.number)
    }

    /// Two interfaces: QEMU's user network to the host, and a segment that the nodes share.
    fn qemu(&self, cluster: &Plan<'_>) -> Result<Vec<String>> {
        let program = find("qemu-system-x86_64")
            .context("qemu-system-x86_64 is missing; `cargo xtask setup lab` gets it")?;
        let name = self.name();
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut host = format!(
            "user,id=host,ipv6=off,hostname={name},hostfwd=tcp:127.0.0.1:{}-:22",
            self.ssh_port
        );
        if self.number == 1 {
            let _ = write!(host, ",hostfwd=tcp:127.0.0.1:{}-:8888", cluster.egress_port);
        }
        let other = if self.number == 1 { 2 } else { 1 };
        let segment = format!(
            "dgram,id=nodes,local.type=unix,local.path=segment-{}.sock,\
             remote.type=unix,remote.path=segment-{other}.sock",
            self.number
        );
        // QEMU reads a doubled comma as one.
        let root = text(cluster.image.path("root.img")).replace(',', ",,");
        let interface = |id: &str, number| {
            format!("virtio-net-pci,netdev={id},mac={},romfile=", self.mac(number))
        };
        let mut words = vec![text(program)];
        let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
        add(&["-nodefaults", "-no-user-config", "-display", "none", "-name", &name]);
        add(&["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2"]);
        add(&["-m", &cluster.memory_mib.to_string()]);
        add(&["-kernel", &text(cluster.image.path("vmlinuz"))]);
        add(&["-initrd", &format!("{name}.initrd")]);
        add(&["-append", &format!("{KERNEL_COMMAND_LINE} systemd.unit=node.target")]);
        add(&["-serial", &format!("file:{name}.console")]);
        // Changes go to a nameless file and end with the machine, not with a reboot.
        add(&["-drive", &format!("file={root},format=raw,if=virtio,snapshot=on,cache=unsafe")]);
        add(&["-netdev", &host, "-device", &interface("host", 1)]);
        add(&["-netdev", &segment, "-device", &interface("nodes", 2)]);
        add(&["-device", "virtio-rng-pci"]);
        Ok(words)
    }
}

/// What nodes are planned with.
pub(super) struct Plan<'a> {
    pub(super) certificates: &'a Certificates,
    pub(super) image: &'a NodeImage,
    pub(super) nodes: &'a [Node],
    pub(super) api_port: u16,
    pub(super) egress_port: u16,
    /// Memory of each node.
    pub(super) memory_mib: u32,
}

fn is_program(path: &Path) -> Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = fs::metadata(path).with_context(|| format!("see {}", path.display()))?;
    Ok(meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_differ_and_know_the_way_to_each_other() {
        let nodes = [1, 2].map(|number| Node::new(Path::new("/nowhere"), number, 1));
        let text = nodes[0].environment(&nodes);
        assert!(
            text.contains("NODE=node-1\n") && text.contains("NODE_ADDRESS=10.250.0.1\n"),
            "{text}"
        );
        assert!(text.contains("POD_ROUTES=\"10.244.2.0/24=10.250.0.2\"\n"), "{text}");
        assert_ne!(nodes[0].mac(2), nodes[1].mac(2));
        assert_ne!(nodes[0].mac(1), nodes[0].mac(2));
    }

    #[test]
    fn the_pod_network_is_json_with_the_nodes_own_addresses() {
        let node = Node::new(Path::new("/nowhere"), 2, 1);
        let network: serde_json::Value =
            serde_json::from_str(&node.pod_network()).expect("it is JSON");
        let subnet = &network["plugins"][0]["ipam"]["ranges"][0][0]["subnet"];
        assert_eq!(subnet, "10.244.2.0/24");
    }
}
