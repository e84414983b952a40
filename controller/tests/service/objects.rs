//! Files that change while the controller runs, and files that are wrong.

use std::fs;
use std::time::Duration;

use bulkhead_controller::Controller;
use bulkhead_proto::v1;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::running::{PATIENCE, Place, Running, cluster, hello};

const WRONG: &str = "apiVersion: bulkhead.dev/v1alpha1\nkind: VirtualCluster\nmetadata: {name: b}\n\
                     spec:\n  perNode: {limit: {cpu: lots}}\n";

async fn list(running: &Running) -> v1::ListVirtualClustersResponse {
    let request = v1::ListVirtualClustersRequest::default();
    running.clusters().await.list_virtual_clusters(request).await.unwrap().into_inner()
}

/// Waits until what is shown is as it should be.
async fn until(
    running: &Running,
    ready: impl Fn(&v1::ListVirtualClustersResponse) -> bool,
) -> v1::ListVirtualClustersResponse {
    let shown = async {
        loop {
            let shown = list(running).await;
            if ready(&shown) {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.expect("it is shown in time")
}

async fn health(running: &Running) -> ServingStatus {
    let request = HealthCheckRequest { service: "bulkhead.v1.Objects".to_owned() };
    let mut client = HealthClient::new(running.operator().await);
    client.check(request).await.unwrap().into_inner().status()
}

#[tokio::test]
async fn a_bad_file_is_named_by_line_and_the_last_good_state_stands() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let mut agent = running.agent(hello("n1")).await;
    let before = agent.snapshot().await;
    assert_eq!(health(&running).await, ServingStatus::Serving);

    place.write("b.yaml", WRONG);
    let shown = until(&running, |shown| !shown.problems.is_empty()).await;
    assert_eq!(shown.problems.len(), 1);
    assert!(shown.problems[0].starts_with("b.yaml:5:26: "), "{:?}", shown.problems);
    assert!(shown.problems[0].contains("spec.perNode.limit.cpu"), "{:?}", shown.problems);
    assert_eq!(shown.virtual_clusters.len(), 1);
    assert_eq!(health(&running).await, ServingStatus::NotServing);

    place.write("b.yaml", &cluster("b", "{network: {allow: [{virtualCluster: later}]}}"));
    let shown = until(&running, |shown| shown.problems.is_empty()).await;
    assert_eq!(shown.virtual_clusters.len(), 2);
    assert!(shown.warnings[0].contains("\"later\""), "{:?}", shown.warnings);
    assert_eq!(health(&running).await, ServingStatus::Serving);
    // Agents were told nothing in between.
    assert_eq!(agent.snapshot().await.generation, before.generation + 1);
    running.stop().await;
}

#[tokio::test]
async fn the_last_good_state_stands_over_a_restart() {
    let place = Place::with(&["a"]);
    place.start().await.stop().await;
    place.write("a.yaml", WRONG);
    let running = place.start().await;
    let shown = list(&running).await;
    assert_eq!(shown.virtual_clusters.len(), 1);
    assert_eq!(shown.virtual_clusters[0].name, "a");
    assert_eq!(shown.problems.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn with_no_good_state_ever_a_bad_file_stops_the_start() {
    let place = Place::new();
    place.write("b.yaml", WRONG);
    let error = Controller::start(place.config()).await.unwrap_err().to_string();
    assert!(error.contains("b.yaml:5:26: "), "{error}");
    fs::remove_dir_all(place.objects()).unwrap();
    let error = Controller::start(place.config()).await.unwrap_err().to_string();
    assert!(error.contains(&place.objects().display().to_string()), "{error}");
}

#[tokio::test]
async fn a_directory_that_goes_away_changes_nothing_until_it_is_back() {
    let place = Place::with(&["a"]);
    let running = place.start().await;
    let aside = place.path().join("aside");
    fs::rename(place.objects(), &aside).unwrap();
    let shown = until(&running, |shown| !shown.problems.is_empty()).await;
    assert_eq!(shown.virtual_clusters.len(), 1);
    // As it was, it is no news, but no problem any more.
    fs::rename(&aside, place.objects()).unwrap();
    until(&running, |shown| shown.problems.is_empty()).await;
    fs::rename(place.objects(), &aside).unwrap();
    until(&running, |shown| !shown.problems.is_empty()).await;
    fs::write(aside.join("b.yaml"), cluster("b", "{}")).unwrap();
    fs::rename(&aside, place.objects()).unwrap();
    let shown = until(&running, |shown| shown.problems.is_empty()).await;
    assert_eq!(shown.virtual_clusters.len(), 2);
    running.stop().await;
}

/// As a volume looks that is not mounted yet.
#[tokio::test]
async fn a_directory_without_objects_releases_nobody_unless_it_says_so() {
    let place = Place::with(&["a"]);
    place.start().await.stop().await;
    let file = place.objects().join("a.yaml");
    let aside = place.path().join("aside");
    fs::rename(&file, &aside).unwrap();
    let running = place.start().await;
    let named = place.objects().display().to_string();
    let refused = |shown: &v1::ListVirtualClustersResponse| {
        assert_eq!(shown.virtual_clusters.len(), 1);
        shown.problems.len() == 1 && shown.problems[0].starts_with(&named)
    };
    until(&running, refused).await;
    fs::rename(&aside, &file).unwrap();
    until(&running, |shown| shown.problems.is_empty()).await;
    // Nor while it runs, nor by files without a word in them.
    fs::remove_file(&file).unwrap();
    until(&running, refused).await;
    place.write("a.yaml", "\n");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(refused(&list(&running).await));

    place.write("a.yaml", &cluster("a", "{}"));
    until(&running, |shown| shown.problems.is_empty()).await;
    for none in ["# there are none\n", "---\n"] {
        place.write("a.yaml", none);
        let shown = until(&running, |shown| shown.virtual_clusters.is_empty()).await;
        assert_eq!(shown.problems, Vec::<String>::new());
        place.write("a.yaml", &cluster("a", "{}"));
        until(&running, |shown| !shown.virtual_clusters.is_empty()).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn other_files_and_hidden_ones_are_no_objects() {
    let place = Place::with(&["a"]);
    for name in ["README.md", ".a.yaml.swp", ".hidden.yaml"] {
        place.write(name, "not: [yaml");
    }
    fs::create_dir(place.objects().join("sub.yaml")).unwrap();
    let running = place.start().await;
    let shown = list(&running).await;
    assert_eq!((shown.virtual_clusters.len(), shown.problems.len()), (1, 0));
    running.stop().await;
}
