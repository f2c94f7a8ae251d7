//! Brokers side by side: what a connection, a message and an idle session cost each of them, and
//! how fast a CA is shut out.
//!
//! ```text
//! cargo run --release --example portcullis-bench            # everything, some 30 minutes
//! cargo run --release --example portcullis-bench -- connect publish --rounds 3
//! cargo run --release --example portcullis-bench -- --install   # first build peers of crates.io
//! ```
//!
//! Each broker is a process of its own; what is compared is the CPU time that the kernel has counted
//! for it. The contenders take turns, so that what else the machine does meets all of them alike.

// The lint configuration allows these in tests; a benchmark is none.
#![allow(clippy::indexing_slicing)]

mod admin;
mod broker;
mod client;
mod grid;
mod load;
mod machine;
mod measure;
mod pace;
mod pki;
mod plot;
mod process;
mod report;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use broker::Kind;
use broker::floor::FloorArgs;
use measure::{Bench, Measure};

/// What went wrong; nothing here goes on after it.
type Fault = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Fault>;

/// Measure Portcullis beside other brokers, and write docs/benchmarks.md.
#[derive(Debug, Parser)]
#[command(name = "portcullis-bench")]
struct Args {
    /// What to measure [default: everything]
    #[arg(value_enum)]
    measures: Vec<Measure>,
    /// How often each contender has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only these contenders [default: all that are found]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Build the peers that come from crates.io (rmqttd, rumqttd) first; takes a quarter of an hour
    #[arg(long)]
    install: bool,
    /// Smaller loads, to see that everything works; the figures mean little
    #[arg(long)]
    quick: bool,
    /// Print only, and leave docs/ as it is
    #[arg(long)]
    no_write: bool,
    /// Of `publish` and `sparse`, only the cases with this in their name; leaves docs/ as it is
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Another build of the broker to measure
    #[arg(long, value_name = "FILE")]
    portcullis: Option<PathBuf>,
}

/// Besides the benchmark, this program is the floor that brokers are compared with.
#[derive(Debug, Parser)]
#[command(name = "portcullis-bench floor", hide = true)]
struct Floor {
    #[command(flatten)]
    args: FloorArgs,
}

fn main() -> ExitCode {
    let done = match std::env::args_os().nth(1) {
        Some(first) if first == "floor" => {
            broker::floor::serve(&Floor::parse_from(std::env::args_os().skip(1)).args)
        }
        _ => run(&Args::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    process::raise_file_limit()?;
    if args.install {
        broker::install_peers()?;
    }
    let portcullis = match &args.portcullis {
        Some(path) => path.canonicalize()?,
        None => broker::build_portcullis()?,
    };
    let kinds = match args.only.as_slice() {
        [] => Kind::ALL.to_vec(),
        only => only.to_vec(),
    };
    let bench = Bench::new(portcullis, &kinds, args)?;
    println!("{}\n", bench.about());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let measures = match args.measures.as_slice() {
        [] => Measure::ALL,
        some => some,
    };
    for measure in measures {
        let section = runtime.block_on(measure.run(&bench))?;
        print!("{}", section.for_terminal());
        if !args.no_write && args.case.is_none() {
            report::write(*measure, &section, &bench.about())?;
        }
    }
    Ok(())
}
