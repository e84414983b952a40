//! The objects that users wrote, as the API server has them: what is wrong with one does not stop
//! the others, and the form stands that was valid last, also over a restart.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_api::catalogue::Subject;
use bulkhead_api::object::{ObjectStatus, VirtualClusterStatus};
use bulkhead_api::{
    BulkheadConfig, Objects, Problem, Standing, VirtualCluster, VirtualClusterClass,
};
use kube::core::{DeserializeGuard, Resource};
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::watch::{self, watch};
use crate::ledger::GoodFile;

/// What was heard of an object.
#[derive(Debug)]
pub(crate) enum Heard {
    VirtualCluster(Of<VirtualCluster>),
    VirtualClusterClass(Of<VirtualClusterClass>),
    BulkheadConfig(Of<BulkheadConfig>),
}

/// What was heard of an object of one kind.
#[derive(Debug)]
pub(crate) enum Of<K> {
    /// All are listed anew.
    Begin,
    /// It is there.
    Applied(Box<K>),
    /// It is there and cannot be read: its name, and why.
    Unreadable(String, String),
    /// It is gone.
    Gone(String),
    /// All were listed.
    Done,
}

/// Watches the three kinds.
pub(crate) fn watch_all(client: &Client, to: &mpsc::Sender<watch::Heard>, tasks: &mut JoinSet<()>) {
    one(client, "virtualclusters", to, tasks, Heard::VirtualCluster);
    one(client, "virtualclusterclasses", to, tasks, Heard::VirtualClusterClass);
    one(client, "bulkheadconfigs", to, tasks, Heard::BulkheadConfig);
}

fn one<K>(
    client: &Client,
    kind: &'static str,
    to: &mpsc::Sender<watch::Heard>,
    tasks: &mut JoinSet<()>,
    heard: fn(Of<K>) -> Heard,
) where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
    tasks.spawn(watch(api, kind, to.clone(), move |event| {
        watch::Heard::Object(heard(match event {
            Event::Init => Of::Begin,
            Event::InitApply(guard) | Event::Apply(guard) => match guard.0 {
                Ok(object) => Of::Applied(Box::new(object)),
                Err(wrong) => Of::Unreadable(wrong.metadata.name.unwrap_or_default(), wrong.error),
            },
            Event::Delete(guard) => Of::Gone(guard.name_any()),
            Event::InitDone => Of::Done,
        }))
    }));
}

/// Everything that users wrote.
#[derive(Debug, Default)]
pub(crate) struct Written {
    now: Objects,
    kept: Objects,
    unreadable: BTreeMap<Subject, String>,
    listing: BTreeMap<&'static str, BTreeSet<String>>,
    listed: BTreeSet<&'static str>,
    changed: bool,
    /// As the API server has it, of each virtual cluster.
    pub(crate) of_clusters: BTreeMap<String, VirtualClusterStatus>,
    /// As the API server has it, of each other object.
    pub(crate) of_others: BTreeMap<Subject, ObjectStatus>,
}

impl Written {
    /// With the forms that stood when the controller ended.
    pub(crate) fn new(remembered: &[GoodFile]) -> Self {
        Self { kept: read(remembered), ..Self::default() }
    }

    /// Every kind was listed at least once.
    pub(crate) fn is_complete(&self) -> bool {
        self.listed.len() == 3
    }

    /// As they are.
    pub(crate) fn now(&self) -> &Objects {
        &self.now
    }

    /// Whether anything is different since this was last asked.
    pub(crate) fn changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Takes in what was heard.
    pub(crate) fn apply(&mut self, heard: Heard) {
        let Self { now, kept, of_clusters, of_others, .. } = self;
        let mut at = At {
            unreadable: &mut self.unreadable,
            listing: &mut self.listing,
            listed: &mut self.listed,
        };
        self.changed |= match heard {
            Heard::VirtualCluster(heard) => at.take(
                "virtualclusters",
                heard,
                (&mut now.virtual_clusters, &kept.virtual_clusters),
                Subject::VirtualCluster,
                |name, object: &mut VirtualCluster| {
                    of_clusters.insert(name, object.status.take().unwrap_or_default());
                },
            ),
            Heard::VirtualClusterClass(heard) => at.take(
                "virtualclusterclasses",
                heard,
                (&mut now.classes, &kept.classes),
                Subject::VirtualClusterClass,
                |name, object: &mut VirtualClusterClass| {
                    let status = object.status.take().unwrap_or_default();
                    of_others.insert(Subject::VirtualClusterClass(name), status);
                },
            ),
            Heard::BulkheadConfig(heard) => at.take(
                "bulkheadconfigs",
                heard,
                (&mut now.configs, &kept.configs),
                Subject::BulkheadConfig,
                |name, object: &mut BulkheadConfig| {
                    let status = object.status.take().unwrap_or_default();
                    of_others.insert(Subject::BulkheadConfig(name), status);
                },
            ),
        };
    }

