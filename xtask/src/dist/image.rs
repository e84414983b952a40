//! An image in the layout of the Open Container Initiative, in one file that container runtimes
//! import (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>).

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::archive::{self, Entry};

/// Whom its program runs as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum User {
    /// With the rights that its pod gives it.
    Root,
    /// A number that no node knows.
    Number(u32),
}

/// An image of one layer.
#[derive(Debug)]
pub(crate) struct Image {
    /// What it is called: registry, path and tag.
    pub(crate) reference: String,
    /// What is started in it.
    pub(crate) entrypoint: Vec<String>,
    /// Whom that runs as.
    pub(crate) user: User,
    /// All that is in it.
    pub(crate) entries: Vec<Entry>,
}

impl Image {
    /// Writes it into one file, and says by which digest it can be named.
    pub(crate) fn write(&self, path: &Path) -> Result<String> {
        let (bytes, digest) = self.bytes()?;
        fs::write(path, bytes).with_context(|| format!("write {}", path.display()))?;
        Ok(digest)
    }

    fn bytes(&self) -> Result<(Vec<u8>, String)> {
        let layer = Blob::new(archive::tar(&self.entries)?);
        let config = Blob::json(&self.config(&layer))?;
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.described("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.described("application/vnd.oci.image.layer.v1.tar")],
        }))?;
        let mut described = manifest.described("application/vnd.oci.image.manifest.v1+json");
        let tag = self.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        described["annotations"] = json!({
            // By the first it is found again, by the second containerd names it.
            "org.opencontainers.image.ref.name": tag,
            "io.containerd.image.name": self.reference,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [described],
        });
        // What `docker load` reads.
        let legacy = json!([{
            "Config": config.path(),
            "RepoTags": [self.reference],
            "Layers": [layer.path()],
        }]);
        let entries = [
            Entry::text(&text(&json!({ "imageLayoutVersion": "1.0.0" }))?, "oci-layout"),
            Entry::text(&text(&index)?, "index.json"),
            Entry::text(&text(&legacy)?, "manifest.json"),
            layer.entry(),
            config.entry(),
            manifest.entry(),
        ];
        Ok((archive::tar(&entries)?, format!("sha256:{}", manifest.digest)))
    }

    fn config(&self, layer: &Blob) -> Value {
        let user = match self.user {
            User::Root => "0:0".to_owned(),
            User::Number(number) => format!("{number}:{number}"),
        };
        let architecture = match env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            // The same from every build.
            "created": "1970-01-01T00:00:00Z",
            "config": { "Entrypoint": self.entrypoint, "User": user, "WorkingDir": "/" },
            // Uncompressed, so both digests are one.
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask dist" }],
        })
    }
}

/// Something that is named by what it is.
struct Blob {
    content: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(content: Vec<u8>) -> Self {
        let mut digest = String::new();
        for byte in Sha256::digest(&content) {
            // Writing to a String cannot fail.
            let _ = write!(digest, "{byte:02x}");
        }
        Self { content, digest }
    }

    fn json(value: &Value) -> Result<Self> {
        Ok(Self::new(text(value)?))
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn entry(&self) -> Entry {
        Entry::text(&self.content, &self.path())
    }

    fn described(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", self.digest),
            "size": self.content.len(),
        })
    }
}

fn text(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context("write JSON")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn image() -> Image {
        Image {
            reference: "localhost/bulkhead/agent:1".to_owned(),
            entrypoint: vec!["/usr/bin/bulkhead-agent".to_owned()],
            user: User::Number(65_532),
            entries: vec![Entry::text(b"hosts: files dns\n", "etc/nsswitch.conf")],
        }
    }

    fn unpacked(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        files
    }

    #[test]
    fn every_blob_is_where_its_digest_says_and_is_described_as_it_is() {
        let (bytes, digest) = image().bytes().unwrap();
        let files = unpacked(&bytes);
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["digest"], digest);
        let blob = |described: &Value| {
            let digest = described["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let content = files[&format!("blobs/sha256/{digest}")].clone();
            assert_eq!(described["size"], content.len());
            assert_eq!(Blob::new(content.clone()).digest, digest);
            content
        };
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = unpacked(&blob(&manifest["layers"][0]));
        assert_eq!(layer["etc/nsswitch.conf"], b"hosts: files dns\n");
    }

    #[test]
    fn the_same_content_gives_the_same_image() {
        assert_eq!(image().bytes().unwrap(), image().bytes().unwrap());
    }
}
