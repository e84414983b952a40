//! What the virtual clusters really do during a history, told by those who do it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::demo::child::Speaker;
use crate::demo::network::Host;
use crate::demo::world::{World, at};

/// Where prod-b receives what prod-a sends.
const FLOW: u16 = 7101;
/// Where batch accepts what dev sends.
const STREAM: u16 = 7102;
/// Where prod-a listens for what must not come.
pub(crate) const PROBED: u16 = 7103;

/// Headers of a datagram: IPv4 or IPv6, and UDP.
pub(crate) const fn datagram_headers(to: &SocketAddr) -> u64 {
    match to {
        SocketAddr::V4(_) => 20 + 8,
        SocketAddr::V6(_) => 40 + 8,
    }
}

/// Everything that runs in the virtual clusters.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Those who end when nobody sends any more come last.
    running: Vec<(Role, Speaker)>,
}

/// Who somebody is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Role {
    /// dev tries to reach prod, and is refused where it sends.
    RefusedProbe,
    /// batch tries to reach prod, and is refused where it would arrive.
    DroppedProbe,
    /// prod-a sends to prod-b.
    Flow,
    /// prod-b sends to where the probes aim.
    Control,
    /// dev sends to batch.
    Stream,
    /// Burns CPU time in dev.
    BurnDev,
    /// Burns CPU time in prod.
    BurnProd,
    /// Counts what prod-b receives.
    FlowSink,
    /// Counts what batch receives.
    StreamSink,
    /// Counts datagrams where the probes aim.
    ProbedUdp,
    /// Counts connections where the probes aim.
    ProbedTcp,
    /// Connects once to where the probes aim, after them.
    Control4,
    /// The same by IPv6.
    Control6,
    /// A guest sends to prod-a, from prod-b's host.
    GuestFlow,
    /// Counts what prod-a receives of it.
    GuestSink,
}

impl Role {
    /// In the order in which they end; they start in the opposite one.
    const ALL: [Self; 11] = [
        Self::RefusedProbe,
        Self::DroppedProbe,
        Self::Flow,
        Self::Control,
        Self::Stream,
        Self::BurnDev,
        Self::BurnProd,
        Self::FlowSink,
        Self::StreamSink,
        Self::ProbedUdp,
        Self::ProbedTcp,
    ];

    /// Where it lives.
    pub(crate) const fn host(self) -> Host {
        match self {
            Self::RefusedProbe | Self::Stream | Self::BurnDev => Host::Dev,
            Self::DroppedProbe | Self::StreamSink => Host::Batch,
            Self::Flow | Self::BurnProd | Self::ProbedUdp | Self::ProbedTcp | Self::GuestSink => {
                Host::ProdA
            }
            Self::Control | Self::FlowSink | Self::Control4 | Self::Control6 | Self::GuestFlow => {
                Host::ProdB
            }
        }
    }

    /// Its program and what it is told; `None`: it is there in some histories only.
    fn line(self) -> Option<(&'static str, String)> {
        let both = |host: Host, port| [at(host.v4(), port), at(host.v6(), port)];
        let to = |flag: &str, all: &[SocketAddr]| {
            let all: Vec<String> = all.iter().map(|to| format!("{flag} {to}")).collect();
            all.join(" ")
        };
        let probed = both(Host::ProdA, PROBED);
        let mapped = [probed[0], probed[1], at(Host::ProdA.mapped(), PROBED)];
        let program = match self {
            Self::BurnDev | Self::BurnProd => "bh-load",
            _ => "bh-traffic",
        };
        let line = match self {
            Self::RefusedProbe => {
                format!("probe {} {} --pause-us 2500", to("--tcp", &mapped), to("--udp", &mapped))
            }
            Self::DroppedProbe => {
                format!("probe {} {} --pause-us 5000", to("--tcp", &probed), to("--udp", &probed))
            }
            Self::Flow => {
                format!("udp-flow {} --bytes 400", to("--to", &both(Host::ProdB, FLOW)))
            }
            Self::Control => format!("udp-flow {} --pause-us 10000", to("--to", &probed)),
            Self::Stream => format!("tcp-flow {}", to("--to", &both(Host::Batch, STREAM))),
            Self::BurnDev => "burn --percent 12".to_owned(),
            Self::BurnProd => "burn --percent 6".to_owned(),
            Self::FlowSink => format!("udp-count --bind [::]:{FLOW}"),
            Self::StreamSink => format!("tcp-serve --bind [::]:{STREAM}"),
            Self::ProbedUdp => format!("udp-count --bind [::]:{PROBED}"),
            Self::ProbedTcp => format!("tcp-serve --bind [::]:{PROBED}"),
            Self::Control4 | Self::Control6 | Self::GuestFlow | Self::GuestSink => return None,
        };
        Some((program, line))
    }
}

