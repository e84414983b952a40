//! What this kernel can do, found out by trying it: each answer comes from a program that was
//! loaded and attached, a file that was read or written, a device that was made. No version is
//! compared.
//!
//! What is tried is taken away again: a cgroup of our own, a network namespace of our own,
//! programs and maps that nobody pins.

mod answer;
mod bpf;
mod btf;
mod cgroup;
mod local_storage;
mod netlink;
mod network;
mod process;
mod programs;
mod scene;

use std::path::Path;

use answer::answered;
pub use answer::{Answer, Feature};

/// Tries everything. `cgroup2`: where cgroup v2 is mounted.
pub fn all(cgroup2: Option<&Path>) -> Vec<Feature> {
    let scene = match cgroup2 {
        Some(mount) => scene::Scene::new(mount),
        None => Err("cgroup v2 is not mounted".to_owned()),
    };
    let scene = scene.as_ref().map_err(Clone::clone);
    let mut features = Vec::new();
    answered(&mut features, "eBPF", programs::ROWS, &scene);
    answered(&mut features, "cgroup v2", cgroup::ROWS, &scene);
    // In a network namespace that ends with its thread, so that nothing has to be tidied up.
    let network = std::thread::scope(|scope| {
        let tried = scope.spawn(|| {
            let mut features = Vec::new();
            let place = network::enter().and_then(|()| scene.clone());
            answered(&mut features, "network", network::ROWS, &place);
            features
        });
        tried.join()
    });
    features.extend(network.unwrap_or_default());
    answered(&mut features, "processes", process::ROWS, &scene);
    features
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_feature_is_named_once_and_without_a_place_nothing_is_claimed() {
        let features = all(None);
        let names: BTreeSet<_> = features.iter().map(|feature| feature.name).collect();
        assert_eq!(names.len(), features.len());
        assert!(features.len() > 30);
        let unseen = |feature: &&Feature| matches!(feature.answer, Answer::Unseen(_));
        assert_eq!(features.iter().filter(unseen).count(), features.len());
    }
}
