//! The certificates, keys and kubeconfigs of one cluster, made anew at every start.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::Cmd;

const WHY: &str = "make the certificates of the lab's Kubernetes";

/// How openssl makes an authority, and what one signs.
const CONFIGURATION: &str = "[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth,clientAuth
";

/// The directory that holds them: `NAME.crt`, `NAME.key`, `NAME.kubeconfig`.
pub(super) struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes an authority, and keys for service accounts' tokens (`sa.key`, `sa.pub`).
    pub(super) fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        fs::write(dir.join("openssl.cnf"), CONFIGURATION).context("write openssl.cnf")?;
        let made = Self { dir: dir.to_owned() };
        made.openssl(&["req", "-x509", "-config", "openssl.cnf", "-extensions", "authority"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=lab", "-days", "30"])
            .read()?;
        made.openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
            .args(["-out", "sa.key"])
            .read()?;
        made.openssl(&["pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub"]).read()?;
        Ok(made)
    }

    /// Makes `name.crt` and `name.key` for `subject` (`/O=GROUP/CN=USER`), who may also serve
    /// under `addresses` (`IP:…`, `DNS:…`).
    pub(super) fn sign(&self, name: &str, subject: &str, addresses: &str) -> Result<()> {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let mut openssl = self
            .openssl(&["req", "-x509", "-config", "openssl.cnf", "-extensions", "leaf"])
            .args(["-CA", "ca.crt", "-CAkey", "ca.key", "-days", "30", "-subj", subject])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-keyout", &key, "-out", &certificate]);
        if !addresses.is_empty() {
            openssl = openssl.arg("-addext").arg(format!("subjectAltName={addresses}"));
        }
        openssl.read().map(drop)
    }

    /// Signs a client and writes `name.kubeconfig`, which carries all of it.
    pub(super) fn client(&self, name: &str, subject: &str, server: &str) -> Result<()> {
        self.sign(name, subject, "")?;
        self.kubeconfig(name, server)
    }

    /// Writes `name.kubeconfig` for a certificate that is there.
    pub(super) fn kubeconfig(&self, name: &str, server: &str) -> Result<()> {
        let data = |file: &str| {
            let base64 = self.openssl(&["base64", "-A", "-in", file]).read()?;
            anyhow::Ok(base64.trim().to_owned())
        };
        let ca = data("ca.crt")?;
        let certificate = data(&format!("{name}.crt"))?;
        let key = data(&format!("{name}.key"))?;
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\ncontexts:\n\
             - {{name: lab, context: {{cluster: lab, user: {name}}}}}\nclusters:\n\
             - {{name: lab, cluster: {{server: \"{server}\", certificate-authority-data: {ca}}}}}\n\
             users:\n- {{name: {name}, user: {{client-certificate-data: {certificate}, \
             client-key-data: {key}}}}}\n"
        );
        fs::write(self.path(&format!("{name}.kubeconfig")), text)
            .with_context(|| format!("write {name}.kubeconfig"))
    }

    /// A file of the directory.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// What is in a file of the directory.
    pub(super) fn read(&self, file: &str) -> Result<String> {
        let path = self.path(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    fn openssl(&self, args: &[&str]) -> Cmd {
        Cmd::new("openssl", WHY).args(args).dir(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_verified_by_the_authority_and_names_its_places() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = Certificates::create(dir.path()).expect("an authority");
        made.sign("node", "/O=system:nodes/CN=system:node:n", "IP:10.250.0.1,DNS:n")
            .expect("signed");
        let verify = ["verify", "-CAfile", "ca.crt", "-verify_ip", "10.250.0.1", "node.crt"];
        assert_eq!(made.openssl(&verify).read().expect("verified"), "node.crt: OK\n");
        let elsewhere = ["verify", "-CAfile", "ca.crt", "-verify_ip", "10.250.0.2", "node.crt"];
        made.openssl(&elsewhere).read().expect_err("another address");
        let show = ["x509", "-in", "node.crt", "-noout", "-subject", "-nameopt", "RFC2253"];
        let text = made.openssl(&show).read().expect("readable");
        assert_eq!(text, "subject=CN=system:node:n,O=system:nodes\n");
        let show = ["x509", "-in", "node.crt", "-noout", "-ext", "basicConstraints"];
        let text = made.openssl(&show).read().expect("readable");
        assert!(text.contains("CA:FALSE"), "{text}");
    }

    #[test]
    fn a_kubeconfig_carries_all_of_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = Certificates::create(dir.path()).expect("an authority");
        made.client("admin", "/O=system:masters/CN=admin", "https://127.0.0.1:1").expect("made");
        let text = made.read("admin.kubeconfig").expect("written");
        let key = made.openssl(&["base64", "-A", "-in", "admin.key"]).read().expect("encoded");
        assert!(text.contains("https://127.0.0.1:1"), "{text}");
        assert!(text.contains(key.trim()), "{text}");
    }
}
