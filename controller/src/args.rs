//! The command line.

use std::path::PathBuf;

use bulkhead_proto::{Endpoint, EndpointError};
use clap::{Parser, ValueEnum};

use crate::controller::{Config, Source, TrustConfig};
use crate::kube::KubernetesConfig;
use crate::trust::{self, ServiceAccount};

/// The tenancy controller: tells each node which virtual clusters there are, and keeps the ledger
/// of what they used.
#[derive(Parser, Clone, Debug)]
#[command(version, max_term_width = 100)]
pub struct Args {
    /// Directory of the objects: VirtualCluster, VirtualClusterClass and BulkheadConfig of
    /// bulkhead.dev/v1alpha1 in *.yaml, *.yml and *.json. Read again after each change; while a
    /// file is wrong, what was valid last stands.
    #[arg(
        long,
        value_name = "DIR",
        env = "BULKHEAD_CONFIG",
        required_unless_present = "kubernetes",
        conflicts_with = "kubernetes"
    )]
    pub config: Option<PathBuf>,

    /// The objects are in Kubernetes, with the pods, Services and nodes that they are about: watch
    /// the API server, and write there how they stand.
    #[arg(long, env = "BULKHEAD_KUBERNETES")]
    pub kubernetes: bool,

    /// How to reach the API server [default: as every pod does].
    #[arg(long, value_name = "FILE", env = "BULKHEAD_KUBECONFIG", requires = "kubernetes")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the Lease by which one of several replicas writes status and Events [default:
    /// the pod's own].
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of this replica, which no other has [default: the host's name and the process's
    /// number].
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub replica: Option<String>,

    /// Directory of the ledger.
    #[arg(
        long,
        value_name = "DIR",
        env = "BULKHEAD_DATA_DIR",
        default_value = "/var/lib/bulkhead-controller"
    )]
    pub data_dir: PathBuf,

    /// Where agents connect: unix:PATH, a loopback ADDRESS:PORT, or over TLS: any other
    /// ADDRESS:PORT, or https://ADDRESS:PORT.
    #[arg(
        long,
        value_name = "ENDPOINT",
        env = "BULKHEAD_AGENTS_LISTEN",
        value_parser = listen,
        default_value = "unix:/run/bulkhead-controller/agents.sock"
    )]
    pub agents_listen: Endpoint,

    /// Where operators connect, in the same forms.
    #[arg(
        long,
        value_name = "ENDPOINT",
        env = "BULKHEAD_OPERATORS_LISTEN",
        value_parser = listen,
        default_value = "unix:/run/bulkhead-controller/operators.sock"
    )]
    pub operators_listen: Endpoint,

    /// How ports over TLS are served.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// How the log is written to standard error. What is logged: `RUST_LOG` (default: info).
    #[arg(long, value_enum, default_value_t, env = "BULKHEAD_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// How the log is written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

impl Args {
    /// What the controller needs of it.
    pub fn config(&self) -> Config {
        Config {
            objects: self.source(),
            data: self.data_dir.clone(),
            agents: self.agents_listen.clone(),
            operators: self.operators_listen.clone(),
            trust: Some(self.trust_config()),
            ledger_page_limit: None,
        }
    }

    fn source(&self) -> Source {
        match &self.config {
            Some(directory) => Source::Files(directory.clone()),
            None => Source::Kubernetes(KubernetesConfig {
                kubeconfig: self.kubeconfig.clone(),
                namespace: self.lease_namespace.clone(),
                identity: self.replica.clone().unwrap_or_else(this_process),
            }),
        }
    }

    fn trust_config(&self) -> TrustConfig {
        let TrustArgs { tls_dir, tls_self_signed, token_audience, agents_service_account } =
            self.trust.clone();
        TrustConfig {
            directory: tls_dir.unwrap_or_else(|| self.data_dir.join("tls")),
            self_signed: tls_self_signed,
            audience: token_audience,
            agents: agents_service_account,
        }
    }
}

/// How ports over TLS are served: whoever comes there must bring a token, and the API server is
/// asked whose it is.
#[derive(clap::Args, Clone, Debug)]
pub struct TrustArgs {
    /// Directory of tls.crt and tls.key (PEM); read again when they change [default: "tls" in the
    /// ledger's directory].
    #[arg(long, value_name = "DIR", env = "BULKHEAD_TLS_DIR")]
    pub tls_dir: Option<PathBuf>,

    /// Make and renew the certificate in --tls-dir, for these names and addresses, by a CA of our
    /// own; what agents and operators must trust is ca.crt there.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "BULKHEAD_TLS_SELF_SIGNED",
        value_parser = server_name
    )]
    pub tls_self_signed: Vec<String>,

    /// The audience that tokens must be meant for.
    #[arg(
        long,
        value_name = "AUDIENCE",
        env = "BULKHEAD_TOKEN_AUDIENCE",
        default_value = trust::AUDIENCE
    )]
    pub token_audience: String,

    /// The service account that agents run as.
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "BULKHEAD_AGENTS_SERVICE_ACCOUNT",
        default_value = "bulkhead-system/bulkhead-agent"
    )]
    pub agents_service_account: ServiceAccount,
}

fn this_process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

/// A port that others could reach is one over TLS.
fn listen(text: &str) -> Result<Endpoint, EndpointError> {
    match Endpoint::parse(text) {
        Err(EndpointError::NotLoopback { .. }) if !text.starts_with("http://") => {
            Endpoint::parse(&format!("https://{text}"))
        }
        parsed => parsed,
    }
}

fn server_name(text: &str) -> Result<String, String> {
    if trust::authority::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is no name of a server; write a DNS name or an IP address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_port_that_others_could_reach_speaks_tls() {
        let parse = |endpoint: &str| {
            let line = ["bulkhead-controller", "--config", "/c", "--agents-listen", endpoint];
            Args::try_parse_from(line).map(|args| args.agents_listen.to_string())
        };
        assert_eq!(parse("0.0.0.0:1").unwrap(), "https://0.0.0.0:1");
        assert_eq!(parse("https://127.0.0.1:1").unwrap(), "https://127.0.0.1:1");
        assert_eq!(parse("127.0.0.1:1").unwrap(), "http://127.0.0.1:1");
        let refused = parse("http://0.0.0.0:1").unwrap_err().to_string();
        assert!(refused.contains("without TLS"), "{refused}");
    }

    #[test]
    fn objects_are_in_files_or_in_kubernetes() {
        let parse = |line: &[&str]| {
            let line = ["bulkhead-controller"].iter().chain(line);
            Args::try_parse_from(line).map(|args| args.config().objects)
        };
        assert_eq!(parse(&["--config", "/c"]).unwrap(), Source::Files("/c".into()));
        let line = ["--kubernetes", "--kubeconfig", "/k", "--replica", "r"];
        let Source::Kubernetes(config) = parse(&line).unwrap() else {
            panic!("they are in Kubernetes");
        };
        assert_eq!((config.kubeconfig, config.identity.as_str()), (Some("/k".into()), "r"));
        for wrong in [&[][..], &["--config", "/c", "--kubernetes"], &["--kubeconfig", "/k"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_of_the_server_are_names() {
        let parse = |name: &str| {
            let line = ["bulkhead-controller", "--config", "/c", "--tls-self-signed", name];
            Args::try_parse_from(line).map(|args| args.trust.tls_self_signed)
        };
        assert_eq!(parse("a.b.svc,10.0.0.1").unwrap(), ["a.b.svc", "10.0.0.1"]);
        assert!(parse("https://a").is_err());
    }
}
