//! A containerd of our own: its files in one directory, ended with us.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// The image of sandboxes and containers.
pub(crate) const IMAGE: &str = "bulkhead.test/box:1";

/// Makes an image of one busybox that sleeps.
const MAKE_IMAGE: &str = r#"set -e
mkdir -p rootfs && cp "$1" rootfs/busybox
tar -C rootfs -cf layer.tar .
sum=$(sha256sum layer.tar | cut -d ' ' -f 1)
echo '{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/busybox","sleep","3600"]},
"rootfs":{"type":"layers","diff_ids":["sha256:'$sum'"]}}' > config.json
echo '[{"Config":"config.json","RepoTags":["bulkhead.test/box:1"],"Layers":["layer.tar"]}]' > manifest.json
tar -cf image.tar manifest.json config.json layer.tar"#;

/// What is needed of the machine.
pub(crate) struct Programs {
    pub(crate) containerd: PathBuf,
    pub(crate) ctr: PathBuf,
    pub(crate) busybox: PathBuf,
    pub(crate) cni: PathBuf,
}

pub(crate) struct Containerd {
    dir: PathBuf,
    programs: Programs,
    child: Child,
}

impl Containerd {
    /// Starts one whose files are in `dir`, with NRI on.
    pub(crate) async fn start(dir: &Path, programs: Programs) -> Result<Self> {
        let dir = std::path::absolute(dir).context("find the directory")?;
        fs::create_dir_all(dir.join("net.d")).context("make the directory")?;
        fs::write(dir.join("config.toml"), config(&dir, &programs.cni)).context("configure")?;
        fs::write(dir.join("net.d/10-box.conflist"), NETWORK).context("configure networks")?;
        let child = spawn(&dir, &programs)?;
        let this = Self { dir, programs, child };
        this.until_up().await?;
        Ok(this)
    }

    /// Where plugins connect.
    pub(crate) fn nri(&self) -> PathBuf {
        self.dir.join("nri.sock")
    }

    /// Where a kubelet connects.
    pub(crate) fn cri(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// Makes the image known.
    pub(crate) async fn import_image(&self) -> Result<()> {
        let made = Command::new("sh")
            .args(["-c", MAKE_IMAGE, "sh"])
            .arg(&self.programs.busybox)
            .current_dir(&self.dir)
            .status()
            .await
            .context("make an image")?;
        ensure!(made.success(), "making an image ended with {made}");
        let imported = Command::new(&self.programs.ctr)
            .arg("--address")
            .arg(self.cri())
            .args(["--namespace", "k8s.io", "images", "import", "--snapshotter", "native"])
            .arg(self.dir.join("image.tar"))
            .stdout(Stdio::null())
            .status()
            .await
            .context("import the image")?;
        ensure!(imported.success(), "importing the image ended with {imported}");
        Ok(())
    }

    /// Kills it and starts another on the same files, as an upgrade or a crash would.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.end().await?;
        self.child = spawn(&self.dir, &self.programs)?;
        self.until_up().await
    }

    /// Ends it.
    pub(crate) async fn end(&mut self) -> Result<()> {
        self.child.kill().await.context("end containerd")
    }

    /// The end of what it logged.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    async fn until_up(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_mins(2);
        loop {
            let up = std::os::unix::net::UnixStream::connect(self.nri()).is_ok()
                && std::os::unix::net::UnixStream::connect(self.cri()).is_ok();
            if up {
                return Ok(());
            }
            ensure!(Instant::now() < until, "containerd does not come up:\n{}", self.log());
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn spawn(dir: &Path, programs: &Programs) -> Result<Child> {
    // A killed one leaves its sockets: nobody must take them for those of the next.
    for socket in ["nri.sock", "containerd.sock"] {
        let _ = fs::remove_file(dir.join(socket));
    }
    let log = File::options().create(true).append(true).open(dir.join("log")).context("log")?;
    Command::new(&programs.containerd)
        .arg("--config")
        .arg(dir.join("config.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", programs.containerd.display()))
}

const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "box", "plugins": [
  {"type": "ptp", "ipMasq": false,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]]}}]}"#;

fn config(dir: &Path, cni: &Path) -> String {
    let (dir, cni) = (dir.display(), cni.display());
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{dir}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = false
  socket_path = "{dir}/nri.sock"
  plugin_path = "{dir}/plugins"
  plugin_config_path = "{dir}/plugins.d"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{dir}/net.d"
"#
    )
}