    /// What stands now, and what of it must be remembered where that is different from before.
    pub(crate) fn standing(&mut self) -> (Standing, Option<Vec<GoodFile>>) {
        let mut standing = Standing::of(&self.now, &self.kept);
        for (subject, why) in &self.unreadable {
            let (kind, name) = title(subject);
            let problem = Problem {
                place: None,
                object: format!("{kind} \"{name}\""),
                field: String::new(),
                message: format!("cannot be read: {why}; apply the CRDs of this version"),
            };
            standing.problems.entry(subject.clone()).or_default().insert(0, problem);
        }
        let differs = standing.kept != self.kept;
        self.kept = standing.kept.clone();
        let now = &self.now;
        self.of_clusters.retain(|name, _| now.virtual_clusters.contains_key(name));
        let remember = differs.then(|| written(&self.kept));
        (standing, remember)
    }
}

impl Written {
    /// The forms that stand, as they are remembered.
    pub(crate) fn remembered(&self) -> Vec<GoodFile> {
        written(&self.kept)
    }
}

/// Kind and name.
pub(crate) fn title(subject: &Subject) -> (&'static str, &str) {
    match subject {
        Subject::VirtualCluster(name) => ("VirtualCluster", name),
        Subject::VirtualClusterClass(name) => ("VirtualClusterClass", name),
        Subject::BulkheadConfig(name) => ("BulkheadConfig", name),
    }
}

struct At<'a> {
    unreadable: &'a mut BTreeMap<Subject, String>,
    listing: &'a mut BTreeMap<&'static str, BTreeSet<String>>,
    listed: &'a mut BTreeSet<&'static str>,
}

impl At<'_> {
    /// Whether anything is different now.
    fn take<K: Resource + Clone + PartialEq>(
        &mut self,
        kind: &'static str,
        heard: Of<K>,
        (now, kept): (&mut BTreeMap<String, K>, &BTreeMap<String, K>),
        subject: impl Fn(String) -> Subject,
        mut take_status: impl FnMut(String, &mut K),
    ) -> bool {
        match heard {
            Of::Begin => {
                self.listing.insert(kind, now.keys().cloned().collect());
                false
            }
            Of::Applied(mut object) => {
                let name = object.name_any();
                self.is_there(kind, &name);
                // What we write ourselves changes nothing.
                take_status(name.clone(), &mut object);
                let meta = object.meta_mut();
                meta.managed_fields = None;
                meta.resource_version = None;
                let readable = self.unreadable.remove(&subject(name.clone())).is_some();
                let before = now.insert(name.clone(), *object);
                readable || before.as_ref() != now.get(&name)
            }
            Of::Unreadable(name, why) => {
                self.is_there(kind, &name);
                if let (false, Some(last)) = (now.contains_key(&name), kept.get(&name)) {
                    now.insert(name.clone(), last.clone());
                }
                let before = self.unreadable.insert(subject(name), why.clone());
                before != Some(why)
            }
            Of::Gone(name) => {
                let unreadable = self.unreadable.remove(&subject(name.clone())).is_some();
                now.remove(&name).is_some() || unreadable
            }
            Of::Done => {
                self.listed.insert(kind);
                let gone = self.listing.remove(kind).unwrap_or_default();
                for name in &gone {
                    now.remove(name);
                    self.unreadable.remove(&subject(name.clone()));
                }
                // An empty list is news, too, the first time.
                true
            }
        }
    }

    fn is_there(&mut self, kind: &str, name: &str) {
        if let Some(stale) = self.listing.get_mut(kind) {
            stale.remove(name);
        }
    }
}

/// Directories in the names under which objects are remembered; files of people have none.
const REMEMBERED: [&str; 3] =
    ["kubernetes/virtualclusters/", "kubernetes/classes/", "kubernetes/configs/"];

fn written(objects: &Objects) -> Vec<GoodFile> {
    fn each<K: Serialize>(directory: &str, all: &BTreeMap<String, K>, into: &mut Vec<GoodFile>) {
        for (name, object) in all {
            match serde_json::to_string(object) {
                Ok(content) => into.push(GoodFile { name: format!("{directory}{name}"), content }),
                Err(error) => tracing::error!(%error, name, "an object is not remembered"),
            }
        }
    }
    let mut files = Vec::new();
    each(REMEMBERED[0], &objects.virtual_clusters, &mut files);
    each(REMEMBERED[1], &objects.classes, &mut files);
    each(REMEMBERED[2], &objects.configs, &mut files);
    files
}

