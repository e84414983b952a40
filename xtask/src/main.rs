//! The project's own build tool: `cargo xtask VERB`. One verb, one file.

mod bench;
mod build_ebpf;
mod cluster;
mod codegen;
mod command;
mod demo;
mod dist;
mod fuzz;
mod kernels;
mod lab;
mod lint;
mod paths;
mod progress;
mod setup;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, set up, check, test and show Bulkhead.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Get what the other verbs need: packages, cargo tools, QEMU.
    Setup(setup::Args),
    /// Build the kernel programs and check the object that comes out.
    BuildEbpf(build_ebpf::Args),
    /// Write the generated files anew, or check that they are current.
    Codegen(codegen::Args),
    /// Formatting, clippy, generated files, licences, the gRPC contract.
    Lint(lint::Args),
    /// Run every test that this kind of machine must run.
    Test(test::Args),
    /// Give arbitrary input, led by coverage, to everything that reads what others wrote.
    Fuzz(fuzz::Args),
    /// Show the whole system at work, and check what it promises.
    Demo(demo::Args),
    /// Install on a real Kubernetes in virtual machines, and check what is promised there.
    Cluster(cluster::Args),
    /// Measure what it costs, each time beside a peer in the same run.
    Bench(bench::Args),
    /// Build what is shipped: static programs, images, an archive of the operators' command.
    Dist(dist::Args),
    /// A throw-away Linux node in a virtual machine.
    Lab(lab::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::BuildEbpf(args) => build_ebpf::run(&args),
        Verb::Codegen(args) => codegen::run(&args),
        Verb::Lint(args) => lint::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Cluster(args) => cluster::verb(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Dist(args) => dist::run(&args),
        Verb::Lab(args) => return lab::run(&args).unwrap_or_else(|error| fail(&error)),
    };
    done.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

/// The one place where an error is shown: the whole chain, outermost first.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
