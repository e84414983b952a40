//! Whether the API server answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A failed watch tries again within half of this: one that failed and says nothing for so long
/// has nothing to say because nothing happens.
const COUNTS: Duration = Duration::from_secs(20);

/// How each watch does.
#[derive(Debug, Default)]
pub(crate) struct Links(BTreeMap<&'static str, Failed>);

#[derive(Debug)]
struct Failed {
    why: String,
    first: Instant,
    last: Instant,
}

impl Links {
    /// A watch works.
    pub(crate) fn works(&mut self, kind: &'static str) {
        if self.0.remove(kind).is_some() {
            tracing::info!(kind, "the watch works again");
        }
    }

    /// A watch failed.
    pub(crate) fn fails(&mut self, kind: &'static str, why: String, now: Instant) {
        let failed = self.0.entry(kind).or_insert_with(|| {
            tracing::warn!(kind, why, "a watch failed; what is known stands");
            Failed { why: String::new(), first: now, last: now }
        });
        (failed.why, failed.last) = (why, now);
    }

    /// What operators are told. The text does not change while nothing else does.
    pub(crate) fn problems(&mut self, now: Instant) -> Vec<String> {
        self.0.retain(|_, failed| now.duration_since(failed.last) < COUNTS);
        // One lost connection is nothing that anybody should be woken for.
        let lasting = self.0.iter().filter(|(_, it)| it.last.duration_since(it.first) > COUNTS / 4);
        let problem = |(kind, Failed { why, .. }): (&&str, &Failed)| {
            format!("the API server does not tell of {kind}, what was told last stands: {why}")
        };
        lasting.map(problem).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_for_long_is_told_until_it_works_or_is_quiet() {
        let mut links = Links::default();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        links.fails("pods", "refused".to_owned(), begun);
        assert!(links.problems(begun).is_empty(), "it may be a moment's matter");
        links.fails("pods", "refused".to_owned(), after(6));
        let told = links.problems(after(7));
        assert!(told.len() == 1 && told[0].contains("pods") && told[0].contains("refused"));
        assert_eq!(links.problems(after(20)), told);
        assert!(links.problems(after(26)).is_empty(), "nobody repeated it");
        links.fails("pods", "refused".to_owned(), after(30));
        links.works("pods");
        assert!(links.problems(after(30)).is_empty());
    }
}
