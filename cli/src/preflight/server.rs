//! What an API server offers.

use super::{Level, Line};

/// What an API server offers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Server {
    /// As "v1.30.2".
    pub(crate) version: String,
    /// Definitions of kinds (`apiextensions.k8s.io/v1`).
    pub(crate) has_definitions: bool,
    /// `EndpointSlices` (`discovery.k8s.io/v1`).
    pub(crate) has_slices: bool,
    /// `ValidatingAdmissionPolicy`, of any version.
    pub(crate) has_policies: bool,
}

/// Rules in definitions are on by default from this one on.
const CEL: (u32, u32) = (1, 25);

/// What that means.
pub(super) fn lines(server: &Server) -> Vec<Line> {
    let Server { version, has_definitions, has_slices, has_policies } = server;
    let is = |has: bool| if has { "there" } else { "absent" };
    let has_cel = super::version(version).is_some_and(|number| number >= CEL);
    let line = |about, found: String, has: bool, good: &str, worse: &str| Line {
        about,
        level: if has { Level::Good } else { Level::Note },
        found,
        means: (if has { good } else { worse }).to_owned(),
        mend: None,
    };
    let definitions = Line {
        about: "api server",
        level: if *has_definitions { Level::Good } else { Level::CannotInstall },
        found: version.clone(),
        means: if *has_definitions {
            "it takes our kinds".to_owned()
        } else {
            "it has no apiextensions.k8s.io/v1, and does not take our kinds".to_owned()
        },
        mend: (!has_definitions).then(|| "Kubernetes from 1.20 on".to_owned()),
    };
    vec![
        definitions,
        line(
            "discovery/v1",
            is(*has_slices).to_owned(),
            *has_slices,
            "backends of Services are read from it",
            "backends of Services are read from core Endpoints instead",
        ),
        line(
            "CEL rules",
            is(has_cel).to_owned(),
            has_cel,
            "an object that is wrong is refused at once",
            "the controller checks the same, and says so in status; before 1.23 `kubectl apply` \
             wants --validate=false for our definitions",
        ),
        line(
            "admission policy",
            is(*has_policies).to_owned(),
            *has_policies,
            "our objects and labels can be guarded by one",
            "our objects are guarded by RBAC alone",
        ),
    ]
}