impl Traffic {
    /// Starts everybody, receivers first, and returns when all are at it.
    pub(crate) fn start(world: &World) -> Result<Self> {
        let mut running = Vec::new();
        for role in Role::ALL.into_iter().rev() {
            let (program, line) = role.line().context("nobody starts it")?;
            let mut speaker = world.start(role.host(), program, &line)?;
            speaker.next()?;
            running.push((role, speaker));
        }
        running.reverse();
        Ok(Self { running })
    }

    /// Ends everybody, senders first, and gives what each says. `but`: lives on.
    pub(crate) fn end(self, but: Role) -> Result<(Truth, Speaker)> {
        let mut said = BTreeMap::new();
        let mut kept = None;
        for (role, speaker) in self.running {
            if role == but {
                kept = Some(speaker);
            } else {
                let last = speaker.finish().with_context(|| format!("{role:?}"))?;
                said.insert(role, last);
            }
        }
        Ok((Truth { said }, kept.context("it was not started")?))
    }
}

/// What everybody said at the end.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    said: BTreeMap<Role, Value>,
}

impl Truth {
    /// Adds what somebody said later.
    pub(crate) fn add(&mut self, role: Role, said: Value) {
        self.said.insert(role, said);
    }

    /// Whether somebody was there.
    pub(crate) fn knows(&self, role: Role) -> bool {
        self.said.contains_key(&role)
    }

    /// What somebody said.
    pub(crate) fn of(&self, role: Role) -> &Value {
        self.said.get(&role).unwrap_or(&Value::Null)
    }

    /// CPU time of everybody in a virtual cluster, microseconds, and how many they are.
    pub(crate) fn cpu_us(&self, virtual_cluster: &str) -> Result<(u64, u64)> {
        let mut sum = (0, 0);
        for (role, said) in &self.said {
            if *role != Role::GuestFlow && role.host().virtual_cluster() == virtual_cluster {
                let cpu = said["cpu_us"].as_u64().with_context(|| format!("{role:?}: {said}"))?;
                sum = (sum.0 + cpu, sum.1 + 1);
            }
        }
        Ok(sum)
    }

    /// Datagrams that somebody gave to the network, IP packets and bytes; and the errors.
    pub(crate) fn datagrams(&self, role: Role) -> Result<Datagrams> {
        let said = self.of(role);
        let payload = said["payload"].as_u64().context("no payload")?;
        let mut sum = Datagrams::default();
        let flows = said["flows"].as_array().or(said["sends"].as_array());
        for flow in flows.context("no flows")? {
            let to: SocketAddr = flow["to"].as_str().context("no address")?.parse()?;
            let sent = flow["sent"].as_u64().or(flow["probes"]["done"].as_u64());
            let sent = sent.context("not sent")?;
            sum.packets += sent;
            sum.bytes += sent * (payload + datagram_headers(&to));
            for errors in [&flow["errors"], &flow["probes"]["errors"]] {
                for (name, count) in errors.as_object().into_iter().flatten() {
                    *sum.errors.entry(name.clone()).or_default() += count.as_u64().unwrap_or(0);
                }
            }
        }
        Ok(sum)
    }

    /// Who sent to a receiver of datagrams, and how many arrived.
    pub(crate) fn received(&self, role: Role) -> BTreeMap<String, u64> {
        let from = self.of(role)["from"].as_object().cloned().unwrap_or_default();
        from.into_iter()
            .map(|(ip, counts)| (ip, counts["received"].as_u64().unwrap_or(0)))
            .collect()
    }
}

/// Datagrams as IP packets.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Datagrams {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: BTreeMap<String, u64>,
}
