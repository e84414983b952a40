//! What is remembered, for how long, and what happens to a long stream.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tonic::metadata::MetadataMap;

use super::*;

#[derive(Debug)]
struct Fake {
    valid: AtomicBool,
    away: AtomicBool,
    asked: AtomicUsize,
}

impl Fake {
    fn judge() -> (Arc<Self>, Arc<Judge>) {
        let fake = Arc::new(Self {
            valid: AtomicBool::new(true),
            away: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
        });
        let agents = "ns/agent".parse().unwrap();
        let judge = Judge::new(Arc::<Self>::clone(&fake), agents);
        (fake, Arc::new(judge))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tonic::async_trait]
impl Reviewer for Fake {
    async fn authenticate(&self, _: &str) -> Result<Option<User>, ReviewError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.away.load(Ordering::Relaxed) {
            return Err(ReviewError { operation: "ask", problem: "away".to_owned() });
        }
        let name = "system:serviceaccount:ns:agent".to_owned();
        let user = User { name, ..User::default() };
        Ok(self.valid.load(Ordering::Relaxed).then_some(user))
    }

    async fn may(&self, _: &User, access: &Access) -> Result<bool, ReviewError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(access.name() == Some("mine"))
    }

    async fn node_of_pod(&self, _: &PodName) -> Result<Option<String>, ReviewError> {
        Ok(None)
    }
}

fn token(text: &str) -> Token {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", format!("Bearer {text}").parse().unwrap());
    Token::of(&metadata).unwrap()
}

fn ending_in(seconds: u64) -> Token {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = format!("{{\"exp\":{}}}", now + seconds);
    token(&format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims)))
}

#[tokio::test(start_paused = true)]
async fn a_token_is_remembered_for_a_minute_and_not_beyond_its_end() {
    let (fake, judge) = Fake::judge();
    for (token, seconds) in [(token("opaque"), 60), (ending_in(3_600), 60), (ending_in(20), 20)] {
        let before = fake.asked();
        judge.bearer(&token, None).await.unwrap();
        tokio::time::advance(Duration::from_secs(seconds - 2)).await;
        judge.bearer(&token, None).await.unwrap();
        assert_eq!(fake.asked(), before + 1);
        tokio::time::advance(Duration::from_secs(3)).await;
        judge.bearer(&token, None).await.unwrap();
        assert_eq!(fake.asked(), before + 2, "{seconds}");
    }
}

#[tokio::test(start_paused = true)]
async fn decisions_are_remembered_for_some_seconds() {
    let (fake, judge) = Fake::judge();
    let user = Arc::new(User::default());
    let may = |name: &str| judge.may(&user, Access::VirtualCluster(name.to_owned()));
    assert!(may("mine").await.unwrap() && !may("theirs").await.unwrap());
    assert!(may("mine").await.unwrap() && !may("theirs").await.unwrap());
    assert_eq!(fake.asked(), 2);
    tokio::time::advance(DECIDED).await;
    assert!(may("mine").await.unwrap());
    assert_eq!(fake.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn guesses_from_one_address_are_slowed_and_harm_no_other() {
    let (fake, judge) = Fake::judge();
    fake.valid.store(false, Ordering::Relaxed);
    let (bad, good): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let mut slowed = 0;
    for guess in 0..100 {
        let status = judge.bearer(&token(&format!("guess{guess}")), Some(bad)).await.unwrap_err();
        slowed += usize::from(status.code() == Code::ResourceExhausted);
    }
    assert_eq!((slowed, fake.asked()), (40, 60));
    fake.valid.store(true, Ordering::Relaxed);
    judge.bearer(&token("good"), Some(good)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_taken_back_ends_a_long_stream_an_absent_server_does_not() {
    let (fake, judge) = Fake::judge();
    let token = token("long");
    let user = judge.bearer(&token, None).await.unwrap();
    let proven = Proven { judge, token, user, node: "n1".into() };
    let attested = Attested::Node(Arc::new(proven));
    let mut lost = attested.watch();
    let mut goes_on = async |time: Duration| timeout(time, lost.lost()).await;
    let minute = Duration::from_mins(1);
    assert!(goes_on(minute * 35).await.is_err());
    assert_eq!(fake.asked(), 4, "every ten minutes");
    fake.away.store(true, Ordering::Relaxed);
    assert!(goes_on(minute * 30).await.is_err());
    assert!(fake.asked() > 20, "every minute");
    fake.away.store(false, Ordering::Relaxed);
    fake.valid.store(false, Ordering::Relaxed);
    let status = goes_on(minute * 2).await.unwrap();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(timeout(minute * 600, Attested::Here.watch().lost()).await.is_err());
}

#[test]
fn service_accounts_have_a_namespace() {
    let account: ServiceAccount = "bulkhead-system/bulkhead-agent".parse().unwrap();
    assert_eq!(account.user_name(), "system:serviceaccount:bulkhead-system:bulkhead-agent");
    for text in ["agent", "/agent", "ns/", "ns/a/b", "ns/A", "n:s/a"] {
        assert!(text.parse::<ServiceAccount>().is_err(), "{text}");
    }
}
