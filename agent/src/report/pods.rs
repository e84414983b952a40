//! What the controller is told of the node's pods: all of them first, then what changed. Bounded
//! messages; nothing waits in memory but the newest list.

use std::sync::Arc;

use bulkhead_core::LocalPods;
use bulkhead_proto::bindings::local_pod;
use bulkhead_proto::v1;
use prost::Message;
use tokio::sync::watch;

/// Bytes of one message, but one pod always. A controller takes 4 MiB.
const MOST_BYTES: usize = 2 << 20;

/// What one stream has told of the node's pods.
#[derive(Debug)]
pub(super) struct Pods {
    now: watch::Receiver<Arc<LocalPods>>,
    /// `None`: nothing yet.
    told: Option<LocalPods>,
    due: bool,
}

impl Pods {
    pub(super) const fn new(now: watch::Receiver<Arc<LocalPods>>) -> Self {
        Self { now, told: None, due: true }
    }

    /// Waits until the pods are others; for ever, where nobody says so any more.
    pub(super) async fn changed(&mut self) {
        match self.now.changed().await {
            Ok(()) => self.due = true,
            Err(_) => std::future::pending().await,
        }
    }

    pub(super) const fn are_due(&self) -> bool {
        self.due
    }

    /// What there is to be told next.
    pub(super) fn news(&mut self) -> Option<v1::LocalPods> {
        if !self.due {
            return None;
        }
        let now = Arc::clone(&self.now.borrow_and_update());
        let whole = self.told.is_none();
        let told = self.told.get_or_insert_default();
        let mut news = v1::LocalPods { whole, ..v1::LocalPods::default() };
        let mut bytes = 0;
        let gone: Vec<String> =
            told.keys().filter(|uid| !now.contains_key(*uid)).cloned().collect();
        for uid in gone {
            told.remove(&uid);
            bytes += uid.len();
            news.removed.push(uid);
        }
        self.due = false;
        for (uid, pod) in &*now {
            if told.get(uid) == Some(pod) {
                continue;
            }
            let message = local_pod(uid, pod);
            bytes += message.encoded_len();
            if bytes > MOST_BYTES && !news.pods.is_empty() {
                self.due = true;
                break;
            }
            news.pods.push(message);
            told.insert(uid.clone(), pod.clone());
        }
        (whole || !news.pods.is_empty() || !news.removed.is_empty()).then_some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_core::LocalPod;

    fn pods(uids: &[(&str, &str)]) -> Arc<LocalPods> {
        let pod = |name: &str| LocalPod {
            namespace: "n".to_owned(),
            name: name.to_owned(),
            ..LocalPod::default()
        };
        Arc::new(uids.iter().map(|(uid, name)| ((*uid).to_owned(), pod(name))).collect())
    }

    fn uids(news: &v1::LocalPods) -> Vec<&str> {
        news.pods.iter().map(|pod| pod.uid.as_str()).collect()
    }

    #[tokio::test]
    async fn all_pods_are_told_first_and_then_what_changed() {
        let sender = watch::Sender::new(pods(&[("1", "a"), ("2", "b")]));
        let mut told = Pods::new(sender.subscribe());
        let first = told.news().unwrap();
        assert!(first.whole && first.removed.is_empty());
        assert_eq!(uids(&first), ["1", "2"]);
        assert!(!told.are_due() && told.news().is_none());

        sender.send_replace(pods(&[("2", "c"), ("3", "d")]));
        told.changed().await;
        let second = told.news().unwrap();
        assert_eq!((second.whole, uids(&second)), (false, vec!["2", "3"]));
        assert_eq!(second.removed, ["1"]);

        sender.send_replace(pods(&[("2", "c"), ("3", "d")]));
        told.changed().await;
        assert_eq!(told.news(), None);
    }

    #[tokio::test]
    async fn no_pods_are_told_too_and_many_in_several_messages() {
        let sender = watch::Sender::new(Arc::default());
        let mut told = Pods::new(sender.subscribe());
        assert_eq!(told.news(), Some(v1::LocalPods { whole: true, ..v1::LocalPods::default() }));
        let name = "x".repeat(250);
        let many: Vec<String> = (0..10_000).map(|n| format!("{n:05}")).collect();
        let all: Vec<(&str, &str)> = many.iter().map(|uid| (uid.as_str(), &*name)).collect();
        sender.send_replace(pods(&all));
        told.changed().await;
        let (mut seen, mut messages) = (Vec::new(), 0);
        while let Some(news) = told.news() {
            assert!(!news.whole && news.encoded_len() < 3 << 20);
            seen.extend(news.pods.iter().map(|pod| pod.uid.clone()));
            messages += 1;
        }
        assert_eq!(seen, many);
        assert!(messages > 1);
    }
}