fn read(files: &[GoodFile]) -> Objects {
    fn into<K: DeserializeOwned>(directory: &str, file: &GoodFile, all: &mut BTreeMap<String, K>) {
        if let Some(name) = file.name.strip_prefix(directory) {
            match serde_json::from_str(&file.content) {
                Ok(object) => drop(all.insert(name.to_owned(), object)),
                Err(error) => tracing::warn!(%error, name, "what was remembered is not understood"),
            }
        }
    }
    let mut objects = Objects::default();
    for file in files {
        into(REMEMBERED[0], file, &mut objects.virtual_clusters);
        into(REMEMBERED[1], file, &mut objects.classes);
        into(REMEMBERED[2], file, &mut objects.configs);
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cluster(name: &str, cpu: &str) -> VirtualCluster {
        let object: Value = json!({
            "apiVersion": "bulkhead.dev/v1alpha1", "kind": "VirtualCluster",
            "metadata": { "name": name, "uid": name, "generation": 1, "resourceVersion": "7" },
            "spec": { "perNode": { "limit": { "cpu": cpu } } },
        });
        serde_json::from_value(object).unwrap()
    }

    fn applied(object: VirtualCluster) -> Heard {
        Heard::VirtualCluster(Of::Applied(Box::new(object)))
    }

    fn listed(remembered: &[GoodFile], clusters: &[VirtualCluster]) -> Written {
        let mut written = Written::new(remembered);
        written.apply(Heard::VirtualCluster(Of::Begin));
        for object in clusters {
            written.apply(applied(object.clone()));
        }
        written.apply(Heard::VirtualCluster(Of::Done));
        assert!(!written.is_complete(), "two kinds were not listed yet");
        written.apply(Heard::VirtualClusterClass(Of::Done));
        written.apply(Heard::BulkheadConfig(Of::Done));
        assert!(written.is_complete());
        written
    }

    fn limit(standing: &Standing, name: &str) -> String {
        let definition = &standing.catalogue.virtual_clusters[&name.parse().unwrap()];
        format!("{:?}", definition.limit.cpu)
    }

    #[test]
    fn what_is_wrong_keeps_its_last_form_also_over_a_restart() {
        let mut written = listed(&[], &[cluster("a", "1"), cluster("b", "2")]);
        let (before, remembered) = written.standing();
        written.apply(applied(cluster("a", "nonsense")));
        written.apply(applied(cluster("b", "3")));
        assert!(written.changed());
        let (now, remember) = written.standing();
        assert_eq!(limit(&now, "a"), limit(&before, "a"));
        assert_ne!(limit(&now, "b"), limit(&before, "b"), "the other one is not held back");
        assert_eq!(now.problems.len(), 1);
        assert!(remember.is_some());

        let files = remembered.unwrap();
        let mut again = listed(&files, &[cluster("a", "nonsense"), cluster("b", "2")]);
        let (restarted, _) = again.standing();
        assert_eq!(limit(&restarted, "a"), limit(&before, "a"));
    }

    #[test]
    fn what_cannot_be_read_keeps_its_last_form_and_is_told() {
        let mut written = listed(&[], &[cluster("a", "1")]);
        let (before, _) = written.standing();
        let wrong = Of::Unreadable("a".to_owned(), "missing field".to_owned());
        written.apply(Heard::VirtualCluster(wrong));
        let (now, _) = written.standing();
        assert_eq!(limit(&now, "a"), limit(&before, "a"));
        let problem = now.problems.values().flatten().next().unwrap().to_string();
        assert!(problem.contains("\"a\"") && problem.contains("missing field"), "{problem}");
        written.apply(applied(cluster("a", "1")));
        assert!(written.standing().0.problems.is_empty());
    }

    #[test]
    fn our_own_writing_changes_nothing_and_what_is_gone_is_gone() {
        let mut written = listed(&[], &[cluster("a", "1"), cluster("b", "1")]);
        written.changed();
        let mut with_status = cluster("a", "1");
        with_status.status = Some(VirtualClusterStatus::default());
        with_status.metadata.resource_version = Some("8".to_owned());
        written.apply(applied(with_status));
        assert!(!written.changed());
        written.apply(Heard::VirtualCluster(Of::Gone("b".to_owned())));
        assert!(written.changed());
        let (now, _) = written.standing();
        assert_eq!(now.catalogue.virtual_clusters.len(), 1);
        written.apply(Heard::VirtualCluster(Of::Begin));
        written.apply(Heard::VirtualCluster(Of::Done));
        assert_eq!(written.standing().0.catalogue.virtual_clusters.len(), 0);
    }
}
